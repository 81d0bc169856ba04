// npm run docs:kinds: writes the table of docs/kinds.md from the table of kinds that the policies use.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { KNOWN_KINDS, KnownKind } from '../lib/policy/known-kinds';

const PAGE = join(__dirname, '../docs/kinds.md');

/** Where the label goes, for people: `[]` is every element. */
function where({ podTemplates = [], podMetadata = [], cannot }: KnownKind): string {
  const places = [...podTemplates.map((one) => `${one}/metadata`), ...podMetadata].map(
    (pointer) => {
      const path = pointer.slice(1).replace(/\?/g, '').replace(/\/\*/g, '[]').replace(/\//g, '.');
      return `\`${path}.labels\``;
    },
  );
  return [
    ...places,
    ...(cannot === undefined
      ? []
      : [`${places.length > 0 ? 'otherwise ' : ''}nowhere, because ${cannot}`]),
  ].join('<br>');
}

export function kindsTable(): string {
  const rows = new Map<string, { kinds: string[]; cells: string[] }>();
  for (const row of KNOWN_KINDS) {
    const names = row.podTemplates ? 'yes' : 'no';
    const cells = [row.apiGroup || 'v1', where(row), names, row.source];
    const same = rows.get(cells.join()) ?? { kinds: [], cells };
    rows.set(cells.join(), { ...same, kinds: [...same.kinds, row.kind] });
  }
  const table = [
    ['Kinds', 'API group', 'Where the label goes', 'Names known'],
    ...[...rows.values()].map(
      ({ kinds, cells: [group = '', place = '', names = '', source = ''] }) => [
        `[${kinds.join(', ')}](${source})`,
        group,
        place,
        names,
      ],
    ),
  ];
  const widths = [0, 1, 2, 3].map((i) => Math.max(...table.map((row) => row[i]?.length ?? 0)));
  const line = (row: string[]) =>
    `| ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' | ')} |`;
  const [head = [], ...body] = table;
  return [line(head), line(widths.map((width) => '-'.repeat(width))), ...body.map(line)].join('\n');
}

if (require.main === module) {
  const [before, , after] = readFileSync(PAGE, 'utf8').split(
    /(?<=<!-- kinds -->\n\n)|(?=\n\n<!-- end -->)/,
  );
  writeFileSync(PAGE, `${before}${kindsTable()}${after}`);
}
