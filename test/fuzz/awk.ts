import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import { Documents } from './documents';
import { Random } from './random';
import { Decision, PREFIX, Reference } from './reference';

const ROOT = resolve(__dirname, '../..');
const PROGRAM = join(ROOT, 'lib/agent/pods.awk');
const BUSYBOX = join(ROOT, '.cache/tools/busybox');
/** The widest awk that may be there, besides the one of the image. */
const GAWK = '/usr/bin/gawk';
/** More than this for one batch means that some text costs more than its length. */
const SECONDS = 20;

/** Where the lines of an awk go: a file, since not every awk may open a socket by its name. */
const SCRATCH = mkdtempSync(join(tmpdir(), 'fuzz-'));
process.on('exit', () => {
  rmSync(SCRATCH, { recursive: true });
});

/** Whether the program tells when a watch is open. */
const CONNECTS = readFileSync(PROGRAM, 'utf8').includes('"connected"');

type Phase = 'list' | 'watch';

/** One input for one process, and what has to come of it. */
interface Input {
  readonly phase: Phase;
  /** The head of the HTTP answer; empty if there was none. */
  readonly head: string;
  /** The body of the answer, cut into what can be left out to find a smaller one that still fails. */
  readonly parts: string[];
  /** curl's last line, as "<status> <exit code>", or nothing if curl was killed. */
  readonly answer: string | undefined;
  readonly judge: (this: Circumstances, parts: string[], said: Decision) => string | undefined;
}

/** Tries one random input after the other; returns how many events and lists it was, or a failure. */
export async function fuzzAwk(
  seed: number,
  until: number,
): Promise<{ cases: number; failure?: string }> {
  const random = new Random(seed);
  let cases = 0;
  for (let round = 0; Date.now() < until; round += 1) {
    const roundSeed = random.seed();
    const input = makeInput(new Random(roundSeed));
    const awk = round % 8 === 7 && existsSync(GAWK) ? [GAWK, '--posix'] : [BUSYBOX, 'awk'];
    const problem = judge(awk, input, input.parts);
    if (problem !== undefined) {
      const parts = shrink(awk, input);
      const text = parts.join('');
      return {
        cases,
        failure: [
          `pods.awk, PHASE=${input.phase}, ${awk.join(' ')}, round seed ${roundSeed}`,
          problem,
          `smaller: ${judge(awk, input, parts)}`,
          `input, ${text.length} characters: ${JSON.stringify(text.slice(0, 4000))}`,
        ].join('\n'),
      };
    }
    if (round % 10 === 9) {
      const late = await chunks(new Random(random.seed()));
      if (late !== undefined) {
        return { cases, failure: late };
      }
    }
    cases += input.phase === 'list' ? 1 : input.parts.length;
  }
  return { cases };
}

function makeInput(random: Random): Input {
  const longest = random.chance(0.1) ? 262_144 : random.chance(0.03) ? 1_048_576 : 2_000;
  const documents = new Documents(random, longest);
  const answer = random.chance(0.95)
    ? `${random.pick([200, 200, 200, 410, 0, 503])} ${random.pick([0, 0, 18, 28, 92])}`
    : undefined;
  const phase = random.chance(0.4) ? 'list' : 'watch';
  if (random.chance(0.02)) {
    return { phase, head: '', parts: [], answer: `000 ${random.pick([6, 7, 60])}`, judge: exactly };
  }
  const head = makeHead(random);
  const body =
    phase === 'list'
      ? makeList(random, documents)
      : makeWatch(random, documents, longest > 2_000 ? 20 : 400);
  // What to make of a complete list that curl was not content with is nobody's promise.
  const list = phase === 'list' && body.judge === exactly;
  return { head, answer: list ? '200 0' : answer, ...body };
}

function makeHead(random: Random): string {
  const status = random.pick(['200 OK', '200 OK', '200 ', '410 Gone', '403 Forbidden']);
  const fields = random.times(random.int(6), () =>
    random.pick([
      'Audit-Id: 0f5c1d2e-1111-4222-8333-444444444444',
      'Content-Type: application/json',
      'Warning: 299 - "a } b { \\ c"',
      `X-Long: ${random.text('abc ', random.size(8_000))}`,
      'answer: 200 0',
    ]),
  );
  return `${[`HTTP/1.1 ${status}`, ...fields].join('\r\n')}\r\n\r\n`;
}

interface Circumstances {
  readonly answer: string;
  readonly phase: Phase;
}

type Body = Omit<Input, 'answer' | 'head'>;

function makeWatch(random: Random, documents: Documents, count: number): Body {
  const events = random.times(count, () => `${documents.event()}\n`);
  const breakage = random.int(6);
  if (breakage === 0) {
    events.push(cut(random, documents.event()));
    return { phase: 'watch', parts: events, judge: exactly };
  }
  if (breakage === 1) {
    events.push(`${documents.error()}\n`);
    return { phase: 'watch', parts: events, judge: exactly };
  }
  if (breakage === 2) {
    const at = random.int(events.length);
    const broken = random.pick([
      () => `${cut(random, documents.event())}\n`,
      () => `${documents.event().slice(0, -1)}\n}\n`,
      () => `${documents.garbage()}\n`,
      () => `${cut(random, documents.event())}\n${documents.garbage()}\n`,
      () =>
        `${documents.event().replace(random.pick(['":"', '":{', '{"', ',"']), (s) => `${s}\n`)}\n`,
    ])();
    return { phase: 'watch', parts: spliced(events, at, 0, broken), judge: atMost };
  }
  return { phase: 'watch', parts: events, judge: exactly };
}

function makeList(random: Random, documents: Documents): Body {
  const phase = 'list';
  switch (random.int(8)) {
    case 0:
      return { phase, parts: [`${documents.encode(documents.status(403))}\n`], judge: exactly };
    case 1:
      return { phase, parts: documents.list(random.pick(['PodList', 'List'])), judge: exactly };
    case 2:
      return { phase, parts: [documents.garbage()], judge: noSync };
    case 3: {
      const whole = documents.list();
      const text = whole.join('');
      const at = random.int(text.trimEnd().length);
      // Every item that is whole counts already, and nothing else does.
      return { phase, parts: [text.slice(0, at)], judge: prefixOf(whole) };
    }
    case 4: {
      const whole = documents.list();
      const text = whole.join('');
      const at = text.indexOf('"', random.int(text.length));
      const broken = `${text.slice(0, at + 1)}\n${text.slice(at + 1)}`;
      return { phase, parts: [broken], judge: parse(broken) ? exactly : noSync };
    }
    default:
      return { phase, parts: documents.list(), judge: exactly };
  }
}

/** Part of a line, but not all of it. */
function cut(random: Random, line: string): string {
  return line.slice(0, 1 + random.int(line.length - 1));
}

function judge(awk: string[], input: Input, parts: string[]): string | undefined {
  const [command = '', ...args] = awk;
  const events = join(SCRATCH, 'events');
  writeFileSync(events, '');
  const tail = input.answer === undefined ? '' : `\nanswer ${input.answer}\n`;
  const result = spawnSync(command, [...args, '-f', PROGRAM], {
    input: input.head + parts.join('') + tail,
    env: { EVENTS: events, PHASE: input.phase, LABEL_PREFIX: PREFIX, LC_ALL: 'C' },
    encoding: 'utf8',
    timeout: SECONDS * 1000,
    killSignal: 'SIGKILL',
    maxBuffer: 2 ** 28,
  });
  if (result.signal !== null) {
    return `not done within ${SECONDS} s`;
  }
  if (result.status !== 0 || result.stderr !== '') {
    return `exit code ${result.status}: ${result.stderr}`;
  }
  const said = { lines: lines(readFileSync(events, 'utf8')), outcome: result.stdout.trimEnd() };
  if (CONNECTS && input.phase === 'watch' && input.head.startsWith('HTTP/1.1 200')) {
    if (said.lines.shift() !== 'connected') {
      return 'does not say that it is connected';
    }
  }
  const odd = said.lines.find((line) => !GRAMMAR.test(line));
  if (odd !== undefined) {
    return `said what is not in its grammar: ${JSON.stringify(odd)}`;
  }
  return input.judge.call({ answer: input.answer ?? '0 0', phase: input.phase }, parts, said);
}

const UID = '([0-9a-f-]{36}|[0-9a-f]{32})';
const GRAMMAR = new RegExp(
  `^(list|synced|alive|gone\t${UID}|container\t${UID}\t[a-z0-9-]{1,63}=[01]|` +
    `pod\t${UID}\t[01-] [a-z0-9.-]{1,63} [a-z0-9.-]{1,253} (ok|malformed))$`,
);

function lines(text: string): string[] {
  return text.split('\n').filter((line) => line !== '');
}

/** Everything is well-formed, but for a last line that is not complete. */
function exactly(this: Circumstances, parts: string[], said: Decision): string | undefined {
  const reference = new Reference();
  const text = parts.join('');
  if (this.phase === 'list') {
    reference.list(JSON.parse(text || '{}') as Record<string, unknown>);
  } else {
    for (const line of text.split('\n').slice(0, -1)) {
      reference.event(JSON.parse(line) as Record<string, unknown>);
    }
  }
  return different(reference.decision(this.answer), said);
}

/** Up to the broken line all that is due, from there on only what well-formed lines say. */
function atMost(this: Circumstances, parts: string[], said: Decision): string | undefined {
  const text = parts.join('').split('\n').slice(0, -1);
  const sound = new Reference();
  const allowed = new Set<string>();
  let broken = false;
  for (const line of text) {
    const value = parse(line);
    const event = value && 'object' in value ? value : undefined;
    broken ||= event === undefined;
    if (event === undefined) {
      continue;
    }
    if (!broken) {
      sound.event(event);
    }
    const alone = new Reference();
    alone.event(event);
    alone.lines.forEach((one) => allowed.add(one));
  }
  const missing = sound.lines.findIndex((line, index) => line !== said.lines[index]);
  if (missing >= 0) {
    return `before the broken line: ${sound.lines[missing]} expected, not ${said.lines[missing]}`;
  }
  const wrong = said.lines.find((line) => !allowed.has(line));
  return wrong === undefined ? undefined : `no well-formed event says ${JSON.stringify(wrong)}`;
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

function noSync(_parts: string[], said: Decision): string | undefined {
  return said.lines.includes('synced') ? 'synced, although the list is broken' : undefined;
}

function prefixOf(whole: string[]): Input['judge'] {
  const reference = new Reference();
  reference.list(JSON.parse(whole.join('')) as Record<string, unknown>);
  return (_parts, said) => {
    const wrong = said.lines.findIndex((line, index) => line !== reference.lines[index]);
    return wrong >= 0
      ? `${JSON.stringify(said.lines[wrong])} instead of ${reference.lines[wrong]}`
      : noSync([], said);
  };
}

function different(expected: Decision, said: Decision): string | undefined {
  const length = Math.max(expected.lines.length, said.lines.length);
  for (let index = 0; index < length; index += 1) {
    if (expected.lines[index] !== said.lines[index]) {
      return `line ${index}: ${JSON.stringify(expected.lines[index])} expected, not ${JSON.stringify(said.lines[index])}`;
    }
  }
  return expected.outcome === said.outcome
    ? undefined
    : `outcome: "${expected.outcome}" expected, not "${said.outcome}"`;
}

/** Leaves out whatever can be left out while the input still fails, for a while. */
function shrink(awk: string[], input: Input): string[] {
  const end = Date.now() + 20_000;
  let { parts } = input;
  // A list without its frame is no list.
  const [first, last] = input.phase === 'list' ? [1, parts.length - 1] : [0, parts.length];
  if (input.phase === 'list' && input.judge !== exactly) {
    return parts;
  }
  let middle = parts.slice(first, last);
  const whole = (some: string[]) => [...parts.slice(0, first), ...some, ...parts.slice(last)];
  for (let size = Math.ceil(middle.length / 2); size >= 1; size = Math.floor(size / 2)) {
    for (let at = 0; at < middle.length && Date.now() < end;) {
      const fewer = spliced(middle, at, size);
      if (fails(awk, input, whole(fewer))) {
        middle = fewer;
      } else {
        at += size;
      }
    }
  }
  parts = whole(middle);
  // Then text that is within quotes and needs no escape.
  for (let index = 0; index < parts.length; index += 1) {
    for (let size = 4096; size >= 1; size = Math.floor(size / 4)) {
      for (let at = 0; at < (parts[index] ?? '').length && Date.now() < end;) {
        const part = parts[index] ?? '';
        const shorter = spliced(parts, index, 1, part.slice(0, at) + part.slice(at + size));
        if (part.endsWith('\n') && fails(awk, input, shorter)) {
          parts = shorter;
        } else {
          at += size;
        }
      }
    }
  }
  return parts;
}

function spliced(parts: string[], at: number, count: number, ...more: string[]): string[] {
  return [...parts.slice(0, at), ...more, ...parts.slice(at + count)];
}

function fails(awk: string[], input: Input, parts: string[]): boolean {
  try {
    return judge(awk, input, parts) !== undefined;
  } catch {
    return false; // It is no JSON any more.
  }
}

/** Writes events in pieces, and asks for each decision before the next event begins. */
async function chunks(random: Random): Promise<string | undefined> {
  const documents = new Documents(random, 3_000);
  const child = spawn(BUSYBOX, ['awk', '-f', PROGRAM], {
    env: { EVENTS: '/dev/stderr', PHASE: 'watch', LABEL_PREFIX: PREFIX },
  });
  let said = '';
  child.stderr.on('data', (data: Buffer) => (said += data.toString()));
  const reference = new Reference();
  const head = 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n';
  const greeting = CONNECTS ? ['connected'] : [];
  child.stdin.write(head);
  try {
    for (let count = 0; count < 15; count += 1) {
      const line = documents.event();
      const bytes = Buffer.from(`${line}\n`);
      for (let at = 0; at < bytes.length;) {
        const size = 1 + random.size(bytes.length);
        await new Promise((done) => child.stdin.write(bytes.subarray(at, at + size), done));
        at += size;
      }
      reference.event(JSON.parse(line) as Record<string, unknown>);
      const expected = [...greeting, ...reference.lines].map((one) => `${one}\n`).join('');
      const end = Date.now() + 5_000;
      while (said.length < expected.length && Date.now() < end) {
        await new Promise((done) => setTimeout(done, 1));
      }
      if (said !== expected) {
        return `pods.awk, an event in pieces: ${JSON.stringify(lines(expected).slice(-3))} expected, not ${JSON.stringify(lines(said).slice(-3))}, after ${line.slice(0, 4000)}`;
      }
    }
  } finally {
    child.kill('SIGKILL');
  }
  return undefined;
}
