import { Json, apiGroup, dig, pointerOf, stepsOf, text } from './json';
import { KnownKind, describesOthers, isOfKubernetes, knownKind } from './known-kinds';
import { hasOwn, isObject } from '../private/props';

/** An entry of `workloadKinds`, see `WorkloadKind`. */
export interface UserKind {
  readonly apiGroup: string;
  readonly kind: string;
  readonly podTemplates?: readonly string[];
  readonly podMetadata?: readonly string[];
  readonly skipped?: boolean;
}

/** A place in a rendered object with the labels and annotations of some pods. */
export interface PodMetadata {
  readonly path: readonly string[];

  /** The names of the containers in the object, including init containers and sidecars. */
  readonly containers: () => string[];

  /** Whether the template has all containers of the pods. */
  readonly isComplete: boolean;
}

/** What is wrong, and what to write. */
export interface Problem {
  readonly what: string;
  readonly remedy: string;
}

/** A rendered object or an item of a List, with its pods. */
export interface Manifest {
  readonly path: readonly string[];
  readonly apiVersion: string;
  readonly kind: string;
  readonly name?: string;
  readonly pods: readonly PodMetadata[];

  /** Why a policy cannot reach its pods. */
  readonly problem?: Problem;

  /** Why it has no pods to reach. */
  readonly untouched?: string;
}

/**
 * Finds the pods of a rendered object, by `workloadKinds` or by the table of kinds. Only the root and the
 * items of a List are manifests. Other objects with a kind only name one.
 */
export function manifestsOf(rendered: Json, userKinds: readonly UserKind[]): Manifest[] {
  return manifestsAt(rendered, [], userKinds);
}

function manifestsAt(value: Json, path: string[], userKinds: readonly UserKind[]): Manifest[] {
  const apiVersion = text(value['apiVersion']) ?? '';
  const kind = text(value['kind']) ?? '';
  const { items } = value;
  if (Array.isArray(items) && kind.endsWith('List')) {
    // An item of a PodList need not have a kind.
    const ofOneKind = kind === 'List' ? {} : { apiVersion, kind: kind.slice(0, -'List'.length) };
    return items.flatMap((item: unknown, i) =>
      isObject(item)
        ? manifestsAt({ ...ofOneKind, ...item }, [...path, 'items', String(i)], userKinds)
        : [],
    );
  }
  const name = text(dig(value, ['metadata', 'name']));
  const { pods: found = [], problem, untouched } = podsOf(value, { apiVersion, kind }, userKinds);
  const pods =
    path.length === 0 ? found : found.map((one) => ({ ...one, path: [...path, ...one.path] }));
  return [{ path, apiVersion, kind, name, pods, problem, untouched }];
}

/** The reason for kinds of Kubernetes that are not workloads. A report leaves them out. */
export const NO_PODS = 'it creates no pods';

type Found = Pick<Manifest, 'problem' | 'untouched'> & { readonly pods?: PodMetadata[] };

function podsOf(
  manifest: Json,
  { apiVersion, kind }: Pick<Manifest, 'apiVersion' | 'kind'>,
  userKinds: readonly UserKind[],
): Found {
  const group = apiGroup(apiVersion);
  if (userKinds.length > 0) {
    const entries = userKinds.filter((one) => one.kind === kind && one.apiGroup === group);
    if (entries.length > 0) {
      return podsOfUserKind(manifest, apiVersion, entries);
    }
  }
  const known = knownKind(group, kind);
  if (known) {
    return podsOfKnown(manifest, apiVersion, known);
  }
  const describing = describesOthers(group, kind);
  if (describing !== undefined) {
    return { untouched: describing };
  }
  return isOfKubernetes(group) ? { untouched: NO_PODS } : podsOfUnknown(manifest, apiVersion, kind);
}

function podsOfUserKind(manifest: Json, apiVersion: string, entries: readonly UserKind[]): Found {
  if (entries.some(({ skipped }) => skipped)) {
    return { untouched: 'workloadKinds skips it' };
  }
  // A policy may repeat the entries of one above it.
  const podTemplates = [...new Set(entries.flatMap((entry) => entry.podTemplates ?? []))];
  const podMetadata = [...new Set(entries.flatMap((entry) => entry.podMetadata ?? []))];
  const found = places(manifest, podTemplates, podMetadata);
  const misspelt = podMetadata.find((pointer) => !hasOwn(manifest, stepsOf(pointer)[0] ?? ''));
  const empty = found.pods.find(
    ({ path, isComplete }) =>
      isComplete && !Array.isArray(dig(manifest, [...path.slice(0, -1), 'spec', 'containers'])),
  );
  const [problem] = [
    ...found.missing,
    ...(misspelt === undefined ? [] : [`has nothing at ${misspelt}`]),
    ...(empty ? [`has no spec.containers in ${pointerOf(empty.path.slice(0, -1))}`] : []),
  ];
  return problem === undefined
    ? found
    : {
        problem: {
          what: `${apiVersion} ${entries[0]?.kind} ${problem}, although workloadKinds says that its pods are there`,
          remedy:
            'pointers that exist in the object, with numbers instead of a * that does not fit every element, or skipped: true',
        },
      };
}

function podsOfKnown(manifest: Json, apiVersion: string, known: KnownKind): Found {
  if (known.refersBy !== undefined && dig(manifest, stepsOf(known.refersBy)) !== undefined) {
    return { untouched: `its ${known.refersBy} names the workload that has the pods` };
  }
  const found = places(manifest, known.podTemplates ?? [], known.podMetadata ?? []);
  const [missing] = found.missing;
  if (missing !== undefined) {
    return {
      problem: {
        what: `${apiVersion} ${known.kind} ${missing}, so OomKillPolicy cannot reach its pods`,
        remedy: `the missing field, or ${skipEntry(known)}`,
      },
    };
  }
  if (found.pods.length > 0) {
    return found;
  }
  return known.cannot === undefined
    ? { untouched: 'it has no pods' }
    : {
        problem: {
          what: `${apiVersion} ${known.kind} cannot label its pods, because ${known.cannot}`,
          remedy: `${known.remedy === undefined ? '' : `${known.remedy}, or `}${skipEntry(known)} with an OomKillModeDefaults for its pods`,
        },
      };
}

function skipEntry({ apiGroup: group, kind }: Pick<UserKind, 'apiGroup' | 'kind'>): string {
  return `workloadKinds: [{ apiGroup: "${group}", kind: "${kind}", skipped: true }]`;
}

/** Does not guess the pods of an unknown kind, and does not ignore an object that seems to have some. */
function podsOfUnknown(manifest: Json, apiVersion: string, kind: string): Found {
  const specs = podSpecs(manifest, []);
  const [first] = specs;
  if (first === undefined) {
    return { untouched: 'its kind is unknown, and it has no pod template' };
  }
  const group = apiGroup(apiVersion);
  const start = `workloadKinds: [{ apiGroup: "${group}", kind: "${kind}", `;
  const areTemplates = specs.every((path) => path.length > 1 && path.at(-1) === 'spec');
  const templates = specs.map((path) => path.slice(0, -1));
  const reach = areTemplates
    ? `${start}podTemplates: [${shortest(manifest, templates)
        .map((pointer) => `"${pointer}"`)
        .join(', ')}] }]`
    : `${start}podMetadata: ["…"] }] with a pointer to the metadata of its pods`;
  return {
    problem: {
      what: `${apiVersion} ${kind} is an unknown kind, but ${pointerOf(areTemplates ? first.slice(0, -1) : first)} looks like the template of a pod`,
      remedy: `${reach}, or ${skipEntry({ apiGroup: group, kind })}, in the options of OomKillPolicy.of()`,
    },
  };
}

/** Pointers to the templates, with a `*` for the elements of a list if every element has one. */
function shortest(manifest: Json, templates: readonly string[][]): string[] {
  const exact = templates.map((path) => pointerOf(path));
  const general = templates.map((path) =>
    pointerOf(path.map((step) => (/^\d+$/.test(step) ? '*' : step))),
  );
  const found = places(manifest, general, []);
  const meant = found.pods.map(({ path }) => pointerOf(path.slice(0, -1)));
  const isRight = found.missing.length === 0 && meant.every((pointer) => exact.includes(pointer));
  return [...new Set(isRight ? general : exact)];
}

/** The paths to everything that looks like the spec of a pod: containers with names and images. */
function podSpecs(value: unknown, path: string[]): string[][] {
  if (Array.isArray(value)) {
    return value.flatMap((item, i) => podSpecs(item, [...path, String(i)]));
  }
  if (!isObject(value)) {
    return [];
  }
  const { containers } = value;
  const isSpec =
    Array.isArray(containers) &&
    containers.length > 0 &&
    containers.every((one) => isText(dig(one, ['name'])) && isText(dig(one, ['image'])));
  const below = Object.entries(value).flatMap(([key, child]) =>
    path.length === 0 && key === 'metadata' ? [] : podSpecs(child, [...path, key]),
  );
  return isSpec ? [path, ...below] : below;
}

function isText(value: unknown): boolean {
  return typeof value === 'string' && value !== '';
}

function places(
  manifest: Json,
  podTemplates: readonly string[],
  podMetadata: readonly string[],
): { readonly pods: PodMetadata[]; readonly missing: string[] } {
  const missing: string[] = [];
  const pods: PodMetadata[] = [];
  for (const pointer of podTemplates) {
    for (const path of expand(manifest, compile(pointer), [], false, missing)) {
      const containers = () => containerNames(manifest, path);
      pods.push({ path: [...path, 'metadata'], containers, isComplete: true });
    }
  }
  for (const pointer of podMetadata) {
    for (const path of expand(manifest, compile(pointer), [], true, missing)) {
      const containers = () =>
        path.at(-1) === 'metadata' ? containerNames(manifest, path.slice(0, -1)) : [];
      pods.push({ path, containers, isComplete: false });
    }
  }
  return { pods, missing };
}

interface Step {
  /** Undefined for every element of a list or map. */
  readonly key?: string;
  readonly isOptional: boolean;
}

interface Pointer {
  readonly steps: readonly Step[];
  /** The keys of the steps, with `*` for every element. */
  readonly keys: readonly string[];
}

const COMPILED = new Map<string, Pointer>();

/** The steps of a pointer, see `KnownKind`. */
function compile(pointer: string): Pointer {
  const known = COMPILED.get(pointer);
  if (known) {
    return known;
  }
  const steps = stepsOf(pointer).map((step) => ({
    key: step === '*' ? undefined : step.replace(/\?$/, ''),
    isOptional: step.endsWith('?'),
  }));
  const compiled = { steps, keys: steps.map(({ key = '*' }) => key) };
  COMPILED.set(pointer, compiled);
  return compiled;
}

/**
 * All paths that match a pointer, from the value at `path` on. Adds required parts that do not exist to
 * `missing`. Every object of an app passes through here, so it computes nothing that only a message needs.
 */
function expand(
  start: unknown,
  pointer: Pointer,
  path: readonly string[],
  isAdded: boolean,
  missing: string[],
): (readonly string[])[] {
  const { steps, keys } = pointer;
  const upTo = (end: number) =>
    path.length === 0 && end === keys.length ? keys : [...path, ...keys.slice(path.length, end)];
  let value = start;
  for (let at = path.length; at < steps.length; at++) {
    const { key, isOptional } = steps[at] as Step;
    if (key === undefined) {
      const elements = isObject(value) || Array.isArray(value) ? Object.entries(value) : [];
      if (elements.length === 0) {
        missing.push(`has nothing at ${pointerOf(upTo(keys.length))}`);
      }
      return elements.flatMap(([one, element]) =>
        expand(element, pointer, [...upTo(at), one], isAdded, missing),
      );
    }
    // The key may be the index of an element.
    const child = dig(value, [key]);
    if (child === undefined && isOptional) {
      return [];
    }
    if (child === undefined && !isAdded) {
      missing.push(`has nothing at ${pointerOf(upTo(keys.length))}`);
      return [];
    }
    if (child !== undefined && (typeof child !== 'object' || child === null)) {
      missing.push(`has no object at ${pointerOf(upTo(at + 1))}`);
      return [];
    }
    value = child;
  }
  if (isObject(value) || (value === undefined && isAdded)) {
    return [upTo(steps.length)];
  }
  missing.push(`has nothing at ${pointerOf(upTo(steps.length))}`);
  return [];
}

function containerNames(manifest: Json, template: readonly string[]): string[] {
  return ['containers', 'initContainers']
    .flatMap((list) => dig(manifest, [...template, 'spec', list]) ?? [])
    .map((container) => text(dig(container, ['name'])))
    .filter((name) => name !== undefined);
}
