import { METRICS, Metric } from '../../lib/agent/metrics';

// Enough of PromQL's grammar to tell what an expression names; whether it is PromQL at all, promtool
// tells. https://prometheus.io/docs/prometheus/latest/querying/basics/

const WORDS = new Set(['and', 'or', 'unless', 'bool', 'offset', 'inf', 'nan']);
const GROUPING = /\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)/g;

interface Names {
  readonly metrics: string[];
  readonly labels: string[];
}

/** The metrics and the labels that an expression names. */
export function names(expr: string): Names {
  const labels: string[] = [];
  const bare = expr
    .replace(/"(?:[^"\\]|\\.)*"/g, '""')
    .replace(/\{([^}]*)\}/g, (_, matchers: string) => {
      labels.push(...[...matchers.matchAll(/(\w+)\s*[=!]/g)].map(([, label]) => label ?? ''));
      return '';
    })
    .replace(GROUPING, (_, __, list: string) => {
      labels.push(...list.split(',').map((label) => label.trim()));
      return '';
    })
    .replace(/\[[^\]]*\]/g, '');
  const metrics = [...bare.matchAll(/(?<![\w:.])[A-Za-z_:][\w:]*(?!\s*\(|[\w:])/g)]
    .map(([name]) => name)
    .filter((name) => !WORDS.has(name.toLowerCase()));
  return { metrics: [...new Set(metrics)], labels: [...new Set(labels)] };
}

export const ALL_METRICS: Metric[] = Object.values(METRICS);

/** The series of the catalog, as PromQL names them. */
export const SERIES: string[] = ALL_METRICS.map(({ name }) => name);

type Sample = [series: string, value: number];

/** Every labelled series of the catalog, with a value: what an agent could have written. */
export function samples(metrics = ALL_METRICS): Sample[] {
  return metrics.flatMap(({ name, type, labels }) =>
    combinations(Object.entries(labels)).map((set, i): Sample => [
      set === '' ? name : `${name}{${set}}`,
      type === 'counter' ? 3 + i : 1,
    ]),
  );
}

/** Every way to fill in the labels. */
function combinations(labels: [string, readonly string[] | undefined][]): string[] {
  return labels.reduce<string[]>(
    (sets, [label, values = [`a-${label}`]]) =>
      sets.flatMap((set) =>
        values.map((value) => `${set}${set === '' ? '' : ','}${label}="${value}"`),
      ),
    [''],
  );
}

/** The samples in the text format, as the agent writes them to its file. */
export function exposition(): string {
  return ALL_METRICS.map((metric) =>
    [
      `# HELP ${metric.name} ${metric.help}`,
      `# TYPE ${metric.name} ${metric.type}`,
      ...samples([metric]).map(([series, value]) => `${series} ${value}`),
      '',
    ].join('\n'),
  ).join('');
}
