import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import { Chart, Duration, JsonPatch, Size, Testing } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { AgentLogLevel, HerderChart, OomKillModeAgent, OomKillModeAgentProps } from '../../lib';
import { ALL_PROPS, allPropsChart } from '../support/all-props';
import {
  Manifest,
  PodTemplate,
  ROOT,
  chart,
  container,
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

  test.each([
    [true, { pods: ['watch'], events: ['create', 'patch'] }],
    [false, { pods: ['watch'] }],
  ])('allow a watch of pods and no list, with Events %j', (events, allowed) => {
    const role = synthAgent({ events }).find(({ kind }) => kind === 'ClusterRole');
    const rules = role?.rules as { resources: [string]; verbs: string[] }[];
    expect(Object.fromEntries(rules.map(({ resources, verbs }) => [resources, verbs]))).toEqual(
      allowed,
    );
  });

  test('deny all ingress to the pods of the agent', () => {
    expect(find(synthAgent(), 'NetworkPolicy').spec).toEqual({
      podSelector: { matchLabels: SELECTOR },
      policyTypes: ['Ingress'],
    });
  });
});

describe('the script', () => {
  test('is in the ConfigMap as it is in the repository', () => {
    expect(Object.keys(FILES)).toEqual(expect.arrayContaining(['agent.sh', 'api.awk']));
    expect(find(synthAgent(), 'ConfigMap').data).toEqual(FILES);
  });

  test('says at its head which variables it reads, and what they are by default', () => {
    const code = Object.entries(FILES)
      .filter(([name]) => name.endsWith('.sh'))
      .map(([, text]) => text.replaceAll(/^\s*#.*$/gm, ''))
      .join('');
    const all = (pattern: RegExp) => [...code.matchAll(pattern)].map(([, name]) => name ?? '');
    const set = new Set([
      ...all(/(?:^|[\s;{(])([A-Z][A-Z_0-9]+)=/gm),
      ...all(/\bfor ([A-Z][A-Z_0-9]+)\b/g),
      ...all(/\bread\b([^<\n;|&]*)/g).flatMap((words) => words.match(/\b[A-Z][A-Z_0-9]+\b/g) ?? []),
    ]);
    const defaults = new Set(all(/"\$\{(\w+):=[^"]*\}"/g));
    // The shell's own.
    set.add('EPOCHSECONDS');
    const read = all(/\$\{?([A-Z][A-Z_0-9]+)/g).filter(
      (name) => defaults.has(name) || !set.has(name),
    );
    const head = (FILES['agent.sh'] ?? '').split('\nset -eu\n')[0] ?? '';
    const [, others = ''] = / environment (.*?)\n# +constants /s.exec(head) ?? [];
    const named = new Set(
      [
        ...others
          .replaceAll(/\n# +/g, ' ')
          .replace('_HOST and _PORT', '_HOST and KUBERNETES_SERVICE_PORT')
          .matchAll(/\b[A-Z][A-Z]+_[A-Z_]+\b/g),
      ].map(([name]) => name),
    );
    expect([...new Set(read)].filter((name) => !defaults.has(name)).sort()).toEqual(
      [...named].sort(),
    );
    expect([...defaults].filter((name) => !read.includes(name))).toEqual([]);
  });

  test('has at most 1,000 lines of code; blank lines and comments do not count', () => {
    const lines = Object.values(FILES).flatMap((text) => text.trimEnd().split('\n'));
    const code = lines.filter((line) => !/^\s*(#|$)/.test(line));
    expect(code.length).toBeLessThanOrEqual(1000);
  });

  test('has no function of more than 35 lines', () => {
    // A function begins at the margin, and ends there, or in its first line.
    const functions = Object.values(FILES).flatMap((text) => [
      ...text.matchAll(/^(?:function )?(\w+)\(.*\) *\{(?:.*\}$|[^]*?\n\}$)/gm),
    ]);
    const names = functions.map(([, name]) => name);
    expect(names).toEqual(expect.arrayContaining(['renew_api', 'print_metrics', 'parse']));
    expect(functions.filter(([text]) => text.split('\n').length > 35)).toEqual([]);
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

  test('has a pod that ends quickly and depends on no service', () => {
    expect(pod(synthAgent()).spec).toMatchObject({
      terminationGracePeriodSeconds: 5,
      enableServiceLinks: false,
      dnsPolicy: 'Default',
    });
  });

  test('runs the script with its environment', () => {
    const agent = container(pod(synthAgent()));
    expect(agent).toMatchObject({
      name: 'agent',
      image:
        'docker.io/curlimages/curl:8.20.0@sha256:b3f1fb2a51d923260350d21b8654bbc607164a987e2f7c84a0ac199a67df812a',
      imagePullPolicy: 'IfNotPresent',
      command: ['/bin/sh', '/opt/oom-kill-mode/agent.sh'],
      workingDir: '/run/oom-kill-mode',
    });
    expect(agent.args).toBeUndefined();
    expect(agent.env).toEqual([
      { name: 'NODE_NAME', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
      { name: 'POD_UID', valueFrom: { fieldRef: { fieldPath: 'metadata.uid' } } },
      { name: 'LABEL_PREFIX', value: 'cdk8s-oom-kill-mode' },
      { name: 'LOG_LEVEL', value: 'info' },
      { name: 'RESYNC_SECONDS', value: '60' },
      { name: 'SCRIPT_SHA256', value: SHA256 },
      { name: 'EVENTS', value: 'yes' },
    ]);
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

  test('stays far under its cap', () => {
    expect(container(pod(synthAgent())).resources).toEqual({
      requests: { cpu: '100m', memory: '16Mi' },
      limits: { cpu: '250m', memory: '64Mi' },
    });
  });
});

describe('every option', () => {
  const manifests = synth(allPropsChart(Testing.app()));
  const { spec } = pod(manifests);
  const [agent, sidecar] = spec.containers;
  const selector = { ...SELECTOR, 'app.kubernetes.io/instance': 'oom-agent' };

  test('names and places the objects', () => {
    expect(
      manifests.map(({ kind, metadata }) => [kind, metadata.name, metadata.namespace]),
    ).toEqual([
      ['Namespace', 'node-agents', undefined],
      ['ServiceAccount', 'oom-agent', 'node-agents'],
      ['ResourceQuota', 'oom-agent', 'node-agents'],
      ['ClusterRole', 'oom-agent', undefined],
      ['ClusterRoleBinding', 'oom-agent', undefined],
      ['ConfigMap', `oom-agent-${HASH}`, 'node-agents'],
      ['NetworkPolicy', 'oom-agent', 'node-agents'],
      ['DaemonSet', 'oom-agent', 'node-agents'],
    ]);
    expect(spec.serviceAccountName).toBe('oom-agent');
    expect(spec.volumes[0]?.configMap.name).toBe(`oom-agent-${HASH}`);
    expect(find(manifests, 'ClusterRoleBinding').roleRef.name).toBe('oom-agent');
  });

  test('adds labels and annotations to every object and to the pods', () => {
    for (const { kind, metadata } of manifests) {
      expect(metadata.labels).toMatchObject({ ...selector, 'example.com/team': 'platform' });
      expect(metadata.annotations).toEqual({
        'example.com/runbook': 'https://example.com/oom',
        ...(kind === 'ConfigMap' ? { 'kustomize.toolkit.fluxcd.io/substitute': 'disabled' } : {}),
      });
    }
    const { labels, annotations } = template(find(manifests, 'DaemonSet')).metadata;
    expect(labels).toEqual({ ...selector, 'example.com/team': 'platform' });
    expect(annotations).toEqual({ 'example.com/runbook': 'https://example.com/oom' });
  });

  test('keeps the selector free of added labels', () => {
    expect(find(manifests, 'DaemonSet').spec.selector).toEqual({ matchLabels: selector });
    expect(find(manifests, 'NetworkPolicy').spec.podSelector).toEqual({ matchLabels: selector });
  });

  test('reaches the containers', () => {
    expect(agent).toMatchObject({
      image: 'registry.example.com:5000/mirror/curl:8.20.0',
      imagePullPolicy: 'Always',
      resources: {
        requests: { cpu: '50m', memory: '8Mi' },
        limits: { cpu: '200m', memory: '128Mi' },
      },
    });
    expect(agent?.securityContext.seLinuxOptions).toEqual({ type: 'spc_t', level: 's0' });
    expect(agent?.env.slice(2)).toEqual([
      { name: 'LABEL_PREFIX', value: 'oom.example.com' },
      { name: 'LOG_LEVEL', value: 'debug' },
      { name: 'RESYNC_SECONDS', value: '300' },
      { name: 'SCRIPT_SHA256', value: SHA256 },
      { name: 'EVENTS', value: 'yes' },
      { name: 'METRICS', value: 'yes' },
    ]);
    expect(sidecar).toMatchObject({
      name: 'metrics',
      image: 'registry.example.com:5000/mirror/node-exporter:v1.12.1',
      imagePullPolicy: 'Always',
      resources: {
        requests: { cpu: '20m', memory: '24Mi' },
        limits: { cpu: '200m', memory: '96Mi' },
      },
    });
    expect(spec.containers).toHaveLength(2);
  });

  test('reaches the pod', () => {
    expect(spec).toMatchObject({
      imagePullSecrets: [{ name: 'mirror-credentials' }],
      priorityClassName: 'agents',
      nodeSelector: { 'kubernetes.io/os': 'linux', 'example.com/pool': 'workers' },
    });
    expect(spec.tolerations).toEqual(ALL_PROPS.tolerations);
    expect(spec.affinity).toEqual(ALL_PROPS.affinity);
  });
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

describe('misuse', () => {
  const NaNm = kplus.Cpu.millis('abc' as unknown as number);
  const long = 'a'.repeat(64);

  test.each<[string, OomKillModeAgentProps, string]>([
    [
      'an empty name',
      { name: '' },
      'name is not a DNS-1123 label of at most 63 characters: "". Write lower case letters, digits and inner hyphens.',
    ],
    ['a name in upper case', { name: 'Agent' }, 'name is not a DNS-1123 label'],
    ['a name with a dot', { name: 'a.b' }, 'name is not a DNS-1123 label'],
    ['a name with two lines', { name: 'a\nb' }, 'name is not a DNS-1123 label'],
    ['a name too long', { name: long }, 'name is not a DNS-1123 label'],
    ['an invalid namespace', { namespace: '-a' }, 'namespace is not a DNS-1123 label'],
    [
      'a prefix with a slash',
      { labelPrefix: 'a/b' },
      'labelPrefix is not a DNS-1123 subdomain of at most 253 characters: "a/b". Write a domain of yours in lower case, such as "oom.example.com".',
    ],
    ['an empty prefix', { labelPrefix: '' }, 'labelPrefix is not a DNS-1123 subdomain'],
    [
      'a prefix in upper case',
      { labelPrefix: 'Example.com' },
      'labelPrefix is not a DNS-1123 subdomain',
    ],
    [
      'a prefix with a trailing newline',
      { labelPrefix: 'a.com\n' },
      'labelPrefix is not a DNS-1123 subdomain',
    ],
    [
      'a prefix with a shell in it',
      { labelPrefix: '$(reboot)' },
      'labelPrefix is not a DNS-1123 subdomain',
    ],
    [
      'a prefix too long',
      { labelPrefix: `${'a.'.repeat(126)}aa` },
      'labelPrefix is not a DNS-1123 subdomain',
    ],
    [
      'a prefix of Kubernetes',
      { labelPrefix: 'oom.k8s.io' },
      'labelPrefix is reserved for Kubernetes itself: "oom.k8s.io". Write a domain of yours',
    ],
    [
      'an image without a tag',
      { image: 'docker.io/curlimages/curl' },
      'image is not a reference pinned by tag or digest: "docker.io/curlimages/curl". Write "name:1.2.3" or "name@sha256:…".',
    ],
    [
      'an image with a port and no tag',
      { image: 'registry.example.com:5000/curl' },
      'image is not a reference pinned',
    ],
    ['the latest image', { image: 'curlimages/curl:latest' }, 'image is not a reference pinned'],
    [
      'an image with a bad digest',
      { image: 'curlimages/curl@sha256:abc' },
      'image is not a reference pinned',
    ],
    ['an image that is none', { image: 'curl 8.20.0' }, 'image is not a reference pinned'],
    [
      'a bad pull secret',
      { imagePullSecrets: ['ok', 'Not OK'] },
      'imagePullSecrets is not a DNS-1123 subdomain',
    ],
    [
      'a bad priority class',
      { priorityClassName: 'System' },
      'priorityClassName is not a DNS-1123 subdomain',
    ],
    [
      'a quota for no class',
      { priorityClassName: '', resourceQuota: true },
      'resourceQuota is true, and there is no priority class. Write a priorityClassName, or leave out resourceQuota.',
    ],
    ...[
      ...[0, 101, 1.5, NaN].map((percent) => kplus.PercentOrAbsolute.percent(percent)),
      ...[0, -1, 1.5, NaN].map((count) => kplus.PercentOrAbsolute.absolute(count)),
    ].map((maxUnavailable): [string, OomKillModeAgentProps, string] => [
      `a rollout of ${String(maxUnavailable.value)}`,
      { maxUnavailable },
      `maxUnavailable is neither a positive whole number nor from 1 to 100 percent: ${String(maxUnavailable.value)}. Write an amount such as PercentOrAbsolute.absolute(1) or PercentOrAbsolute.percent(10).`,
    ]),
    [
      'a number for a PercentOrAbsolute',
      { maxUnavailable: 1 as never },
      'maxUnavailable is not a PercentOrAbsolute: 1. Write an amount such as PercentOrAbsolute.percent(10).',
    ],
    [
      'a bad SELinux type',
      { selinuxType: 'spc_t:s0' },
      'selinuxType is not an SELinux type: "spc_t:s0". Write a name such as "spc_t".',
    ],
    [
      'an unknown log level',
      { logLevel: 'trace' as unknown as AgentLogLevel },
      'logLevel is unknown: "trace". Write "error" or "warn" or "info" or "debug".',
    ],
    [
      'a short resync',
      { resyncPeriod: Duration.seconds(9) },
      'resyncPeriod is not a whole number of seconds from 10 to 300: 9. Write a duration such as Duration.seconds(10).',
    ],
    [
      'a long resync',
      { resyncPeriod: Duration.seconds(301) },
      'resyncPeriod is not a whole number of seconds',
    ],
    [
      'a broken resync',
      { resyncPeriod: Duration.millis(10500) },
      'resyncPeriod is not a whole number of seconds from 10 to 300: 10.5',
    ],
    [
      'a resync that is no number',
      { resyncPeriod: Duration.seconds(NaN) },
      'resyncPeriod is not a whole number of seconds',
    ],
    [
      'a CPU limit over the cap',
      { resources: { cpuLimit: kplus.Cpu.millis(251) } },
      'cpuLimit is over its cap: 251m of 250m. Write 250m or less.',
    ],
    [
      'a CPU limit over the cap in units',
      { resources: { cpuLimit: kplus.Cpu.units(1) } },
      'cpuLimit is over its cap: 1000m of 250m',
    ],
    [
      'a memory limit over the cap',
      { resources: { memoryLimit: Size.gibibytes(1) } },
      'memoryLimit is over its cap: 1024Mi of 256Mi',
    ],
    [
      'a CPU request over the limit',
      { resources: { cpuRequest: kplus.Cpu.millis(201), cpuLimit: kplus.Cpu.millis(200) } },
      'cpuRequest is 201m, more than cpuLimit: 200m. Write cpuRequest: Cpu.millis(200) or less, or cpuLimit: Cpu.millis(201) or more.',
    ],
    [
      'a memory request over the limit',
      { resources: { memoryRequest: Size.mebibytes(65) } },
      'memoryRequest is 65Mi, more than memoryLimit: 64Mi. Write memoryRequest: Size.mebibytes(64) or less, or',
    ],
    [
      'a memory limit below the default request',
      { resources: { memoryLimit: Size.mebibytes(8) } },
      'memoryRequest is 16Mi by default, more than memoryLimit: 8Mi. Write memoryRequest: Size.mebibytes(8) or less, or memoryLimit: Size.mebibytes(16) or more.',
    ],
    [
      'a CPU request that was measured to be too late',
      { resources: { cpuRequest: kplus.Cpu.millis(10) } },
      'cpuRequest is 10m, and 10m was measured to be too late for the first instruction of a container. Write more than 10m, or leave out cpuRequest and cpuLimit.',
    ],
    [
      'a CPU limit that was measured to be too late',
      { resources: { cpuLimit: kplus.Cpu.millis(100) } },
      'cpuLimit is 100m, and 100m was measured to be too late',
    ],
    [
      'an unpinned image of the metrics, by its name',
      { metricsImage: 'node-exporter' },
      'metricsImage is not a reference pinned by tag or digest: "node-exporter". Write',
    ],
    [
      'a namespace of Kubernetes to create',
      { namespace: 'kube-system', createNamespace: true },
      'createNamespace is true, and kube-system is a namespace of Kubernetes itself. Write createNamespace: false or another namespace.',
    ],
    [
      'the default namespace to create',
      { namespace: 'default', createNamespace: true },
      'createNamespace is true, and default is',
    ],
    ['null', null as never, 'the options are not an object: null. Write { … }.'],
    ['a null name', { name: null as never }, 'name is not a string: null. Write "text".'],
    ['a construct for a name', { name: chart() as never }, 'name is not a string: a Chart. Write'],
    [
      'a string for a boolean',
      { events: 'false' as never },
      'events is not true or false: "false". Write true or false, without quotes.',
    ],
    [
      'an unknown pull policy',
      { imagePullPolicy: 'Sometimes' as never },
      'imagePullPolicy is unknown: "Sometimes". Write "Always" or "IfNotPresent" or "Never".',
    ],
    [
      'a string for a Cpu',
      { resources: { cpuLimit: '250m' as never } },
      'cpuLimit is not a Cpu: "250m". Write a quantity such as Cpu.millis(100).',
    ],
    [
      'a string for a Size',
      { resources: { memoryLimit: '64Mi' as never } },
      'memoryLimit is not a Size: "64Mi". Write',
    ],
    [
      'a number for a Duration',
      { resyncPeriod: 60 as never },
      'resyncPeriod is not a Duration: 60. Write',
    ],
    ['no resources', { resources: null as never }, 'resources is not an object: null. Write'],
    [
      'a string for a list',
      { imagePullSecrets: 'a' as never },
      'imagePullSecrets is not a list of strings: "a". Write ["text"].',
    ],
    [
      'a label that is no string',
      { labels: { a: true as never } },
      'labels is not a map of strings: {"a":true}. Write { key: "text" }.',
    ],
    [
      'a bad value of a node label',
      { nodeSelector: { a: 'b c' } },
      'nodeSelector["a"] is not a valid label value: "b c". Write',
    ],
    [
      'an unknown operator',
      { tolerations: [{ key: 'a', operator: 'Is' }] },
      'tolerations has one that has another operator than Equal and Exists: {"key":"a","operator":"Is"}. Write',
    ],
    [
      'an unknown effect',
      { tolerations: [{ operator: 'Exists', effect: 'NoRun' }] },
      'tolerations has one that has another effect than',
    ],
    [
      'a toleration of no key',
      { tolerations: [{ value: 'a' }] },
      'tolerations has one that has no key, which only the operator Exists allows',
    ],
    [
      'a toleration of any value',
      { tolerations: [{ key: 'a', operator: 'Exists', value: 'b' }] },
      'tolerations has one that has a value, which the operator Exists does not allow',
    ],
    [
      'a toleration for a while',
      { tolerations: [{ key: 'a', operator: 'Exists', tolerationSeconds: 1 }] },
      'tolerations has one that has tolerationSeconds, which only',
    ],
    [
      'a toleration that is null',
      { tolerations: [null as never] },
      'tolerations has one that is not an object: null. Write',
    ],
    [
      'no CPU',
      { resources: { cpuRequest: kplus.Cpu.millis(0) } },
      'cpuRequest is not a positive whole number of milli-CPUs: 0m. Write a quantity such as Cpu.millis(100).',
    ],
    [
      'negative CPU',
      { resources: { cpuRequest: kplus.Cpu.millis(-1) } },
      'cpuRequest is not a positive whole number',
    ],
    [
      'half a milli-CPU',
      { resources: { cpuRequest: kplus.Cpu.millis(0.5) } },
      'cpuRequest is not a positive whole number',
    ],
    [
      'CPU that is no number',
      { resources: { cpuLimit: NaNm } },
      'cpuLimit is not a positive whole number of milli-CPUs: abcm',
    ],
    [
      'endless CPU',
      { resources: { cpuLimit: kplus.Cpu.units(Infinity) } },
      'cpuLimit is not a positive whole number',
    ],
    [
      'no memory',
      { resources: { memoryRequest: Size.mebibytes(0) } },
      'memoryRequest is not a positive whole number of mebibytes: 0Mi. Write a quantity such as Size.mebibytes(64).',
    ],
    [
      'half a mebibyte',
      { resources: { memoryRequest: Size.kibibytes(512) } },
      'memoryRequest is not a positive whole number',
    ],
    [
      'memory that is no number',
      { resources: { memoryLimit: Size.mebibytes(NaN) } },
      'memoryLimit is not a positive whole number',
    ],
    [
      'endless memory',
      { resources: { memoryLimit: Size.gibibytes(Infinity) } },
      'memoryLimit is not a positive whole number',
    ],
    [
      'a label of ours',
      { labels: { 'app.kubernetes.io/name': 'x' } },
      'labels would override a value that this construct depends on: "app.kubernetes.io/name". Write a key of your own.',
    ],
    ['its own mode', { labels: { 'cdk8s-oom-kill-mode/mode': 'Single' } }, 'labels would override'],
    [
      'a Pod Security label',
      { labels: { 'pod-security.kubernetes.io/enforce': 'restricted' } },
      'labels would override',
    ],
    [
      'a bad label key',
      { labels: { 'a/b/c': 'x' } },
      'labels has an invalid key: "a/b/c". Write a key such as "example.com/team".',
    ],
    ['a bad label prefix', { labels: { 'A/b': 'x' } }, 'labels has an invalid key'],
    [
      'a bad label value',
      { labels: { a: 'b c' } },
      'labels["a"] is not a valid label value: "b c". Write at most 63 letters',
    ],
    ['a label value too long', { labels: { a: long } }, 'labels["a"] is not a valid label value'],
    ['a bad annotation key', { annotations: { '': 'x' } }, 'annotations has an invalid key'],
    [
      'another operating system',
      { nodeSelector: { 'kubernetes.io/os': 'windows' } },
      'nodeSelector would override',
    ],
  ])('refuses %s, with the path and the remedy', (_, props, message) => {
    const make = () => new OomKillModeAgent(chart(), 'agent', props);
    expect(make).toThrow(`[test/agent] ${message}`);
    expect(make).toThrow(/\. Write .*\.$/);
  });

  test('allows two agents that share nothing but a namespace', () => {
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

  const circle: Record<string, unknown> = {};
  circle['circle'] = circle;
  const required = 'requiredDuringSchedulingIgnoredDuringExecution';

  test.each<[string, unknown, string]>([
    [
      'a misspelt option',
      { seLinuxType: 'spc_t' },
      'the options have "seLinuxType", which does nothing. Write selinuxType.',
    ],
    [
      'an unknown option',
      { replicas: 3 },
      'the options have "replicas", which does nothing. Write one of affinity, ',
    ],
    [
      'an unknown option of the resources',
      { resources: { cpu: kplus.Cpu.millis(1) } },
      'resources have "cpu", which does nothing. Write one of cpuLimit, cpuRequest, memoryLimit, memoryRequest.',
    ],
    [
      'a size in place of a CPU',
      { resources: { cpuLimit: Size.mebibytes(64) } },
      'cpuLimit is not a Cpu: a Size. Write a quantity such as Cpu.millis(100).',
    ],
    [
      'a string of an affinity',
      { affinity: 'zone' },
      'affinity is not an object: "zone". Write { … }.',
    ],
    [
      'a misspelt affinity',
      { affinity: { nodeAffinty: {} } },
      'affinity.nodeAffinty is nothing that an affinity of Kubernetes 1.28 can have there. Write {',
    ],
    [
      'a string in an affinity',
      { affinity: { nodeAffinity: 'a' } },
      'affinity.nodeAffinity is nothing',
    ],
    [
      'a list in an affinity',
      { affinity: { nodeAffinity: { [required]: [] } } },
      `affinity.nodeAffinity.${required} is nothing`,
    ],
    [
      'a map for a list in an affinity',
      { affinity: { nodeAffinity: { [required]: { nodeSelectorTerms: {} } } } },
      'affinity is nothing',
    ],
    [
      'a misspelt term of an affinity',
      {
        affinity: {
          nodeAffinity: { [required]: { nodeSelectorTerms: [{ matchExpression: [] }] } },
        },
      },
      `affinity.nodeAffinity.${required}.nodeSelectorTerms[0].matchExpression is nothing`,
    ],
    ['an affinity that refers to itself', { affinity: circle }, 'affinity.circle is nothing'],
    [
      'a name that refers to itself',
      { name: circle },
      'name is not a string: an object that refers to itself. Write "text".',
    ],
    [
      'a toleration that refers to itself',
      { tolerations: [circle] },
      'tolerations has one that has no key',
    ],
    [
      'metrics with a request over its limit',
      { metricsResources: { cpuRequest: kplus.Cpu.millis(60) } },
      'cpuRequest is 60m, more than cpuLimit: 50m. Write',
    ],
  ])('refuses %s', (_, props, message) => {
    expect(() => synthAgent(props as OomKillModeAgentProps)).toThrow(`[test/agent] ${message}`);
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
