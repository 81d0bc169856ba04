import { IConstruct } from 'constructs';
import type { RenderedPolicy } from './rendering';

// By a name that every copy of this library knows: npm may have installed two, of which each has
// classes of its own, so that `instanceof` sees half of what is there.
const MARK = Symbol.for('cdk8s-oom-kill-mode.construct');
const POLICIES = Symbol.for('cdk8s-oom-kill-mode.policies');

/** What makes a construct one of ours. */
export type Mark = 'agent' | 'admission' | 'monitoring' | 'deployment' | 'drop-in';

export function setMark(construct: IConstruct, mark: Mark): void {
  Object.defineProperty(construct, MARK, { value: mark });
}

export function markOf(construct: IConstruct): Mark | undefined {
  return (construct as { [MARK]?: Mark })[MARK];
}

/** The policies of a target, by prefix. */
export function policiesOf(target: IConstruct): Map<string, RenderedPolicy> | undefined {
  return (target as { [POLICIES]?: Map<string, RenderedPolicy> })[POLICIES];
}

export function setPolicy(target: IConstruct, prefix: string, policy: RenderedPolicy): void {
  const policies = policiesOf(target) ?? new Map<string, RenderedPolicy>();
  (target as { [POLICIES]?: Map<string, RenderedPolicy> })[POLICIES] = policies.set(prefix, policy);
}
