import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import {
  ANNOTATION,
  commandLine,
  containerId,
  FakeNode,
  Layout,
  LAYOUTS,
  newPod,
  podUid,
  Qos,
  SYSTEMD,
} from '../support/agent';
import { Container, Pod, Scene } from './scene';

// What the contract says: which containers get which value, and that nothing else is written. That is
// looked at after every test of the script: see scene.ts.

const CRI_O = LAYOUTS['systemd driver, CRI-O'] as Layout;
const QOS = ['guaranteed', 'burstable', 'besteffort'] as const;
const scene = Scene.use();

/** How often a container was written, by its name or, before there is a link, by its id. */
const writes = (written: Container, name: string) =>
  scene.agent
    .logged('kill mode written')
    .filter(({ container }) => container === name || container === written.short).length;

describe('a mode', () => {
  test.each(Object.entries(LAYOUTS))('reaches the pods of each class, %s', async (_, layout) => {
    const node = new FakeNode(layout);
    scene.start({}, node);
    const pods = ['Single', 'Group'].flatMap((mode) => QOS.map((qos) => scene.pod(mode, {}, qos)));
    const early = pods.map((pod) => pod.create('1'));
    pods.forEach((pod) => {
      pod.opt();
    });
    await scene.become('000111', ...early);
    await scene.agent.ready();
    const late = pods.map((pod) => pod.create('0'));
    late.slice(0, 3).forEach(({ cgroup }) => {
      node.write(cgroup, '1');
    });
    await scene.become('000111', ...late);
    await scene.drift('000111000111', ...early, ...late);
    pods.forEach((pod) => {
      pod.optOut();
    });
    await scene.become('1'.repeat(12), ...early, ...late);
    expect(scene.agent.logged('cgroups found')).toMatchObject([
      { driver: layout.pod('', 'burstable').endsWith('.slice') ? 'systemd' : 'cgroupfs' },
    ]);
  });

  test('is written after the runtime has, as often as it has', async () => {
    await scene.ready();
    const pod = scene.optIn('Single');
    for (let n = 0; n < 10; n += 1) {
      const container = pod.create('0');
      await new Promise((done) => setTimeout(done, n * 10));
      for (const value of ['0', '0', '1']) {
        scene.node.write(container.cgroup, value);
      }
      await scene.become('0', container);
    }
  });

  test('is defended in either direction, and its own writes are not answered', async () => {
    await scene.ready();
    const [single] = (await scene.protect('Single', 'one')) as [Container];
    const group = scene.optIn('Group').run('two', '0');
    await scene.become('1', group);
    for (let n = 0; n < 20; n += 1) {
      await scene.drift('01', single, group);
    }
    await scene.settle();
    expect([writes(single, 'one'), writes(group, 'two')]).toEqual([21, 21]);
  });

  test.each(['the label goes', 'the pod ends'])(
    'goes when %s, and the containers get the value of the node',
    async (why) => {
      await scene.ready();
      const pod = scene.optIn('Single');
      const [named, nameless] = [pod.run('app'), pod.create()];
      await scene.become('00', named, nameless);
      if (why === 'the pod ends') scene.api.endPod(pod.metadata.uid);
      else pod.optOut();
      await scene.become('11', named, nameless);
      scene.node.write(named.cgroup, '0');
      const late = pod.create('0');
      await scene.settle();
      expect(scene.values([named, late])).toBe('00');
      pod.opt();
      await scene.become('000', named, nameless, late);
    },
  );

  test('goes and leaves a sandbox that was never written, whichever agent wrote the others', async () => {
    await scene.ready();
    const pod = scene.optIn('Single');
    const sandbox = scene.node.createSandbox(pod.cgroup);
    const app = pod.run('app');
    await scene.become('0', app);
    await scene.agent.stop('SIGKILL');
    await scene.ready();
    await scene.settle();
    pod.optOut();
    await scene.become('1', app);
    await scene.settle();
    expect(scene.node.read(sandbox)).toBe('0');
  });

  test('stays with what runs of a pod that is deleted by force, until its cgroup is gone', async () => {
    await scene.ready({ RESYNC_SECONDS: '1' });
    const pod = scene.optIn('Single', 'side=Group');
    const [app, side] = [pod.run('app'), pod.run('side', '0')];
    await scene.become('01', app, side);
    scene.api.deletePod(pod.metadata.uid);
    await scene.settle();
    await scene.drift('01', app, side);
    // Another watch does not tell of it, and its bookmark does not mean it.
    scene.api.endWatches();
    await scene.eventually('a watch', () => scene.agent.logged('watch of').length === 2);
    await scene.settle();
    await scene.drift('01', app, side);
    scene.node.vanish(pod.cgroup);
    await scene.agent.ticks(3);
    // Nobody knows the next one of this UID.
    const { cgroup } = new Pod(scene, pod.metadata);
    const next = scene.node.createContainer(cgroup, containerId(), '1');
    await scene.settle();
    expect(scene.node.read(next)).toBe('1');
  });

  test.each(['0', '1'])(
    'is replaced by %s when it goes, on a node that gives containers this value',
    async (value) => {
      await scene.ready({}, new FakeNode(SYSTEMD, { nodeValue: value }));
      expect(scene.agent.logged('cgroups found')).toMatchObject([{ nodeValue: value }]);
      const [single, group] = [scene.optIn('Single'), scene.optIn('Group')];
      const containers = [single.create('1'), group.create('0')];
      await scene.become('01', ...containers);
      single.optOut();
      group.opt('neither');
      await scene.become(value + value, ...containers);
    },
  );

  test('can be changed on a running pod', async () => {
    await scene.ready();
    const pod = scene.optIn('Single');
    const container = pod.run('app');
    for (const [mode, value] of [
      ['Group', '1'],
      ['Single', '0'],
      ['Group', '1'],
    ] as const) {
      pod.opt(mode);
      await scene.become(value, container);
      await scene.drift(value, container);
    }
    expect(scene.agent.logged('pod changed')).toHaveLength(3);
  });

  test('comes and goes ten times, and a pod that is made again under its name is another', async () => {
    await scene.ready();
    const pod = scene.pod('Single');
    const container = pod.run('app');
    for (let n = 0; n < 10; n += 1) {
      pod.opt();
      await scene.become('0', container);
      await scene.drift('0', container);
      pod.optOut();
      await scene.become('1', container);
    }
    const again = scene.optIn('Single', '', { name: pod.metadata.name }).run('app');
    await scene.become('01', again, container);
  });

  test('is that of each container that starts in the pod, also of a restarted one', async () => {
    await scene.ready();
    const pod = scene.optIn('Single');
    for (let n = 0; n < 5; n += 1) {
      const container = pod.run('app');
      await scene.become('0', container);
      container.end();
    }
  });

  test("is given on crun's level of the first container too, and nowhere else in it or beside it", async () => {
    const node = new FakeNode(CRI_O, { nodeValue: '1' });
    await scene.ready({}, node);
    expect(scene.agent.logged('cgroups found')).toMatchObject([{ nodeValue: '1' }]);
    const pod = scene.optIn('Single', 'worker=Group');
    const id = containerId();
    const scope = node.createCgroup(`${pod.cgroup}/${node.layout.container(id)}`, '1');
    for (const path of [
      `${pod.cgroup}/crio-conmon-${id}.scope`,
      `${pod.cgroup}/something-else.scope`,
      `${pod.cgroup}/${'g'.repeat(64)}`,
      `${scope}/system.slice`,
      `${scope}/${containerId()}`,
    ]) {
      node.createCgroup(path, '1');
    }
    await scene.eventually('0', () => node.read(scope) === '0');
    // By then only inotify tells of what is new.
    await scene.eventually('an inotifyd', () =>
      scene.agent.running('inotifyd').some((pid) => commandLine(pid).includes(id)),
    );
    await scene.agent.ticks(2);
    const level = node.createCgroup(`${scope}/container`, '1');
    node.createCgroup(`${level}/container`, '1');
    const both = () => node.read(scope) + node.read(level);
    await scene.eventually('00', () => both() === '00');
    node.write(level, '1');
    await scene.eventually('00 again', () => both() === '00');
    node.createLog(pod.metadata, 'worker', id);
    await scene.eventually('11', () => both() === '11');
    pod.opt('Group', '');
    node.write(level, '0');
    await scene.eventually('11 again', () => both() === '11');
    await scene.settle();
  });

  test("reaches crun's child whose files appear after its directory", async () => {
    const node = new FakeNode(CRI_O);
    // No periodic look finds it.
    await scene.ready({ RESYNC_SECONDS: '600' }, node);
    const pod = scene.optIn('Single');
    const id = containerId();
    const scope = node.createCgroup(`${pod.cgroup}/${node.layout.container(id)}`, '0');
    await scene.eventually('an inotifyd', () =>
      scene.agent.running('inotifyd').some((pid) => commandLine(pid).includes(id)),
    );
    await scene.settle();
    const child = join(node.cgroupRoot, scope, 'container');
    mkdirSync(child);
    await scene.agent.ticks(5);
    writeFileSync(join(child, 'memory.oom.group'), '1\n');
    await scene.eventually('0', () => node.read(`${scope}/container`) === '0');
  });

  test('reaches a static pod by the hash in its mirror pod, and nobody by another UID', async () => {
    await scene.ready();
    const hash = '0123456789abcdef0123456789abcdef';
    const mirror = scene.optIn('Single', '', {
      annotations: { 'kubernetes.io/config.mirror': hash },
    });
    const container = mirror.run('etcd');
    const victim = scene.pod();
    const ordinary = victim.run('app');
    const claims = { 'kubernetes.io/config.mirror': victim.metadata.uid };
    scene.api.setPod({ ...mirror.metadata, uid: podUid(), annotations: claims });
    await scene.become('0', container);
    await scene.settle();
    expect(ordinary.value).toBe('1');
    // The kubelet makes a mirror pod again that somebody deletes, and the containers run on.
    scene.api.deletePod(mirror.metadata.uid);
    await scene.settle();
    mirror.metadata = { ...mirror.metadata, uid: podUid() };
    mirror.opt();
    await scene.settle();
    await scene.drift('0', container);
    // It was let go at no time.
    await scene.eventually('two writes', () => writes(container, 'etcd') === 2);
    mirror.optOut();
    await scene.become('1', container);
  });

  test('is found from a Guaranteed pod of its own', async () => {
    await scene.ready({}, new FakeNode(SYSTEMD, { ownQos: 'guaranteed' }));
    await scene.protect();
  });

  test.each(
    (['systemd driver, containerd', 'cgroupfs driver, containerd'] as const).flatMap((layout) =>
      (['guaranteed', 'burstable', 'system-guaranteed', 'system-besteffort'] as const).map(
        (own) => [layout, own] as const,
      ),
    ),
  )(
    'reaches pods on either side of the level of system pods, %s, from a pod that is %s',
    async (layout, ownQos) => {
      const node = new FakeNode(LAYOUTS[layout] as Layout, { ownQos, system: true });
      await scene.ready({}, node);
      const places: Qos[] = [...QOS, ...QOS.map((qos): Qos => `system-${qos}`)];
      const pods = places.map((qos) => scene.pod('Single', {}, qos));
      const early = pods.map((pod) => pod.run('early'));
      pods.forEach((pod) => {
        pod.opt();
      });
      await scene.become('000000', ...early);
      await scene.settle();
      const late = pods.map((pod) => pod.run('late'));
      await scene.become('000000', ...late);
      await scene.drift('000000000000', ...early, ...late);
      // Told of before there is anything of it.
      const told = places.map((qos) => {
        const pod = newPod('Single');
        scene.announce(pod, node.layout.pod(pod.uid, qos));
        return { ...pod, qos };
      });
      await scene.settle();
      const first = told.map(({ uid, qos }) =>
        node.createContainer(node.createPod(uid, qos), containerId(), '1'),
      );
      const values = () => first.map((container) => node.read(container)).join('');
      await scene.eventually('000000', () => values() === '000000');
    },
  );

  test('needs no write where it is there when the agent starts, nor does an override', async () => {
    await scene.ready();
    const pod = scene.optIn('Single', 'worker=Group,proxy=Group');
    const containers = ['app', 'worker', 'proxy'].map((name) => pod.run(name));
    await scene.become('011', ...containers);
    await scene.agent.stop('SIGKILL');
    await scene.ready();
    await scene.settle();
    const others = scene.agent
      .logged('kill mode written')
      .filter(({ container }) => !container?.startsWith('marker-'));
    expect(others).toEqual([]);
    await scene.drift('011', ...containers);
    await scene.agent.stop('SIGKILL');
    pod.opt('Single', 'worker=Group,app=Group');
    scene.start();
    await scene.become('110', ...containers);
  });

  test('has the label and the annotation of another prefix', async () => {
    const prefix = 'oom.example.com';
    await scene.ready({ LABEL_PREFIX: prefix });
    const foreign = scene.pod('Single').create();
    const pod = scene.pod(undefined, {
      labels: { [`${prefix}/mode`]: 'Single' },
      annotations: { [`${prefix}/containers`]: 'b=Group', [ANNOTATION]: 'a=Group' },
    });
    pod.opt();
    const containers = ['a', 'b'].map((name) => pod.run(name));
    await scene.become('011', ...containers, foreign);
  });
});

describe('an override', () => {
  const become = (wanted: string, ...containers: Container[]) =>
    scene.become(wanted, ...containers);

  test('follows init containers one after the other, and the containers after them', async () => {
    await scene.ready();
    const pod = scene.optIn('Single', 'setup=Group, app=Group');
    for (const [name, value] of [
      ['setup', '1'],
      ['migrate', '0'],
    ] as const) {
      const init = pod.create();
      await become('0', init);
      init.link(name);
      await become(value, init);
      await scene.drift(value, init);
      init.end();
    }
    const [app, helper] = [pod.create(), pod.create()];
    await become('00', app, helper);
    helper.link('helper');
    app.link('app');
    await scene.drift('10', app, helper);
  });

  test('stays with a sidecar while the containers beside it come, end and come again', async () => {
    await scene.ready();
    const pod = scene.optIn('Group', 'proxy=Single');
    let proxy = pod.run('proxy');
    await become('0', proxy);
    for (let n = 0; n < 3; n += 1) {
      const init = pod.run(`init-${n}`, '0');
      await become('10', init, proxy);
      init.end();
    }
    const app = pod.run('app', '0');
    await become('01', proxy, app);
    proxy.end();
    proxy = pod.run('proxy');
    await become('01', proxy, app);
    await scene.drift('01', proxy, app);
  });

  test('reaches an ephemeral container that joins a running pod, named before or after', async () => {
    await scene.ready();
    const pod = scene.optIn('Single', 'debugger-1=Group');
    const app = pod.run('app');
    await become('0', app);
    const [first, second] = [pod.run('debugger-1', '0'), pod.run('debugger-2')];
    await become('010', app, first, second);
    pod.opt('Single', 'debugger-1=Group,debugger-2=Group');
    await become('011', app, first, second);
    await scene.drift('011', app, first, second);
  });

  test('tells pods, namespaces and containers apart whose names begin alike', async () => {
    await scene.ready();
    const names = ['web', 'web-1', 'web-1-a', 'w'];
    const pods = (
      [
        ['app', 'team', 'web=Group', '1000'],
        ['app-web', 'team', 'web-1=Group', '0100'],
        ['app', 'team-app', 'web-1-a=Group', '0010'],
        ['team', 'app', '', '0000'],
        ['app-team', 'web', 'w=Group', '0001'],
        ['ap', 'team', 'w=Group,web=Group', '1001'],
        ['app.web', 'team', 'web-1=Group,web-1-a=Group', '0110'],
        ['app', 'tea', 'app=Group,team=Group', '0000'],
      ] as const
    ).map(([name, namespace, overrides, wanted]) => ({
      pod: scene.optIn('Single', overrides, { name, namespace }),
      wanted,
    }));
    const early = pods.flatMap(({ pod }) => names.map((name) => pod.run(name)));
    const wanted = pods.map((entry) => entry.wanted).join('');
    await become(wanted, ...early);
    const late = pods.flatMap(({ pod }) => names.map((name) => pod.run(name)));
    await become(wanted + wanted, ...early, ...late);
    await scene.settle();
    expect(scene.values([...early, ...late])).toBe(wanted + wanted);
  });

  test('follows a container through ten restarts and leaves the one beside it alone', async () => {
    await scene.ready();
    const pod = scene.optIn('Single', 'worker=Group');
    const app = pod.run('app');
    await become('0', app);
    for (let n = 0; n < 10; n += 1) {
      const worker = pod.create();
      await become('0', worker);
      worker.link('worker');
      await become('10', worker, app);
      await scene.drift('1', worker);
      worker.end();
    }
    expect(writes(app, 'app')).toBe(1);
    expect(readdirSync(scene.node.logs)).toHaveLength(11);
  });

  test("lets the pod's mode stand until the link to the log comes, or if it never does", async () => {
    await scene.ready({ RESYNC_SECONDS: '1' });
    const pod = scene.optIn('Single', 'worker=Group');
    const [late, never] = [pod.create(), pod.create()];
    await become('00', late, never);
    for (let n = 0; n < 3; n += 1) {
      await scene.agent.ticks();
      await scene.drift('00', late, never);
    }
    late.link('worker');
    await become('10', late, never);
    await scene.drift('10', late, never);
  });

  test('does not depend on the order of the link, the cgroup, the pod and its annotation', async () => {
    await scene.ready();
    const link = (pod: Pod, id: string) => {
      scene.node.createLog(pod.metadata, 'worker', id);
    };
    const orders = ['lpc', 'lcp', 'plc', 'pcl', 'clp', 'cpl'].map((order) => {
      const pod = scene.pod('Single');
      const id = containerId();
      let container: Container | undefined;
      return {
        order,
        pod,
        id,
        step: (step: string) => {
          if (step === 'l') link(pod, id);
          if (step === 'p') pod.opt('Single', 'worker=Group');
          if (step === 'c') container = pod.create('1', id);
          return container;
        },
      };
    });
    for (const n of [0, 1, 2]) {
      orders.forEach(({ order, step }) => step(order[n] as string));
      await scene.agent.ticks();
    }
    const containers = orders.map(({ step }) => step('') as Container);
    await become('111111', ...containers);
    await scene.drift('111111', ...containers);
  });

  test('can be changed and removed on a running pod, and so can the mode of the pod', async () => {
    await scene.ready();
    const pod = scene.optIn('Single', 'worker=Single');
    const [app, worker] = [pod.run('app'), pod.run('worker')];
    await become('00', app, worker);
    for (const [mode, overrides, wanted] of [
      ['Single', 'worker=Group', '01'],
      ['Group', 'worker=Group', '11'],
      ['Group', 'worker=Single', '10'],
      ['Single', 'worker=Group,app=Single', '01'],
      ['Group', 'app=Single', '01'],
      ['Group', '', '11'],
      ['Single', 'worker=Group', '01'],
    ] as const) {
      pod.opt(mode, overrides);
      await become(wanted, app, worker);
      await scene.drift(wanted, app, worker);
    }
    pod.optOut();
    await become('11', app, worker);
  });

  test('counts if it is well-formed, whatever stands beside it', async () => {
    await scene.ready();
    const overrides = [
      ...['=', 'app=group', 'worker = Group', ' worker=Group ', 'app==Group', '*=Group'],
      ...['ap?=Group', 'app=Group=Group', 'App=Group', `${'a'.repeat(64)}=Group`, '../app=Group'],
      ...['twice=Single', 'twice=Group', 'app=Group\u00a0', '', 'missing=Group'],
    ];
    const pod = scene.optIn('Single', overrides.join(','));
    const containers = ['app', 'worker', 'twice'].map((name) => pod.run(name));
    await become('011', ...containers);
    await scene.settle();
    expect(scene.values(containers)).toBe('011');
    await become('1', pod.run('missing'));
  });

  test('finds the name in a log name that the kubelet cut, as long as enough of the id is left', async () => {
    await scene.ready();
    // 251 characters are the name's, 9 of which are "_default_", and one is the dash before the id.
    const enough = scene.optIn('Single', 'worker=Group', { name: 'p'.repeat(251 - 9 - 7 - 12) });
    const nothing = scene.optIn('Single', 'worker=Group', { name: 'r'.repeat(253) });
    const containers = [enough.run('worker'), enough.run('app'), nothing.run('worker')];
    await become('100', ...containers);
    await scene.drift('100', ...containers);
  });
});
