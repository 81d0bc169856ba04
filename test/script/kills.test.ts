import { rmSync } from 'node:fs';

import { NAMESPACE_TERMINATING, Status, status } from '../support/api-server';
import { FakeNode, Layout, LAYOUTS, podUid } from '../support/agent';
import { Container, Scene } from './scene';

// Processes that the kernel killed in containers that kept running: each is told in the log, and in one
// Event for each container.

const scene = Scene.use();
const EVENTS = { EVENTS: 'yes' };

const lines = () => scene.agent.logged('processes killed for memory; the container kept running');
const told = (name: string) =>
  lines()
    .filter(({ container }) => container === name)
    .reduce((sum, { kills }) => sum + Number(kills), 0);
const events = (container: Container) =>
  scene.eventsOf(container.pod).filter(({ reason }) => reason === 'OomKilledProcess');
const count = (container: Container) => events(container)[0]?.count;
const writes = () => scene.api.eventWrites.map(({ status: code }) => code);

/** Waits until an Event has this count. */
async function counted(wanted: number, container: Container): Promise<void> {
  await scene.eventually(`an Event of ${wanted}`, () => count(container) === wanted);
}

test('kills are counted, and told in the log and in one Event of the pod', async () => {
  await scene.ready(EVENTS);
  const [worker] = (await scene.protect('Single', 'worker', 'proxy')) as [Container];
  await scene.settle();
  worker.kill();
  await counted(1, worker);
  const { uid, name } = worker.pod;
  const [event] = events(worker);
  expect(event).toEqual({
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: expect.stringContaining(uid) as string, namespace: 'default' },
    involvedObject: {
      ...{ apiVersion: 'v1', kind: 'Pod', namespace: 'default', name, uid },
      fieldPath: 'spec.containers{worker}',
    },
    type: 'Warning',
    reason: 'OomKilledProcess',
    message:
      'The kernel killed 1 process of container worker for memory, 1 in all since it started. The container kept running. The container had reached its memory limit.',
    count: 1,
    firstTimestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/) as string,
    lastTimestamp: expect.any(String) as string,
    source: { component: 'cdk8s-oom-kill-mode', host: 'node-1' },
    reportingComponent: 'cdk8s-oom-kill-mode',
    reportingInstance: 'node-1',
  });
  // Of those that come soon afterwards the log tells at once, and the Event later.
  worker.kill(3);
  await scene.eventually('a line', () => told('worker') === 4);
  worker.kill();
  // The API server forgets Events after an hour: then there is another one.
  scene.api.events.clear();
  await counted(5, worker);
  expect(events(worker)).toMatchObject([
    {
      message: expect.stringContaining('killed 4 processes of container worker') as string,
      firstTimestamp: event?.firstTimestamp,
    },
  ]);
  expect(scene.api.events.size).toBe(1);
  expect(writes()).toEqual([201, 201]);
  expect(lines().at(-1)).toMatchObject({
    ...{ level: 'warn', pod: `default/${name}`, container: 'worker', total: '5' },
    limit: 'container',
  });
});

test.each([
  ['container', 'The container had reached its memory limit.'],
  ['inside', 'A cgroup inside the container had reached its limit.'],
  [
    'pod',
    "The pod had reached its memory limit, which is the sum of its containers' limits unless it has one of its own.",
  ],
  [
    'node',
    'Neither the container nor its pod had reached a memory limit: the node, or a cgroup above the pod, was out of memory.',
  ],
  ['unknown', undefined],
] as const)('kills are told with whose limit it was: %s', async (limit, sentence) => {
  const pod = scene.pod('Single');
  const worker = pod.run('worker');
  worker.kill(2, limit === 'pod' ? 'container' : 'pod');
  if (limit === 'unknown') {
    [worker.cgroup, pod.cgroup].forEach((cgroup) => {
      rmSync(scene.node.file(cgroup, 'memory.events.local'));
    });
  }
  pod.opt();
  await scene.ready(EVENTS);
  await scene.settle();
  worker.kill(1, limit === 'unknown' ? 'node' : limit);
  await counted(3, worker);
  const said = 'The container kept running.';
  expect(events(worker)[0]?.message.split(said).at(-1)).toBe(sentence ? ` ${sentence}` : '');
  worker.kill(1, 'node');
  await scene.eventually('two lines', () => lines().length === 2);
  // Nor does what was before a container began.
  const late = pod.run('late');
  await scene.become('0', late);
  late.kill(1, 'node');
  await scene.eventually('three lines', () => lines().length === 3);
  const next = limit === 'unknown' ? 'unknown' : 'node';
  expect(lines().map((line) => line.limit)).toEqual([limit, next, next]);
});

test('kills in the child of crun are told to be by the limit of the container', async () => {
  await scene.ready({}, new FakeNode(LAYOUTS['systemd driver, CRI-O'] as Layout));
  const [worker] = (await scene.protect()) as [Container];
  worker.kill(2, 'container');
  await scene.eventually('a line', () => told('worker') === 2);
  expect(lines()).toMatchObject([{ limit: 'container' }]);
});

test('kills that go on are told after 10 s, then after 20 s', async () => {
  await scene.ready(EVENTS);
  const [worker] = (await scene.protect()) as [Container];
  const storm = setInterval(() => {
    worker.kill();
  }, 100);
  try {
    await scene.eventually('three Events', () => writes().length >= 3);
  } finally {
    clearInterval(storm);
  }
  const [first = 0, second = 0, third = 0] = scene.api.eventWrites.map(({ at }) => at);
  // Without a pause there would be one a second. A busy host delays each request by a while.
  expect(second - first).toBeGreaterThan(5_000);
  expect(third - second).toBeGreaterThan(12_000);
});

test('kills of several containers have an Event each', async () => {
  await scene.ready(EVENTS);
  const pod = await scene.protect('Single', 'a', 'b', 'c');
  const other = (await scene.protect('Group', 'a')) as [Container];
  [...pod, ...other].forEach((container, i) => {
    container.kill(i + 1);
  });
  await scene.eventually('four', () => scene.api.events.size === 4);
  expect(
    events(pod[0] as Container)
      .map(({ count: kills, involvedObject }) => `${involvedObject.fieldPath ?? ''} ${kills}`)
      .sort(),
  ).toEqual(['spec.containers{a} 1', 'spec.containers{b} 2', 'spec.containers{c} 3']);
  expect(count(other[0])).toBe(4);
});

test('kills from before anyone looked are not told, but part of the total', async () => {
  const pod = scene.pod('Single');
  const worker = pod.run('worker');
  worker.kill(7);
  pod.opt();
  await scene.ready(EVENTS);
  await scene.settle();
  expect(lines()).toEqual([]);
  worker.kill();
  await counted(8, worker);
  expect(lines()).toMatchObject([{ kills: '1', total: '8' }]);
  // The next agent knows no more than the kernel does, and changes the same Event.
  await scene.agent.stop();
  scene.api.eventWrites.length = 0;
  await scene.ready(EVENTS);
  await scene.settle();
  worker.kill();
  await counted(9, worker);
  expect(lines()).toMatchObject([{ kills: '1', total: '9' }]);
  expect(writes()).toEqual([200]);
});

test('kills are told once the API server takes Events, and the log has each reason of a refusal once', async () => {
  await scene.ready(EVENTS);
  const refusals: [Status, unknown][] = [
    [status(429), 'Too many requests, please try again later.'],
    [status(500), 'Internal error occurred: etcdserver: request timed out'],
    [status(403, 'no right to "patch" it'), "no right to 'patch' it"],
    [status(401), 'Unauthorized'],
    [NAMESPACE_TERMINATING, expect.stringMatching(/shop because it is being terminated$/)],
    // Whatever it says, it is one line of JSON, and harmless.
    [status(503, '"}\n{"level":"error","msg":"\u0000$(reboot) \\ é"'), expect.any(String)],
  ];
  const containers = await scene.protect('Single', ...refusals.map((_, i) => `c-${i}`));
  const said = () => scene.agent.logged('Event not sent');
  for (const [i, [refusal]] of refusals.entries()) {
    scene.api.eventFault = refusal;
    containers[i]?.kill();
    await scene.eventually(`refusal ${i}`, () => said().length > i);
  }
  await scene.agent.ticks(2);
  expect(said().map((line) => [line.status, line.reason, line.message])).toEqual(
    refusals.map(([{ code, reason }, message]) => [String(code), reason, message]),
  );
  scene.api.eventFault = undefined;
  for (const container of containers) {
    await counted(1, container);
  }
});

test('kills wait for an API server that is away', async () => {
  await scene.ready(EVENTS);
  const [worker] = (await scene.protect()) as [Container];
  const port = await scene.api.pause();
  worker.kill(3);
  await scene.eventually('a complaint', () => scene.agent.logged('Event not sent').length === 1);
  await scene.api.resume(port);
  await counted(3, worker);
});

test('kills in containers that end with them are not called survived', async () => {
  await scene.ready(EVENTS);
  const [main, worker, neighbour] = await scene.protect('Single', 'a', 'b', 'c');
  const [whole, docker] = await scene.protect('Group', 'd', 'e');
  // The first process is killed, or all of a group: a container without processes, and none at all.
  scene.node.empty(main?.cgroup ?? '');
  main?.kill();
  scene.node.empty(whole?.cgroup ?? '');
  scene.node.kill(whole?.cgroup ?? '', 3, 'container', true);
  worker?.kill();
  worker?.end();
  // A cgroup inside a Group container is full; the container runs on.
  scene.node.kill(docker?.cgroup ?? '', 2, 'inside', true);
  await counted(2, docker as Container);
  await scene.settle();
  neighbour?.kill();
  await counted(1, neighbour as Container);
  expect(scene.api.events.size).toBe(2);
  expect([...new Set(lines().map(({ container }) => container))].sort()).toEqual(['c', 'e']);
});

test('kills of a pod that left are not told', async () => {
  await scene.ready(EVENTS);
  const [worker] = (await scene.protect()) as [Container];
  worker.kill();
  await counted(1, worker);
  scene.api.removeLabel(worker.pod.uid);
  await scene.eventually('let go', () => scene.agent.logged('no longer opted in').length === 1);
  worker.kill(5);
  const [other] = (await scene.protect()) as [Container];
  other.kill();
  await counted(1, other);
  expect(count(worker)).toBe(1);
});

test('kills have a valid Event whatever the names are', async () => {
  const hash = '0123456789abcdef0123456789abcdef';
  const name = `c${'d'.repeat(62)}`;
  const pods = [
    scene.pod('Single', { name: `${'a'.repeat(148)}.-${'b'.repeat(103)}` }),
    scene.pod('Single', { name: 'a.b-c', namespace: 'n'.repeat(63) }),
    scene.pod('Single', {
      uid: podUid(),
      name: 'static-node-1',
      annotations: { 'kubernetes.io/config.mirror': hash },
    }),
  ];
  const containers = pods.map((pod) => pod.run(name));
  // A link that nobody but a hostile kubelet makes.
  const odd = scene.pod('Single');
  containers.push(odd.run('a"b\\$(reboot)'));
  [...pods, odd].forEach((pod) => {
    pod.opt();
  });
  await scene.ready(EVENTS);
  await scene.become('0000', ...containers);
  containers.forEach((container) => {
    container.kill();
  });
  // The API server takes none that is not valid.
  await scene.eventually('four', () => scene.api.events.size === 4);
  const about = containers.map((container) => events(container)[0]?.involvedObject);
  expect(about.map((object) => object?.uid)).toEqual([
    ...[pods[0], pods[1]].map((pod) => pod?.metadata.uid),
    hash,
    odd.metadata.uid,
  ]);
  const [cut, ...paths] = about.map((object) => object?.fieldPath);
  // The kubelet cut the first pod's log name, so that neither name nor id is in it.
  expect(cut).toBe(`spec.containers{${containers[0]?.short ?? ''}}`);
  expect(paths).toEqual(
    [name, name, containers[3]?.short ?? ''].map((container) => `spec.containers{${container}}`),
  );
});

test('kills are counted without Events as well, and ask nothing of the API server', async () => {
  await scene.ready();
  const [worker] = (await scene.protect()) as [Container];
  worker.kill(2);
  await scene.eventually('a line', () => told('worker') === 2);
  await scene.settle();
  expect(writes()).toEqual([]);
});
