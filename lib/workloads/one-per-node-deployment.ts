import { ApiObject, Chart, JsonPatch, Lazy, Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { k8s } from 'cdk8s-plus-28';
import { Construct } from 'constructs';
import { OomKillMode } from '../policy/oom-kill-mode';
import { OomKillPolicy } from '../policy/oom-kill-policy';
import {
  AUTOSCALER_IMAGE,
  AUTOSCALER_SUFFIX,
  ClusterProportionalAutoscaler,
} from './cluster-proportional-autoscaler';
import { AGENT_IMAGE } from '../private/agent-image';
import { DEFAULT_LABEL_PREFIX, modeLabel } from '../private/labels';
import { joinApp } from '../policy/synthesis';
import { undefinedIfEmpty } from '../private/empty-fields';
import { usageError } from '../private/usage-error';
import { isObject, requireProps, show } from '../private/props';
import { StableDeployment } from './stable-deployment';
import {
  requireCpu,
  requireDnsLabel,
  requireDnsSubdomain,
  requireEnv,
  requireLabels,
  requireMember,
  requirePinnedImage,
  requireReplicas,
  requireSize,
} from '../private/validation';
import { waitForAgent } from './wait-for-agent';

/**
 * Options of `OnePerNodeDeployment`.
 */
export interface OnePerNodeDeploymentProps {
  /**
   * The name of the Deployment and of its container: a DNS-1123 label. It is
   * never hashed and is part of the selector, which is immutable.
   */
  readonly name: string;

  /**
   * The namespace: a DNS-1123 label.
   *
   * @default the chart's namespace
   */
  readonly namespace?: string;

  /**
   * The image, as a reference pinned by digest or by a tag that is not `latest`.
   */
  readonly image: string;

  /**
   * The number of pods: a positive integer. Each pod needs its own node, and a pod without a
   * free node stays pending. Set either this or `followNodes`.
   *
   * @default the number of nodes with `followNodes`; otherwise an error
   */
  readonly replicas?: number;

  /**
   * Whether there are always as many pods as nodes, cordoned and tainted ones
   * included. The cluster-proportional-autoscaler, in a second Deployment, changes
   * the number within some ten seconds.
   *
   * The manifest then has no `replicas`, so neither `kubectl apply` nor a GitOps tool resets
   * it. A new Deployment starts with one pod.
   *
   * On a node without room, a pod stays pending. An autoscaler of nodes may then add a node,
   * which needs one more pod, and so on up to its limit. Keep room for the pods on every node,
   * or set that limit.
   *
   * It needs a namespace of this construct or of its chart, a name of at most 52 characters,
   * and `tolerateAllTaints`.
   *
   * @default false
   * @see https://github.com/kubernetes-sigs/cluster-proportional-autoscaler
   */
  readonly followNodes?: boolean;

  /**
   * The image of the cluster-proportional-autoscaler, as a pinned reference.
   * Only with `followNodes`.
   *
   * @default "registry.k8s.io/cpa/cluster-proportional-autoscaler:v1.10.3", the image of the
   * Kubernetes project
   */
  readonly autoscalerImage?: string;

  /**
   * CPU of the container in whole milli-CPUs, as request and limit.
   */
  readonly cpu: kplus.Cpu;

  /**
   * Memory of the container in whole mebibytes, as request and limit.
   */
  readonly memory: Size;

  /**
   * What the kernel kills when the container runs out of memory.
   *
   * @default no mode label
   */
  readonly oomKillMode?: OomKillMode;

  /**
   * The label prefix of the agent. Only with `oomKillMode`.
   *
   * @default "cdk8s-oom-kill-mode"
   */
  readonly labelPrefix?: string;

  /**
   * Whether the pods wait, in an init container, until the agent of their node has made them
   * `Single`: at most two minutes, and only while they have the label. Otherwise pods that are
   * created together with the agent can run out of memory before the agent is ready. Only with
   * `OomKillMode.SINGLE`.
   *
   * @default false
   */
  readonly waitForAgent?: boolean;

  /**
   * The image of the init container, which needs `/bin/sh`, as a pinned
   * reference. Only with `waitForAgent`.
   *
   * @default the image of the agent
   */
  readonly waitImage?: string;

  /**
   * The program to run.
   *
   * @default the entrypoint of the image
   */
  readonly command?: string[];

  /**
   * Arguments of the program.
   *
   * @default the arguments of the image
   */
  readonly args?: string[];

  /**
   * Environment variables with fixed values.
   *
   * @default {}
   */
  readonly env?: { [name: string]: string };

  /**
   * Environment variables with values of cdk8s-plus, such as those of a Secret or of
   * a field of the pod.
   *
   * @default {}
   */
  readonly envVariables?: { [name: string]: kplus.EnvValue };

  /**
   * Names of secrets with registry credentials, in the namespace of the Deployment. The pods of
   * the autoscaler also use them.
   *
   * @default none
   */
  readonly imagePullSecrets?: string[];

  /**
   * Labels to add to the Deployment and its pods, and to all objects of the autoscaler.
   *
   * @default {}
   */
  readonly labels?: { [key: string]: string };

  /**
   * Whether to run on tainted nodes, control-plane nodes included.
   *
   * @default true
   */
  readonly tolerateAllTaints?: boolean;

  /**
   * Security settings of the container. Settings that you leave out keep their defaults, also
   * within `capabilities`.
   *
   * @default the user of the image, a read-only root file system, no capability, no privilege
   * escalation
   */
  readonly securityContext?: kplus.ContainerSecurityContextProps;
}

/**
 * A Deployment with at most one pod on each node.
 *
 * - A required anti-affinity on the hostname also keeps old and new pods apart. Its selector and the pods do
 *   not depend on the construct path.
 * - Limits equal requests, so the pods are Guaranteed.
 * - The rolling update removes a pod before it creates a new one. With a pod on
 *   every node, a surge pod would have no node and the update would never end.
 * - With `followNodes`, as many pods as nodes, also when the cluster grows.
 *
 * To add volumes, for example, use `deployment`, which is the Deployment of cdk8s-plus.
 *
 * The constructor throws, with the construct path, on invalid names, image, replicas, quantities, environment
 * variables and labels, on a mode among the labels, on `labelPrefix` without `oomKillMode`, on `waitForAgent`
 * without `OomKillMode.SINGLE`, on both or neither of `replicas` and `followNodes`, and on `followNodes` if a
 * requirement of it is not met.
 *
 * @example
 * import { Size } from 'cdk8s';
 * import { Cpu } from 'cdk8s-plus-28';
 * import { OnePerNodeDeployment, OomKillMode } from 'cdk8s-oom-kill-mode';
 *
 * new OnePerNodeDeployment(chart, 'runner', {
 *   name: 'runner',
 *   namespace: 'ci',
 *   image: 'registry.example.com/ci/runner:4.2.0',
 *   replicas: 3,
 *   cpu: Cpu.millis(500),
 *   memory: Size.mebibytes(512),
 *   oomKillMode: OomKillMode.SINGLE, // a job that needs too much memory dies, not the runner
 * });
 */
export class OnePerNodeDeployment extends Construct {
  /** The Deployment. */
  public readonly deployment: kplus.Deployment;

  public constructor(scope: Construct, id: string, options: OnePerNodeDeploymentProps) {
    super(scope, id);
    const props = requireProps(this, options, {
      name: 'string!',
      namespace: 'string',
      image: 'string!',
      replicas: 'number',
      followNodes: 'boolean',
      autoscalerImage: 'string',
      cpu: 'cpu!',
      memory: 'size!',
      oomKillMode: 'string',
      labelPrefix: 'string',
      waitForAgent: 'boolean',
      waitImage: 'string',
      command: 'strings',
      args: 'strings',
      env: 'map',
      envVariables: 'object',
      imagePullSecrets: 'strings',
      labels: 'map',
      tolerateAllTaints: 'boolean',
      securityContext: 'object',
    });
    joinApp(this, 'deployment');
    const name = requireDnsLabel(this, 'name', props.name);
    if (props.namespace !== undefined) {
      requireDnsLabel(this, 'namespace', props.namespace);
    }
    const image = requirePinnedImage(this, 'image', props.image);
    const replicas = this.replicas(props);
    const cpu = shortestCpu(requireCpu(this, 'cpu', props.cpu));
    const memory = shortestMemory(requireSize(this, 'memory', props.memory));
    const selector = { 'app.kubernetes.io/name': name, 'app.kubernetes.io/instance': name };
    requireLabels(this, props.labels ?? {}, selector);
    this.requireNoMode(props);
    const envVariables = this.envVariables(props);
    const { imagePullSecrets = [] } = props;
    imagePullSecrets.forEach((name) => requireDnsSubdomain(this, 'imagePullSecrets', name));

    const labels = { ...props.labels, ...selector };
    const securityContext = {
      // The author of an image chooses its user. A required uid would break many images.
      ensureNonRoot: false,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      ...this.securityContext(props),
    };
    this.deployment = new StableDeployment(this, 'Deployment', {
      metadata: { name, namespace: props.namespace, labels },
      labels,
      selector,
      imagePullSecrets,
      replicas,
      strategy: kplus.DeploymentStrategy.rollingUpdate({
        maxSurge: kplus.PercentOrAbsolute.absolute(0),
        maxUnavailable: kplus.PercentOrAbsolute.absolute(1),
      }),
      automountServiceAccountToken: false,
      securityContext: { ensureNonRoot: securityContext.ensureNonRoot },
      containers: [
        {
          name,
          image,
          imagePullPolicy: kplus.ImagePullPolicy.IF_NOT_PRESENT,
          command: undefinedIfEmpty(props.command),
          args: undefinedIfEmpty(props.args),
          envVariables,
          resources: {
            cpu: { request: cpu, limit: cpu },
            memory: { request: props.memory, limit: props.memory },
          },
          securityContext,
        },
      ],
      initContainers: this.initContainers(props),
    });
    // cdk8s-plus writes every memory in mebibytes, such as 2048Mi, which the API server turns into 2Gi.
    ApiObject.of(this.deployment).addJsonPatch(
      ...['limits', 'requests'].map((kind) =>
        JsonPatch.replace(`/spec/template/spec/containers/0/resources/${kind}/memory`, memory),
      ),
    );
    // `ApiObject.of()` and OomKillPolicy find it by this.
    this.node.defaultChild = this.deployment;
    // `scheduling.spread()` would select by the hash of the construct path.
    this.deployment.scheduling.separate(kplus.Pods.select(this, 'Pods', { labels: selector }), {
      topology: kplus.Topology.HOSTNAME,
    });
    if (props.tolerateAllTaints ?? true) {
      this.deployment.scheduling.tolerate(kplus.Node.tainted(kplus.NodeTaintQuery.any()));
    }
    this.applyPolicy(props);
    if (props.followNodes ?? false) {
      this.followNodes(props);
    }
  }

  private replicas(props: OnePerNodeDeploymentProps): number | undefined {
    if (!(props.followNodes ?? false)) {
      if (props.autoscalerImage !== undefined) {
        throw usageError(
          this,
          'autoscalerImage without followNodes does nothing',
          'followNodes: true, or no autoscalerImage',
        );
      }
      if (props.replicas === undefined) {
        throw usageError(
          this,
          'neither replicas nor followNodes is set',
          'replicas: 3 or followNodes: true',
        );
      }
      return requireReplicas(this, props.replicas);
    }
    if (props.replicas !== undefined) {
      throw usageError(
        this,
        `replicas is ${props.replicas}, but followNodes sets the number of pods`,
        'only one of the two',
      );
    }
    return undefined;
  }

  private followNodes(props: OnePerNodeDeploymentProps): void {
    const namespace = props.namespace ?? Chart.of(this).namespace;
    if (namespace === undefined) {
      throw usageError(
        this,
        'followNodes needs a namespace for its ClusterRoleBinding',
        'the namespace of this construct or of its chart',
      );
    }
    if (props.name.length + AUTOSCALER_SUFFIX.length > 63) {
      throw usageError(
        this,
        `followNodes creates a name of more than 63 characters: "${props.name}${AUTOSCALER_SUFFIX}"`,
        `a name of at most ${63 - AUTOSCALER_SUFFIX.length} characters`,
      );
    }
    if (!(props.tolerateAllTaints ?? true)) {
      throw usageError(
        this,
        'followNodes counts tainted nodes, but these pods cannot run there without tolerateAllTaints',
        'tolerateAllTaints: true, or replicas instead of followNodes',
      );
    }
    const image = requirePinnedImage(
      this,
      'autoscalerImage',
      props.autoscalerImage ?? AUTOSCALER_IMAGE,
    );
    // Leaves `replicas` out of the manifest.
    this.deployment.markHasAutoscaler();
    new ClusterProportionalAutoscaler(this, 'Autoscaler', {
      target: props.name,
      namespace,
      image,
      imagePullSecrets: props.imagePullSecrets ?? [],
      labels: props.labels ?? {},
    });
  }

  private securityContext(options: OnePerNodeDeploymentProps): kplus.ContainerSecurityContextProps {
    const props = requireProps<kplus.ContainerSecurityContextProps>(
      this,
      options.securityContext ?? {},
      {
        user: 'number',
        group: 'number',
        ensureNonRoot: 'boolean',
        privileged: 'boolean',
        readOnlyRootFilesystem: 'boolean',
        allowPrivilegeEscalation: 'boolean',
        capabilities: 'object',
        seccompProfile: 'object',
      },
      'the options of securityContext',
    );
    const capabilities = requireProps<kplus.ContainerSecutiryContextCapabilities>(
      this,
      props.capabilities ?? {},
      { add: 'strings', drop: 'strings' },
      'the options of securityContext.capabilities',
    );
    return { ...props, capabilities: { drop: [kplus.Capability.ALL], ...capabilities } };
  }

  private envVariables(props: OnePerNodeDeploymentProps): Record<string, kplus.EnvValue> {
    const { env = {}, envVariables = {} } = props;
    requireEnv(this, 'env', env);
    requireEnv(this, 'envVariables', envVariables);
    for (const [name, value] of Object.entries<unknown>(envVariables)) {
      if (name in env) {
        throw usageError(
          this,
          `env and envVariables both have ${JSON.stringify(name)}`,
          'it in only one of the two',
        );
      }
      // Checked by its members, because there are several versions of cdk8s-plus.
      if (!isObject(value) || !('value' in value || 'valueFrom' in value)) {
        throw usageError(
          this,
          `envVariables[${JSON.stringify(name)}] is not an EnvValue: ${show(value)}`,
          'a value such as EnvValue.fromSecretValue({ secret, key: "password" })',
        );
      }
    }
    return { ...envValues(env), ...envVariables };
  }

  private initContainers(props: OnePerNodeDeploymentProps): kplus.ContainerProps[] {
    if (!(props.waitForAgent ?? false)) {
      if (props.waitImage !== undefined) {
        throw usageError(
          this,
          'waitImage without waitForAgent does nothing',
          'waitForAgent: true, or no waitImage',
        );
      }
      return [];
    }
    if (props.oomKillMode !== OomKillMode.SINGLE) {
      throw usageError(
        this,
        `waitForAgent needs OomKillMode.SINGLE, but oomKillMode is ${props.oomKillMode ?? 'not set'}`,
        'oomKillMode: OomKillMode.SINGLE',
      );
    }
    const image = requirePinnedImage(this, 'waitImage', props.waitImage ?? AGENT_IMAGE);
    return [waitForAgent(image, props.labelPrefix ?? DEFAULT_LABEL_PREFIX)];
  }

  private applyPolicy(props: OnePerNodeDeploymentProps): void {
    if (props.oomKillMode === undefined) {
      if (props.labelPrefix !== undefined) {
        throw usageError(
          this,
          `labelPrefix without oomKillMode does nothing: ${props.labelPrefix}`,
          'oomKillMode, or no labelPrefix',
        );
      }
      return;
    }
    requireMember(this, 'oomKillMode', props.oomKillMode, OomKillMode);
    OomKillPolicy.of(this.deployment, { labelPrefix: props.labelPrefix })._choose(
      props.oomKillMode,
      `oomKillMode: ${props.oomKillMode}`,
    );
  }

  /** Refuses the mode label, because `oomKillMode` also checks the other options. */
  private requireNoMode(props: OnePerNodeDeploymentProps): void {
    const label = modeLabel(props.labelPrefix ?? DEFAULT_LABEL_PREFIX);
    if (label in (props.labels ?? {})) {
      throw usageError(
        this,
        `labels contains the mode label ${label}: ${props.labels?.[label]}`,
        'oomKillMode: OomKillMode.SINGLE or OomKillMode.GROUP instead',
      );
    }
  }
}

function envValues(env: Record<string, string>): Record<string, kplus.EnvValue> {
  return Object.fromEntries(
    Object.entries(env).map(([name, value]) => [
      name,
      kplus.EnvValue.fromValue(value === '' ? NOTHING : value),
    ]),
  );
}

/** Renders to no value, because the API server drops an empty one. */
const NOTHING = Lazy.any({ produce: () => undefined }) as string;

/** As the API server writes it: 2, not 2000m. */
function shortestCpu(millis: number): kplus.Cpu {
  return millis % 1000 === 0 ? kplus.Cpu.units(millis / 1000) : kplus.Cpu.millis(millis);
}

/** As the API server writes it: 2Gi, not 2048Mi. */
function shortestMemory(mebibytes: number): k8s.Quantity {
  return k8s.Quantity.fromString(
    mebibytes % 1024 === 0 ? `${mebibytes / 1024}Gi` : `${mebibytes}Mi`,
  );
}
