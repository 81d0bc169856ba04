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

/** The policies above an object, the nearest first. */
type PoliciesOfPrefix = [RenderedPolicy, ...RenderedPolicy[]];

export type Policies = Map<string, PoliciesOfPrefix>;

interface Hook {
  readonly render: () => unknown;
  policies: Policies;
  prefixes: Set<string>;
}

const HOOK = Symbol.for('cdk8s-oom-kill-mode.rendering');

function hookOf(object: ApiObject): Hook | undefined {
  return (object as { [HOOK]?: Hook })[HOOK];
}

/**
 * Has an object say at every rendering what the policies above it say. What a user adds to a workload,
 * JSON patches, `Lazy` values and resolvers included, is in what cdk8s renders, and only there; so
 * this comes last, is the same for every kind of object, and costs no second rendering.
 */
export function hookRendering(object: ApiObject, policies: Policies, prefixes: Set<string>): void {
  const existing = hookOf(object);
  if (existing) {
    Object.assign(existing, { policies, prefixes });
    return;
  }
  const hook: Hook = { render: object.toJson.bind(object), policies, prefixes };
  Object.defineProperty(object, HOOK, { value: hook });
  object.toJson = () => {
    const plain = hook.render() as Json;
    const found = findPods(plain);
    for (const prefix of hook.prefixes) {
      requireReadable(object, plain, found.pods, prefix);
    }
    let json = plain;
    for (const policies of hook.policies.values()) {
      json = applyPolicies(object, json, found, policies);
    }
    return json;
  };
}

/** The object as cdk8s renders it, without what policies add. */
export function renderPlain(object: ApiObject): Json {
  return (hookOf(object)?.render() ?? object.toJson()) as Json;
}

/** A rendered object with what the nearest of some policies of one prefix adds. */
function applyPolicies(
  object: ApiObject,
  rendered: Json,
  found: Found,
  [nearest, ...others]: PoliciesOfPrefix,
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
  let json = rendered;
  for (const one of pods) {
    const contract = nearest._decide(one);
    for (const other of others.filter(({ _target }) => isSameThing(_target, object))) {
      requireSame(object, nearest, contract, other, other._decide(one));
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
  let written = json;
  const entries: [string, string, string | undefined][] = [
    ['labels', modeLabel(policy._prefix), mode],
    ['annotations', containersAnnotation(policy._prefix), containers],
  ];
  for (const [map, key, value] of entries) {
    const found = text(dig(json, [...pods.path, map, key]));
    if (found !== undefined && found !== value) {
      throw misuse(
        object,
        `its pods say ${key}: ${found} already, and ${policy._origin} of ${place(policy)} says ${value ?? 'no such thing'}`,
        'one of the two',
      );
    }
    if (value !== undefined && value.length > LONGEST_CONTAINERS_ANNOTATION) {
      throw misuse(
        object,
        `${key} is longer than ${LONGEST_CONTAINERS_ANNOTATION} characters, and the agent would not read it: ${value.length}`,
        'single() or group() for most containers, and perContainer() for the others,',
      );
    }
    if (value !== undefined) {
      written = put(written, [...pods.path, map, key], value) as Json;
    }
  }
  return written;
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
  const modes = pods.map(({ path }) => text(dig(json, [...path, 'labels', label])));
  for (const [i, { path }] of pods.entries()) {
    const mode = modes[i];
    if (mode !== undefined && !/^(Single|Group)$/.test(mode)) {
      throw misuse(
        object,
        `its pods say ${label}: ${mode}, which is no mode`,
        `${label}: Single or ${label}: Group`,
      );
    }
    const containers = text(dig(json, [...path, 'annotations', annotation])) ?? '';
    if (containers !== '' && !/^( *[a-z0-9-]{1,63}=(Single|Group) *(,|$))+$/.test(containers)) {
      throw misuse(
        object,
        `its pods say ${annotation}: ${containers}, which cannot be read`,
        `${annotation}: name=Single,other=Group`,
      );
    }
  }
  const own = text(dig(json, ['metadata', 'labels', label]));
  if (own !== undefined && !modes.includes(own)) {
    throw misuse(
      object,
      `the label ${label}: ${own} is on the ${object.kind} itself, and its pods do not have it`,
      'OomKillPolicy.of() of it, or the label on its pod template,',
    );
  }
}
