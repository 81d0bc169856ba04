import { IConstruct } from 'constructs';
import { usageError } from './usage-error';

/** The type of an option, the value to write, and the check, for callers without a compiler. */
const KINDS = {
  string: ['a string', '"text"', (value: unknown) => typeof value === 'string'],
  boolean: [
    'true or false',
    'true or false, without quotes',
    (value: unknown) => typeof value === 'boolean',
  ],
  number: ['a number', 'a number, without quotes', (value: unknown) => typeof value === 'number'],
  list: ['a list', '[ … ]', (value: unknown) => Array.isArray(value)],
  strings: ['a list of strings', '["text"]', isStrings],
  map: [
    'a map of strings',
    '{ key: "text" }',
    (value: unknown) => isObject(value) && isStrings(Object.values(value)),
  ],
  object: ['an object', '{ … }', isObject],
  // Checked by their members, because there may be several copies of cdk8s and versions of cdk8s-plus.
  cpu: ['a Cpu', 'a quantity such as Cpu.millis(100)', isCpu],
  size: [
    'a Size',
    'a quantity such as Size.mebibytes(64)',
    (value: unknown) => can(value, 'toMebibytes'),
  ],
  percentOrAbsolute: [
    'a PercentOrAbsolute',
    'an amount such as PercentOrAbsolute.percent(10)',
    (value: unknown) => can(value, 'isZero'),
  ],
  duration: [
    'a Duration',
    'a duration such as Duration.seconds(60)',
    (value: unknown) => can(value, 'toSeconds'),
  ],
} as const;

/** One word for each option; `!` behind it if the option is required. */
export type PropKinds<T> = {
  readonly [K in keyof Required<T>]: keyof typeof KINDS | `${keyof typeof KINDS}!`;
};

/**
 * Refuses options of the wrong type (null included), unknown options and missing ones. Drops undefined
 * values, so that they override nothing.
 */
export function requireProps<T extends object>(
  construct: IConstruct,
  props: T,
  kinds: PropKinds<T>,
  what = 'the options',
): T {
  if (!isObject(props)) {
    throw usageError(construct, `${what} are not an object: ${show(props)}`, '{ … }');
  }
  for (const [name, word] of Object.entries<string>(kinds)) {
    const value = (props as Record<string, unknown>)[name];
    if (value === undefined && !word.endsWith('!')) {
      continue;
    }
    const [kind, remedy, is] = KINDS[word.replace('!', '') as keyof typeof KINDS];
    if (value === undefined) {
      throw usageError(construct, `${name} is missing`, `${name}: ${remedy}`);
    }
    if (!is(value)) {
      throw usageError(construct, `${name} is not ${kind}: ${show(value)}`, remedy);
    }
  }
  requireNoOthers(construct, given(props), Object.keys(kinds), what);
  return given(props);
}

/** JavaScript would silently ignore a misspelt option. */
function requireNoOthers(
  construct: IConstruct,
  props: object,
  names: readonly string[],
  what: string,
): void {
  const other = Object.keys(props).find((name) => !names.includes(name));
  if (other !== undefined) {
    const meant = names.filter((name) => name.toLowerCase() === other.toLowerCase());
    throw usageError(
      construct,
      `${what} have ${JSON.stringify(other)}, which does nothing`,
      meant.length > 0 ? meant.join(' or ') : `one of ${[...names].sort().join(', ')}`,
    );
  }
}

/** Without undefined values. */
export function given<T extends object>(props: T): T {
  const entries = Object.entries(props).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as T;
}

/** A value, for a message. A construct refers to itself. */
export function show(value: unknown): string {
  const name = isObject(value)
    ? (value.constructor as { name?: string } | undefined)?.name
    : undefined;
  if (name !== undefined && name !== 'Object') {
    return `a ${name}`;
  }
  try {
    return ['string', 'object'].includes(typeof value) ? JSON.stringify(value) : String(value);
  } catch {
    return 'an object that refers to itself';
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isStrings(value: unknown): boolean {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

function can(value: unknown, method: string): boolean {
  return isObject(value) && typeof value[method] === 'function';
}

/** The amount of a Size is a number. */
function isCpu(value: unknown): boolean {
  return isObject(value) && typeof value['amount'] === 'string';
}

/** Ignores inherited keys such as `toString`. */
export function hasOwn(value: object, key: string): boolean {
  return Object.prototype.hasOwnProperty.call(value, key);
}
