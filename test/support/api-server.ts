import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, Server } from 'node:https';
import { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The metadata of a pod, as far as the agent could ever see it. */
export interface PodMetadata {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly labels?: Record<string, string>;
  readonly annotations?: Record<string, string>;
  readonly deletionTimestamp?: string;
  /** The phase in its status, which no answer has in it: Running unless something else is said. */
  readonly phase?: 'Pending' | 'Running' | 'Succeeded' | 'Failed';
}

/** One request for pods. */
export interface RequestRecord {
  readonly at: number;
  readonly url: URL;
  readonly headers: IncomingMessage['headers'];
  readonly status: number;
}

/** An Event of the core group, as far as the agent writes it. */
export interface EventObject {
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly involvedObject: Record<string, string>;
  readonly type: string;
  readonly reason: string;
  readonly message: string;
  readonly count: number;
  readonly firstTimestamp: string;
  readonly lastTimestamp: string;
  readonly [field: string]: unknown;
}

/** One attempt to write an Event: what was sent, and the status of the answer. */
export interface EventWrite {
  readonly at: number;
  readonly event: EventObject;
  readonly status: number;
}

/** The object of an answer that is no success. */
export interface Status {
  readonly code: number;
  readonly reason: string;
  readonly message: string;
  readonly [field: string]: unknown;
}

/** What the server does with the next request instead of answering it. */
export type Fault = (response: ServerResponse, url: URL) => void;

const REASONS: Record<number, [reason: string, message: string]> = {
  400: ['BadRequest', 'the server could not understand the request'],
  401: ['Unauthorized', 'Unauthorized'],
  403: ['Forbidden', 'pods is forbidden: User "agent" cannot watch resource "pods"'],
  410: ['Expired', 'too old resource version: 1 (1000)'],
  415: ['UnsupportedMediaType', 'the body of the request was in an unknown format'],
  422: ['Invalid', 'Event is invalid'],
  429: ['TooManyRequests', 'Too many requests, please try again later.'],
  500: ['InternalError', 'Internal error occurred: etcdserver: request timed out'],
  503: ['ServiceUnavailable', 'apiserver is shutting down'],
};

/** A Status as the API server words it, or with words of the test's. */
export function status(code: number, message?: string, more: object = {}): Status {
  const [reason, usual] = REASONS[code] ?? ['Unknown', 'unknown'];
  const head = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure' };
  return { ...head, message: message ?? usual, reason, ...more, code };
}

/** What the API server says of Events in a namespace that is being deleted. */
export const NAMESPACE_TERMINATING = status(
  403,
  'events "x" is forbidden: unable to create new content in namespace shop because it is being terminated',
  {
    details: {
      name: 'x',
      kind: 'events',
      causes: [
        {
          reason: 'NamespaceTerminating',
          message: 'namespace shop is being terminated',
          field: 'metadata.namespace',
        },
      ],
    },
  },
);

/** Answers with a Status, and says after how many seconds to ask again if that is given. */
export function fail(
  response: ServerResponse,
  code: number | Status,
  retryAfter?: number | string,
): void {
  const object = typeof code === 'number' ? status(code) : code;
  const retry = retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) };
  response.writeHead(object.code, { 'content-type': 'application/json', ...retry });
  response.end(`${JSON.stringify(object)}\n`);
}

/** The version before the first change; each change adds one. */
const FIRST = 1000;

/** A watch that is open. */
interface Watch {
  readonly response: ServerResponse;
  /** The label that it is about. */
  readonly label: string;
  /** The version up to which it was told of changes. */
  told: number;
}

/** What a write did to a pod; neither is there before it was created and after it was deleted. */
interface Change {
  readonly version: number;
  readonly before?: PodMetadata;
  readonly after?: PodMetadata;
}

/**
 * The part of the Kubernetes API that the agent has rights for: a watch of the metadata of the pods
 * of its node that carry one label, and Events by server-side apply, over TLS and with a token.
 */
export class FakeApiServer {
  public static async start(options: { host?: string } = {}): Promise<FakeApiServer> {
    const { key, cert } = issueCertificate();
    const api = new FakeApiServer(createServer({ key, cert }), cert);
    await api.listen(0, options.host);
    return api;
  }

  public readonly requests: RequestRecord[] = [];
  /** The only token that is accepted. */
  public token = 'eyJhbGciOiJSUzI1NiJ9.first_token-1';
  /**
   * Whether the server knows `sendInitialEvents` and sends the first bookmark of each watch right
   * after the pods that there are, as Kubernetes 1.36. If not it refuses that word, as 1.28, and
   * bookmarks come when the test says so, if ever: 1.28 takes a minute.
   */
  public knowsInitialEvents = true;
  /** The milliseconds after which a balancer in between cuts each watch that begins from now on. */
  public cutAfter: number | undefined;
  /** Faults for the next requests for pods, one each. */
  public readonly faults: Fault[] = [];
  /** A fault for every request for pods, until it is taken away. */
  public outage: Fault | undefined;
  /** The Events that there are, by namespace/name; whoever takes one away has let it expire. */
  public readonly events = new Map<string, EventObject>();
  /** All attempts to write one. */
  public readonly eventWrites: EventWrite[] = [];
  /** What every attempt to write an Event comes to, until it is taken away. */
  public eventFault: number | Status | undefined;
  /** How long every answer to such an attempt takes, in milliseconds. */
  public eventDelay = 0;
  /** How many bytes a write has at most: whatever is sent is cut anywhere. */
  public chunk = Infinity;

  private readonly pods = new Map<string, PodMetadata>();
  private readonly changes: Change[] = [];
  private readonly watches = new Set<Watch>();
  private readonly sockets = new Set<Socket>();
  private lastPort = 0;
  private latest = FIRST;
  /** The version that the server's cache has got to. */
  private cached = Infinity;

  private constructor(
    private readonly server: Server,
    public caPem: string,
  ) {
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      this.answer(request, response);
    });
    server.on('connection', (socket: Socket) => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
    });
  }

  /** Where it listens, or did before it was paused. */
  public get port(): number {
    const address = this.server.address() as AddressInfo | null;
    this.lastPort = address?.port ?? this.lastPort;
    return this.lastPort;
  }

  /** The watches that are open now. */
  public get watching(): number {
    return this.watches.size;
  }

  /** The version of the last change. */
  public get version(): number {
    return this.latest;
  }

  /** Creates or changes a pod. */
  public setPod(pod: PodMetadata): void {
    this.change(pod.uid, pod);
  }

  /** The pod loses its labels, which a watch with a label selector reports as DELETED. */
  public removeLabel(uid: string): void {
    const pod = this.pods.get(uid);
    if (pod) {
      this.change(uid, { ...pod, labels: {} });
    }
  }

  /** All containers of the pod ended, for good; an ended pod does not match the agent's selector. */
  public endPod(uid: string): void {
    const pod = this.pods.get(uid);
    if (pod) {
      this.change(uid, { ...pod, phase: 'Succeeded' });
    }
  }

  public deletePod(uid: string): void {
    const pod = this.pods.get(uid);
    if (pod) {
      this.change(uid, { ...pod, deletionTimestamp: '2026-01-01T00:00:00Z' });
      this.change(uid, undefined);
    }
  }

  /** The pod is gone, and no open watch is told: only the next one shows it. */
  public forgetSilently(uid: string): void {
    this.watches.forEach((watch) => (watch.told = Infinity));
    this.change(uid, undefined);
    this.watches.forEach((watch) => (watch.told = this.latest));
  }

  /**
   * From now on a server answers whose cache has got no further than to this version: watches tell
   * of what there was then, bookmarks have that version, and what came later is told by `catchUp`.
   */
  public stayAt(version: number): void {
    this.cached = version;
  }

  /** Tells every open watch of all that happened since `stayAt`. */
  public catchUp(): void {
    this.cached = Infinity;
    this.watches.forEach((watch) => {
      this.tell(watch);
    });
  }

  /** Sends a bookmark to every open watch. */
  public bookmark(): void {
    this.sendRaw(this.bookmarkLine({}));
  }

  /** Sends text to every open watch as it is. */
  public sendRaw(text: string): void {
    for (const { response } of this.watches) {
      this.write(response, text);
    }
  }

  /** Ends every open watch cleanly. */
  public endWatches(): void {
    for (const { response } of this.watches) {
      response.end();
    }
    this.watches.clear();
  }

  /** Ends every open watch with an ERROR event, as when its version is too old. */
  public failWatches(code: number): void {
    this.sendRaw(`${JSON.stringify({ type: 'ERROR', object: status(code) })}\n`);
    this.endWatches();
  }

  /** Says nothing more to the watches that are open now, and does not close them. */
  public hangWatches(): void {
    this.watches.clear();
  }

  /** Another certificate, from another authority, for every connection from now on. */
  public rotateCertificate(): void {
    const { key, cert } = issueCertificate();
    this.server.setSecureContext({ key, cert });
    this.caPem = cert;
  }

  /** Breaks every connection. */
  public breakConnections(): void {
    for (const socket of this.sockets) {
      socket.destroy();
    }
    this.watches.clear();
  }

  /** Stops listening, as if the API server were down; `resume` takes the same port again. */
  public async pause(): Promise<number> {
    const port = this.port;
    await this.stop();
    return port;
  }

  public async resume(port: number): Promise<void> {
    await this.listen(port);
  }

  public async stop(): Promise<void> {
    this.breakConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private async listen(port: number, host = '127.0.0.1'): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(port, host, resolve));
  }

  private change(uid: string, after: PodMetadata | undefined): void {
    const before = this.pods.get(uid);
    this.latest += 1;
    this.changes.push({ version: this.latest, before, after });
    if (after) {
      this.pods.set(uid, after);
    } else {
      this.pods.delete(uid);
    }
    this.watches.forEach((watch) => {
      this.tell(watch);
    });
  }

  /**
   * Tells of changes that the watch was not told of yet. What it is told depends on whether its
   * selector matched before, and matches now: DELETED has the pod as it was before.
   */
  private tell(watch: Watch): void {
    const { response, label } = watch;
    const news = this.changes.slice(watch.told - FIRST, Math.min(this.cached, this.latest) - FIRST);
    for (const { version, before, after } of news) {
      watch.told = version;
      if (after && matches(after, label)) {
        const type = matches(before, label) ? 'MODIFIED' : 'ADDED';
        this.write(response, this.line(type, after, version));
      } else if (before && matches(before, label)) {
        this.write(response, this.line('DELETED', before, version));
      }
    }
  }

  private write(response: ServerResponse, text: string): void {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; at += this.chunk) {
      response.write(bytes.subarray(at, Math.min(bytes.length, at + this.chunk)));
    }
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '/', 'https://api');
    const [, namespace = '', name] =
      /^\/api\/v1\/namespaces\/([^/]+)\/events\/([^/]+)$/.exec(url.pathname) ?? [];
    if (name !== undefined) {
      this.answerEvent(request, response, url, { namespace, name });
      return;
    }
    const fault = this.faults.shift() ?? this.outage;
    const trouble = fault ? undefined : this.check(request, url);
    const code = fault ? 0 : (trouble?.code ?? 200);
    this.requests.push({ at: Date.now(), url, headers: request.headers, status: code });
    if (fault) {
      fault(response, url);
    } else if (trouble) {
      fail(response, trouble);
    } else {
      this.openWatch(response, url.searchParams.get('labelSelector') ?? '');
    }
  }

  private check({ method, headers }: IncomingMessage, url: URL): Status | undefined {
    const query = url.searchParams;
    if (headers.authorization !== `Bearer ${this.token}`) {
      return status(401);
    }
    if (method !== 'GET' || url.pathname !== '/api/v1/pods' || query.get('watch') !== '1') {
      return status(403, `User "agent" may only watch pods, not ${method ?? ''} ${url.pathname}`);
    }
    const fields = (query.get('fieldSelector') ?? '').split(',').sort();
    const phases = ['status.phase!=Failed', 'status.phase!=Succeeded'];
    if (!/^spec\.nodeName=./.test(fields[0] ?? '') || fields.slice(1).join() !== phases.join()) {
      return status(400, `not a field selector for pods that run: ${fields.join()}`);
    }
    return this.checkVersion(query);
  }

  /** What Kubernetes asks of the words for the beginning of a watch, in its own sentences. */
  private checkVersion(query: URLSearchParams): Status | undefined {
    const version = query.get('resourceVersion') ?? '';
    const match = query.get('resourceVersionMatch');
    if (query.get('sendInitialEvents') !== 'true') {
      return match !== null
        ? status(422, 'resourceVersionMatch is forbidden for watch')
        : version === '0'
          ? undefined
          : status(410);
    }
    const forbidden = 'sendInitialEvents: Forbidden: sendInitialEvents';
    if (!this.knowsInitialEvents) {
      const why = 'is forbidden for watch unless the WatchList feature gate is enabled';
      return status(422, `${forbidden} ${why}`);
    }
    if (match !== 'NotOlderThan') {
      return status(422, `${forbidden} requires setting resourceVersionMatch to NotOlderThan`);
    }
    return ['', '0'].includes(version) ? undefined : status(410);
  }

  private openWatch(response: ServerResponse, label: string): void {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    const present = new Map<string, string>();
    for (const { version, before, after } of this.changes) {
      if (version <= this.cached) {
        present.delete((before ?? after)?.uid ?? '');
        if (after && matches(after, label)) {
          present.set(after.uid, this.line('ADDED', after, version));
        }
      }
    }
    this.write(response, [...present.values()].join(''));
    if (this.knowsInitialEvents) {
      this.write(response, this.bookmarkLine({ 'k8s.io/initial-events-end': 'true' }));
    }
    const watch = { response, label, told: Math.min(this.cached, this.latest) };
    this.watches.add(watch);
    const { cutAfter } = this;
    const cut = cutAfter && setTimeout(() => response.destroy(), cutAfter);
    response.on('close', () => {
      clearTimeout(cut);
      this.watches.delete(watch);
    });
  }

  private answerEvent(
    request: IncomingMessage,
    response: ServerResponse,
    url: URL,
    key: { namespace: string; name: string },
  ): void {
    let body = '';
    request.on('data', (data: Buffer) => (body += data.toString()));
    request.on('end', () => {
      const result = this.applyEvent(request, url, key, body);
      const code = typeof result === 'number' ? result : result.code;
      this.eventWrites.push({ at: Date.now(), event: parseEvent(body), status: code });
      setTimeout(() => {
        if (code < 300) {
          response.writeHead(code, { 'content-type': 'application/json' });
          response.end(`${body}\n`);
        } else {
          fail(response, result);
        }
      }, this.eventDelay);
    });
  }

  /** Server-side apply of one manager that forces: what it applies is what there is. */
  private applyEvent(
    { method, headers }: IncomingMessage,
    url: URL,
    { namespace, name }: { namespace: string; name: string },
    body: string,
  ): number | Status {
    const event = parseEvent(body);
    const about = event.involvedObject as Record<string, string> | undefined;
    if (headers.authorization !== `Bearer ${this.token}`) {
      return status(401);
    }
    if (this.eventFault !== undefined) {
      return this.eventFault;
    }
    if (method !== 'PATCH' || headers['content-type'] !== 'application/apply-patch+yaml') {
      return status(415);
    }
    if (!url.searchParams.get('fieldManager') || url.searchParams.get('force') !== 'true') {
      return status(422, 'fieldManager: Required value: is required for apply patch');
    }
    if (event.apiVersion !== 'v1' || event.kind !== 'Event' || event.metadata.name !== name) {
      return status(400, `not the Event ${name}: ${body}`);
    }
    if (
      name.length > 253 ||
      !/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(name)
    ) {
      return status(422, `metadata.name: Invalid value: "${name}"`);
    }
    // What is about an object without a namespace, such as a node, is in "default".
    const home = about?.namespace ?? 'default';
    if (event.metadata.namespace !== namespace || home !== namespace) {
      return status(422, 'involvedObject.namespace: Invalid value: does not match event.namespace');
    }
    const there = this.events.has(`${namespace}/${name}`);
    this.events.set(`${namespace}/${name}`, event);
    return there ? 200 : 201;
  }

  private bookmarkLine(annotations: Record<string, string>): string {
    const metadata = {
      resourceVersion: String(Math.min(this.cached, this.latest)),
      creationTimestamp: null,
      ...(Object.keys(annotations).length > 0 ? { annotations } : {}),
    };
    const object = {
      kind: 'PartialObjectMetadata',
      apiVersion: 'meta.k8s.io/v1',
      metadata,
    };
    return `${JSON.stringify({ type: 'BOOKMARK', object })}\n`;
  }

  /** An event of a watch; fields in the order of the Go struct, as the real server writes them. */
  private line(type: string, pod: PodMetadata, version: number): string {
    const owner = {
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      name: 'owner',
      uid: '00000000-1111-2222-3333-444444444444',
      controller: true,
      blockOwnerDeletion: true,
    };
    const manager = {
      manager: 'kubelet',
      operation: 'Update',
      apiVersion: 'v1',
      time: '2026-01-01T00:00:00Z',
      fieldsType: 'FieldsV1',
      fieldsV1: { 'f:status': { 'k:{"type":"Ready"}': { '.': {}, 'f:type': {} } } },
      subresource: 'status',
    };
    const metadata = {
      name: pod.name,
      generateName: `${pod.name}-`,
      namespace: pod.namespace,
      uid: pod.uid,
      resourceVersion: String(version),
      generation: 1,
      creationTimestamp: '2026-01-01T00:00:00Z',
      ...(pod.deletionTimestamp
        ? { deletionTimestamp: pod.deletionTimestamp, deletionGracePeriodSeconds: 30 }
        : {}),
      labels: pod.labels,
      annotations: pod.annotations,
      ownerReferences: [owner],
      managedFields: [manager],
    };
    const object = { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata };
    return `${JSON.stringify({ type, object })}\n`;
  }
}

/** Whether a pod has not ended and has a label, whatever its value: what the agent selects. */
function matches(pod: PodMetadata | undefined, label: string): boolean {
  const { labels = {}, phase = 'Running' } = pod ?? { phase: 'Failed' };
  return !['Succeeded', 'Failed'].includes(phase) && (label === '' || Object.hasOwn(labels, label));
}

/** What is no JSON is no Event of anything. */
function parseEvent(body: string): EventObject {
  try {
    return JSON.parse(body) as EventObject;
  } catch {
    return { metadata: {}, unreadable: body } as unknown as EventObject;
  }
}

/** A certificate for the addresses that tests use, which is its own authority. */
function issueCertificate(): { key: string; cert: string } {
  const directory = mkdtempSync(join(tmpdir(), 'api-server-'));
  const [key, cert] = ['key', 'cert'].map((name) => join(directory, name)) as [string, string];
  try {
    const options = `req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2
      -subj /CN=kube-apiserver -addext subjectAltName=IP:127.0.0.1,IP:10.0.2.2`;
    const args = [...options.split(/\s+/), '-keyout', key, '-out', cert];
    execFileSync('openssl', args, { stdio: 'pipe' });
    return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') };
  } finally {
    rmSync(directory, { recursive: true });
  }
}
