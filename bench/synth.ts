// npm run bench:synth: what the library costs whoever synthesizes with it. Plain cdk8s-plus and the same
// with every workload opted in, in four shapes, and loading cdk8s-plus with and without the library, take turns
// in one run, each time in a new process, so that noise meets both. Everything is compiled first, as it is when
// it comes from npm. Writes bench/synth.json and the table of docs/performance.md.

import { execFileSync } from 'node:child_process';
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';

import { writeResults } from './report';
import { Shape, SynthResults } from './schema';

const SIZES: [Shape, number][] = [
  ['one chart', 10],
  ['one chart', 100],
  ['one chart', 1000],
  ['many charts', 2000],
  ['raw objects', 1000],
  ['beside definitions', 50],
];
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 31);

const repo = join(__dirname, '..');
const compiled = join(repo, '.cache/synth');

function compile(): void {
  rmSync(compiled, { recursive: true, force: true });
  const tsc = join(repo, 'node_modules/.bin/tsc');
  const options = ['--noEmit', 'false', '--outDir', compiled, '--rootDir', repo];
  const project = join(compiled, 'tsconfig.json');
  cpSync(join(repo, 'lib/agent'), join(compiled, 'lib/agent'), { recursive: true });
  writeFileSync(
    project,
    JSON.stringify({
      extends: join(repo, 'tsconfig.json'),
      compilerOptions: { typeRoots: [join(repo, 'node_modules/@types')] },
      include: [],
      exclude: [],
      files: [join(repo, 'bench/synth-once.ts')],
    }),
  );
  execFileSync(tsc, ['--project', project, ...options], { stdio: 'inherit' });
}

/** The seconds that a script prints. */
function node(...argv: string[]): number {
  return Number(execFileSync(process.execPath, argv, { cwd: compiled, encoding: 'utf8' }));
}

/** Loads modules and prints how many seconds that took. */
function load(...modules: string[]): number {
  const script = `
    const began = process.hrtime.bigint();
    ${modules.map((name) => `require(${JSON.stringify(name)});`).join(' ')}
    console.info(Number(process.hrtime.bigint() - began) / 1e9);`;
  return node('-e', script);
}

function rounds(plain: () => number, ours: () => number) {
  const results = { plainSeconds: [] as number[], oursSeconds: [] as number[] };
  for (let i = 0; i < ROUNDS; i++) {
    results.plainSeconds.push(plain());
    results.oursSeconds.push(ours());
  }
  return results;
}

function main(): void {
  const hostLoadBefore = loadavg();
  compile();
  const once = join(compiled, 'bench/synth-once.js');
  const synth = SIZES.map(([shape, workloads]) => ({
    shape,
    workloads,
    ...rounds(
      () => node(once, 'plain', shape, String(workloads)),
      () => node(once, 'opted-in', shape, String(workloads)),
    ),
  }));
  const results: SynthResults = {
    environment: {
      node: process.version,
      hostCpus: cpus().length,
      hostLoadBefore,
      hostLoadAfter: loadavg(),
    },
    synth,
    import: rounds(
      () => load('cdk8s', 'cdk8s-plus-28'),
      () => load('cdk8s', 'cdk8s-plus-28', join(compiled, 'lib')),
    ),
  };
  writeResults('synth.json', results);
}

main();
