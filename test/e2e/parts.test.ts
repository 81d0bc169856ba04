import { PassThrough } from 'node:stream';

import { readAgentLog } from '../../e2e/agent';
import { usableNodes } from '../../e2e/checks';
import { Observation, judge } from '../../e2e/judgement';
import { Event, Node, list } from '../../e2e/kubectl';
import { Pod, denial, readPod, whyNot } from '../../e2e/pods';
import { junit, progressOn } from '../../e2e/report';
import { KILLED, node } from '../support/cluster-server';

/** A running pod of the workload, on node a. */
function pod(name: string, status: object = {}, spec: object = {}): Pod {
  const limits = { cpu: '100m', memory: '128Mi' };
  return readPod({
    metadata: { name, namespace: 'x', uid: name },
    spec: { nodeName: 'a', containers: [{ name, resources: { limits } }], ...spec },
    status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }], ...status },
  });
}

const SEEN: Observation = {
  nodes: ['a'],
  seconds: 60,
  before: [pod('herder')],
  herders: [pod('herder')],
  twins: [pod('twin', { containerStatuses: [{ name: 'twin', ...KILLED }] })],
  probes: new Map([['a', 'memory.oom.group=0\n']]),
  events: [{ involvedObject: { uid: 'herder' }, reason: 'OomKilledProcess' } as Event],
  first: [],
  logs: [],
};

/** What an agent says first, with that node value. */
const agentLog = (nodeValue: string) =>
  `{"level":"info","msg":"cgroups found","nodeValue":"${nodeValue}"}\n`;

describe('the judgement', () => {
  test('finds nothing wrong with a good run', () => {
    expect(judge(SEEN).filter(({ passed }) => !passed)).toEqual([]);
  });

  const sidecar = (limits: object) => ({
    initContainers: [{ name: 'proxy', restartPolicy: 'Always', resources: { limits } }],
  });
  const survivor = { containerStatuses: [{ restartCount: 0, state: { running: {} } }] };
  test.each<[string, Partial<Observation>, string, string]>([
    [
      'a probe that saw nothing',
      { probes: new Map() },
      'Single at the first instruction',
      'a: not seen',
    ],
    [
      'a node with two herders',
      { herders: [pod('herder'), pod('herder')] },
      'one herder on each node',
      'a has 2',
    ],
    [
      'a sidecar that was injected',
      { herders: [pod('herder', {}, sidecar({ cpu: '0.2', memory: '64Mi' }))] },
      'no pod over 250m CPU and 256Mi',
      'herder has 300m and 192Mi',
    ],
    [
      'a sidecar without a limit of memory',
      { herders: [pod('herder', {}, sidecar({ cpu: '1e-2' }))] },
      'no pod over 250m CPU and 256Mi',
      'herder has 110m and InfinityMi',
    ],
    [
      'a herder that was replaced',
      { before: [pod('old')] },
      'no herder restarted',
      'old on a was replaced',
    ],
    [
      'a herder that is not ready',
      { herders: [pod('herder', { conditions: [] })] },
      'no herder restarted',
      'herder on a is not ready',
    ],
    [
      'a herder whose init container restarted',
      { herders: [pod('herder', { initContainerStatuses: [{ restartCount: 1 }] })] },
      'no herder restarted',
      'herder on a restarted once',
    ],
    [
      'a twin that survives on a node where containers have 0',
      { twins: [pod('twin', survivor)], first: [readAgentLog('a', agentLog('0'))] },
      'the twin without the label is killed and restarted',
      'on a containers without the label have 0, too: nothing to tell apart',
    ],
    [
      'a twin that survives for no known reason',
      { twins: [pod('twin', survivor)] },
      'the twin without the label is killed and restarted',
      'on a it never restarted',
    ],
  ])('fails because of %s', (_, but, name, detail) => {
    const failed = judge({ ...SEEN, ...but }).filter(({ passed }) => !passed);
    expect(failed).toEqual([{ name, passed: false, detail }]);
  });
});

test('An agent’s log tells the newest total of each container, and each warning once', () => {
  const kill = (container: string, total: number) =>
    `{"level":"warn","pod":"x/herder","container":"${container}","kills":"1","total":"${total}"}`;
  const warning = '{"level":"warn","msg":"Event not sent"}';
  const lines = [kill('a', 5), kill('a', 9), kill('b', 5), warning, warning, 'sh: write error'];
  expect(readAgentLog('a', `${agentLog('1')}${lines.join('\n')}`)).toEqual({
    node: 'a',
    nodeValue: '1',
    cgroupV1: false,
    kills: new Map([
      ['x/herder a', 9],
      ['x/herder b', 5],
    ]),
    warnings: ['a: Event not sent'],
  });
});

test('Nodes that cannot run a herder are left out with a reason, and the others have their host names', () => {
  const labelled = (name: string, labels: object, version?: string, ready?: string) => {
    const { metadata, ...rest } = node(name, version, ready);
    return { ...rest, metadata: { name, labels: { ...metadata.labels, ...labels } } } as Node;
  };
  const { usable, notes } = usableNodes([
    labelled('up.internal', { 'kubernetes.io/hostname': 'up' }),
    labelled('custom', {}, 'v0.0.0-master'),
    labelled('win', { 'kubernetes.io/os': 'windows' }),
    labelled('fargate', { 'eks.amazonaws.com/compute-type': 'fargate' }),
    labelled('down', {}, 'v1.34.1', 'Unknown'),
    labelled('old', {}, 'v1.27.16'),
  ]);
  expect(usable.map(({ name, hostname }) => [name, hostname])).toEqual([
    ['custom', 'custom'],
    ['up.internal', 'up'],
  ]);
  expect(notes).toEqual([
    'custom: its kubelet\'s version is not known ("v0.0.0-master")',
    'win is left out: its system is windows',
    'fargate is left out: it is virtual and has no agent',
    'down is left out: it is not ready',
    'old is left out: its kubelet is v1.27.16, and those before 1.28 never set memory.oom.group',
  ]);
});

describe('a pod that does not start', () => {
  const event = (reason: string, type: string, second: number) =>
    ({
      involvedObject: { uid: 'p' },
      reason,
      type,
      message: reason.toLowerCase(),
      lastTimestamp: `2026-11-24T03:31:1${second}Z`,
    }) as Event;
  const waiting = (reason: string) => ({
    containerStatuses: [{ state: { waiting: { reason, message: 'why' } } }],
  });
  const condition = {
    type: 'Initialized',
    status: 'False',
    message: 'init containers are running',
  };

  test.each<[string, object, Event[], string]>([
    ['a container waits', waiting('ImagePullBackOff'), [], 'ImagePullBackOff (why)'],
    [
      'an image is pulled',
      waiting('ContainerCreating'),
      [event('Pulling', 'Normal', 1)],
      'pulling',
    ],
    [
      'a volume is missing',
      {},
      [event('FailedMount', 'Warning', 2), event('Pulling', 'Normal', 1)],
      'FailedMount (failedmount)',
    ],
    [
      'an image was pulled',
      {},
      [event('Pulling', 'Normal', 1), event('Pulled', 'Normal', 2)],
      'Pending',
    ],
    ['a condition is not met', { conditions: [condition] }, [], 'init containers are running'],
    [
      'the kubelet refused it',
      { message: 'Node did not have enough cpu' },
      [],
      'Node did not have enough cpu',
    ],
  ])('says that %s', (_, status, events, why) => {
    expect(whyNot(pod('p', { phase: 'Pending', conditions: [], ...status }), events)).toBe(why);
  });

  test('says who denies it, by the newest Event of its own controller', () => {
    const denied = (name: string, message: string, second: number) =>
      ({
        ...event('FailedCreate', 'Warning', second),
        involvedObject: { kind: 'ReplicaSet', name },
        message,
      }) as Event;
    const events = [
      denied('twin-1', 'Error creating: pods "twin-1-x" is forbidden: old', 1),
      denied('twin-1', '(combined from similar events): Error creating: denied the request', 2),
      denied('herder-1', 'Error creating: other', 3),
    ];
    expect(denial('twin', events)).toBe(' (denied the request)');
    expect(denial('probe', events)).toBe('');
  });
});

test('What is piped into kubectl is one List', () => {
  expect(JSON.parse(list([{ kind: 'Pod' }, { kind: 'Job' }]))).toEqual({
    apiVersion: 'v1',
    kind: 'List',
    items: [{ kind: 'Pod' }, { kind: 'Job' }],
  });
});

test('JUnit XML has a test case for each check, and every text of the cluster is escaped', () => {
  const checks = [
    { name: 'good', passed: true, detail: 'a & b' },
    { name: 'bad', passed: false, detail: '<"x">\n\u001b[1m\ud800' },
  ];
  const report = { passed: false, context: '', checks, nodes: [], notes: [] };
  expect(junit(report).split('\n').slice(1)).toEqual([
    '<testsuite name="oom-kill-mode" tests="2" failures="1" errors="0" skipped="0">',
    '  <testcase classname="e2e" name="good"><system-out>a &#38; b</system-out></testcase>',
    '  <testcase classname="e2e" name="bad"><failure message="&#60;&#34;x&#34;&#62;&#10;\ufffd[1m\ufffd"/></testcase>',
    '</testsuite>',
    '',
  ]);
  expect(junit({ ...report, interrupted: 'SIGINT' })).toContain('message="interrupted by SIGINT"');
});

test('Progress on a terminal is one line, not longer than the terminal is wide, and then nothing', () => {
  const stream = Object.assign(new PassThrough(), { isTTY: true, columns: 20 });
  const progress = progressOn(stream as unknown as NodeJS.WriteStream);
  progress.show('2 of 60 s: kills survived on 2 of 2 nodes');
  progress.say('context test');
  const erase = '\r\x1b[K';
  expect(String(stream.read())).toBe(`${erase}2 of 60 s: kills su${erase}context test\n`);
});
