import { Chart, ChartProps } from 'cdk8s';
import { Construct } from 'constructs';
import { Herder, HerderProps } from './herder';
import { OomKillModeAgent, OomKillModeAgentProps } from './oom-kill-mode-agent';

/**
 * Options of `HerderChart`.
 */
export interface HerderChartProps extends ChartProps {
  /**
   * How many herders, each on its own node: a positive integer.
   *
   * @default the herder's own `replicas`, or 3
   */
  readonly replicas?: number;

  /**
   * Options of the agent.
   *
   * @default the agent's defaults
   */
  readonly agent?: OomKillModeAgentProps;

  /**
   * Options of the herder.
   *
   * @default the herder's defaults, and the agent's `labelPrefix`
   */
  readonly herder?: HerderProps;
}

/**
 * The whole answer in one file: the agent, and a herder that it keeps alive.
 *
 * @example
 * import { HerderChart } from 'cdk8s-oom-kill-mode';
 *
 * new HerderChart(app, 'herder', {
 *   replicas: 5,
 *   agent: { seLinuxType: 'spc_t' }, // for nodes with SELinux in enforcing mode
 * });
 */
export class HerderChart extends Chart {
  /** The agent. */
  public readonly agent: OomKillModeAgent;

  /** The herder. */
  public readonly herder: Herder;

  public constructor(scope: Construct, id: string, props: HerderChartProps = {}) {
    super(scope, id, props);
    this.agent = new OomKillModeAgent(this, 'agent', props.agent);
    this.herder = new Herder(this, 'herder', {
      labelPrefix: this.agent.labelPrefix,
      ...props.herder,
      replicas: props.replicas ?? props.herder?.replicas,
    });
  }
}
