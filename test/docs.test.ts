import { spawn } from 'node:child_process';
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
import { tmpdir } from 'node:os';
import { basename, delimiter, dirname, join, normalize } from 'node:path';
import * as ts from 'typescript';
import { parse as parseYaml, parseAllDocuments } from 'yaml';
import { PAGES, blocks as blocksOf, isExternal, links, prose } from '../scripts/links';
import { Manifest, ROOT, kustomize, memoized, parse, read, template } from './support/manifests';
import { VERSIONS } from './support/schema';
import { install } from './support/binaries';
import { ClusterServer } from './support/cluster-server';

const blocks = (page: string, language: string) => blocksOf(read(page), language);

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

test('CONTRIBUTING.md shows tests that exist', () => {
  const shown = ['test/agent/first.test.ts', 'test/script/first.test.ts'].map((file) => read(file));
  expect(blocks('CONTRIBUTING.md', 'ts')).toEqual(shown);
});

test('the programs of the pages compile', () => {
  // Beside the tests, where TypeScript finds the packages; only in memory.
  const sources = new Map(
    PAGES.filter((page) => page !== 'CONTRIBUTING.md').flatMap((page) =>
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
  const program = ts.createProgram([...sources.keys()], options, host);
  expect(sources.size).toBeGreaterThan(0);
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
    const [service, deployment] = kustomize(directory) as [Manifest, Manifest];
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
  ['docs/troubleshooting.md', '\n### OomKillModeStaleSync\n'],
  ['docs/monitoring.md', '\n## Events\n'],
])('%s quotes what the script says, below %j', (page, heading) => {
  const script = readdirSync(join(ROOT, 'lib/agent')).map((name) => read('lib/agent', name));
  const [section = ''] = (read(page).split(heading)[1] ?? '').split('\n## ');
  const quoted = [...section.matchAll(/^\|.*\|$/gm)].flatMap(([row]) =>
    [...row.matchAll(/`([^`]+)`/g)]
      .map(([, text = '']) => text)
      .filter((text) => / .* /.test(text)),
  );
  expect(quoted).not.toEqual([]);
  expect(quoted.filter((text) => !script.join('').includes(text))).toEqual([]);
});

test('docs/ has an index of its pages', () => {
  const pages = PAGES.filter((page) => dirname(page) === 'docs');
  const linked = links(read('docs/README.md')).map((link) => normalize(join('docs', link)));
  expect(pages.filter((page) => page !== 'docs/README.md' && !linked.includes(page))).toEqual([]);
});

// A tag can be moved to another commit, and a workflow can publish what users run.
test.each(readdirSync(join(ROOT, '.github/workflows')))(
  'the workflow %s names every action by its commit, and the version beside it',
  (name) => {
    const used = [...read('.github/workflows', name).matchAll(/ uses: (.*)$/gm)];
    const loose = used
      .map(([, action = '']) => action)
      .filter((action) => !/^\.\/|^[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/.test(action));
    expect(used.length).toBeGreaterThan(0);
    expect(loose).toEqual([]);
  },
);
