import { ApiObject, JsonPatch } from 'cdk8s';
import { Construct } from 'constructs';

/**
 * Removes empty fields that cdk8s-plus always writes: an empty list or map, 0, false or "". The API server
 * drops them, so tools that compare the cluster with Git would always show a difference.
 */
export function removeEmptyFields(resource: Construct, ...paths: string[]): void {
  ApiObject.of(resource).addJsonPatch(...paths.map((path) => JsonPatch.remove(path)));
}

/** Undefined instead of an empty list or map, which the API server would drop. */
export function undefinedIfEmpty<T extends object>(value: T | undefined): T | undefined {
  return value !== undefined && Object.keys(value).length > 0 ? value : undefined;
}
