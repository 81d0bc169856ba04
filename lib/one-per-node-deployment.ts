import { ApiObject, JsonPatch, Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { Construct } from 'constructs';
import { OomKillMode } from './oom-kill-mode';
import { OomKillPolicy } from './oom-kill-policy';
import { AGENT_IMAGE, DEFAULT_LABEL_PREFIX } from './private/contract';
import { misuse } from './private/misuse';
import {
  requireCpu,
  requireDnsLabel,
  requireLabels,
  requireMember,
  requirePinnedImage,
  requireReplicas,
  requireSize,
} from './private/validation';
import { waitForAgent } from './private/wait-for-agent';

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
   * How many pods, and so how many nodes at least: a positive integer. Pods
   * without a node of their own stay pending.
   */
  readonly replicas: number;

  /**
   * CPU of the container, request and limit alike, in whole milli-CPUs.
   */
  readonly cpu: kplus.Cpu;

  /**
   * Memory of the container, request and limit alike, in whole mebibytes.
   */
  readonly memory: Size;

  /**
   * Who dies when the container runs out of memory.
   *
   * @default the pods are not opted in
   */
  readonly oomKillMode?: OomKillMode;

  /**
   * The prefix of the agent that is to act on the pods. Only with `oomKillMode`.
   *
   * @default "cdk8s-oom-kill-mode"
   */
  readonly labelPrefix?: string;

  /**
   * Whether the pods wait, in an init container, until the agent of their node
   * has made them `Single`: at most two minutes, and only as long as they carry
   * the label. Without it, pods that are created together with the agent can run
   * out of memory before it is there. Only with `OomKillMode.SINGLE`.
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
   * @default the image's entrypoint
   */
  readonly command?: string[];

  /**
   * Arguments of the program.
   *
   * @default the image's
   */
  readonly args?: string[];

  /**
   * Environment variables.
   *
   * @default {}
   */
  readonly env?: { [name: string]: string };

  /**
   * Labels to add to the Deployment and its pods.
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
   * Security settings of the container, over the defaults.
   *
   * @default the image's own user, a read-only root file system, no capability,
   * no privilege escalation
   */
  readonly securityContext?: kplus.ContainerSecurityContextProps;
}

/**
 * A Deployment whose pods each have a node to themselves.
 *
 * - Required anti-affinity on the hostname, by a selector that survives a
 *   change of the construct path, keeps old and new pods apart as well.
 * - Limits equal requests, so the pods are Guaranteed.
 * - The rolling update takes a pod away before it makes a new one: with a pod on
 *   every node, a surge pod would have no place and the update would never end.
 *
 * `deployment` is the cdk8s-plus Deployment, to add volumes and the like.
 *
 * The constructor throws, with the construct path, on invalid names, image,
 * replicas, quantities and labels, on `labelPrefix` without `oomKillMode`, and on
 * `waitForAgent` without `OomKillMode.SINGLE`.
 */
export class OnePerNodeDeployment extends Construct {
  /** The Deployment. */
  public readonly deployment: kplus.Deployment;

  public constructor(scope: Construct, id: string, props: OnePerNodeDeploymentProps) {
    super(scope, id);
    const name = requireDnsLabel(this, 'name', props.name);
    if (props.namespace !== undefined) {
      requireDnsLabel(this, 'namespace', props.namespace);
    }
    const image = requirePinnedImage(this, props.image);
    const replicas = requireReplicas(this, props.replicas);
    requireCpu(this, 'cpu', props.cpu);
    requireSize(this, 'memory', props.memory);
    const selector = { 'app.kubernetes.io/name': name, 'app.kubernetes.io/instance': name };
    requireLabels(this, props.labels ?? {}, selector);

    const labels = { ...props.labels, ...selector };
    const securityContext = {
      // What an image runs as is its author's choice; demanding a uid would break half of them.
      ensureNonRoot: false,
      readOnlyRootFilesystem: true,
      allowPrivilegeEscalation: false,
      capabilities: { drop: [kplus.Capability.ALL] },
      ...props.securityContext,
    };
    this.deployment = new kplus.Deployment(this, 'Deployment', {
      metadata: { name, namespace: props.namespace, labels },
      podMetadata: { labels },
      // The default selector is a hash of the construct path, and selectors are immutable.
      select: false,
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
          command: props.command,
          args: props.args,
          envVariables: envValues(props.env ?? {}),
          resources: {
            cpu: { request: props.cpu, limit: props.cpu },
            memory: { request: props.memory, limit: props.memory },
          },
          securityContext,
        },
      ],
      initContainers: this.initContainers(props),
    });
    this.deployment.select(kplus.LabelSelector.of({ labels: selector }));
    // `scheduling.spread()` would select by the hash of the construct path.
    this.deployment.scheduling.separate(kplus.Pods.select(this, 'Pods', { labels: selector }), {
      topology: kplus.Topology.HOSTNAME,
    });
    if (props.tolerateAllTaints ?? true) {
      this.deployment.scheduling.tolerate(kplus.Node.tainted(kplus.NodeTaintQuery.any()));
    }
    // The L2 pod knows neither; on the pod, seccomp covers containers that are added later, too.
    ApiObject.of(this.deployment).addJsonPatch(
      JsonPatch.add('/spec/template/spec/enableServiceLinks', false),
      JsonPatch.add('/spec/template/spec/securityContext/seccompProfile', {
        type: 'RuntimeDefault',
      }),
    );
    this.applyPolicy(props);
  }

  private initContainers(props: OnePerNodeDeploymentProps): kplus.ContainerProps[] {
    if (!(props.waitForAgent ?? false)) {
      if (props.waitImage !== undefined) {
        throw misuse(this, 'waitImage without waitForAgent does nothing', 'both or neither');
      }
      return [];
    }
    if (props.oomKillMode !== OomKillMode.SINGLE) {
      throw misuse(
        this,
        `waitForAgent waits for Single, and oomKillMode is ${props.oomKillMode ?? 'not given'}`,
        'oomKillMode: OomKillMode.SINGLE',
      );
    }
    const image = requirePinnedImage(this, props.waitImage ?? AGENT_IMAGE);
    return [waitForAgent(image, props.labelPrefix ?? DEFAULT_LABEL_PREFIX)];
  }

  private applyPolicy(props: OnePerNodeDeploymentProps): void {
    if (props.oomKillMode === undefined) {
      if (props.labelPrefix !== undefined) {
        throw misuse(
          this,
          `labelPrefix without oomKillMode does nothing: ${props.labelPrefix}`,
          'both or neither',
        );
      }
      return;
    }
    requireMember(this, 'oomKillMode', props.oomKillMode, OomKillMode);
    const policy = OomKillPolicy.of(this.deployment, { labelPrefix: props.labelPrefix });
    if (props.oomKillMode === OomKillMode.SINGLE) {
      policy.single();
    } else {
      policy.group();
    }
  }
}

function envValues(env: Record<string, string>): Record<string, kplus.EnvValue> {
  return Object.fromEntries(
    Object.entries(env).map(([name, value]) => [name, kplus.EnvValue.fromValue(value)]),
  );
}
