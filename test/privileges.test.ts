import { Chart, Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import {
  OnePerNodeDeployment,
  OomKillModeAgent,
  OomKillModeAgentProps,
  OomPolicyDropIn,
} from '../lib';
import { Manifest, chart, find, parse, read, synth, template } from './support/manifests';

// Everything that gives power over a node or the API, literally: a change here is a security review.

const CONFINED = {
  privileged: false,
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ['ALL'] },
};
const ROOT_USER = { ...CONFINED, runAsUser: 0, runAsGroup: 0, runAsNonRoot: false };
const NOBODY = { ...CONFINED, runAsUser: 65534, runAsGroup: 65534, runAsNonRoot: true };
const SECCOMP = { seccompProfile: { type: 'RuntimeDefault' } };
const SCRIPT_MOUNT = { name: 'script', mountPath: '/opt/oom-kill-mode', readOnly: true };

const script = (name: string) => ({
  name: 'script',
  configMap: {
    name: expect.stringMatching(`^${name}-[0-9a-f]{10}$`) as string,
    defaultMode: 0o444,
  },
});

const AGENT = {
  pod: {
    serviceAccountName: 'oom-kill-mode-agent',
    automountServiceAccountToken: true,
    securityContext: SECCOMP,
    volumes: [
      script('oom-kill-mode-agent'),
      { name: 'run', emptyDir: { medium: 'Memory', sizeLimit: '4Mi' } },
      { name: 'cgroup', hostPath: { path: '/sys/fs/cgroup', type: 'Directory' } },
      { name: 'containers', hostPath: { path: '/var/log/containers', type: 'Directory' } },
      { name: 'systemd', hostPath: { path: '/run/systemd/transient' } },
    ],
  },
  containers: [
    {
      name: 'agent',
      securityContext: ROOT_USER,
      volumeMounts: [
        SCRIPT_MOUNT,
        { name: 'run', mountPath: '/run/oom-kill-mode' },
        { name: 'cgroup', mountPath: '/host/cgroup' },
        { name: 'containers', mountPath: '/host/containers', readOnly: true },
        { name: 'systemd', mountPath: '/host/systemd', readOnly: true },
      ],
    },
  ],
};

const TOKEN_PATH = '/var/run/secrets/kubernetes.io/serviceaccount';

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
      securityContext: NOBODY,
      volumeMounts: [
        { name: 'run', mountPath: '/run/metrics', subPath: 'metrics', readOnly: true },
        { name: 'no-token', mountPath: TOKEN_PATH, readOnly: true },
      ],
    },
  ],
};

const DROP_IN = {
  pod: {
    hostPID: true,
    automountServiceAccountToken: false,
    securityContext: SECCOMP,
    volumes: [
      script('oom-policy-drop-in'),
      { name: 'systemd', hostPath: { path: '/run/systemd/system', type: 'Directory' } },
    ],
  },
  containers: [
    {
      name: 'drop-in',
      securityContext: { ...ROOT_USER, appArmorProfile: { type: 'Unconfined' } },
      volumeMounts: [SCRIPT_MOUNT, { name: 'systemd', mountPath: '/host/systemd/system' }],
    },
  ],
};

const WORKLOAD = {
  automountServiceAccountToken: false,
  securityContext: { ...SECCOMP, fsGroupChangePolicy: 'Always', runAsNonRoot: false },
};
const HERDER = {
  pod: WORKLOAD,
  containers: [
    {
      name: 'wait-for-kill-mode',
      securityContext: { ...CONFINED, runAsUser: 65534, runAsNonRoot: true },
    },
    { name: 'herder', securityContext: { ...CONFINED, runAsNonRoot: false } },
  ],
};
const WEB = {
  pod: WORKLOAD,
  containers: [{ name: 'web', securityContext: { ...CONFINED, runAsNonRoot: false } }],
};
const AUTOSCALER = {
  pod: {
    serviceAccountName: 'web-autoscaler',
    automountServiceAccountToken: true,
    securityContext: { ...WORKLOAD.securityContext, runAsNonRoot: true },
  },
  containers: [{ name: 'autoscaler', securityContext: NOBODY }],
};

interface Role {
  readonly kind: string;
  readonly name: string;
  readonly rules: { readonly resources: string[]; readonly verbs: string[] }[];
}

/** A role, and the binding that gives it to one service account. */
function granted(role: Role, account: { readonly name: string; readonly namespace: string }) {
  const { kind, name } = role;
  const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind, name };
  return [
    role,
    { kind: `${kind}Binding`, name, roleRef, subjects: [{ kind: 'ServiceAccount', ...account }] },
  ];
}

const PODS = { apiGroups: [''], resources: ['pods'], verbs: ['watch'] };
const EVENTS = { apiGroups: [''], resources: ['events'], verbs: ['create', 'patch'] };
const AGENT_ROLE = { kind: 'ClusterRole', name: 'oom-kill-mode-agent', rules: [PODS, EVENTS] };
const AGENT_ACCOUNT = { name: 'oom-kill-mode-agent', namespace: 'oom-kill-mode' };
const AGENT_ACCESS = granted(AGENT_ROLE, AGENT_ACCOUNT);

const AUTOSCALER_ROLES = [
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
  },
  {
    kind: 'ClusterRole',
    name: 'sheep.web-autoscaler',
    rules: [{ apiGroups: [''], resources: ['nodes'], verbs: ['list', 'watch'] }],
  },
];

const AGENT_KINDS = [
  ...['Namespace', 'ServiceAccount', 'ResourceQuota', 'ClusterRole', 'ClusterRoleBinding'],
  ...['ConfigMap', 'NetworkPolicy', 'DaemonSet'],
];

function make(fill: (chart: Chart) => void): Manifest[] {
  const scope = chart();
  fill(scope);
  return synth(scope);
}

const agentWith = (props?: OomKillModeAgentProps) =>
  make((chart) => new OomKillModeAgent(chart, 'agent', props));

const AGENT_ALONE = {
  kinds: AGENT_KINDS,
  workloads: { 'DaemonSet/oom-kill-mode-agent': AGENT } as object,
  access: AGENT_ACCESS as object,
  tokens: [false],
  traffic: { policyTypes: ['Ingress'] } as object,
};

describe.each([
  {
    ...AGENT_ALONE,
    name: 'dist/herder.k8s.yaml',
    manifests: parse(read('dist', 'herder.k8s.yaml')),
    kinds: [...AGENT_KINDS, 'Deployment'],
    workloads: { 'DaemonSet/oom-kill-mode-agent': AGENT, 'Deployment/herder': HERDER },
  },
  { ...AGENT_ALONE, name: 'the agent alone', manifests: agentWith() },
  {
    ...AGENT_ALONE,
    name: 'the agent with metrics',
    manifests: agentWith({ metrics: true }),
    workloads: { 'DaemonSet/oom-kill-mode-agent': AGENT_WITH_METRICS },
    traffic: {
      policyTypes: ['Ingress'],
      ingress: [{ ports: [{ port: 9539, protocol: 'TCP' }] }],
    },
  },
  {
    ...AGENT_ALONE,
    name: 'the agent without Events',
    manifests: agentWith({ events: false }),
    access: granted({ ...AGENT_ROLE, rules: [PODS] }, AGENT_ACCOUNT),
  },
  {
    name: 'the drop-in for systemd',
    manifests: make((chart) => new OomPolicyDropIn(chart, 'drop-in')),
    kinds: ['ConfigMap', 'NetworkPolicy', 'DaemonSet'],
    workloads: { 'DaemonSet/oom-policy-drop-in': DROP_IN },
    access: [],
    tokens: [],
    traffic: { policyTypes: ['Ingress', 'Egress'] },
  },
  {
    name: 'a deployment that follows the nodes',
    manifests: make((chart) => {
      new OnePerNodeDeployment(chart, 'web', {
        name: 'web',
        namespace: 'sheep',
        image: 'example.com/web:1',
        followNodes: true,
        cpu: kplus.Cpu.millis(100),
        memory: Size.mebibytes(64),
      });
    }),
    kinds: [
      ...['Deployment', 'ConfigMap', 'ServiceAccount', 'Role', 'RoleBinding', 'ClusterRole'],
      ...['ClusterRoleBinding', 'Deployment', 'NetworkPolicy'],
    ],
    workloads: { 'Deployment/web': WEB, 'Deployment/web-autoscaler': AUTOSCALER },
    access: AUTOSCALER_ROLES.flatMap((role) =>
      granted(role, { name: 'web-autoscaler', namespace: 'sheep' }),
    ),
    tokens: [false],
    traffic: { policyTypes: ['Ingress'] },
  },
])('$name', ({ manifests, kinds, workloads, access, tokens, traffic }) => {
  const pods = manifests.filter(({ kind }) => ['DaemonSet', 'Deployment'].includes(kind));

  test('has these objects and no other', () => {
    expect(manifests.map(({ kind }) => kind)).toEqual(kinds);
  });

  test('has these privileges and no other', () => {
    const found = pods.map((m) => [`${m.kind}/${m.metadata.name}`, privileges(m)]);
    expect(Object.fromEntries(found)).toEqual(workloads);
  });

  test('has this access to the API and no other', () => {
    const roles = manifests.filter(({ kind }) => /Role/.test(kind));
    const found = roles.map(({ kind, metadata, rules, aggregationRule, roleRef, subjects }) => ({
      ...{ kind, name: metadata.name, rules, aggregationRule, roleRef, subjects },
    }));
    expect(found).toEqual(access);
  });

  test('gives the token to the pods that ask for it only', () => {
    const accounts = manifests.filter(({ kind }) => kind === 'ServiceAccount');
    expect(accounts.map((account) => account.automountServiceAccountToken)).toEqual(tokens);
  });

  test('allows this traffic to its pods and no other', () => {
    const { metadata, spec } = find(manifests, 'NetworkPolicy');
    const { podSelector, ...allowed } = spec;
    expect(allowed).toEqual(traffic);
    const selected = pods.filter(
      (m) =>
        m.metadata.namespace === metadata.namespace &&
        Object.entries(podSelector.matchLabels).every(
          ([key, value]) => template(m).metadata.labels[key] === value,
        ),
    );
    expect(selected.map((m) => m.metadata.name)).toEqual([metadata.name]);
  });
});

function hostPaths({ volumes }: { readonly volumes: object[] }): string[] {
  return (volumes as { hostPath?: { path: string } }[]).flatMap(({ hostPath }) =>
    hostPath ? [hostPath.path] : [],
  );
}

describe('docs/security.md', () => {
  const lines = read('docs', 'security.md').split('\n');

  test('has a line for every access to the API', () => {
    const wanted = [AGENT_ROLE, ...AUTOSCALER_ROLES].flatMap(({ kind, rules }) =>
      rules.flatMap(({ resources, verbs }) =>
        verbs.map(
          (verb) => new RegExp(`^\\| ${kind} \`${resources.join()}: ${verb}\`[^|]*\\|[^|]*[a-z]`),
        ),
      ),
    );
    expect(wanted.filter((line) => !lines.some((each) => line.test(each)))).toEqual([]);
  });

  test('has a line for every privilege of the drop-in for systemd', () => {
    const { securityContext } = DROP_IN.containers[0] ?? {};
    const wanted = [
      ...hostPaths(DROP_IN.pod).map((path) => `hostPath \`${path}\`, writable`),
      '`hostPID`',
      `\`runAsUser: ${securityContext?.runAsUser}\``,
      `AppArmor \`${securityContext?.appArmorProfile.type}\``,
      'no ingress and no egress',
    ];
    const found = (start: string) =>
      lines.filter((line) => line.startsWith(`| ${start}`) && line.includes('| `OomPolicyDropIn`'));
    expect(wanted.filter((start) => found(start).length !== 1)).toEqual([]);
  });

  test('has a line for every directory of the node that the agent mounts', () => {
    const missing = hostPaths(AGENT.pod).filter(
      (path) => !lines.some((line) => line.startsWith(`| hostPath \`${path}\``)),
    );
    expect(missing).toEqual([]);
  });
});

/** What a workload asks for. */
function privileges(manifest: Manifest) {
  const { spec } = template(manifest);
  const { hostNetwork, hostPID, hostIPC, shareProcessNamespace, hostUsers, volumes } = spec;
  const { serviceAccountName, automountServiceAccountToken, securityContext } = spec;
  const { initContainers = [], containers } = spec as Partial<typeof spec>;
  return {
    pod: {
      ...{ hostNetwork, hostPID, hostIPC, shareProcessNamespace, hostUsers, volumes },
      ...{ serviceAccountName, automountServiceAccountToken, securityContext },
    },
    containers: [...initContainers, ...(containers ?? [])].map(
      ({ name, ports, envFrom, lifecycle, volumeDevices, securityContext: own, volumeMounts }) => ({
        ...{ name, ports, envFrom, lifecycle, volumeDevices, securityContext: own, volumeMounts },
      }),
    ),
  };
}
