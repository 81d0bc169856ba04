import { Chart, Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { Construct } from 'constructs';
import { OnePerNodeDeployment } from './one-per-node-deployment';
import { OomKillMode } from '../policy/oom-kill-mode';
import { setRole } from '../policy/own-constructs';
import { usageError } from '../private/usage-error';
import { requireProps } from '../private/props';
import { requireAtMost, requireCpu, requireMember, requireSize } from '../private/validation';

/**
 * Options of `Herder`.
 */
export interface HerderProps {
  /**
   * The number of pods, each on its own node: a positive integer.
   *
   * @default 3
   */
  readonly replicas?: number;

  /**
   * The namespace: a DNS-1123 label.
   *
   * @default the chart's namespace, or "default" if it has none
   */
  readonly namespace?: string;

  /**
   * The image, as a reference pinned by digest or by a tag that is not `latest`.
   *
   * @default "ghcr.io/iximiuz/labs/resource-hog/herder:v1.0.0"
   */
  readonly image?: string;

  /**
   * The image of the init container that waits for the agent.
   *
   * Only with `OomKillMode.SINGLE`, see `OnePerNodeDeploymentProps.waitForAgent`.
   *
   * @default the image of the agent
   */
  readonly waitImage?: string;

  /**
   * Names of secrets with registry credentials, in the namespace of the Deployment.
   *
   * @default none
   */
  readonly imagePullSecrets?: string[];

  /**
   * CPU, as request and limit: at most 250m.
   *
   * @default Cpu.millis(250)
   */
  readonly cpu?: kplus.Cpu;

  /**
   * Memory, as request and limit: at most 256 MiB.
   *
   * @default Size.mebibytes(256)
   */
  readonly memory?: Size;

  /**
   * What the kernel kills when the herder runs out of memory.
   *
   * @default OomKillMode.SINGLE, because the herder outlives its children
   */
  readonly oomKillMode?: OomKillMode;

  /**
   * The label prefix of the agent.
   *
   * @default "cdk8s-oom-kill-mode"
   */
  readonly labelPrefix?: string;
}

/**
 * A workload for demonstrations and tests. Its children take all the memory that they get. It never restarts
 * if the mode `Single` is applied, and otherwise restarts every few seconds.
 *
 * The constructor throws, with the construct path, on quantities over the maximum and on everything that
 * `OnePerNodeDeployment` refuses.
 *
 * @example
 * import { Herder, OomKillMode } from 'cdk8s-oom-kill-mode';
 *
 * new Herder(chart, 'single', { namespace: 'single', replicas: 2 });
 * new Herder(chart, 'group', {
 *   namespace: 'group',
 *   replicas: 2,
 *   oomKillMode: OomKillMode.GROUP, // to see the difference
 * });
 */
export class Herder extends Construct {
  /** The Deployment. */
  public readonly deployment: kplus.Deployment;

  public constructor(scope: Construct, id: string, options: HerderProps = {}) {
    super(scope, id);
    const props = requireProps(this, options, {
      replicas: 'number',
      namespace: 'string',
      image: 'string',
      waitImage: 'string',
      imagePullSecrets: 'strings',
      cpu: 'cpu',
      memory: 'size',
      oomKillMode: 'string',
      labelPrefix: 'string',
    });
    const cpu = props.cpu ?? kplus.Cpu.millis(250);
    const memory = props.memory ?? Size.mebibytes(256);
    requireAtMost(this, 'cpu', requireCpu(this, 'cpu', cpu), 250, 'm');
    requireAtMost(this, 'memory', requireSize(this, 'memory', memory), 256, 'Mi');
    const oomKillMode = props.oomKillMode ?? OomKillMode.SINGLE;
    requireMember(this, 'oomKillMode', oomKillMode, OomKillMode);
    if (props.waitImage !== undefined && oomKillMode !== OomKillMode.SINGLE) {
      throw usageError(
        this,
        `waitImage needs OomKillMode.SINGLE, but oomKillMode is ${oomKillMode}`,
        'only one of the two',
      );
    }
    const onePerNode = new OnePerNodeDeployment(this, 'OnePerNode', {
      name: 'herder',
      namespace: props.namespace ?? Chart.of(this).namespace ?? 'default',
      image: props.image ?? 'ghcr.io/iximiuz/labs/resource-hog/herder:v1.0.0',
      replicas: props.replicas ?? 3,
      cpu,
      memory,
      oomKillMode,
      labelPrefix: props.labelPrefix,
      waitForAgent: oomKillMode === OomKillMode.SINGLE,
      waitImage: props.waitImage,
      imagePullSecrets: props.imagePullSecrets,
    });
    this.node.defaultChild = onePerNode;
    this.deployment = onePerNode.deployment;
    setRole(this, 'deployment');
  }
}
