import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Chart, Testing, Yaml } from 'cdk8s';
import {
  admissionChart,
  allPropsChart,
  defaultsChart,
  dropInChart,
  followingChart,
  monitoringChart,
} from './support/all-props';
import {
  Manifest,
  ROOT,
  byName,
  find,
  kustomize,
  parse,
  read,
  runApp,
  synthText,
} from './support/manifests';
import { install } from './support/binaries';

// What tools do to the manifests on their way to the cluster.

const CHARTS: [string, () => Chart][] = [
  ['the agent with every option', () => allPropsChart(Testing.app())],
  ['a deployment that follows the nodes', () => followingChart(Testing.app())],
  ['the admission policy', () => admissionChart(Testing.app())],
  ['the defaults', () => defaultsChart(Testing.app())],
  ['the drop-in', () => dropInChart(Testing.app())],
  ['the monitoring', () => monitoringChart(Testing.app())],
];

const COMMITTED = ['dist', ...readdirSync(join(ROOT, 'examples')).map((e) => `examples/${e}/dist`)];

const ALL: [string, () => string][] = [
  ...CHARTS.map(([name, make]): [string, () => string] => [name, () => synthText(make())]),
  ...COMMITTED.map((directory): [string, () => string] => [
    directory,
    () =>
      readdirSync(join(ROOT, directory))
        .map((file) => read(directory, file))
        .join('---\n'),
  ]),
];

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'oom-kill-mode-gitops-'));
});

afterEach(() => {
  rmSync(directory, { recursive: true });
});

describe('Flux', () => {
  // Its variable substitution replaces `${name}`, and `$$` with `$`, in objects without this annotation.
  const SWITCH = 'kustomize.toolkit.fluxcd.io/substitute';

  test.each(ALL)('has nothing to substitute in %s', (_, text) => {
    const eaten = parse(text()).filter(
      (manifest) =>
        /\$[{$]/.test(JSON.stringify(manifest)) &&
        (manifest.metadata as Partial<Manifest['metadata']>).annotations?.[SWITCH] !== 'disabled',
    );
    expect(eaten.map(({ kind, metadata }) => `${kind} ${metadata.name}`)).toEqual([]);
  });
});

describe('Helm', () => {
  /** As the page says for what has braces. */
  const [, find = '', replacement = ''] =
    /`sed 's\/(\S+)\/(.+)\/g'`/.exec(read('docs', 'gitops.md')) ?? [];

  /** The manifests that the real helm makes of a chart with this text for its template. */
  function render(text: string): Manifest[] {
    mkdirSync(join(directory, 'templates'));
    writeFileSync(join(directory, 'Chart.yaml'), 'apiVersion: v2\nname: chart\nversion: 1.0.0\n');
    writeFileSync(join(directory, 'templates', 'all.yaml'), text);
    const output = execFileSync(
      join(install('helm'), 'helm'),
      ['template', 'release', directory, '--skip-tests'],
      { encoding: 'utf8', env: { PATH: process.env['PATH'], HOME: directory } },
    );
    return parse(output);
  }

  const MONITORING = ['the monitoring', 'examples/metrics/dist'];

  test.each(ALL.filter(([name]) => !MONITORING.includes(name)))(
    'renders %s to the very same objects, and finds nothing to fill in',
    (_, text) => {
      expect(text()).not.toContain('{{');
      expect(byName(render(text()))).toEqual(byName(parse(text())));
    },
    60_000,
  );

  test('renders the monitoring to the very same objects with the replacement of the page', () => {
    const text = synthText(monitoringChart(Testing.app()));
    expect(text).toContain('{{');
    expect(find).toBe('{{');
    expect(byName(render(text.replaceAll(find, replacement)))).toEqual(byName(parse(text)));
  }, 60_000);
});

describe('kustomize', () => {
  /** With the lists whose items have names in the order of the names. A patch may change that order. */
  function listsByName(manifest: Manifest): Manifest {
    const text = JSON.stringify(manifest, (_, value: unknown) =>
      Array.isArray(value) && (value as Partial<Manifest['metadata']>[])[0]?.name !== undefined
        ? (value as Manifest['metadata'][]).sort((a, b) => a.name.localeCompare(b.name))
        : value,
    );
    return JSON.parse(text) as Manifest;
  }

  const [first = '', ...others] = [
    ...read('docs', 'gitops.md').matchAll(/^```yaml\n# (kustomization\.yaml.*?)^```$/gms),
  ].map(([, text]) => `# ${text ?? ''}`);

  /** What the real kustomize makes of the agent. */
  function build(kustomization: string): Manifest[] {
    writeFileSync(join(directory, 'kustomization.yaml'), kustomization);
    const agent = join('examples', 'agent-only', 'dist', 'oom-kill-mode-agent.k8s.yaml');
    writeFileSync(join(directory, 'oom-kill-mode-agent.k8s.yaml'), read(agent));
    return kustomize(directory);
  }

  const AGENT = Yaml.stringify({
    apiVersion: 'kustomize.config.k8s.io/v1beta1',
    kind: 'Kustomization',
    namespace: 'team-a',
    resources: ['oom-kill-mode-agent.k8s.yaml'],
  });

  test.each(['agent-only', 'metrics'])(
    'builds what the app of examples/%s synthesizes, also from a repository elsewhere',
    (example) => {
      const synthesized = Object.values(runApp(join('examples', example)).files).flatMap(parse);
      const repository = join(directory, 'repository.git');
      for (const name of ['.gitignore', 'examples/agent-only', 'examples/metrics']) {
        cpSync(join(ROOT, name), join(repository, name), { recursive: true });
      }
      const git = (...args: string[]) => execFileSync('git', args, { cwd: repository });
      git('init', '--quiet', '--initial-branch=main');
      git('add', '.');
      git('-c', 'user.name=test', '-c', 'user.email=', 'commit', '--quiet', '--message=test');
      for (const source of [
        join(ROOT, 'examples', example),
        `file://${repository}//examples/${example}?ref=main`,
      ]) {
        expect(byName(kustomize(source).map(listsByName))).toEqual(
          byName(synthesized.map(listsByName)),
        );
      }
    },
    60_000,
  );

  test('leaves the container of the agent the first one, which kubectl logs shows', () => {
    const agent = find(kustomize(join(ROOT, 'examples/metrics')), 'DaemonSet');
    const { containers } = agent.spec.template.spec;
    expect(containers.map(({ name }) => name)).toEqual(['agent', 'metrics']);
  });

  test('renames the namespace if told one, as the page warns', () => {
    const namespace = build(AGENT).find(({ kind }) => kind === 'Namespace');
    expect(namespace?.metadata.name).toBe('team-a');
    expect(namespace?.metadata.labels['pod-security.kubernetes.io/enforce']).toBe('privileged');
  });

  test('leaves the agent alone in a kustomization of its own, beside one with a namespace', () => {
    const agent = 'oom-kill-mode-agent.k8s.yaml';
    const team = join(directory, 'team');
    mkdirSync(team);
    writeFileSync(join(team, 'shop.yaml'), read('examples/plain-yaml/shop.yaml'));
    writeFileSync(
      join(team, 'kustomization.yaml'),
      AGENT.replace('oom-kill-mode-agent.k8s', 'shop'),
    );
    const built = build(Yaml.stringify({ resources: [agent, 'team'] }));
    const theirs = built.filter(({ metadata }) => metadata.name === 'shop');
    expect(theirs.map(({ metadata }) => metadata.namespace)).toEqual(['team-a', 'team-a']);
    const ours = parse(read('examples/agent-only/dist', agent));
    expect(byName(built.filter((manifest) => !theirs.includes(manifest)))).toEqual(byName(ours));
  });

  test('has no namespace with the patch of the page, and all else is in the one told', () => {
    expect(first).toContain('kind: Deployment');
    expect(others).toHaveLength(1);
    const built = build(others[0] ?? '');
    const whole = parse(read('examples/agent-only/dist/oom-kill-mode-agent.k8s.yaml'));
    expect(built.map(({ kind }) => kind).sort()).toEqual(
      whole
        .map(({ kind }) => kind)
        .filter((kind) => kind !== 'Namespace')
        .sort(),
    );
    for (const { kind, metadata, subjects } of built) {
      if (kind === 'ClusterRoleBinding') {
        expect(subjects).toMatchObject([{ namespace: 'node-agents' }]);
      } else if (kind !== 'ClusterRole') {
        expect({ kind, namespace: metadata.namespace }).toEqual({ kind, namespace: 'node-agents' });
      }
    }
  });
});
