import { spawnSync } from 'node:child_process';
import { join, resolve } from 'node:path';

import { Documents } from './documents';
import { Random } from './random';
import { LARGE, PREFIX, Reference } from './reference';

const ROOT = resolve(__dirname, '../..');
const AWK = [join(ROOT, '.cache/tools/busybox'), 'awk', '-f', join(ROOT, 'lib/agent/api.awk')];
/** For what never ends. */
const SECONDS = 120;

/** One answer of the API server, and what the parser may make of its body. */
interface Input {
  readonly head: string;
  /** What the loop knows of pods, and the highest version that it was told anything with. */
  readonly known: Map<string, string>;
  readonly seen: string;
  /** The lines of the body; the last one may be cut off. */
  readonly lines: string[];
  /** curl's last line, as "<status> <exit status>", or nothing if curl was killed. */
  readonly tail: string | undefined;
  /** What the last line is to begin with. */
  readonly end: string;
  /** The first line that is not what an API server says; everything is due up to there. */
  readonly broken: number;
}

/** Tries one random input after the other; returns how many events it was, or a failure. */
export function fuzzParser(seed: number, until: number): { cases: number; failure?: string } {
  const random = new Random(seed);
  let cases = 0;
  while (Date.now() < until) {
    const input = makeInput(new Random(random.seed()));
    const problem = judge(input);
    if (problem !== undefined) {
      const smaller = shrink(input);
      const text = JSON.stringify(smaller.lines.join('')).slice(0, 4000);
      return { cases, failure: `api.awk: ${problem}\n${judge(smaller) ?? ''}\ninput: ${text}` };
    }
    cases += input.lines.length;
  }
  return { cases };
}

function makeInput(random: Random): Input {
  const longest = random.chance(0.1) ? 262_144 : random.chance(0.03) ? 1_048_576 : 2_000;
  const documents = new Documents(random, longest);
  const tail = random.chance(0.95) ? `${random.pick([0, 0, 18, 28, 92])}` : undefined;
  const code = random.chance(0.85) ? 200 : random.pick([401, 403, 410, 429, 500]);
  const [head, seconds] = makeHead(random, code);
  const made = {
    head,
    known: new Map<string, string>(),
    seen: random.pick(['0', '999', '1500', '9'.repeat(30)]),
    tail: tail && `${code} ${tail}`,
  };
  if (code !== 200) {
    const lines = [`${documents.encode(documents.status(code))}\n`];
    return { ...made, lines, end: `E\t${code}\t${tail ?? '-'}\t${seconds}\t`, broken: 1 };
  }
  const count = longest > 2_000 ? 20 : 300;
  const lines = random.times(count, () => `${documents.event()}\n`);
  const begin = tail === undefined ? 'E\t000\t-' : `E\t200\t${tail}`;
  const end = `${begin}\t${seconds}\t-\t-`;
  // What a watch before this one told, up to anywhere.
  const former = new Reference(made.known);
  lines.slice(0, random.chance(0.5) ? random.int(count) : 0).forEach((line) => {
    former.event(line);
  });
  switch (random.int(6)) {
    case 0: // A stream that ends anywhere.
      return { ...made, lines: [...lines, cut(random, short(documents))], end, broken: count };
    case 1: // An error in the stream ends it, whatever follows.
      lines.splice(random.int(count), 0, `${documents.error()}\n`);
      return { ...made, lines, end: 'E\t', broken: lines.findIndex((line) => isError(line)) };
    case 2: {
      const at = random.int(count);
      const line = random.pick([
        () => cut(random, short(documents)),
        () => `${short(documents).slice(0, -1)}\n}`,
        () => documents.garbage(),
        () => short(documents).replace(random.pick(['":"', '":{', '{"', ',"']), (s) => `${s}\n`),
      ])();
      lines.splice(at, 0, `${line}\n`);
      return { ...made, lines, end, broken: at };
    }
    default:
      return { ...made, lines, end, broken: count };
  }
}

/** An event that is not too large to be read as a whole: of another one, less can be broken. */
function short(documents: Documents): string {
  for (;;) {
    const event = documents.event();
    if (Buffer.byteLength(event) <= LARGE) {
      return event;
    }
  }
}

/** The head of an answer, and the seconds that it asks for. */
function makeHead(random: Random, code: number): [head: string, seconds: number] {
  const fields = random.times(random.int(6), () =>
    random.pick([
      'Audit-Id: 0f5c1d2e-1111-4222-8333-444444444444',
      'Warning: 299 - "a } b { \\ c"',
      `X-Long: ${random.text('abc ', random.size(8_000))}`,
      'ended: 200 0',
    ]),
  );
  const [patience, seconds] = random.pick([
    ...([['7', 7] as const, ['-1', 0] as const, ['Wed, 21 Oct 2026', 0] as const] as const),
    ...(['', '0', '$(id)', '9'.repeat(30)] as const).map((word) => [word, 0] as const),
  ]);
  if (random.chance(0.3)) {
    fields.push(`${random.pick(['Retry-After', 'retry-after'])}: ${patience}`);
  }
  const interim = random.chance(0.1) ? 'HTTP/1.1 100 Continue\r\n\r\n' : '';
  const head = `${interim}${[`HTTP/1.1 ${code} Said`, ...fields].join('\r\n')}\r\n\r\n`;
  return [head, /^retry-after:/im.test(head) ? seconds : 0];
}

/** Part of a line, but not all of it. */
function cut(random: Random, line: string): string {
  return line.slice(0, 1 + random.int(line.length - 1));
}

const isError = (line: string) => line.startsWith('{"type":"ERROR"');
const UID = '([0-9a-f-]{36}|[0-9a-f]{32})';
const GRAMMAR = new RegExp(
  `^(C|B\t[0-9]+\t(new|old)|[GD]\t${UID}\t[0-9]+|L\t${UID}|O\t${UID}\t[a-z0-9-]{1,63}=[01]|` +
    `P\t${UID}\t[01-]\t[a-z0-9.-]{1,63}\t[a-z0-9.-]{1,253}\t(ok|invalid|malformed|large)\t[0-9]+|` +
    `E\t[0-9]{3}\t(-|[0-9]+)\t[0-9]+\t(-|[A-Za-z]{1,60})\t[ !#-;=?-Z_a-z']{1,300})$`,
);

function judge(input: Input): string | undefined {
  const { head, known, seen, lines, tail, end } = input;
  const [command = '', ...args] = AWK;
  const before = [...known].map(([uid, pod]) => `known ${uid} ${pod} 7\n`).join('');
  const { status, signal, stdout, stderr } = spawnSync(command, args, {
    input: `${before}seen ${seen}\n${head}${lines.join('')}${tail === undefined ? '' : `\nended ${tail}\n`}`,
    env: { LABEL_PREFIX: PREFIX, LC_ALL: 'C' },
    encoding: 'utf8',
    timeout: SECONDS * 1000,
    killSignal: 'SIGKILL',
    maxBuffer: 2 ** 28,
  });
  if (status !== 0 || stderr !== '') {
    return `exit status ${status}, ${signal}: ${stderr}`;
  }
  const said = stdout.split('\n').slice(0, -1);
  const odd = said.find((line) => !GRAMMAR.test(line));
  if (odd !== undefined) {
    return `said what is not in its grammar: ${JSON.stringify(odd)}`;
  }
  if (!said.pop()?.startsWith(end)) {
    return `does not end with ${JSON.stringify(end)}`;
  }
  if (end.startsWith('E\t200') || end.startsWith('E\t000') || end === 'E\t') {
    if (said.shift() !== 'C') {
      return 'does not say that it is connected';
    }
  }
  return compare(input, said);
}

/** Up to what is broken all that is due; from there on nothing that no well-formed line says. */
function compare({ lines, broken, known, seen }: Input, said: string[]): string | undefined {
  const due = new Reference(new Map(known), seen);
  const allowed = new Set<string>();
  for (const [at, line] of lines.join('').split('\n').entries()) {
    if (at < broken) {
      due.event(line);
    }
    const alone = new Reference();
    // Told once, and told again.
    [0, 1].forEach(() => {
      alone.event(line);
    });
    alone.lines.forEach((one) => allowed.add(bare(one)));
  }
  const missing = due.lines.findIndex((line, index) => line !== said[index]);
  if (missing >= 0) {
    return `${JSON.stringify(due.lines[missing])} expected, not ${JSON.stringify(said[missing])}`;
  }
  const more = said.slice(due.lines.length);
  const wrong = more.find((line) => broken >= lines.length || !allowed.has(bare(line)));
  return wrong === undefined ? undefined : `said for no reason: ${JSON.stringify(wrong)}`;
}

/** A line without the version, which depends on the lines before it. */
function bare(line: string): string {
  return /^[PGD]/.test(line) ? line.replace(/\t[0-9]+$/, '') : line.replace(/^B.*/, 'B');
}

/** Leaves out whatever lines can be left out while the input still fails, for a while. */
function shrink(input: Input): Input {
  const until = Date.now() + 20_000;
  let smaller = input;
  for (let size = Math.ceil(input.lines.length / 2); size >= 1; size = Math.floor(size / 2)) {
    for (let at = 0; at < smaller.lines.length && Date.now() < until;) {
      const lines = [...smaller.lines.slice(0, at), ...smaller.lines.slice(at + size)];
      const before = Math.max(0, Math.min(at + size, smaller.broken) - at);
      const fewer = { ...smaller, lines, broken: smaller.broken - before };
      if (judge(fewer) !== undefined) {
        smaller = fewer;
      } else {
        at += size;
      }
    }
  }
  return smaller;
}
