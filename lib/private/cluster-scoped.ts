import { ApiObject, JsonPatch } from 'cdk8s';
import { Construct } from 'constructs';

/**
 * Takes off a cluster-scoped object the namespace that its chart puts on every
 * object: `kubectl apply -n` and GitOps tools stumble over it.
 */
export function removeNamespace(resource: Construct): void {
  ApiObject.of(resource).addJsonPatch(JsonPatch.remove('/metadata/namespace'));
}
