import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';

import { install } from './binaries';
import { KubectlServer } from './kubectl-server';

// Does what the README tells its reader to do, from top to bottom, with nothing else: its shell
// commands, against a stand-in for the API server where they speak to one, and its program.

const ROOT = resolve(__dirname, '../..');

/** The blocks of one language, in order. */
function blocks(language: string): string[] {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
  const found = [...readme.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'gms'))];
  return found.map(([, text]) => text ?? '');
}

/** Runs a command as a reader would paste it. Not synchronous: the server has to answer meanwhile. */
async function run(command: string, environment: NodeJS.ProcessEnv): Promise<void> {
  console.log(`$ ${command}`);
  const child = spawn('sh', ['-ec', command], { cwd: ROOT, env: environment, stdio: 'inherit' });
  const status = await new Promise((done) => child.on('exit', done));
  if (status !== 0) {
    throw new Error(`exit status ${String(status)}: ${command}`);
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
  const commands = blocks('sh').flatMap((block) => block.trim().split('\n'));
  const programs = blocks('ts');
  if (commands.length < 4 || programs.length !== 1) {
    throw new Error(`the README has ${commands.length} commands and ${programs.length} programs`);
  }
  const directory = mkdtempSync(join(ROOT, '.cache/readme-'));
  const config = join(mkdtempSync(join(tmpdir(), 'kubeconfig-')), 'config');
  const server = await KubectlServer.start();
  try {
    writeFileSync(config, server.kubeconfig);
    const path = `${install('kubectl')}${delimiter}${process.env.PATH ?? ''}`;
    const environment = { ...process.env, KUBECONFIG: config, PATH: path };
    for (const command of commands) {
      await run(command, environment);
    }
    if (!server.created.includes('Deployment default/herder')) {
      throw new Error(`kubectl created only: ${server.created.join(', ')}`);
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
