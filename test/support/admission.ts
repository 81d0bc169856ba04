import { CelInput, celEnv, isCelError, isCelList, parse, plan } from '@bufbuild/cel';
import { strings } from '@bufbuild/cel/ext';
import { createFileRegistry, fromJson } from '@bufbuild/protobuf';
import { ReflectMessage } from '@bufbuild/protobuf/reflect';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { Manifest, memoized } from './manifests';

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

// What the API server has as types of any field, `Object` and `Object.metadata`, as far as our policies use them.
const map = (name: string, number: number) => ({
  name,
  number,
  type: 'TYPE_MESSAGE',
  label: 'LABEL_REPEATED',
  typeName: `.Object.metadata.${name}Entry`,
});
const entry = (name: string) => ({
  name: `${name}Entry`,
  options: { mapEntry: true },
  field: ['key', 'value'].map((field, i) => ({
    name: field,
    number: i + 1,
    type: 'TYPE_STRING',
    label: 'LABEL_OPTIONAL',
  })),
});
const registry = createFileRegistry(
  fromJson(FileDescriptorSetSchema, {
    file: [
      {
        name: 'object.proto',
        syntax: 'proto3',
        messageType: [
          {
            name: 'Object',
            field: [
              {
                name: 'metadata',
                number: 1,
                type: 'TYPE_MESSAGE',
                label: 'LABEL_OPTIONAL',
                typeName: '.Object.metadata',
              },
            ],
            nestedType: [
              {
                name: 'metadata',
                field: [map('labels', 1), map('annotations', 2)],
                nestedType: [entry('labels'), entry('annotations')],
              },
            ],
          },
        ],
      },
    ],
  }),
);

const env = celEnv({ funcs: strings, registry });
const planned = memoized((expression) => plan(env, parse(expression)));

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

interface Expression {
  readonly key: string;
  readonly operator: string;
  readonly values?: string[];
}

interface Selector {
  readonly matchLabels?: Record<string, string>;
  readonly matchExpressions?: Expression[];
}

interface MutatingSpec {
  readonly matchConstraints: PolicySpec['matchConstraints'] & {
    readonly namespaceSelector: Selector;
    readonly objectSelector: Selector;
  };
  readonly matchConditions?: Named[];
  readonly variables?: Named[];
  readonly mutations: { readonly applyConfiguration: { readonly expression: string } }[];
}

interface Metadata {
  readonly labels?: Record<string, string>;
  readonly annotations?: Record<string, string>;
}

/** A MutatingAdmissionPolicy as the API server applies it to new pods: selectors, conditions, variables, mutations. */
export class Mutation {
  private readonly spec: MutatingSpec;

  public constructor(policy: Manifest) {
    this.spec = policy['spec'] as MutatingSpec;
  }

  /** The metadata that a pod has afterwards. */
  public admit(pod: Json, namespace = 'default', namespaceLabels = {}): Metadata {
    const { matchConstraints, matchConditions = [], variables = [], mutations } = this.spec;
    const metadata = (pod['metadata'] ?? {}) as Metadata;
    const labels = { 'kubernetes.io/metadata.name': namespace, ...namespaceLabels };
    const bindings = bind({ operation: 'CREATE', object: pod, namespace });
    const isSelected =
      selects(matchConstraints.namespaceSelector, labels) &&
      selects(matchConstraints.objectSelector, metadata.labels ?? {}) &&
      matchConditions.every(({ expression }) => evaluate(expression, bindings) === true);
    if (!isSelected) {
      return metadata;
    }
    const values = new Map<string, CelInput>();
    for (const { name, expression } of variables) {
      values.set(name, evaluate(expression, { ...bindings, variables: values }));
    }
    return mutations.reduce<Metadata>((before, { applyConfiguration: { expression } }) => {
      const added = evaluate(expression, { ...bindings, variables: values }) as ReflectMessage;
      const its = (added.message as unknown as { metadata: Required<Metadata> }).metadata;
      return {
        ...before,
        ...merged('labels', before, its),
        ...merged('annotations', before, its),
      };
    }, metadata);
  }
}

/** As server-side apply merges a map; an empty one is not stored. */
function merged(field: keyof Metadata, before: Metadata, added: Required<Metadata>): Metadata {
  const all = { ...before[field], ...added[field] };
  return Object.keys(all).length > 0 ? { [field]: all } : {};
}

function selects(
  { matchLabels = {}, matchExpressions = [] }: Selector,
  labels: Record<string, string>,
) {
  return (
    Object.entries(matchLabels).every(([key, value]) => labels[key] === value) &&
    matchExpressions.every(({ key, operator, values = [] }) => {
      const value = labels[key];
      switch (operator) {
        case 'In':
          return value !== undefined && values.includes(value);
        case 'NotIn':
          return value === undefined || !values.includes(value);
        case 'DoesNotExist':
          return value === undefined;
        default:
          throw new Error(`no operator ${operator}`);
      }
    })
  );
}

function bind({ operation, object, oldObject, namespace = 'default' }: Review) {
  return {
    object: (object ?? null) as CelInput,
    oldObject: (oldObject ?? null) as CelInput,
    request: { operation, namespace },
  };
}

function evaluate(expression: string, bindings: Record<string, CelInput>): CelInput {
  const result = planned(expression)(bindings);
  if (isCelError(result)) {
    throw new Error(`${result.message}: ${expression}`);
  }
  // The evaluator's filter() of a map() is a list of lists inside; its elements are what counts.
  return isCelList(result) ? [...result] : result;
}
