import { k8s } from 'cdk8s-plus-28';

/** The nodes of an agent: those that meet every requirement of at least one of these terms. */
export type NodeTerms = readonly (readonly k8s.NodeSelectorRequirement[])[];

/** The terms of a node selector together with a required node affinity. */
export function nodeTerms(
  selector: Record<string, string>,
  affinity: k8s.Affinity | undefined,
): NodeTerms {
  const always = Object.entries(selector).map(([key, value]) => ({
    key,
    operator: 'In',
    values: [value],
  }));
  const terms =
    affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  // Callers without a compiler may pass any value.
  return list(terms, [{}]).map((term) => [...always, ...list(term.matchExpressions, [])]);
}

function list<T>(value: T[] | undefined, otherwise: T[]): T[] {
  return Array.isArray(value) ? value : otherwise;
}

/** Whether the requirements show that no node matches both. */
export function areDisjoint(a: NodeTerms, b: NodeTerms): boolean {
  return a.every((one) => b.every((other) => one.some((x) => other.some((y) => exclude(x, y)))));
}

function exclude(x: k8s.NodeSelectorRequirement, y: k8s.NodeSelectorRequirement): boolean {
  return x.key === y.key && (excludes(x, y) || excludes(y, x));
}

function excludes(x: k8s.NodeSelectorRequirement, y: k8s.NodeSelectorRequirement): boolean {
  const [ours, theirs] = [x.values ?? [], y.values ?? []];
  switch (`${x.operator} ${y.operator}`) {
    case 'In In':
      return !ours.some((value) => theirs.includes(value));
    case 'In NotIn':
      return ours.every((value) => theirs.includes(value));
    case 'In DoesNotExist':
    case 'Exists DoesNotExist':
      return true;
    default:
      return false;
  }
}
