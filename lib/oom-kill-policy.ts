import { ApiObject } from 'cdk8s';
import { Construct, IConstruct } from 'constructs';
import { OomKillMode } from './oom-kill-mode';
import { DEFAULT_LABEL_PREFIX, requireLabelPrefix } from './private/contract';
import { guardApp } from './private/guard';
import { policiesOf, setPolicy } from './private/marks';
import { complaint, misuse } from './private/misuse';
import { Pods, WORKLOAD_KINDS, findPods, isKnownWorkload } from './private/pod-template';
import { PropKinds, isObject, requireProps, show } from './private/props';
import { Contract, isSameThing, renderPlain } from './private/rendering';
import { isDnsLabel, requireDnsLabel, requireMember } from './private/validation';

/**
 * Where objects of one kind, which Kubernetes itself does not have, say what their pods are. Pod
 * templates are found without it in anything that is called a template and has
 * `spec.containers`, such as a Rollout, a JobSet or a Knative Service.
 */
export interface WorkloadKind {
  /**
   * The API group of the kind, without the version, such as "argoproj.io".
   */
  readonly apiGroup: string;

  /**
   * The kind, such as "Workflow".
   */
  readonly kind: string;

  /**
   * JSON pointers to pod templates.
   *
   * Those have `metadata` and `spec.containers`. A step `*` stands for every element of a list or map.
   *
   * @default none
   */
  readonly podTemplates?: string[];

  /**
   * JSON pointers to the `labels` and `annotations` that the kind gives to its
   * pods, without these two words: "/spec/inheritedMetadata". The names of the
   * containers are not known then; `perContainer` takes those of `injectedContainers`.
   *
   * @default none
   */
  readonly podMetadata?: string[];

  /**
   * Whether the policy leaves objects of this kind alone, pods or not.
   *
   * @default false
   */
  readonly skipped?: boolean;
}

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

  /**
   * Names of containers that something else adds to the pods after their
   * workload was written, such as `istio-proxy`: DNS-1123 labels. Every workload
   * of the policy counts as having them.
   *
   * @default []
   */
  readonly injectedContainers?: string[];

  /**
   * The mode of the pods until the names of their containers are known, some
   * 100 ms after the start of each, if `perContainer` gives them several modes
   * and neither `single()` nor `group()` is called.
   *
   * @default OomKillMode.GROUP: where it is wrong it restarts a container that has
   * done nothing yet, and Single would leave half a container running for good
   */
  readonly untilNamed?: OomKillMode;

  /**
   * Where kinds that Kubernetes itself does not have say what their pods are.
   *
   * @default pod templates are found in whatever is called one; VirtualMachines of
   * KubeVirt, Clusters of CloudNativePG, Workflows of Argo, and what the Prometheus
   * operator runs hand on the labels that they have for that; other objects with
   * containers in them are an error
   */
  readonly workloadKinds?: WorkloadKind[];
}

/**
 * Opts pods in, and says who of them dies when they run out of memory.
 *
 * The policy is written on the pod templates as the label `<prefix>/mode` and,
 * for single containers, the annotation `<prefix>/containers`. That happens when
 * an object is rendered, after JSON patches and `Lazy` values, and reaches
 * workloads that are added to a scope after the call, those in a `List`, and pod
 * templates in the objects of other projects.
 *
 * Of several policies above one workload the nearest counts, alone, whatever
 * the order of the calls. The pods of an `OomKillModeAgent` are never opted in.
 *
 * Synthesis fails with the path of the target when
 *
 * - no mode was chosen,
 * - there is no workload in the target,
 * - an object in it has containers where no pod template is,
 * - no workload reached has a container of a given name,
 * - a workload carries the label or annotation already, with another value,
 * - a policy on a workload and one on its API object differ,
 * - the app has agents, and none with this prefix,
 * - the annotation would be longer than the agent reads, 8192 characters.
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
   * @param target A workload, of cdk8s-plus or an `ApiObject` of any kind with pods,
   * or any scope (Chart, Helm, Include, your own construct), whose workloads are all
   * reached.
   * @param props Options. Lists add up with those of earlier calls.
   * @throws if the target is no construct, or an option is invalid or contradicts an earlier call.
   */
  public static of(target: IConstruct, props: OomKillPolicyProps = {}): OomKillPolicy {
    if (!Construct.isConstruct(target)) {
      throw new Error(
        `[OomKillPolicy.of] ${complaint(`the target is not a construct: ${show(target)}`, 'a workload, a chart, or a scope in between,')}`,
      );
    }
    const options = requireProps(target, props, PROPS);
    const prefix =
      options.labelPrefix === undefined
        ? DEFAULT_LABEL_PREFIX
        : requireLabelPrefix(target, options.labelPrefix);
    const policy =
      (policiesOf(target)?.get(prefix) as OomKillPolicy | undefined) ??
      new OomKillPolicy(target, prefix);
    policy.add(options);
    return policy;
  }

  /** @internal */
  public readonly _kinds: WorkloadKind[] = [];
  private mode?: OomKillMode;
  private chosenBy?: string;
  private untilNamed?: OomKillMode;
  private readonly containers = new Map<string, OomKillMode>();
  private readonly injected = new Set<string>();
  /** The objects below, and those of them to which no other policy is nearer. */
  private objects: ApiObject[] = [];
  private governed: ApiObject[] = [];
  /** The names of their containers, as far as they are known. */
  private readonly names = new Map<ApiObject, string[]>();

  private constructor(
    /** @internal */
    public readonly _target: IConstruct,
    /** @internal */
    public readonly _prefix: string,
  ) {
    // Before our own validation, which needs to know what there is, also if the target is the app.
    guardApp(_target);
    _target.node.addValidation({ validate: () => this.validate() });
    setPolicy(_target, _prefix, this);
  }

  /**
   * One process dies, in every container that `perContainer` does not name.
   *
   * @returns this policy.
   * @throws if `group()` was called before.
   */
  public single(): this {
    return this._choose(OomKillMode.SINGLE, 'single()');
  }

  /**
   * All processes of the container die together, in every container that
   * `perContainer` does not name.
   *
   * @returns this policy.
   * @throws if `single()` was called before.
   */
  public group(): this {
    return this._choose(OomKillMode.GROUP, 'group()');
  }

  /**
   * The mode of single containers, init containers and sidecars included.
   *
   * The other containers get what `single()` or `group()` says. With neither, they
   * are `Group`, the kubelet's own default since Kubernetes 1.28, so that they keep
   * today's behaviour (except on nodes whose kubelet has `singleProcessOOMKill: true`).
   *
   * The agent knows the name of a container some 100 ms after its start. Until then
   * the container has the mode of the pod, which is its label: the one of `single()`
   * or `group()`; else the one that all containers have; else `untilNamed`. So a pod
   * whose containers are all to be alike is so from the first instruction on, and
   * has no annotation; containers that something adds to it later are like the
   * others, unless `injectedContainers` tells of them.
   *
   * On a scope each workload gets the names that it has. A workload that has
   * none of them is opted in by `single()` or `group()` only.
   *
   * @param modes Container names and their modes. Calls add up.
   * @returns this policy.
   * @throws if there is no name, a name is not a DNS-1123 label, a mode is
   * unknown, or a name has another mode already.
   */
  public perContainer(modes: { [containerName: string]: OomKillMode }): this {
    const remedy = '{ name: OomKillMode.SINGLE }';
    if (!isObject(modes)) {
      throw misuse(
        this._target,
        `perContainer takes names and modes, and not ${show(modes)}`,
        remedy,
      );
    }
    if (Object.keys(modes).length === 0) {
      throw misuse(this._target, 'perContainer names no container', remedy);
    }
    for (const [name, mode] of Object.entries(modes)) {
      if (!isDnsLabel(name)) {
        throw misuse(
          this._target,
          `perContainer has an invalid container name: ${JSON.stringify(name)}`,
          'lower case letters, digits and inner hyphens, at most 63',
        );
      }
      requireMember(this._target, `the mode of container ${name}`, mode, OomKillMode);
      const chosen = this.containers.get(name) ?? mode;
      if (chosen !== mode) {
        throw misuse(
          this._target,
          `container ${name} has two modes: ${chosen} and ${mode}`,
          'one of them',
        );
      }
      this.containers.set(name, mode);
    }
    return this;
  }

  /**
   * @param by what the user wrote, for messages
   * @internal
   */
  public _choose(mode: OomKillMode, by: string): this {
    if (this.mode !== undefined && this.mode !== mode) {
      throw misuse(this._target, `both ${this.chosenBy} and ${by} are there`, 'one of them');
    }
    this.mode = mode;
    this.chosenBy ??= by;
    return this;
  }

  /** @internal */
  public get _origin(): string {
    return this.chosenBy?.includes(':') ? this.chosenBy : 'OomKillPolicy';
  }

  /** @internal */
  public _forget(): void {
    this.objects = [];
    this.governed = [];
  }

  /** @internal */
  public _reach(object: ApiObject, governed: boolean): void {
    this.objects.push(object);
    if (governed) {
      this.governed.push(object);
    }
  }

  /**
   * What pods are to say.
   *
   * @internal
   */
  public _decide(pods: Pods): Contract | undefined {
    if (this.containers.size === 0) {
      return this.mode && { mode: this.mode };
    }
    const names = [...new Set([...(pods.names ?? []), ...this.injected])].sort();
    const named = names.filter((name) => this.containers.has(name));
    if (this.mode === undefined && named.length === 0) {
      return undefined;
    }
    const modeOf = (name: string) => this.containers.get(name) ?? this.mode ?? OomKillMode.GROUP;
    const [first, ...others] = new Set(names.map(modeOf));
    // With no other mode there is nothing to wait for the names for.
    const alike = this.mode === undefined && pods.names !== undefined && others.length === 0;
    const mode = this.mode ?? (alike ? first : this.untilNamed) ?? OomKillMode.GROUP;
    const entries = alike
      ? []
      : names.filter((name) => named.includes(name) || modeOf(name) !== mode);
    return {
      mode,
      containers: entries.map((name) => `${name}=${modeOf(name)}`).join(',') || undefined,
    };
  }

  /**
   * Compares the containers of an object that is being rendered with those that were validated.
   *
   * @internal
   */
  public _seen(object: ApiObject, names: string[]): void {
    if (this.containers.size === 0) {
      return;
    }
    const changed = this.names.get(object)?.join() !== names.join();
    this.names.set(object, names);
    const [problem] = changed ? this.unknownContainers() : [];
    if (problem !== undefined) {
      throw new Error(`[${this._target.node.path}] ${problem}`);
    }
  }

  private add(props: OomKillPolicyProps): void {
    for (const name of props.injectedContainers ?? []) {
      this.injected.add(requireDnsLabel(this._target, 'injectedContainers', name));
    }
    for (const kind of props.workloadKinds ?? []) {
      this._kinds.push(requireWorkloadKind(this._target, kind));
    }
    if (props.untilNamed !== undefined) {
      requireMember(this._target, 'untilNamed', props.untilNamed, OomKillMode);
      if ((this.untilNamed ?? props.untilNamed) !== props.untilNamed) {
        throw misuse(this._target, 'untilNamed is both Single and Group', 'one of them');
      }
      this.untilNamed = props.untilNamed;
    }
  }

  /** Runs at every synthesis, once for each chart. What can wait is done when an object is rendered anyway. */
  private validate(): string[] {
    if (this.mode === undefined && this.containers.size === 0) {
      return [
        complaint(
          'OomKillPolicy.of() chooses no mode',
          '.single(), .group() or .perContainer({ … }) after it',
        ),
      ];
    }
    if (!this.objects.some((object) => this.isWorkload(object))) {
      return [this.noWorkload()];
    }
    // Of one object it comes out when that is rendered.
    return this.governed.length === 1 ? [] : this.unknownContainers();
  }

  private isWorkload(object: ApiObject): boolean {
    return (
      isKnownWorkload(object.apiVersion, object.kind) ||
      findPods(renderPlain(object), this._kinds).pods.length > 0
    );
  }

  private noWorkload(): string {
    const [only, ...others] = this.objects;
    if (only && others.length === 0 && isSameThing(this._target, only)) {
      const { unreachable } = findPods(renderPlain(only), this._kinds);
      return complaint(
        `${only.apiVersion} ${only.kind} ${unreachable ?? 'has no pod template'} for OomKillPolicy`,
        `OomKillPolicy.of() of a workload (${WORKLOAD_KINDS} or another kind with a pod template), of a scope around it, or workloadKinds in its options,`,
      );
    }
    return complaint(
      'there is no workload for OomKillPolicy in this scope',
      `OomKillPolicy.of() of a scope that holds one (${WORKLOAD_KINDS} or another kind with a pod template)`,
    );
  }

  private unknownContainers(): string[] {
    if (this.missing(this.governed).length === 0) {
      return [];
    }
    // What is remembered may be of an earlier synthesis.
    this.names.clear();
    const missing = this.missing(this.governed);
    const known = new Set(this.governed.flatMap((object) => this.namesOf(object)));
    return missing.map((name) => {
      const shadowed = this.objects
        .filter((object) => !this.governed.includes(object))
        .find((object) => this.namesOf(object).includes(name));
      return shadowed
        ? complaint(
            `perContainer names ${name}, a container of ${shadowed.node.path}, which another OomKillPolicy is nearer to, and that one counts alone`,
            'it there',
          )
        : complaint(
            `perContainer names a container that no workload here has: ${name}`,
            `${[...known].sort().join(' or ') || 'the name of a container'}, or injectedContainers: ["${name}"] if something adds it later,`,
          );
    });
  }

  /** Names of `perContainer` that none of these has; looks at no more of them than it must. */
  private missing(objects: ApiObject[]): string[] {
    const missing = new Set([...this.containers.keys()].filter((name) => !this.injected.has(name)));
    for (const object of objects) {
      if (missing.size === 0) {
        break;
      }
      this.namesOf(object).forEach((name) => missing.delete(name));
    }
    return [...missing];
  }

  private namesOf(object: ApiObject): string[] {
    const names =
      this.names.get(object) ??
      findPods(renderPlain(object), this._kinds).pods.flatMap((pods) => pods.names ?? []);
    this.names.set(object, names);
    return names;
  }
}

const PROPS: PropKinds<OomKillPolicyProps> = {
  labelPrefix: 'string',
  injectedContainers: 'strings',
  untilNamed: 'string',
  workloadKinds: 'list',
};

/** Of one kind one thing can be said. */
function requireWorkloadKind(target: IConstruct, kind: WorkloadKind): WorkloadKind {
  const given = requireProps(
    target,
    kind,
    {
      apiGroup: 'string!',
      kind: 'string!',
      podTemplates: 'strings',
      podMetadata: 'strings',
      skipped: 'boolean',
    },
    'workloadKinds',
  );
  const pointers = [...(given.podTemplates ?? []), ...(given.podMetadata ?? [])];
  const wrong = pointers.find((pointer) => !/^(\/([^~/]|~[01])+)+$/.test(pointer));
  if (wrong !== undefined) {
    throw misuse(
      target,
      `workloadKinds has an invalid JSON pointer for ${given.kind}: ${JSON.stringify(wrong)}`,
      'one such as "/spec/podTemplate"',
    );
  }
  if (pointers.length > 0 === (given.skipped ?? false)) {
    throw misuse(
      target,
      `workloadKinds says where the pods of ${given.kind} are and that it is skipped, or neither`,
      'podTemplates, podMetadata or skipped: true',
    );
  }
  return given;
}
