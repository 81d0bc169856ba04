import { isObject } from './props';
import { IMAGE, isDnsLabel } from './validation';

/** Where somebody else's kind says what its pods are, see `WorkloadKind`. */
export interface PodLocation {
  readonly apiGroup: string;
  readonly kind: string;
  readonly podTemplates?: string[];
  readonly podMetadata?: string[];
  readonly skipped?: boolean;
}

/** The metadata of pods in a rendered object. */
export interface Pods {
  /** The path to the metadata. */
  readonly path: string[];

  /** The names of the containers, init containers (and so sidecars) included; none if only the metadata is there. */
  readonly names?: string[];
}

/** What an object says about pods. */
export interface Found {
  readonly pods: Pods[];

  /** Why it seems to make pods of which nothing can be said. */
  readonly unreachable?: string;
}

/** A rendered object, or a part of it. */
export type Json = Record<string, unknown>;

/** The kinds of Kubernetes itself, and where each keeps the template of its pods. */
const TEMPLATES: Record<string, { readonly apiGroup: string; readonly path: string[] }> = {
  Pod: { apiGroup: '', path: [] },
  ReplicationController: { apiGroup: '', path: ['spec', 'template'] },
  DaemonSet: { apiGroup: 'apps', path: ['spec', 'template'] },
  Deployment: { apiGroup: 'apps', path: ['spec', 'template'] },
  ReplicaSet: { apiGroup: 'apps', path: ['spec', 'template'] },
  StatefulSet: { apiGroup: 'apps', path: ['spec', 'template'] },
  Job: { apiGroup: 'batch', path: ['spec', 'template'] },
  CronJob: { apiGroup: 'batch', path: ['spec', 'jobTemplate', 'spec', 'template'] },
};

/** The kinds that have a pod template, for messages. */
export const WORKLOAD_KINDS = Object.keys(TEMPLATES).sort().join(', ');

/** Kinds without containers in them that are often met, and hand these labels on to their pods. */
const WELL_KNOWN: PodLocation[] = [
  // https://kubevirt.io/user-guide/user_workloads/virtual_machine_instances/
  { apiGroup: 'kubevirt.io', kind: 'VirtualMachine', podMetadata: ['/spec/template/metadata'] },
  // https://cloudnative-pg.io/documentation/current/labels_annotations/
  { apiGroup: 'postgresql.cnpg.io', kind: 'Cluster', podMetadata: ['/spec/inheritedMetadata'] },
];

/** The API group of a rendered object, without the version; none is the core group. */
export function apiGroup(apiVersion: unknown): string {
  return typeof apiVersion === 'string' && apiVersion.includes('/')
    ? (apiVersion.split('/')[0] ?? '')
    : '';
}

/** Whether an object makes pods of its own, as far as its kind tells. */
export function isKnownWorkload(apiVersion: string, kind: string): boolean {
  return Object.hasOwn(TEMPLATES, kind) && TEMPLATES[kind]?.apiGroup === apiGroup(apiVersion);
}

/**
 * Finds the pods of a rendered object: where its kind keeps them, where the user says, and in anybody
 * else's kind, however deep, in whatever is called a template and holds containers. That is how
 * Rollouts, JobSets, Knative Services and most others have it, and how objects are kept in a List.
 */
export function findPods(manifest: Json, locations: readonly PodLocation[] = []): Found {
  const pods: Pods[] = [];
  let unreachable: string | undefined;

  const template = (value: Json, path: string[]) =>
    pods.push({ path: [...path, 'metadata'], names: containerNames(value) });

  /** Returns whether all is known about this object. */
  const known = (object: Json, path: string[]): boolean => {
    const { apiVersion, kind } = object;
    if (typeof apiVersion !== 'string' || typeof kind !== 'string') {
      return false;
    }
    const location = [...locations, ...WELL_KNOWN].find(
      (l) => l.kind === kind && l.apiGroup === apiGroup(apiVersion),
    );
    if (location) {
      for (const pointer of location.podTemplates ?? []) {
        const found = resolve(object, parse(pointer));
        for (const [at, value] of found) {
          template(isObject(value) ? value : {}, [...path, ...at]);
        }
        unreachable ??= found.length === 0 ? `has nothing at ${pointer}` : undefined;
      }
      for (const pointer of location.podMetadata ?? []) {
        const found = resolve(object, parse(pointer), true);
        pods.push(...found.map(([at]) => ({ path: [...path, ...at] })));
        unreachable ??= found.length === 0 ? `has nothing at ${pointer}` : undefined;
      }
      return true;
    }
    if (isKnownWorkload(apiVersion, kind)) {
      const at = TEMPLATES[kind]?.path ?? [];
      const value = dig(object, at);
      if (isObject(value)) {
        template(value, [...path, ...at]);
      } else {
        unreachable ??= `has no pod template: /${[...path, ...at].join('/')} is missing`;
      }
      return true;
    }
    return false;
  };

  const walk = (value: unknown, path: string[]): void => {
    if (Array.isArray(value)) {
      value.forEach((item, i) => {
        walk(item, [...path, String(i)]);
      });
      return;
    }
    if (!isObject(value) || known(value, path)) {
      return;
    }
    if (/template$/i.test(path.at(-1) ?? '') && Array.isArray(dig(value, ['spec', 'containers']))) {
      template(value, path);
      return;
    }
    if (pods.length === 0 && isContainer(value, path)) {
      unreachable ??= `has a container at /${path.join('/')}, outside of any pod template`;
    }
    for (const [key, child] of Object.entries(value)) {
      if (typeof child === 'object') {
        walk(child, [...path, key]);
      }
    }
  };
  walk(manifest, []);
  return { pods, unreachable };
}

/** Something that has the form of a container where containers are kept. */
function isContainer(value: Json, path: string[]): boolean {
  const [last, list] = path.slice(-2).reverse();
  const { name, image } = value;
  return (
    (last === 'container' || list === 'containers' || list === 'initContainers') &&
    (name === undefined || (typeof name === 'string' && isDnsLabel(name))) &&
    typeof image === 'string' &&
    IMAGE.test(image)
  );
}

function containerNames(template: Json): string[] {
  return ['containers', 'initContainers']
    .flatMap((list) => dig(template, ['spec', list]) ?? [])
    .map((container) => text(dig(container, ['name'])))
    .filter((name) => name !== undefined);
}

/** The steps of a JSON pointer (RFC 6901). */
function parse(pointer: string): string[] {
  return pointer
    .split('/')
    .slice(1)
    .map((step) => step.replace(/~1/g, '/').replace(/~0/g, '~'));
}

/** All places that a pointer means, in which `*` is every element of a list. */
function resolve(value: unknown, steps: string[], create = false): [string[], unknown][] {
  const [step, ...rest] = steps;
  if (step === undefined) {
    return value === undefined && !create ? [] : [[[], value]];
  }
  const keys =
    step !== '*' ? [step] : isObject(value) || Array.isArray(value) ? Object.keys(value) : [];
  return keys.flatMap((key) =>
    resolve(dig(value, [key]), rest, create).map(([path, found]): [string[], unknown] => [
      [key, ...path],
      found,
    ]),
  );
}

export function dig(value: unknown, path: readonly string[]): unknown {
  return path.reduce(
    (parent, step) =>
      typeof parent === 'object' && parent !== null && Object.hasOwn(parent, step)
        ? (parent as Json)[step]
        : undefined,
    value,
  );
}

/**
 * The same with a value in it, and everything on the way to it that was missing. What was there is
 * copied, not changed: a patch may have put one object of the user's into many places.
 */
export function put(parent: unknown, path: readonly string[], value: string): unknown {
  const [step, ...rest] = path;
  if (step === undefined) {
    return value;
  }
  if (Array.isArray(parent)) {
    return parent.map((item, i) =>
      String(i) === step ? put(item, rest, value) : (item as unknown),
    );
  }
  const map = isObject(parent) ? parent : {};
  const entries = Object.entries({ ...map, [step]: put(map[step], rest, value) });
  // A new key goes where cdk8s, which sorts them, would have it.
  const sorted = step in map || process.env['CDK8S_DISABLE_SORT'] ? entries : entries.sort(byKey);
  return Object.fromEntries(sorted);
}

function byKey([a]: [string, unknown], [b]: [string, unknown]): number {
  return a < b ? -1 : 1;
}

/** YAML reads an unquoted `1` or `true` as no string. */
export function text(value: unknown): string | undefined {
  return value === undefined || typeof value === 'string' ? value : JSON.stringify(value);
}
