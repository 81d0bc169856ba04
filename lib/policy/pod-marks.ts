import { ApiObject } from 'cdk8s';
import { OomKillMode } from './oom-kill-mode';
import { LONGEST_CONTAINERS_ANNOTATION, containersAnnotation, modeLabel } from '../private/labels';
import { Json, apiGroup, dig, pointerOf, put, text } from './json';
import { isOfKubernetes, knownKind } from './known-kinds';
import { usageError } from '../private/usage-error';
import { PodMarks, PolicyChoices, nameOf } from './policy-choices';
import { Manifest, PodMetadata } from './pods';

/** Writes the label and the annotation of a policy to some pods of a rendered object. */
export function writeMarks(
  object: ApiObject,
  json: Json,
  pods: PodMetadata,
  policy: PolicyChoices,
  marks: PodMarks | undefined,
): Json {
  const { prefix } = policy;
  const found = readMarks(json, pods, prefix);
  const label = modeLabel(prefix);
  const annotation = containersAnnotation(prefix);
  // `requireReadable` reports a label that is not a mode.
  const isMode = modeOf(found.mode) !== undefined;
  requireNoOther(object, label, isMode ? found.mode : undefined, marks?.mode, policy);
  requireNoOther(object, annotation, found.containers, marks?.containers, policy);
  let result = json;
  if (marks && found.mode === undefined) {
    result = put(result, [...pods.path, 'labels', label], marks.mode) as Json;
  }
  if (marks?.containers !== undefined && found.containers === undefined) {
    requireShort(object, annotation, marks.containers);
    result = put(result, [...pods.path, 'annotations', annotation], marks.containers) as Json;
  }
  return result;
}

function requireNoOther(
  object: ApiObject,
  key: string,
  found: string | undefined,
  value: string | undefined,
  policy: PolicyChoices,
): void {
  if (found !== undefined && found !== value) {
    throw usageError(
      object,
      `its pods already have ${key}: ${found}, but ${nameOf(policy)} says ${value ?? (policy.all === 'none' ? 'none()' : 'nothing about it')}`,
      'only one of the two',
    );
  }
}

function requireShort(object: ApiObject, key: string, value: string): void {
  if (value.length > LONGEST_CONTAINERS_ANNOTATION) {
    throw usageError(
      object,
      `${key} would have ${value.length} characters, but the agent reads at most ${LONGEST_CONTAINERS_ANNOTATION}`,
      'single() or group() for most containers, and perContainer() for the others',
    );
  }
}

/** A label and an annotation as a manifest has them. */
interface Written {
  readonly mode?: string;
  readonly containers?: string;
}

/** Reads the label and the annotation of some pods. */
export function readMarks(json: Json, pods: PodMetadata, prefix: string): Written {
  return marksIn(dig(json, pods.path), prefix);
}

function marksIn(metadata: unknown, prefix: string): Written {
  const [label, annotation] = [modeLabel(prefix), containersAnnotation(prefix)];
  return {
    mode: text(dig(metadata, ['labels', label])),
    containers: text(dig(metadata, ['annotations', annotation])),
  };
}

export function modeOf(word: string | undefined): OomKillMode | undefined {
  return word === 'Single' ? OomKillMode.SINGLE : word === 'Group' ? OomKillMode.GROUP : undefined;
}

/** The modes that an annotation names. */
export function parseContainers(annotation: string | undefined): Map<string, OomKillMode> {
  const modes = new Map<string, OomKillMode>();
  for (const entry of (annotation ?? '').split(',')) {
    const [name = '', word] = entry.trim().split('=');
    const mode = modeOf(word);
    if (mode !== undefined) {
      modes.set(name, mode);
    }
  }
  return modes;
}

/** Refuses labels and annotations that the agent would ignore, whoever wrote them. */
export function requireReadable(
  object: ApiObject,
  json: Json,
  manifest: Manifest,
  prefix: string,
  injected: ReadonlySet<string> = new Set(),
): void {
  const [label, annotation] = [modeLabel(prefix), containersAnnotation(prefix)];
  for (const pods of manifest.pods) {
    const { mode, containers = '' } = readMarks(json, pods, prefix);
    if (mode !== undefined && modeOf(mode) === undefined) {
      throw usageError(
        object,
        `its pods have ${label}: ${mode}, which is not a mode`,
        `${label}: Single or ${label}: Group`,
      );
    }
    if (containers !== '' && !/^( *[a-z0-9-]{1,63}=(Single|Group) *(,|$))+$/.test(containers)) {
      throw usageError(
        object,
        `its pods have ${annotation}: ${containers}, which is malformed`,
        `${annotation}: name=Single,other=Group`,
      );
    }
    if (containers !== '' && mode === undefined) {
      throw usageError(
        object,
        `its pods have the annotation ${annotation}: ${containers} without the label ${label}, so the agent ignores it`,
        `${label}: Single or ${label}: Group on the same pods`,
      );
    }
    const named = pods.isComplete && containers !== '' ? parseContainers(containers).keys() : [];
    const unknown = [...named].find(
      (name) => !pods.containers().includes(name) && !injected.has(name),
    );
    if (unknown !== undefined) {
      throw usageError(
        object,
        `its pods have ${annotation}: ${containers}, but no container ${unknown}`,
        `${pods.containers().join(' or ')}, or injectedContainers: ["${unknown}"] in an OomKillPolicy with perContainer() if something adds it later`,
      );
    }
  }
  requireOnPods(object, json, manifest, prefix);
}

/** Refuses a label outside of the pod template, on the object or on the Job of a CronJob, because no pod gets it. */
function requireOnPods(object: ApiObject, json: Json, manifest: Manifest, prefix: string): void {
  const { apiVersion, kind, path: start, pods } = manifest;
  const group = apiGroup(apiVersion);
  if (pods.length === 0 && (!isOfKubernetes(group) || knownKind(group, kind))) {
    return;
  }
  requireSaid(object, json, manifest, start, prefix);
  for (const { path, isComplete } of pods) {
    // The last two steps are the template, and its metadata.
    for (let length = start.length + 1; isComplete && length < path.length - 1; length++) {
      requireSaid(object, json, manifest, path.slice(0, length), prefix);
    }
  }
}

function requireSaid(
  object: ApiObject,
  json: Json,
  { path: start, kind, pods }: Manifest,
  path: readonly string[],
  prefix: string,
): void {
  const { mode, containers } = marksIn(dig(dig(json, path), METADATA), prefix);
  if (mode === undefined && containers === undefined) {
    return;
  }
  const isSaid = pods.some((one) => {
    const said = readMarks(json, one, prefix);
    return (
      pointerOf(one.path) === pointerOf([...path, ...METADATA]) ||
      ((mode === undefined || mode === said.mode) &&
        (containers === undefined || containers === said.containers))
    );
  });
  if (!isSaid) {
    const [label, annotation] = [modeLabel(prefix), containersAnnotation(prefix)];
    const what =
      mode === undefined ? `annotation ${annotation}: ${containers}` : `label ${label}: ${mode}`;
    const where =
      path.length === start.length ? `the ${kind} itself` : pointerOf([...path, ...METADATA]);
    throw usageError(
      object,
      `the ${what} is on ${where}, but its pods do not have it`,
      'OomKillPolicy.of() of this object, or the same on its pod template',
    );
  }
}

const METADATA = ['metadata'];
