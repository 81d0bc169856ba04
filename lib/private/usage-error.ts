import { IConstruct } from 'constructs';

/**
 * Two sentences: what is wrong, and what to write.
 */
export function usageMessage(problem: string, remedy: string): string {
  return `${problem}. Write ${remedy}.`;
}

/** An error with the construct path in front of the message. */
export function usageError(construct: IConstruct, problem: string, remedy: string): Error {
  return new Error(`[${construct.node.path || 'app'}] ${usageMessage(problem, remedy)}`);
}
