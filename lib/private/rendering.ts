import { ApiObject } from 'cdk8s';
import { IConstruct } from 'constructs';
import { LONGEST_CONTAINERS_ANNOTATION, containersAnnotation, modeLabel } from './contract';
import { markOf } from './marks';
import { misuse } from './misuse';
import { Found, Json, PodLocation, Pods, dig, apiGroup, findPods, put, text } from './pod-template';

/** What a policy wants of pods. */
export interface Contract {
  readonly mode: string;
  readonly containers?: string;
}

/** What of a policy is needed where an object is rendered. */
export interface RenderedPolicy {
  readonly _target: IConstruct;
  readonly _prefix: string;
  /** How the user said it, for messages. */
  readonly _origin: string;
  readonly _kinds: PodLocation[];
  /** A new synthesis. */
  _forget(): void;
  /** There is an object below, whose nearest policy this is, or is not. */
  _reach(object: ApiObject, governed: boolean): void;
  /** The names of containers in an object that has just been rendered, to compare with those seen before. */
  _seen(object: ApiObject, names: string[]): void;
  /** None if these pods are not opted in. */
  _decide(pods: Pods): Contract | undefined;
}

/** The policies above an object, by prefix, the nearest first. */
export type Policies = Map<string, [RenderedPolicy, ...RenderedPolicy[]]>;

interface Hook {
  /** What the object did before. */
  readonly toJson: () => unknown;
  policies: Policies;
  prefixes: Set<string>;
}

const HOOK = Symbol.for('cdk8s-oom-kill-mode.rendering');

type Hooked = ApiObject & { [HOOK]?: Hook };

/**
 * Has an object say at every rendering what the policies above it say. What a user adds to a workload,
 * JSON patches, `Lazy` values and resolvers included, is in what cdk8s renders, and only there; so
 * this comes last, is the same for every kind of object, and costs no second rendering.
 */
export function hookRendering(object: Hooked, policies: Policies, prefixes: Set<string>): void {
  const hook = object[HOOK];
  if (hook) {
    hook.policies = policies;
    hook.prefixes = prefixes;
  } else {
    // eslint-disable-next-line @typescript-eslint/unbound-method -- it is called with the object
    object[HOOK] = { toJson: object.toJson, policies, prefixes };
    object.toJson = renderWithPolicies;
  }
}

/** The object as cdk8s renders it, without what policies add. */
export function renderPlain(object: Hooked): Json {
  return (object[HOOK] ?? object).toJson.call(object) as Json;
}

/** What `toJson` of an object is from then on. */
function renderWithPolicies(this: Hooked): Json {
  let json = renderPlain(this);
  const { policies, prefixes } = this[HOOK] as Hook;
  const found = findPods(json);
  for (const prefix of prefixes) {
    requireReadable(this, json, found.pods, prefix);
  }
  for (const ofPrefix of policies.values()) {
    json = applyPolicies(this, json, found, ofPrefix);
  }
  return json;
}

/** A rendered object with what the nearest of some policies of one prefix adds. */
function applyPolicies(
  object: ApiObject,
  rendered: Json,
  found: Found,
  [nearest, ...others]: [RenderedPolicy, ...RenderedPolicy[]],
): Json {
  const { pods, unreachable } =
    nearest._kinds.length > 0 ? findPods(rendered, nearest._kinds) : found;
  if (unreachable !== undefined) {
    throw misuse(
      object,
      `${object.apiVersion} ${object.kind} ${unreachable}, and the OomKillPolicy of ${place(nearest)} cannot reach its pods`,
      `workloadKinds: [{ apiGroup: "${apiGroup(object.apiVersion)}", kind: "${object.kind}", … }] in the options of that policy, with podTemplates, podMetadata or skipped: true,`,
    );
  }
  nearest._seen(
    object,
    pods.flatMap((one) => one.names ?? []),
  );
  const rivals = others.filter(({ _target }) => isSameThing(_target, object));
  let json = rendered;
  for (const one of pods) {
    const contract = nearest._decide(one);
    for (const rival of rivals) {
      requireSame(object, nearest, contract, rival, rival._decide(one));
    }
    if (!contract && !one.names) {
      throw misuse(
        object,
        `the names of its containers are not known to the perContainer() of ${place(nearest)}`,
        'single() or group() as well, injectedContainers, or an OomKillPolicy of its own,',
      );
    }
    if (contract) {
      json = write(object, json, one, nearest, contract);
    }
  }
  return json;
}

function write(
  object: ApiObject,
  json: Json,
  pods: Pods,
  policy: RenderedPolicy,
  { mode, containers }: Contract,
): Json {
  const labelled = writeOne(
    object,
    json,
    [...pods.path, 'labels', modeLabel(policy._prefix)],
    mode,
    policy,
  );
  return writeOne(
    object,
    labelled,
    [...pods.path, 'annotations', containersAnnotation(policy._prefix)],
    containers,
    policy,
  );
}

function writeOne(
  object: ApiObject,
  json: Json,
  path: string[],
  value: string | undefined,
  policy: RenderedPolicy,
): Json {
  const found = text(dig(json, path));
  if (found !== undefined && found !== value) {
    throw misuse(
      object,
      `its pods say ${path.at(-1)}: ${found} already, and ${policy._origin} of ${place(policy)} says ${value ?? 'no such thing'}`,
      'one of the two',
    );
  }
  if (value === undefined) {
    return json;
  }
  if (value.length > LONGEST_CONTAINERS_ANNOTATION) {
    throw misuse(
      object,
      `${path.at(-1)} is longer than ${LONGEST_CONTAINERS_ANNOTATION} characters, and the agent would not read it: ${value.length}`,
      'single() or group() for most containers, and perContainer() for the others,',
    );
  }
  return put(json, path, value) as Json;
}

/** Where a user sees one thing: a construct of cdk8s-plus and its object, a deployment of ours and what it is made of. */
export function isSameThing(scope: IConstruct, object: ApiObject): boolean {
  const { apiObject } = scope as { apiObject?: unknown };
  const child = markOf(scope) === 'deployment' ? scope.node.defaultChild : undefined;
  return (
    scope === object || apiObject === object || (child !== undefined && isSameThing(child, object))
  );
}

function requireSame(
  object: ApiObject,
  a: RenderedPolicy,
  as: Contract | undefined,
  b: RenderedPolicy,
  bs: Contract | undefined,
): void {
  if (as?.mode !== bs?.mode || as?.containers !== bs?.containers) {
    throw misuse(
      object,
      `${a._origin} of ${place(a)} says ${describe(as)} about its pods, and ${b._origin} of ${place(b)} says ${describe(bs)}`,
      'one of the two',
    );
  }
}

function describe(contract: Contract | undefined): string {
  return contract ? [contract.mode, contract.containers].filter(Boolean).join(' ') : 'nothing';
}

function place({ _target }: RenderedPolicy): string {
  return _target.node.path || 'the app';
}

/** Whatever opts pods in, whoever wrote it, has to be something that the agent reads. */
function requireReadable(object: ApiObject, json: Json, pods: Pods[], prefix: string): void {
  const [label, annotation] = [modeLabel(prefix), containersAnnotation(prefix)];
  let said = false;
  const own = text(dig(json, ['metadata', 'labels', label]));
  for (const { path } of pods) {
    const metadata = dig(json, path);
    const mode = text(dig(metadata, ['labels', label]));
    said ||= mode === own;
    if (mode !== undefined && !/^(Single|Group)$/.test(mode)) {
      throw misuse(
        object,
        `its pods say ${label}: ${mode}, which is no mode`,
        `${label}: Single or ${label}: Group`,
      );
    }
    const containers = text(dig(metadata, ['annotations', annotation])) ?? '';
    if (containers !== '' && !/^( *[a-z0-9-]{1,63}=(Single|Group) *(,|$))+$/.test(containers)) {
      throw misuse(
        object,
        `its pods say ${annotation}: ${containers}, which cannot be read`,
        `${annotation}: name=Single,other=Group`,
      );
    }
  }
  if (own !== undefined && !said) {
    throw misuse(
      object,
      `the label ${label}: ${own} is on the ${object.kind} itself, and its pods do not have it`,
      'OomKillPolicy.of() of it, or the label on its pod template,',
    );
  }
}
