import { METRICS, Metric } from '../agent/metrics';
import { jobIs, jobIsNot, quote, withoutMode } from './prometheus';

/** An alert, before it becomes a rule of the Prometheus operator. */
export interface Alert {
  readonly name: string;
  readonly expr: string;
  readonly for?: string;
  readonly summary: string;
  readonly description: string;
  /** The heading of the runbook, as an anchor; alert templates are filled in. */
  readonly anchor: string;
}

/** Options of the alerts. The construct has their defaults and limits. */
export interface AlertOptions {
  /** The jobs of the agents to watch. */
  readonly jobs: readonly string[];
  readonly kubeletJob: string;
  readonly ignoredNodes?: string;
  readonly downFor: number;
  readonly mismatchFor: number;
  readonly processKills: number;
  readonly processKillsWindow: number;
  readonly cannotApplyFor: number;
  readonly staleSync: number;
}

/** Users route and silence alerts by names and labels, so do not rename them. */
export function alerts(options: AlertOptions): Alert[] {
  const job = jobIs(options.jobs);
  const of = (metric: Metric) => `${metric.name}{${job}}`;
  const kubelet = [
    `job=${quote(options.kubeletJob)}`,
    'node!=""',
    ...(options.ignoredNodes === undefined ? [] : [`node!~${quote(options.ignoredNodes)}`]),
  ].join(', ');

  return [
    {
      name: 'OomKillModeAgentAbsent',
      expr: options.jobs.map((one) => `absent(up{${jobIs([one])}})`).join('\nor\n'),
      for: seconds(options.downFor),
      summary: 'Prometheus does not scrape the agent on any node.',
      description:
        'Prometheus has no target for the pods of the agent. Either the DaemonSet or the PodMonitor does not exist, or Prometheus does not select the PodMonitor.',
      anchor: 'oomkillmodeagentabsent',
    },
    {
      name: 'OomKillModeAgentDown',
      // A failed scrape ends all series of a target, and so does a file that node-exporter cannot
      // read; the kubelet knows of the nodes that have no pod of the agent at all. A node on which an agent
      // of another job reported within a day is one of that agent's node pool.
      expr: lines(
        `max by (node) (`,
        `  (up{${kubelet}} == 1 unless on (node) last_over_time(${METRICS.BUILD_INFO.name}{${jobIsNot(options.jobs)}}[1d]))`,
        `  or up{${job}}`,
        `)`,
        'unless on (node)',
        `max by (node) (${of(METRICS.BUILD_INFO)})`,
      ),
      for: seconds(options.downFor),
      summary: 'Prometheus gets no metrics of the agent from node {{ $labels.node }}.',
      description:
        'Node {{ $labels.node }} has no pod of the agent, or the pod serves no metrics. Containers that start there may keep the default mode of the node.',
      anchor: 'oomkillmodeagentdown',
    },
    {
      name: 'OomKillModeNotApplied',
      expr: withoutMode(job),
      for: seconds(options.mismatchFor),
      summary:
        'Container {{ $labels.container }} of {{ $labels.namespace }}/{{ $labels.pod }} does not have its desired kill mode.',
      description:
        'The desired kill mode of container {{ $labels.container }} of pod {{ $labels.namespace }}/{{ $labels.pod }} on node {{ $labels.node }} is {{ if eq $value 1.0 }}Group{{ else }}Single{{ end }}. Its memory.oom.group has the other value, or the agent cannot read it.',
      anchor: 'oomkillmodenotapplied',
    },
    {
      name: 'OomKillModeProcessKills',
      expr: `sum by (node, namespace, pod, container) (increase(${of(METRICS.SURVIVED_KILLS)}[${seconds(options.processKillsWindow)}])) > ${options.processKills}`,
      summary:
        'The kernel keeps killing processes in container {{ $labels.container }} of {{ $labels.namespace }}/{{ $labels.pod }}.',
      description: `The kernel killed about {{ printf "%.0f" $value }} processes for memory within ${words(options.processKillsWindow)} in container {{ $labels.container }} of pod {{ $labels.namespace }}/{{ $labels.pod }} on node {{ $labels.node }}. The container kept running, so its restart count does not show it.`,
      anchor: 'oomkillmodeprocesskills',
    },
    {
      name: 'OomKillModeCannotApply',
      expr: `max by (node, condition) (${of(METRICS.CONDITION)}) == 1`,
      // Some conditions end without help: an override waits for an init container, or two programs write a file for a moment.
      for: seconds(options.cannotApplyFor),
      summary: 'A kill mode does not work on node {{ $labels.node }}: {{ $labels.condition }}.',
      description:
        'The agent on node {{ $labels.node }} found the condition {{ $labels.condition }}. Its log and its Events name the pod or the node that the condition affects.',
      anchor: '{{ $labels.condition }}',
    },
    {
      name: 'OomKillModeStaleSync',
      expr: lines(
        `time() - max by (node) (${of(METRICS.LAST_SYNC)}) > ${options.staleSync}`,
        'or',
        `max by (node) (${of(METRICS.BUILD_INFO)}) unless on (node) max by (node) (${of(METRICS.LAST_SYNC)})`,
        // There it asks for nothing, and OomKillModeCannotApply says why.
        `unless on (node) ${METRICS.CONDITION.name}{${job}, condition=~"cgroup_v1|cgroup_not_found"} == 1`,
      ),
      // Long enough for an agent that has just started and had no answer yet.
      for: '2m',
      summary: 'The agent on node {{ $labels.node }} gets no current data from the API server.',
      description: `The agent on node {{ $labels.node }} has received no complete list of its pods from the API server for ${words(options.staleSync)}, or none since it started. Pods that it knows keep their modes. It does not see new pods and changed labels.`,
      anchor: 'oomkillmodestalesync',
    },
  ];
}

function lines(...parts: string[]): string {
  return parts.join('\n');
}

/** A duration for Prometheus, in the largest unit that divides the amount. */
function seconds(amount: number): string {
  const [unit, size] = unitOf(amount);
  return `${amount / size}${unit.charAt(0)}`;
}

function words(amount: number): string {
  const [unit, size] = unitOf(amount);
  const count = amount / size;
  return `${count} ${unit}${count === 1 ? '' : 's'}`;
}

function unitOf(amount: number): [string, number] {
  for (const [unit, size] of [
    ['hour', 3600],
    ['minute', 60],
  ] as const) {
    if (amount % size === 0) {
      return [unit, size];
    }
  }
  return ['second', 1];
}
