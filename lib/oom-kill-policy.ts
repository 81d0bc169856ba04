import { ApiObject } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { IConstruct } from 'constructs';
import { OomKillMode } from './oom-kill-mode';
import { OomKillModeAgent } from './oom-kill-mode-agent';
import {
  DEFAULT_LABEL_PREFIX,
  containersAnnotation,
  modeLabel,
  requireLabelPrefix,
} from './private/contract';
import { complaint, misuse } from './private/misuse';
import { MetadataMap, PodTemplate, WORKLOAD_KINDS } from './private/pod-template';
import { isDnsLabel, requireMember } from './private/validation';

/**
 * Options of `OomKillPolicy.of`.
 */
export interface OomKillPolicyProps {
  /**
   * The prefix of the pod label and annotation, without the slash: a DNS-1123
   * subdomain of at most 253 characters. It must be the one of the agent that
   * is to act on the pods.
   *
   * @default "cdk8s-oom-kill-mode"
   */
  readonly labelPrefix?: string;
}

/**
 * Opts pods in, and says who of them dies when they run out of memory.
 *
 * The policy is written on the pod templates as the label `<prefix>/mode` and,
 * for single containers, the annotation `<prefix>/containers`. That happens at
 * synthesis, so it reaches workloads that are added to a scope after the call.
 *
 * Of several policies above one workload the nearest counts, alone, whatever
 * the order of the calls. The pods of an `OomKillModeAgent` are never opted in.
 *
 * Synthesis fails with the path of the target when
 * - no mode was chosen,
 * - there is no workload in the target,
 * - the target holds a `List`, whose items cannot be reached,
 * - no workload reached has a container of a given name,
 * - a workload carries the label or annotation already, with another value.
 *
 * @example
 * import { OomKillMode, OomKillPolicy } from 'cdk8s-oom-kill-mode';
 *
 * OomKillPolicy.of(postgres).single();
 * OomKillPolicy.of(helmRelease).single();
 * OomKillPolicy.of(web).perContainer({ php: OomKillMode.SINGLE, nginx: OomKillMode.GROUP });
 */
export class OomKillPolicy {
  /**
   * The policy of a target: always the same one for the same target and prefix,
   * so that calls in different places add up or contradict each other audibly.
   *
   * @param target A Pod or workload of cdk8s-plus; an `ApiObject` of kind Pod,
   * Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job
   * or CronJob; or any scope (Chart, Helm, Include, your own construct), whose
   * workloads are all reached.
   * @param props Options.
   * @throws if the target is an API object without a pod template, or the prefix is invalid.
   */
  public static of(target: IConstruct, props: OomKillPolicyProps = {}): OomKillPolicy {
    const prefix = requireLabelPrefix(target, props.labelPrefix ?? DEFAULT_LABEL_PREFIX);
    requireWorkloadOrScope(target);
    const existing = OomKillPolicy.find(target, prefix);
    if (existing) {
      return existing;
    }
    const policy = new OomKillPolicy(target, prefix);
    const policies = OomKillPolicy.policies.get(target) ?? new Map<string, OomKillPolicy>();
    OomKillPolicy.policies.set(target, policies.set(prefix, policy));
    return policy;
  }

  private static readonly policies = new WeakMap<IConstruct, Map<string, OomKillPolicy>>();

  private static find(target: IConstruct, prefix: string): OomKillPolicy | undefined {
    return OomKillPolicy.policies.get(target)?.get(prefix);
  }

  private mode?: OomKillMode;
  private readonly containers = new Map<string, OomKillMode>();

  private constructor(
    private readonly target: IConstruct,
    private readonly prefix: string,
  ) {
    target.node.addValidation({ validate: () => this.apply() });
  }

  /**
   * One process dies, in every container that `perContainer` does not name.
   *
   * @returns this policy.
   * @throws if `group()` was called before.
   */
  public single(): this {
    return this.choose(OomKillMode.SINGLE);
  }

  /**
   * All processes of the container die together, in every container that
   * `perContainer` does not name.
   *
   * @returns this policy.
   * @throws if `single()` was called before.
   */
  public group(): this {
    return this.choose(OomKillMode.GROUP);
  }

  /**
   * The mode of single containers, init containers and sidecars included.
   *
   * The other containers get what `single()` or `group()` says. With neither,
   * the pod label says `Group`, the kubelet's own default since Kubernetes 1.28,
   * so that they keep today's behaviour (except on nodes whose kubelet has
   * `singleProcessOOMKill: true`).
   *
   * On a scope each workload gets the names that it has. A workload that has
   * none of them is opted in by `single()` or `group()` only.
   *
   * A container that a JSON patch adds to a cdk8s-plus workload is not seen here.
   *
   * @param modes Container names and their modes. Calls add up.
   * @returns this policy.
   * @throws if there is no name, a name is not a DNS-1123 label, a mode is
   * unknown, or a name has another mode already.
   */
  public perContainer(modes: { [containerName: string]: OomKillMode }): this {
    if (Object.keys(modes).length === 0) {
      throw misuse(this.target, 'perContainer names no container', '{ name: OomKillMode.SINGLE }');
    }
    for (const [name, mode] of Object.entries(modes)) {
      if (!isDnsLabel(name)) {
        throw misuse(
          this.target,
          `perContainer has an invalid container name: ${JSON.stringify(name)}`,
          'lower case letters, digits and inner hyphens, at most 63',
        );
      }
      requireMember(this.target, `the mode of container ${name}`, mode, OomKillMode);
      const chosen = this.containers.get(name) ?? mode;
      if (chosen !== mode) {
        throw misuse(
          this.target,
          `container ${name} has two modes: ${chosen} and ${mode}`,
          'one of them',
        );
      }
      this.containers.set(name, mode);
    }
    return this;
  }

  private choose(mode: OomKillMode): this {
    if (this.mode !== undefined && this.mode !== mode) {
      throw misuse(this.target, `both single() and group() are called`, 'one of them');
    }
    this.mode = mode;
    return this;
  }

  /** Runs at every synthesis, possibly several times: what it writes once it finds written after. */
  private apply(): string[] {
    if (this.mode === undefined && this.containers.size === 0) {
      return [
        complaint(
          'OomKillPolicy.of() chooses no mode',
          '.single(), .group() or .perContainer({ … }) after it',
        ),
      ];
    }
    const objects = this.target.node.findAll().filter((c) => ApiObject.isApiObject(c));
    const lists = objects.filter((object) => PodTemplate.isList(object));
    if (lists.length > 0) {
      return lists.map((list) =>
        complaint(
          `the items of ${list.kind} ${list.node.path} are out of reach of OomKillPolicy`,
          'its items as documents of their own',
        ),
      );
    }
    const workloads = objects.filter(
      (object) => PodTemplate.isWorkload(object) && !isAgent(object),
    );
    if (workloads.length === 0) {
      return [
        complaint(
          'there is no workload for OomKillPolicy in this scope',
          `OomKillPolicy.of() of a scope that holds one (${WORKLOAD_KINDS})`,
        ),
      ];
    }
    const templates = workloads
      .filter((workload) => this.governs(workload))
      .map((workload) => PodTemplate.of(workload));
    return [
      ...this.unknownContainers(templates),
      ...templates.flatMap((template) => this.write(template)),
    ];
  }

  /** Whether this is the nearest policy above a workload. */
  private governs(workload: ApiObject): boolean {
    const nearest = workload.node.scopes
      .reverse()
      .map((scope) => OomKillPolicy.find(scope, this.prefix))
      .find((policy) => policy !== undefined);
    return nearest === this;
  }

  private unknownContainers(templates: PodTemplate[]): string[] {
    const known = new Set(templates.flatMap((template) => template.containerNames()));
    return [...this.containers.keys()]
      .filter((name) => !known.has(name))
      .map((name) =>
        complaint(
          `perContainer names a container that no workload here has: ${name}`,
          [...known].sort().join(' or ') || 'the name of a container',
        ),
      );
  }

  private write(template: PodTemplate): string[] {
    const names = template.containerNames();
    const overrides = [...this.containers]
      .filter(([name]) => names.includes(name))
      .map(([name, mode]) => `${name}=${mode}`)
      .sort();
    if (this.mode === undefined && overrides.length === 0) {
      return [];
    }
    return [
      ...put(template, 'labels', modeLabel(this.prefix), this.mode ?? OomKillMode.GROUP),
      ...(overrides.length > 0
        ? put(template, 'annotations', containersAnnotation(this.prefix), overrides.join(','))
        : []),
    ];
  }
}

/** Writes a value once; one that is there already is ours from the last synthesis, or not ours. */
function put(template: PodTemplate, map: MetadataMap, key: string, value: string): string[] {
  const found = template.get(map, key);
  if (found === undefined) {
    template.set(map, key, value);
    return [];
  }
  return found === value
    ? []
    : [
        complaint(
          `the pods of ${template.workload.node.path} say ${key}: ${found} already, and OomKillPolicy says ${value}`,
          'one of the two',
        ),
      ];
}

/** An object that has no pod template and can hold nothing that has one cannot be meant. */
function requireWorkloadOrScope(target: IConstruct): void {
  const object = ApiObject.isApiObject(target)
    ? target
    : target instanceof kplus.Resource
      ? ApiObject.of(target)
      : undefined;
  if (object && !PodTemplate.isWorkload(object)) {
    throw misuse(
      target,
      `${object.apiVersion} ${object.kind} has no pod template for OomKillPolicy`,
      `OomKillPolicy.of() of one of ${WORKLOAD_KINDS}, or of a scope around it,`,
    );
  }
}

function isAgent(object: ApiObject): boolean {
  return object.node.scopes.some((scope) => scope instanceof OomKillModeAgent);
}
