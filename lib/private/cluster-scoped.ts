import { ApiObject, JsonPatch } from 'cdk8s';
import { Construct } from 'constructs';

/**
 * Removes the namespace that a chart sets on every object from a cluster-scoped object, because it disturbs
 * `kubectl apply -n` and GitOps tools.
 */
export function removeNamespace(resource: Construct): void {
  ApiObject.of(resource).addJsonPatch(JsonPatch.remove('/metadata/namespace'));
}
