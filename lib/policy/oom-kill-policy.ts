import { Construct, IConstruct } from 'constructs';
import { OomKillMode } from './oom-kill-mode';
import { OomKillReportEntry } from './oom-kill-report';
import { DEFAULT_LABEL_PREFIX, requireLabelPrefix } from '../private/labels';
import { knownKind } from './known-kinds';
import { addPolicy, policyOf } from './own-constructs';
import { usageMessage, usageError } from '../private/usage-error';
import { UserKind } from './pods';
import { PolicyChoices } from './policy-choices';
import { PropKinds, isObject, requireProps, show } from '../private/props';
import { attachTo, reportOf } from './synthesis';
import { isDnsLabel, isDnsSubdomain, requireDnsLabel, requireMember } from '../private/validation';

/**
 * The fields of a kind that describe its pods. Entries of several calls for one kind add up. An entry that
 * fits no object of the target is an error, and so is one that fits only some elements of a `*`.
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
   * A template has `metadata` and `spec.containers`. A step `*` stands for every element of a
   * list or map.
   *
   * @default none
   */
  readonly podTemplates?: string[];

  /**
   * JSON pointers to the objects with the `labels` and `annotations` that the kind gives to its
   * pods, such as "/spec/inheritedMetadata". The policy then does not know the names of the
   * containers, and `perContainer` takes those of `injectedContainers`.
   *
   * @default none
   */
  readonly podMetadata?: string[];

  /**
   * Whether the policy leaves objects of this kind alone.
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
   * Names of containers that something else adds to the pods later, such as `istio-proxy`:
   * DNS-1123 labels. Every workload of the policy counts as having them.
   *
   * @default []
   */
  readonly injectedContainers?: string[];

  /**
   * The mode of a container until the agent knows its name, some 100 ms after its start. It is
   * used if `perContainer` sets several modes and neither `single()` nor `group()` is called.
   *
   * @default OomKillMode.GROUP. If that is wrong, it restarts a container that has done nothing
   * yet. A wrong Single would leave half a container running for good
   */
  readonly untilNamed?: OomKillMode;

  /**
   * The fields of kinds that are not in the table of kinds (docs/kinds.md).
   *
   * An entry replaces that of the table for the same kind. Entries of several calls add up.
   * Policies below a scope also use the entries of that scope.
   *
   * @default the table. An object of another kind is an error if something in it looks like the
   * template of a pod
   */
  readonly workloadKinds?: WorkloadKind[];

  /**
   * Whether the target may have no workload, or no object for an entry of `workloadKinds`, for
   * example because a feature flag empties the scope.
   *
   * @default false
   */
  readonly allowEmpty?: boolean;
}

/**
 * Opts pods in, and sets what the kernel kills when they run out of memory.
 *
 * The policy writes the label `<prefix>/mode` and, for single containers, the annotation
 * `<prefix>/containers` to the metadata of the pods. It does so when an object is rendered, after JSON
 * patches and `Lazy` values. It also reaches workloads that are added to a scope after the call, workloads in
 * a `List`, and workloads of other projects that are in the table of kinds (docs/kinds.md). It does not
 * change objects that only name or describe workloads, such as a rule of Kyverno.
 *
 * Only the nearest policy applies to a workload. The order of the calls does not matter. The pods of an
 * `OomKillModeAgent` are never opted in.
 *
 * Synthesis fails with the path of the target if
 *
 * - no mode was chosen,
 * - the target has no workload, and `allowEmpty` is not set,
 * - the policy cannot reach all pods of an object in it,
 * - an object of an unknown kind has a field that looks like the template of a pod,
 * - no workload of the policy has a container with a given name,
 * - a workload already has the label or annotation with another value, or in a place from which no pod gets
 *   it,
 * - a policy on a workload and one on its API object differ,
 * - its cluster (outermost chart) has agents, but none with this prefix,
 * - the annotation would have more than 8192 characters, which the agent does not read.
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
   * Returns the policy of a target. For the same target and prefix it is always the same
   * object, so calls in different places add up, or fail if they contradict each other.
   *
   * @param target A workload of cdk8s-plus, an `ApiObject` of a kind with pods, or a scope
   * (Chart, Helm, Include, your own construct) with all its workloads.
   * @param props Options. Lists add up with those of earlier calls.
   * @throws if the target is not a construct, or an option is invalid or contradicts an earlier
   * call.
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
   * Reports what the policies of an app, or of a scope in it, do: the `report()` of each, and
   * objects with pods but without a policy. With `OOM_KILL_POLICY_REPORT=1` in the environment,
   * a synthesis of the app prints the report as a table on standard error.
   *
   * @param scope The app, or any construct in it.
   * @returns an entry for each place in a manifest that labels pods, and one for each object that was left alone,
   * though it may have pods; sorted by construct path.
   * @throws the errors of a synthesis, and an error if the scope is not a construct.
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
   * Sets the modes of single containers, including init containers and sidecars.
   *
   * The other containers get the mode of `single()` or `group()`. Without these calls they get
   * `Group`, the kubelet's default since Kubernetes 1.28 (except with `singleProcessOOMKill:
   * true`).
   *
   * The agent knows the name of a container some 100 ms after its start. Until then the
   * container has the mode of the pod's label. That is the mode of `single()` or `group()`,
   * otherwise the mode that all containers have, otherwise `untilNamed`. So a pod with one mode
   * for all containers has it from the first instruction on, and needs no annotation.
   * Containers that something adds later get the mode of the label, unless `injectedContainers`
   * names them.
   *
   * On a scope, each workload gets the modes of its own containers. Only `single()` or
   * `group()` opts in a workload without any of them.
   *
   * @param modes Container names and their modes. Calls add up.
   * @returns this policy.
   * @throws if there is no name, a name is not a DNS-1123 label, a mode is unknown, or a name
   * already has another mode.
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
   * Reports the objects that this policy reaches, and those that it leaves alone, with the
   * reason. It renders the objects and checks the whole app, as a synthesis does.
   *
   * @returns an entry for each place in a manifest that labels pods, and one for each object that was left alone,
   * though it may have pods; sorted by construct path, for a snapshot in a test.
   * @throws the errors of a synthesis.
   */
  public report(): OomKillReportEntry[] {
    return reportOf(this._choices.target, this._choices);
  }

  /**
   * @param by the call or option of the user, for messages
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

/** Refuses an invalid entry, and one that both skips a kind and describes its pods. */
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

function requireNoOther(target: IConstruct, kinds: readonly UserKind[], entry: WorkloadKind): void {
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
