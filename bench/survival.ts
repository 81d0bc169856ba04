// Draws docs/survival.svg from docs/survival.json, which `npm run bench:survival` records; a test compares
// the picture with what is committed.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const DATA = join(__dirname, '../docs/survival.json');
const PICTURE = join(__dirname, '../docs/survival.svg');

/** What the picture shows, from the moment that both programs have all their processes. */
export const SECONDS = 120;

/** What was seen of one program, in seconds, four times a second. */
export interface Life {
  /** When the number of its processes changed, and to what. */
  readonly processes: readonly (readonly [seconds: number, processes: number])[];
  /** When the kernel killed for memory: processes of the labelled program, or all of the twin. */
  readonly kills: readonly number[];
  readonly restarts: readonly number[];
}

/** What docs/survival.json holds. */
export interface Survival {
  readonly kernel: string;
  readonly workers: number;
  readonly secondsBetweenRequests: number;
  readonly memoryLimitMebibytes: number;
  readonly labelled: Life;
  readonly twin: Life;
}

/** One look at both pods; the processes are those of their containers, without their sandboxes'. */
export interface Sample {
  readonly at: number;
  readonly labelled: number;
  readonly kills: number;
  readonly twin: number;
}

const LEFT = 44;
const WIDTH = 460;
const HEIGHT = 88;
const LANES = [48, 216] as const;

export function readSurvival(): Survival {
  return JSON.parse(readFileSync(DATA, 'utf8')) as Survival;
}

export function writeDrawing(): void {
  writeFileSync(PICTURE, draw(readSurvival()));
}

/** What changed, and when, from the first moment that both programs have all their processes. */
export function lives(
  samples: readonly Sample[],
  all: number,
): Pick<Survival, 'labelled' | 'twin'> {
  const start = samples.findIndex(({ labelled, twin }) => Math.min(labelled, twin) >= all);
  const began = samples[start]?.at ?? NaN;
  const seen = samples
    .slice(start)
    .map((sample) => ({ ...sample, at: Math.round((sample.at - began) * 100) / 100 }))
    .filter(({ at }) => at <= SECONDS);
  const processes = (count: (sample: Sample) => number) =>
    seen
      .map((sample): [number, number] => [sample.at, count(sample)])
      .filter(([, n], i, all) => n !== all[i - 1]?.[1]);
  const pairs = seen.slice(1).map((now, i) => ({ now, before: seen[i] ?? now }));
  const when = (is: (now: Sample, before: Sample) => boolean) =>
    pairs.filter(({ now, before }) => is(now, before)).map(({ now }) => now.at);
  return {
    labelled: {
      processes: processes(({ labelled }) => labelled),
      kills: pairs.flatMap(({ now, before }) =>
        Array<number>(now.kills - before.kills).fill(now.at),
      ),
      restarts: when((now, before) => before.labelled === 0 && now.labelled > 0),
    },
    twin: {
      processes: processes(({ twin }) => twin),
      kills: when((now, before) => now.twin === 0 && before.twin > 0),
      restarts: when((now, before) => before.twin === 0 && now.twin > 0),
    },
  };
}

/** The seconds in which a program was seen with all of its processes. */
export function secondsUp({ processes }: Life, all: number): number {
  return processes.reduce((sum, [at, count], i) => {
    const end = processes[i + 1]?.[0] ?? SECONDS;
    return count >= all ? sum + end - at : sum;
  }, 0);
}

export function draw(survival: Survival): string {
  const { labelled, twin, workers } = survival;
  const all = workers + 1;
  const up = (life: Life) => `up for ${secondsUp(life, all).toFixed(0)} of ${SECONDS} s`;
  const ticks = Array.from({ length: SECONDS / 20 + 1 }, (_, i) => i * 20);
  const bottom = LANES[1] + HEIGHT;
  const lines = [
    '<svg xmlns="http://www.w3.org/2000/svg" width="520" height="390" viewBox="0 0 520 390">',
    '  <style>',
    '    text { fill: #1f2328; font: 16px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }',
    '    .name { font-weight: bold; }',
    '    .small { fill: #59636e; font-size: 15px; }',
    '    .middle { text-anchor: middle; }',
    '    .end { text-anchor: end; }',
    '    .with { fill: #ddf4ff; stroke: #0969da; stroke-width: 2; }',
    '    .without { fill: #fff1e5; stroke: #bc4c00; stroke-width: 2; }',
    '    .axis { stroke: #59636e; }',
    '    .kill { stroke: #cf222e; stroke-width: 2.5; }',
    '    .restart { fill: #59636e; }',
    '    @media (prefers-color-scheme: dark) {',
    '      text, .small, .restart { fill: #9198a1; }',
    '      .with { fill: #121d2f; stroke: #4493f8; }',
    '      .without { fill: #221a19; stroke: #db6d28; }',
    '      .axis { stroke: #9198a1; }',
    '      .kill { stroke: #ff7b72; }',
    '    }',
    '  </style>',
    ...lane(LANES[0], 'with', labelled, all, [
      'cdk8s-oom-kill-mode/mode: Single',
      `${number(labelled.kills, 'kill')} of one process each, ${number(labelled.restarts, 'restart')}, ${up(labelled)}`,
    ]),
    ...lane(LANES[1], 'without', twin, all, [
      'the same program without the label',
      `${number(twin.kills, 'kill')} of all processes, ${number(twin.restarts, 'restart')}, ${up(twin)}`,
    ]),
    ...ticks.map(
      (at) => `  <text x="${x(at)}" y="${bottom + 24}" class="small middle">${at}</text>`,
    ),
    `  <text x="${x(SECONDS / 2)}" y="${bottom + 44}" class="small middle">Time in seconds</text>`,
    kill(LEFT + 6, bottom + 71),
    `  <text x="${LEFT + 18}" y="${bottom + 76}" class="small">the kernel kills</text>`,
    restart(LEFT + 160, bottom + 67),
    `  <text x="${LEFT + 171}" y="${bottom + 76}" class="small">the container restarts</text>`,
    '</svg>',
  ];
  return `${lines.join('\n')}\n`;
}

/** The processes of one program over time, with its name and what became of it above. */
function lane(
  top: number,
  className: string,
  { processes, kills, restarts }: Life,
  all: number,
  [name, outcome]: readonly [string, string],
): string[] {
  const base = top + HEIGHT;
  const middle = top + HEIGHT / 2 + 10;
  const y = (count: number) => base - (count * (HEIGHT - 20)) / all;
  const steps = processes.map(([at, count]) => `H${x(at)}V${y(count)}`).join('');
  return [
    `  <text x="${LEFT}" y="${top - 30}" class="name">${name}</text>`,
    `  <text x="${LEFT}" y="${top - 8}">${outcome}</text>`,
    `  <path class="${className}" d="M${x(0)} ${base}${steps}H${x(SECONDS)}V${base}" />`,
    `  <path class="axis" d="M${x(0)} ${base}H${x(SECONDS)}" />`,
    `  <text x="${LEFT - 8}" y="${y(all) + 5}" class="small end">${all}</text>`,
    `  <text x="${LEFT - 8}" y="${base + 5}" class="small end">0</text>`,
    `  <text transform="translate(14 ${middle}) rotate(-90)" class="small middle">Processes</text>`,
    ...kills.map((at) => kill(x(at), y(all))),
    ...restarts.map((at) => restart(x(at), base + 2)),
  ];
}

function kill(middle: number, y: number): string {
  return `  <path class="kill" d="M${tenth(middle - 5)} ${y - 5}l10 10m0 -10l-10 10" />`;
}

function restart(middle: number, top: number): string {
  return `  <path class="restart" d="M${middle} ${top}l5 9h-10z" />`;
}

function x(seconds: number): number {
  return tenth(LEFT + (seconds * WIDTH) / SECONDS);
}

function tenth(pixels: number): number {
  return Math.round(pixels * 10) / 10;
}

function number({ length }: readonly unknown[], what: string): string {
  return `${length} ${what}${length === 1 ? '' : 's'}`;
}
