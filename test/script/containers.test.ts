import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';

import {
  Agent,
  ANNOTATION,
  aWhile,
  containerId,
  eventually,
  FakeNode,
  LABEL,
  Layout,
  LAYOUTS,
  newPod,
  podUid,
  requireTools,
  SHELLS,
  SYSTEMD,
} from '../support/agent';
import { FakeApiServer, PodMetadata } from '../support/api-server';

// What an override of the annotation does to a container in every situation that a container can be in.

const CGROUPFS = LAYOUTS['cgroupfs driver, containerd'] as Layout;

jest.setTimeout(60_000);

beforeAll(requireTools);

describe.each(Object.entries(SHELLS))('overrides under %s', (_, shell) => {
  let api: FakeApiServer;
  let node: FakeNode;
  let agent: Agent;

  beforeEach(async () => {
    api = await FakeApiServer.start();
  });

  afterEach(async () => {
    await agent.stop('SIGKILL');
    await api.stop();
    expect(agent.errors).toBe('');
    node.remove();
  });

  async function start(
    options: { layout?: Layout; nodeValue?: string; environment?: Record<string, string> } = {},
  ): Promise<void> {
    node = new FakeNode(options.layout ?? SYSTEMD, { nodeValue: options.nodeValue });
    agent = new Agent(node, api, shell, options.environment);
    await agent.ready();
  }

  /** A pod that opted in, whose sandbox runs. */
  class Pod {
    public readonly directory: string;
    private metadata: PodMetadata;

    public constructor(mode: string, overrides: string, more: Partial<PodMetadata> = {}) {
      this.metadata = newPod(mode, more);
      this.directory = node.createPod(this.metadata.uid);
      this.opt(mode, overrides);
    }

    /** Gives the pod another mode, or other overrides. */
    public opt(mode: string, overrides: string): void {
      const annotations: Record<string, string> =
        overrides === '' ? {} : { [ANNOTATION]: overrides };
      this.metadata = { ...this.metadata, labels: { [LABEL]: mode }, annotations };
      api.setPod(this.metadata);
    }

    public optOut(): void {
      api.removeLabel(this.metadata.uid);
    }

    /** Starts a container up to where runc has written 1; its name cannot be known yet. */
    public create(): Container {
      const id = containerId();
      return new Container(this.metadata, node.createContainer(this.directory, id, '1'), id);
    }

    /** Starts a container with everything that the runtime and the kubelet do. */
    public run(name: string): Container {
      const container = this.create();
      container.link(name);
      return container;
    }
  }

  class Container {
    public constructor(
      private readonly pod: PodMetadata,
      public readonly cgroup: string,
      public readonly id: string,
    ) {}

    /** The kubelet makes the link to the container's log. */
    public link(name: string): void {
      node.createLog(this.pod, name, this.id);
    }

    /** The container ends; the kubelet keeps the log of a dead container, and so the link. */
    public end(): void {
      node.removeCgroup(this.cgroup);
    }

    /** How often the agent said that it wrote the container's mode. */
    public get writes(): number {
      const start = this.id.slice(0, 8);
      return agent
        .logged('kill mode written')
        .filter(({ container }) => container === start || container === `${start}c`).length;
    }
  }

  const values = (cgroups: (Container | string)[]) =>
    cgroups.map((one) => node.read(typeof one === 'string' ? one : one.cgroup)).join('');

  /** Waits until the containers have these values, one digit each. */
  const become = (wanted: string, ...cgroups: (Container | string)[]) =>
    eventually(wanted, () => values(cgroups) === wanted, agent);

  /** Makes drift of every container and waits for the repair. */
  async function drift(wanted: string, ...cgroups: Container[]): Promise<void> {
    cgroups.forEach(({ cgroup }, i) => {
      node.write(cgroup, wanted[i] === '1' ? '0' : '1');
    });
    await become(wanted, ...cgroups);
  }

  test('follow init containers one after the other, and the containers after them', async () => {
    await start();
    const pod = new Pod('Single', 'setup=Group,app=Group');
    for (const [name, value] of [
      ['setup', '1'],
      ['migrate', '0'],
    ] as const) {
      const init = pod.create();
      await become('0', init);
      init.link(name);
      await become(value, init);
      await drift(value, init);
      init.end();
    }
    const [app, helper] = [pod.create(), pod.create()];
    await become('00', app, helper);
    helper.link('helper');
    app.link('app');
    await become('10', app, helper);
    await drift('10', app, helper);
    expect(node.read(node.sandbox(pod.directory))).toBe('0');
  });

  test('stay with a sidecar while the containers beside it come, end and come again', async () => {
    await start();
    const pod = new Pod('Group', 'proxy=Single');
    let proxy = pod.run('proxy');
    await become('0', proxy);
    for (let n = 0; n < 3; n += 1) {
      const init = pod.run(`init-${n}`);
      await become('10', init, proxy);
      init.end();
    }
    let app = pod.run('app');
    await become('01', proxy, app);
    proxy.end();
    proxy = pod.run('proxy');
    await become('01', proxy, app);
    app.end();
    app = pod.run('app');
    await become('01', proxy, app);
    await drift('01', proxy, app);
  });

  test('reach an ephemeral container that joins a running pod, named before or after', async () => {
    await start();
    const pod = new Pod('Single', 'debugger-1=Group');
    const app = pod.run('app');
    await become('0', app);
    const first = pod.run('debugger-1');
    const second = pod.run('debugger-2');
    await become('010', app, first, second);
    pod.opt('Single', 'debugger-1=Group,debugger-2=Group');
    await become('011', app, first, second);
    await drift('011', app, first, second);
    await eventually('two writes', () => app.writes === 2, agent);
  });

  test('tell pods, namespaces and containers apart whose names begin alike', async () => {
    await start();
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
      pod: new Pod('Single', overrides, { name, namespace }),
      wanted,
    }));
    const early = pods.flatMap(({ pod }) => names.map((name) => pod.run(name)));
    const wanted = pods.map((entry) => entry.wanted).join('');
    await become(wanted, ...early);
    await aWhile();
    expect(values(early)).toBe(wanted);
    const late = pods.flatMap(({ pod }) => names.map((name) => pod.run(name)));
    await become(wanted + wanted, ...early, ...late);
  });

  test('follow a container through ten restarts and leave the one beside it alone', async () => {
    await start();
    const pod = new Pod('Single', 'worker=Group');
    const app = pod.run('app');
    await become('0', app);
    for (let n = 0; n < 10; n += 1) {
      const worker = pod.create();
      await become('0', worker);
      worker.link('worker');
      await become('10', worker, app);
      await drift('1', worker);
      worker.end();
    }
    expect(app.writes).toBe(1);
    expect(readdirSync(node.logs)).toHaveLength(11);
  });

  test("let the pod's mode stand until the link to the log comes, seconds later", async () => {
    await start();
    const pod = new Pod('Single', 'worker=Group');
    const worker = pod.create();
    await become('0', worker);
    for (let n = 0; n < 3; n += 1) {
      await aWhile(1000);
      await drift('0', worker);
    }
    worker.link('worker');
    await become('1', worker);
  });

  test("let the pod's mode stand if the link never comes, through every check", async () => {
    await start({ environment: { RESYNC_SECONDS: '1' } });
    const pod = new Pod('Single', 'worker=Group');
    const [nameless, worker] = [pod.create(), pod.run('worker')];
    await become('01', nameless, worker);
    for (let n = 0; n < 3; n += 1) {
      await aWhile(1100);
      await drift('01', nameless, worker);
    }
    await eventually('one write for each drift', () => nameless.writes === 4, agent);
  });

  test('do not depend on the order of the link, the cgroup, the pod and its annotation', async () => {
    await start();
    const id = containerId();
    const uid = podUid();
    const metadata = { uid, name: 'pod', namespace: 'default' };
    const annotations = { [ANNOTATION]: 'worker=Group' };
    node.createLog(metadata, 'worker', id);
    await aWhile(100);
    api.setPod({ ...metadata, labels: { [LABEL]: 'Single' }, annotations });
    await aWhile(100);
    const directory = node.createPod(uid);
    await aWhile(100);
    const worker = node.createContainer(directory, id, '0');
    await become('1', worker);
  });

  test('can be changed and removed on a running pod, and so can the mode below them', async () => {
    await start();
    const pod = new Pod('Single', 'worker=Single');
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
      await drift(wanted, app, worker);
    }
  });

  test('are ignored for a container that the pod does not have', async () => {
    await start();
    const pod = new Pod('Single', 'other=Group,a.b=Group,missing=Group');
    const neighbour = new Pod('Single', '');
    const [app, other] = [pod.run('app'), neighbour.run('other')];
    await become('00', app, other);
    await aWhile();
    expect(values([app, other])).toBe('00');
    const late = pod.run('missing');
    await become('1', late);
  });

  test('count if they are well-formed, whatever stands beside them', async () => {
    await start();
    const overrides = [
      '=',
      'app=group',
      'worker = Group',
      ' worker=Group ',
      'app==Group',
      '*=Group',
      'ap?=Group',
      'app=Group=Group',
      'App=Group',
      `${'a'.repeat(64)}=Group`,
      '../app=Group',
      'twice=Single',
      'twice=Group',
      'app=Group\u00a0',
      '',
    ];
    const pod = new Pod('Single', overrides.join(','));
    const containers = ['app', 'worker', 'twice'].map((name) => pod.run(name));
    await become('011', ...containers);
    await aWhile();
    expect(values(containers)).toBe('011');
    expect(agent.logged('has an entry that is not')).toHaveLength(1);
  });

  test.each(Object.entries(LAYOUTS))('work with the %s', async (_name, layout) => {
    await start({ layout });
    const pod = new Pod('Single', 'worker=Group');
    const [app, worker] = [pod.run('app'), pod.create()];
    await become('00', app, worker);
    worker.link('worker');
    await become('01', app, worker);
    await drift('01', app, worker);
    pod.optOut();
    await become('11', app, worker);
  });

  test.each([
    ['systemd', LAYOUTS['systemd driver, CRI-O'] as Layout],
    ['cgroupfs', LAYOUTS['cgroupfs driver, CRI-O'] as Layout],
  ])("reach crun's level below the container, %s driver", async (_name, layout) => {
    node = new FakeNode(layout);
    node.createCgroup(`${node.own}/container`, '1');
    agent = new Agent(node, api, shell);
    await agent.ready();
    const pod = new Pod('Single', 'worker=Group');
    const worker = pod.create();
    const inner = node.createCgroup(join(worker.cgroup, 'container'), '1');
    await become('00', worker, inner);
    worker.link('worker');
    await become('11', worker, inner);
    node.write(inner, '0');
    await become('11', worker, inner);
    const again = pod.run('worker');
    await become('1', again);
    const innerAgain = node.createCgroup(join(again.cgroup, 'container'), '0');
    await become('11', again, innerAgain);
    pod.opt('Single', '');
    await become('0000', worker, inner, again, innerAgain);
  });

  test('are defended in each direction', async () => {
    await start();
    const pods = [
      new Pod('Single', 'worker=Group,odd=Single'),
      new Pod('Group', 'worker=Single,odd=Group'),
    ];
    const containers = pods.flatMap((pod) => ['app', 'worker', 'odd'].map((name) => pod.run(name)));
    await become('010101', ...containers);
    for (let n = 0; n < 10; n += 1) {
      await drift('010101', ...containers);
    }
    await aWhile();
    const lines = agent.log.length;
    await aWhile();
    expect(agent.log).toHaveLength(lines);
  });

  test.each(['0', '1'])('end with the label: the value of the node, %s, for all', async (value) => {
    await start({ nodeValue: value });
    const pod = new Pod('Single', 'worker=Group');
    const containers = ['app', 'worker'].map((name) => pod.run(name));
    await become('01', ...containers);
    pod.optOut();
    await become(value + value, ...containers);
    await eventually('let go', () => agent.logged('no longer opted in').length === 1, agent);
    containers.forEach(({ cgroup }) => {
      node.write(cgroup, value === '1' ? '0' : '1');
    });
    const late = pod.run('worker');
    await aWhile();
    expect(values([...containers, late])).toBe(value === '1' ? '001' : '111');
    expect(node.read(node.sandbox(pod.directory))).toBe('0');
  });

  test.each([
    ['of the agent before it', false],
    ['that is empty', true],
  ])(
    'hold without a write in between if the agent starts in a directory %s',
    async (_name, empty) => {
      await start();
      const pod = new Pod('Single', 'worker=Group,proxy=Group');
      const containers = ['app', 'worker', 'proxy'].map((name) => pod.run(name));
      await become('011', ...containers);
      await agent.stop('SIGKILL');
      if (empty) {
        rmSync(node.run, { recursive: true });
        mkdirSync(node.run);
      }
      agent = new Agent(node, api, shell);
      await agent.ready();
      await aWhile();
      expect(agent.logged('kill mode written')).toEqual([]);
      expect(values(containers)).toBe('011');
      await drift('011', ...containers);
      await agent.stop('SIGKILL');
      pod.opt('Single', 'worker=Group,app=Group');
      agent = new Agent(node, api, shell);
      await become('110', ...containers);
    },
  );

  test('read the id in a log name that the kubelet cut, as long as enough of it is left', async () => {
    await start();
    // 251 characters are the name's, 9 of which are "_default_", and one is the dash before the id.
    const enough = new Pod('Single', 'worker=Group', { name: 'p'.repeat(251 - 9 - 7 - 8) });
    const little = new Pod('Single', 'worker=Group,w=Group', { name: 'q'.repeat(251 - 9 - 7 - 7) });
    const nothing = new Pod('Single', 'worker=Group', { name: 'r'.repeat(253) });
    const containers = [
      ...['worker', 'app'].map((name) => enough.run(name)),
      ...['worker', 'w'].map((name) => little.run(name)),
      nothing.run('worker'),
    ];
    await become('10010', ...containers);
    await aWhile();
    expect(values(containers)).toBe('10010');
    await drift('10010', ...containers);
    const said = agent
      .logged('override without effect')
      .map((line) => [line.pod?.[8], line.container]);
    expect(said).toEqual([
      ['q', 'worker'],
      ['r', 'worker'],
    ]);
  });

  test('leave the sandbox that a pod gets anew alone', async () => {
    await start({ layout: CGROUPFS });
    const pod = new Pod('Group', 'worker=Single');
    await aWhile(100);
    const containers = ['app', 'worker'].map((name) => pod.run(name));
    await become('10', ...containers);
    expect(node.read(node.sandbox(pod.directory))).toBe('0');
    for (const cgroup of [...containers.map((one) => one.cgroup), node.sandbox(pod.directory)]) {
      node.removeCgroup(cgroup);
    }
    const sandbox = node.createContainer(pod.directory, containerId(), '0');
    await aWhile(100);
    const again = ['app', 'worker'].map((name) => pod.run(name));
    await become('10', ...again);
    expect(node.read(sandbox)).toBe('0');
  });
});
