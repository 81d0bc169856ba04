import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import { Chart, Duration, JsonPatch, Size, Testing } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { HerderChart, OomKillModeAgent, OomKillModeAgentProps } from '../../lib';
import { ALL_PROPS, allPropsChart } from '../support/all-props';
import {
  Manifest,
  PodTemplate,
  ROOT,
  chart,
  container,
  expectRefusals,
  find,
  read,
  synth,
  synthText,
  template,
} from '../support/manifests';

function agentChart(props?: OomKillModeAgentProps, namespace?: string): Chart {
  const scope = chart(namespace);
  new OomKillModeAgent(scope, 'agent', props);
  return scope;
}

function synthAgent(props?: OomKillModeAgentProps, namespace?: string): Manifest[] {
  return synth(agentChart(props, namespace));
}

function pod(manifests: Manifest[]): PodTemplate {
  return template(find(manifests, 'DaemonSet'));
}

const SELECTOR = {
  'app.kubernetes.io/name': 'cdk8s-oom-kill-mode',
  'app.kubernetes.io/instance': 'oom-kill-mode-agent',
  'app.kubernetes.io/component': 'agent',
};
/** The script's files, by name. */
const FILES = Object.fromEntries(
  fs
    .readdirSync(join(ROOT, 'lib', 'agent'))
    .filter((name) => /\.(sh|awk)$/.test(name))
    .sort()
    .map((name) => [name, read('lib', 'agent', name)]),
);
const SHA256 = createHash('sha256').update(JSON.stringify(FILES)).digest('hex');
const HASH = SHA256.slice(0, 10);

const LABELS = {
  ...SELECTOR,
  'app.kubernetes.io/managed-by': 'cdk8s',
  'app.kubernetes.io/version': '0.1.0',
};

describe('the objects', () => {
  test('have stable names, in a namespace of their own whatever the chart says', () => {
    const names = (namespace?: string) =>
      synthAgent({}, namespace).map(({ kind, metadata }) => [
        kind,
        metadata.name,
        metadata.namespace,
      ]);
    expect(names()).toEqual([
      ['Namespace', 'oom-kill-mode', undefined],
      ['ServiceAccount', 'oom-kill-mode-agent', 'oom-kill-mode'],
      ['ResourceQuota', 'oom-kill-mode-agent', 'oom-kill-mode'],
      ['ClusterRole', 'oom-kill-mode-agent', undefined],
      ['ClusterRoleBinding', 'oom-kill-mode-agent', undefined],
      ['ConfigMap', `oom-kill-mode-agent-${HASH}`, 'oom-kill-mode'],
      ['NetworkPolicy', 'oom-kill-mode-agent', 'oom-kill-mode'],
      ['DaemonSet', 'oom-kill-mode-agent', 'oom-kill-mode'],
    ]);
    expect(names('elsewhere')).toEqual(names());
  });

  test('do not depend on the construct path', () => {
    const elsewhere = new Chart(Testing.app(), 'a-chart-of-another-name');
    new OomKillModeAgent(elsewhere, 'an-id-of-another-name');
    expect(synth(elsewhere)).toEqual(synthAgent());
  });

  test('carry our labels', () => {
    for (const manifest of synthAgent()) {
      expect(manifest.metadata.labels).toMatchObject(LABELS);
    }
  });

  test('enforce, audit and warn Pod Security privileged in the namespace', () => {
    expect(find(synthAgent(), 'Namespace').metadata.labels).toEqual({
      ...LABELS,
      'pod-security.kubernetes.io/enforce': 'privileged',
      'pod-security.kubernetes.io/audit': 'privileged',
      'pod-security.kubernetes.io/warn': 'privileged',
    });
  });

  test('leave an existing namespace alone', () => {
    const manifests = synthAgent({ namespace: 'kube-system', createNamespace: false });
    expect(manifests.map((m) => m.kind)).not.toContain('Namespace');
    expect(find(manifests, 'DaemonSet').metadata.namespace).toBe('kube-system');
    expect(find(manifests, 'ClusterRoleBinding').subjects).toEqual([
      {
        kind: 'ServiceAccount',
        name: 'oom-kill-mode-agent',
        namespace: 'kube-system',
      },
    ]);
  });
});

describe('the script', () => {
  test('is in the ConfigMap as it is in the repository', () => {
    expect(Object.keys(FILES)).toEqual(expect.arrayContaining(['agent.sh', 'api.awk']));
    expect(find(synthAgent(), 'ConfigMap').data).toEqual(FILES);
  });

  test('has at most 1,000 lines of code; blank lines and comments do not count', () => {
    const lines = Object.values(FILES).flatMap((text) => text.trimEnd().split('\n'));
    const code = lines.filter((line) => !/^\s*(#|$)/.test(line));
    expect(code.length).toBeLessThanOrEqual(1000);
  });

  test('is in a ConfigMap whose name is that of its content, and which cannot change', () => {
    for (const props of [{}, { name: 'oom', metrics: true, events: false, labels: { a: 'b' } }]) {
      const manifests = synthAgent(props);
      const { metadata, data, immutable } = find(manifests, 'ConfigMap') as Manifest & {
        data: Record<string, string>;
        immutable: boolean;
      };
      const hash = createHash('sha256').update(JSON.stringify(data)).digest('hex').slice(0, 10);
      expect(metadata.name).toBe(`${props.name ?? 'oom-kill-mode-agent'}-${hash}`);
      expect(immutable).toBe(true);
      expect(pod(manifests).spec.volumes[0]).toEqual({
        name: 'script',
        configMap: { name: metadata.name, defaultMode: 0o444 },
      });
    }
  });

  test('changes the name of its ConfigMap when it changes, and the pod template with it, and nothing else', () => {
    const before = synthAgent();
    const readFileSync = fs.readFileSync;
    const spy = jest
      .spyOn(fs, 'readFileSync')
      .mockImplementation((...args: Parameters<typeof readFileSync>) =>
        String(args[0]).endsWith('/agent.sh') ? '# another script\n' : readFileSync(...args),
      );
    const after = synthAgent();
    spy.mockRestore();
    const { data, metadata } = find(after, 'ConfigMap');
    expect(data).toEqual({ ...FILES, 'agent.sh': '# another script\n' });
    const other = metadata.name.slice(-10);
    expect(other).not.toBe(HASH);
    const withoutData = (manifests: Manifest[]) =>
      JSON.stringify(manifests.map((manifest) => ({ ...manifest, data: undefined })));
    // Of the ConfigMap, of the volume, and in full in the environment.
    expect(withoutData(after).split(other)).toHaveLength(4);
    const [hash = ''] = new RegExp(`${other}[0-9a-f]{54}`).exec(withoutData(after)) ?? [];
    expect(withoutData(after).replace(hash, SHA256).replaceAll(other, HASH)).toBe(
      withoutData(before),
    );
  });

  test('leaves no other trace: no other name, label or annotation has a hash', () => {
    for (const manifest of synthAgent().filter(({ kind }) => kind !== 'ConfigMap')) {
      const { metadata } = manifest;
      expect(JSON.stringify(metadata)).not.toMatch(/[0-9a-f]{10}/);
    }
    const { metadata } = find(synthAgent(), 'ConfigMap') as Manifest;
    expect(JSON.stringify(metadata).match(/[0-9a-f]{10}/g)).toEqual([HASH]);
    expect(pod(synthAgent()).metadata).toEqual({ labels: SELECTOR });
  });
});

describe('the DaemonSet', () => {
  test('selects by stable labels', () => {
    const daemonSet = find(synthAgent(), 'DaemonSet');
    expect(daemonSet.spec.selector).toEqual({ matchLabels: SELECTOR });
    expect(template(daemonSet).metadata.labels).toEqual(SELECTOR);
  });

  test('rolls out without a gap', () => {
    const { updateStrategy, revisionHistoryLimit, minReadySeconds } = find(
      synthAgent(),
      'DaemonSet',
    ).spec;
    expect(updateStrategy).toEqual({
      type: 'RollingUpdate',
      rollingUpdate: { maxSurge: '10%', maxUnavailable: 0 },
    });
    expect(revisionHistoryLimit).toBe(3);
    expect(minReadySeconds).toBeUndefined();
  });

  test.each([
    [kplus.PercentOrAbsolute.absolute(3), 3],
    [kplus.PercentOrAbsolute.percent(100), '100%'],
  ])(
    'rolls out without a second agent on a node, if nodes may be without one',
    (given, written) => {
      const { updateStrategy } = find(synthAgent({ maxUnavailable: given }), 'DaemonSet').spec;
      expect(updateStrategy).toEqual({
        type: 'RollingUpdate',
        rollingUpdate: { maxSurge: 0, maxUnavailable: written },
      });
    },
  );

  test('runs on Linux nodes, before anything else', () => {
    expect(pod(synthAgent()).spec).toMatchObject({
      priorityClassName: 'system-node-critical',
      tolerations: [{ operator: 'Exists' }],
      nodeSelector: { 'kubernetes.io/os': 'linux' },
    });
  });

  test('asks at the start whether it is ready, and seldom whether it lives, without the script', () => {
    const agent = container(pod(synthAgent()));
    expect(agent.startupProbe).toEqual({
      exec: { command: ['sh', '-c', 'until test -e /run/oom-kill-mode/ready; do sleep 1; done'] },
      periodSeconds: 1,
      timeoutSeconds: 30,
      failureThreshold: 120,
    });
    expect(agent.livenessProbe).toEqual({
      exec: { command: ['rm', '/run/oom-kill-mode/alive'] },
      periodSeconds: 60,
      timeoutSeconds: 10,
      failureThreshold: 3,
    });
    expect(agent.readinessProbe).toBeUndefined();
    expect(JSON.stringify([agent.startupProbe, agent.livenessProbe])).not.toContain('agent.sh');
  });
});

test('labels that are added stay out of the selectors', () => {
  const manifests = synth(allPropsChart(Testing.app()));
  const selector = { ...SELECTOR, 'app.kubernetes.io/instance': ALL_PROPS.name };
  expect(pod(manifests).metadata.labels).toEqual({ ...selector, ...ALL_PROPS.labels });
  expect(find(manifests, 'DaemonSet').spec.selector).toEqual({ matchLabels: selector });
  expect(find(manifests, 'NetworkPolicy').spec.podSelector).toEqual({ matchLabels: selector });
});

describe('synthesis', () => {
  test('gives the same bytes twice', () => {
    const scope = allPropsChart(Testing.app());
    expect(synthText(scope)).toBe(synthText(scope));
  });

  test('gives the options of the chart to the agent and to the herder', () => {
    const manifests = synth(
      new HerderChart(Testing.app(), 'herder', {
        replicas: 5,
        agent: { labelPrefix: 'oom.example.com' },
        herder: { namespace: 'sheep' },
      }),
    );
    const herder = find(manifests, 'Deployment');
    expect(herder.spec.replicas).toBe(5);
    expect(herder.metadata.namespace).toBe('sheep');
    expect(template(herder).metadata.labels).toMatchObject({ 'oom.example.com/mode': 'Single' });
    expect(container(pod(manifests)).env).toContainEqual({
      name: 'LABEL_PREFIX',
      value: 'oom.example.com',
    });
  });
});

describe('the options', () => {
  const long = 'a'.repeat(64);
  const circle: Record<string, unknown> = {};
  circle['circle'] = circle;
  const required = 'requiredDuringSchedulingIgnoredDuringExecution';
  const affine = (one: unknown) => ({ affinity: { nodeAffinity: { [required]: one } } });
  const tolerating = (one: unknown) => ({ tolerations: [one] });
  const millis = (count: number) => kplus.Cpu.millis(count);
  const mebibytes = (count: number) => Size.mebibytes(count);
  const percent = (count: number) => kplus.PercentOrAbsolute.percent(count);
  const absolute = (count: number) => kplus.PercentOrAbsolute.absolute(count);

  // A rule, and what breaks it.
  test.each<[string, ...unknown[]]>([
    ['the options are not an object: null. Write { … }.', null],
    ['the options have "seLinuxType", which does nothing. Write selinuxType.', { seLinuxType: '' }],
    ['the options have "replicas", which does nothing. Write one of affinity, ', { replicas: 3 }],
    [
      'name is not a DNS-1123 label of at most 63 characters',
      ...['', 'Agent', 'a.b', 'a\nb', long].map((name) => ({ name })),
    ],
    ['name is not a string: null. Write "text".', { name: null }],
    ['name is not a string: a Chart. Write', { name: chart() }],
    ['name is not a string: an object that refers to itself. Write', { name: circle }],
    ['namespace is not a DNS-1123 label', { namespace: '-a' }],
    [
      'createNamespace is true, and kube-system is a namespace of Kubernetes itself. Write',
      { namespace: 'kube-system', createNamespace: true },
    ],
    ['createNamespace is true, and default is', { namespace: 'default', createNamespace: true }],
    [
      'labelPrefix is not a DNS-1123 subdomain of at most 253 characters',
      ...['', 'a/b', 'Example.com', 'a.com\n', '$(reboot)', `${'a.'.repeat(126)}aa`].map(
        (labelPrefix) => ({ labelPrefix }),
      ),
    ],
    ['labelPrefix is reserved for Kubernetes itself', { labelPrefix: 'oom.k8s.io' }],
    [
      'image is not a reference pinned by tag or digest',
      ...[
        'curlimages/curl',
        'example.com:5000/curl',
        'curl:latest',
        'curl@sha256:abc',
        'curl 8',
      ].map((image) => ({ image })),
    ],
    ['metricsImage is not a reference pinned', { metricsImage: 'node-exporter' }],
    ['imagePullPolicy is unknown: "Sometimes". Write', { imagePullPolicy: 'Sometimes' }],
    ['imagePullSecrets is not a DNS-1123 subdomain', { imagePullSecrets: ['ok', 'Not OK'] }],
    ['imagePullSecrets is not a list of strings: "a". Write', { imagePullSecrets: 'a' }],
    ['priorityClassName is not a DNS-1123 subdomain', { priorityClassName: 'System' }],
    [
      'resourceQuota is true, and there is no priority class. Write',
      { priorityClassName: '', resourceQuota: true },
    ],
    [
      'maxUnavailable is neither a positive whole number nor from 1 to 100 percent',
      ...[...[0, 101, 1.5, NaN].map(percent), ...[0, -1, 1.5, NaN].map(absolute)].map(
        (maxUnavailable) => ({ maxUnavailable }),
      ),
    ],
    ['maxUnavailable is not a PercentOrAbsolute: 1. Write', { maxUnavailable: 1 }],
    ['selinuxType is not an SELinux type: "spc_t:s0". Write', { selinuxType: 'spc_t:s0' }],
    ['logLevel is unknown: "trace". Write "error" or "warn" or', { logLevel: 'trace' }],
    ['events is not true or false: "false". Write', { events: 'false' }],
    [
      'resyncPeriod is not a whole number of seconds from 10 to 300',
      ...[9, 301, 10.5, NaN].map((s) => ({ resyncPeriod: Duration.millis(s * 1000) })),
    ],
    ['resyncPeriod is not a Duration: 60. Write', { resyncPeriod: 60 }],
    ['resources is not an object: null. Write', { resources: null }],
    [
      'resources have "cpu", which does nothing. Write one of cpuLimit, cpuRequest, ',
      { resources: { cpu: millis(1) } },
    ],
    ['cpuLimit is not a Cpu: "250m". Write', { resources: { cpuLimit: '250m' } }],
    ['cpuLimit is not a Cpu: a Size. Write', { resources: { cpuLimit: mebibytes(64) } }],
    ['memoryLimit is not a Size: "64Mi". Write', { resources: { memoryLimit: '64Mi' } }],
    ['cpuLimit is 251m, more than the maximum of 250m', { resources: { cpuLimit: millis(251) } }],
    [
      'cpuLimit is 1000m, more than the maximum of 250m',
      { resources: { cpuLimit: kplus.Cpu.units(1) } },
    ],
    [
      'memoryLimit is 1024Mi, more than the maximum of',
      { resources: { memoryLimit: Size.gibibytes(1) } },
    ],
    [
      'cpuRequest is 201m, more than cpuLimit: 200m. Write cpuRequest: Cpu.millis(200) or less, or cpuLimit: Cpu.millis(201) or more.',
      { resources: { cpuRequest: millis(201), cpuLimit: millis(200) } },
    ],
    [
      'memoryRequest is 65Mi, more than memoryLimit: 64Mi. Write',
      { resources: { memoryRequest: mebibytes(65) } },
    ],
    [
      'memoryRequest is 16Mi by default, more than memoryLimit: 8Mi. Write',
      { resources: { memoryLimit: mebibytes(8) } },
    ],
    [
      'cpuRequest is 60m, more than cpuLimit: 50m. Write',
      { metricsResources: { cpuRequest: millis(60) } },
    ],
    [
      'cpuRequest is 10m, but with 10m the agent was too late',
      { resources: { cpuRequest: millis(10) } },
    ],
    [
      'cpuLimit is 100m, but with 100m the agent was too late',
      { resources: { cpuLimit: millis(100) } },
    ],
    [
      'cpuRequest is not a positive whole number of milli-CPUs',
      ...[0, -1, 0.5, Infinity, 'abc' as never].map((n) => ({
        resources: { cpuRequest: millis(n) },
      })),
    ],
    [
      'memoryRequest is not a positive whole number of mebibytes',
      ...[mebibytes(0), Size.kibibytes(512), mebibytes(NaN), Size.gibibytes(Infinity)].map(
        (memoryRequest) => ({ resources: { memoryRequest } }),
      ),
    ],
    [
      'labels would override a value that this construct depends on',
      { labels: { 'app.kubernetes.io/name': 'x' } },
      { labels: { 'cdk8s-oom-kill-mode/mode': 'Single' } },
      { labels: { 'pod-security.kubernetes.io/enforce': 'restricted' } },
    ],
    ['labels is not a map of strings: {"a":true}. Write', { labels: { a: true } }],
    ['labels has an invalid key', { labels: { 'a/b/c': 'x' } }, { labels: { 'A/b': 'x' } }],
    ['labels["a"] is not a valid label value', { labels: { a: 'b c' } }, { labels: { a: long } }],
    ['annotations has an invalid key', { annotations: { '': 'x' } }],
    ['nodeSelector["a"] is not a valid label value: "b c"', { nodeSelector: { a: 'b c' } }],
    ['nodeSelector would override', { nodeSelector: { 'kubernetes.io/os': 'windows' } }],
    ['tolerations[0] is not an object: null. Write', tolerating(null)],
    ['tolerations[0] has another operator', tolerating({ key: 'a', operator: 'Is' })],
    ['tolerations[0] has another effect than', tolerating({ operator: 'Exists', effect: 'NoRun' })],
    ['tolerations[0] has no key', tolerating({ value: 'a' }), tolerating(circle)],
    [
      'tolerations[0] has a value, which the operator Exists does not allow',
      tolerating({ key: 'a', operator: 'Exists', value: 'b' }),
    ],
    [
      'tolerations[0] has tolerationSeconds',
      tolerating({ key: 'a', operator: 'Exists', tolerationSeconds: 1 }),
    ],
    ['affinity is not an object: "zone". Write { … }.', { affinity: 'zone' }],
    [
      'affinity.nodeAffinty is not valid in an affinity of Kubernetes 1.28. Write an affinity such as {',
      { affinity: { nodeAffinty: {} } },
    ],
    ['affinity.nodeAffinity is not valid', { affinity: { nodeAffinity: 'a' } }],
    [`affinity.nodeAffinity.${required} is not valid`, affine([])],
    ['affinity is not valid', affine({ nodeSelectorTerms: {} })],
    [
      `affinity.nodeAffinity.${required}.nodeSelectorTerms[0].matchExpression is not valid`,
      affine({ nodeSelectorTerms: [{ matchExpression: [] }] }),
    ],
    ['affinity.circle is not valid', { affinity: circle }],
  ])('are refused with the path and the remedy: %s', (message, ...wrong) => {
    expectRefusals(agentChart, `[test/agent] ${message}`, wrong);
  });
});

describe('an agent', () => {
  test('may be beside another one that shares nothing but the namespace', () => {
    const scope = chart();
    new OomKillModeAgent(scope, 'a');
    new OomKillModeAgent(scope, 'b', { labelPrefix: 'b.com', name: 'b', createNamespace: false });
    expect(synth(scope).filter((m) => m.kind === 'DaemonSet')).toHaveLength(2);
  });

  test('creates its own namespace only, unless told otherwise', () => {
    const kinds = (props: OomKillModeAgentProps) => synthAgent(props).map(({ kind }) => kind);
    expect(kinds({})).toContain('Namespace');
    expect(kinds({ namespace: 'monitoring' })).not.toContain('Namespace');
    expect(kinds({ namespace: 'monitoring', createNamespace: true })).toContain('Namespace');
  });

  test('needs no priority class', () => {
    expect(pod(synthAgent({ priorityClassName: '' })).spec.priorityClassName).toBeUndefined();
  });

  test('takes undefined for what is not there', () => {
    const undefineds = Object.fromEntries(Object.keys(ALL_PROPS).map((key) => [key, undefined]));
    expect(synthAgent(undefineds)).toEqual(synthAgent({}));
  });

  test('is open to JSON patches of the DaemonSet', () => {
    const scope = chart();
    const agent = new OomKillModeAgent(scope, 'agent');
    agent.daemonSet.addJsonPatch(
      JsonPatch.add('/spec/template/spec/terminationGracePeriodSeconds', 10),
    );
    expect(pod(synth(scope)).spec).toMatchObject({ terminationGracePeriodSeconds: 10 });
  });

  test.each([
    'curl:8',
    'curl@sha256:b3f1fb2a51d923260350d21b8654bbc607164a987e2f7c84a0ac199a67df812a',
    'curl:latest@sha256:b3f1fb2a51d923260350d21b8654bbc607164a987e2f7c84a0ac199a67df812a',
    'localhost:5000/a/b_c/d-e:v1.0.0-rc.1',
  ])('accepts the image %s', (image) => {
    expect(container(pod(synthAgent({ image }))).image).toBe(image);
  });
});
