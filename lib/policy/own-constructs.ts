import type { ApiObject } from 'cdk8s';
import { IConstruct } from 'constructs';
import type { PolicyChoices } from './policy-choices';

// Global symbols, because npm may install two copies of this library. Each copy has its own classes, so
// `instanceof` would miss the constructs of the other copy.
const MARK = Symbol.for('cdk8s-oom-kill-mode.construct');
const POLICIES = Symbol.for('cdk8s-oom-kill-mode.policies');

/** The role of a construct of this library. */
export type Role = 'agent' | 'admission' | 'monitoring' | 'deployment' | 'drop-in';

export function setRole(construct: IConstruct, role: Role): void {
  Object.defineProperty(construct, MARK, { value: role });
}

export function roleOf(construct: IConstruct): Role | undefined {
  return (construct as { [MARK]?: Role })[MARK];
}

/**
 * Whether both are one thing for a user: a construct of cdk8s-plus and its object, or a deployment of this
 * library and its parts.
 */
export function isSameThing(scope: IConstruct, object: ApiObject): boolean {
  const { apiObject } = scope as { apiObject?: unknown };
  const child = roleOf(scope) === 'deployment' ? scope.node.defaultChild : undefined;
  return (
    scope === object || apiObject === object || (child !== undefined && isSameThing(child, object))
  );
}

/** A policy, as the root of an app holds it. */
export interface CarriedPolicy {
  readonly _choices: PolicyChoices;
}

/** The policies of an app, by target: one for each prefix. */
export type CarriedPolicies = Map<IConstruct, CarriedPolicy[]>;

/**
 * The root holds all policies. If each target held its own, constructs of one class would differ in shape,
 * and cdk8s, which walks over all of them for every chart, would take longer.
 */
export function policiesBelow(root: IConstruct): CarriedPolicies | undefined {
  return (root as { [POLICIES]?: CarriedPolicies })[POLICIES];
}

export function policyOf(
  root: IConstruct,
  target: IConstruct,
  prefix: string,
): CarriedPolicy | undefined {
  const own = policiesBelow(root)?.get(target);
  return own?.find(({ _choices }) => _choices.prefix === prefix);
}

export function addPolicy(root: IConstruct, policy: CarriedPolicy): void {
  const { target } = policy._choices;
  const all = policiesBelow(root) ?? (new Map() as CarriedPolicies);
  all.set(target, [...(all.get(target) ?? []), policy]);
  (root as { [POLICIES]?: CarriedPolicies })[POLICIES] = all;
}
