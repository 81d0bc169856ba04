import { hasOwn, isObject } from '../private/props';

/** A rendered object, or a part of it. */
export type Json = Record<string, unknown>;

/** The steps of a JSON pointer (RFC 6901). */
export function stepsOf(pointer: string): string[] {
  return pointer
    .split('/')
    .slice(1)
    .map((step) => step.replace(/~1/g, '/').replace(/~0/g, '~'));
}

export function pointerOf(steps: readonly string[]): string {
  return steps.map((step) => `/${step.replace(/~/g, '~0').replace(/\//g, '~1')}`).join('');
}

export function dig(value: unknown, steps: readonly string[]): unknown {
  let found = value;
  for (const step of steps) {
    const isThere = typeof found === 'object' && found !== null && hasOwn(found, step);
    found = isThere ? (found as Json)[step] : undefined;
  }
  return found;
}

/** Sets a value in a rendered object that nobody else holds, and creates missing parents. */
export function put(parent: unknown, path: readonly string[], value: string, at = 0): unknown {
  const step = path[at];
  if (step === undefined) {
    return value;
  }
  const map = (isObject(parent) || Array.isArray(parent) ? parent : {}) as Json;
  const old = map[step];
  const child = put(old, path, value, at + 1);
  return child === old ? map : withEntry(map, step, child);
}

/** Inserts a new key in sorted order, as cdk8s does. */
function withEntry(map: Json, step: string, value: unknown): Json {
  const keys = hasOwn(map, step) || process.env['CDK8S_DISABLE_SORT'] ? [] : Object.keys(map);
  const place = keys.findIndex((key) => step < key);
  if (place < 0) {
    map[step] = value;
    return map;
  }
  const sorted: Json = {};
  keys.slice(0, place).forEach((key) => (sorted[key] = map[key]));
  sorted[step] = value;
  keys.slice(place).forEach((key) => (sorted[key] = map[key]));
  return sorted;
}

/** YAML does not read an unquoted `1` or `true` as a string. */
export function text(value: unknown): string | undefined {
  return value === undefined || typeof value === 'string' ? value : JSON.stringify(value);
}

/** The API group of a rendered object, without the version; the core group is empty. */
export function apiGroup(apiVersion: string): string {
  return apiVersion.slice(0, Math.max(apiVersion.indexOf('/'), 0));
}
