import { IConstruct } from 'constructs';

/**
 * What is wrong, and what to write: two sentences. Returned from a construct's validation, where cdk8s puts the
 * construct path in front.
 */
export function usageMessage(problem: string, remedy: string): string {
  return `${problem}. Write ${remedy}.`;
}

/** The same as an error to throw, with the construct path in front. */
export function usageError(construct: IConstruct, problem: string, remedy: string): Error {
  return new Error(`[${construct.node.path || 'app'}] ${usageMessage(problem, remedy)}`);
}
