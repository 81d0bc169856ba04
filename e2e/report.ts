import { Check, check } from './checks';
import { NodeRow } from './judgement';

/** All that a run has to say. */
export interface Report {
  readonly passed: boolean;
  /** The signal that ended it early. */
  readonly interrupted?: string;
  readonly context: string;
  /** The throw-away namespace, once there was one. */
  readonly namespace?: string;
  readonly checks: readonly Check[];
  readonly nodes: readonly NodeRow[];
  /** What is no check: nodes that were left out, the agents' warnings. */
  readonly notes: readonly string[];
}

const HEADINGS = ['NODE', 'FIRST INSTRUCTION', 'HERDER RESTARTS', 'KILLS SURVIVED', 'TWIN'];

/** The report as a table of the nodes, the notes, and a line for each check. */
export function render({ checks, nodes, notes, interrupted }: Report): string {
  const rows = nodes.map((row) => [
    row.node,
    row.firstInstruction,
    String(row.herderRestarts ?? 'not there'),
    row.seenIn === undefined ? 'not seen' : `${row.survivedKills} (${row.seenIn})`,
    row.twin,
  ]);
  const failed = checks.filter(({ passed }) => !passed).length;
  return [
    ...(rows.length > 0 ? [...columns([HEADINGS, ...rows]), ''] : []),
    ...notes.map((note) => `note  ${note}`),
    ...(notes.length > 0 ? [''] : []),
    ...columns(checks.map(({ name, passed, detail }) => [passed ? 'ok' : 'FAIL', name, detail])),
    '',
    `${interrupted ? `interrupted by ${interrupted}; ` : ''}${checks.length - failed} passed, ${failed} failed`,
    '',
  ].join('\n');
}

/** Texts of the cluster's may have line feeds. */
function columns(cells: readonly string[][]): string[] {
  const rows = cells.map((row) => row.map((cell) => cell.replace(/\s+/g, ' ')));
  const width = (column: number) => Math.max(...rows.map((row) => (row[column] ?? '').length));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(width(column)))
      .join('  ')
      .trimEnd(),
  );
}

/** The report as JUnit XML, with one test case for each check. */
export function junit({ checks, interrupted }: Report): string {
  const all = interrupted
    ? [...checks, check('the run itself', [`interrupted by ${interrupted}`], '')]
    : checks;
  const cases = all.map(({ name, passed, detail }) => {
    const told = passed
      ? `<system-out>${escape(detail)}</system-out>`
      : `<failure message="${escape(detail)}"/>`;
    return `  <testcase classname="e2e" name="${escape(name)}">${told}</testcase>`;
  });
  const failures = all.filter(({ passed }) => !passed).length;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuite name="oom-kill-mode" tests="${all.length}" failures="${failures}" errors="0" skipped="0">`,
    ...cases,
    '</testsuite>',
    '',
  ].join('\n');
}

/** For text and for attributes, which would lose a line feed. XML has no other control characters. */
function escape(text: string): string {
  return text
    .replace(/[&<>"\t\n\r]/g, (character) => `&#${character.charCodeAt(0)};`)
    .replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '\ufffd');
}

/** Where to say what is going on: `show` until something else is shown, `say` to stay. */
export type Progress = Readonly<Record<'show' | 'say', (text: string) => void>>;

/** One line that changes, or lines where there is no terminal. */
export function progressOn(stream: NodeJS.WriteStream): Progress {
  let last = '';
  const show = (text: string) => {
    if (stream.isTTY) {
      // Longer than the terminal is wide, it could not be erased.
      stream.write(`\r\x1b[K${text.slice(0, (stream.columns || 80) - 1)}`);
    } else if (text !== last && text !== '') {
      stream.write(`${text}\n`);
    }
    last = text;
  };
  const say = (text: string) => {
    show('');
    stream.write(`${text}\n`);
  };
  return { show, say };
}
