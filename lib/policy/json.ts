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
  return steps.reduce(
    (parent, step) =>
      typeof parent === 'object' && parent !== null && hasOwn(parent, step)
        ? (parent as Json)[step]
        : undefined,
    value,
  );
}

/** Puts a value into a rendered object, which nobody else has, with everything on the way to it that is missing. */
export function put(parent: unknown, [step, ...rest]: readonly string[], value: string): unknown {
  if (step === undefined) {
    return value;
  }
  const map = (isObject(parent) || Array.isArray(parent) ? parent : {}) as Json;
  const child = put(map[step], rest, value);
  if (hasOwn(map, step) || process.env['CDK8S_DISABLE_SORT']) {
    map[step] = child;
    return map;
  }
  // A new key goes where cdk8s, which sorts them, would have it.
  const sorted: Json = {};
  for (const key of Object.keys(map)) {
    if (!hasOwn(sorted, step) && step < key) {
      sorted[step] = child;
    }
    sorted[key] = map[key];
  }
  sorted[step] = child;
  return sorted;
}

/** YAML reads an unquoted `1` or `true` as no string. */
export function text(value: unknown): string | undefined {
  return value === undefined || typeof value === 'string' ? value : JSON.stringify(value);
}

/** The API group of a rendered object, without the version; the core group is empty. */
export function apiGroup(apiVersion: string): string {
  return apiVersion.slice(0, Math.max(apiVersion.indexOf('/'), 0));
}
