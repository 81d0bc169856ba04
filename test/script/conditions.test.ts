import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

import {
  commandLine,
  FakeNode,
  LABEL,
  LAYOUTS,
  Layout,
  pathWith,
  SYSTEMD,
  TOOLS_PATH,
} from '../support/agent';
import { asRoot } from '../support/root';
import { Container, Scene } from './scene';

// Where a mode cannot work, or was not meant as it is written, the agent says so: once in the log, in
// one Event, and in the metric as long as it is so.

const scene = Scene.use();
const ALL = { EVENTS: 'yes', METRICS: 'yes', RESYNC_SECONDS: '1' };

/** Those that the metrics say there are. */
function present(): string[] {
  const samples = [
    ...scene.metrics.matchAll(/^oom_kill_mode_condition\{condition="(\w+)"\} ([01])$/gm),
  ];
  return samples.filter(([, , value]) => value === '1').map(([, name = '']) => name);
}

const logged = (condition: string) =>
  scene.agent.log.filter((line) => line.condition === condition && line.level !== 'info');
const events = (condition: string) =>
  [...scene.api.events.values()].filter(({ message }) =>
    message.endsWith(` Condition: ${condition}`),
  );

/** Waits until a condition is told in all three ways, of so many pods or containers. */
async function told(condition: string, times = 1): Promise<void> {
  await scene.eventually(`${times} ${condition}`, () => events(condition).length === times);
  await scene.eventually(condition, () => present().join() === condition);
  // Whatever is looked at again and again, nothing is said again.
  await scene.agent.ticks(2);
  expect(logged(condition)).toHaveLength(times);
  expect(scene.api.eventWrites).toHaveLength(times);
  for (const event of events(condition)) {
    expect(event).toMatchObject({ type: 'Warning', reason: 'OomKillModeCannotApply', count: 1 });
  }
}

async function ended(): Promise<void> {
  await scene.eventually('no condition', () => present().length === 0);
}

const aboutNode = { apiVersion: 'v1', kind: 'Node', name: 'node-1', uid: 'node-1' };

test('cgroup_v1: the agent asks for no pods, writes nothing, and says once that it is ready', async () => {
  const node = new FakeNode(SYSTEMD, { version: 1 });
  scene.start(ALL, node);
  const container = scene.optIn('Single').run('app');
  await scene.agent.ready();
  await told('cgroup_v1');
  expect(events('cgroup_v1')[0]).toMatchObject({
    metadata: { namespace: 'default' },
    involvedObject: aboutNode,
  });
  expect(container.value).toBe('1');
  expect(scene.api.requests).toEqual([]);
  await scene.agent.ticks(2);
  expect(scene.agent.logged('ready')).toHaveLength(1);
});

test.each([
  [
    'below no cgroup of a pod',
    'system.slice/containerd.service/kubepods-burstable:cri-containerd:x',
  ],
  ['in another pod', 'kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice'],
])(
  'cgroup_not_found: the container of the agent is %s, until it is where it should be',
  async (_, place) => {
    const { node } = scene;
    const right = node.procs;
    mkdirSync(join(node.cgroupRoot, place), { recursive: true });
    node.procs = join(node.cgroupRoot, place, 'cgroup.procs');
    const container = scene.optIn('Single').run('app');
    scene.start(ALL);
    await told('cgroup_not_found');
    expect(events('cgroup_not_found')[0]).toMatchObject({ involvedObject: aboutNode });
    expect(scene.agent.isReady).toBe(false);
    expect(container.value).toBe('1');
    writeFileSync(right, `${scene.agent.pid}\n`);
    await scene.become('0', container);
    await scene.agent.ready();
    await ended();
  },
);

test.each([
  'exit 1',
  'echo \'inotifyd: add watch "x" failed: No space left on device\' >&2; exit 1',
])(
  'no_inotify: the agent looks at everything every second until inotify works: %s',
  async (script) => {
    await scene.ready({
      ...ALL,
      RESYNC_SECONDS: '600',
      PATH: pathWith(scene.node, 'inotifyd', script),
    });
    const pod = scene.optIn('Single');
    const container = pod.run('app');
    await scene.become('0', container);
    await scene.drift('0', container);
    await told('no_inotify');
    expect(events('no_inotify')[0]).toMatchObject({ involvedObject: aboutNode });
    const late = pod.run('late');
    await scene.become('0', late);
    rmSync(join(scene.node.directory, 'bin-inotifyd/inotifyd'));
    await ended();
    await scene.eventually('one inotifyd', () => scene.agent.running('inotifyd').length === 1);
    await scene.drift('00', container, late);
  },
);

test('no_inotify: a container that starts while inotifyd comes back is watched as well', async () => {
  const file = (name: string) => join(scene.node.directory, name);
  const script = `
    [ -e ${file('back')} ] || exit 1
    echo >${file('begun')}
    until [ -e ${file('go')} ]; do sleep 0.1; done
    PATH="${TOOLS_PATH}" exec inotifyd "$@"`;
  await scene.ready({
    ...ALL,
    RESYNC_SECONDS: '600',
    PATH: pathWith(scene.node, 'inotifyd', script),
  });
  const pod = scene.optIn('Single');
  await told('no_inotify');
  writeFileSync(file('back'), '');
  await scene.eventually('a start', () => existsSync(file('begun')));
  const late = pod.run('late');
  await scene.become('0', late);
  writeFileSync(file('go'), '');
  await ended();
  // The first may be met by the one look at everything that comes with inotify.
  await scene.drift('0', late);
  await scene.drift('0', late);
});

describe('write_refused', () => {
  let files: string[] = [];

  /** Makes writes to a container's file fail. */
  function refuse({ cgroup }: Container): void {
    files.push(scene.node.file(cgroup));
    asRoot('chattr', '+i', scene.node.file(cgroup));
  }

  function allow(): void {
    files.forEach((file) => {
      asRoot('chattr', '-i', file);
    });
    files = [];
  }

  afterEach(allow);

  test.each(['it can be', 'the container ends', 'the pod leaves'])(
    'the condition lasts until %s',
    async (end) => {
      await scene.ready(ALL);
      const pod = scene.pod('Single');
      const [container, beside] = [pod.run('worker'), pod.run('beside')];
      refuse(container);
      pod.opt();
      await scene.become('0', beside);
      await told('write_refused');
      expect(events('write_refused')[0]).toMatchObject({
        involvedObject: { name: pod.metadata.name, fieldPath: 'spec.containers{worker}' },
      });
      expect(container.value).toBe('1');
      allow();
      if (end === 'it can be') {
        await scene.become('0', container);
      } else if (end === 'the container ends') {
        container.end();
      } else {
        pod.optOut();
      }
      await ended();
    },
  );
});

test('ancestor_group: a cgroup above Single containers has 1, of a pod or of all pods', async () => {
  await scene.ready(ALL);
  const pod = scene.optIn('Single');
  await scene.become('0', pod.run('app'));
  const [group] = (await scene.protect('Group', 'web')) as [Container];
  const mixed = scene.optIn('Group', 'a=Single');
  await scene.become('0', mixed.run('a'));
  scene.node.write(pod.cgroup, '1');
  scene.node.write(dirname(group.cgroup), '1');
  await told('ancestor_group');
  expect(events('ancestor_group')[0]).toMatchObject({
    involvedObject: { kind: 'Pod', name: pod.metadata.name, uid: pod.metadata.uid },
  });
  scene.node.write(pod.cgroup, '0');
  await ended();
  scene.node.write(dirname(dirname(pod.cgroup)), '1');
  await scene.eventually('of another', () => events('ancestor_group').length === 2);
  scene.node.write(dirname(dirname(pod.cgroup)), '0');
  await ended();
});

describe('systemd_oom_policy', () => {
  const text = (value: string) => `[Scope]\nDelegate=yes\n${value}\n`;

  /** The unit of a container's scope, and its drop-ins in the order in which systemd reads them. */
  function unit({ cgroup }: Container, policy: string, ...dropIns: string[]): void {
    const file = join(scene.node.transient, basename(cgroup));
    rmSync(`${file}.d`, { recursive: true, force: true });
    mkdirSync(`${file}.d`, { recursive: true });
    writeFileSync(file, text(policy));
    dropIns.forEach((value, i) => {
      writeFileSync(join(`${file}.d`, `${10 + i}-x.conf`), text(value));
    });
  }

  const about = () =>
    events('systemd_oom_policy').map(({ involvedObject }) => involvedObject.fieldPath);
  const survived = () =>
    [...scene.api.events.values()]
      .filter(({ reason }) => reason === 'OomKilledProcess')
      .map(({ involvedObject }) => involvedObject.fieldPath);

  test('Single containers have the policy that their unit and its drop-ins say last', async () => {
    await scene.ready(ALL);
    const names = ['a', 'b', 'c', 'd', 'e'];
    const [a, b, c, d, e] = await scene.protect('Single', ...names);
    const [group] = await scene.protect('Group', 'f');
    const ordinary = scene.pod().run('g');
    unit(a as Container, 'OOMPolicy=kill');
    unit(b as Container, '', 'OOMPolicy=stop');
    unit(c as Container, 'OOMPolicy=continue');
    unit(d as Container, 'OOMPolicy=kill', 'OOMPolicy=stop', 'OOMPolicy=continue', 'MemoryLow=0');
    unit(e as Container, 'OOMPolicy=continue', 'OOMPolicy=continue', 'OOMPolicy=kill');
    unit(group as Container, 'OOMPolicy=kill');
    unit(ordinary, 'OOMPolicy=kill');
    await told('systemd_oom_policy', 3);
    expect(about().sort()).toEqual(['a', 'b', 'e'].map((name) => `spec.containers{${name}}`));
    // An administrator's drop-in for two of them; the third ends.
    unit(a as Container, 'OOMPolicy=kill', 'OOMPolicy=continue');
    unit(e as Container, 'OOMPolicy=continue');
    b?.end();
    await ended();
  });

  test('kill counts until a container has survived two kills, and stop counts for good', async () => {
    await scene.ready(ALL);
    const names = ['a', 'b', 'c'];
    const [kill, other, stop] = (await scene.protect('Single', ...names)) as [
      ...[Container, Container, Container],
    ];
    unit(kill, 'OOMPolicy=kill');
    unit(other, 'OOMPolicy=kill');
    unit(stop, 'OOMPolicy=stop');
    await told('systemd_oom_policy', 3);
    const over = () =>
      scene.agent.logged('works again').filter((line) => line.condition === 'systemd_oom_policy');
    // systemd 257 may miss the first one.
    kill.kill();
    stop.kill(2);
    await scene.eventually('an Event', () => survived().join() === 'spec.containers{a}');
    await scene.agent.ticks(3);
    expect(over()).toEqual([]);
    kill.kill();
    await scene.eventually('the end', () => over().length === 2);
    const [late] = (await scene.protect('Single', 'late')) as [Container];
    unit(late, 'OOMPolicy=kill');
    await scene.settle();
    await scene.agent.ticks(3);
    expect([about().length, over().length]).toEqual([3, 2]);
    expect(present()).toEqual(['systemd_oom_policy']);
    // Nobody survived with stop.
    expect(survived()).toEqual(['spec.containers{a}']);
    stop.end();
    await ended();
  });

  test('a container that systemd ends has not survived', async () => {
    await scene.ready({ ...ALL, RESYNC_SECONDS: '600' });
    const [kill, none] = (await scene.protect('Single', 'a', 'b')) as [Container, Container];
    unit(kill, 'OOMPolicy=kill');
    kill.kill();
    none.kill();
    // systemd takes a while, and has five seconds.
    await scene.eventually('patience', () =>
      scene.agent.running('sleep').some((pid) => commandLine(pid) === 'sleep 5 '),
    );
    scene.node.empty(kill.cgroup);
    await scene.eventually('an Event', () => survived().length > 0);
    await scene.agent.ticks(2);
    expect(survived()).toEqual(['spec.containers{b}']);
  });

  test('no policy is looked for with the cgroupfs driver', async () => {
    const node = new FakeNode(LAYOUTS['cgroupfs driver, containerd'] as Layout);
    await scene.ready(ALL, node);
    const [container] = (await scene.protect()) as [Container];
    unit(container, 'OOMPolicy=kill');
    await scene.settle();
    expect(present()).toEqual([]);
  });
});

test.each(['it is valid', 'there is none', 'the pod is deleted'])(
  'invalid_mode: the label says neither Single nor Group, until %s',
  async (end) => {
    await scene.ready(ALL);
    const pod = scene.optIn('single');
    const container = pod.run('app');
    await told('invalid_mode');
    expect(events('invalid_mode')[0]).toMatchObject({
      involvedObject: { name: pod.metadata.name },
    });
    // It is no news when the API server is asked again, nor when something else of the pod changes.
    scene.api.endWatches();
    pod.opt('single', 'x=Group');
    await scene.eventually('a second watch', () => scene.api.requests.length === 2);
    await scene.settle();
    expect(container.value).toBe('1');
    await told('invalid_mode');
    if (end === 'it is valid') {
      pod.opt('Single');
      await scene.become('0', container);
    } else if (end === 'there is none') {
      pod.optOut();
    } else {
      scene.api.deletePod(pod.metadata.uid);
    }
    await ended();
  },
);

test('invalid_override: an entry means nothing, and the others count', async () => {
  await scene.ready(ALL);
  const pod = scene.optIn('Single', 'a=Group,b=Sngle,=Group,c');
  await scene.become('1', pod.run('a', '0'));
  await told('invalid_override');
  scene.api.endWatches();
  await scene.eventually('a second watch', () => scene.api.requests.length === 2);
  await scene.settle();
  await told('invalid_override');
  pod.opt('Single', 'a=Group');
  await ended();
});

test.each(['it starts', 'the override is gone', 'the pod leaves'])(
  'unknown_container: another one runs and none of the name has started, until %s',
  async (end) => {
    await scene.ready(ALL);
    const pod = scene.optIn('Single', 'wroker=Group,worker=Group,last=Group');
    // Its image cannot be pulled, or an init container runs still; another one's ended.
    const waits = scene.optIn('Single', 'worker=Group');
    waits.create();
    const over = scene.optIn('Single', 'worker=Group');
    const init = over.run('init');
    await scene.become('0', init);
    init.end();
    await scene.become('110', ...['worker', 'last', 'wroker-x'].map((name) => pod.run(name)));
    await told('unknown_container');
    expect(events('unknown_container')[0]).toMatchObject({
      message: expect.stringMatching(/wroker.*misspelt.*init container/) as string,
      involvedObject: { name: pod.metadata.name },
    });
    if (end === 'it starts') {
      await scene.become('1', pod.run('wroker'));
    } else if (end === 'the override is gone') {
      pod.opt('Single', 'worker=Group,last=Group');
    } else {
      pod.optOut();
    }
    await ended();
  },
);

test('name_too_long: the link to the log of a container with an override has no id', async () => {
  await scene.ready(ALL);
  // Pod, namespace and container: 236 characters are enough for twelve of the id.
  const name = (length: number) => 'p'.repeat(length - 'default'.length - 'worker'.length);
  const most = scene.optIn('Single', 'worker=Group', { name: name(236) });
  await scene.become('1', most.run('worker'));
  const none = scene.optIn('Single', '', { name: `${name(236)}ppp` });
  const long = scene.optIn('Single', 'worker=Group,w=Group', { name: name(237) });
  await scene.become('001', none.run('worker'), long.run('worker'), long.run('w'));
  // Longer than it takes to call a name unknown.
  await scene.agent.ticks(7);
  await told('name_too_long');
  expect(events('name_too_long')[0]).toMatchObject({
    message: expect.stringMatching(/worker.*\b237\b.*\b236\b/) as string,
    involvedObject: { name: name(237), fieldPath: 'spec.containers{worker}' },
  });
  long.opt('Single', 'w=Group');
  await ended();
});

test.each(['it is smaller', 'it leaves'])(
  'pod_too_large: its metadata are more than 1 MiB, until %s',
  async (end) => {
    await scene.ready(ALL);
    const pod = scene.optIn('Single');
    const known = pod.run('app');
    await scene.become('0', known);
    const labels = Array.from({ length: 140_000 }, (_, n) => [`l${n}`, '']);
    const large = Object.fromEntries(labels) as Record<string, string>;
    const { metadata } = pod;
    scene.announce({ ...metadata, labels: { [LABEL]: 'Group', ...large } }, pod.cgroup);
    await told('pod_too_large');
    expect(events('pod_too_large')[0]).toMatchObject({ involvedObject: { name: metadata.name } });
    // It keeps what it had, and others are obeyed.
    await scene.settle();
    await scene.drift('0', known);
    // All of them together: the parser that read it is one of them, and lives as long as its watch.
    expect(scene.agent.running('awk')).toHaveLength(1);
    expect(scene.agent.memory).toBeLessThan(32 * 1024);
    if (end === 'it is smaller') {
      pod.opt('Group');
      await scene.become('1', known);
    } else {
      scene.api.removeLabel(metadata.uid);
      await scene.become('1', known);
    }
    await ended();
  },
);

test('contested: somebody writes a file as fast as can be, until it is left alone', async () => {
  await scene.ready({ ...ALL, RESYNC_SECONDS: '5' });
  const [flipped] = (await scene.protect('Single', 'flipped')) as [Container];
  const [other] = (await scene.protect('Single', 'other')) as [Container];
  const flip = `const { openSync, writeSync } = require('node:fs');
    const file = openSync(process.argv[1], 'r+');
    for (;;) { writeSync(file, '1\\n', 0); writeSync(file, '0\\n', 0); }`;
  const flipper = spawn(process.execPath, ['-e', flip, scene.node.file(flipped.cgroup)]);
  try {
    await told('contested');
    expect(events('contested')[0]).toMatchObject({
      involvedObject: { name: flipped.pod.name, fieldPath: 'spec.containers{flipped}' },
    });
    for (let n = 0; n < 5; n += 1) {
      await scene.drift('0', other);
    }
    await scene.settle();
  } finally {
    flipper.kill('SIGKILL');
  }
  scene.node.write(flipped.cgroup, '1');
  await scene.become('0', flipped);
  await ended();
  await scene.drift('0', flipped);
});
