import {
  Observation,
  cgroupV2,
  isAllowed,
  isComplete,
  judge,
  kubectlSkew,
  nodeRows,
  podsOf,
  readAgentLog,
  serverVersion,
  readVersions,
  usableNodes,
} from '../../e2e/checks';
import { Event, Node, Pod } from '../../e2e/kubectl';
import { whyNot } from '../../e2e/waiting';
import { Manifest, read } from '../support/manifests';
import { loadSchemas, violations } from '../support/schema';

// What the script concludes from what kubectl prints on several distributions: see fixtures/README.md.

const text = (...path: string[]) => read('test', 'e2e', 'fixtures', ...path);

/** The items of a `kubectl get -o json`. */
function items<T>(...path: string[]): T[] {
  const list = JSON.parse(text(...path)) as { kind: string; items: T[] };
  expect(list.kind).toBe('List');
  return list.items;
}

const DISTRIBUTIONS = ['aks', 'eks', 'gke', 'k3s', 'kind', 'minikube', 'openshift'];

test('the nodes and pods have no field that Kubernetes does not know', () => {
  const schemas = loadSchemas();
  const objects = [
    ...DISTRIBUTIONS.flatMap((name) => items<Manifest>(name, 'nodes.json')),
    ...items<Manifest>('kind', 'pods.json'),
    ...items<Manifest>('kind', 'pods-stuck.json'),
  ].map(withoutNulls);
  const found = ['1.30', '1.32'].flatMap((version) =>
    objects.flatMap((object) => violations(schemas[version] ?? {}, object)),
  );
  expect(found).toEqual([]);
});

/** kubectl prints times that are not known as null. */
function withoutNulls(object: Manifest): Manifest {
  return JSON.parse(
    JSON.stringify(object, (_, value: unknown) => (value === null ? undefined : value)),
  ) as Manifest;
}

test.each([
  ['aks', 'v1.31.2', undefined],
  ['eks', 'v1.31.5-eks-5d632ec', undefined],
  ['gke', 'v1.30.8-gke.1162000', 'v1.27.3'],
  ['k3s', 'v1.31.4+k3s1', 'v1.34.5'],
  ['kind', 'v1.31.2', undefined],
  ['minikube', 'v1.30.0', 'v1.32.1'],
  ['openshift', 'v1.29.9+5865c5b', undefined],
])('%s: %s is new enough, and kubectl is noted if it is far away', (name, server, kubectl) => {
  const versions = readVersions({ status: 0, stdout: text(name, 'version.json'), stderr: '' });
  expect(serverVersion(versions)).toMatchObject({ passed: true, detail: server });
  expect(kubectlSkew(versions)).toEqual(
    kubectl === undefined
      ? []
      : [`kubectl ${kubectl} is more than one minor version away from the server's ${server}`],
  );
});

test.each([
  [
    'aks',
    [['aks-nodepool1-38601234-vmss000000', 'v1.31.2']],
    [
      'akswin000000 is left out: its system is windows',
      // Without the label kubernetes.io/os, with the system "Linux", and with a version of its own.
      'virtual-node-aci-linux is left out: it is virtual and has no agent',
    ],
  ],
  [
    'eks',
    [['ip-10-7-12-201.eu-central-1.compute.internal', 'v1.31.5-eks-5d632ec']],
    [
      'fargate-ip-10-7-94-68.eu-central-1.compute.internal is left out: it is virtual and has no agent',
    ],
  ],
  [
    'gke',
    [['gke-main-default-pool-4d0fa82d-ttxh', 'v1.30.8-gke.1162000']],
    [
      'gke-main-old-pool-73eeead1-k6s1 is left out: its kubelet is v1.27.16-gke.1373000, and those before 1.28 never set memory.oom.group',
    ],
  ],
  ['k3s', [['pi', 'v1.31.4+k3s1']], []],
  [
    'kind',
    [
      ['kind-control-plane', 'v1.31.2'],
      ['kind-worker', 'v1.31.2'],
    ],
    [],
  ],
  // The control plane has no taint there.
  [
    'minikube',
    [
      ['minikube', 'v1.30.0'],
      ['minikube-m02', 'v1.30.0'],
    ],
    [],
  ],
  [
    'openshift',
    [
      ['master-0', 'v1.29.9+5865c5b'],
      ['worker-0', 'v1.29.9+5865c5b'],
    ],
    ['worker-1 is left out: it is not ready'],
  ],
])('%s: the nodes that can run a herder, tainted ones as well', (name, expected, notes) => {
  const found = usableNodes(items<Node>(name, 'nodes.json'));
  expect(found.usable.map((one) => [one.name, one.kubelet])).toEqual(expected);
  expect(found.notes).toEqual(notes);
});

test('kubectl auth can-i says yes, no, no with a reason, or nothing', () => {
  const recorded = JSON.parse(text('can-i.json')) as { stdout: string }[];
  expect(recorded.map(({ stdout }) => isAllowed(stdout))).toEqual([
    ...[true, true, false, false, undefined],
  ]);
});

describe('a run on kind', () => {
  const pods = items<Pod>('kind', 'pods.json');
  const nodes = usableNodes(items<Node>('kind', 'nodes.json')).usable.map(({ name }) => name);
  const seen: Observation = {
    nodes,
    seconds: 60,
    before: podsOf('herder', pods),
    herders: podsOf('herder', pods),
    twins: podsOf('twin', pods),
    probes: new Map(nodes.map((node) => [node, text('kind', 'probe.log').split('\n')[0] ?? ''])),
    events: items<Event>('kind', 'events.json'),
    logs: [readAgentLog('kind-worker', text('kind', 'agent.log'))],
  };

  test('is good: kills in Events, a twin in CrashLoopBackOff and one that runs again', () => {
    expect(judge(seen).filter(({ passed }) => !passed)).toEqual([]);
    expect(isComplete(seen)).toBe(true);
    const row = { firstInstruction: '0', herderRestarts: 0, seenIn: 'Event' };
    expect(nodeRows(seen)).toEqual([
      {
        ...{ ...row, node: 'kind-control-plane', survivedKills: 6 },
        // Some runtimes only tell that it was SIGKILL.
        twin: 'restarted 2 times, last Error (137)',
      },
      {
        ...{ ...row, node: 'kind-worker', survivedKills: 4 },
        twin: 'restarted 3 times, last OOMKilled (137)',
      },
    ]);
  });

  test('without Events has the kills of the log', () => {
    expect(nodeRows({ ...seen, events: [] })[1]).toMatchObject({
      survivedKills: 4,
      seenIn: 'log',
    });
  });

  test('is bad if the herders are restarted like the twins', () => {
    const twins = podsOf('twin', pods);
    const failed = judge({ ...seen, before: twins, herders: twins }).filter(
      ({ passed }) => !passed,
    );
    expect(failed.map(({ name }) => name)).toEqual([
      'no herder restarted',
      'every herder survived an OOM kill',
    ]);
  });

  test('has an agent that tells the node value, or cgroup v1, and warns', () => {
    const [log] = seen.logs;
    expect(log).toMatchObject({ nodeValue: '1', cgroupV1: false });
    expect(log?.warnings).toEqual(['kind-worker: Event not sent; it is tried again later']);
    const old = readAgentLog('kind-worker', text('kind', 'agent-cgroup-v1.log'));
    expect(cgroupV2([old]).passed).toBe(false);
  });

  test('may have pods that do not get on, in the words of whoever knows why', () => {
    expect(items<Pod>('kind', 'pods-stuck.json').map((pod) => whyNot(pod))).toEqual([
      expect.stringMatching(
        /^twin-\w+-\w+: ImagePullBackOff \(Back-off pulling image "mirror\.example\/herder:v1\.0\.0": ErrImagePull: .*no such host\)$/,
      ),
      expect.stringMatching(/^herder-\w+-\w+: 0\/2 nodes are available: 1 Insufficient cpu, /),
      expect.stringMatching(/^herder-\w+-\w+: init container wait-for-kill-mode is running$/),
      expect.stringMatching(
        /^probe-\w+-\w+: CreateContainerConfigError \(container has runAsNonRoot and /,
      ),
    ]);
  });
});
