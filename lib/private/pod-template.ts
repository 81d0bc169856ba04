import { ApiObject, JsonPatch } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { misuse } from './misuse';

/** Where each kind keeps the template of its pods. The API group keeps namesakes apart (Volcano has a Job, too). */
const TEMPLATES: Record<string, { readonly apiGroup: string; readonly path: string[] }> = {
  Pod: { apiGroup: 'core', path: [] },
  ReplicationController: { apiGroup: 'core', path: ['spec', 'template'] },
  DaemonSet: { apiGroup: 'apps', path: ['spec', 'template'] },
  Deployment: { apiGroup: 'apps', path: ['spec', 'template'] },
  ReplicaSet: { apiGroup: 'apps', path: ['spec', 'template'] },
  StatefulSet: { apiGroup: 'apps', path: ['spec', 'template'] },
  Job: { apiGroup: 'batch', path: ['spec', 'template'] },
  CronJob: { apiGroup: 'batch', path: ['spec', 'jobTemplate', 'spec', 'template'] },
};

/** The kinds that have a pod template, for messages. */
export const WORKLOAD_KINDS = Object.keys(TEMPLATES).sort().join(', ');

/** cdk8s validates the whole app once for every chart; rendering every object as often would show. */
const rendered = new WeakMap<ApiObject, PodTemplate>();

/** The two maps of a pod template's metadata. */
export type MetadataMap = 'labels' | 'annotations';

/** The pod template of one workload, whoever wrote it: a typed construct, plain YAML, Helm. */
export abstract class PodTemplate {
  /** Whether an object makes pods of its own. */
  static isWorkload(object: ApiObject): boolean {
    return TEMPLATES[object.kind]?.apiGroup === object.apiGroup;
  }

  /** Whether an object hides others inside: `List`, `DeploymentList` and so on. */
  static isList(object: ApiObject): boolean {
    const item = /^(.*)List$/.exec(object.kind)?.[1];
    return item !== undefined && (item === '' || item in TEMPLATES);
  }

  /** The template of a workload. */
  static of(workload: ApiObject): PodTemplate {
    const parent = workload.node.scope;
    if (parent instanceof kplus.AbstractPod && parent.node.defaultChild === workload) {
      return new TypedPodTemplate(workload, parent);
    }
    const path = TEMPLATES[workload.kind]?.path ?? [];
    const template = rendered.get(workload) ?? new RenderedPodTemplate(workload, path);
    rendered.set(workload, template);
    return template;
  }

  protected constructor(readonly workload: ApiObject) {}

  /** The names of the containers, init containers (and so sidecars) included. */
  abstract containerNames(): string[];
  abstract get(map: MetadataMap, key: string): string | undefined;
  abstract set(map: MetadataMap, key: string, value: string): void;
}

/** A pod or workload of cdk8s-plus: asking its own API spares rendering it once more. */
class TypedPodTemplate extends PodTemplate {
  constructor(
    workload: ApiObject,
    private readonly pod: kplus.AbstractPod,
  ) {
    super(workload);
  }

  override containerNames(): string[] {
    return [...this.pod.containers, ...this.pod.initContainers].map((container) => container.name);
  }

  override get(map: MetadataMap, key: string): string | undefined {
    // The metadata of cdk8s tells a label, but an annotation only as JSON.
    return map === 'labels'
      ? this.pod.podMetadata.getLabel(key)
      : text(dig(this.pod.podMetadata.toJson(), [map, key]));
  }

  override set(map: MetadataMap, key: string, value: string): void {
    if (map === 'labels') {
      this.pod.podMetadata.addLabel(key, value);
    } else {
      this.pod.podMetadata.addAnnotation(key, value);
    }
  }
}

/** Any other object: what it says is what it renders, and JSON patches are the way to change it. */
class RenderedPodTemplate extends PodTemplate {
  private readonly template: unknown;

  constructor(
    workload: ApiObject,
    private readonly path: string[],
  ) {
    super(workload);
    this.template = dig(workload.toJson(), path);
    if (this.template === undefined) {
      throw misuse(
        workload,
        `${workload.kind} has no pod template: /${path.join('/')} is missing`,
        'the template',
      );
    }
  }

  override containerNames(): string[] {
    return ['containers', 'initContainers']
      .flatMap((list) => dig(this.template, ['spec', list]) ?? [])
      .map((container) => text(dig(container, ['name'])) ?? '');
  }

  override get(map: MetadataMap, key: string): string | undefined {
    return text(dig(this.template, ['metadata', map, key]));
  }

  /**
   * Adds the value with all its missing parents. JSON Patch creates none of them
   * (RFC 6902, 4.1), plain YAML often has neither `metadata` nor `labels` in its
   * pod templates, and adding a parent that is there would empty it.
   */
  override set(map: MetadataMap, key: string, value: string): void {
    const steps = ['metadata', map, key];
    steps.forEach((step, depth) => {
      const last = depth === steps.length - 1;
      const parent = dig(this.template, steps.slice(0, depth)) as Record<string, unknown>;
      if (last || parent[step] === undefined) {
        const pointer = [...this.path, ...steps.slice(0, depth + 1)].map(escape).join('');
        this.workload.addJsonPatch(JsonPatch.add(pointer, last ? value : {}));
        // In step with the patches, so that the next call finds these parents.
        parent[step] = last ? value : {};
      }
    });
  }
}

/** One step of a JSON pointer (RFC 6901). */
function escape(step: string): string {
  return `/${step.replace(/~/g, '~0').replace(/\//g, '~1')}`;
}

function dig(value: unknown, path: string[]): unknown {
  return path.reduce(
    (parent, step) =>
      typeof parent === 'object' && parent !== null
        ? (parent as Record<string, unknown>)[step]
        : undefined,
    value,
  );
}

/** YAML reads an unquoted `1` or `true` as no string. */
function text(value: unknown): string | undefined {
  return value === undefined || typeof value === 'string' ? value : JSON.stringify(value);
}
