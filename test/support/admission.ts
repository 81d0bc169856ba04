import { CelInput, celEnv, isCelError, isCelList, parse, plan } from '@bufbuild/cel';
import { strings } from '@bufbuild/cel/ext';
import { Manifest } from './manifests';

interface Named {
  readonly name: string;
  readonly expression: string;
}

interface PolicySpec {
  readonly failurePolicy: string;
  readonly matchConstraints: {
    readonly resourceRules: {
      readonly apiGroups: string[];
      readonly apiVersions: string[];
      readonly operations: string[];
      readonly resources: string[];
    }[];
  };
  readonly matchConditions: Named[];
  readonly variables: Named[];
  readonly validations: {
    readonly expression: string;
    readonly message: string;
    readonly messageExpression?: string;
  }[];
}

export type Json = Record<string, unknown>;

/** A request as the API server shows it to admission. */
export interface Review {
  readonly operation: 'CREATE' | 'UPDATE' | 'DELETE';
  readonly object?: Json;
  readonly oldObject?: Json;
  readonly namespace?: string;
  readonly subresource?: string;
}

/** The longest message that the API server takes from an expression. */
const LONGEST_MESSAGE = 5 * 1024;

const env = celEnv({ funcs: strings });
const plans = new Map<string, ReturnType<typeof plan>>();

/**
 * A ValidatingAdmissionPolicy as the API server applies it: resources, conditions, variables, rules,
 * messages. Stricter in one thing: every variable is evaluated, where the API server leaves out those
 * that no rule asks for, and an error anywhere is the test's.
 */
export class Admission {
  private readonly spec: PolicySpec;

  public constructor(policy: Manifest) {
    this.spec = policy['spec'] as PolicySpec;
  }

  /** Whether the policy has to be evaluated at all, by its resources. */
  public selects(review: Review): boolean {
    const { apiVersion, kind } = (review.object ?? review.oldObject) as unknown as Manifest;
    const [version, group = ''] = apiVersion.split('/').reverse();
    const resource = `${kind.toLowerCase()}s${review.subresource ? `/${review.subresource}` : ''}`;
    return this.spec.matchConstraints.resourceRules.some(
      (rule) =>
        rule.apiGroups.includes(group) &&
        rule.apiVersions.includes(version ?? '') &&
        rule.operations.includes(review.operation) &&
        rule.resources.includes(resource),
    );
  }

  /** Whether the rules have to be evaluated, by the resources and the conditions. */
  public matches(review: Review): boolean {
    return (
      this.selects(review) &&
      this.spec.matchConditions.every(({ expression }) => evaluate(expression, bind(review)))
    );
  }

  /** The messages of the rules that a request breaks. */
  public review(review: Review): string[] {
    if (!this.matches(review)) {
      return [];
    }
    const bindings = bind(review);
    const variables = new Map<string, CelInput>();
    for (const { name, expression } of this.spec.variables) {
      variables.set(name, evaluate(expression, { ...bindings, variables }));
    }
    return this.spec.validations.flatMap(({ expression, message, messageExpression }) => {
      const valid = evaluate(expression, { ...bindings, variables });
      // For good objects, too.
      const text = messageExpression && evaluate(messageExpression, { ...bindings, variables });
      const usable =
        typeof text === 'string' &&
        text.trim() !== '' &&
        text.length <= LONGEST_MESSAGE &&
        !text.trim().includes('\n');
      return valid === true ? [] : [usable ? text.trim() : message];
    });
  }
}

function bind({ operation, object, oldObject, namespace = 'default' }: Review) {
  return {
    object: (object ?? null) as CelInput,
    oldObject: (oldObject ?? null) as CelInput,
    request: { operation, namespace },
  };
}

function evaluate(expression: string, bindings: Record<string, CelInput>): CelInput {
  const planned = plans.get(expression) ?? plan(env, parse(expression));
  plans.set(expression, planned);
  const result = planned(bindings);
  if (isCelError(result)) {
    throw new Error(`${result.message}: ${expression}`);
  }
  // The evaluator's filter() of a map() is a list of lists inside; its elements are what counts.
  return isCelList(result) ? [...result] : result;
}
