import {
  AdmissionFailurePolicy,
  OomKillMode,
  OomKillModeAdmissionPolicy,
  OomKillModeAgent,
  OomKillModeDefaults,
  OomKillModeDefaultsProps,
  OomPolicyDropIn,
} from '../../lib';
import { ALL_DEFAULTS_PROPS } from '../support/all-props';
import { Admission, Json, Mutation } from '../support/admission';
import { Manifest, chart, synth, template } from '../support/manifests';

const LABEL = 'cdk8s-oom-kill-mode/mode';
const CONTAINERS = 'cdk8s-oom-kill-mode/containers';
const NOTEBOOKS = { mode: OomKillMode.SINGLE, namespaces: ['notebooks'] };
const WORKER = { ...NOTEBOOKS, containers: { worker: OomKillMode.GROUP, init: OomKillMode.GROUP } };

function manifests(props: OomKillModeDefaultsProps): Manifest[] {
  const scope = chart('elsewhere');
  new OomKillModeDefaults(scope, 'defaults', props);
  return synth(scope);
}

function defaults(props: OomKillModeDefaultsProps): Mutation {
  return new Mutation(manifests(props)[0] as Manifest);
}

function pod(metadata: Json = {}, ...containers: string[]): Json {
  const named = (names: string[]) => names.map((name) => ({ name, image: 'example.com/image:1' }));
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata,
    spec: { containers: named(['main', ...containers]), initContainers: named(['init']) },
  };
}

describe('a new pod', () => {
  test('gets the mode label, whether it has labels or not', () => {
    const policy = defaults(NOTEBOOKS);
    expect(policy.admit(pod(), 'notebooks')).toEqual({ labels: { [LABEL]: 'Single' } });
    expect(policy.admit(pod({ labels: { app: 'a' } }), 'notebooks')).toEqual({
      labels: { app: 'a', [LABEL]: 'Single' },
    });
  });

  test('keeps the mode label that it has, right or wrong, and gets nothing else', () => {
    const policy = defaults(WORKER);
    for (const mode of ['Group', 'single', '']) {
      const metadata = { labels: { [LABEL]: mode } };
      expect(policy.admit(pod(metadata, 'worker'), 'notebooks')).toEqual(metadata);
    }
  });

  test('gets the modes of the containers and init containers that it has', () => {
    const policy = defaults(WORKER);
    expect(policy.admit(pod({}, 'worker'), 'notebooks')).toEqual({
      labels: { [LABEL]: 'Single' },
      annotations: { [CONTAINERS]: 'init=Group,worker=Group' },
    });
    expect(policy.admit(pod({ annotations: { a: 'b' } }), 'notebooks')).toEqual({
      labels: { [LABEL]: 'Single' },
      annotations: { a: 'b', [CONTAINERS]: 'init=Group' },
    });
    const { spec, ...others } = pod({});
    const { containers } = spec as Json;
    expect(policy.admit({ ...others, spec: { containers } }, 'notebooks')).toEqual({
      labels: { [LABEL]: 'Single' },
    });
  });

  test('gets the modes of containers that a webhook adds later', () => {
    const policy = defaults({ ...WORKER, injectedContainers: ['worker'] });
    expect(policy.admit(pod(), 'notebooks').annotations).toEqual({
      [CONTAINERS]: 'init=Group,worker=Group',
    });
  });

  test('keeps the annotation that it has', () => {
    const annotations = { [CONTAINERS]: 'main=Group' };
    expect(defaults(WORKER).admit(pod({ annotations }), 'notebooks')).toEqual({
      labels: { [LABEL]: 'Single' },
      annotations,
    });
  });

  test('is left alone in other namespaces, and with other labels', () => {
    const policy = defaults({
      mode: OomKillMode.GROUP,
      namespaces: ['notebooks', 'ci'],
      namespaceLabels: { team: 'data' },
      podLabels: { component: 'singleuser-server' },
    });
    const metadata = { labels: { component: 'singleuser-server' } };
    const changed = { labels: { component: 'singleuser-server', [LABEL]: 'Group' } };
    expect(policy.admit(pod(metadata), 'ci', { team: 'data' })).toEqual(changed);
    expect(policy.admit(pod(metadata), 'ci')).toEqual(metadata);
    expect(policy.admit(pod(metadata), 'web', { team: 'data' })).toEqual(metadata);
    expect(policy.admit(pod({}), 'ci', { team: 'data' })).toEqual({});
  });

  test('is left alone in namespaces of the system, unless they are named', () => {
    const byLabel = defaults({ mode: OomKillMode.SINGLE, podLabels: { app: 'a' } });
    const metadata = { labels: { app: 'a' } };
    for (const namespace of ['kube-system', 'kube-public', 'openshift-monitoring']) {
      expect(byLabel.admit(pod(metadata), namespace)).toEqual(metadata);
    }
    expect(byLabel.admit(pod(metadata), 'kubernetes').labels).toHaveProperty([LABEL], 'Single');
    const byName = defaults({ mode: OomKillMode.SINGLE, namespaces: ['kube-system'] });
    expect(byName.admit(pod(), 'kube-system').labels).toHaveProperty([LABEL], 'Single');
  });

  test('of the agent or of the drop-in is never changed', () => {
    const scope = chart();
    new OomKillModeAgent(scope, 'agent', { metrics: true });
    new OomPolicyDropIn(scope, 'drop-in');
    const policy = defaults({ mode: OomKillMode.SINGLE, namespaces: ['oom-kill-mode'] });
    const ours = synth(scope).filter(({ kind }) => kind === 'DaemonSet');
    expect(ours).toHaveLength(2);
    for (const daemonSet of ours) {
      const { metadata, spec } = template(daemonSet);
      const admitted = policy.admit({ ...pod(), metadata, spec }, 'oom-kill-mode');
      expect(admitted).toEqual(metadata);
    }
    expect(policy.admit(pod(), 'oom-kill-mode').labels).toHaveProperty([LABEL], 'Single');
  });

  test('passes OomKillModeAdmissionPolicy, which sees it afterwards', () => {
    const scope = chart();
    new OomKillModeAdmissionPolicy(scope, 'guard');
    const guard = new Admission(synth(scope)[0] as Manifest);
    for (const containers of [[], ['worker']]) {
      const created = pod({}, ...containers);
      const object = { ...created, metadata: defaults(WORKER).admit(created, 'notebooks') as Json };
      expect(guard.review({ operation: 'CREATE', object, namespace: 'notebooks' })).toEqual([]);
    }
  });
});

test('it changes new pods and nothing else, by the binding of the same name', () => {
  const [policy, binding, ...others] = manifests(NOTEBOOKS);
  expect(others).toEqual([]);
  expect(policy).toMatchObject({
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingAdmissionPolicy',
    metadata: { name: 'oom-kill-mode-defaults' },
    spec: { failurePolicy: 'Ignore', reinvocationPolicy: 'Never' },
  });
  expect(policy?.spec).toHaveProperty('matchConstraints.resourceRules', [
    {
      apiGroups: [''],
      apiVersions: ['v1'],
      operations: ['CREATE'],
      resources: ['pods'],
      scope: '*',
    },
  ]);
  expect(binding).toMatchObject({
    kind: 'MutatingAdmissionPolicyBinding',
    metadata: { name: 'oom-kill-mode-defaults' },
    spec: { policyName: 'oom-kill-mode-defaults' },
  });
  for (const manifest of [policy, binding]) {
    expect(manifest?.metadata).not.toHaveProperty('namespace');
  }
});

test('every option is in the manifests', () => {
  const [policy, binding] = manifests(ALL_DEFAULTS_PROPS);
  for (const manifest of [policy, binding]) {
    expect(manifest?.metadata).toMatchObject({
      name: 'defaults.example.com',
      labels: { 'example.com/team': 'platform', 'app.kubernetes.io/component': 'defaults' },
      annotations: { 'example.com/runbook': 'https://example.com/oom' },
    });
  }
  expect(policy?.spec).toMatchObject({ failurePolicy: AdmissionFailurePolicy.FAIL });
  expect(
    new Mutation(policy as Manifest).admit(pod({ labels: { app: 'a' } }), 'ci', { team: 'data' }),
  ).toEqual({
    labels: { app: 'a', 'oom.example.com/mode': 'Group' },
    annotations: { 'oom.example.com/containers': 'istio-proxy=Single,main=Single' },
  });
});

test.each<[string, Partial<OomKillModeDefaultsProps>]>([
  [
    'namespaces is an empty list, or no option selects the pods. Write namespaces: ["jupyterhub"], namespaceLabels or podLabels.',
    { namespaces: undefined },
  ],
  [
    'namespaces is an empty list, or no option selects the pods. Write namespaces: ["jupyterhub"], namespaceLabels or podLabels.',
    { namespaces: [], podLabels: { app: 'a' } },
  ],
  [
    'MutatingAdmissionPolicy v1 needs Kubernetes 1.36, but kubernetesVersion is 1.35. Write a later version, or no OomKillModeDefaults for this cluster.',
    { kubernetesVersion: '1.35' },
  ],
  ['mode is unknown: "single". Write "Single" or "Group".', { mode: 'single' as never }],
  [
    'containers.main is unknown: "group". Write "Single" or "Group".',
    { containers: { main: 'group' as never } },
  ],
  [
    'injectedContainers has "istio-proxy", but containers has no mode for it. Write its mode in containers, or leave the name out.',
    { injectedContainers: ['istio-proxy'] },
  ],
  [
    'the annotation for containers would have more than 8192 characters. Write fewer containers.',
    {
      containers: Object.fromEntries(
        Array.from({ length: 800 }, (_, i) => [`container-${i}`, OomKillMode.GROUP]),
      ),
    },
  ],
  [
    'podLabels would override a value that this construct depends on: "cdk8s-oom-kill-mode/mode". Write another key.',
    { podLabels: { [LABEL]: 'Single' } },
  ],
  [
    'namespaceLabels["team"] is not a valid label value: "a b". Write at most 63 letters, digits, "-", "_" and ".", with a letter or digit at both ends.',
    { namespaceLabels: { team: 'a b' } },
  ],
])('it refuses: %s', (message, props) => {
  expect(() => manifests({ ...NOTEBOOKS, ...props })).toThrow(
    new Error(`[test/defaults] ${message}`),
  );
});

test('its prefix is one of the agents of its cluster, and its name is its own', () => {
  const scope = chart();
  new OomKillModeAgent(scope, 'agent');
  new OomKillModeDefaults(scope, 'defaults', { ...NOTEBOOKS, labelPrefix: 'oom.example.com' });
  expect(() => synth(scope)).toThrow(
    'labelPrefix is oom.example.com, but no agent of this app has this prefix',
  );

  const twice = chart();
  new OomKillModeDefaults(twice, 'a', NOTEBOOKS);
  new OomKillModeDefaults(twice, 'b', NOTEBOOKS);
  expect(() => synth(twice)).toThrow('already creates the MutatingAdmissionPolicy ');
});
