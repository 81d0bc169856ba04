import { createHash } from 'node:crypto';
import { METRICS, Metric } from '../agent/metrics';
import { jobIs, withoutMode } from './prometheus';

// The parts of Grafana's model of a dashboard that ours uses:
// https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/

interface Target {
  readonly expr: string;
  readonly legend?: string;
}

interface Panel {
  readonly type: 'stat' | 'table' | 'timeseries';
  readonly title: string;
  readonly description: string;
  readonly unit?: string;
  /** Of 24 columns. By default the panels of a row have equal widths. */
  readonly width?: number;
  /** Whether a graph has bars on top of each other, instead of lines. */
  readonly bars?: boolean;
  /** The number from which a stat is red. */
  readonly redFrom?: number;
  /** The heading of a table's value, which is 0 for Single and 1 for Group; without it, a table has no value. */
  readonly modeColumn?: string;
  readonly targets: readonly Target[];
}

const DATASOURCE = { type: 'prometheus', uid: '${datasource}' };
const COLUMNS = 24;

/** The dashboard of some agents, as Grafana imports it. */
export function dashboard(jobs: readonly string[]): string {
  const own = jobIs(jobs);
  const inNamespace = `${own}, namespace=~"$namespace"`;
  const of = (metric: Metric) => `${metric.name}{${own}}`;
  const chosen = (metric: Metric) => `${metric.name}{${inNamespace}}`;
  // Nothing, rather than 0, if no agent reports.
  const orZero = `or 0 * count(${of(METRICS.BUILD_INFO)})`;
  const missing = `(${withoutMode(inNamespace)})`;

  const overview: Panel[] = [
    {
      type: 'stat',
      title: 'Nodes with an agent',
      description: 'Agents whose metrics Prometheus has.',
      targets: [{ expr: `count(${of(METRICS.BUILD_INFO)})` }],
    },
    {
      type: 'stat',
      title: 'Containers by mode',
      description: 'Containers of opted-in pods, by desired mode.',
      targets: [{ expr: `sum by (mode) (${of(METRICS.CONTAINERS)})`, legend: '{{mode}}' }],
    },
    {
      type: 'stat',
      title: 'Containers without their mode',
      description: 'Containers whose memory.oom.group is wrong or cannot be read.',
      redFrom: 1,
      targets: [{ expr: `count${missing} ${orZero}` }],
    },
    {
      type: 'stat',
      title: 'Processes killed',
      description: 'Killed for memory, within the time shown, in containers that kept running.',
      targets: [{ expr: `sum(increase(${chosen(METRICS.SURVIVED_KILLS)}[$__range])) ${orZero}` }],
    },
  ];
  const problems: Panel[] = [
    {
      type: 'table',
      title: 'Where it cannot work',
      description: 'Conditions that keep a mode from working, by node.',
      width: 8,
      targets: [{ expr: `max by (node, condition) (${of(METRICS.CONDITION)}) == 1` }],
    },
    {
      type: 'table',
      title: 'Containers without their mode, by name',
      description: 'Containers whose memory.oom.group is wrong or cannot be read.',
      width: 16,
      modeColumn: 'desired mode',
      targets: [{ expr: `max by (node, namespace, pod, container) ${missing}` }],
    },
  ];
  const firing: Panel[] = [
    {
      type: 'table',
      title: 'Alerts that fire',
      description: 'Alerts of this project.',
      targets: [
        {
          expr: 'max by (alertname, node, condition, namespace, pod, container) (ALERTS{alertname=~"OomKillMode.+", alertstate="firing"})',
        },
      ],
    },
  ];
  const graphs: Panel[] = [
    {
      type: 'timeseries',
      title: 'Processes killed, by container',
      description: 'Killed for memory in containers that kept running: the ten with the most.',
      bars: true,
      targets: [
        {
          expr: `topk(10, sum by (namespace, pod, container) (increase(${chosen(METRICS.SURVIVED_KILLS)}[$__rate_interval])) > 0)`,
          legend: '{{namespace}}/{{pod}}/{{container}}',
        },
      ],
    },
    {
      type: 'timeseries',
      title: 'Writes by cause',
      description:
        'Writes to memory.oom.group. start is ordinary. event and resync are drift: another program changed the value.',
      bars: true,
      targets: [
        {
          expr: `sum by (cause) (increase(${of(METRICS.WRITES)}[$__rate_interval]))`,
          legend: '{{cause}}',
        },
      ],
    },
    {
      type: 'timeseries',
      title: 'Age of the view of the API server',
      description: 'Time since the agent of a node last knew all its opted-in pods.',
      unit: 's',
      targets: [{ expr: `time() - max by (node) (${of(METRICS.LAST_SYNC)})`, legend: '{{node}}' }],
    },
    {
      type: 'timeseries',
      title: 'Watches opened again',
      description:
        'By node. An agent opens a new watch every 30 to 60 minutes. Further ones follow lost connections.',
      bars: true,
      targets: [
        {
          expr: `sum by (node) (increase(${of(METRICS.WATCH_RECONNECTS)}[$__rate_interval]))`,
          legend: '{{node}}',
        },
      ],
    },
    {
      type: 'timeseries',
      title: 'Agents by script',
      description: 'If there is more than one line for a long time, a rollout did not finish.',
      targets: [
        {
          // Twelve of its 64 digits, for the legend.
          expr: `count by (script_sha256) (label_replace(${of(METRICS.BUILD_INFO)}, "script_sha256", "$1", "script_sha256", "(.{12}).*"))`,
          legend: '{{script_sha256}}',
        },
      ],
    },
  ];

  const model = {
    // Grafana's limit is 40 characters; a name has up to 63.
    uid: `oom-kill-mode-${createHash('sha256').update(jobs.join(',')).digest('hex').slice(0, 12)}`,
    title: `OOM kill modes (${jobs.join(', ')})`,
    tags: ['oom-kill-mode'],
    schemaVersion: 39,
    editable: true,
    refresh: '1m',
    time: { from: 'now-6h', to: 'now' },
    timezone: '',
    templating: {
      list: [
        { name: 'datasource', label: 'Data source', type: 'datasource', query: 'prometheus' },
        {
          name: 'namespace',
          label: 'Namespace',
          type: 'query',
          datasource: DATASOURCE,
          query: {
            query: `label_values(${of(METRICS.GROUP_DESIRED)}, namespace)`,
            refId: 'namespace',
          },
          refresh: 2,
          sort: 1,
          multi: true,
          includeAll: true,
          allValue: '.*',
          current: { text: 'All', value: '$__all' },
        },
      ],
    },
    panels: [
      ...row(overview, 0, 4, 1),
      ...row(problems, 4, 6, 5),
      ...row(firing, 10, 6, 7),
      ...row(graphs.slice(0, 2), 16, 9, 8),
      ...row(graphs.slice(2), 25, 9, 10),
    ],
  };
  return `${JSON.stringify(model, null, 2)}\n`;
}

/** Panels side by side, of one height. */
function row(panels: Panel[], y: number, height: number, firstId: number): object[] {
  let x = 0;
  return panels.map((panel, i) => {
    const { type, title, description, targets, width = COLUMNS / panels.length } = panel;
    const gridPos = { x, y, w: width, h: height };
    x += width;
    return {
      id: firstId + i,
      type,
      title,
      description,
      datasource: DATASOURCE,
      gridPos,
      fieldConfig: { defaults: fields(panel), overrides: [] },
      targets: targets.map(({ expr, legend }, n) => ({
        refId: String.fromCharCode('A'.charCodeAt(0) + n),
        datasource: DATASOURCE,
        expr,
        ...(legend === undefined ? {} : { legendFormat: legend }),
        // Tables and single numbers show the present, graphs the past.
        ...(type === 'timeseries' ? { range: true } : { instant: true }),
        ...(type === 'table' ? { format: 'table' } : {}),
      })),
      ...(type === 'table' ? { transformations: [columns(panel)] } : {}),
    };
  });
}

/** How values look. Without thresholds of our own, Grafana's make every number from 80 red. */
function fields({ unit = 'short', bars = false, redFrom, modeColumn }: Panel): object {
  const steps =
    redFrom === undefined
      ? [{ color: 'text', value: null }]
      : [
          { color: 'green', value: null },
          { color: 'red', value: redFrom },
        ];
  return {
    unit,
    decimals: 0,
    thresholds: { mode: 'absolute', steps },
    ...(bars
      ? {
          custom: { drawStyle: 'bars', fillOpacity: 100, stacking: { mode: 'normal', group: 'A' } },
        }
      : {}),
    ...(modeColumn === undefined
      ? {}
      : {
          mappings: [{ type: 'value', options: { 0: { text: 'Single' }, 1: { text: 'Group' } } }],
        }),
  };
}

function columns({ modeColumn }: Panel): object {
  return {
    id: 'organize',
    options:
      modeColumn === undefined
        ? { excludeByName: { Time: true, Value: true } }
        : { excludeByName: { Time: true }, renameByName: { Value: modeColumn } },
  };
}
