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

/** An event of more bytes than this is not read beyond its first piece. */
export const LARGE = 1_048_576;
const PIECE = 16_384;

/** What the agent's parser is to say of the events of one watch. */
export class Reference {
  public readonly lines: string[] = [];
  /** Whether all pods there are were told. */
  private complete = false;

  public constructor(
    /** What is known of each pod: mode, namespace, name, overrides and flag. */
    public readonly known = new Map<string, string>(),
    /** The highest version so far. */
    private seen = '0',
  ) {}

  public event(line: string): void {
    const event = parseEvent(line);
    const metadata = asObject(asObject(event?.object).metadata);
    const bytes = Buffer.from(line);
    const large = bytes.length > LARGE;
    const uid = cgroupUid(metadata, large ? bytes.toString('latin1', 0, PIECE) : undefined);
    if (event?.type === 'BOOKMARK') {
      const { resourceVersion: version } = metadata;
      const old = isNewer(this.seen, typeof version === 'string' ? version : '');
      this.note(metadata);
      this.complete ||= !old;
      this.lines.push(`B\t${this.seen}\t${old ? 'old' : 'new'}`);
    } else if (uid !== undefined && event?.type === 'DELETED') {
      this.known.delete(uid);
      this.note(metadata);
      this.lines.push(`${metadata.deletionTimestamp ? 'D' : 'G'}\t${uid}\t${this.seen}`);
    } else if (uid !== undefined && (event?.type === 'ADDED' || event?.type === 'MODIFIED')) {
      this.changed(uid, metadata, large);
    }
  }

  private note({ resourceVersion: version }: Json): void {
    if (typeof version === 'string' && /^[0-9]{1,39}$/.test(version)) {
      this.seen = isNewer(version, this.seen) ? version : this.seen;
    }
  }

  private changed(uid: string, metadata: Json, large: boolean): void {
    const { name, namespace } = metadata;
    if (!isName(namespace, 63) || !isName(name, 253)) {
      return;
    }
    const mode = large ? undefined : valueOf(asObject(metadata.labels)[LABEL]);
    const annotation = asObject(metadata.annotations)[ANNOTATION] as string | undefined;
    const { overrides, malformed } = parseOverrides(mode === undefined ? '' : annotation);
    const entries = [...overrides].reverse().map(([container, value]) => `${container}=${value}`);
    const flag = large ? 'large' : mode === undefined ? 'invalid' : malformed ? 'malformed' : 'ok';
    const pod = [mode ?? '-', namespace, name];
    const news = [...pod, [',', ...entries.map((entry) => `${entry},`)].join(''), flag].join(' ');
    if (this.known.get(uid) !== news) {
      this.known.set(uid, news);
      this.note(metadata);
      this.lines.push(...entries.map((entry) => `O\t${uid}\t${entry}`));
      this.lines.push(['P', uid, ...pod, flag, this.seen].join('\t'));
    } else if (!this.complete) {
      this.lines.push(`L\t${uid}`);
    }
  }
}

/** What the API server could mean by a line; undefined if it is none of its lines. */
function parseEvent(line: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null && 'object' in value ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a version is higher: a decimal number of any length. */
function isNewer(one: string, other: string): boolean {
  return one.length === other.length ? one > other : one.length > other.length;
}

function cgroupUid(metadata: Json, piece?: string): string | undefined {
  const found = piece && new RegExp(`[{,]"${MIRROR}":"([0-9a-f]+)"`).exec(piece);
  const mirror = piece === undefined ? asObject(metadata.annotations)[MIRROR] : found?.[1];
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
