// Makes the tables of docs/performance.md from bench/results.json and bench/synth.json, which
// `npm run bench` and `npm run bench:synth` write; a test compares them with what is committed.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import {
  ENDED_PODS,
  median,
  Minute,
  quantile,
  Results,
  Shape,
  SynthResults,
  Tool,
  ToolResults,
  TOOLS,
} from './schema';

const PAGE = join(__dirname, '../docs/performance.md');

const ENDED = ENDED_PODS.toLocaleString('en');

const NAMES: Record<Tool, string> = {
  agent: 'agent',
  poll: 'loop of 1 s',
  limit: 'C program',
};

/** What was asked of the agent before it was measured, and what the last run says. */
export interface Bar {
  readonly what: string;
  readonly most: number;
  readonly figure: number;
  readonly text: string;
}

/** The results of the last run of each benchmark. */
export function readResults(): Results {
  return read('results.json') as Results;
}

export function readSynthResults(): SynthResults {
  return read('synth.json') as SynthResults;
}

function read(name: string): unknown {
  return JSON.parse(readFileSync(join(__dirname, name), 'utf8'));
}

/** Keeps the results of a run, and makes the page anew. */
export function writeResults(name: string, results: Results | SynthResults): void {
  writeFileSync(join(__dirname, name), json(results));
  writeFileSync(PAGE, page());
}

/** With arrays of figures in one line each. */
export function json(results: unknown): string {
  const text = JSON.stringify(results, null, 1).replace(
    /\[\s+([-\d.,\s]+?)\s+\]/g,
    (_, list: string) => `[${list.replace(/\s+/g, '')}]`,
  );
  return `${text}\n`;
}

/** docs/performance.md with the tables that belong between its marks. */
export function page(): string {
  const results = readResults();
  const tables: Record<string, string> = {
    environment: environment(results),
    results: resultsTable(results),
    bars: aligned([
      ['what', 'bar', 'this run', 'met'],
      ['---', '---', '---', '---'],
      ...bars(results, readSynthResults()).map(({ what, most, figure, text }) => [
        what,
        `at most ${most}`,
        text,
        figure <= most ? 'yes' : '**no**',
      ]),
    ]),
  };
  return readFileSync(PAGE, 'utf8').replace(
    /(<!-- bench: (\w+) -->\n)[^]*?(<!-- end -->)/g,
    (_, start: string, name: string, end: string) => `${start}\n${tables[name] ?? ''}\n\n${end}`,
  );
}

function environment({ environment: run }: Results): string {
  return [
    `Linux ${run.kernel} with two CPUs, emulated by`,
    `${run.qemu} on ${run.hostCpus} CPUs; ${run.busybox}. Load of the`,
    `host before: ${list(run.hostLoadBefore)}, after: ${list(run.hostLoadAfter)}. Starting a program took`,
    `${run.millisecondsOfACommand.toFixed(1)} ms. A start every ${run.secondsBetweenStarts} s, drift ${run.driftsPerSecond} times a second. Script:`,
    `\`${run.script}\`.`,
  ].join('\n');
}

function list(values: number[]): string {
  return values.map((value) => value.toFixed(2)).join(', ');
}

function resultsTable({ sizes, ended, killed }: Results): string {
  const head = [
    ...['pods × 3', 'tool', 'CPU s a minute', 'processes', 'memory.current'],
    ...['drift p50', 'p99', 'first instruction right', 'CPU ms a start'],
  ];
  const rows = sizes.flatMap(({ pods, tools }) =>
    TOOLS.map((tool) => [String(pods), NAMES[tool], ...cells(tools[tool])]),
  );
  const minute = (what: string, idle?: Minute) =>
    idle ? [[what, NAMES.agent, ...cells({ idle })]] : [];
  rows.push(...minute(`0, ${ENDED} ended`, ended), ...minute('1, killed', killed));
  return aligned([head, head.map(() => '---'), ...rows]);
}

function cells({ idle, drift, starts }: ToolResults): string[] {
  return [
    idle.cpuSeconds.toFixed(2),
    String(idle.processes),
    mebibytes(idle.currentBytes),
    ...[0.5, 0.99].map((share) => (drift ? milliseconds(quantile(drift, share)) : '')),
    starts ? `${starts.rightAtFirstInstruction} of ${starts.count}` : '',
    starts ? ((starts.cpuSeconds * 1000) / starts.count).toFixed(0) : '',
  ];
}

/** The bars that a run can tell of. */
export function bars(results: Results, synth: SynthResults): Bar[] {
  const { sizes, ended, killed } = results;
  const agents = sizes.map(({ pods, tools }) => ({ pods, ...tools.agent }));
  const [none, largest] = [agents[0], agents.at(-1)];
  const starts = agents.flatMap((agent) => agent.starts ?? []);
  const count = sum(starts.map((some) => some.count));
  const wrong = count - sum(starts.map((some) => some.rightAtFirstInstruction));
  const ratios = sizes.flatMap(({ tools: { agent, limit } }) =>
    agent.drift && limit.drift ? [quantile(agent.drift, 0.99) / quantile(limit.drift, 0.99)] : [],
  );
  const most = (values: number[]) => Math.max(...values);
  const bar = (what: string, limit: number, figure: number, text: string): Bar => ({
    ...{ what, most: limit, figure },
    text: Number.isNaN(figure) ? 'not measured' : text,
  });
  const seconds = (what: string, limit: number, figure = NaN) =>
    bar(`CPU seconds a minute, ${what}`, limit, figure, figure.toFixed(2));
  const memory = (what: string, limit: number, bytes = NaN) =>
    bar(`MiB, ${what}`, limit, bytes / 2 ** 20, (bytes / 2 ** 20).toFixed(1));
  // May be less than nothing: it is the difference of two minutes.
  const more = ended.cpuSeconds - (none?.idle.cpuSeconds ?? NaN);
  const processes = most(agents.map(({ idle }) => idle.processes));
  const requests = most(agents.map(({ idle }) => idle.requests));
  return [
    seconds('nothing opted in', 1, none?.idle.cpuSeconds),
    seconds(`what ${ENDED} ended pods add`, 0.1, more),
    seconds(`${largest?.pods ?? 0} pods × 3`, 3, largest?.idle.cpuSeconds),
    seconds('one pod killed all the time', 3, killed.cpuSeconds),
    bar('wrong first instructions', 0, wrong, `${wrong} of ${count}`),
    bar('drift p99, times that of C', 3, most(ratios), ratios.map((r) => r.toFixed(1)).join(', ')),
    bar('processes at rest', 6, processes, String(processes)),
    memory('`memory.current`', 8, largest?.idle.currentBytes),
    memory('`memory.peak`, a pod of 1.4 MB', 32, results.largePodBytes),
    bar('API requests a minute at rest', 1, requests, String(requests)),
    ...SYNTHESES.map(([what, limit, shape]) => {
      const ratio = synthRatio(synth, shape);
      return bar(`synthesis of ${what}, times plain`, limit, ratio, ratio.toFixed(2));
    }),
  ];
}

/** What is synthesized, and its bar. */
const SYNTHESES: [string, number, Shape][] = [
  ['1,000 in one chart', 1.1, 'one chart'],
  ['2,000 in 200 charts', 1.3, 'many charts'],
  ['1,000 raw, a chart each', 1.3, 'raw objects'],
  ['50 beside 20 big CRDs', 1.3, 'beside definitions'],
];

/** How many times as long a synthesis with everything opted in takes, of medians; of several sizes the largest. */
function synthRatio({ synth }: SynthResults, shape: Shape): number {
  const last = synth.filter((one) => one.shape === shape).at(-1);
  return median(last?.oursSeconds ?? []) / median(last?.plainSeconds ?? []);
}

function sum(values: number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** A table as prettier would have it. */
function aligned(rows: string[][]): string {
  const widths = (rows[0] ?? []).map((_, i) =>
    Math.max(3, ...rows.map((row) => row[i]?.length ?? 0)),
  );
  return rows
    .map((row) => {
      const padded = row.map((cell, i) =>
        cell === '---' ? '-'.repeat(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0),
      );
      return `| ${padded.join(' | ')} |`;
    })
    .join('\n');
}

function milliseconds(microseconds: number): string {
  if (microseconds === Infinity) {
    return 'not seen'; // When the watch ended.
  }
  const ms = microseconds / 1000;
  return `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
