import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Manifest, ROOT, parse, read } from '../support/manifests';

/** What of the jsii assembly is looked at. */
interface Assembly {
  readonly types: Record<
    string,
    { readonly kind: string; readonly name: string; readonly docs?: { readonly example?: string } }
  >;
}

const directory = mkdtempSync(join(tmpdir(), 'package-'));
const project = join(directory, 'project');
const tarball = join(directory, 'cdk8s-oom-kill-mode-0.1.0.tgz');

const changes = () => run(ROOT, 'git', 'status', '--porcelain', '--untracked-files=all');
const changesBefore = changes();

beforeAll(() => {
  // What an earlier build of other sources left behind.
  writeFileSync(join(ROOT, 'lib/renamed.js'), '');
  run(ROOT, 'npm', 'pack', '--pack-destination', directory);
});

afterAll(() => {
  rmSync(directory, { recursive: true });
});

function run(cwd: string, command: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8' });
  if (status !== 0) {
    throw new Error(`${command} ${args.join(' ')}: ${String(status)}\n${stdout}${stderr}`);
  }
  return stdout;
}

function lines(text: string): string[] {
  return text.trim().split('\n');
}

function classes(): { name: string; example: string | undefined }[] {
  const { types } = JSON.parse(read('.jsii')) as Assembly;
  return Object.values(types)
    .filter(({ kind }) => kind === 'class')
    .map(({ name, docs }) => ({ name, example: docs?.example }));
}

test('the package is what lib and imports compile to, the script and the documents, and nothing else', () => {
  const sources = lines(
    run(ROOT, 'git', 'ls-files', '--cached', '--others', '--exclude-standard', 'lib', 'imports'),
  );
  const compiled = sources
    .filter((path) => path.endsWith('.ts'))
    .flatMap((path) => [path.replace(/ts$/, 'js'), path.replace(/ts$/, 'd.ts')]);
  const script = sources.filter((path) => /^lib\/.*\.(sh|awk)$/.test(path));
  expect(script).toEqual(
    expect.arrayContaining(['lib/agent/agent.sh', 'lib/agent/api.awk', 'lib/drop-in/drop-in.sh']),
  );

  const packed = lines(run(directory, 'tar', '-tzf', tarball));
  expect(packed.map((path) => path.replace(/^package\//, '')).sort()).toEqual(
    [
      ...compiled,
      ...script,
      ...['.jsii', 'package.json', 'README.md', 'API.md', 'CHANGELOG.md', 'LICENSE'],
    ].sort(),
  );
});

test('the sources are tested and run, not what a build has left beside them', () => {
  expect(readdirSync(join(ROOT, 'lib'))).toContain('index.js');
  expect(require.resolve('../../lib')).toBe(join(ROOT, 'lib/index.ts'));
  expect(
    run(ROOT, 'node', '-r', 'ts-node/register/transpile-only', '-p', "require.resolve('./lib')"),
  ).toBe(`${join(ROOT, 'lib/index.ts')}\n`);
});

// jsii compiles every directory that package.json does not exclude.
test('a build changes nothing that git would commit', () => {
  expect(changes()).toBe(changesBefore);
});

test('every class has an example', () => {
  expect(classes().map(({ name }) => name)).toContain('OomKillPolicy');
  expect(classes().filter(({ example }) => example === undefined)).toEqual([]);
});

// The newest peers that the package allows; the repository's own tests run with the oldest.
describe('installed in a project of its own', () => {
  beforeAll(() => {
    mkdirSync(project);
    writeFileSync(join(project, 'package.json'), '{ "name": "app", "private": true }');
    run(
      project,
      'npm',
      'install',
      ...['--prefer-offline', '--no-audit', '--no-fund', '--no-legacy-peer-deps'],
      ...['--strict-peer-deps', tarball],
    );
  });

  /** The charts that `cdk8s synth` writes for an app whose program is `main.js` in a directory. */
  function synth(app: string, program = 'main.js'): string {
    writeFileSync(join(app, 'cdk8s.yaml'), `language: typescript\napp: node ${program}\n`);
    run(app, join(ROOT, 'node_modules/.bin/cdk8s'), 'synth', '--check-upgrade=false');
    return app;
  }

  test('npm brings the peers, and nothing that is only for development', () => {
    const installed = readdirSync(join(project, 'node_modules'));
    expect(installed).toEqual(expect.arrayContaining(['cdk8s', 'cdk8s-plus-28', 'constructs']));
    expect(installed).not.toContain('typescript');
  });

  const HERDER = `import { App } from 'cdk8s';
    import { HerderChart } from 'cdk8s-oom-kill-mode';
    const app = new App();
    new HerderChart(app, 'herder');
    app.synth();`;

  function herderOf(app: string): Manifest[] {
    return parse(readFileSync(join(app, 'dist/herder.k8s.yaml'), 'utf8'));
  }

  test('it makes of JavaScript the manifests that are committed in dist/', () => {
    const app = join(project, 'javascript');
    mkdirSync(app);
    writeFileSync(
      join(app, 'main.js'),
      HERDER.replace(/import (.*) from (.*);/g, 'const $1 = require($2);'),
    );
    expect(herderOf(synth(app))).toEqual(parse(read('dist/herder.k8s.yaml')));
  });

  // What docs/library.md says of bundles.
  describe('in a bundle', () => {
    const copy = 'cp -r ../node_modules/cdk8s-oom-kill-mode/lib/agent out/';
    const external = (...names: string[]) => names.map((name) => `--external:${name}`).join(' ');
    const OURS = 'cdk8s-oom-kill-mode';
    const [, fence = ''] = /\n```text\n([^`]*esbuild[^`]*)```/.exec(read('docs/library.md')) ?? [];

    function bundle(name: string, command: string): string {
      const app = join(project, name);
      mkdirSync(app);
      writeFileSync(join(app, 'main.ts'), HERDER);
      const path = `${join(ROOT, 'node_modules/.bin')}:${process.env['PATH']}`;
      run(app, 'env', `PATH=${path}`, 'sh', '-euc', command);
      return app;
    }

    test.each([
      ['cjs-packages', '--packages=external'],
      ['cjs-external', external(OURS, 'cdk8s', 'cdk8s-plus-28', 'constructs')],
      ['cjs-copy', `&& ${copy}`],
    ])('as CommonJS it makes the same manifests: %s', (name, rest) => {
      const command = `esbuild main.ts --bundle --platform=node --outfile=out/main.js ${rest}`;
      const app = bundle(name, command);
      expect(herderOf(synth(app, 'out/main.js'))).toEqual(parse(read('dist/herder.k8s.yaml')));
    });

    test('as an ES module it makes the same manifests, by the commands of the page', () => {
      expect(fence).toContain('--format=esm');
      const app = bundle(
        'esm',
        fence.replace('npx esbuild', 'esbuild').replace(' node_modules', ' ../node_modules'),
      );
      expect(herderOf(synth(app, 'out/main.mjs'))).toEqual(parse(read('dist/herder.k8s.yaml')));
    });

    test.each([
      ['only-ours', external(OURS), "can't render non-simple object of type 'Lazy'"],
      ['no-copy', '', 'the script of the agent is not in'],
    ])('what the page warns of fails as it says: %s', (name, rest, message) => {
      const command = `esbuild main.ts --bundle --platform=node --outfile=out/main.js ${rest}`;
      const app = bundle(name, command);
      expect(() => synth(app, 'out/main.js')).toThrow(message);
    });
  });

  test('it compiles with what `cdk8s init` makes for TypeScript, and synthesizes', () => {
    const app = join(project, 'typescript');
    mkdirSync(app);
    copyFileSync(
      join(ROOT, 'node_modules/cdk8s-cli/templates/typescript-app/tsconfig.json'),
      join(app, 'tsconfig.json'),
    );
    writeFileSync(
      join(app, 'main.ts'),
      `import { Construct } from 'constructs';
       import { App, Chart, ChartProps } from 'cdk8s';
       import { Deployment } from 'cdk8s-plus-28';
       import {
         OomKillMode,
         OomKillModeAgent,
         OomKillModeMonitoring,
         OomKillPolicy,
       } from 'cdk8s-oom-kill-mode';

       export class MyChart extends Chart {
         constructor(scope: Construct, id: string, props: ChartProps = { }) {
           super(scope, id, props);
           const agent = new OomKillModeAgent(this, 'agent', { metrics: true });
           new OomKillModeMonitoring(this, 'monitoring', { agent });
           const web = new Deployment(this, 'web', {
             containers: [{ name: 'php', image: 'docker.io/library/php:8.4-fpm' }],
           });
           OomKillPolicy.of(web).perContainer({ php: OomKillMode.SINGLE });
           // @ts-expect-error the compiler knows what a mode is
           OomKillPolicy.of(web).perContainer({ php: 'single' });
         }
       }

       const app = new App();
       new MyChart(app, 'app');
       app.synth();`,
    );
    run(app, join(ROOT, 'node_modules/.bin/tsc'), '-p', '.');
    // What the compiler was told to expect, the library does not take either.
    expect(() => synth(app)).toThrow('[app/web] the mode of container php is unknown: "single"');

    const program = readFileSync(join(app, 'main.js'), 'utf8');
    writeFileSync(join(app, 'main.js'), program.replace(/^.*php: 'single'.*$/m, ''));
    const made = parse(readFileSync(join(synth(app), 'dist/app.k8s.yaml'), 'utf8'));
    expect(made.map(({ kind }) => kind)).toEqual(
      expect.arrayContaining(['DaemonSet', 'PodMonitor', 'PrometheusRule', 'Deployment']),
    );
    expect(made.find(({ kind }) => kind === 'Deployment')).toMatchObject({
      spec: {
        template: {
          metadata: { labels: { 'cdk8s-oom-kill-mode/mode': 'Single' } },
        },
      },
    });
  });
});

// Sources only: to compile them takes what the other languages' registries have.
describe('jsii-pacmak writes', () => {
  const bindings = join(ROOT, '.cache/bindings');

  beforeAll(() => {
    rmSync(bindings, { recursive: true, force: true });
    run(ROOT, 'npm', 'run', 'package');
  });

  function binding(...path: string[]): string {
    return readFileSync(join(bindings, ...path), 'utf8');
  }

  test('every class in Python', () => {
    const text = binding('python/src/cdk8s_oom_kill_mode/__init__.py');
    for (const { name } of classes()) {
      expect(text).toContain(`\nclass ${name}(\n`);
    }
    expect(text).toContain('OomKillPolicy.of(web).per_container({"php": OomKillMode.SINGLE');
  });

  test('every class in Java', () => {
    for (const { name } of classes()) {
      const text = binding(`java/src/main/java/io/github/cdk8soomkillmode/${name}.java`);
      expect(text).toContain('package io.github.cdk8soomkillmode;');
      expect(text).toContain(`public class ${name} `);
    }
  });

  test('every class in Go', () => {
    for (const { name } of classes()) {
      const text = binding(`go/cdk8soomkillmode/${name}.go`);
      expect(text).toContain('package cdk8soomkillmode\n');
      expect(text).toContain(`type ${name} interface {`);
    }
  });

  // C# reserves `namespace`, of which jsii warns; the build silences that because of this.
  test('every class in C#, where namespace is called Namespace', () => {
    for (const { name } of classes()) {
      const text = binding(`dotnet/Cdk8sOomKillMode/Cdk8sOomKillMode/${name}.cs`);
      expect(text).toContain('namespace Cdk8sOomKillMode\n');
      expect(text).toContain(`public class ${name} `);
    }
    const props = binding('dotnet/Cdk8sOomKillMode/Cdk8sOomKillMode/OomKillModeAgentProps.cs');
    expect(props).toContain('public string? Namespace\n');
  });
});
