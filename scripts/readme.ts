import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { setTimeout } from 'node:timers/promises';

import { install } from '../test/support/binaries';
import { ClusterServer } from '../test/support/cluster-server';
import { blocks } from './links';

// Does what the README tells its reader to do, from top to bottom, with nothing else: its shell
// commands, against a stand-in for the API server where they speak to one, and its program. With README_CLUSTER=real,
// only the commands that speak to a cluster, on the one of the kubeconfig.

const ROOT = resolve(__dirname, '..');

/** What a reader is told to expect, of the blocks that have these words. */
const EXPECTED: readonly [words: string, output: RegExp][] = [
  ['rollout status daemonset/', /^daemon set "oom-kill-mode-agent" successfully rolled out$/m],
  ['kubectl exec try', /^0$/m],
  ['kubectl get pods -A', /^default +try /m],
  ['rollout status deployment/', /^deployment "herder" successfully rolled out$/m],
  ['kubectl describe pods', /process of container herder for memory.*The container kept running/],
  ['kubectl delete -f dist/', /^namespace "oom-kill-mode" deleted/m],
];

/** A herder does not run out of memory at once. */
const PATIENCE = 120_000;

/** Pastes a block into a shell, whole. Not synchronous: the server has to answer meanwhile. */
async function run(block: string, environment: NodeJS.ProcessEnv): Promise<string> {
  console.log(block.replace(/^/gm, '$ '));
  const child = spawn('sh', ['-ec', block], {
    cwd: ROOT,
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (data: Buffer) => {
    output += data.toString();
    process.stdout.write(data);
  });
  const status = await new Promise((done) => child.on('close', done));
  if (status !== 0) {
    throw new Error(`exit status ${String(status)}: ${block}`);
  }
  return output;
}

/** Runs a block until it prints what it is to print. */
async function runUntilExpected(block: string, environment: NodeJS.ProcessEnv): Promise<void> {
  const expected = EXPECTED.filter(([words]) => block.includes(words));
  const began = Date.now();
  for (;;) {
    const output = await run(block, environment);
    const missing = expected.find(([, pattern]) => !pattern.test(output));
    if (missing === undefined) {
      return;
    }
    if (Date.now() - began > PATIENCE) {
      throw new Error(`not printed: ${String(missing[1])}`);
    }
    await setTimeout(1000);
  }
}

/** Type-checks and runs a program as one would in a project that has the library installed. */
function tryProgram(text: string, directory: string): void {
  const config = {
    extends: join(ROOT, 'tsconfig.json'),
    compilerOptions: {
      baseUrl: ROOT,
      noEmit: false,
      outDir: join(directory, 'out'),
      paths: { 'cdk8s-oom-kill-mode': ['lib/index.ts'] },
      typeRoots: [join(ROOT, 'node_modules/@types')],
    },
    include: [],
    files: [join(directory, 'main.ts')],
  };
  writeFileSync(join(directory, 'main.ts'), text);
  writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify(config));
  execFileSync(join(ROOT, 'node_modules/.bin/tsc'), ['--noEmit', '-p', directory], {
    stdio: 'inherit',
  });
  const program = text.replace("'cdk8s-oom-kill-mode'", JSON.stringify(join(ROOT, 'lib')));
  writeFileSync(join(directory, 'main.ts'), program);
  execFileSync(process.execPath, ['-r', 'ts-node/register/transpile-only', 'main.ts'], {
    cwd: directory,
    stdio: 'inherit',
    env: {
      ...process.env,
      NODE_PATH: join(ROOT, 'node_modules'),
      CDK8S_OUTDIR: join(directory, 'dist'),
    },
  });
  const yaml = readFileSync(join(directory, 'dist/platform.k8s.yaml'), 'utf8');
  for (const expected of ['cdk8s-oom-kill-mode/mode: Single', 'kind: DaemonSet']) {
    if (!yaml.includes(expected)) {
      throw new Error(`the README's program did not write: ${expected}\n${yaml}`);
    }
  }
}

async function main(): Promise<void> {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
  const commands = blocks(readme, 'sh');
  const programs = blocks(readme, 'ts');
  const unused = EXPECTED.filter(([words]) => !commands.some((block) => block.includes(words)));
  if (unused.length > 0 || programs.length !== 1) {
    throw new Error(`the README has ${programs.length} programs, and no ${String(unused[0]?.[0])}`);
  }
  if (process.env.README_CLUSTER === 'real') {
    for (const block of commands.filter((text) => text.startsWith('kubectl'))) {
      await runUntilExpected(block, process.env);
    }
    return;
  }
  const directory = mkdtempSync(join(ROOT, '.cache/readme-'));
  const config = join(directory, 'kubeconfig');
  const server = await ClusterServer.start();
  try {
    writeFileSync(config, server.kubeconfig);
    const path = `${install('kubectl')}${delimiter}${process.env.PATH ?? ''}`;
    const environment = { ...process.env, KUBECONFIG: config, PATH: path };
    for (const block of commands) {
      await runUntilExpected(block, environment);
    }
    if (server.present.length > 0) {
      throw new Error(`there is still: ${server.present.join(', ')}`);
    }
    tryProgram(programs[0] ?? '', directory);
  } finally {
    server.stop();
    rmSync(directory, { recursive: true });
  }
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
