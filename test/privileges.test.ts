import { Chart, Testing } from 'cdk8s';
import { OomKillModeAgent } from '../lib';
import { Manifest, find, parse, read, synth, template } from './manifests';

/** Everything that gives power over a node or the API, literally: a change here is a security review. */
const AGENT = {
  pod: {
    hostNetwork: false,
    hostPID: false,
    hostIPC: false,
    shareProcessNamespace: undefined,
    hostUsers: undefined,
    serviceAccountName: 'oom-kill-mode-agent',
    automountServiceAccountToken: true,
    securityContext: { seccompProfile: { type: 'RuntimeDefault' } },
    volumes: [
      { name: 'script', configMap: { name: 'oom-kill-mode-agent', defaultMode: 0o444 } },
      { name: 'run', emptyDir: { medium: 'Memory', sizeLimit: '4Mi' } },
      { name: 'cgroup', hostPath: { path: '/sys/fs/cgroup', type: 'Directory' } },
      { name: 'containers', hostPath: { path: '/var/log/containers', type: 'Directory' } },
    ],
  },
  containers: [
    {
      name: 'agent',
      ports: undefined,
      envFrom: undefined,
      lifecycle: undefined,
      volumeDevices: undefined,
      securityContext: {
        runAsUser: 0,
        runAsGroup: 0,
        runAsNonRoot: false,
        privileged: false,
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      },
      volumeMounts: [
        { name: 'script', mountPath: '/opt/oom-kill-mode', readOnly: true },
        { name: 'run', mountPath: '/run/oom-kill-mode' },
        { name: 'cgroup', mountPath: '/host/cgroup' },
        { name: 'containers', mountPath: '/host/containers', readOnly: true },
      ],
    },
  ],
};

/** The agent with its metrics on: these, and nothing else, come on top. */
const AGENT_WITH_METRICS = {
  pod: {
    ...AGENT.pod,
    volumes: [
      ...AGENT.pod.volumes,
      { name: 'no-token', emptyDir: { medium: 'Memory', sizeLimit: '4Ki' } },
    ],
  },
  containers: [
    ...AGENT.containers,
    {
      name: 'metrics',
      ports: [{ name: 'metrics', containerPort: 9539, protocol: 'TCP' }],
      envFrom: undefined,
      lifecycle: undefined,
      volumeDevices: undefined,
      securityContext: {
        runAsUser: 65534,
        runAsGroup: 65534,
        runAsNonRoot: true,
        privileged: false,
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      },
      volumeMounts: [
        { name: 'run', mountPath: '/run/metrics', subPath: 'metrics', readOnly: true },
        {
          name: 'no-token',
          mountPath: '/var/run/secrets/kubernetes.io/serviceaccount',
          readOnly: true,
        },
      ],
    },
  ],
};

/** Waits for the agent before the herder starts. */
const WAIT = {
  name: 'wait-for-kill-mode',
  ports: undefined,
  envFrom: undefined,
  lifecycle: undefined,
  volumeDevices: undefined,
  securityContext: {
    runAsUser: 65534,
    runAsNonRoot: true,
    privileged: false,
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'] },
  },
  volumeMounts: undefined,
};

const HERDER = {
  pod: {
    hostNetwork: false,
    hostPID: undefined,
    hostIPC: undefined,
    shareProcessNamespace: undefined,
    hostUsers: undefined,
    serviceAccountName: undefined,
    automountServiceAccountToken: false,
    securityContext: {
      fsGroupChangePolicy: 'Always',
      runAsNonRoot: false,
      seccompProfile: { type: 'RuntimeDefault' },
    },
    volumes: undefined,
  },
  containers: [
    WAIT,
    {
      name: 'herder',
      ports: undefined,
      envFrom: undefined,
      lifecycle: undefined,
      volumeDevices: undefined,
      securityContext: {
        runAsNonRoot: false,
        privileged: false,
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ['ALL'] },
      },
      volumeMounts: undefined,
    },
  ],
};

const RBAC = [
  {
    kind: 'ClusterRole',
    name: 'oom-kill-mode-agent',
    rules: [{ apiGroups: [''], resources: ['pods'], resourceNames: [], verbs: ['list', 'watch'] }],
    aggregationRule: undefined,
  },
  {
    kind: 'ClusterRoleBinding',
    name: 'oom-kill-mode-agent',
    roleRef: {
      apiGroup: 'rbac.authorization.k8s.io',
      kind: 'ClusterRole',
      name: 'oom-kill-mode-agent',
    },
    subjects: [
      {
        apiGroup: '',
        kind: 'ServiceAccount',
        name: 'oom-kill-mode-agent',
        namespace: 'oom-kill-mode',
      },
    ],
  },
];

const AGENT_KINDS = [
  'Namespace',
  'ServiceAccount',
  'ClusterRole',
  'ClusterRoleBinding',
  'ConfigMap',
  'NetworkPolicy',
  'DaemonSet',
];

function agentWithMetrics(): Manifest[] {
  const chart = new Chart(Testing.app(), 'metrics');
  new OomKillModeAgent(chart, 'agent', { metrics: true });
  return synth(chart);
}

describe.each([
  {
    name: 'dist/herder.k8s.yaml',
    manifests: parse(read('dist', 'herder.k8s.yaml')),
    kinds: [...AGENT_KINDS, 'Deployment'],
    workloads: { 'DaemonSet/oom-kill-mode-agent': AGENT, 'Deployment/herder': HERDER },
    ingress: undefined,
  },
  {
    name: 'examples/agent-only/dist/oom-kill-mode-agent.k8s.yaml',
    manifests: parse(read('examples', 'agent-only', 'dist', 'oom-kill-mode-agent.k8s.yaml')),
    kinds: AGENT_KINDS,
    workloads: { 'DaemonSet/oom-kill-mode-agent': AGENT },
    ingress: undefined,
  },
  {
    name: 'the agent with metrics',
    manifests: agentWithMetrics(),
    kinds: AGENT_KINDS,
    workloads: { 'DaemonSet/oom-kill-mode-agent': AGENT_WITH_METRICS },
    ingress: [{ ports: [{ port: 9539, protocol: 'TCP' }] }],
  },
])('$name', ({ manifests, kinds, workloads, ingress }) => {
  test('has these objects and no other', () => {
    expect(manifests.map((m) => m.kind)).toEqual(kinds);
  });

  test('has these privileges and no other', () => {
    const found = manifests
      .filter((m) => ['DaemonSet', 'Deployment'].includes(m.kind))
      .map((m) => [`${m.kind}/${m.metadata.name}`, privileges(m)] as const);
    expect(Object.fromEntries(found)).toEqual(workloads);
  });

  test('has this access to the API and no other', () => {
    const found = manifests
      .filter((m) => /Role/.test(m.kind))
      .map(({ kind, metadata, rules, aggregationRule, roleRef, subjects }) =>
        kind.endsWith('Binding')
          ? { kind, name: metadata.name, roleRef, subjects }
          : { kind, name: metadata.name, rules, aggregationRule },
      );
    expect(found).toEqual(RBAC);
  });

  test('lets this in to the pods of the agent and no other', () => {
    const { spec } = find(manifests, 'NetworkPolicy');
    expect(spec.podSelector).toEqual({
      matchLabels: find(manifests, 'DaemonSet').spec.selector.matchLabels,
    });
    expect([spec.policyTypes, spec.ingress]).toEqual([['Ingress'], ingress]);
  });

  test('gives the token to the pods that ask for it only', () => {
    expect(
      manifests
        .filter((m) => m.kind === 'ServiceAccount')
        .map((m) => m.automountServiceAccountToken),
    ).toEqual([false]);
  });
});

function privileges(manifest: Manifest) {
  const { spec } = template(manifest);
  const { initContainers = [], containers } = spec as Partial<typeof spec>;
  return {
    pod: {
      hostNetwork: spec.hostNetwork,
      hostPID: spec.hostPID,
      hostIPC: spec.hostIPC,
      shareProcessNamespace: spec.shareProcessNamespace,
      hostUsers: spec.hostUsers,
      serviceAccountName: spec.serviceAccountName,
      automountServiceAccountToken: spec.automountServiceAccountToken,
      securityContext: spec.securityContext,
      volumes: spec.volumes,
    },
    containers: [...initContainers, ...(containers ?? [])].map((container) => ({
      name: container.name,
      ports: container.ports,
      envFrom: container.envFrom,
      lifecycle: container.lifecycle,
      volumeDevices: container.volumeDevices,
      securityContext: container.securityContext,
      volumeMounts: container.volumeMounts,
    })),
  };
}
