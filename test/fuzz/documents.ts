import { Random } from './random';
import { ANNOTATION, LABEL, LONGEST_ANNOTATION, MIRROR } from './reference';

type Field = [key: string, value: unknown];

/** A map in this order, which may hold a key twice. */
class Fields {
  public constructor(public readonly fields: Field[]) {}
}

/** Keys of ours and of the API's, and what resembles them. */
const KEYS = [
  ...[LABEL, ANNOTATION, MIRROR, `${LABEL}s`, `x${LABEL}`, 'mode', 'containers', 'metadata'],
  ...['type', 'kind', 'object', 'items', 'uid', 'name', 'namespace', 'labels', 'annotations'],
  ...['code', 'reason', 'message', 'ownerReferences', 'ended', '', '/'],
];

/**
 * The API server's words: the order of fields and the escapes of Go's encoder, the pods' own text as
 * odd as can be.
 */
export class Documents {
  private last = 1000;
  private readonly uids: string[];
  private readonly hashes: string[];

  public constructor(
    private readonly random: Random,
    /** How long a text is at most. */
    private readonly longest: number,
  ) {
    this.uids = random.times(1 + random.size(20), () => random.uid());
    this.hashes = random.times(3, () => random.hex(32));
  }

  /** One line of a watch, without its line feed. */
  public event(): string {
    const { random } = this;
    const type = random.pick([
      ...['ADDED', 'ADDED', 'MODIFIED', 'MODIFIED', 'MODIFIED', 'DELETED', 'BOOKMARK'],
      ...(random.chance(0.05) ? ['', 'ODD', 'ADDED ', 'added'] : []),
    ]);
    const object =
      type === 'BOOKMARK' ? this.bookmark() : this.partial(this.metadata(), random.chance(0.95));
    return this.encode(
      new Fields([
        ['type', type],
        ['object', object],
      ]),
    );
  }

  public error(): string {
    return this.encode({ type: 'ERROR', object: this.status(this.random.pick([410, 500, 504])) });
  }

  /** The object of an answer that is no success. */
  public status(code: number): object {
    return {
      kind: 'Status',
      apiVersion: 'v1',
      metadata: {},
      status: 'Failure',
      message: this.text(),
      reason: this.random.pick(['Expired', 'Forbidden', this.text(40)]),
      ...(this.random.chance(0.5) ? { details: { uid: this.random.uid(), causes: [{}] } } : {}),
      code,
    };
  }

  /** What no API server says; without a line feed. */
  public garbage(): string {
    const { random } = this;
    return random
      .pick([
        () => random.text('{}[]",:\\ax1 ', 1 + random.size(80)),
        () => random.text('{}', 1 + random.size(300)),
        () => this.text().replaceAll('\n', ''),
        () => String.fromCharCode(...random.times(random.size(60), () => random.int(256))),
        () => `<html>${random.text('<>="{}', 50)}</html>`,
        () => JSON.stringify(this.text()),
      ])()
      .replaceAll('\n', ' ');
  }

  public encode(value: unknown): string {
    const text = write(value);
    return this.random.chance(0.1) ? ascii(text) : text;
  }

  private bookmark(): Fields {
    return this.partial(
      new Fields([
        ['resourceVersion', this.version()],
        ['creationTimestamp', null],
        ...(this.random.chance(0.5)
          ? [['annotations', { 'k8s.io/initial-events-end': 'true' }] as Field]
          : []),
      ]),
      true,
    );
  }

  private partial(metadata: Fields, typed: boolean): Fields {
    return new Fields([
      ...(typed
        ? ([
            ['kind', 'PartialObjectMetadata'],
            ['apiVersion', 'meta.k8s.io/v1'],
          ] as Field[])
        : []),
      ['metadata', metadata],
    ]);
  }

  private metadata(): Fields {
    const { random } = this;
    const maybe = (share: number, ...field: Field): Field[] =>
      random.chance(share) ? [field] : [];
    return new Fields([
      ...maybe(0.99, 'name', this.name(253)),
      ...maybe(0.7, 'generateName', this.name(50)),
      ...maybe(0.99, 'namespace', this.name(63)),
      ...maybe(0.99, 'uid', this.uid()),
      ...maybe(0.99, 'resourceVersion', this.version()),
      ...maybe(0.5, 'generation', random.int(1000)),
      ...maybe(0.99, 'creationTimestamp', random.chance(0.1) ? null : '2026-01-01T00:00:00Z'),
      ...maybe(0.1, 'deletionTimestamp', '2026-01-01T00:00:00Z'),
      ...maybe(0.1, 'deletionGracePeriodSeconds', 30),
      ...maybe(0.97, 'labels', this.labels()),
      ...maybe(0.7, 'annotations', this.annotations()),
      ...maybe(
        0.7,
        'ownerReferences',
        random.times(random.int(3), () => this.owner()),
      ),
      ...maybe(
        0.2,
        'finalizers',
        random.times(random.int(3), () => this.text()),
      ),
      ...maybe(
        0.7,
        'managedFields',
        random.times(random.int(3), () => this.managedFields()),
      ),
    ]);
  }

  /** Most of the time a little higher than before. */
  private version(): string {
    const { random } = this;
    this.last += random.int(3);
    return random.chance(0.9)
      ? String(this.last)
      : random.pick(['', '0', 'x', '1e9', String(this.last - random.int(50)), '7'.repeat(40)]);
  }

  private name(longest: number): string {
    const { random } = this;
    if (random.chance(0.03)) {
      return random.pick(['', 'A', 'a b', 'a\nb', 'a_b', '$(id)', 'é', '../..', this.text(2000)]);
    }
    if (random.chance(0.05)) {
      return random.pick([...this.uids, 'Single', 'x'.repeat(longest), 'x'.repeat(longest + 1)]);
    }
    return random.text('abcxyz019-.', 1 + random.size(20));
  }

  private uid(): string {
    const { random } = this;
    const uid = random.pick(this.uids);
    return random.chance(0.03)
      ? random.pick(['', uid.slice(1), `${uid}0`, uid.toUpperCase(), `${uid.slice(1)}/`, 'x'])
      : uid;
  }

  private mode(): string {
    return this.random.chance(0.9)
      ? this.random.pick(['Single', 'Group'])
      : this.random.pick(['', 'single', 'Single ', 'Group\n', '0', '1', '"Group', this.text()]);
  }

  private labels(): Fields {
    const fields: Field[] = [...this.someFields(3)];
    if (this.random.chance(0.95)) {
      fields.push([LABEL, this.mode()]);
    }
    return this.sorted(fields);
  }

  private annotations(): Fields {
    const { random } = this;
    const fields: Field[] = [...this.someFields(4)];
    if (random.chance(0.6)) {
      fields.push([ANNOTATION, this.overrides()]);
    }
    if (random.chance(0.15)) {
      fields.push([
        MIRROR,
        random.pick([...this.hashes, ...this.uids, '', this.text(), random.hex(31)]),
      ]);
    }
    return this.sorted(fields);
  }

  /** In the order of Go's maps; now and then a key is there twice, and the last one counts. */
  private sorted(fields: Field[]): Fields {
    fields.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    return new Fields(
      this.random.chance(0.9)
        ? fields.filter(([key], index) => fields[index + 1]?.[0] !== key)
        : fields,
    );
  }

  private someFields(most: number): Field[] {
    return this.random.times(this.random.int(most + 1), () => [
      this.random.chance(0.5) ? this.random.pick(KEYS.slice(3)) : this.random.text('az/.-', 5),
      this.text(),
    ]);
  }

  private overrides(): string {
    const { random } = this;
    const names = ['web', 'web-2', 'web-2-b', 'a', 'x'.repeat(63)];
    const entry = () =>
      random.chance(0.8)
        ? `${random.pick(['', '', ' ', '   '])}${random.pick(names)}=${random.pick(['Single', 'Group'])}${random.pick(['', '', ' '])}`
        : random.pick([
            ...['', ' ', '=', '=Single', 'web', 'web=', 'web=single', 'a.b=Single', 'A=Single'],
            ...['a=Single=Group', 'a b=Single', '*=Group', `${'x'.repeat(64)}=Group`, '\\=Group'],
            ...['web =Single', 'web= Single', '\tweb=Single', '"web"=Single', 'web=Group\n'],
            this.text(),
          ]);
    const text = random
      .times(random.chance(0.02) ? 900 : random.size(8), entry)
      .join(random.chance(0.95) ? ',' : ' , ');
    // Between these two nobody promised anything: the limit is about bytes of JSON.
    const long = ascii(write(text)).length > LONGEST_ANNOTATION;
    return long && text.length <= LONGEST_ANNOTATION ? 'web=Group' : text;
  }

  private owner(): object {
    return {
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      name: this.name(50),
      uid: this.uid(),
      controller: true,
      blockOwnerDeletion: true,
    };
  }

  private managedFields(): object {
    const { random } = this;
    const tree = (depth: number): Fields =>
      new Fields(
        random.times(depth > 5 ? 0 : random.int(4), () => [
          random.pick([
            ...['.', 'f:metadata', 'f:labels', 'f:annotations', `f:${LABEL}`, 'f:ownerReferences'],
            `k:${JSON.stringify({ uid: random.pick(this.uids) })}`,
            `k:{"type":"Ready"}`,
            `v:${JSON.stringify(this.text(30))}`,
            random.pick(KEYS),
          ]),
          tree(depth + 1),
        ]),
      );
    return {
      manager: this.text(20),
      operation: 'Update',
      apiVersion: 'v1',
      time: '2026-01-01T00:00:00Z',
      fieldsType: 'FieldsV1',
      fieldsV1: tree(0),
      subresource: 'status',
    };
  }

  /** Text that somebody put into an annotation. */
  private text(longest = this.longest): string {
    const { random } = this;
    const uid = random.pick(this.uids);
    const metadata = {
      name: 'x',
      namespace: 'y',
      uid,
      resourceVersion: '99999999',
      labels: { [LABEL]: 'Group' },
      annotations: { [ANNOTATION]: 'web=Group', [MIRROR]: this.hashes[0] },
    };
    const pieces = [
      () => random.text('ab 1.', random.size(40)),
      () => random.text('\\"{}[]:,/', 1 + random.size(40)),
      () => random.text('\u0000\u0001\u0008\t\n\r\u001b\u007f\u0085\u2028\ufeff<>&', 5),
      () => random.text('éß漢\u{1f600}\ud800\udc00', 8),
      () => random.pick(['{', '}', '"', '\\', ']']).repeat(random.size(longest)),
      () => '\nended 200 0\n',
      () => '"}}\n{"type":"DELETED"',
      () => `\nP\t${uid}\t0\ta\tb\tok\nB\n`,
      () => `"${LABEL}":"Group"`,
      () => `$(touch /tmp/trap) \`id\` %s %n`,
      () => JSON.stringify({ type: 'ADDED', object: { kind: 'x', metadata } }),
      () => JSON.stringify({ type: 'ERROR', object: { kind: 'Status', code: 410 } }),
    ];
    let text = random.pick(pieces)();
    for (let depth = random.int(4); depth > 0; depth -= 1) {
      text = random.chance(0.5) ? JSON.stringify(text) : text + random.pick(pieces)();
    }
    const size = random.chance(0.05) ? random.size(longest) : 0;
    if (size > text.length && text !== '') {
      text = text.repeat(Math.ceil(size / text.length));
    }
    return text.slice(0, longest);
  }
}

/** Like Go's encoding/json: these are escaped although JSON would not ask for it. */
function write(value: unknown): string {
  if (value instanceof Fields) {
    return `{${value.fields.map(([key, field]) => `${write(key)}:${write(field)}`).join(',')}}`;
  }
  if (Array.isArray(value)) {
    return `[${value.map(write).join(',')}]`;
  }
  if (typeof value === 'object' && value !== null) {
    return write(new Fields(Object.entries(value)));
  }
  return JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, escape);
}

function ascii(json: string): string {
  return json.replace(/[\u0080-\uffff]/g, escape);
}

function escape(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
