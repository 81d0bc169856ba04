import { Chart, Size, Testing } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { OnePerNodeDeployment, OomKillModeAgent, OomKillModeAgentProps } from '../lib';
import { Manifest, find, parse, read, synth, template } from './support/manifests';

/** Everything that gives power over a node or the API, literally: a change here is a security review. */
const AGENT = {
  pod: {
    hostNetwork: undefined,
    hostPID: undefined,
    hostIPC: undefined,
    shareProcessNamespace: undefined,
    hostUsers: undefined,
    serviceAccountName: 'oom-kill-mode-agent',
    automountServiceAccountToken: true,
    securityContext: { seccompProfile: { type: 'RuntimeDefault' } },
    volumes: [
      {
        name: 'script',
        configMap: {
          name: expect.stringMatching(/^oom-kill-mode-agent-[0-9a-f]{10}$/) as string,
          defaultMode: 0o444,
        },
      },
      { name: 'run', emptyDir: { medium: 'Memory', sizeLimit: '4Mi' } },
      { name: 'cgroup', hostPath: { path: '/sys/fs/cgroup', type: 'Directory' } },
      { name: 'containers', hostPath: { path: '/var/log/containers', type: 'Directory' } },
      { name: 'systemd', hostPath: { path: '/run/systemd/transient' } },
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
        { name: 'systemd', mountPath: '/host/systemd', readOnly: true },
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

/** The drop-in for systemd: who can write unit files owns the node. */
const DROP_IN = {
  pod: {
    hostNetwork: undefined,
    hostPID: true,
    hostIPC: undefined,
    shareProcessNamespace: undefined,
    hostUsers: undefined,
    serviceAccountName: undefined,
    automountServiceAccountToken: false,
    securityContext: { seccompProfile: { type: 'RuntimeDefault' } },
    volumes: [
      {
        name: 'script',
        configMap: {
          name: expect.stringMatching(/^oom-policy-drop-in-[0-9a-f]{10}$/) as string,
          defaultMode: 0o444,
        },
      },
      { name: 'systemd', hostPath: { path: '/run/systemd/system', type: 'Directory' } },
    ],
  },
  containers: [
    {
      name: 'drop-in',
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
        appArmorProfile: { type: 'Unconfined' },
      },
      volumeMounts: [
        { name: 'script', mountPath: '/opt/oom-kill-mode', readOnly: true },
        { name: 'systemd', mountPath: '/host/systemd/system' },
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
    hostNetwork: undefined,
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
    rules: [
      { apiGroups: [''], resources: ['pods'], verbs: ['watch'] },
      { apiGroups: [''], resources: ['events'], verbs: ['create', 'patch'] },
    ],
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
        kind: 'ServiceAccount',
        name: 'oom-kill-mode-agent',
        namespace: 'oom-kill-mode',
      },
    ],
  },
];

/** The same without Events. */
const RBAC_WITHOUT_EVENTS = RBAC.map((object) => ({
  ...object,
  ...(object.rules ? { rules: object.rules.slice(0, 1) } : {}),
}));

/** The cluster-proportional-autoscaler that comes with `followNodes`. */
const AUTOSCALER = {
  pod: {
    hostNetwork: undefined,
    hostPID: undefined,
    hostIPC: undefined,
    shareProcessNamespace: undefined,
    hostUsers: undefined,
    serviceAccountName: 'web-autoscaler',
    automountServiceAccountToken: true,
    securityContext: {
      fsGroupChangePolicy: 'Always',
      runAsNonRoot: true,
      seccompProfile: { type: 'RuntimeDefault' },
    },
    volumes: undefined,
  },
  containers: [
    {
      name: 'autoscaler',
      ports: undefined,
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
      volumeMounts: undefined,
    },
  ],
};

const AUTOSCALER_SUBJECT = {
  kind: 'ServiceAccount',
  name: 'web-autoscaler',
  namespace: 'sheep',
};

const AUTOSCALER_RBAC = [
  {
    kind: 'Role',
    name: 'web-autoscaler',
    rules: [
      {
        apiGroups: [''],
        resources: ['configmaps'],
        resourceNames: ['web-autoscaler'],
        verbs: ['get'],
      },
      {
        apiGroups: ['apps'],
        resources: ['deployments/scale'],
        resourceNames: ['web'],
        verbs: ['get', 'update'],
      },
    ],
    aggregationRule: undefined,
  },
  {
    kind: 'RoleBinding',
    name: 'web-autoscaler',
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'web-autoscaler' },
    subjects: [AUTOSCALER_SUBJECT],
  },
  {
    kind: 'ClusterRole',
    name: 'sheep.web-autoscaler',
    rules: [{ apiGroups: [''], resources: ['nodes'], verbs: ['list', 'watch'] }],
    aggregationRule: undefined,
  },
  {
    kind: 'ClusterRoleBinding',
    name: 'sheep.web-autoscaler',
    roleRef: {
      apiGroup: 'rbac.authorization.k8s.io',
      kind: 'ClusterRole',
      name: 'sheep.web-autoscaler',
    },
    subjects: [AUTOSCALER_SUBJECT],
  },
];

const AGENT_KINDS = [
  'Namespace',
  'ServiceAccount',
  'ResourceQuota',
  'ClusterRole',
  'ClusterRoleBinding',
  'ConfigMap',
  'NetworkPolicy',
  'DaemonSet',
];

function agentWith(props: OomKillModeAgentProps): Manifest[] {
  const chart = new Chart(Testing.app(), 'agent');
  new OomKillModeAgent(chart, 'agent', props);
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
    manifests: agentWith({ metrics: true }),
    kinds: AGENT_KINDS,
    workloads: { 'DaemonSet/oom-kill-mode-agent': AGENT_WITH_METRICS },
    ingress: [{ ports: [{ port: 9539, protocol: 'TCP' }] }],
  },
  {
    name: 'the agent without Events',
    manifests: agentWith({ events: false }),
    kinds: AGENT_KINDS,
    workloads: { 'DaemonSet/oom-kill-mode-agent': AGENT },
    rbac: RBAC_WITHOUT_EVENTS,
    ingress: undefined,
  },
])('$name', ({ manifests, kinds, workloads, rbac = RBAC, ingress }) => {
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
    expect(access(manifests)).toEqual(rbac);
  });

  test('lets this in to the pods of the agent and no other', () => {
    const { spec } = find(manifests, 'NetworkPolicy');
    expect(spec.podSelector).toEqual({
      matchLabels: find(manifests, 'DaemonSet').spec.selector.matchLabels,
    });
    expect([spec.policyTypes, spec.ingress]).toEqual([['Ingress'], ingress]);
  });

  test('gives the token to the pods that ask for it only', () => {
    expect(automaticTokens(manifests)).toEqual([false]);
  });
});

/** Of each ServiceAccount, whether its pods get its token without asking. */
function automaticTokens(manifests: Manifest[]): unknown[] {
  return manifests
    .filter((m) => m.kind === 'ServiceAccount')
    .map((m) => m.automountServiceAccountToken);
}

/** The drop-in for systemd, which is neither in dist/ nor part of the agent. */
describe('examples/systemd-drop-in/dist/systemd-drop-in.k8s.yaml', () => {
  const manifests = parse(read('examples', 'systemd-drop-in', 'dist', 'systemd-drop-in.k8s.yaml'));

  test('has these objects and no other, and so no access to the API', () => {
    expect(manifests.map((m) => m.kind)).toEqual(['ConfigMap', 'NetworkPolicy', 'DaemonSet']);
  });

  test('has these privileges and no other', () => {
    const daemonSet = find(manifests, 'DaemonSet');
    expect(privileges(daemonSet as unknown as Manifest)).toEqual(DROP_IN);
    expect(template(daemonSet).metadata.annotations).toEqual({
      'container.apparmor.security.beta.kubernetes.io/drop-in': 'unconfined',
    });
  });

  test('lets nobody in to its pods, and its pods nowhere', () => {
    const { spec } = find(manifests, 'NetworkPolicy');
    expect([spec.policyTypes, spec.ingress, spec.egress]).toEqual([
      ['Ingress', 'Egress'],
      undefined,
      undefined,
    ]);
    expect(spec.podSelector).toEqual({
      matchLabels: template(find(manifests, 'DaemonSet')).metadata.labels,
    });
  });

  test('has a line in docs/security.md for each of its privileges', () => {
    const lines = read('docs', 'security.md').split('\n');
    const { pod, containers } = DROP_IN;
    const wanted = [
      ...pod.volumes.flatMap(({ hostPath }) =>
        hostPath ? [`hostPath \`${hostPath.path}\`, writable`] : [],
      ),
      ...(pod.hostPID ? ['`hostPID`'] : []),
      ...containers.flatMap(({ securityContext: own }) => [
        `\`runAsUser: ${own.runAsUser}\``,
        `AppArmor \`${own.appArmorProfile.type}\``,
      ]),
      'no ingress and no egress',
    ];
    expect(wanted).toHaveLength(5);
    const found = (start: string) =>
      lines.filter((line) => line.startsWith(`| ${start}`) && line.includes('| `OomPolicyDropIn`'));
    expect(wanted.filter((start) => found(start).length !== 1)).toEqual([]);
  });
});

/** A deployment that follows the nodes: what its autoscaler may do, and nothing else. */
describe('followNodes', () => {
  const manifests = following();

  test('has these objects and no other', () => {
    expect(manifests.map((m) => m.kind)).toEqual([
      'Deployment',
      'ConfigMap',
      'ServiceAccount',
      'Role',
      'RoleBinding',
      'ClusterRole',
      'ClusterRoleBinding',
      'Deployment',
      'NetworkPolicy',
    ]);
  });

  test('has these privileges and no other', () => {
    const [deployment, autoscaler] = manifests.filter((m) => m.kind === 'Deployment');
    expect(privileges(deployment as Manifest)).toEqual({
      ...HERDER,
      containers: [{ ...HERDER.containers[1], name: 'web' }],
    });
    expect(privileges(autoscaler as Manifest)).toEqual(AUTOSCALER);
  });

  test('has this access to the API and no other', () => {
    expect(access(manifests)).toEqual(AUTOSCALER_RBAC);
  });

  test('lets nobody in to the autoscaler', () => {
    const { metadata, spec } = find(manifests, 'NetworkPolicy');
    expect(metadata.namespace).toBe('sheep');
    const [, autoscaler] = manifests.filter((m) => m.kind === 'Deployment');
    expect(autoscaler).toMatchObject({
      metadata: { namespace: 'sheep' },
      spec: { selector: { matchLabels: spec.podSelector.matchLabels } },
    });
    expect([spec.policyTypes, spec.ingress]).toEqual([['Ingress'], undefined]);
  });

  test('gives the token to the pods that ask for it only', () => {
    expect(automaticTokens(manifests)).toEqual([false]);
  });
});

test('docs/security.md has a line for every access to the API', () => {
  const lines = read('docs', 'security.md').split('\n');
  const wanted = [...RBAC, ...AUTOSCALER_RBAC].flatMap(({ kind, rules = [] }) =>
    rules.flatMap(({ resources, verbs }) =>
      resources.flatMap((resource) =>
        verbs.map((verb) => new RegExp(`^\\| ${kind} \`${resource}: ${verb}\`[^|]*\\|[^|]*[a-z]`)),
      ),
    ),
  );
  expect(wanted).toHaveLength(8);
  expect(wanted.filter((line) => !lines.some((each) => line.test(each)))).toEqual([]);
});

function following(): Manifest[] {
  const chart = new Chart(Testing.app(), 'following');
  new OnePerNodeDeployment(chart, 'web', {
    name: 'web',
    namespace: 'sheep',
    image: 'example.com/web:1',
    followNodes: true,
    cpu: kplus.Cpu.millis(100),
    memory: Size.mebibytes(64),
  });
  return synth(chart);
}

function access(manifests: Manifest[]) {
  return manifests
    .filter((m) => /Role/.test(m.kind))
    .map(({ kind, metadata, rules, aggregationRule, roleRef, subjects }) =>
      kind.endsWith('Binding')
        ? { kind, name: metadata.name, roleRef, subjects }
        : { kind, name: metadata.name, rules, aggregationRule },
    );
}

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
