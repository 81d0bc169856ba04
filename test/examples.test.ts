import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { AppRun, Manifest, ROOT, find, parse, read, runApp, template } from './support/manifests';
import { Schema, VERSIONS, loadSchemas, violations } from './support/schema';
import { install } from './support/binaries';

/** Every agent is a file of this name. It is committed once. */
const AGENT = 'oom-kill-mode-agent.k8s.yaml';
const EXAMPLES = readdirSync(join(ROOT, 'examples'));

/** What a pod says about itself: "<mode>" or "<mode> <overrides>". */
const POLICIES: Record<string, Record<string, string>> = {
  'agent-only': {},
  'ci-and-notebook': { 'Job build': 'Single', 'Pod notebook': 'Single' },
  defaults: {},
  helm: { 'Deployment mailer': 'Single', 'Deployment queue': 'Single' },
  metrics: {},
  'node-pools': { 'Deployment builder': 'Single' },
  openshift: {},
  'plain-yaml': { 'Deployment shop': 'Single' },
  postgresql: { 'StatefulSet postgresql': 'Single' },
  'systemd-drop-in': {},
  web: { 'Deployment web': 'Group nginx=Group,php=Single' },
};

const WORKLOADS = ['CronJob', 'DaemonSet', 'Deployment', 'Job', 'Pod', 'StatefulSet'];

/** The kinds of others than Kubernetes, for which there is no schema here. */
const FOREIGN = ['PodMonitor', 'PrometheusRule', 'SecurityContextConstraints'];

const runs: Record<string, AppRun> = {};
let schemas: Record<string, Schema>;

beforeAll(() => {
  const environment = { PATH: `${install('helm')}${delimiter}${process.env['PATH'] ?? ''}` };
  for (const example of EXAMPLES) {
    runs[example] = runApp(join('examples', example), environment);
  }
  schemas = loadSchemas();
}, 120_000);

function manifests(example: string): Manifest[] {
  return Object.values(runs[example]?.files ?? {}).flatMap((text) => parse(text));
}

function agent(example: string) {
  return template(find(manifests(example), 'DaemonSet')).spec;
}

function workload(example: string, name: string) {
  const [only, ...others] = manifests(example).filter(
    ({ kind, metadata }) => WORKLOADS.includes(kind) && metadata.name === name,
  );
  if (only === undefined || others.length > 0) {
    throw new Error(`${others.length} workloads more than one have the name ${name}`);
  }
  return template(only).spec;
}

describe.each(EXAMPLES)('examples/%s', (example) => {
  test('has committed what it synthesizes, byte for byte', () => {
    const { files = {}, ...end } = runs[example] ?? {};
    expect(end).toEqual({ status: 0, stderr: '' });
    const own = Object.keys(files).filter((file) => file !== AGENT || example === 'agent-only');
    expect(own).toHaveLength(1);
    const committed = execFileSync('git', ['ls-files', '.'], {
      cwd: join(ROOT, 'examples', example, 'dist'),
      encoding: 'utf8',
    });
    expect(committed.trimEnd().split('\n')).toEqual(own);
    for (const file of own) {
      expect(read('examples', example, 'dist', file)).toBe(files[file]);
    }
  });

  test('opts in the pods that its README says', () => {
    const found = manifests(example)
      .filter(({ kind }) => WORKLOADS.includes(kind))
      .map((manifest) => {
        const { labels, annotations } = template(manifest).metadata as Partial<
          Manifest['metadata']
        >;
        const words = [
          labels?.['cdk8s-oom-kill-mode/mode'],
          annotations?.['cdk8s-oom-kill-mode/containers'],
        ];
        return [
          `${manifest.kind} ${manifest.metadata.name}`,
          words.filter((word) => word !== undefined).join(' '),
        ] as const;
      })
      .filter(([, policy]) => policy !== '');
    expect(Object.fromEntries(found)).toEqual(POLICIES[example]);
  });

  test.each(VERSIONS)('makes valid manifests for Kubernetes %s', (version) => {
    const known = manifests(example).filter(({ kind }) => !FOREIGN.includes(kind));
    expect(known.length).toBeGreaterThanOrEqual(2);
    const found = known.flatMap((m) => violations(schemas[version] ?? {}, m));
    // What an older version does not know; the pages of the examples say so.
    const minor = Number(version.slice(2));
    const unknown =
      example === 'systemd-drop-in' && minor < 30
        ? [/securityContext\.appArmorProfile is unknown$/]
        : example === 'defaults' && minor < 36
          ? [/^MutatingAdmissionPolicy has the unknown/, /^MutatingAdmissionPolicyBinding has the/]
          : [];
    expect(found).toEqual(unknown.map((words): unknown => expect.stringMatching(words)));
  });
});

test('the database keeps its postmaster from being the victim, in the only way that a pod can', () => {
  const { containers } = workload('postgresql', 'postgresql');
  // Guaranteed: every container, and cpu as well as memory. Then the kubelet gives -997.
  for (const { resources } of containers) {
    expect(Object.keys(resources.limits).sort()).toEqual(['cpu', 'memory']);
    expect(resources.requests).toEqual(resources.limits);
  }
  expect(containers[0]?.env).toEqual(
    expect.arrayContaining([
      { name: 'PG_OOM_ADJUST_FILE', value: '/proc/self/oom_score_adj' },
      { name: 'PG_OOM_ADJUST_VALUE', value: '0' },
    ]),
  );
});

test("the agent's pods and those that need it are in the same node pools", () => {
  const [ours, theirs] = [agent('node-pools'), workload('node-pools', 'builder')].map(
    ({ affinity }) => affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution,
  );
  expect(ours).toEqual({
    nodeSelectorTerms: [
      {
        matchExpressions: [
          { key: 'example.com/pool', operator: 'In', values: ['databases', 'builds'] },
        ],
      },
    ],
  });
  expect(theirs).toEqual(ours);
});

// That it admits the pods: test/platforms.test.ts.
test('the security context constraint of OpenShift has every required field', () => {
  const constraint = manifests('openshift').find(({ kind }) => FOREIGN.includes(kind));
  // https://github.com/openshift/api, security/v1: the fields without omitempty; cdk8s drops null.
  expect(Object.keys(constraint ?? {})).toEqual(
    expect.arrayContaining([
      ...['allowHostDirVolumePlugin', 'allowHostIPC', 'allowHostNetwork', 'allowHostPID'],
      ...['allowHostPorts', 'allowPrivilegedContainer', 'allowedCapabilities'],
      ...['defaultAddCapabilities', 'priority', 'readOnlyRootFilesystem'],
      ...['requiredDropCapabilities', 'volumes'],
    ]),
  );
});
