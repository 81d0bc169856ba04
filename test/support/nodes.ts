import type { V1PodSpec } from 'k8s-1.28';
import { PodTemplate } from './manifests';

type Labels = Readonly<Record<string, string>>;

/** Whether the DaemonSet controller makes a pod for a node with these labels, whose taints are tolerated. */
export function runsOn({ spec }: PodTemplate, labels: Labels): boolean {
  const { nodeSelector = {}, affinity } = spec as unknown as V1PodSpec;
  const terms =
    affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  return (
    Object.entries(nodeSelector).every(([key, value]) => labels[key] === value) &&
    (terms?.some(({ matchExpressions = [] }) =>
      matchExpressions.every((one) => isSelected(labels[one.key], one)),
    ) ??
      true)
  );
}

/** What an operator of Kubernetes' selectors says of a value, or of none. */
export function isSelected(
  value: string | undefined,
  { operator, values = [] }: { readonly operator: string; readonly values?: readonly string[] },
): boolean {
  switch (operator) {
    case 'In':
      return value !== undefined && values.includes(value);
    case 'NotIn':
      return value === undefined || !values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
    default:
      throw new Error(`another operator: ${operator}`);
  }
}

/**
 * OpenShift merges into every pod the node selector of its namespace, or, where the namespace has no such
 * annotation, that of the cluster; an empty annotation is one.
 * https://github.com/openshift/kubernetes, openshift-kube-apiserver/admission/scheduler/nodeenv
 */
export function withNodeSelector(
  template: PodTemplate,
  annotations: Labels | undefined,
  clusterDefault: string,
): PodTemplate {
  const text = annotations?.['openshift.io/node-selector'] ?? clusterDefault;
  const added = text
    .split(',')
    .filter(Boolean)
    .map((pair) => pair.split('=') as [string, string]);
  const nodeSelector = { ...template.spec.nodeSelector };
  for (const [key, value] of added) {
    if ((nodeSelector[key] ?? value) !== value) {
      throw new Error('pod node label selector conflicts with its project node label selector');
    }
    nodeSelector[key] = value;
  }
  return { ...template, spec: { ...template.spec, nodeSelector } };
}
