import { Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { usableNodes } from '../e2e/cluster';
import {
  OnePerNodeDeployment,
  OnePerNodeDeploymentProps,
  OomKillMode,
  OomKillModeAgent,
  OomKillModeAgentProps,
} from '../lib';
import { ALL_PROPS } from './support/all-props';
import {
  Manifest,
  PodTemplate,
  chart,
  find,
  memoized,
  parse,
  runApp,
  synth,
  template,
} from './support/manifests';

// What platforms ask of the manifests, as their sources and pages have it. None of them runs here.

function agent(props: OomKillModeAgentProps = {}): Manifest[] {
  const scope = chart();
  new OomKillModeAgent(scope, 'agent', props);
  return synth(scope);
}

/** All that an app makes; only a part of it may be committed. */
const synthApp = memoized((directory: string) =>
  Object.values(runApp(directory).files).flatMap((text) => parse(text)),
);

function pod(manifests: Manifest[]): PodTemplate {
  return template(find(manifests, 'DaemonSet'));
}

function containers({ spec }: PodTemplate): PodTemplate['spec']['containers'] {
  return [
    ...((spec.initContainers as typeof spec.containers | undefined) ?? []),
    ...spec.containers,
  ];
}

// GKE admits the two classes of the system only where a quota of the namespace is for that class.
// https://kubernetes.io/docs/concepts/policy/resource-quotas/#limit-priority-class-consumption-by-default
describe('a ResourceQuota for the priority class', () => {
  const quotas = (manifests: Manifest[]) =>
    manifests
      .filter(({ kind }) => kind === 'ResourceQuota')
      .map(({ metadata, spec }) => [metadata.namespace, spec]);
  const quotaFor = (priorityClass: string) => ({
    // GKE's largest cluster has 65,000 nodes.
    hard: { pods: '1G' },
    scopeSelector: {
      matchExpressions: [{ scopeName: 'PriorityClass', operator: 'In', values: [priorityClass] }],
    },
  });

  test.each(['.', ...['agent-only', 'openshift', 'node-pools'].map((name) => `examples/${name}`)])(
    'is in the app %s, before the DaemonSet and in its namespace',
    (directory) => {
      const manifests = synthApp(directory);
      const { namespace } = find(manifests, 'DaemonSet').metadata;
      expect(quotas(manifests)).toEqual([[namespace, quotaFor('system-node-critical')]]);
      const kinds = manifests.map(({ kind }) => kind);
      expect(kinds.indexOf('ResourceQuota')).toBeLessThan(kinds.indexOf('DaemonSet'));
    },
  );

  test.each<[OomKillModeAgentProps, string | undefined]>([
    [{ priorityClassName: 'system-cluster-critical' }, 'system-cluster-critical'],
    [{ namespace: 'node-agents' }, 'system-node-critical'],
    [{ resourceQuota: false }, undefined],
    [{ priorityClassName: 'agents' }, undefined],
    [{ priorityClassName: 'agents', resourceQuota: true }, 'agents'],
    [{ priorityClassName: '' }, undefined],
    // There GKE has one.
    [{ namespace: 'kube-system' }, undefined],
    [{ namespace: 'kube-system', resourceQuota: true }, 'system-node-critical'],
  ])('with %j is for: %s', (props, priorityClass) => {
    const { namespace = 'oom-kill-mode' } = props;
    const expected = priorityClass === undefined ? [] : [[namespace, quotaFor(priorityClass)]];
    expect(quotas(agent(props))).toEqual(expected);
  });
});

describe('OpenShift', () => {
  const manifests = () => synthApp('examples/openshift');

  test('admits the agent with every option by the constraints of the example', () => {
    const props: OomKillModeAgentProps[] = [{}, { selinuxType: 'spc_t', metrics: true }, ALL_PROPS];
    const pods = props.map((one) => pod(agent(one)));
    const volumes = pods.flatMap(({ spec }) => spec.volumes.flatMap((one) => Object.keys(one)));
    const kinds = new Set(volumes.filter((key) => key !== 'name'));
    expect(manifests().find(({ kind }) => kind === 'SecurityContextConstraints')).toMatchObject({
      users: ['system:serviceaccount:oom-kill-mode:oom-kill-mode-agent'],
      // The token comes as a projected volume.
      volumes: [...new Set([...kinds, 'projected'])].sort(),
      allowHostDirVolumePlugin: true,
      // The agent has the uid 0, and the exporter 65534. MustRunAs would be one uid and one level for both.
      runAsUser: { type: 'RunAsAny' },
      seLinuxContext: { type: 'RunAsAny' },
      seccompProfiles: ['runtime/default'],
    });
    for (const template of pods) {
      // Nothing of what they forbid.
      expect(template.spec).toMatchObject({
        securityContext: { seccompProfile: { type: 'RuntimeDefault' } },
      });
      expect(JSON.stringify(template)).not.toMatch(
        /host(Network|PID|IPC|Port)|"add":|"privileged":true/,
      );
      for (const { securityContext } of containers(template)) {
        expect(securityContext).toMatchObject({
          allowPrivilegeEscalation: false,
          capabilities: { drop: ['ALL'] },
          readOnlyRootFilesystem: true,
        });
      }
    }
  });

  test('does not merge a node selector into the pods of the example', () => {
    const { annotations } = find(manifests(), 'Namespace').metadata;
    expect(annotations).toEqual({ 'openshift.io/node-selector': '' });
  });

  // restricted-v2 gives pods a uid, and refuses those that have one.
  test.each<[string, Partial<OnePerNodeDeploymentProps>, (number | undefined)[]]>([
    ['no uid', { oomKillMode: OomKillMode.SINGLE }, [undefined]],
    [
      'a uid if it waits',
      { oomKillMode: OomKillMode.SINGLE, waitForAgent: true },
      [65534, undefined],
    ],
  ])('gets a OnePerNodeDeployment with %s', (_, props, uids) => {
    const scope = chart();
    new OnePerNodeDeployment(scope, 'web', {
      name: 'web',
      image: 'example.com/web:1',
      replicas: 3,
      cpu: kplus.Cpu.millis(100),
      memory: Size.mebibytes(64),
      ...props,
    });
    const all = containers(template(find(synth(scope), 'Deployment')));
    expect(all.map(({ securityContext }) => securityContext.runAsUser)).toEqual(uids);
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

  test('is left to the runtime without an option', () => {
    expect(JSON.stringify(agent({ metrics: true }))).not.toContain('seLinuxOptions');
  });
});

describe('an agent', () => {
  const linux = { 'kubernetes.io/os': 'linux' };

  /** Whether a DaemonSet has a pod on a node with these labels. */
  function runsOn({ spec }: PodTemplate, labels: Record<string, string>): boolean {
    const affinity = spec.affinity as Partial<PodTemplate['spec']['affinity']> | undefined;
    const required = affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution;
    const [term] = required?.nodeSelectorTerms ?? [];
    return (
      Object.entries(spec.nodeSelector).every(([key, value]) => labels[key] === value) &&
      (term?.matchExpressions ?? []).every(({ key, operator, values }) => {
        expect(['NotIn', 'DoesNotExist']).toContain(operator);
        const value = labels[key];
        return value === undefined || (operator === 'NotIn' && !values.includes(value));
      })
    );
  }

  // The labels are those of lib/private/virtual-nodes.ts, which has the sources.
  test.each<[string, Record<string, string>]>([
    ['virtual-kubelet', { type: 'virtual-kubelet' }],
    ['KWOK', { type: 'kwok' }],
    ['Fargate', { 'eks.amazonaws.com/compute-type': 'fargate' }],
    ['Azure Container Instances', { virtualization: 'virtualnode2' }],
    ['Liqo', { 'liqo.io/type': 'virtual-node' }],
    ['interLink', { 'virtual-node.interlink/type': 'virtual-kubelet' }],
    ['Tencent', { 'node.kubernetes.io/instance-type': 'eklet' }],
    ['Oracle', { 'node-role.kubernetes.io/virtual-node': '' }],
  ])('is not on virtual nodes of %s, nor does the end-to-end script use them', (_, labels) => {
    expect(runsOn(pod(agent()), { ...linux, ...labels })).toBe(false);
    expect(runsOn(pod(agent({ affinity: {} })), { ...linux, ...labels })).toBe(true);
    const node = { metadata: { name: 'a', labels: { ...linux, ...labels } } };
    expect(usableNodes([node]).notes).toEqual(['a is left out: it is virtual and has no agent']);
  });

  test('is on every other node with Linux, and on none with Windows', () => {
    const others = {
      type: 'worker',
      virtualization: 'kvm',
      'eks.amazonaws.com/compute-type': 'ec2',
    };
    expect(runsOn(pod(agent()), { ...linux, ...others })).toBe(true);
    expect(runsOn(pod(agent()), { 'kubernetes.io/os': 'windows' })).toBe(false);
  });
});

// https://github.com/rancher/webhook/blob/main/docs.md: Rancher refuses Pod Security labels on a namespace from
// somebody who may not `updatepsa`.
test('The manifests have no Namespace with createNamespace: false, and all else as it is', () => {
  const [given, without] = [agent(), agent({ createNamespace: false })];
  expect(find(given, 'Namespace').metadata.labels).toHaveProperty(
    ['pod-security.kubernetes.io/enforce'],
    'privileged',
  );
  expect(without).toEqual(given.filter(({ kind }) => kind !== 'Namespace'));
});
