import { ApiObject } from 'cdk8s';
import { IConstruct } from 'constructs';
import { LONGEST_CONTAINERS_ANNOTATION, containersAnnotation, modeLabel } from './contract';
import { isMarked, isOfAgent, policiesOf } from './marks';
import { misuse } from './misuse';
import { Json, PodLocation, Pods, dig, apiGroup, findPods, put, text } from './pod-template';
import { isObject } from './props';

/** What a policy wants of pods. */
export interface Contract {
  readonly mode: string;
  readonly containers?: string;
}

/** What of a policy is needed where an object is rendered. */
export interface RenderedPolicy {
  readonly _target: IConstruct;
  /** How the user said it, for messages. */
  readonly _origin: string;
  readonly _kinds: PodLocation[];
  /** The names of containers in an object that has just been rendered, to compare with those seen before. */
  _seen(object: ApiObject, names: string[]): void;
  /** None if these pods are not opted in. */
  _decide(pods: Pods): Contract | undefined;
}

const HOOKED = Symbol.for('cdk8s-oom-kill-mode.rendering');

/**
 * Has an object say at every rendering what the policies above it say. What a user adds to a workload,
 * JSON patches, `Lazy` values and resolvers included, is in what cdk8s renders, and only there; so
 * this comes last, is the same for every kind of object, and costs no second rendering.
 */
export function hookRendering(object: ApiObject, prefixes: () => Iterable<string>): void {
  if (HOOKED in object) {
    return;
  }
  const render = object.toJson.bind(object);
  Object.defineProperty(object, HOOKED, { value: render });
  object.toJson = () => {
    const plain = render() as Json;
    if (isOfAgent(object)) {
      return plain;
    }
    requireReadable(object, plain, prefixes());
    return applyPolicies(object, plain);
  };
}

/** The object as cdk8s renders it, without what policies add. */
export function renderPlain(object: ApiObject): Json {
  const render = (object as { [HOOKED]?: () => Json })[HOOKED];
  return render ? render() : (object.toJson() as Json);
}

/** The object as cdk8s renders it, with what policies add. */
function applyPolicies(object: ApiObject, plain: Json): Json {
  const byPrefix = new Map<string, RenderedPolicy[]>();
  for (const scope of object.node.scopes.reverse()) {
    for (const [prefix, policy] of policiesOf(scope)) {
      byPrefix.set(prefix, [...(byPrefix.get(prefix) ?? []), policy]);
    }
  }
  let json = plain;
  for (const [prefix, [nearest, ...others]] of byPrefix) {
    if (!nearest) {
      continue;
    }
    const { pods, unreachable } = findPods(plain, nearest._kinds);
    if (unreachable !== undefined) {
      throw misuse(
        object,
        `${object.apiVersion} ${object.kind} ${unreachable}, and the OomKillPolicy of ${place(nearest)} cannot reach its pods`,
        `workloadKinds: [{ apiGroup: "${apiGroup(object.apiVersion)}", kind: "${object.kind}", … }] in the options of that policy, with podTemplates, podMetadata or skipped: true,`,
      );
    }
    const names = pods.flatMap((one) => one.names ?? []);
    nearest._seen(object, names);
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
        json = write(object, json, one, prefix, nearest, contract);
      }
    }
  }
  return json;
}

function write(
  object: ApiObject,
  json: Json,
  pods: Pods,
  prefix: string,
  policy: RenderedPolicy,
  { mode, containers }: Contract,
): Json {
  let written = json;
  const entries: [string, string, string | undefined][] = [
    ['labels', modeLabel(prefix), mode],
    ['annotations', containersAnnotation(prefix), containers],
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
  const child = isMarked(scope, 'deployment') ? scope.node.defaultChild : undefined;
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
function requireReadable(object: ApiObject, json: Json, prefixes: Iterable<string>): void {
  const { pods } = findPods(json);
  for (const prefix of prefixes) {
    const [label, annotation] = [modeLabel(prefix), containersAnnotation(prefix)];
    for (const { path } of pods) {
      const mode = text(dig(json, [...path, 'labels', label]));
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
    if (
      own !== undefined &&
      !pods.some(
        ({ path }) =>
          isObject(dig(json, path)) && text(dig(json, [...path, 'labels', label])) === own,
      )
    ) {
      throw misuse(
        object,
        `the label ${label}: ${own} is on the ${object.kind} itself, and its pods do not have it`,
        'OomKillPolicy.of() of it, or the label on its pod template,',
      );
    }
  }
}
