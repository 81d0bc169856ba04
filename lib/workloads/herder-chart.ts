import { Chart, ChartProps } from 'cdk8s';
import { Construct } from 'constructs';
import { Herder, HerderProps } from './herder';
import { OomKillModeAgent, OomKillModeAgentProps } from '../agent/oom-kill-mode-agent';
import { usageError } from '../private/usage-error';
import { given, requireProps } from '../private/props';

/**
 * Options of `HerderChart`.
 */
export interface HerderChartProps extends ChartProps {
  /**
   * The number of herders, each on its own node: a positive integer.
   *
   * @default `herder.replicas`, or 3
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
 * A chart with the agent and a herder.
 *
 * The constructor throws, with the construct path, on everything that the two refuse, and if `replicas` and
 * `herder.replicas` differ.
 *
 * @example
 * import { HerderChart } from 'cdk8s-oom-kill-mode';
 *
 * new HerderChart(app, 'herder', {
 *   replicas: 5,
 *   agent: { selinuxType: 'spc_t' }, // for nodes with SELinux in enforcing mode
 * });
 */
export class HerderChart extends Chart {
  /** The agent. */
  public readonly agent: OomKillModeAgent;

  /** The herder. */
  public readonly herder: Herder;

  public constructor(scope: Construct, id: string, options: HerderChartProps = {}) {
    // The checks need a construct.
    super(scope, id, { ...options });
    const props = requireProps(this, options, {
      namespace: 'string',
      labels: 'map',
      disableResourceNameHashes: 'boolean',
      replicas: 'number',
      agent: 'object',
      herder: 'object',
    });
    const { replicas = props.herder?.replicas, herder = {} } = props;
    if ((herder.replicas ?? replicas) !== replicas) {
      throw usageError(
        this,
        `replicas is ${replicas}, but herder.replicas is ${herder.replicas}`,
        'only one of the two',
      );
    }
    this.agent = new OomKillModeAgent(this, 'agent', props.agent);
    this.herder = new Herder(this, 'herder', {
      labelPrefix: this.agent.labelPrefix,
      ...given(herder),
      replicas,
    });
    this.node.defaultChild = this.herder;
  }
}
