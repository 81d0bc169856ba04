import { IConstruct } from 'constructs';
import { misuse } from './misuse';

/** What a value is to be, for callers that no compiler has checked, and what to write. */
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
  // By what they can do: there may be several copies of cdk8s, and there are several of cdk8s-plus.
  cpu: ['a Cpu', 'a quantity such as Cpu.millis(100)', (value: unknown) => has(value, 'amount')],
  size: [
    'a Size',
    'a quantity such as Size.mebibytes(64)',
    (value: unknown) => has(value, 'toMebibytes'),
  ],
  percentOrAbsolute: [
    'a PercentOrAbsolute',
    'an amount such as PercentOrAbsolute.percent(10)',
    (value: unknown) => has(value, 'isZero'),
  ],
  duration: [
    'a Duration',
    'a duration such as Duration.seconds(60)',
    (value: unknown) => has(value, 'toSeconds'),
  ],
} as const;

/** One word for each option; `!` behind it if the option is required. */
export type PropKinds<T> = {
  readonly [K in keyof Required<T>]: keyof typeof KINDS | `${keyof typeof KINDS}!`;
};

/**
 * Refuses options of the wrong type, null included, and tells which are missing. What is undefined is
 * as good as not there, and is left out of the result, so that it overrides nothing.
 */
export function requireProps<T extends object>(
  construct: IConstruct,
  props: T,
  kinds: PropKinds<T>,
  what = 'the options',
): T {
  if (!isObject(props)) {
    throw misuse(construct, `${what} are not an object: ${show(props)}`, '{ … }');
  }
  for (const [name, word] of Object.entries<string>(kinds)) {
    const value = (props as Record<string, unknown>)[name];
    if (value === undefined && !word.endsWith('!')) {
      continue;
    }
    const [kind, remedy, is] = KINDS[word.replace('!', '') as keyof typeof KINDS];
    if (value === undefined) {
      throw misuse(construct, `${name} is missing`, `${name}: ${remedy}`);
    }
    if (!is(value)) {
      throw misuse(construct, `${name} is not ${kind}: ${show(value)}`, remedy);
    }
  }
  return given(props);
}

/** Without what is undefined. */
export function given<T extends object>(props: T): T {
  const entries = Object.entries(props).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as T;
}

/** A value, for a message; a construct refers to itself in a circle. */
export function show(value: unknown): string {
  const name = isObject(value)
    ? (value.constructor as { name?: string } | undefined)?.name
    : undefined;
  if (name !== undefined && name !== 'Object') {
    return `a ${name}`;
  }
  return ['string', 'object'].includes(typeof value) ? JSON.stringify(value) : String(value);
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isStrings(value: unknown): boolean {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

function has(value: unknown, member: string): boolean {
  return isObject(value) && member in value;
}

/** `toString` and the like are in every object, and nobody wrote them there. */
export function hasOwn(value: object, key: string): boolean {
  return Object.prototype.hasOwnProperty.call(value, key);
}
