import { ApiObject } from 'cdk8s';
import { OomKillMode } from './oom-kill-mode';
import { LONGEST_CONTAINERS_ANNOTATION, containersAnnotation, modeLabel } from '../private/labels';
import { Json, apiGroup, dig, pointerOf, put, text } from './json';
import { isOfKubernetes, knownKind } from './known-kinds';
import { usageError } from '../private/usage-error';
import { PodMarks, PolicyChoices, nameOf } from './policy-choices';
import { Manifest, PodMetadata } from './pods';

/** Writes what a policy says on some pods of a rendered object. */
export function writeMarks(
  object: ApiObject,
  json: Json,
  pods: PodMetadata,
  policy: PolicyChoices,
  marks: PodMarks | undefined,
): Json {
  const label = [...pods.path, 'labels', modeLabel(policy.prefix)];
  const annotation = [...pods.path, 'annotations', containersAnnotation(policy.prefix)];
  return writeOne(
    object,
    writeOne(object, json, label, marks?.mode, policy),
    annotation,
    marks?.containers,
    policy,
  );
}

function writeOne(
  object: ApiObject,
  json: Json,
  path: string[],
  value: string | undefined,
  policy: PolicyChoices,
): Json {
  const found = text(dig(json, path));
  if (found !== undefined && found !== value && !isIllegible(path, found)) {
    throw usageError(
      object,
      `its pods say ${path.at(-1)}: ${found} already, and ${nameOf(policy)} says ${value ?? (policy.all === 'none' ? 'none()' : 'no such thing')}`,
      'one of the two',
    );
  }
  if (value === undefined || found !== undefined) {
    return json;
  }
  if (value.length > LONGEST_CONTAINERS_ANNOTATION) {
    throw usageError(
      object,
      `${path.at(-1)} is longer than ${LONGEST_CONTAINERS_ANNOTATION} characters, and the agent would not read it: ${value.length}`,
      'single() or group() for most containers, and perContainer() for the others',
    );
  }
  return put(json, path, value) as Json;
}

/** What is no mode is told of as such, see `requireReadable`. */
function isIllegible(path: string[], found: string): boolean {
  return path.at(-2) === 'labels' && modeOf(found) === undefined;
}

/** What the pods of a manifest say, whoever wrote it. */
export function readMode(json: Json, pods: PodMetadata, prefix: string): string | undefined {
  return text(dig(json, [...pods.path, 'labels', modeLabel(prefix)]));
}

export function readContainers(json: Json, pods: PodMetadata, prefix: string): string | undefined {
  return text(dig(json, [...pods.path, 'annotations', containersAnnotation(prefix)]));
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

/** Whatever opts pods in, whoever wrote it, has to be something that the agent reads, on pods. */
export function requireReadable(
  object: ApiObject,
  json: Json,
  manifest: Manifest,
  prefix: string,
  injected: ReadonlySet<string> = new Set(),
): void {
  const [label, annotation] = [modeLabel(prefix), containersAnnotation(prefix)];
  for (const pods of manifest.pods) {
    const mode = readMode(json, pods, prefix);
    if (mode !== undefined && modeOf(mode) === undefined) {
      throw usageError(
        object,
        `its pods say ${label}: ${mode}, which is no mode`,
        `${label}: Single or ${label}: Group`,
      );
    }
    const containers = readContainers(json, pods, prefix) ?? '';
    if (containers !== '' && !/^( *[a-z0-9-]{1,63}=(Single|Group) *(,|$))+$/.test(containers)) {
      throw usageError(
        object,
        `its pods say ${annotation}: ${containers}, which cannot be read`,
        `${annotation}: name=Single,other=Group`,
      );
    }
    if (containers !== '' && mode === undefined) {
      throw usageError(
        object,
        `its pods have the annotation ${annotation}: ${containers}, and not the label ${label}, without which nothing reads it`,
        `${label}: Single or ${label}: Group beside it`,
      );
    }
    const named = pods.isComplete && containers !== '' ? parseContainers(containers).keys() : [];
    const unknown = [...named].find(
      (name) => !pods.containers().includes(name) && !injected.has(name),
    );
    if (unknown !== undefined) {
      throw usageError(
        object,
        `its pods say ${annotation}: ${containers}, and they have no container ${unknown}`,
        `${pods.containers().join(' or ')}, or injectedContainers: ["${unknown}"] in an OomKillPolicy with perContainer() if something adds it later`,
      );
    }
  }
  requireOnPods(object, json, manifest, prefix);
}

/** What is around a pod template, on the object itself or on the Job of a CronJob, reaches no pod. */
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
  const metadata = dig(dig(json, path), METADATA);
  const [label, annotation] = [modeLabel(prefix), containersAnnotation(prefix)];
  const mode = text(dig(metadata, ['labels', label]));
  const containers = text(dig(metadata, ['annotations', annotation]));
  if (mode === undefined && containers === undefined) {
    return;
  }
  const isSaid = pods.some(
    (one) =>
      pointerOf(one.path) === pointerOf([...path, ...METADATA]) ||
      ((mode === undefined || mode === readMode(json, one, prefix)) &&
        (containers === undefined || containers === readContainers(json, one, prefix))),
  );
  if (!isSaid) {
    const what =
      mode === undefined ? `annotation ${annotation}: ${containers}` : `label ${label}: ${mode}`;
    const where =
      path.length === start.length ? `the ${kind} itself` : pointerOf([...path, ...METADATA]);
    throw usageError(
      object,
      `the ${what} is on ${where}, and its pods do not have it`,
      'OomKillPolicy.of() of it, or the same on its pod template',
    );
  }
}

const METADATA = ['metadata'];
