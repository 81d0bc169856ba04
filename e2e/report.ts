import { Check, NodeRow } from './checks';

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
export function render(report: Report): string {
  const rows = report.nodes.map((row) => [
    row.node,
    row.firstInstruction,
    row.herderRestarts === undefined ? 'not there' : String(row.herderRestarts),
    row.seenIn === undefined ? 'not seen' : `${row.survivedKills} (${row.seenIn})`,
    row.twin,
  ]);
  const failed = report.checks.filter(({ passed }) => !passed).length;
  const verdict = [
    report.interrupted === undefined ? '' : `interrupted by ${report.interrupted}; `,
    `${report.checks.length - failed} passed, ${failed} failed`,
  ].join('');
  return [
    ...(rows.length > 0 ? [...columns([HEADINGS, ...rows]), ''] : []),
    ...report.notes.map((note) => `note  ${note}`),
    ...(report.notes.length > 0 ? [''] : []),
    ...columns(
      report.checks.map(({ name, passed, detail }) => [passed ? 'ok' : 'FAIL', name, detail]),
    ),
    '',
    verdict,
    '',
  ].join('\n');
}

/** Texts of the cluster's may have line feeds. */
function columns(cells: readonly string[][]): string[] {
  const rows = cells.map((row) => row.map((cell) => cell.replace(/\s+/g, ' ')));
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? '').length)),
  );
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
