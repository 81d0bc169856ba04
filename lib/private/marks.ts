import { IConstruct } from 'constructs';
import type { RenderedPolicy } from './rendering';

// By a name that every copy of this library knows: npm may have installed two, of which each has
// classes of its own, so that `instanceof` sees half of what is there.
const MARK = Symbol.for('cdk8s-oom-kill-mode.construct');
const POLICIES = Symbol.for('cdk8s-oom-kill-mode.policies');

/** What makes a construct one of ours. */
export type Mark = 'agent' | 'admission' | 'monitoring' | 'deployment';

export function setMark(construct: IConstruct, mark: Mark): void {
  Object.defineProperty(construct, MARK, { value: mark });
}

export function isMarked(construct: IConstruct, ...marks: Mark[]): boolean {
  return marks.includes((construct as { [MARK]?: Mark })[MARK] as Mark);
}

/** The policies of a target, by prefix. */
export function policiesOf(target: IConstruct): Map<string, RenderedPolicy> {
  return (
    (target as { [POLICIES]?: Map<string, RenderedPolicy> })[POLICIES] ??
    new Map<string, RenderedPolicy>()
  );
}

export function setPolicy(target: IConstruct, prefix: string, policy: RenderedPolicy): void {
  const policies = policiesOf(target).set(prefix, policy);
  Object.defineProperty(target, POLICIES, { value: policies, configurable: true });
}

/** Whether an object belongs to an agent, whose pods nobody opts in. */
export function isOfAgent(construct: IConstruct): boolean {
  return construct.node.scopes.some((scope) => isMarked(scope, 'agent'));
}
