import { Check, NodeRow } from './judgement';

const HEADINGS = ['NODE', 'FIRST INSTRUCTION', 'HERDER RESTARTS', 'KILLS SURVIVED', 'TWIN'];

/** The result of a run. `--json` prints it. */
export interface Report {
  readonly passed: boolean;
  readonly nodes: readonly NodeRow[];
  readonly notes: readonly string[];
  readonly checks: readonly Check[];
}

/** A table of the nodes, the notes, and a line for each check. */
export function render({ nodes, notes, checks }: Report): string {
  const cells = nodes.map((row) => [
    row.node,
    row.firstInstruction ?? 'not seen',
    row.herders.map(({ restarts }) => restarts).join(', ') || 'not there',
    row.kills > 0 ? `${row.kills} (${row.seenIn})` : 'not seen',
    row.twin,
  ]);
  const failed = checks.filter(({ passed }) => !passed).length;
  return [
    ...(nodes.length > 0 ? [...columns([HEADINGS, ...cells]), ''] : []),
    ...notes.map((note) => `note  ${note}`),
    ...(notes.length > 0 ? [''] : []),
    ...columns(checks.map(({ name, passed, detail }) => [passed ? 'ok' : 'FAIL', name, detail])),
    '',
    `${checks.length - failed} passed, ${failed} failed`,
    '',
  ].join('\n');
}

/** Texts of the cluster's may have line feeds. */
function columns(cells: readonly string[][]): string[] {
  const rows = cells.map((row) => row.map((cell) => cell.replace(/\s+/g, ' ')));
  const width = (column: number) => Math.max(...rows.map((row) => (row[column] ?? '').length));
  return rows.map((row) => {
    const padded = row.map((cell, column) => cell.padEnd(width(column)));
    return padded.join('  ').trimEnd();
  });
}

/** The checks as JUnit XML, with one test case for each. */
export function junit(checks: readonly Check[]): string {
  const failures = checks.filter(({ passed }) => !passed).length;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<testsuite name="oom-kill-mode" tests="${checks.length}" failures="${failures}">`,
    ...checks.map(({ name, passed, detail }) => {
      const failure = passed ? '' : `<failure message="${escape(detail)}"/>`;
      return `  <testcase classname="e2e" name="${escape(name)}">${failure}</testcase>`;
    }),
    '</testsuite>',
    '',
  ].join('\n');
}

/** XML has no control characters. */
function escape(text: string): string {
  return text
    .replace(/[^\u0020-\ud7ff\ue000-\ufffd]+/g, ' ')
    .replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
