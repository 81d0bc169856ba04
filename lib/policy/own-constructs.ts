import type { ApiObject } from 'cdk8s';
import { IConstruct } from 'constructs';
import type { PolicyChoices } from './policy-choices';

// By a name that every copy of this library knows: npm may have installed two, of which each has
// classes of its own, so that `instanceof` sees half of what is there.
const MARK = Symbol.for('cdk8s-oom-kill-mode.construct');
const POLICIES = Symbol.for('cdk8s-oom-kill-mode.policies');

/** What makes a construct one of ours. */
export type Role = 'agent' | 'admission' | 'monitoring' | 'deployment' | 'drop-in';

export function setRole(construct: IConstruct, role: Role): void {
  Object.defineProperty(construct, MARK, { value: role });
}

export function roleOf(construct: IConstruct): Role | undefined {
  return (construct as { [MARK]?: Role })[MARK];
}

/** Where a user sees one thing: a construct of cdk8s-plus and its object, a deployment of ours and what it is made of. */
export function isSameThing(scope: IConstruct, object: ApiObject): boolean {
  const { apiObject } = scope as { apiObject?: unknown };
  const child = roleOf(scope) === 'deployment' ? scope.node.defaultChild : undefined;
  return (
    scope === object || apiObject === object || (child !== undefined && isSameThing(child, object))
  );
}

/** A policy as a construct carries it. */
export interface CarriedPolicy {
  readonly _choices: PolicyChoices;
}

/** The policies of an app, by target: one for each prefix. */
export type CarriedPolicies = Map<IConstruct, CarriedPolicy[]>;

/**
 * The root has them, and not each target: cdk8s goes through all constructs for every chart, which takes longer if
 * those of one class are not alike.
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
