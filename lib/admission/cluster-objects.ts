import { ApiObject } from 'cdk8s';
import { Construct } from 'constructs';
import { removeNamespace } from '../private/cluster-scoped';
import { usageError } from '../private/usage-error';
import { requireAnnotations, requireLabels } from '../private/validation';
import { VERSION_LABEL } from '../private/version';

/** The metadata of a policy and of its binding. */
export interface ClusterMetadata {
  readonly name: string;
  readonly labels: { readonly [key: string]: string };
  readonly annotations?: { readonly [key: string]: string };
}

/** The options of every policy for its metadata. */
interface MetadataProps {
  readonly labels?: { [key: string]: string };
  readonly annotations?: { [key: string]: string };
}

export function clusterMetadata(
  construct: Construct,
  name: string,
  component: string,
  { labels = {}, annotations }: MetadataProps,
): ClusterMetadata {
  const ours = {
    'app.kubernetes.io/name': 'cdk8s-oom-kill-mode',
    'app.kubernetes.io/component': component,
    'app.kubernetes.io/managed-by': 'cdk8s',
    ...VERSION_LABEL,
  };
  requireLabels(construct, labels, ours);
  requireAnnotations(construct, annotations ?? {}, {});
  return { name, labels: { ...labels, ...ours }, annotations };
}

/**
 * Adds an admission policy or its binding. cdk8s-plus-28 has no construct for them, because Kubernetes 1.28
 * does not have these kinds in v1.
 */
export function addClusterObject(
  construct: Construct,
  kind: string,
  metadata: ClusterMetadata,
  spec: object,
): void {
  const object = new ApiObject(construct, kind, {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind,
    metadata,
    spec,
  });
  removeNamespace(object);
  // `ApiObject.of()` finds the policy, which is added first.
  construct.node.defaultChild ??= object;
}

/** Refuses a cluster that is older than the kind. */
export function requireVersion(
  construct: Construct,
  version: string | undefined,
  kind: string,
  firstMinor: number,
): void {
  if (version === undefined) {
    return;
  }
  const [, major, minor] = /^v?([0-9]+)\.([0-9]+)([.+-].*)?$/.exec(version) ?? [];
  if (major === undefined) {
    throw usageError(
      construct,
      `kubernetesVersion is not a version: ${JSON.stringify(version)}`,
      `a version such as "1.${firstMinor}"`,
    );
  }
  if (Number(major) < 1 || (Number(major) === 1 && Number(minor) < firstMinor)) {
    throw usageError(
      construct,
      `${kind} v1 needs Kubernetes 1.${firstMinor}, but kubernetesVersion is ${version}`,
      `a later version, or no ${construct.constructor.name} for this cluster`,
    );
  }
}
