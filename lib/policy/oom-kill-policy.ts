import { Construct, IConstruct } from 'constructs';
import { OomKillMode } from './oom-kill-mode';
import { OomKillReportEntry } from './oom-kill-report';
import { DEFAULT_LABEL_PREFIX, requireLabelPrefix } from '../private/labels';
import { knownKind } from './known-kinds';
import { addPolicy, policyOf } from './own-constructs';
import { usageMessage, usageError } from '../private/usage-error';
import { ToldKind } from './pods';
import { PolicyChoices } from './policy-choices';
import { PropKinds, isObject, requireProps, show } from '../private/props';
import { attachTo, reportOf } from './synthesis';
import { isDnsLabel, isDnsSubdomain, requireDnsLabel, requireMember } from '../private/validation';

/**
 * Where objects of one kind say what their pods are. Entries of several calls for one kind add up. An entry that fits
 * no object of the target is an error, and so is one that fits only some elements of a `*`.
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
   * subdomain of at most 253 characters. The agent of the pods must have the same
   * prefix.
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
   * Where the pods are of kinds that the table of kinds (docs/kinds.md) does not have.
   *
   * An entry for a kind that the table has replaces the table's. Entries of several calls add up, and policies below a
   * scope know the entries of that scope.
   *
   * @default the table. An object of another kind that has what looks like the template of a pod in it is an error.
   */
  readonly workloadKinds?: WorkloadKind[];

  /**
   * Whether the target may have no workload, or nothing that an entry of `workloadKinds` means, as in a scope that a
   * feature flag empties.
   *
   * @default false
   */
  readonly allowEmpty?: boolean;
}

/**
 * Opts pods in, and sets what the kernel kills when they run out of memory.
 *
 * The policy is written on the pods' metadata as the label `<prefix>/mode` and,
 * for single containers, the annotation `<prefix>/containers`. That happens when
 * an object is rendered, after JSON patches and `Lazy` values, and reaches
 * workloads that are added to a scope after the call, those in a `List`, and those
 * of other projects that are in the table of kinds (docs/kinds.md). Objects that
 * only name workloads, or describe those of others, such as a rule of Kyverno,
 * are left as they are.
 *
 * Only one policy applies to a workload: the nearest one. The order of the calls does
 * not matter. The pods of an `OomKillModeAgent` are never opted in.
 *
 * Synthesis fails with the path of the target when
 *
 * - no mode was chosen,
 * - there is no workload in the target, and `allowEmpty` does not say so,
 * - only some pods of an object in it can be reached, or none of those it makes,
 * - an object of a kind that is not known has what looks like the template of a pod,
 * - no workload reached has a container of a given name,
 * - a workload carries the label or annotation already, with another value, or in
 *   a place where no pod gets it,
 * - a policy on a workload and one on its API object differ,
 * - its cluster, which is its outermost chart, has agents, and none with this prefix,
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
   * so that calls in different places add up, or fail if they contradict each other.
   *
   * @param target A workload, of cdk8s-plus or an `ApiObject` of any kind with pods,
   * or any scope (Chart, Helm, Include, your own construct), whose workloads are all
   * reached.
   * @param props Options. Lists add up with those of earlier calls.
   * @throws if the target is no construct, or an option is invalid or contradicts an earlier call.
   */
  public static of(target: IConstruct, props?: OomKillPolicyProps): OomKillPolicy {
    requireConstruct(target, 'OomKillPolicy.of');
    const options = props === undefined ? {} : requireProps(target, props, PROPS);
    const prefix =
      options.labelPrefix === undefined
        ? DEFAULT_LABEL_PREFIX
        : requireLabelPrefix(target, options.labelPrefix);
    const { root } = target.node;
    let policy = policyOf(root, target, prefix) as OomKillPolicy | undefined;
    if (!policy) {
      policy = new OomKillPolicy(target, prefix);
      attachTo(root);
      addPolicy(root, policy);
    }
    policy.add(options);
    return policy;
  }

  /**
   * The report of all policies of an app, or of a scope in it: `report()` of each, and objects with pods but without a
   * policy above them. With `OOM_KILL_POLICY_REPORT=1` in its environment a synthesis of the app prints it as a table
   * on standard error.
   *
   * @param scope The app, or any construct in it.
   * @returns an entry for each place in a manifest that labels pods, and one for each object that was left alone,
   * though it may have pods; sorted by construct path.
   * @throws what a synthesis would, and if the scope is no construct.
   */
  public static reportOf(scope: IConstruct): OomKillReportEntry[] {
    return reportOf(requireConstruct(scope, 'OomKillPolicy.reportOf'));
  }

  /** @internal */
  public readonly _choices: PolicyChoices;

  private constructor(target: IConstruct, prefix: string) {
    const choices = { containers: new Map(), injected: new Set<string>(), kinds: [] };
    this._choices = { target, prefix, ...choices };
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
   * with one mode for all containers has it from the first instruction on, and has no
   * annotation. Containers that something adds later get the same mode, unless
   * `injectedContainers` names them.
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
    const { target, containers, all } = this._choices;
    const remedy = '{ name: OomKillMode.SINGLE }';
    if (!isObject(modes)) {
      throw usageError(target, `perContainer() needs names and modes, not ${show(modes)}`, remedy);
    }
    if (Object.keys(modes).length === 0) {
      throw usageError(target, 'perContainer() names no container', remedy);
    }
    if (all === 'none') {
      throw usageError(target, 'both none() and perContainer() are set', 'only one of them');
    }
    for (const [name, mode] of Object.entries(modes)) {
      if (!isDnsLabel(name)) {
        throw usageError(
          target,
          `perContainer() has an invalid container name: ${JSON.stringify(name)}`,
          'lower case letters, digits and inner hyphens, at most 63',
        );
      }
      requireMember(target, `the mode of container ${name}`, mode, OomKillMode);
      const chosen = containers.get(name) ?? mode;
      if (chosen !== mode) {
        throw usageError(
          target,
          `container ${name} has two modes: ${chosen} and ${mode}`,
          'only one of them',
        );
      }
      containers.set(name, mode);
    }
    return this;
  }

  /**
   * No pod of the target is opted in, even if a policy above it sets a mode. Use it for one Job of a chart, for example.
   * The target may have objects that no policy can reach, and it may be empty.
   *
   * @returns this policy.
   * @throws if `single()`, `group()` or `perContainer()` was called before.
   */
  public none(): this {
    if (this._choices.containers.size > 0) {
      throw usageError(
        this._choices.target,
        'both perContainer() and none() are set',
        'only one of them',
      );
    }
    return this._choose('none', 'none()');
  }

  /**
   * The objects that this policy reaches, and those that it leaves alone, with the reason. The objects are rendered for it, and
   * all of the app is checked as in a synthesis.
   *
   * @returns an entry for each place in a manifest that labels pods, and one for each object that was left alone,
   * though it may have pods; sorted by construct path, for a snapshot in a test.
   * @throws what a synthesis would.
   */
  public report(): OomKillReportEntry[] {
    return reportOf(this._choices.target, this._choices);
  }

  /**
   * @param by what the user wrote, for messages
   * @internal
   */
  public _choose(all: OomKillMode | 'none', by: string): this {
    const { all: chosen, allBy } = this._choices;
    if (chosen !== undefined && chosen !== all) {
      throw usageError(this._choices.target, `both ${allBy} and ${by} are set`, 'only one of them');
    }
    this._choices.all = all;
    this._choices.allBy ??= by;
    return this;
  }

  private add(props: OomKillPolicyProps): void {
    const choices = this._choices;
    const { target, injected, kinds } = choices;
    for (const name of props.injectedContainers ?? []) {
      injected.add(requireDnsLabel(target, 'injectedContainers', name));
    }
    for (const kind of props.workloadKinds ?? []) {
      const entry = requireWorkloadKind(target, kind);
      requireNoOther(target, kinds, entry);
      kinds.push(entry);
    }
    if (props.untilNamed !== undefined) {
      requireMember(target, 'untilNamed', props.untilNamed, OomKillMode);
      if ((choices.untilNamed ?? props.untilNamed) !== props.untilNamed) {
        throw usageError(target, 'untilNamed is both Single and Group', 'only one of them');
      }
      choices.untilNamed = props.untilNamed;
    }
    choices.allowEmpty = (choices.allowEmpty ?? false) || (props.allowEmpty ?? false);
  }
}

function requireConstruct(target: IConstruct, where: string): IConstruct {
  if (!Construct.isConstruct(target)) {
    throw new Error(
      `[${where}] ${usageMessage(`the target is not a construct: ${show(target)}`, 'a workload, a chart, or a scope in between')}`,
    );
  }
  return target;
}

const PROPS: PropKinds<OomKillPolicyProps> = {
  labelPrefix: 'string',
  injectedContainers: 'strings',
  untilNamed: 'string',
  workloadKinds: 'list',
  allowEmpty: 'boolean',
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
  if (given.apiGroup !== '' && !isDnsSubdomain(given.apiGroup)) {
    throw usageError(
      target,
      `workloadKinds has an invalid API group: ${JSON.stringify(given.apiGroup)}`,
      `apiGroup: ${JSON.stringify(given.apiGroup.replace(/\/.*/, '').toLowerCase())}, without a version`,
    );
  }
  if (!/^[A-Z][A-Za-z0-9]*$/.test(given.kind) && !knownKind(given.apiGroup, given.kind)) {
    throw usageError(
      target,
      `workloadKinds has an invalid kind: ${JSON.stringify(given.kind)}`,
      `a kind as in the manifest, such as kind: "${given.kind.charAt(0).toUpperCase()}${given.kind.slice(1)}"`,
    );
  }
  const pointers = [...(given.podTemplates ?? []), ...(given.podMetadata ?? [])];
  const wrong = pointers.find((pointer) => !/^(\/([^~/]|~[01])+)+$/.test(pointer));
  if (wrong !== undefined) {
    throw usageError(
      target,
      `workloadKinds has an invalid JSON pointer for ${given.kind}: ${JSON.stringify(wrong)}`,
      'a pointer such as "/spec/podTemplate"',
    );
  }
  if (pointers.length > 0 === (given.skipped ?? false)) {
    throw usageError(
      target,
      `workloadKinds must either skip ${given.kind} or say where its pods are`,
      'podTemplates, podMetadata or skipped: true',
    );
  }
  return given;
}

function requireNoOther(target: IConstruct, kinds: readonly ToldKind[], entry: WorkloadKind): void {
  const other = kinds.find(
    ({ apiGroup, kind, skipped = false }) =>
      apiGroup === entry.apiGroup && kind === entry.kind && skipped !== (entry.skipped ?? false),
  );
  if (other) {
    throw usageError(
      target,
      `one entry of workloadKinds says where the pods of ${entry.kind} are, and another entry skips it`,
      'only one of them',
    );
  }
}
