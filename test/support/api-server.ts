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
  readonly ownerReferences?: object[];
  readonly deletionTimestamp?: string;
}

/** One request that the server answered. */
export interface RequestRecord {
  readonly at: number;
  readonly watch: boolean;
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

/** One attempt to write an Event. */
export interface EventWrite {
  readonly at: number;
  readonly method: string;
  /** The pod that it is about, as far as the request tells. */
  readonly pod: string;
  readonly status: number;
}

/** What the server does with the next request instead of answering it. */
export type Fault = (response: ServerResponse, url: URL) => void;

/**
 * The part of the Kubernetes API that the agent uses: list and watch of the metadata of the pods of
 * one node that carry one label, and Events that are created and patched, over TLS, with tokens,
 * versions, bookmarks and errors.
 */
export class FakeApiServer {
  public static async start(options: { host?: string } = {}): Promise<FakeApiServer> {
    const { key, cert, ca } = issueCertificate();
    const server = createServer({ key, cert });
    const api = new FakeApiServer(server, ca);
    await api.listen(0, options.host);
    return api;
  }

  public readonly requests: RequestRecord[] = [];
  /** The only token that is accepted. */
  public token = 'eyJhbGciOiJSUzI1NiJ9.first_token-1';
  /** Faults for the next requests, one each. */
  public readonly faults: Fault[] = [];
  /** A fault for every request, until it is taken away. */
  public outage: Fault | undefined;
  /** The Events that there are, by namespace/name; whoever takes one away has let it expire. */
  public readonly events = new Map<string, EventObject>();
  /** All attempts to write one. */
  public readonly eventWrites: EventWrite[] = [];
  /** The status of every attempt to write an Event, until it is taken away. */
  public eventStatus: number | undefined;
  /** How long every answer to such an attempt takes, in milliseconds. */
  public eventDelay = 0;
  /** How many bytes a write has at most; events are cut anywhere. */
  public chunk = Infinity;

  private readonly pods = new Map<string, { pod: PodMetadata; version: number }>();
  private readonly history: { version: number; line: string }[] = [];
  private readonly watches = new Set<ServerResponse>();
  private readonly sockets = new Set<Socket>();
  private closedBytes = 0;
  private lastPort = 0;
  private version = 1000;
  private oldest = 1000;

  private constructor(
    private readonly server: Server,
    public caPem: string,
  ) {
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      this.answer(request, response);
    });
    server.on('connection', (socket: Socket) => {
      this.sockets.add(socket);
      socket.on('close', () => {
        this.closedBytes += socket.bytesRead + socket.bytesWritten;
        this.sockets.delete(socket);
      });
    });
  }

  /** Where it listens, or did before it was paused. */
  public get port(): number {
    const address = this.server.address() as AddressInfo | null;
    this.lastPort = address?.port ?? this.lastPort;
    return this.lastPort;
  }

  /** Bytes on the wire so far, in both directions, TLS included. */
  public get bytes(): number {
    return [...this.sockets].reduce(
      (sum, { bytesRead, bytesWritten }) => sum + bytesRead + bytesWritten,
      this.closedBytes,
    );
  }

  /** The watches that are open now. */
  public get watching(): number {
    return this.watches.size;
  }

  /** Creates or changes a pod. A pod without the label is one that lost it. */
  public setPod(pod: PodMetadata): void {
    const known = this.pods.has(pod.uid);
    this.version += 1;
    this.pods.set(pod.uid, { pod, version: this.version });
    this.send(known ? 'MODIFIED' : 'ADDED', this.partial(pod, this.version));
  }

  /** The pod loses its label, which a watch with a label selector reports as DELETED. */
  public removeLabel(uid: string): void {
    this.remove(uid);
  }

  public deletePod(uid: string): void {
    const entry = this.pods.get(uid);
    if (entry) {
      this.setPod({ ...entry.pod, deletionTimestamp: '2026-01-01T00:00:00Z' });
    }
    this.remove(uid);
  }

  /** The pod is gone, and nobody is told: only a new list shows it. */
  public forgetSilently(uid: string): void {
    this.version += 1;
    this.pods.delete(uid);
  }

  public bookmark(): void {
    this.send('BOOKMARK', {
      kind: 'PartialObjectMetadata',
      apiVersion: 'meta.k8s.io/v1',
      metadata: { resourceVersion: String(this.version), creationTimestamp: null },
    });
  }

  /** Versions before now are too old to watch from. */
  public compact(): void {
    this.version += 1;
    this.oldest = this.version;
    this.history.length = 0;
  }

  /** Sends text to every open watch as it is. */
  public sendRaw(text: string): void {
    for (const response of this.watches) {
      this.write(response, text);
    }
  }

  /** Ends every open watch cleanly. */
  public endWatches(): void {
    for (const response of this.watches) {
      response.end();
    }
    this.watches.clear();
  }

  /** Says nothing more to the watches that are open now, and does not close them. */
  public hangWatches(): void {
    this.watches.clear();
  }

  /** Another certificate, from another authority, for every connection from now on. */
  public rotateCertificate(): void {
    const { key, cert, ca } = issueCertificate();
    this.server.setSecureContext({ key, cert });
    this.caPem = ca;
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
    this.breakConnections();
    await new Promise((resolve) => this.server.close(resolve));
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

  private remove(uid: string): void {
    const entry = this.pods.get(uid);
    if (!entry) {
      return;
    }
    this.pods.delete(uid);
    this.version += 1;
    this.send('DELETED', this.partial(entry.pod, this.version));
  }

  private send(type: string, object: object): void {
    const line = `${JSON.stringify({ type, object })}\n`;
    if (type !== 'BOOKMARK') {
      this.history.push({ version: this.version, line });
    }
    this.sendRaw(line);
  }

  private write(response: ServerResponse, text: string): void {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; at += this.chunk) {
      response.write(bytes.subarray(at, Math.min(bytes.length, at + this.chunk)));
    }
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '/', 'https://api');
    const [, namespace, name] =
      /^\/api\/v1\/namespaces\/([^/]+)\/events(?:\/([^/]+))?$/.exec(url.pathname) ?? [];
    if (namespace !== undefined) {
      let body = '';
      request.on('data', (data: Buffer) => (body += data.toString()));
      request.on('end', () => {
        const status = this.writeEvent(request, namespace, name, body);
        const written = name ?? (JSON.parse(body) as EventObject).metadata.name;
        const pod = written.replace(/\.[^.]*$/, '');
        this.eventWrites.push({ at: Date.now(), method: request.method ?? '', pod, status });
        setTimeout(() => {
          fail(response, status);
        }, this.eventDelay);
      });
      return;
    }
    const watch = url.searchParams.get('watch') === '1';
    response.on('finish', () => undefined);
    const record = (status: number) =>
      this.requests.push({ at: Date.now(), watch, url, headers: request.headers, status });
    const fault = this.faults.shift() ?? this.outage;
    if (fault) {
      record(0);
      fault(response, url);
      return;
    }
    const status = this.check(request, url, watch);
    record(status);
    if (status !== 200) {
      fail(response, status);
      return;
    }
    response.writeHead(200, { 'content-type': 'application/json' });
    if (watch) {
      this.openWatch(response, Number(url.searchParams.get('resourceVersion')));
    } else {
      this.list(response);
    }
  }

  private writeEvent(
    request: IncomingMessage,
    namespace: string,
    name: string | undefined,
    body: string,
  ): number {
    if (request.headers.authorization !== `Bearer ${this.token}`) {
      return 401;
    }
    if (this.eventStatus !== undefined) {
      return this.eventStatus;
    }
    if (request.method === 'POST' && name === undefined) {
      const event = JSON.parse(body) as EventObject;
      const key = `${namespace}/${event.metadata.name}`;
      if (request.headers['content-type'] !== 'application/json') {
        return 415;
      }
      if (event.metadata.namespace !== namespace || event.involvedObject.namespace !== namespace) {
        return 422;
      }
      if (this.events.has(key)) {
        return 409;
      }
      this.events.set(key, event);
      return 201;
    }
    if (request.method === 'PATCH' && name !== undefined) {
      const key = `${namespace}/${name}`;
      const event = this.events.get(key);
      if (request.headers['content-type'] !== 'application/merge-patch+json') {
        return 415;
      }
      if (event === undefined) {
        return 404;
      }
      // A merge patch of fields that are no objects.
      this.events.set(key, { ...event, ...(JSON.parse(body) as Partial<EventObject>) });
      return 200;
    }
    return 405;
  }

  private check(request: IncomingMessage, url: URL, watch: boolean): number {
    if (request.headers.authorization !== `Bearer ${this.token}`) {
      return 401;
    }
    if (url.pathname !== '/api/v1/pods') {
      return 403;
    }
    if (watch && Number(url.searchParams.get('resourceVersion')) < this.oldest) {
      return 410;
    }
    return 200;
  }

  private list(response: ServerResponse): void {
    const items = [...this.pods.values()].map(({ pod, version }) => ({
      metadata: this.partial(pod, version).metadata,
    }));
    const list = {
      kind: 'PartialObjectMetadataList',
      apiVersion: 'meta.k8s.io/v1',
      metadata: { resourceVersion: String(this.version) },
      items,
    };
    this.write(response, `${JSON.stringify(list)}\n`);
    response.end();
  }

  private openWatch(response: ServerResponse, version: number): void {
    response.flushHeaders();
    for (const event of this.history.filter((e) => e.version > version)) {
      this.write(response, event.line);
    }
    this.watches.add(response);
    response.on('close', () => this.watches.delete(response));
  }

  /** Fields in the order of the Go struct, as the real server writes them. */
  private partial(pod: PodMetadata, version: number) {
    return {
      kind: 'PartialObjectMetadata',
      apiVersion: 'meta.k8s.io/v1',
      metadata: {
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
        ownerReferences: pod.ownerReferences ?? [
          {
            apiVersion: 'apps/v1',
            kind: 'ReplicaSet',
            name: 'owner',
            uid: '00000000-1111-2222-3333-444444444444',
            controller: true,
            blockOwnerDeletion: true,
          },
        ],
        managedFields: [
          {
            manager: 'kubelet',
            operation: 'Update',
            apiVersion: 'v1',
            time: '2026-01-01T00:00:00Z',
            fieldsType: 'FieldsV1',
            fieldsV1: { 'f:status': { 'k:{"type":"Ready"}': { '.': {}, 'f:type': {} } } },
            subresource: 'status',
          },
        ],
      },
    };
  }
}

/** A Status object, as the API server answers an error. */
export function fail(response: ServerResponse, code: number, message = 'said the test'): void {
  const reason = code === 410 ? 'Expired' : 'Failure';
  response.writeHead(code, { 'content-type': 'application/json' });
  response.end(
    `${JSON.stringify({ kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, code })}\n`,
  );
}

/** A certificate authority and a certificate for the addresses that tests use. */
function issueCertificate(): { key: string; cert: string; ca: string } {
  const directory = mkdtempSync(join(tmpdir(), 'api-server-'));
  const file = (name: string) => join(directory, name);
  try {
    execFileSync(
      'openssl',
      [
        ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
        ...[
          '-keyout',
          file('key'),
          '-out',
          file('cert'),
          '-days',
          '2',
          '-subj',
          '/CN=kube-apiserver',
        ],
        ...['-addext', 'subjectAltName=IP:127.0.0.1,IP:10.0.2.2'],
      ],
      { stdio: 'pipe' },
    );
    const cert = readFileSync(file('cert'), 'utf8');
    return { key: readFileSync(file('key'), 'utf8'), cert, ca: cert };
  } finally {
    rmSync(directory, { recursive: true });
  }
}
