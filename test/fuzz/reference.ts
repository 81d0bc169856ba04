/**
 * What the agent must make of the API server's words, written a second time with a real JSON parser.
 * It shares nothing with the agent but the contract in the head of api.awk.
 */

export const PREFIX = 'cdk8s-oom-kill-mode';
export const LABEL = `${PREFIX}/mode`;
export const ANNOTATION = `${PREFIX}/containers`;
export const MIRROR = 'kubernetes.io/config.mirror';

/** An annotation that is longer than this, in the bytes of its JSON, is malformed as a whole. */
export const LONGEST_ANNOTATION = 8192;

const MODES = new Map([
  ['Single', '0'],
  ['Group', '1'],
]);

type Json = Record<string, unknown>;

/** The file's value for a mode, or undefined for what is not a mode. */
export function valueOf(mode: unknown): string | undefined {
  return typeof mode === 'string' ? MODES.get(mode) : undefined;
}

export function parseOverrides(annotation: string | undefined): {
  overrides: Map<string, string>;
  malformed: boolean;
} {
  const overrides = new Map<string, string>();
  if (annotation === undefined || annotation === '') {
    return { overrides, malformed: false };
  }
  if (annotation.length > LONGEST_ANNOTATION) {
    return { overrides, malformed: true };
  }
  let malformed = false;
  for (const entry of annotation.split(',')) {
    const match = /^ *([a-z0-9-]{1,63})=(Single|Group) *$/.exec(entry);
    if (match) {
      // In the order in which they count: the last one of a name does.
      overrides.delete(match[1] as string);
      overrides.set(match[1] as string, valueOf(match[2]) as string);
    } else {
      malformed = true;
    }
  }
  return { overrides, malformed };
}

/** What the agent's parser is to say of the events of one watch. */
export class Reference {
  public readonly lines: string[] = [];
  private readonly said = new Map<string, string>();

  public event(event: Json): void {
    const metadata = asObject(asObject(event.object).metadata);
    const uid = cgroupUid(metadata);
    if (event.type === 'BOOKMARK') {
      this.lines.push('B');
    } else if (uid !== undefined && event.type === 'DELETED') {
      this.said.delete(uid);
      this.lines.push(`G\t${uid}`);
    } else if (uid !== undefined && (event.type === 'ADDED' || event.type === 'MODIFIED')) {
      this.changed(uid, metadata);
    }
  }

  private changed(uid: string, metadata: Json): void {
    const { name, namespace } = metadata;
    if (!isName(namespace, 63) || !isName(name, 253)) {
      return;
    }
    const mode = valueOf(asObject(metadata.labels)[LABEL]) ?? '-';
    const annotation = asObject(metadata.annotations)[ANNOTATION] as string | undefined;
    const { overrides, malformed } = parseOverrides(annotation);
    const lines = [...overrides]
      .reverse()
      .map(([container, value]) => `O\t${uid}\t${container}=${value}`);
    lines.push(['P', uid, mode, namespace, name, malformed ? 'malformed' : 'ok'].join('\t'));
    if (this.said.get(uid) !== lines.join('\n')) {
      this.said.set(uid, lines.join('\n'));
      this.lines.push(...lines);
    }
  }
}

function cgroupUid(metadata: Json): string | undefined {
  const mirror = asObject(metadata.annotations)[MIRROR];
  if (typeof mirror === 'string' && /^[0-9a-f]{32}$/.test(mirror)) {
    return mirror;
  }
  const { uid } = metadata;
  return typeof uid === 'string' && /^[0-9a-f-]{36}$/.test(uid) ? uid : undefined;
}

function isName(name: unknown, longest: number): name is string {
  return typeof name === 'string' && /^[a-z0-9.-]+$/.test(name) && name.length <= longest;
}

/** JSON.parse("{}") of a thing that is not there. */
function asObject(value: unknown): Json {
  return typeof value === 'object' && value !== null ? (value as Json) : {};
}
