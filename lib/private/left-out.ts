import { ApiObject, JsonPatch } from 'cdk8s';
import { Construct } from 'constructs';

/**
 * Takes off an object what cdk8s-plus writes without a value, and no option of it leaves out: an empty
 * list, an empty map, 0, false or "" that the API server drops. Tools that compare the object in the
 * cluster with that in Git would show a difference, again and again.
 */
export function leaveOut(resource: Construct, ...paths: string[]): void {
  ApiObject.of(resource).addJsonPatch(...paths.map((path) => JsonPatch.remove(path)));
}
