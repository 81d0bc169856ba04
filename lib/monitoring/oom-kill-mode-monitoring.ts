import { ApiObjectMetadata, Duration } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { Construct, IConstruct } from 'constructs';
import {
  PodMonitor,
  PodMonitorSpecPodMetricsEndpoints,
  PodMonitorSpecSelector,
  PodMonitorSpecPodMetricsEndpointsMetricRelabelingsAction as MetricAction,
  PodMonitorSpecPodMetricsEndpointsRelabelingsAction as TargetAction,
} from '../../imports/podmonitor-monitoring.coreos.com';
import {
  PrometheusRule,
  PrometheusRuleSpecGroupsRulesExpr,
} from '../../imports/prometheusrule-monitoring.coreos.com';
import { OomKillModeAgent } from '../agent/oom-kill-mode-agent';
import { alerts } from './alerts';
import { dashboard } from './dashboard';
import { outermostChart } from '../policy/survey';
import { joinApp } from '../policy/synthesis';
import { roleOf } from '../policy/own-constructs';
import { METRICS_NAME } from '../agent/metrics';
import { usageError } from '../private/usage-error';
import { isObject, requireProps } from '../private/props';
import { VERSION_LABEL } from '../private/version';
import { NO_SUBSTITUTION } from '../private/substitution';
import {
  requireAlertLabels,
  requireCount,
  requireJob,
  requireRegex,
  requireUrl,
} from './prometheus';
import {
  requireAnnotations,
  requireDnsLabel,
  requireLabels,
  requireSeconds,
} from '../private/validation';

const ONE_DAY = 24 * 60 * 60;

/**
 * When the alerts of `OomKillModeMonitoring` fire.
 */
export interface AlertThresholds {
  /**
   * How long no agent must have reported from a node before `OomKillModeAgentDown` fires, and
   * from any node before `OomKillModeAgentAbsent` fires: whole seconds, from 1 minute to 1 day.
   *
   * @default Duration.minutes(5)
   */
  readonly agentDown?: Duration;

  /**
   * How long a container must have had the wrong mode before
   * `OomKillModeNotApplied` fires: whole seconds, from 1 minute to 1 day.
   *
   * @default Duration.minutes(5)
   */
  readonly notApplied?: Duration;

  /**
   * How many processes of one container the kernel may kill for memory within
   * `processKillsWindow` before `OomKillModeProcessKills` fires: a whole number from 0.
   * Prometheus extrapolates, so the count is not exact.
   *
   * @default 10
   */
  readonly processKills?: number;

  /**
   * The time in which `processKills` are counted: whole seconds, from 5 minutes to 1 day. It
   * must contain several scrapes.
   *
   * @default Duration.minutes(15)
   */
  readonly processKillsWindow?: Duration;

  /**
   * How long a node must have had a condition before `OomKillModeCannotApply` fires: whole
   * seconds, from 1 minute to 1 day. The agent sends the Event at once.
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
   * The agent to watch. It must have `metrics: true`. Set either this or `agents`.
   *
   * @default none, and `agents` is required
   */
  readonly agent?: OomKillModeAgent;

  /**
   * The agents to watch, such as those of several node pools of one cluster. Each must have
   * `metrics: true`. Set either this or `agent`.
   *
   * @default none, and `agent` is required
   */
  readonly agents?: OomKillModeAgent[];

  /**
   * The name of the PodMonitor and the PrometheusRule: a DNS-1123 label. The ConfigMap has the
   * same name with the suffix `-dashboard`.
   *
   * @default the name of the first agent
   */
  readonly name?: string;

  /**
   * The namespace of the objects: a DNS-1123 label. Prometheus, and Grafana's
   * sidecar, must look there.
   *
   * @default the namespace of the first agent
   */
  readonly namespace?: string;

  /**
   * Whether to create the PodMonitor.
   *
   * @default true
   */
  readonly podMonitor?: boolean;

  /**
   * Whether to create the PrometheusRule with the alerts.
   *
   * @default true
   */
  readonly alerts?: boolean;

  /**
   * Whether to create the ConfigMap with the Grafana dashboard.
   *
   * @default true
   */
  readonly dashboard?: boolean;

  /**
   * Labels to add to every object. Prometheus selects PodMonitors and PrometheusRules by
   * labels, such as `release: kube-prometheus-stack`.
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
   * @default the interval of Prometheus
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
   * @default { severity: "warning" }; your severity replaces it
   */
  readonly alertLabels?: { [key: string]: string };

  /**
   * The address of the runbook, http or https and without an anchor.
   *
   * Publish this project's docs/troubleshooting.md there. Each alert links to its
   * section, in the annotation `runbook_url`.
   *
   * @default no such annotation
   */
  readonly runbookUrl?: string;

  /**
   * The job with which Prometheus scrapes the kubelets. Its metric `up`, with the label `node`,
   * shows `OomKillModeAgentDown` the nodes without any pod of the agent. Without this job the
   * alert does not find such nodes.
   *
   * @default "kubelet", as the Prometheus operator has it
   */
  readonly kubeletJob?: string;

  /**
   * Nodes on which no agent should run, such as Windows and virtual ones
   * or those that the agent's `nodeSelector` leaves out: a regular expression in
   * RE2's syntax, without flags, that matches the whole name.
   *
   * @default every node has an agent
   * @see https://github.com/google/re2/wiki/Syntax
   */
  readonly ignoredNodes?: string;
}

/**
 * Lets the Prometheus operator scrape one or more agents, with alerts and a dashboard.
 *
 * Creates a PodMonitor and a PrometheusRule (`monitoring.coreos.com/v1`, whose
 * definitions must be in the cluster) and a ConfigMap for the sidecar of
 * Grafana's Helm chart; each can be left out.
 *
 * You can also create one `OomKillModeMonitoring` for each agent. `OomKillModeAgentDown` then ignores nodes
 * from which the agent of another one has reported within a day.
 *
 * The constructor throws, with the construct path, if an agent has no metrics, if agents belong to several
 * clusters, if every object is left out, and on invalid names, labels, annotations, durations, numbers,
 * addresses and regular expressions. Synthesis fails if the agent's cluster (outermost chart) has another
 * `OomKillModeMonitoring` with the same name in the same namespace.
 *
 * @example
 * import { ApiObjectMetadata, Duration } from 'cdk8s';
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
  public readonly _agents: Agents;

  public constructor(scope: Construct, id: string, options: OomKillModeMonitoringProps) {
    super(scope, id);
    const props = requireProps(this, options, {
      agent: 'object',
      agents: 'list',
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
    const agents = this.agents(props);
    this._agents = agents;
    const [{ name, namespace }] = agents;
    this.name = requireDnsLabel(this, 'name', props.name ?? name);
    this.namespace = requireDnsLabel(this, 'namespace', props.namespace ?? namespace);
    joinApp(this, 'monitoring');

    const podMonitor = props.podMonitor ?? true;
    const rules = props.alerts ?? true;
    const board = props.dashboard ?? true;
    if (!podMonitor && !rules && !board) {
      throw usageError(
        this,
        'podMonitor, alerts and dashboard are all false',
        'true for one of them, or no OomKillModeMonitoring',
      );
    }

    const ourLabels = {
      'app.kubernetes.io/name': 'cdk8s-oom-kill-mode',
      'app.kubernetes.io/instance': agents.length === 1 ? name : this.name,
      'app.kubernetes.io/component': 'monitoring',
      'app.kubernetes.io/managed-by': 'cdk8s',
      ...VERSION_LABEL,
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

    // Options of objects that are left out are checked, because those objects may be wanted later.
    const endpoint = this.endpoint(props.scrapeInterval);
    const group = this.ruleGroup(props);
    const objects = [
      ...(podMonitor ? [this.podMonitor(metadata, endpoint)] : []),
      ...(rules
        ? [new PrometheusRule(this, 'PrometheusRule', { metadata, spec: { groups: [group] } })]
        : []),
      ...(board ? [this.dashboard(metadata, dashboardLabels)] : []),
    ];
    this.node.defaultChild = objects[0];
  }

  private podMonitor(
    metadata: ApiObjectMetadata,
    endpoint: PodMonitorSpecPodMetricsEndpoints,
  ): PodMonitor {
    return new PodMonitor(this, 'PodMonitor', {
      metadata,
      spec: {
        // Every target has the agent's name as its job, whatever the name of this object.
        jobLabel: 'app.kubernetes.io/instance',
        selector: podsOf(this._agents),
        namespaceSelector: {
          matchNames: [...new Set(this._agents.map((agent) => agent.namespace))],
        },
        podMetricsEndpoints: [endpoint],
      },
    });
  }

  private dashboard(metadata: ApiObjectMetadata, labels: Record<string, string>): kplus.ConfigMap {
    return new kplus.ConfigMap(this, 'Dashboard', {
      metadata: {
        ...metadata,
        name: `${this.name}-dashboard`,
        labels: { ...metadata.labels, ...labels },
        annotations: { ...metadata.annotations, ...NO_SUBSTITUTION },
      },
      // Grafana's sidecar keeps the dashboards of all ConfigMaps in one directory.
      data: { [`${this.name}.json`]: dashboard(jobsOf(this._agents)) },
    });
  }

  private agents(props: OomKillModeMonitoringProps): Agents {
    const { agent } = props;
    const agents: unknown[] = props.agents ?? [agent];
    if ((agent === undefined) === (props.agents === undefined)) {
      throw usageError(
        this,
        agent === undefined ? 'neither agent nor agents is set' : 'both agent and agents are set',
        'agent: the OomKillModeAgent to watch, or agents: a list of several',
      );
    }
    for (const one of agents) {
      if (!isObject(one) || roleOf(one as unknown as IConstruct) !== 'agent') {
        throw usageError(
          this,
          props.agents === undefined
            ? 'agent is not an OomKillModeAgent'
            : 'agents contains a value that is not an OomKillModeAgent',
          'the OomKillModeAgent to watch',
        );
      }
    }
    if (agents.length === 0 || new Set(agents).size < agents.length) {
      throw usageError(this, 'agents is empty or has an agent twice', 'each agent to watch once');
    }
    const [first, ...others] = agents as [OomKillModeAgent, ...OomKillModeAgent[]];
    for (const one of [first, ...others]) {
      if (!one.metrics) {
        throw usageError(
          this,
          `${one.node.path} is an agent without metrics`,
          'metrics: true in the options of the agent',
        );
      }
      if (outermostChart(one) !== outermostChart(first)) {
        throw usageError(
          this,
          `${one.node.path} and ${first.node.path} are agents of different clusters (outermost charts)`,
          'an OomKillModeMonitoring for each cluster',
        );
      }
    }
    return [first, ...others];
  }

  private endpoint(scrapeInterval?: Duration): PodMonitorSpecPodMetricsEndpoints {
    return {
      port: METRICS_NAME,
      interval: ifGiven(
        scrapeInterval,
        (interval) => `${requireSeconds(this, 'scrapeInterval', interval, 5, 120)}s`,
      ),
      // The agent's metrics describe other pods. Their labels namespace, pod and container must not become
      // those of the agent.
      honorLabels: true,
      relabelings: [
        {
          action: TargetAction.REPLACE,
          sourceLabels: ['__meta_kubernetes_pod_node_name'],
          targetLabel: 'node',
        },
      ],
      // Drops the metrics of node-exporter about itself. They would look like those of the node's exporter.
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
      jobs: jobsOf(this._agents),
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

type Agents = readonly [OomKillModeAgent, ...OomKillModeAgent[]];

function jobsOf(agents: Agents): string[] {
  return [...new Set(agents.map(({ name }) => name))];
}

/** The selector of the pods of all agents. */
function podsOf([first, ...others]: Agents): PodMonitorSpecSelector {
  if (others.length === 0) {
    return { matchLabels: first.podSelector };
  }
  const instance = 'app.kubernetes.io/instance';
  const shared = Object.entries(first.podSelector).filter(([key]) => key !== instance);
  return {
    matchLabels: Object.fromEntries(shared),
    matchExpressions: [{ key: instance, operator: 'In', values: jobsOf([first, ...others]) }],
  };
}

function ifGiven<T>(value: T | undefined, then: (value: T) => string): string | undefined {
  return value === undefined ? undefined : then(value);
}
