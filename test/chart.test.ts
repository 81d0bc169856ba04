import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Chart, Duration, JsonPatch, Size, Testing } from 'cdk8s';
import { Cpu, ImagePullPolicy, PercentOrAbsolute, k8s } from 'cdk8s-plus-28';
import type { V1Pod } from 'k8s-1.28';
import { parse as parseYaml } from 'yaml';
import {
  AgentLogLevel,
  OomKillModeAgent,
  OomKillModeAgentProps,
  OomKillModeMonitoring,
  OomKillModeMonitoringProps,
} from '../lib';
import { Manifest, ROOT, byName, parse, read, synth } from './support/manifests';
import { VERSIONS, loadSchemas, violations } from './support/schema';
import { KUBECTLS, install } from './support/binaries';

// The Helm chart renders what the library synthesizes, with the real helm.

// Each test starts helm several times.
jest.setTimeout(120_000);

const NAMESPACE = 'oom-kill-mode';
type Version = (typeof KUBECTLS)[number];

// The npm packages that ship kubectl 1.28 and 1.35 have Helm 3 and Helm 4.
const HELMS: [string, Version][] = [
  ['Helm 3', '1.28'],
  ['Helm 4', '1.35'],
];
const ON = { metrics: { enabled: true } };

let directory: string;

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'oom-kill-mode-chart-'));
});

afterAll(() => {
  rmSync(directory, { recursive: true });
});

function helm(version: Version, args: string[], values: object = {}) {
  const file = join(directory, 'values.json');
  writeFileSync(file, JSON.stringify(values));
  return spawnSync(
    join(install('helm', version), 'helm'),
    [...args, join(ROOT, 'chart'), '--values', file],
    { encoding: 'utf8', env: { PATH: process.env['PATH'], HOME: directory } },
  );
}

function render(values: object, namespace = NAMESPACE, version: Version = '1.35'): Manifest[] {
  const args = ['template', 'some-release', '--namespace', namespace, '--skip-tests'];
  const { status, stdout, stderr } = helm(version, args, values);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return parse(stdout);
}

interface Expected {
  readonly agent?: OomKillModeAgentProps;
  readonly monitoring?: Omit<OomKillModeMonitoringProps, 'agent'>;
  /** What the library has no option for. */
  readonly patch?: JsonPatch;
}

function synthesize({ agent: props, monitoring, patch }: Expected): Manifest[] {
  const chart = new Chart(Testing.app(), 'test');
  const agent = new OomKillModeAgent(chart, 'agent', { createNamespace: false, ...props });
  if (patch) {
    agent.daemonSet.addJsonPatch(patch);
  }
  if (monitoring) {
    new OomKillModeMonitoring(chart, 'monitoring', {
      podMonitor: false,
      alerts: false,
      dashboard: false,
      ...monitoring,
      agent,
    });
  }
  return synth(chart);
}

const AFFINITY: k8s.Affinity = {
  nodeAffinity: {
    requiredDuringSchedulingIgnoredDuringExecution: {
      nodeSelectorTerms: [
        { matchExpressions: [{ key: 'example.com/gpu', operator: 'DoesNotExist' }] },
      ],
    },
  },
};
const ALL = { podMonitor: true, alerts: true, dashboard: true };
const EACH = {
  enabled: true,
  podMonitor: { enabled: true },
  prometheusRule: { enabled: true },
  dashboard: { enabled: true },
};

/** For each value: values, and what the library is told to make of them. */
const CASES: Record<string, [values: object, expected: Expected]> = {
  fullnameOverride: [
    { fullnameOverride: 'other', metrics: EACH },
    { agent: { name: 'other', metrics: true }, monitoring: ALL },
  ],
  createNamespace: [{ createNamespace: true }, { agent: { createNamespace: true } }],
  labelPrefix: [{ labelPrefix: 'oom.example.com' }, { agent: { labelPrefix: 'oom.example.com' } }],
  logLevel: [{ logLevel: 'debug' }, { agent: { logLevel: AgentLogLevel.DEBUG } }],
  events: [{ events: false }, { agent: { events: false } }],
  'image.repository': [
    { image: { repository: 'registry.example.com:5000/curl', digest: '' } },
    { agent: { image: 'registry.example.com:5000/curl:8.20.0' } },
  ],
  'image.tag': [
    { image: { tag: '9.0.0', digest: '' } },
    { agent: { image: 'docker.io/curlimages/curl:9.0.0' } },
  ],
  'image.digest': [
    { image: { tag: '9.0.0', digest: `sha256:${'a'.repeat(64)}` } },
    { agent: { image: `docker.io/curlimages/curl:9.0.0@sha256:${'a'.repeat(64)}` } },
  ],
  'image.pullPolicy': [
    { image: { pullPolicy: 'Always' }, ...ON },
    { agent: { imagePullPolicy: ImagePullPolicy.ALWAYS, metrics: true } },
  ],
  imagePullSecrets: [
    { imagePullSecrets: [{ name: 'mirror' }] },
    { agent: { imagePullSecrets: ['mirror'] } },
  ],
  resources: [
    { resources: { requests: { cpu: '50m' }, limits: { memory: '128Mi' } } },
    { agent: { resources: { cpuRequest: Cpu.millis(50), memoryLimit: Size.mebibytes(128) } } },
  ],
  priorityClassName: [{ priorityClassName: '' }, { agent: { priorityClassName: '' } }],
  tolerations: [
    { tolerations: [{ key: 'dedicated', operator: 'Exists' }] },
    { agent: { tolerations: [{ key: 'dedicated', operator: 'Exists' }] } },
  ],
  nodeSelector: [{ nodeSelector: { pool: '1' } }, { agent: { nodeSelector: { pool: '1' } } }],
  affinity: [{ affinity: AFFINITY }, { agent: { affinity: AFFINITY } }],
  updateStrategy: [
    { updateStrategy: { rollingUpdate: { maxSurge: 0, maxUnavailable: '10%' } } },
    { agent: { maxUnavailable: PercentOrAbsolute.percent(10) } },
  ],
  podLabels: [
    { podLabels: { team: '1' } },
    { patch: JsonPatch.add('/spec/template/metadata/labels/team', '1') },
  ],
  podAnnotations: [
    { podAnnotations: { runbook: 'https://example.com/#a: b' } },
    {
      patch: JsonPatch.add('/spec/template/metadata/annotations', {
        runbook: 'https://example.com/#a: b',
      }),
    },
  ],
  selinuxType: [{ selinuxType: 'spc_t' }, { agent: { selinuxType: 'spc_t' } }],
  'metrics.enabled': [ON, { agent: { metrics: true } }],
  'metrics.image.repository': [
    { metrics: { enabled: true, image: { repository: 'example.com/exporter', digest: '' } } },
    { agent: { metrics: true, metricsImage: 'example.com/exporter:v1.12.1' } },
  ],
  'metrics.image.tag': [
    { metrics: { enabled: true, image: { tag: 'v2', digest: '' } } },
    { agent: { metrics: true, metricsImage: 'quay.io/prometheus/node-exporter:v2' } },
  ],
  'metrics.image.digest': [
    { metrics: { enabled: true, image: { tag: 'v2', digest: `sha256:${'b'.repeat(64)}` } } },
    {
      agent: {
        metrics: true,
        metricsImage: `quay.io/prometheus/node-exporter:v2@sha256:${'b'.repeat(64)}`,
      },
    },
  ],
  'metrics.resources': [
    { metrics: { enabled: true, resources: { limits: { cpu: '200m' } } } },
    { agent: { metrics: true, metricsResources: { cpuLimit: Cpu.millis(200) } } },
  ],
  'metrics.labels': [
    { metrics: { ...EACH, labels: { release: 'kube-prometheus-stack' } } },
    {
      agent: { metrics: true },
      monitoring: { ...ALL, labels: { release: 'kube-prometheus-stack' } },
    },
  ],
  'metrics.podMonitor.enabled': [
    { metrics: { enabled: true, podMonitor: { enabled: true } } },
    { agent: { metrics: true }, monitoring: { podMonitor: true } },
  ],
  'metrics.podMonitor.interval': [
    { metrics: { enabled: true, podMonitor: { enabled: true, interval: '15s' } } },
    {
      agent: { metrics: true },
      monitoring: { podMonitor: true, scrapeInterval: Duration.seconds(15) },
    },
  ],
  'metrics.prometheusRule.enabled': [
    { metrics: { enabled: true, prometheusRule: { enabled: true } } },
    { agent: { metrics: true }, monitoring: { alerts: true } },
  ],
  'metrics.prometheusRule.labels': [
    { metrics: { enabled: true, prometheusRule: { enabled: true, labels: { team: '1' } } } },
    { agent: { metrics: true }, monitoring: { alerts: true, alertLabels: { team: '1' } } },
  ],
  'metrics.prometheusRule.runbookUrl': [
    { metrics: { enabled: true, prometheusRule: { enabled: true, runbookUrl: 'https://e.com' } } },
    { agent: { metrics: true }, monitoring: { alerts: true, runbookUrl: 'https://e.com' } },
  ],
  'metrics.prometheusRule.kubeletJob': [
    { metrics: { enabled: true, prometheusRule: { enabled: true, kubeletJob: 'nodes' } } },
    { agent: { metrics: true }, monitoring: { alerts: true, kubeletJob: 'nodes' } },
  ],
  'metrics.prometheusRule.ignoredNodes': [
    { metrics: { enabled: true, prometheusRule: { enabled: true, ignoredNodes: 'a\\..+|"b"' } } },
    { agent: { metrics: true }, monitoring: { alerts: true, ignoredNodes: 'a\\..+|"b"' } },
  ],
  'metrics.dashboard.enabled': [
    { metrics: { enabled: true, dashboard: { enabled: true } } },
    { agent: { metrics: true }, monitoring: { dashboard: true } },
  ],
  'metrics.dashboard.labels': [
    {
      metrics: { enabled: true, dashboard: { enabled: true, labels: { grafana_dashboard: '2' } } },
    },
    {
      agent: { metrics: true },
      monitoring: { dashboard: true, dashboardLabels: { grafana_dashboard: '2' } },
    },
  ],
};

interface JsonSchema {
  readonly type: string;
  readonly additionalProperties?: unknown;
  readonly properties?: Record<string, JsonSchema>;
}

/** The paths of all values; the maps that have no values of ours in them are values themselves. */
function paths({ properties = {}, additionalProperties }: JsonSchema): string[] {
  return additionalProperties !== false
    ? []
    : Object.entries(properties).flatMap(([key, value]) =>
        value.additionalProperties === false && key !== 'resources'
          ? paths(value).map((path) => `${key}.${path}`)
          : [key],
      );
}

const SCHEMA = JSON.parse(read('chart', 'values.schema.json')) as JsonSchema;
const VALUES = paths(SCHEMA).filter((path) => path !== 'global');

test('every value of the chart has a case in this test', () => {
  expect(Object.keys(CASES)).toEqual(VALUES);
});

describe.each(HELMS)('%s', (_, version) => {
  test('renders the manifests of the agent alone by default, and with the namespace if asked', () => {
    const all = parse(read('examples', 'agent-only', 'dist', 'oom-kill-mode-agent.k8s.yaml'));
    const others = all.filter(({ kind }) => kind !== 'Namespace');
    expect(byName(render({}, NAMESPACE, version))).toEqual(byName(others));
    expect(byName(render({ createNamespace: true }, NAMESPACE, version))).toEqual(byName(all));
  });

  test('finds nothing wrong with the chart', () => {
    const { status, stdout } = helm(version, ['lint', '--strict', '--quiet'], ON);
    expect({ status, stdout }).toEqual({ status: 0, stdout: '' });
  });

  test.each(Object.entries(CASES))(
    'renders what the library makes of %s',
    (_, [values, expected]) => {
      expect(byName(render(values, NAMESPACE, version))).toEqual(byName(synthesize(expected)));
    },
  );
});

test.each(['kube-system', 'team-a'])('the namespace %s is that of the release', (namespace) => {
  expect(byName(render({ metrics: EACH }, namespace))).toEqual(
    byName(synthesize({ agent: { namespace, metrics: true }, monitoring: ALL })),
  );
});

test.each([
  ['a value that does not exist', { logLevl: 'debug' }],
  ['a value that does not exist in a group', { metrics: { podMonitor: { enable: true } } }],
  ['a number for a tag', { image: { tag: 8.2 } }],
  ['the tag latest', { image: { tag: 'latest' } }],
  ['a string for a list', { tolerations: 'all' }],
  ['an unknown level', { logLevel: 'trace' }],
  ['a label that the pods have already', { podLabels: { 'app.kubernetes.io/name': 'x' } }],
  ['a number for a label', { podLabels: { team: 1 } }],
])('values.schema.json refuses %s', (_, values) => {
  for (const [, version] of HELMS) {
    expect(helm(version, ['template', 'x'], values)).toMatchObject({
      status: 1,
      stderr: expect.stringContaining(
        "values don't meet the specifications of the schema",
      ) as string,
    });
  }
});

describe('helm test', () => {
  let pods: Manifest[];

  beforeAll(() => {
    const args = ['template', 'x', '--show-only', 'templates/tests/modes.yaml'];
    pods = parse(helm('1.35', args).stdout);
  });

  test('has pods that every version of Kubernetes knows', () => {
    const schemas = loadSchemas();
    for (const version of VERSIONS) {
      expect(pods.flatMap((pod) => violations(schemas[version] ?? {}, pod))).toEqual([]);
    }
  });

  test.each(['0', '1'])(
    'succeeds in the pod whose mode is the value %s, and fails in the other',
    (value) => {
      const file = join(directory, 'memory.oom.group');
      writeFileSync(file, `${value}\n`);
      const results = pods.map((pod) => {
        const { metadata, spec } = pod as unknown as V1Pod;
        const script = spec?.containers[0]?.command?.[2] ?? '';
        const { status } = spawnSync('sh', [
          '-c',
          script.replace('/sys/fs/cgroup/memory.oom.group', file).replace('sleep 1', ':'),
        ]);
        return [metadata?.labels?.['cdk8s-oom-kill-mode/mode'], status];
      });
      expect(Object.fromEntries(results)).toEqual({
        Single: value === '0' ? 0 : 1,
        Group: value === '1' ? 0 : 1,
      });
    },
  );
});

test('the chart has the version of the package', () => {
  const { version } = parseYaml(read('package.json')) as { version: string };
  expect(parseYaml(read('chart', 'Chart.yaml'))).toMatchObject({ version, appVersion: version });
});
