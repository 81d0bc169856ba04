// Makes the tables and plots of docs/performance.md from bench/results.json and bench/synth.json, which
// `npm run bench` and `npm run bench:synth` write; a test compares them with what is committed.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as vega from 'vega';
import { compile, TopLevelSpec } from 'vega-lite';

import {
  Latencies,
  quantile,
  Results,
  SynthResults,
  Timed,
  Tool,
  ToolResults,
  TOOLS,
  Turns,
} from './schema';

const docs = join(__dirname, '../docs');

const NAMES: Record<Tool, string> = {
  agent: 'agent',
  limit: 'C program',
  'poll-0.1': 'poll every 0.1 s',
  'poll-1': 'poll every 1 s',
  'poll-60': 'poll every 60 s',
};

// Okabe and Ito's colours, which the colour-blind can tell apart.
const COLOURS = ['#d55e00', '#000000', '#0072b2', '#56b4e9', '#009e73'];

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

/** Keeps the results of a run, and makes everything anew that is made of them. */
export async function writeResults(name: string, results: Results | SynthResults): Promise<void> {
  // Arrays of figures in one line each.
  const json = JSON.stringify(results, null, 1).replace(
    /\[\s+([-\d.,\s]+?)\s+\]/g,
    (_, list: string) => `[${list.replace(/\s+/g, '')}]`,
  );
  writeFileSync(join(__dirname, name), `${json}\n`);
  for (const [path, text] of Object.entries(await report())) {
    writeFileSync(path, text);
  }
}

/** Every file that is made of the results, with its path. */
export async function report(): Promise<Record<string, string>> {
  const results = readResults();
  const page = join(docs, 'performance.md');
  return {
    [page]: withTables(readFileSync(page, 'utf8'), results, readSynthResults()),
    [join(docs, 'performance-latency.svg')]: await svg(latencyPlot(results)),
    [join(docs, 'performance-growth.svg')]: await svg(growthPlot(results)),
  };
}

/** What was measured for each tool, and with how many pods. */
type Size<T> = [pods: string, tools: Record<Tool, T>];

/** Puts the tables between their marks. */
function withTables(page: string, results: Results, synthResults: SynthResults): string {
  const sizes = results.sizes.map(({ pods, tools }): Size<ToolResults> => [String(pods), tools]);
  const ofNode: Size<Timed> = [`${sizes.at(-1)?.[0] ?? ''}, CPU of a node`, results.withCpuOfNode];
  const tables: Record<string, string> = {
    environment: environment(results),
    latency: latencies(sizes),
    cost: table(
      [
        'pods × 3',
        'tool',
        'CPU s per 1,000 drifts',
        'per 1,000 starts',
        'per idle minute',
        'wake-ups per idle minute',
        'API requests and bytes a minute',
        'memory.current',
        'peak',
        'PSS of all processes',
      ],
      sizes,
      ({ drift, starts, idle }) => [
        drift.cpuSecondsPerThousand.toFixed(2),
        starts.cpuSecondsPerThousand.toFixed(1),
        idle.cpuSecondsPerMinute.toFixed(2),
        idle.wakeupsPerMinute.toFixed(0),
        `${idle.requestsPerMinute.toFixed(1)}, ${idle.requestBytesPerMinute.toFixed(0)} B`,
        mebibytes(idle.currentBytes),
        mebibytes(idle.peakBytes),
        mebibytes(idle.pssBytes),
      ],
    ),
    node: latencies([ofNode]),
    ratios: ratios([...sizes, ofNode]),
    synth: synth(synthResults),
  };
  return page.replace(
    /(<!-- bench: (\w+) -->\n)[^]*?(<!-- end -->)/g,
    (_, start: string, name: string, end: string) => `${start}\n${tables[name] ?? ''}\n\n${end}`,
  );
}

function environment({ environment: run, sizes }: Results): string {
  const starts = sizes.reduce((sum, { tools }) => sum + tools.agent.starts.count, 0);
  return [
    `Linux ${run.kernel} with two CPUs, emulated in software by ${run.qemu} on ${run.hostCpus} CPUs;`,
    `${run.busybox}; ${starts} container starts, one every ${run.secondsBetweenStarts} s (sandboxes included);`,
    `drift ${run.driftsPerSecond} times a second. Load of the host before: ${load(run.hostLoadBefore)},`,
    `after: ${load(run.hostLoadAfter)}. Before the starts at each size and before what has the CPU of a node`,
    `the guest was ${load(run.slowness)} times as slow as where the steps of a start were measured (at`,
    `least 1): the steps, the pauses between starts and the limit were as many times as long.`,
    `Agent: \`${run.script.slice(0, 12)}\` (the annotation \`script-sha256\` of its pods).`,
  ].join('\n');
}

/** Rows of each tool, for each size. */
function table<T>(head: string[], sizes: Size<T>[], cells: (results: T) => string[]): string {
  const rows = sizes.flatMap(([pods, tools]) =>
    TOOLS.map((tool) => [pods, NAMES[tool], ...cells(tools[tool])]),
  );
  return aligned([head, head.map(() => '---'), ...rows]);
}

function latencies(sizes: Size<Timed>[]): string {
  const head = [
    ...['pods × 3', 'tool', 'drift p50', 'p99', 'max'],
    ...['start p50', 'p99', 'max', 'first instruction right'],
  ];
  return table(head, sizes, ({ drift, starts }) => [
    ...[0.5, 0.99, 1].map((share) => time(drift.latencies, share)),
    ...[0.5, 0.99, 1].map((share) => time(starts.latencies, share)),
    `${starts.rightAtFirstInstruction} of ${starts.count}`,
  ]);
}

function load(values: number[]): string {
  return values.map((value) => value.toFixed(2)).join(', ');
}

/** What the library costs whoever synthesizes with it. */
function synth({ environment: run, synth: sizes, import: loading }: SynthResults): string {
  const row = (what: string, { plainSeconds, oursSeconds }: Turns) => [
    what,
    ...[plainSeconds, oursSeconds].flatMap((seconds) =>
      [0, 0.5, 1].map((share) => `${(at(seconds, share) * 1000).toFixed(0)} ms`),
    ),
    (at(oursSeconds, 0.5) / at(plainSeconds, 0.5)).toFixed(2),
  ];
  const head = ['', 'cdk8s-plus: min', 'median', 'max', 'ours: min', 'median', 'max', 'of medians'];
  return [
    aligned([
      head,
      head.map(() => '---'),
      ...sizes.map((turns) => row(`${turns.workloads} Deployments`, turns)),
      row('loading', loading),
    ]),
    '',
    `Node.js ${run.node} on ${run.hostCpus} CPUs, ${loading.plainSeconds.length} turns. Load before:`,
    `${load(run.hostLoadBefore)}, after: ${load(run.hostLoadAfter)}.`,
  ].join('\n');
}

function at(values: number[], share: number): number {
  const ascending = [...values].sort((a, b) => a - b);
  return ascending[Math.round(share * (ascending.length - 1))] ?? NaN;
}

/** How many times as long as the C program the agent takes. */
function ratios(sizes: Size<Timed>[]): string {
  const head = ['pods × 3', 'drift p50', 'drift p99', 'start p50', 'start p99'];
  return aligned([
    head,
    head.map(() => '---'),
    ...sizes.map(([pods, { agent, limit }]) => [
      pods,
      ...(['drift', 'starts'] as const).flatMap((kind) =>
        [0.5, 0.99].map((share) => {
          const [ours, theirs] = [agent, limit].map((of) => quantile(of[kind].latencies, share));
          return ((ours ?? NaN) / (theirs ?? NaN)).toFixed(1);
        }),
      ),
    ]),
  ]);
}

/** A table as prettier would have it. */
function aligned(rows: string[][]): string {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i]?.length ?? 0)));
  return rows
    .map((row) => {
      const cells = row.map((cell, i) =>
        cell === '---' ? '-'.repeat(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0),
      );
      return `| ${cells.join(' | ')} |`;
    })
    .join('\n');
}

function time(latencies: Latencies, share: number): string {
  const microseconds = quantile(latencies, share);
  if (microseconds === Infinity) {
    return 'not seen'; // When the watch ended.
  }
  const milliseconds = microseconds / 1000;
  return milliseconds < 10 ? `${milliseconds.toFixed(1)} ms` : `${milliseconds.toFixed(0)} ms`;
}

function mebibytes(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

const COLOUR = {
  field: 'tool',
  type: 'nominal',
  title: null,
  scale: { domain: TOOLS.map((tool) => NAMES[tool]), range: COLOURS },
  legend: { orient: 'bottom', columns: 5 },
} as const;

/** The share of events that were over after a time, at the largest size. */
function latencyPlot({ sizes }: Results): TopLevelSpec {
  const largest = sizes.at(-1);
  const kinds = [
    ['drift', `repair of drift, ${largest?.pods ?? 0} pods × 3 containers`],
    ['starts', 'start of a container: from the runtime’s write to ours'],
  ] as const;
  const values = kinds.flatMap(([kind, title]) =>
    TOOLS.flatMap((tool) => {
      const latencies = largest?.tools[tool][kind].latencies ?? { microseconds: [], pending: [] };
      const shares = Array.from({ length: 200 }, (_, i) => (i + 1) / 200);
      return shares
        .map((share) => ({
          tool: NAMES[tool],
          kind: title,
          share,
          ms: quantile(latencies, share) / 1000,
        }))
        .filter(({ ms }) => ms !== Infinity);
    }),
  );
  return {
    data: { values },
    facet: { column: { field: 'kind', title: null, sort: kinds.map(([, title]) => title) } },
    spec: {
      width: 340,
      height: 240,
      mark: { type: 'line', interpolate: 'step-after' },
      encoding: {
        x: {
          field: 'ms',
          type: 'quantitative',
          scale: { type: 'log' },
          title: 'milliseconds (log scale)',
        },
        y: {
          field: 'share',
          type: 'quantitative',
          title: 'share of events',
          axis: { format: '%' },
        },
        color: COLOUR,
      },
    },
  };
}

/** How cost grows with the number of pods. */
function growthPlot({ sizes }: Results): TopLevelSpec {
  const measures: [string, (results: ToolResults) => number][] = [
    ['drift repair p99, ms', ({ drift }) => quantile(drift.latencies, 0.99) / 1000],
    ['start p99, ms', ({ starts }) => quantile(starts.latencies, 0.99) / 1000],
    ['CPU s per 1,000 drifts', ({ drift }) => drift.cpuSecondsPerThousand],
    ['CPU s per 1,000 starts', ({ starts }) => starts.cpuSecondsPerThousand],
    ['CPU s per idle minute', ({ idle }) => idle.cpuSecondsPerMinute],
    ['wake-ups per idle minute', ({ idle }) => idle.wakeupsPerMinute],
    ['memory.current, MiB', ({ idle }) => idle.currentBytes / 1024 / 1024],
    ['PSS, MiB', ({ idle }) => idle.pssBytes / 1024 / 1024],
  ];
  const values = measures.flatMap(([measure, figure]) =>
    sizes.flatMap(({ pods, tools }) =>
      TOOLS.map((tool) => ({ measure, pods, tool: NAMES[tool], figure: figure(tools[tool]) })),
    ),
  );
  return {
    data: { values: values.filter(({ figure }) => figure !== Infinity) },
    facet: {
      field: 'measure',
      type: 'nominal',
      title: null,
      sort: measures.map(([measure]) => measure),
    },
    columns: 4,
    spec: {
      width: 200,
      height: 160,
      mark: { type: 'line', point: true },
      encoding: {
        x: { field: 'pods', type: 'quantitative', title: 'pods × 3 containers' },
        y: { field: 'figure', type: 'quantitative', title: null, scale: { zero: true } },
        color: COLOUR,
      },
    },
    resolve: { scale: { y: 'independent' } },
  };
}

async function svg(spec: TopLevelSpec): Promise<string> {
  const view = new vega.View(vega.parse(compile({ ...spec, background: 'white' }).spec), {
    renderer: 'none',
  });
  return `${await view.toSVG()}\n`;
}
