import {
  Observation,
  canI,
  cgroupV2,
  isAllowed,
  isComplete,
  judge,
  kubectlSkew,
  nodeRows,
  quantity,
  readAgent,
  readAgentLog,
  readVersions,
  serverVersion,
  toApply,
  toCreate,
  usableNodes,
} from '../../e2e/checks';
import { Event, Node, Pod } from '../../e2e/kubectl';
import { agent, workloads } from '../../e2e/manifests';
import { render } from '../../e2e/report';
import { Manifest, ROOT } from '../support/manifests';
import { VERSIONS, loadSchemas, violations } from '../support/schema';

/** A pod as `kubectl get pods -o json` shows it, without what nobody reads. */
function pod(name: string, node: string, change: Partial<Pod['status']> = {}): Pod {
  return {
    metadata: {
      name,
      namespace: 'sheep',
      uid: `uid-of-${name}`,
      labels: { 'app.kubernetes.io/name': name.replace(/-.*/, '') },
    },
    spec: {
      nodeName: node,
      containers: [{ name: 'herder', resources: { limits: { cpu: '100m', memory: '128Mi' } } }],
      initContainers: [
        { name: 'wait-for-kill-mode', resources: { limits: { cpu: '100m', memory: '32Mi' } } },
      ],
    },
    status: {
      phase: 'Running',
      conditions: [
        { type: 'PodReadyToStartContainers', status: 'True' },
        { type: 'Initialized', status: 'True' },
        { type: 'Ready', status: 'True' },
        { type: 'ContainersReady', status: 'True' },
        { type: 'PodScheduled', status: 'True' },
      ],
      containerStatuses: [
        {
          name: 'herder',
          image: 'ghcr.io/iximiuz/labs/resource-hog/herder:v1.0.0',
          imageID: 'ghcr.io/iximiuz/labs/resource-hog/herder@sha256:0f2a',
          ready: true,
          started: true,
          restartCount: 0,
          state: { running: { startedAt: '2026-11-24T03:31:10Z' } },
          lastState: {},
        },
      ],
      initContainerStatuses: [
        {
          name: 'wait-for-kill-mode',
          image: 'docker.io/curlimages/curl:8.20.0',
          imageID: '',
          ready: true,
          started: false,
          restartCount: 0,
          state: { terminated: { exitCode: 0, reason: 'Completed' } },
          lastState: {},
        },
      ],
      ...change,
    },
  };
}

/** The status of a container in its pause between two starts. */
function crashed(restartCount: number, exitCode = 137, reason = 'OOMKilled'): Pod['status'] {
  return {
    conditions: [{ type: 'Ready', status: 'False', reason: 'ContainersNotReady' }],
    containerStatuses: [
      {
        name: 'herder',
        image: '',
        imageID: '',
        ready: false,
        started: false,
        restartCount,
        state: {
          waiting: {
            reason: 'CrashLoopBackOff',
            message: 'back-off 20s restarting failed container=herder pod=twin-7d4b9_sheep(uid)',
          },
        },
        lastState: {
          terminated: {
            containerID: 'containerd://3f2a9c01',
            exitCode,
            reason,
            startedAt: '2026-11-24T03:31:10Z',
            finishedAt: '2026-11-24T03:31:21Z',
          },
        },
      },
    ],
  };
}

function event(name: string, count: number | undefined, change: Partial<Event> = {}): Event {
  return {
    metadata: { name: `${name}.3f2a9c01`, namespace: 'sheep' },
    involvedObject: {
      apiVersion: 'v1',
      kind: 'Pod',
      namespace: 'sheep',
      name,
      uid: `uid-of-${name}`,
      fieldPath: 'spec.containers{herder}',
    },
    type: 'Warning',
    reason: 'OomKilledProcess',
    count,
    ...change,
  };
}

const KILLED =
  '{"level":"warn","msg":"processes killed for memory; the container kept running","pod":"sheep/herder-a","container":"herder","kills":"2","total":"5"}';
const READY = '{"level":"info","msg":"cgroups found","driver":"systemd","nodeValue":"1"}';

const GOOD: Observation = {
  nodes: ['a'],
  seconds: 60,
  before: [pod('herder-a', 'a')],
  herders: [pod('herder-a', 'a')],
  twins: [pod('twin-a', 'a', crashed(2))],
  probes: new Map([['a', 'memory.oom.group=0']]),
  events: [event('herder-a', 7)],
  logs: [readAgentLog('a', READY)],
};

/** What fails, and why. */
function problems(change: Partial<Observation>): Record<string, string> {
  return Object.fromEntries(
    judge({ ...GOOD, ...change })
      .filter(({ passed }) => !passed)
      .map(({ name, detail }) => [name, detail]),
  );
}

describe('the versions', () => {
  test.each([
    ['v1.28.0', true],
    ['v1.28.15-eks-2d5f260', true],
    ['v1.31.4+k3s1', true],
    ['v2.0.0', true],
    ['v1.27.16-eks-a737599', false],
    ['v1.9.11', false],
  ])('%s is new enough: %s', (server, passed) => {
    expect(serverVersion({ server })).toMatchObject({ passed, detail: server });
  });

  test.each(['v0.0.0-master+$Format:%H$', 'unknown', '', undefined])(
    '%j is none, which the kubelets make up for',
    (server) => {
      expect(serverVersion({ server })).toMatchObject({
        passed: true,
        detail: `the API server's version is not known ("${server ?? ''}"); the kubelets' are asked for`,
      });
    },
  );

  test.each([
    ['v1.33.0', 'v1.34.5', false],
    ['v1.34.5', 'v1.33.0', false],
    ['v1.32.9-gke.1', 'v1.34.5', true],
    ['v1.34.5', 'v1.32.9', true],
    ['unknown', 'v1.34.5', false],
  ])('the server %s and kubectl %s are too far apart: %s', (server, client, noted) => {
    expect(kubectlSkew({ server, client }).join()).toBe(
      noted
        ? `kubectl ${client} is more than one minor version away from the server's ${server}`
        : '',
    );
  });

  test('are there although kubectl fails over them; one that reached nobody throws', () => {
    const stdout = JSON.stringify({
      clientVersion: { gitVersion: 'v1.34.5' },
      serverVersion: { gitVersion: 'unknown' },
    });
    const stderr = 'error: server version error: could not parse "unknown" as version\n';
    const versions = { client: 'v1.34.5', server: 'unknown' };
    expect(readVersions({ status: 1, stdout, stderr })).toEqual(versions);
    const refused = 'The connection to the server localhost:8080 was refused\n';
    expect(() =>
      readVersions({ status: 1, stdout: '{"clientVersion":{}}', stderr: refused }),
    ).toThrow('kubectl version -o json: The connection to the server localhost:8080 was refused');
  });
});

describe('the permissions', () => {
  test('are asked for in the words of kubectl auth can-i', () => {
    const log = { verb: 'get', resource: 'pods', subresource: 'log', namespace: 'x' };
    expect(canI(log).join(' ')).toBe('auth can-i get pods --subresource=log --namespace x');
  });

  test('cover every object of dist/ and every rule that it grants, each once', () => {
    const objects = agent({ dist: `${ROOT}/dist` });
    const asked = toApply(objects).map((one) => canI(one).join(' '));
    for (const verb of ['get', 'create', 'patch', 'delete']) {
      expect(asked).toContain(`auth can-i ${verb} configmaps --namespace oom-kill-mode`);
    }
    expect(asked).toEqual(
      expect.arrayContaining([
        'auth can-i create namespaces --all-namespaces',
        'auth can-i delete clusterrolebindings.rbac.authorization.k8s.io --all-namespaces',
        'auth can-i create networkpolicies.networking.k8s.io --namespace oom-kill-mode',
        'auth can-i get daemonsets.apps --namespace oom-kill-mode',
        'auth can-i watch pods --all-namespaces',
      ]),
    );
    expect(new Set(asked).size).toBe(asked.length);
  });

  test('to patch are not needed for what is new', () => {
    const asked = toCreate(agent({ dist: `${ROOT}/dist` }));
    const verbs = asked.filter(({ resource }) => resource === 'configmaps').map(({ verb }) => verb);
    expect(verbs).toEqual(['get', 'create', 'delete']);
  });

  test.each([
    ['yes\n', true],
    ['no\n', false],
    ['no - denied by policy\n', false],
    ['', undefined],
    ['nobody knows\n', undefined],
  ])('%j is the answer %s', (stdout, allowed) => {
    expect(isAllowed(stdout)).toBe(allowed);
  });
});

describe('the nodes', () => {
  const node = (
    name: string,
    labels: Record<string, string>,
    ready = 'True',
    nodeInfo: object = { kubeletVersion: 'v1.34.1' },
  ): Node => ({
    metadata: { name, labels },
    status: {
      conditions: [
        { type: 'MemoryPressure', status: 'False' },
        { type: 'Ready', status: ready },
      ],
      nodeInfo: nodeInfo as NonNullable<Node['status']>['nodeInfo'],
    },
  });
  const linux = { 'kubernetes.io/os': 'linux' };

  test('are used by the name that anti-affinity knows, in order', () => {
    const { usable, notes } = usableNodes([
      node('ip-10-0-1-9.ec2.internal', { ...linux, 'kubernetes.io/hostname': 'ip-10-0-1-9' }),
      node('control-plane', linux),
    ]);
    expect(usable).toEqual([
      { name: 'control-plane', hostname: 'control-plane', kubelet: 'v1.34.1' },
      { name: 'ip-10-0-1-9.ec2.internal', hostname: 'ip-10-0-1-9', kubelet: 'v1.34.1' },
    ]);
    expect(notes).toEqual([]);
  });

  test('that cannot run a herder are left out with a reason', () => {
    const { usable, notes } = usableNodes([
      node('win', { 'kubernetes.io/os': 'windows' }),
      node('virtual', { ...linux, type: 'virtual-kubelet' }),
      node('fargate', { ...linux, 'eks.amazonaws.com/compute-type': 'fargate' }),
      node('down', linux, 'Unknown'),
      node('old', linux, 'True', { kubeletVersion: 'v1.27.16' }),
    ]);
    expect(usable).toEqual([]);
    expect(notes).toEqual([
      'win is left out: its system is windows',
      'virtual is left out: it is virtual and has no agent',
      'fargate is left out: it is virtual and has no agent',
      'down is left out: it is not ready',
      'old is left out: its kubelet is v1.27.16, and those before 1.28 never set memory.oom.group',
    ]);
  });
});

test('a node with a kubelet of no known version is used, and noted', () => {
  const { usable, notes } = usableNodes([
    {
      metadata: { name: 'custom', labels: { 'kubernetes.io/os': 'linux' } },
      status: {
        conditions: [{ type: 'Ready', status: 'True' }],
        nodeInfo: { kubeletVersion: 'v0.0.0-master+$Format:%H$' } as never,
      },
    },
  ]);
  expect(usable.map(({ name }) => name)).toEqual(['custom']);
  expect(notes).toEqual([
    'custom: its kubelet\'s version is not known ("v0.0.0-master+$Format:%H$")',
  ]);
});

describe('an agent', () => {
  test('is read from its DaemonSet', () => {
    const daemonSet = agent({ dist: `${ROOT}/dist` }).find(({ kind }) => kind === 'DaemonSet');
    expect(readAgent(daemonSet ?? { apiVersion: '', kind: '', metadata: { name: '' } })).toEqual({
      namespace: 'oom-kill-mode',
      name: 'oom-kill-mode-agent',
      selector:
        'app.kubernetes.io/component=agent,app.kubernetes.io/instance=oom-kill-mode-agent,app.kubernetes.io/name=cdk8s-oom-kill-mode',
      labelPrefix: 'cdk8s-oom-kill-mode',
      image: expect.stringMatching(/^docker\.io\/curlimages\/curl:/) as string,
    });
  });

  test('that is something else is refused by name', () => {
    const other = { apiVersion: 'apps/v1', kind: 'DaemonSet', metadata: { name: 'fluentd' } };
    expect(() => readAgent(other)).toThrow('DaemonSet fluentd is not an agent');
  });

  test('tells the node value, the newest total of each container, and its warnings once', () => {
    const log = readAgentLog(
      'a',
      [
        READY,
        KILLED,
        KILLED.replace('"total":"5"', '"total":"9"'),
        KILLED.replace('"container":"herder"', '"container":"3f2a9c01"'),
        '{"level":"warn","msg":"Event not sent; it is tried again later"}',
        '{"level":"warn","msg":"Event not sent; it is tried again later"}',
        'sh: write error: No space left on device',
        'null',
        '',
      ].join('\n'),
    );
    expect(log).toEqual({
      node: 'a',
      nodeValue: '1',
      cgroupV1: false,
      kills: new Map([['sheep/herder-a', 14]]),
      warnings: ['a: Event not sent; it is tried again later'],
    });
  });

  test('that found cgroup v1 ends it; one whose log was rotated does not', () => {
    const message =
      'cgroup v1: the kernel kills single processes on this node whatever anyone wants; nothing to do';
    const old = readAgentLog('a', JSON.stringify({ level: 'warn', msg: message, node: 'a' }));
    expect(cgroupV2([old]).passed).toBe(false);
    expect(cgroupV2([readAgentLog('a', READY), readAgentLog('b', '')])).toMatchObject({
      passed: true,
      detail: 'the agents say so on 1 of 2 nodes',
    });
  });
});

describe('the judgement', () => {
  test('is good if everything is', () => {
    expect(problems({})).toEqual({});
    expect(isComplete(GOOD)).toBe(true);
  });

  test.each([
    ['memory.oom.group=1', '1'],
    ['memory.oom.group=none', 'none'],
    ['exec format error', 'not seen'],
    ['', 'not seen'],
  ])('a probe that printed %j saw %s', (line, value) => {
    expect(problems({ probes: new Map([['a', line]]) })).toEqual({
      'Single at the first instruction': `a: ${value}`,
    });
  });

  test('a node without a herder, with two, and a herder without a node', () => {
    const herders = [pod('herder-1', 'a'), pod('herder-2', 'a'), pod('herder-3', '')];
    const logs = [{ ...readAgentLog('b', READY), kills: new Map([['sheep/x', 1]]) }];
    expect(problems({ nodes: ['a', 'b'], herders, before: [], logs })).toMatchObject({
      'one herder on each node': 'a has 2, b has 0, herder-3 is on none of them',
      'every herder survived an OOM kill': expect.stringMatching(/on a, b$/) as string,
    });
  });

  test.each([
    ['a sidecar that was injected', { cpu: '200m', memory: '64Mi' }, '300m and 192Mi'],
    ['one without a limit', undefined, 'Infinitym and InfinityMi'],
    ['one with a large one', { cpu: '0.1', memory: '1Gi' }, '200m and 1152Mi'],
  ])('limits with %s', (_, limits, detail) => {
    const herder = pod('herder-a', 'a');
    const containers = [
      ...(herder.spec?.containers ?? []),
      { name: 'proxy', resources: { limits } },
    ];
    expect(problems({ herders: [{ ...herder, spec: { ...herder.spec, containers } }] })).toEqual({
      'no pod over 250m CPU and 256Mi': `herder-a has ${detail}`,
    });
  });

  test('a herder that restarted, even if it runs again', () => {
    const again = {
      ...pod('herder-a', 'a').status,
      containerStatuses: crashed(1)?.containerStatuses,
    };
    expect(problems({ herders: [pod('herder-a', 'a', again)] })).toEqual({
      'no herder restarted': 'herder-a on a restarted once, last OOMKilled (137)',
    });
  });

  test('a herder that was replaced, which has no restarts of its own', () => {
    expect(problems({ before: [pod('herder-z', 'a')] })).toEqual({
      'no herder restarted': 'herder-z on a was replaced',
    });
  });

  test('a herder that is not ready', () => {
    const down = { conditions: [{ type: 'Ready', status: 'False' }] };
    expect(problems({ herders: [pod('herder-a', 'a', down)] })).toEqual({
      'no herder restarted': 'herder-a on a is not ready',
    });
  });

  test('kills are those of the pod itself: by UID, by reason, of all its containers', () => {
    const events = [
      event('herder-a', 7),
      event('herder-a', undefined),
      event('herder-a', 50, { reason: 'BackOff' }),
      event('herder-a', 50, { involvedObject: { name: 'herder-a', uid: 'of-an-older-one' } }),
    ];
    expect(nodeRows({ ...GOOD, events })[0]).toMatchObject({ survivedKills: 8, seenIn: 'Event' });
  });

  test('without Events the kills are in the log; without both they are not seen', () => {
    const logs = [readAgentLog('a', `${READY}\n${KILLED}`)];
    expect(nodeRows({ ...GOOD, events: [], logs })[0]).toMatchObject({
      survivedKills: 5,
      seenIn: 'log',
    });
    expect(problems({ events: [] })).toEqual({
      'every herder survived an OOM kill':
        "not seen, neither in Events nor in the agents' logs, on a",
    });
    expect(isComplete({ ...GOOD, events: [] })).toBe(false);
  });

  test.each([
    ['SIGKILL without a reason', crashed(1, 137, 'Error'), true],
    ['a mistake of its own', crashed(3, 1, 'Error'), false],
    ['nothing', {}, false],
  ])('a twin that ended by %s shows the difference: %s', (_, status, passed) => {
    const name = 'the twin without the label is killed and restarted';
    expect(name in problems({ twins: [pod('twin-a', 'a', status)] })).toBe(!passed);
  });

  test('a twin on a node where nobody is killed as a group cannot show anything', () => {
    const logs = [readAgentLog('a', READY.replace('"nodeValue":"1"', '"nodeValue":"0"'))];
    expect(problems({ twins: [pod('twin-a', 'a')], logs })).toEqual({
      'the twin without the label is killed and restarted':
        'on a containers without the label have 0, too: nothing to tell apart',
    });
  });
});

test.each([
  ['250m', 0.25],
  ['1', 1],
  ['0.5', 0.5],
  ['256Mi', 2 ** 28],
  ['268435456', 2 ** 28],
  ['1e3', 1000],
  ['128M', 128e6],
  ['1Gi', 2 ** 30],
  [undefined, Infinity],
])('the quantity %s is %d', (text, value) => {
  expect(quantity(text)).toBeCloseTo(value, 6);
});

test('a quantity that is none is no limit to rely on', () => {
  expect(quantity('lots')).toBeNaN();
});

describe('the objects', () => {
  const objects = workloads({
    namespace: 'oom-kill-mode-e2e-x',
    hostnames: ['a', 'b'],
    labelPrefix: 'oom.example.com',
    agentImage: 'example.com/curl:1',
    herderImage: 'example.com/herder:1',
  });

  test('are known to every version of Kubernetes, field by field', () => {
    expect(objects.map(({ kind }) => kind)).toEqual([
      ...['Namespace', 'Deployment', 'Deployment', 'Deployment'],
    ]);
    const schemas = loadSchemas();
    const found = VERSIONS.flatMap((version) =>
      objects.flatMap((object) => violations(schemas[version] ?? {}, object as Manifest)),
    );
    expect(found).toEqual([]);
  });

  test('are all in the namespace that goes away', () => {
    const [namespace, ...rest] = objects;
    expect(namespace?.metadata).toMatchObject({ name: 'oom-kill-mode-e2e-x' });
    expect(namespace?.metadata).not.toHaveProperty('namespace');
    expect(rest.map(({ metadata }) => metadata.namespace)).toEqual(
      rest.map(() => 'oom-kill-mode-e2e-x'),
    );
  });

  test('differ in the label, go to the nodes that are used, and end quickly', () => {
    const pods = objects.slice(1).map((object) => {
      const { spec } = object as unknown as {
        spec: { replicas: number; template: { metadata: object; spec: object } };
      };
      expect(spec.replicas).toBe(2);
      expect(spec.template.spec).toMatchObject({
        terminationGracePeriodSeconds: 1,
        affinity: {
          nodeAffinity: {
            requiredDuringSchedulingIgnoredDuringExecution: {
              nodeSelectorTerms: [
                {
                  matchExpressions: [
                    { key: 'kubernetes.io/hostname', operator: 'In', values: ['a', 'b'] },
                  ],
                },
              ],
            },
          },
        },
      });
      return [object.metadata.name, JSON.stringify(spec.template.metadata)] as const;
    });
    const labelled = pods.filter(([, labels]) =>
      labels.includes('"oom.example.com/mode":"Single"'),
    );
    expect(pods.map(([name]) => name)).toEqual(['herder', 'twin', 'probe']);
    expect(labelled.map(([name]) => name)).toEqual(['herder', 'probe']);
  });

  test('of the agent with another image are those of dist/, with that image', () => {
    const names = (image?: string) =>
      agent({ dist: `${ROOT}/dist`, image }).map(
        ({ kind, metadata }) => `${kind} ${metadata.name}`,
      );
    expect(names('example.com/curl:1')).toEqual(names());
    expect(names()).not.toContain('Deployment herder');
    const [daemonSet] = agent({ dist: '', image: 'example.com/curl:1' }).slice(-1);
    expect(JSON.stringify(daemonSet)).toContain('"image":"example.com/curl:1"');
  });
});

test('the table shows what is not seen, notes, and one line for each check, however long', () => {
  const text = render({
    passed: false,
    interrupted: 'SIGINT',
    context: 'kind-kind',
    checks: [
      { name: 'nodes', passed: true, detail: 'a' },
      { name: 'the run itself', passed: false, detail: 'kubectl: one\ntwo' },
    ],
    nodes: [
      { node: 'a', firstInstruction: 'not seen', survivedKills: 0, twin: 'not there' },
      {
        ...{ node: 'long-name', firstInstruction: '0', herderRestarts: 0 },
        ...{ survivedKills: 12, seenIn: 'Event', twin: 'restarted once' },
      },
    ],
    notes: ['b is left out: it is not ready'],
  });
  expect(text.split('\n')).toEqual([
    'NODE       FIRST INSTRUCTION  HERDER RESTARTS  KILLS SURVIVED  TWIN',
    'a          not seen           not there        not seen        not there',
    'long-name  0                  0                12 (Event)      restarted once',
    '',
    'note  b is left out: it is not ready',
    '',
    'ok    nodes           a',
    'FAIL  the run itself  kubectl: one two',
    '',
    'interrupted by SIGINT; 1 passed, 1 failed',
    '',
  ]);
});
