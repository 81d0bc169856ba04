import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, delimiter, dirname, join, normalize } from 'node:path';
import * as ts from 'typescript';
import { parse as parseYaml, parseAllDocuments } from 'yaml';
import { PAGES, failure, isExternal, links, prose } from '../scripts/links';
import { Manifest, ROOT, parse, read, template } from './support/manifests';
import { VERSIONS, loadSchemas } from './support/schema';
import { install } from './support/binaries';
import { ClusterServer } from './support/cluster-server';

/** camelCase of others, which no API that we can read here has. */
const FOREIGN = [
  'commonLabels', // kustomize
  'dependsOn', // Flux
  'extraPodLabels', // some Helm charts
  'oomKillMode', // KEP-5507
  'podLabels', // most Helm charts
  'postBuild', // Flux
  'targetNamespace', // Flux
  'sendInitialEvents', // a parameter of the Kubernetes API
  'singleProcessOOMKill', // the kubelet
  'cgroupsPerQOS', // the kubelet
  'overrideHonorLabels', // the Prometheus operator
  'enforcedNamespaceLabel', // the Prometheus operator
  'podMonitorNamespaceSelector', // the Prometheus operator
  'podMonitorSelector', // the Prometheus operator
  'nodesPerReplica', // the cluster-proportional-autoscaler
  'OomKilledProcess', // reasons of the agent's Events
  'nodeValue', // a key of its log
  'with', // later versions of constructs
];

/** Words that the pages write as `word: value` and that are no property of the library. */
const FOREIGN_KEYS = [
  ...['configmaps', 'nodes', 'pods'], // resources, in rules of RBAC
  'release', // a label of the Helm chart kube-prometheus-stack
  'severity', // a label of alerts
  'type', // a label of virtual nodes
  'wait', // Flux
];

function blocks(page: string, language: string): string[] {
  const found = read(page).matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'gms'));
  return [...found].map(([, text]) => text ?? '');
}

/** The anchors that a page's headings have on GitHub, and those of its HTML. */
const anchors = memoized((page: string): Set<string> => {
  const text = existsSync(join(ROOT, page)) ? prose(read(page)) : '';
  const headings = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .replace(/ /g, '-'),
  );
  return new Set([...headings, ...[...text.matchAll(/ id="([^"]+)"/g)].map(([, id = '']) => id)]);
});

function memoized<T>(f: (key: string) => T): (key: string) => T {
  const known = new Map<string, T>();
  return (key) => {
    const value = known.get(key) ?? f(key);
    known.set(key, value);
    return value;
  };
}

describe.each(PAGES)('the links of %s', (page) => {
  test('lead to files and headings that exist', () => {
    const broken = links(read(page))
      .filter((link) => !isExternal(link))
      .filter((link) => {
        const [path = '', anchor] = link.split('#');
        const target = path === '' ? page : normalize(join(dirname(page), path));
        return (
          !existsSync(join(ROOT, target)) || (anchor !== undefined && !anchors(target).has(anchor))
        );
      });
    expect(broken).toEqual([]);
  });
});

test('links out are https', () => {
  const external = PAGES.flatMap((page) => links(read(page))).filter(isExternal);
  expect(external.filter((link) => !/^https:\/\/\S+$/.test(link))).toEqual([]);
});

test('the summaries in the tables of API.md are one sentence each', () => {
  const summaries = [...read('API.md').matchAll(/^\| <code>.*\| (.*) \|$/gm)].map(
    ([, text]) => text,
  );
  expect(summaries.length).toBeGreaterThan(100);
  expect(summaries.filter((text) => /[.`)"] [A-Z`]\w* |,\.$|;$| - /.test(text ?? ''))).toEqual([]);
});

describe('the names in the pages', () => {
  let program: ts.Program;
  let sources: Map<string, string>;
  let members: Map<string, Set<string>>;
  let ours: Set<string>;
  let names: Set<string>;

  beforeAll(() => {
    // Beside the tests, where TypeScript finds the packages; only in memory.
    sources = new Map(
      PAGES.flatMap((page) =>
        blocks(page, 'ts').map((text, number): [string, string] => [
          join(ROOT, 'test', `${page.replaceAll('/', '-')}-${number}.ts`),
          text,
        ]),
      ),
    );
    const { config } = ts.readConfigFile(join(ROOT, 'tsconfig.json'), (path) =>
      ts.sys.readFile(path),
    ) as { config: { compilerOptions: object } };
    const { options } = ts.convertCompilerOptionsFromJson(
      {
        ...config.compilerOptions,
        baseUrl: '.',
        paths: { 'cdk8s-oom-kill-mode': ['lib/index.ts'] },
      },
      ROOT,
    );
    const host = ts.createCompilerHost(options);
    const plain = ts.createCompilerHost(options);
    host.fileExists = (path) => sources.has(path) || plain.fileExists(path);
    host.readFile = (path) => sources.get(path) ?? plain.readFile(path);
    host.getSourceFile = (path, ...rest) => {
      const text = sources.get(path);
      return text === undefined
        ? plain.getSourceFile(path, ...rest)
        : ts.createSourceFile(path, text, ts.ScriptTarget.ES2022);
    };
    const index = join(ROOT, 'lib/index.ts');
    program = ts.createProgram([index, ...sources.keys()], options, host);
    const schemas = Object.values(loadSchemas()).flatMap((schema) =>
      Object.values(schema).flatMap((attributes) => attributes.map(({ baseName }) => baseName)),
    );
    const alerts = readdirSync(join(ROOT, 'test/monitoring/prometheus')).map((file) =>
      basename(file, '.yml'),
    );
    members = exportedMembers(program, index);
    ours = new Set([...members].flatMap(([type, names]) => [type, ...names]));
    names = new Set([...ours, ...schemas, ...alerts, ...FOREIGN]);
  }, 120_000);

  /** The names between backticks that neither the library nor Kubernetes has. */
  function unknown(text: string): string[] {
    return [...text.matchAll(/`([^`\n]+)`/g)].flatMap(([, code = '']) => {
      const bare = code.replace(/'[^']*'/g, "''");
      // `OomKillMode.SINGLE`
      const dotted = [...bare.matchAll(/\b([A-Z][A-Za-z]+)\.([A-Za-z_]+)/g)]
        .filter(([, type = '', member = '']) =>
          members.has(type) ? !members.get(type)?.has(member) : /^[A-Z_]+$/.test(member),
        )
        .map(([name]) => name);
      // `single()`, `OomKillPolicy.of(release).single()`
      const called = [...bare.matchAll(/(?:^|\.)([a-z][A-Za-z]*)\(/g)]
        .map(([, name = '']) => name)
        .filter((name) => !ours.has(name) && !FOREIGN.includes(name));
      // `events: false`: Kubernetes has so many lower-case words that ours would be hidden among them.
      const key = /^([a-z]+): /.exec(bare)?.[1];
      const keys = key === undefined || ours.has(key) || FOREIGN_KEYS.includes(key) ? [] : [key];
      // `followNodes`, `followNodes: true`, `OomKillModeAgent`, `OomKillPolicy.of(…)`
      const word = /^([A-Za-z]+)(?:[.(].*|: [^/]*)?$/.exec(code)?.[1] ?? '';
      const words = /^[a-z]+[A-Z]|^(OomKill|OnePerNode|Herder)/.test(word) ? [word] : [];
      return [...dotted, ...called, ...keys, ...words.filter((name) => !names.has(name))];
    });
  }

  test('in programs are those of the library', () => {
    expect(sources.size).toBeGreaterThanOrEqual(4);
    const wrong = [...sources.keys()].flatMap((path) =>
      ts
        .getPreEmitDiagnostics(program, program.getSourceFile(path))
        .map(
          ({ messageText }) =>
            `${basename(path)}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`,
        ),
    );
    expect(wrong).toEqual([]);
  }, 120_000);

  test.each(PAGES)('in the text of %s are of the library, or of Kubernetes', (page) => {
    // The headings of API.md are generated from the API, what others inherit to us included.
    const text = page === 'API.md' ? prose(page).replace(/^#.*$/gm, '') : prose(page);
    expect(unknown(text)).toEqual([]);
  });

  test.each([
    ['`event: false`', 'event'],
    ["`seLinuxTyp: 'spc_t'`", 'seLinuxTyp'],
    ['`followNode`', 'followNode'],
    ['`OomKillMode.SINGEL`', 'OomKillMode.SINGEL'],
    ['`KillMode.SINGLE`', 'KillMode.SINGLE'],
    ['`validationActions: [AdmissionAction.WARNING]`', 'AdmissionAction.WARNING'],
    ['`OomKillPolicy.of(release).sole()`', 'sole'],
    ['`OomKillModeAgents`', 'OomKillModeAgents'],
  ])('are looked at: %s', (text, name) => {
    expect(unknown(text)).toEqual([name]);
  });

  test('that are right pass', () => {
    const text =
      '`events: false` `metrics: true` `OomKillMode.SINGLE` `OomKillPolicy.of(release).single()`';
    expect(unknown(text)).toEqual([]);
  });
});

/** Every exported name, with its members: what it inherits, what is static, what an enum lists. */
function exportedMembers(program: ts.Program, index: string): Map<string, Set<string>> {
  const checker = program.getTypeChecker();
  const source = program.getSourceFile(index);
  const module = source && checker.getSymbolAtLocation(source);
  return new Map(
    (module ? checker.getExportsOfModule(module) : []).map((alias) => {
      const symbol = alias.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(alias) : alias;
      const instance = checker.getDeclaredTypeOfSymbol(symbol).getProperties();
      const fixed = [...(symbol.exports?.values() ?? [])];
      return [alias.name, new Set([...instance, ...fixed].map(({ name }) => name))];
    }),
  );
}

test.each(PAGES.filter((page) => blocks(page, 'yaml').length > 0))(
  'the YAML of %s can be read',
  (page) => {
    for (const text of blocks(page, 'yaml')) {
      for (const document of parseAllDocuments(text)) {
        expect(document.errors).toEqual([]);
        expect(document.toJS()).toEqual(expect.any(Object));
      }
    }
  },
);

/** As much of the repository as a reader's commands need, in a place of its own. */
function checkout(): string {
  const directory = mkdtempSync(join(tmpdir(), 'oom-kill-mode-docs-'));
  for (const name of [
    '.npmrc',
    'cdk8s.yaml',
    'chart',
    'dist',
    'examples',
    'imports',
    'lib',
    'main.ts',
    'package.json',
    'tsconfig.json',
  ]) {
    cpSync(join(ROOT, name), join(directory, name), { recursive: true });
  }
  symlinkSync(join(ROOT, 'node_modules'), join(directory, 'node_modules'));
  return directory;
}

// The README's own blocks are run by scripts/readme.ts, that of imports/README.md by
// test/monitoring/oom-kill-mode-monitoring.test.ts, which also looks at what it writes.
const ELSEWHERE = ['README.md', 'imports/README.md'];
const WITH_BLOCKS = PAGES.filter(
  (page) => !ELSEWHERE.includes(page) && blocks(page, 'sh').length > 0,
);

describe.each(WITH_BLOCKS)('the blocks of %s', (page) => {
  let server: ClusterServer;
  let directory: string;
  let environment: NodeJS.ProcessEnv;

  /** Pastes one into a shell, whole. Not synchronous: the server has to answer meanwhile. */
  async function paste(block: string): Promise<{ status: number | null; output: string }> {
    const child = spawn('sh', ['-ec', block], { cwd: directory, env: environment });
    let output = '';
    child.stdout.on('data', (data: Buffer) => (output += data.toString()));
    child.stderr.on('data', (data: Buffer) => (output += data.toString()));
    const status = await new Promise<number | null>((done) => child.on('close', done));
    return { status, output };
  }

  beforeAll(async () => {
    directory = checkout();
    server = await ClusterServer.start();
    const kubeconfig = join(directory, 'kubeconfig');
    writeFileSync(kubeconfig, server.kubeconfig);
    environment = {
      // Helm 3, because Helm 4 stores its releases as protobuf, which the stand-in does not read.
      PATH: [install('kubectl'), install('helm', '1.28'), process.env['PATH'] ?? ''].join(
        delimiter,
      ),
      HOME: directory,
      KUBECONFIG: kubeconfig,
    };
    // What most pages take for granted. Helm refuses to take over what kubectl has applied.
    if (page !== 'chart/README.md') {
      const agent = await paste('kubectl apply -f examples/agent-only/dist/');
      expect(agent).toMatchObject({ status: 0 });
    }
  }, 120_000);

  afterAll(() => {
    server.stop();
    rmSync(directory, { recursive: true });
  });

  test.each(blocks(page, 'sh').map((block) => [block]))(
    'work pasted whole, from the root of the repository: %s',
    async (block) => {
      for (const command of block.trim().split('\n')) {
        // Nothing else is run here: what it would do to this machine is unknown. Mark it as `text`.
        expect(command).toMatch(/^(\(?cd examples\/[a-z-]+ && npx cdk8s|kubectl|helm|npx cdk8s) /);
      }
      const { status, output } = await paste(block);
      expect({ status, output: status === 0 ? '' : output }).toEqual({ status: 0, output: '' });
    },
    120_000,
  );
});

describe('docs/gitops.md', () => {
  const page = 'docs/gitops.md';
  const directory = mkdtempSync(join(tmpdir(), 'oom-kill-mode-gitops-'));

  afterAll(() => {
    rmSync(directory, { recursive: true });
  });

  test('points at directories of manifests', () => {
    const paths = blocks(page, 'yaml')
      .flatMap((text) => [...text.matchAll(/^ +path: (\S+)$/gm)])
      .map(([, path = '']) => join(ROOT, path));
    expect(paths).toHaveLength(2);
    expect(paths.every((path) => statSync(path).isDirectory())).toBe(true);
  });

  test('adds the label with kustomize', () => {
    const [kustomization] = blocks(page, 'yaml').filter((text) => text.startsWith('# kustomiz'));
    writeFileSync(join(directory, 'kustomization.yaml'), kustomization ?? '');
    cpSync(join(ROOT, 'examples/plain-yaml/shop.yaml'), join(directory, 'shop.yaml'));
    const built = parse(
      execFileSync(join(install('kubectl'), 'kubectl'), ['kustomize', directory], {
        encoding: 'utf8',
      }),
    );
    const [service, deployment] = built as [Manifest, Manifest];
    expect(template(deployment).metadata.labels).toEqual({
      'app.kubernetes.io/name': 'shop',
      'cdk8s-oom-kill-mode/mode': 'Single',
    });
    expect(service).toEqual(parse(read('examples', 'plain-yaml', 'shop.yaml'))[0]);
  });
});

describe('docs/compatibility.md', () => {
  test('names the Kubernetes versions that the manifests are checked against', () => {
    const [, listed = ''] = /API of Kubernetes ([^,]+(?:,\s[\d.]+)*\sand\s[\d.]+)/.exec(
      read('docs', 'compatibility.md').replace(/\s+/g, ' '),
    ) ?? [''];
    expect(listed.match(/\d+\.\d+/g)).toEqual(VERSIONS);
  });

  test('names the versions of the peer dependencies', () => {
    const { peerDependencies } = parseYaml(read('package.json')) as {
      peerDependencies: Record<string, string>;
    };
    const text = read('docs', 'compatibility.md').replace(/\s+/g, ' ');
    for (const [name, range] of Object.entries(peerDependencies)) {
      expect(text).toContain(`${name} ${range.replace(/^\^/, '').replace(/\.0$/, '')}`);
    }
  });
});

describe('docs/troubleshooting.md', () => {
  const text = read('docs', 'troubleshooting.md').replace(/\s+/g, ' ');
  const manifests = parse(read('examples', 'agent-only', 'dist', 'oom-kill-mode-agent.k8s.yaml'));
  const agent = manifests.find(({ kind }) => kind === 'DaemonSet') as Manifest;
  const spec = template(agent).spec as {
    readonly containers: { readonly resources: object }[];
    readonly volumes: { readonly hostPath?: { readonly path: string } }[];
  };

  test('names every hostPath that a policy has to let pass, and what a quota needs room for', () => {
    const paths = spec.volumes.flatMap(({ hostPath }) => (hostPath ? [hostPath.path] : []));
    expect(paths.length).toBeGreaterThan(0);
    expect(paths.filter((path) => !text.includes(`\`${path}\``))).toEqual([]);
    expect(spec.containers.map(({ resources }) => resources)).toEqual([
      { requests: { cpu: '100m', memory: '16Mi' }, limits: { cpu: '250m', memory: '64Mi' } },
    ]);
    expect(text).toContain('100m CPU and 16Mi each, limits 250m and 64Mi');
  });

  test('has an exemption and a startup taint for the DaemonSet that there is', () => {
    const { name, namespace } = agent.metadata;
    const [exemption] = blocks('docs/troubleshooting.md', 'yaml').map(
      (block) => parseYaml(block) as { spec: object },
    );
    expect(exemption?.spec).toMatchObject({
      match: { any: [{ resources: { kinds: ['Pod', agent.kind], namespaces: [namespace] } }] },
    });
    const [, taints = ''] = /`startupTaints: ([^`]*)`/.exec(text) ?? [];
    expect(parseYaml(taints)).toEqual([
      { key: `nidhogg.uswitch.com/${namespace}.${name}`, effect: 'NoSchedule' },
    ]);
  });
});

test('docs/faults.md names tests that there are', () => {
  const kernel = readdirSync(join(ROOT, 'test/kernel')).filter((name) => name.endsWith('.test.ts'));
  const source = (file: string) =>
    file === 'kernel'
      ? kernel.map((name) => read('test/kernel', name)).join('')
      : read('test/script', `${file}.test.ts`);
  const rows = read('docs/faults.md')
    .split('\n')
    .filter((line) => /^\| (?!Fault|-)/.test(line));
  const named = rows.map((row) => [...row.matchAll(/[|,] ([a-z]+): ([^,|]+?)(?= *[,|])/g)]);
  expect(named.filter((tests) => tests.length === 0)).toEqual([]);
  const missing = named.flat().filter(([, file = '', words = '']) => !source(file).includes(words));
  expect(missing.map(([text]) => text)).toEqual([]);
});

test.each([
  ['docs/troubleshooting.md', '\n### OomKillModeStaleSync\n', 5],
  ['docs/monitoring.md', '\n## Events\n', 4],
])('%s quotes what the script says, below %j', (page, heading, count) => {
  const script = readdirSync(join(ROOT, 'lib/agent')).map((name) => read('lib/agent', name));
  const [section = ''] = (read(page).split(heading)[1] ?? '').split('\n## ');
  const quoted = [...section.matchAll(/^\|.*\|$/gm)].flatMap(([row]) =>
    [...row.matchAll(/`([^`]+)`/g)]
      .map(([, text = '']) => text)
      .filter((text) => / .* /.test(text)),
  );
  expect(new Set(quoted).size).toBe(count);
  expect(quoted.filter((text) => !script.join('').includes(text))).toEqual([]);
});

test('docs/ has an index of its pages', () => {
  const pages = PAGES.filter((page) => dirname(page) === 'docs');
  const linked = links(read('docs/README.md')).map((link) => normalize(join('docs', link)));
  expect(pages.filter((page) => page !== 'docs/README.md' && !linked.includes(page))).toEqual([]);
});

interface Workflow {
  readonly on: Record<string, { readonly tags?: string[]; readonly paths?: string[] } | null>;
  readonly permissions: Record<string, string>;
  readonly jobs: Record<
    string,
    {
      readonly uses?: string;
      readonly needs?: string;
      readonly permissions?: Record<string, string>;
      readonly container?: { readonly image: string; readonly options: string };
      readonly 'timeout-minutes'?: number;
      readonly steps?: { readonly uses?: string; readonly run?: string; readonly env?: object }[];
    }
  >;
}

describe('the workflow', () => {
  const workflow = (name: string) => parseYaml(read('.github/workflows', name)) as Workflow;
  const commands = (job?: Workflow['jobs'][string]) => job?.steps?.map(({ run }) => run);

  test('ci runs .ci/run as root on Debian, in a repository', () => {
    const { on, permissions, jobs } = workflow('ci.yml');
    expect(Object.keys(on)).toEqual(['push', 'pull_request', 'workflow_call']);
    expect(permissions).toEqual({ contents: 'read' });
    expect(jobs).toMatchObject({
      check: { container: { image: 'debian:bookworm' }, 'timeout-minutes': 120 },
    });
    const steps = jobs['check']?.steps?.map(({ uses, run }) => uses ?? run) ?? [];
    expect(steps.at(-1)).toBe('.ci/run');
    // Without git the checkout is an archive, in which neither `git diff` nor `git ls-files` works.
    expect(steps.findIndex((step) => step?.includes('apt-get install'))).toBeLessThan(
      steps.findIndex((step) => step?.startsWith('actions/checkout@')),
    );
  });

  test('release checks the tag, builds without a permission, and publishes to npm last and without a secret', () => {
    const { on, permissions, jobs } = workflow('release.yml');
    expect(on).toEqual({ push: { tags: ['v*'] } });
    expect(permissions).toEqual({ contents: 'read' });
    expect(jobs['check']).toEqual({ uses: './.github/workflows/ci.yml' });
    expect(Object.entries(jobs).map(([name, { needs }]) => [name, needs])).toEqual([
      ['check', undefined],
      ['build', 'check'],
      ['publish', 'build'],
      ['npm', 'publish'],
    ]);
    expect(jobs['build']?.permissions).toBeUndefined();
    expect(jobs['npm']?.permissions).toEqual({ 'id-token': 'write' });
    expect(commands(jobs['npm'])?.at(-1)).toMatch(/^npm publish /);
    expect(read('.github/workflows/release.yml')).not.toContain('secrets.');
    const { version: current, publishConfig } = parseYaml(read('package.json')) as {
      version: string;
      publishConfig: object;
    };
    expect(publishConfig).toEqual({ access: 'public', provenance: true });
    const [version] = (commands(jobs['build']) ?? []).filter(Boolean);
    for (const [tag, status] of [
      [`v${current}`, 0],
      ['v0.0.0', 1],
    ] as const) {
      const env = { ...process.env, GITHUB_REF_NAME: tag };
      expect(spawnSync('bash', ['-ec', version ?? ''], { cwd: ROOT, env }).status).toBe(status);
    }
  });

  test.each(readdirSync(join(ROOT, '.github/workflows')))(
    '%s names every action by its commit, and the version beside it',
    (name) => {
      const used = [...read('.github/workflows', name).matchAll(/ uses: (.*)$/gm)];
      const loose = used
        .map(([, action = '']) => action)
        .filter((action) => !/^\.\/|^[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/.test(action));
      expect(used.length).toBeGreaterThan(0);
      expect(loose).toEqual([]);
    },
  );

  test('scheduled tries a fresh machine of each kind, and what takes long', () => {
    const { on, jobs } = workflow('scheduled.yml');
    expect(Object.keys(on)).toEqual(['schedule', 'workflow_dispatch']);
    expect(Object.values(jobs).map((job) => commands(job)?.at(-1))).toEqual([
      'scripts/fresh-machine.sh ${{ matrix.user }}',
      'npm run test:long',
    ]);
  });

  test('links asks for the addresses, every week and when they change', () => {
    const { on, jobs } = workflow('links.yml');
    expect(Object.keys(on)).toEqual(['schedule', 'pull_request', 'workflow_dispatch']);
    expect(on['pull_request']?.paths).toEqual(['**.md']);
    expect(commands(jobs['links'])?.at(-1)).toBe('npm run docs:links');
  });
});

describe('npm run docs:links', () => {
  const asked: string[] = [];
  const server = createServer(({ method, url }, response) => {
    asked.push(`${method ?? ''} ${url ?? ''}`);
    response.statusCode = url === '/here' || (url === '/get' && method === 'GET') ? 200 : 404;
    response.end();
  });

  beforeAll(async () => {
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  });

  test('asks with HEAD, then with GET, and says which address does not answer', async () => {
    const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    expect(await failure(`${base}/here`)).toBeUndefined();
    expect(await failure(`${base}/get`)).toBeUndefined();
    expect(await failure(`${base}/gone`)).toBe('status 404');
    expect(asked).toEqual(['HEAD /here', 'HEAD /get', 'GET /get', 'HEAD /gone', 'GET /gone']);
    server.close();
    expect(await failure(`${base}/here`)).toMatch(/^fetch failed: .*ECONNREFUSED/);
  });

  test('fails if one does not', () => {
    const directory = mkdtempSync(join(tmpdir(), 'oom-kill-mode-links-'));
    writeFileSync(join(directory, 'page.md'), '[nowhere](https://no-such-host.invalid/)\n');
    const { status, stdout } = spawnSync(
      'npm',
      ['run', '--silent', 'docs:links', '--', join(directory, 'page.md')],
      { cwd: ROOT, encoding: 'utf8' },
    );
    rmSync(directory, { recursive: true });
    expect({ status, stdout }).toEqual({
      status: 1,
      stdout: expect.stringContaining('0 of 1 addresses answer') as string,
    });
  }, 30_000);
});
