import { hasOwn, isObject } from './props';
import { IMAGE, isDnsLabel } from './validation';

/** Where somebody else's kind says what its pods are, see `WorkloadKind`. */
export interface PodLocation {
  readonly apiGroup: string;
  readonly kind: string;
  readonly podTemplates?: string[];
  readonly podMetadata?: string[];
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

/** Kinds of others that are often met, and hand labels and annotations on to their pods, by API group. */
const HAND_ON: Record<string, Record<string, string>> = {
  // https://kubevirt.io/user-guide/user_workloads/virtual_machine_instances/
  'kubevirt.io': { VirtualMachine: '/spec/template/metadata' },
  // https://cloudnative-pg.io/documentation/current/labels_annotations/
  'postgresql.cnpg.io': { Cluster: '/spec/inheritedMetadata' },
  // https://prometheus-operator.dev/docs/api-reference/api/
  'monitoring.coreos.com': {
    Alertmanager: '/spec/podMetadata',
    Prometheus: '/spec/podMetadata',
    PrometheusAgent: '/spec/podMetadata',
    ThanosRuler: '/spec/podMetadata',
  },
  // https://argo-workflows.readthedocs.io/en/latest/fields/
  'argoproj.io': {
    ClusterWorkflowTemplate: '/spec/podMetadata',
    CronWorkflow: '/spec/workflowSpec/podMetadata',
    Workflow: '/spec/podMetadata',
    WorkflowTemplate: '/spec/podMetadata',
  },
};

/** The API group of a rendered object, without the version; none is the core group. */
export function apiGroup(apiVersion: string): string {
  return apiVersion.slice(0, Math.max(apiVersion.indexOf('/'), 0));
}

/** Whether an object makes pods of its own, as far as its kind tells. */
export function isKnownWorkload(apiVersion: string, kind: string): boolean {
  return hasOwn(TEMPLATES, kind) && TEMPLATES[kind]?.apiGroup === apiGroup(apiVersion);
}

/**
 * Finds the pods of a rendered object: where its kind keeps them, where the user says, and in anybody
 * else's kind, however deep, in whatever is called a template and holds containers. That is how
 * Rollouts, JobSets, Knative Services and most others have it, and how objects are kept in a List.
 */
export function findPods(manifest: Json, locations: readonly PodLocation[] = []): Found {
  const found = find(manifest, [], locations);
  return {
    pods: found.filter((one) => typeof one !== 'string'),
    unreachable: found.find((one) => typeof one === 'string'),
  };
}

/** Pods, or in words what seems to make pods of which nothing can be said. */
type Finding = Pods | string;

function find(value: unknown, path: string[], locations: readonly PodLocation[]): Finding[] {
  if (Array.isArray(value)) {
    return value.flatMap((item, i) => find(item, [...path, String(i)], locations));
  }
  if (!isObject(value)) {
    return [];
  }
  const { apiVersion, kind } = value;
  if (typeof apiVersion === 'string' && typeof kind === 'string') {
    return ofManifest(value, path, { apiVersion, kind }, locations);
  }
  return isTemplate(value, path) ? [ofTemplate(value, path)] : ofChildren(value, path, locations);
}

function ofManifest(
  manifest: Json,
  path: string[],
  { apiVersion, kind }: { readonly apiVersion: string; readonly kind: string },
  locations: readonly PodLocation[],
): Finding[] {
  const group = apiGroup(apiVersion);
  const location = locations.find((l) => l.kind === kind && l.apiGroup === group);
  if (location) {
    return ofLocation(manifest, path, location);
  }
  if (isKnownWorkload(apiVersion, kind)) {
    const at = TEMPLATES[kind]?.path ?? [];
    const template = dig(manifest, at);
    return [
      isObject(template)
        ? ofTemplate(template, [...path, ...at])
        : `has no pod template: /${[...path, ...at].join('/')} is missing`,
    ];
  }
  const handedOn = HAND_ON[group]?.[kind];
  if (handedOn !== undefined) {
    return [{ path: [...path, ...parse(handedOn)] }];
  }
  const { items } = manifest;
  if (Array.isArray(items) && kind.endsWith('List')) {
    // What is in a PodList need not say that it is a Pod.
    const ofOneKind = kind === 'List' ? {} : { apiVersion, kind: kind.slice(0, -'List'.length) };
    return items.flatMap((item: unknown, i) => {
      const whole = isObject(item) ? { ...ofOneKind, ...item } : item;
      return find(whole, [...path, 'items', String(i)], locations);
    });
  }
  const found = ofChildren(manifest, path, locations);
  const pods = found.filter((one) => typeof one !== 'string');
  // What holds a template may have containers elsewhere as well.
  return pods.length > 0 ? pods : found;
}

function ofTemplate(template: unknown, path: string[]): Pods {
  return { path: [...path, 'metadata'], names: containerNames(template) };
}

function ofLocation(manifest: Json, path: string[], location: PodLocation): Finding[] {
  const { podTemplates = [], podMetadata = [] } = location;
  const templates = podTemplates.map((pointer) => ({
    pointer,
    found: resolve(manifest, parse(pointer))
      .filter(([, value]) => isObject(value))
      .map(([at, template]) => ofTemplate(template, [...path, ...at])),
  }));
  const metadata = podMetadata.map((pointer) => ({
    pointer,
    found: resolve(manifest, parse(pointer), true).map(([at]) => ({ path: [...path, ...at] })),
  }));
  return [...templates, ...metadata].flatMap(({ pointer, found }): Finding[] =>
    found.length > 0 ? found : [`has nothing at ${pointer}`],
  );
}

function ofChildren(value: Json, path: string[], locations: readonly PodLocation[]): Finding[] {
  const found = Object.entries(value).flatMap(([key, child]) =>
    find(child, [...path, key], locations),
  );
  return isContainer(value, path)
    ? [`has a container at /${path.join('/')}, outside of any pod template`, ...found]
    : found;
}

function isTemplate(value: Json, path: string[]): boolean {
  return /template$/i.test(path.at(-1) ?? '') && Array.isArray(dig(value, ['spec', 'containers']));
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

function containerNames(template: unknown): string[] {
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
