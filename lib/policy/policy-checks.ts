import { Json, apiGroup } from './json';
import { WORKLOAD_KINDS, knownKind } from './known-kinds';
import { isSameThing } from './own-constructs';
import { usageError } from '../private/usage-error';
import { Manifest, NO_PODS, manifestsOf } from './pods';
import { PolicyChoices, nameOf } from './policy-choices';
import { Scope, Surveyed } from './survey';

/** Renders an object before its turn. */
export interface Look {
  render(one: Surveyed): Json | undefined;
}

export function requireChoice({ target, all, containers }: PolicyChoices): void {
  if (all === undefined && containers.size === 0) {
    throw usageError(
      target,
      'OomKillPolicy.of() chooses no mode',
      '.single(), .group(), .perContainer({ … }) or .none() after it',
    );
  }
}

export function requireWorkload(policy: PolicyChoices, scope: Scope, look: Look): void {
  if (policy.all === 'none' || policy.allowEmpty || hasPods(policy, scope, look)) {
    return;
  }
  const { objects, hasAgent } = scope;
  const { target } = policy;
  const [only, ...others] = objects;
  if (only && others.length === 0 && isSameThing(target, only.object)) {
    const { apiVersion, kind } = only.object;
    const { untouched = NO_PODS } = manifestsUnder(policy, only, look)[0] ?? {};
    throw usageError(
      target,
      `${apiVersion} ${kind} has no pods for OomKillPolicy${untouched === NO_PODS ? '' : `, because ${untouched}`}`,
      `OomKillPolicy.of() of a workload (${WORKLOAD_KINDS} or another kind in docs/kinds.md), of a scope around it, or workloadKinds in its options`,
    );
  }
  const remedy = `OomKillPolicy.of() of a scope that holds one (${WORKLOAD_KINDS} or another kind in docs/kinds.md), or allowEmpty: true in its options`;
  throw hasAgent
    ? usageError(
        target,
        'this scope has no workload except an OomKillModeAgent, whose pods are never opted in',
        remedy,
      )
    : usageError(
        target,
        `this scope has no workload for OomKillPolicy${leftAlone(objects, policy, look)}`,
        remedy,
      );
}

/** Names an object that the user may have mistaken for a workload. */
function leftAlone(objects: readonly Surveyed[], policy: PolicyChoices, look: Look): string {
  for (const one of objects) {
    for (const { untouched = NO_PODS, apiVersion, kind } of manifestsUnder(policy, one, look)) {
      if (untouched !== NO_PODS) {
        return `, and ${apiVersion} ${kind} is left alone because ${untouched}`;
      }
    }
  }
  return '';
}

function hasPods(policy: PolicyChoices, { objects }: Scope, look: Look): boolean {
  const isKnown = ({ object: { apiVersion, kind } }: Surveyed) => {
    const isUserKind = policy.kinds.some((one) => one.kind === kind);
    const known = isUserKind ? undefined : knownKind(apiGroup(apiVersion), kind);
    return known !== undefined && known.refersBy === undefined;
  };
  // Objects that must be rendered come last.
  return (
    objects.some(isKnown) ||
    objects.some(
      (one) =>
        look.render(one) === undefined ||
        manifestsUnder(policy, one, look).some(({ pods, problem }) => pods.length > 0 || problem),
    )
  );
}

function manifestsUnder({ prefix }: PolicyChoices, one: Surveyed, look: Look): Manifest[] {
  const governing = one.policies.find(({ policies: [nearest] }) => nearest.prefix === prefix);
  return manifestsOf(look.render(one) ?? {}, governing?.userKinds ?? []);
}

export function requireUserKinds(policy: PolicyChoices, { objects }: Scope, look: Look): void {
  for (const { apiGroup: group, kind } of policy.allowEmpty ? [] : policy.kinds) {
    const isThere = objects.some(
      ({ object }) => object.kind === kind && apiGroup(object.apiVersion) === group,
    );
    const isListed = () =>
      objects
        .filter(({ object }) => object.kind.endsWith('List'))
        .flatMap((one) => manifestsUnder(policy, one, look))
        .some((one) => one.kind === kind && apiGroup(one.apiVersion) === group);
    if (!isThere && !isListed()) {
      const similar = objects
        .map(({ object }) => object)
        .find(
          (one) =>
            one.kind.toLowerCase() === kind.toLowerCase() || apiGroup(one.apiVersion) === group,
        );
      throw usageError(
        policy.target,
        `workloadKinds has ${group} ${kind}, but this scope has no such object`,
        `${similar ? `apiGroup: "${apiGroup(similar.apiVersion)}", kind: "${similar.kind}"` : 'the group and kind of an object in this scope'}, or allowEmpty: true`,
      );
    }
  }
}

/** Refuses a name that no workload has. Stops rendering objects as soon as all names are found. */
export function requireContainers(policy: PolicyChoices, { objects }: Scope, look: Look): void {
  if (policy.containers.size === 0) {
    return;
  }
  const missing = new Set(
    [...policy.containers.keys()].filter((name) => !policy.injected.has(name)),
  );
  const governed = objects.filter(({ policies }) =>
    policies.some(({ policies: [nearest] }) => nearest === policy),
  );
  const known = new Set<string>();
  for (const one of governed) {
    if (missing.size === 0 || look.render(one) === undefined) {
      return;
    }
    for (const name of containersOf(policy, one, look)) {
      known.add(name);
      missing.delete(name);
    }
  }
  const [name] = missing;
  if (name === undefined || (policy.allowEmpty && known.size === 0)) {
    return;
  }
  const shadowed = objects
    .filter((one) => !governed.includes(one))
    .find((one) => containersOf(policy, one, look).includes(name));
  const nearer = shadowed?.policies
    .map(({ policies: [nearest] }) => nearest)
    .find(({ prefix }) => prefix === policy.prefix);
  throw shadowed && nearer
    ? usageError(
        policy.target,
        `perContainer() names ${name}, a container of ${shadowed.object.node.path}, but only the nearest policy applies there: ${nameOf(nearer)}`,
        `perContainer({ ${name}: … }) of ${nearer.target.node.path || 'the app'}`,
      )
    : usageError(
        policy.target,
        `perContainer() names the container ${name}, but no workload in this scope has it`,
        `${[...known].sort().join(' or ') || 'the name of a container'}, or injectedContainers: ["${name}"] if something adds it later`,
      );
}

function containersOf(policy: PolicyChoices, one: Surveyed, look: Look): string[] {
  return manifestsUnder(policy, one, look).flatMap(({ pods }) =>
    pods.flatMap(({ containers }) => containers()),
  );
}
