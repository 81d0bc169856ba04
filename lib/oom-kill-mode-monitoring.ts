import { Duration } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { Construct } from 'constructs';
import {
  PodMonitor,
  PodMonitorSpecPodMetricsEndpointsMetricRelabelingsAction as MetricAction,
  PodMonitorSpecPodMetricsEndpointsRelabelingsAction as TargetAction,
} from '../imports/podmonitor-monitoring.coreos.com';
import {
  PrometheusRule,
  PrometheusRuleSpecGroupsRulesExpr,
} from '../imports/prometheusrule-monitoring.coreos.com';
import { OomKillModeAgent } from './oom-kill-mode-agent';
import { alerts } from './private/alerts';
import { dashboard } from './private/dashboard';
import { joinApp } from './private/synthesis';
import { markOf } from './private/marks';
import { METRICS_NAME } from './private/metrics';
import { misuse } from './private/misuse';
import { requireProps } from './private/props';
import { NO_SUBSTITUTION } from './private/substitution';
import {
  requireAlertLabels,
  requireCount,
  requireJob,
  requireRegex,
  requireUrl,
} from './private/prometheus';
import {
  requireAnnotations,
  requireDnsLabel,
  requireLabels,
  requireSeconds,
} from './private/validation';

const ONE_DAY = 24 * 60 * 60;

/**
 * When the alerts of `OomKillModeMonitoring` fire.
 */
export interface AlertThresholds {
  /**
   * How long no agent must have reported from a node before
   * `OomKillModeAgentDown` fires, and from anywhere before
   * `OomKillModeAgentAbsent` does: whole seconds, from 1 minute to 1 day.
   *
   * @default Duration.minutes(5)
   */
  readonly agentDown?: Duration;

  /**
   * How long a container must have had another mode than the one it is to have
   * before `OomKillModeNotApplied` fires: whole seconds, from 1 minute to 1 day.
   *
   * @default Duration.minutes(5)
   */
  readonly notApplied?: Duration;

  /**
   * How many processes of one container may be killed for memory within
   * `processKillsWindow` without `OomKillModeProcessKills`: a whole number from
   * 0. Prometheus extrapolates what it counts, so it is not exact.
   *
   * @default 10
   */
  readonly processKills?: number;

  /**
   * The time in which `processKills` are counted: whole seconds, from 5 minutes
   * to 1 day. It has to hold several scrapes.
   *
   * @default Duration.minutes(15)
   */
  readonly processKillsWindow?: Duration;

  /**
   * How long a node must have had a condition before `OomKillModeCannotApply`
   * fires: whole seconds, from 1 minute to 1 day. The Event tells of it at once.
   *
   * @default Duration.minutes(5)
   */
  readonly cannotApply?: Duration;

  /**
   * How old an agent's view of the API server may be before
   * `OomKillModeStaleSync` fires, two minutes later: whole seconds, from 5
   * minutes to 1 day.
   *
   * @default Duration.minutes(10)
   */
  readonly staleSync?: Duration;
}

/**
 * Options of `OomKillModeMonitoring`.
 */
export interface OomKillModeMonitoringProps {
  /**
   * The agent to watch. It must have `metrics: true`.
   */
  readonly agent: OomKillModeAgent;

  /**
   * The name of the PodMonitor and the PrometheusRule, and with `-dashboard`
   * behind it of the ConfigMap: a DNS-1123 label.
   *
   * @default the agent's
   */
  readonly name?: string;

  /**
   * The namespace of the objects: a DNS-1123 label. Prometheus, and Grafana's
   * sidecar, must look there.
   *
   * @default the agent's
   */
  readonly namespace?: string;

  /**
   * Whether to make the PodMonitor.
   *
   * @default true
   */
  readonly podMonitor?: boolean;

  /**
   * Whether to make the PrometheusRule with the alerts.
   *
   * @default true
   */
  readonly alerts?: boolean;

  /**
   * Whether to make the ConfigMap with the Grafana dashboard.
   *
   * @default true
   */
  readonly dashboard?: boolean;

  /**
   * Labels to add to every object, among them those by which Prometheus selects
   * PodMonitors and PrometheusRules, such as `release: kube-prometheus-stack`.
   *
   * @default {}
   * @see https://prometheus-operator.dev/docs/api-reference/api/#monitoring.coreos.com/v1.PrometheusSpec
   */
  readonly labels?: { [key: string]: string };

  /**
   * Annotations to add to every object.
   *
   * @default {}
   */
  readonly annotations?: { [key: string]: string };

  /**
   * Labels by which Grafana's sidecar finds the dashboard.
   *
   * @default { grafana_dashboard: "1" }
   * @see https://github.com/grafana/helm-charts/tree/main/charts/grafana#sidecar-for-dashboards
   */
  readonly dashboardLabels?: { [key: string]: string };

  /**
   * How often Prometheus scrapes the agents: whole seconds, from 5 seconds to 2
   * minutes.
   *
   * @default Prometheus's own
   */
  readonly scrapeInterval?: Duration;

  /**
   * When the alerts fire.
   *
   * @default the defaults of `AlertThresholds`
   */
  readonly thresholds?: AlertThresholds;

  /**
   * Labels to add to every alert, for the routes of the Alertmanager.
   *
   * @default { severity: "warning" }; a severity of your own takes its place
   */
  readonly alertLabels?: { [key: string]: string };

  /**
   * The address of the runbook, http or https and without an anchor.
   *
   * That is where this project's docs/troubleshooting.md is published. Each alert
   * names its section there, as the annotation `runbook_url`.
   *
   * @default none: no such annotation
   */
  readonly runbookUrl?: string;

  /**
   * The job by which Prometheus scrapes the kubelets. Its `up`, with the label
   * `node`, tells `OomKillModeAgentDown` of nodes that have no pod of the agent
   * at all. In a cluster without this job such nodes are not noticed.
   *
   * @default "kubelet", as the Prometheus operator has it
   */
  readonly kubeletJob?: string;

  /**
   * Nodes on which no agent is to be expected, such as Windows and virtual ones
   * or those that the agent's `nodeSelector` leaves out: a regular expression in
   * RE2's syntax, without flags, that matches the whole name.
   *
   * @default every node has an agent
   * @see https://github.com/google/re2/wiki/Syntax
   */
  readonly ignoredNodes?: string;
}

/**
 * Lets the Prometheus operator scrape an agent, with alerts and a dashboard.
 *
 * Creates a PodMonitor and a PrometheusRule (`monitoring.coreos.com/v1`, whose
 * definitions must be in the cluster) and a ConfigMap for the sidecar of
 * Grafana's Helm chart; each can be left out.
 *
 * The constructor throws, with the construct path, if the agent has no metrics,
 * if nothing is to be made, on invalid names, labels, annotations, durations,
 * numbers, addresses and regular expressions. Synthesis fails if the agent's
 * cluster, an outermost chart, has another `OomKillModeMonitoring` with the same name in the
 * same namespace.
 *
 * @example
 * import { Duration } from 'cdk8s';
 * import { OomKillModeAgent, OomKillModeMonitoring } from 'cdk8s-oom-kill-mode';
 *
 * new OomKillModeMonitoring(chart, 'monitoring', {
 *   agent: new OomKillModeAgent(chart, 'agent', { metrics: true }),
 *   labels: { release: 'kube-prometheus-stack' }, // by which Prometheus selects
 *   thresholds: { notApplied: Duration.minutes(2) },
 * });
 */
export class OomKillModeMonitoring extends Construct {
  /** The name of the PodMonitor and the PrometheusRule. */
  public readonly name: string;

  /** The namespace of the objects. */
  public readonly namespace: string;

  /** @internal */
  public readonly _agent: OomKillModeAgent;

  public constructor(scope: Construct, id: string, options: OomKillModeMonitoringProps) {
    super(scope, id);
    const props = requireProps(this, options, {
      agent: 'object!',
      name: 'string',
      namespace: 'string',
      podMonitor: 'boolean',
      alerts: 'boolean',
      dashboard: 'boolean',
      labels: 'map',
      annotations: 'map',
      dashboardLabels: 'map',
      scrapeInterval: 'duration',
      thresholds: 'object',
      alertLabels: 'map',
      runbookUrl: 'string',
      kubeletJob: 'string',
      ignoredNodes: 'string',
    });
    if (markOf(props.agent) !== 'agent') {
      throw misuse(this, 'agent is not an OomKillModeAgent', 'the OomKillModeAgent to watch');
    }
    const { agent } = props;
    this._agent = agent;
    this.name = requireDnsLabel(this, 'name', props.name ?? agent.name);
    this.namespace = requireDnsLabel(this, 'namespace', props.namespace ?? agent.namespace);
    joinApp(this, 'monitoring');
    if (!agent.metrics) {
      throw misuse(
        this,
        `${agent.node.path} is an agent without metrics`,
        'metrics: true in the options of the agent',
      );
    }

    const podMonitor = props.podMonitor ?? true;
    const rules = props.alerts ?? true;
    const board = props.dashboard ?? true;
    if (!podMonitor && !rules && !board) {
      throw misuse(
        this,
        'podMonitor, alerts and dashboard are all false',
        'true for one of them, or no OomKillModeMonitoring',
      );
    }

    const ourLabels = {
      'app.kubernetes.io/name': 'cdk8s-oom-kill-mode',
      'app.kubernetes.io/instance': agent.name,
      'app.kubernetes.io/component': 'monitoring',
      'app.kubernetes.io/managed-by': 'cdk8s',
    };
    const dashboardLabels = props.dashboardLabels ?? { grafana_dashboard: '1' };
    requireLabels(this, props.labels ?? {}, ourLabels);
    requireLabels(this, dashboardLabels, ourLabels);
    requireAnnotations(this, props.annotations ?? {}, {});
    const metadata = {
      name: this.name,
      namespace: this.namespace,
      labels: { ...props.labels, ...ourLabels },
      annotations: props.annotations,
    };

    // What is left out is checked all the same: it may be wanted tomorrow.
    const endpoint = this.endpoint(props.scrapeInterval);
    const group = this.ruleGroup(props);
    if (podMonitor) {
      new PodMonitor(this, 'PodMonitor', {
        metadata,
        spec: {
          // The job of every target, whatever this object is called.
          jobLabel: 'app.kubernetes.io/instance',
          selector: { matchLabels: agent.podSelector },
          namespaceSelector: { matchNames: [agent.namespace] },
          podMetricsEndpoints: [endpoint],
        },
      });
    }
    if (rules) {
      new PrometheusRule(this, 'PrometheusRule', { metadata, spec: { groups: [group] } });
    }
    if (board) {
      new kplus.ConfigMap(this, 'Dashboard', {
        metadata: {
          ...metadata,
          name: `${this.name}-dashboard`,
          labels: { ...metadata.labels, ...dashboardLabels },
          annotations: { ...props.annotations, ...NO_SUBSTITUTION },
        },
        // Grafana's sidecar keeps the dashboards of all ConfigMaps in one directory.
        data: { [`${this.name}.json`]: dashboard(agent.name) },
      });
    }
  }

  private endpoint(scrapeInterval?: Duration) {
    return {
      port: METRICS_NAME,
      interval: ifGiven(
        scrapeInterval,
        (interval) => `${requireSeconds(this, 'scrapeInterval', interval, 5, 120)}s`,
      ),
      // The agent's metrics are about other pods: their namespace, pod and container are what it
      // writes, and not those of the agent.
      honorLabels: true,
      relabelings: [
        {
          action: TargetAction.REPLACE,
          sourceLabels: ['__meta_kubernetes_pod_node_name'],
          targetLabel: 'node',
        },
      ],
      // What node-exporter says of itself would pass for the exporter of the node.
      metricRelabelings: [
        {
          action: MetricAction.KEEP,
          sourceLabels: ['__name__'],
          regex: 'oom_kill_mode_.+',
        },
      ],
    };
  }

  private ruleGroup(props: OomKillModeMonitoringProps) {
    const thresholds = requireProps<AlertThresholds>(
      this,
      props.thresholds ?? {},
      {
        agentDown: 'duration',
        notApplied: 'duration',
        processKills: 'number',
        processKillsWindow: 'duration',
        cannotApply: 'duration',
        staleSync: 'duration',
      },
      'thresholds',
    );
    const threshold = (
      prop: 'agentDown' | 'notApplied' | 'processKillsWindow' | 'cannotApply' | 'staleSync',
      minutes: number,
      min: number,
    ) =>
      requireSeconds(this, prop, thresholds[prop] ?? Duration.minutes(minutes), min * 60, ONE_DAY);
    const labels = { severity: 'warning', ...props.alertLabels };
    requireAlertLabels(this, labels);
    const runbook = ifGiven(props.runbookUrl, (url) => requireUrl(this, 'runbookUrl', url));

    const all = alerts({
      job: props.agent.name,
      kubeletJob: requireJob(this, 'kubeletJob', props.kubeletJob ?? 'kubelet'),
      ignoredNodes: ifGiven(props.ignoredNodes, (regex) =>
        requireRegex(this, 'ignoredNodes', regex),
      ),
      downFor: threshold('agentDown', 5, 1),
      mismatchFor: threshold('notApplied', 5, 1),
      processKills: requireCount(this, 'processKills', thresholds.processKills ?? 10),
      processKillsWindow: threshold('processKillsWindow', 15, 5),
      cannotApplyFor: threshold('cannotApply', 5, 1),
      staleSync: threshold('staleSync', 10, 5),
    });
    return {
      name: `${this.name}.rules`,
      rules: all.map(({ name, expr, for: duration, summary, description, anchor }) => ({
        alert: name,
        expr: PrometheusRuleSpecGroupsRulesExpr.fromString(expr),
        for: duration,
        labels,
        annotations: {
          summary,
          description,
          ...(runbook === undefined ? {} : { runbook_url: `${runbook}#${anchor}` }),
        },
      })),
    };
  }
}

function ifGiven<T>(value: T | undefined, then: (value: T) => string): string | undefined {
  return value === undefined ? undefined : then(value);
}
