import { ApiObject, JsonPatch } from 'cdk8s';
import { Construct } from 'constructs';

/**
 * Takes off an object what cdk8s-plus writes without a value, and no option of it leaves out: an empty
 * list, an empty map, 0, false or "" that the API server drops. Tools that compare the object in the
 * cluster with that in Git would show a difference, again and again.
 */
export function removeEmptyFields(resource: Construct, ...paths: string[]): void {
  ApiObject.of(resource).addJsonPatch(...paths.map((path) => JsonPatch.remove(path)));
}

/** Nothing instead of an empty list or map, which the API server drops as well. */
export function undefinedIfEmpty<T extends object>(value: T | undefined): T | undefined {
  return value !== undefined && Object.keys(value).length > 0 ? value : undefined;
}
