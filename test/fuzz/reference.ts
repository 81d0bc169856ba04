/**
 * What the agent must make of the API server's words, written a second time with a real JSON parser.
 * It shares nothing with the agent but the contract in the head of pods.awk.
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

export interface Decision {
  readonly lines: string[];
  readonly outcome: string;
}

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
      overrides.set(match[1] as string, valueOf(match[2]) as string);
    } else {
      malformed = true;
    }
  }
  return { overrides, malformed };
}

export class Reference {
  public readonly lines: string[] = [];
  private version = '-';
  private code = 0;
  private readonly said = new Map<string, string>();

  public decision(answer: string): Decision {
    return { lines: this.lines, outcome: `${this.version} ${answer} ${this.code}` };
  }

  public event(event: Json): void {
    const object = asObject(event.object);
    const metadata = asObject(object.metadata);
    const code = event.code ?? (event.type === 'ERROR' ? object.code : undefined);
    if (typeof code === 'number') {
      this.code = code;
    }
    if (event.type === 'ERROR') {
      return;
    }
    this.see(metadata.resourceVersion);
    switch (event.type) {
      case 'ADDED':
      case 'MODIFIED':
        this.changed(metadata);
        break;
      case 'DELETED':
        this.gone(metadata);
        break;
      case 'BOOKMARK':
        this.lines.push('alive');
        break;
    }
  }

  public list(list: Json): void {
    this.lines.push('list');
    if (typeof list.code === 'number') {
      this.code = list.code;
    }
    for (const item of Array.isArray(list.items) ? list.items : []) {
      this.changed(asObject(asObject(item).metadata));
    }
    const version = asObject(list.metadata).resourceVersion;
    if (list.kind === 'PartialObjectMetadataList' && isVersion(version)) {
      this.see(version);
      this.lines.push('synced');
    }
  }

  private see(version: unknown): void {
    if (isVersion(version)) {
      this.version = version;
    }
  }

  private changed(metadata: Json): void {
    const uid = cgroupUid(metadata);
    const { name, namespace } = metadata;
    if (uid === undefined || !isName(namespace, 63) || !isName(name, 253)) {
      return;
    }
    const mode = valueOf(asObject(metadata.labels)[LABEL]) ?? '-';
    const annotation = asObject(metadata.annotations)[ANNOTATION] as string | undefined;
    const { overrides, malformed } = parseOverrides(annotation);
    const lines = [...overrides].map(
      ([container, value]) => `container\t${uid}\t${container}=${value}`,
    );
    lines.push(`pod\t${uid}\t${mode} ${namespace} ${name} ${malformed ? 'malformed' : 'ok'}`);
    if (this.said.get(uid) !== lines.join('\n')) {
      this.said.set(uid, lines.join('\n'));
      this.lines.push(...lines);
    }
  }

  private gone(metadata: Json): void {
    const uid = cgroupUid(metadata);
    if (uid !== undefined) {
      this.said.delete(uid);
      this.lines.push(`gone\t${uid}`);
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

function isVersion(version: unknown): version is string {
  return typeof version === 'string' && /^[0-9]+$/.test(version);
}

/** JSON.parse("{}") of a thing that is not there. */
function asObject(value: unknown): Json {
  return typeof value === 'object' && value !== null ? (value as Json) : {};
}
