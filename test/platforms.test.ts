import { Chart, Size, Testing } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { usableNodes } from '../e2e/checks';
import {
  OnePerNodeDeployment,
  OnePerNodeDeploymentProps,
  OomKillMode,
  OomKillModeAgent,
  OomKillModeAgentProps,
} from '../lib';
import { ALL_PROPS } from './support/all-props';
import { Manifest, PodTemplate, find, parse, read, synth, template } from './support/manifests';
import { runsOn, withNodeSelector } from './support/nodes';
import { GKE, GKE_KUBE_SYSTEM, QuotaNamespace } from './support/quota';
import {
  Constraints,
  NONROOT_V2,
  Namespace,
  RESTRICTED_V2,
  constraintsFor,
  refusals,
} from './support/scc';

// What platforms do with the manifests, by rules that were read in their sources: no such cluster was at hand.

function agent(props: OomKillModeAgentProps = {}): Manifest[] {
  const chart = new Chart(Testing.app(), 'agent');
  new OomKillModeAgent(chart, 'agent', props);
  return synth(chart);
}

function pod(manifests: Manifest[]): PodTemplate {
  return template(find(manifests, 'DaemonSet'));
}

function quotas(manifests: Manifest[]): Manifest[] {
  return manifests.filter(({ kind }) => kind === 'ResourceQuota');
}

describe('a cluster that limits the priority classes of the system, as GKE does', () => {
  const admit = (manifests: Manifest[], others: Manifest[] = []) =>
    new QuotaNamespace(
      GKE,
      [...others, ...manifests],
      find(manifests, 'DaemonSet').metadata.namespace,
    ).create(pod(manifests));

  test.each([
    ['dist/herder.k8s.yaml', ['dist', 'herder.k8s.yaml']],
    ['examples/agent-only', ['examples', 'agent-only', 'dist', 'oom-kill-mode-agent.k8s.yaml']],
    ['examples/openshift', ['examples', 'openshift', 'dist', 'openshift.k8s.yaml']],
    ['examples/node-pools', ['examples', 'node-pools', 'dist', 'node-pools.k8s.yaml']],
    // They have no class, and no quota either.
    [
      'examples/systemd-drop-in',
      ['examples', 'systemd-drop-in', 'dist', 'systemd-drop-in.k8s.yaml'],
    ],
  ])('admits the pods of %s', (_, path) => {
    expect(admit(parse(read(...path)))).toBeUndefined();
  });

  test('refuses them without the quota', () => {
    const manifests = agent({ resourceQuota: false });
    expect(quotas(manifests)).toEqual([]);
    expect(admit(manifests)).toBe(
      'insufficient quota to match these scopes: [{PriorityClass In [system-node-critical system-cluster-critical]}]',
    );
  });

  test.each<OomKillModeAgentProps>([
    { priorityClassName: 'system-cluster-critical' },
    { namespace: 'node-agents' },
    { namespace: 'node-agents', createNamespace: true },
    { namespace: 'oom-kill-mode', createNamespace: false },
    { metrics: true, name: 'oom', labels: { team: 'platform' } },
    { priorityClassName: 'agents' },
    { priorityClassName: '' },
    { priorityClassName: '', resourceQuota: false },
  ])('admits them with %j', (props) => {
    expect(admit(agent(props))).toBeUndefined();
  });

  test('admits them in kube-system by its own quota', () => {
    const manifests = agent({ namespace: 'kube-system' });
    expect(quotas(manifests)).toEqual([]);
    expect(admit(manifests, [GKE_KUBE_SYSTEM])).toBeUndefined();
  });

  test('a quota for another class, or in another namespace, is none', () => {
    const without = agent({ resourceQuota: false });
    const [theirs] = quotas(agent({ priorityClassName: 'system-cluster-critical' }));
    const [elsewhere] = quotas(agent({ namespace: 'elsewhere' }));
    expect(admit(without, [theirs as Manifest])).toContain('insufficient quota');
    expect(admit(without, [elsewhere as Manifest])).toContain('insufficient quota');
  });

  test('has room for the largest cluster during a rollout, and counts nobody else', () => {
    const manifests = agent();
    const namespace = new QuotaNamespace(GKE, manifests, 'oom-kill-mode');
    const critical = pod(manifests);
    const ordinary = pod(agent({ priorityClassName: '' }));
    // GKE's largest cluster has 65,000 nodes; a tenth more during a rollout, and the old ones still ending.
    const refused = Array.from({ length: 2.1 * 65_000 }, () => namespace.create(critical));
    expect(refused.filter((refusal) => refusal !== undefined)).toEqual([]);
    expect(namespace.create(ordinary)).toBeUndefined();
    expect(namespace.counts()).toEqual({ 'oom-kill-mode-agent': 136_500 });
  });

  test('a quota that is used up would stop the pods: the limit is what keeps it from that', () => {
    const manifests = agent();
    const [quota] = quotas(manifests);
    const small = { ...quota, spec: { ...(quota?.spec as object), hard: { pods: '1' } } };
    const namespace = new QuotaNamespace(GKE, [small as Manifest], 'oom-kill-mode');
    expect(namespace.create(pod(manifests))).toBeUndefined();
    expect(namespace.create(pod(manifests))).toBe(
      'exceeded quota: oom-kill-mode-agent, requested: pods=1, used: pods=1, limited: pods=1',
    );
  });
});

describe('the quota', () => {
  test('is for the class of the pods alone, and limits nothing but their number', () => {
    expect(quotas(agent()).map(({ metadata, spec }) => [metadata.namespace, spec])).toEqual([
      [
        'oom-kill-mode',
        {
          hard: { pods: '1G' },
          scopeSelector: {
            matchExpressions: [
              { scopeName: 'PriorityClass', operator: 'In', values: ['system-node-critical'] },
            ],
          },
        },
      ],
    ]);
  });

  test.each<[OomKillModeAgentProps, number]>([
    [{}, 1],
    [{ resourceQuota: false }, 0],
    [{ priorityClassName: 'agents' }, 0],
    [{ priorityClassName: 'agents', resourceQuota: true }, 1],
    [{ priorityClassName: '' }, 0],
    [{ namespace: 'kube-system' }, 0],
    [{ namespace: 'kube-system', resourceQuota: true }, 1],
  ])('with %j: %i', (props, count) => {
    expect(quotas(agent(props))).toHaveLength(count);
  });

  test('is applied before the DaemonSet', () => {
    const kinds = agent().map(({ kind }) => kind);
    expect(kinds.indexOf('ResourceQuota')).toBeLessThan(kinds.indexOf('DaemonSet'));
  });
});

describe('OpenShift', () => {
  const manifests = parse(read('examples', 'openshift', 'dist', 'openshift.k8s.yaml'));
  const scc = manifests.find(({ kind }) => kind === 'SecurityContextConstraints') as Manifest;
  const allotted = (name: string): Namespace => ({
    name,
    mcs: 's0:c26,c5',
    uids: [1_000_660_000, 1_000_669_999],
  });

  test('admits the pods of the example', () => {
    expect(
      refusals(
        scc as unknown as Constraints,
        pod(manifests),
        'oom-kill-mode-agent',
        allotted('oom-kill-mode'),
      ),
    ).toEqual([]);
  });

  // Whatever of the pod can be changed by an option, and all options at once.
  const options: OomKillModeAgentProps[] = [
    { metrics: true },
    { events: false },
    { selinuxType: 'spc_t' },
    { imagePullSecrets: ['mirror'], labels: { a: 'b' }, annotations: { c: 'd' } },
    { priorityClassName: '' },
  ];
  const every = options.reduce<OomKillModeAgentProps[]>(
    (some, one) => [...some, ...some.map((props) => ({ ...props, ...one }))],
    [{}],
  );

  test('admits every container with every option of the agent', () => {
    const refused = [...every, ALL_PROPS].flatMap((props) => {
      const { name = 'oom-kill-mode-agent', namespace = 'oom-kill-mode' } = props;
      return refusals(
        constraintsFor(scc, name, namespace),
        pod(agent(props)),
        name,
        allotted(namespace),
      );
    });
    expect(every).toHaveLength(32);
    expect(refused).toEqual([]);
  });

  test('allows no kind of volume that no option needs', () => {
    const kinds = [...every, ALL_PROPS].flatMap((props) =>
      pod(agent(props)).spec.volumes.map((volume) =>
        Object.keys(volume).find((key) => key !== 'name'),
      ),
    );
    // The token comes as a projected volume.
    expect(scc['volumes']).toEqual([...new Set([...kinds, 'projected'])].sort());
  });

  test('would refuse them by the constraints that the example had', () => {
    const former: Constraints = {
      ...(scc as unknown as Constraints),
      runAsUser: { type: 'MustRunAs', uid: 0 },
      seLinuxContext: { type: 'MustRunAs', seLinuxOptions: { type: 'spc_t' } },
    };
    const refused = refusals(
      former,
      pod(agent({ selinuxType: 'spc_t', metrics: true })),
      'oom-kill-mode-agent',
      allotted('oom-kill-mode'),
    );
    expect(refused).toEqual(
      expect.arrayContaining([
        'spec.containers[0].securityContext.seLinuxOptions.level: Invalid value: "s0": must be s0:c26,c5',
        'spec.containers[1].securityContext.runAsUser: Invalid value: 65534: must be: 0',
      ]),
    );
  });

  test('gives a level to what asks for none, and knows the order of categories is none', () => {
    const must: Constraints = {
      ...RESTRICTED_V2,
      users: ['system:serviceaccount:shop:web'],
      runAsUser: { type: 'RunAsAny' },
    };
    const web = (seLinuxOptions?: object) =>
      refusals(
        must,
        {
          spec: { containers: [{ name: 'web', securityContext: { seLinuxOptions } }] },
        } as unknown as PodTemplate,
        'web',
        allotted('shop'),
      );
    expect(web()).toEqual([]);
    expect(web({ level: 's0:c5,c26' })).toEqual([]);
    expect(web({ type: 'spc_t' })).toEqual([
      'spec.containers[0].securityContext.seLinuxOptions.level: Invalid value: "": must be s0:c26,c5',
      'spec.containers[0].securityContext.seLinuxOptions.type: Invalid value: "spc_t": must be ',
    ]);
  });

  test('refuses the agent by its own constraints for ordinary pods, for what it is', () => {
    const refused = refusals(
      { ...RESTRICTED_V2, users: ['system:serviceaccount:oom-kill-mode:oom-kill-mode-agent'] },
      pod(agent()),
      'oom-kill-mode-agent',
      allotted('oom-kill-mode'),
    );
    expect(refused).toEqual([
      'spec.volumes[2]: Invalid value: "hostPath": hostPath volumes are not allowed to be used',
      'spec.volumes[3]: Invalid value: "hostPath": hostPath volumes are not allowed to be used',
      'spec.volumes[4]: Invalid value: "hostPath": hostPath volumes are not allowed to be used',
      'spec.containers[0].securityContext.runAsUser: Invalid value: 0: must be in the ranges: [1000660000, 1000669999]',
    ]);
  });

  // Whatever has a uid of its own needs more than ordinary pods have.
  test.each<[string, Partial<OnePerNodeDeploymentProps>, Constraints, string[]]>([
    ['an ordinary one', {}, RESTRICTED_V2, []],
    ['one that is Single', { oomKillMode: OomKillMode.SINGLE }, RESTRICTED_V2, []],
    [
      'one that waits',
      { oomKillMode: OomKillMode.SINGLE, waitForAgent: true },
      RESTRICTED_V2,
      [
        'spec.initContainers[0].securityContext.runAsUser: Invalid value: 65534: must be in the ranges: [1000660000, 1000669999]',
      ],
    ],
    [
      'one that waits, as no root',
      {
        oomKillMode: OomKillMode.SINGLE,
        waitForAgent: true,
        securityContext: { user: 1000, ensureNonRoot: true },
      },
      NONROOT_V2,
      [],
    ],
    [
      'one that waits, perhaps as root',
      { oomKillMode: OomKillMode.SINGLE, waitForAgent: true },
      NONROOT_V2,
      ['spec.containers[0].securityContext.runAsUser: running with the root UID is forbidden'],
    ],
  ])('of a OnePerNodeDeployment admits: %s', (_, props, constraints, expected) => {
    const chart = new Chart(Testing.app(), 'web');
    new OnePerNodeDeployment(chart, 'web', {
      name: 'web',
      image: 'example.com/web:1',
      replicas: 3,
      cpu: kplus.Cpu.millis(100),
      memory: Size.mebibytes(64),
      ...props,
    });
    expect(
      refusals(
        { ...constraints, users: ['system:serviceaccount:sheep:default'] },
        template(find(synth(chart), 'Deployment')),
        'default',
        allotted('sheep'),
      ),
    ).toEqual(expected);
  });

  test.each<[string, Partial<Constraints>, string]>([
    ['hostPath', { allowHostDirVolumePlugin: false }, 'hostPath volumes'],
    ['the token', { volumes: ['configMap', 'emptyDir', 'hostPath'] }, 'projected volumes'],
    ['seccomp', { seccompProfiles: [] }, 'seccomp: Forbidden: runtime/default'],
    ['another account', { users: [] }, 'not usable by user or serviceaccount'],
  ])('refuses without %s', (_, change, message) => {
    const refused = refusals(
      { ...(scc as unknown as Constraints), ...change },
      pod(manifests),
      'oom-kill-mode-agent',
      allotted('oom-kill-mode'),
    );
    expect(refused.join()).toContain(message);
  });

  test('a default node selector of the cluster does not reach the example', () => {
    const infra = { 'kubernetes.io/os': 'linux', 'node-role.kubernetes.io/infra': '' };
    const selector = 'node-role.kubernetes.io/worker=';
    const { annotations } = find(manifests, 'Namespace').metadata;
    expect(runsOn(withNodeSelector(pod(manifests), annotations, selector), infra)).toBe(true);
    const plain = agent();
    const without = find(plain, 'Namespace').metadata as Partial<Manifest['metadata']>;
    expect(runsOn(withNodeSelector(pod(plain), without.annotations, selector), infra)).toBe(false);
  });
});

describe('SELinux', () => {
  test('has one level for all containers, or one could not read what another wrote', () => {
    const { spec } = pod(agent({ selinuxType: 'spc_t', metrics: true }));
    const { securityContext } = spec as { securityContext: { seLinuxOptions: object } };
    expect([
      securityContext.seLinuxOptions,
      ...spec.containers.map(({ securityContext: own }) => own.seLinuxOptions),
    ]).toEqual([{ level: 's0' }, { type: 'spc_t', level: 's0' }, undefined]);
  });

  test("is the runtime's own affair, if nobody asked", () => {
    expect(JSON.stringify(agent({ metrics: true }))).not.toContain('seLinuxOptions');
  });
});

describe('virtual nodes', () => {
  const linux = { 'kubernetes.io/os': 'linux', 'kubernetes.io/arch': 'amd64' };

  // The labels that tell them, as their projects have them: sources in lib/private/virtual-nodes.ts.
  test.each<[string, Record<string, string>]>([
    ['virtual-kubelet', { type: 'virtual-kubelet', 'kubernetes.io/role': 'agent' }],
    [
      'the add-on of AKS',
      {
        type: 'virtual-kubelet',
        'kubernetes.azure.com/role': 'agent',
        'node-role.kubernetes.io/agent': '',
      },
    ],
    ['virtual nodes on Azure Container Instances', { virtualization: 'virtualnode2' }],
    ['Admiralty', { type: 'virtual-kubelet', 'virtual-kubelet.io/provider': 'admiralty' }],
    ['Fargate', { 'eks.amazonaws.com/compute-type': 'fargate' }],
    ['Liqo', { 'liqo.io/type': 'virtual-node', 'liqo.io/remote-cluster-id': 'milan' }],
    ['interLink', { 'virtual-node.interlink/type': 'virtual-kubelet' }],
    ['Tencent', { 'node.kubernetes.io/instance-type': 'eklet' }],
    ['Oracle', { 'node-role.kubernetes.io/virtual-node': '' }],
    ['KWOK', { type: 'kwok', 'node-role.kubernetes.io/agent': '' }],
  ])('%s: no agent', (_, labels) => {
    expect(runsOn(pod(agent()), { ...linux, ...labels })).toBe(false);
    // Its affinity, and nothing else.
    expect(runsOn(pod(agent({ affinity: {} })), { ...linux, ...labels })).toBe(true);
    const node = { metadata: { name: 'a', labels: { ...linux, ...labels } } };
    expect(usableNodes([node]).notes).toEqual(['a is left out: it is virtual and has no agent']);
  });

  test.each<[string, Record<string, string>]>([
    ['no further label', {}],
    ['labels of the same names', { type: 'worker', virtualization: 'kvm' }],
    ['the labels of EKS', { 'eks.amazonaws.com/compute-type': 'ec2' }],
    ['an instance type', { 'node.kubernetes.io/instance-type': 'm6i.large' }],
    ['the role of a control plane', { 'node-role.kubernetes.io/control-plane': '' }],
  ])('a node with %s has an agent', (_, labels) => {
    expect(runsOn(pod(agent()), { ...linux, ...labels })).toBe(true);
  });

  test('Windows nodes have none', () => {
    expect(runsOn(pod(agent()), { 'kubernetes.io/os': 'windows' })).toBe(false);
  });
});

// https://github.com/rancher/webhook/blob/main/docs.md: a namespace with one of these, from who may not
// `updatepsa`, is refused.
describe('Rancher', () => {
  const labelled = (manifests: Manifest[]) =>
    manifests
      .filter(({ kind, metadata }) => kind === 'Namespace' && 'labels' in metadata)
      .flatMap(({ metadata }) => Object.keys(metadata.labels))
      .filter((key) => /^pod-security\.kubernetes\.io\/(enforce|audit|warn)(-version)?$/.test(key));

  test('has nothing to refuse with createNamespace: false, which leaves all else as it is', () => {
    const [given, without] = [agent(), agent({ createNamespace: false })];
    expect(labelled(given)).toHaveLength(3);
    expect(labelled(without)).toEqual([]);
    expect(without).toEqual(given.filter(({ kind }) => kind !== 'Namespace'));
  });
});
