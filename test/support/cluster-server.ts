import { createHash } from 'node:crypto';
import { IncomingMessage, Server, createServer } from 'node:http';
import { AddressInfo } from 'node:net';
import { Duplex } from 'node:stream';

// As much of an API server as the real kubectl needs: it keeps what is created, and its pods are always as
// they were recorded. Nothing in it has a clock.

interface Meta {
  readonly name: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly labels?: Readonly<Record<string, string>>;
}
interface Template {
  readonly metadata?: Partial<Meta>;
  readonly spec?: { readonly containers: readonly { name: string; image?: string }[] };
}
export interface Stored {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Meta;
  readonly spec?: { readonly replicas?: number; readonly template?: Template };
  readonly [field: string]: unknown;
}

/** What the pods of a workload show. */
export interface PodRecording {
  /** Fields of the pod's status, and of its first container's. */
  readonly status?: object;
  readonly container?: object;
  /** Fields of the pod's spec that somebody has put into it. */
  readonly spec?: object;
  /** In which `$NAMESPACE` is the one that was created last. */
  readonly log?: string;
  /** An Event about each pod. */
  readonly event?: object;
  /** Why there are no pods, in an Event of their controller. */
  readonly denied?: string;
}

export interface Recording {
  readonly version: string;
  readonly nodes: readonly Stored[];
  /** By the name of the workload. */
  readonly pods: Readonly<Record<string, PodRecording>>;
  /** What access reviews say no to, as "verb resource" or "verb resource/subresource". */
  readonly no?: string;
  /** A path that is answered with 403. */
  readonly forbidden?: string;
  /** Whether namespaces stay, as with a finalizer that nobody serves. */
  readonly stuck?: boolean;
}

export function node(name: string, kubeletVersion = 'v1.34.1', ready = 'True'): Stored {
  const labels = { 'kubernetes.io/hostname': name, 'kubernetes.io/os': 'linux' };
  const conditions = [{ type: 'Ready', status: ready }];
  const status = { conditions, nodeInfo: { kubeletVersion } };
  return { apiVersion: 'v1', kind: 'Node', metadata: { name, labels }, status };
}

/** A container in its pause between two starts. */
export const KILLED = {
  ready: false,
  restartCount: 2,
  state: { waiting: { reason: 'CrashLoopBackOff', message: 'back-off 20s restarting failed' } },
  lastState: { terminated: { exitCode: 137, reason: 'OOMKilled' } },
};

/** Two nodes on which everything is as it should be. */
export const GOOD: Recording = {
  version: 'v1.34.1',
  nodes: [node('worker-1'), node('worker-2')],
  pods: {
    'oom-kill-mode-agent': {
      log: '{"level":"info","msg":"cgroups found","driver":"systemd","nodeValue":"1"}\n',
    },
    herder: {
      event: {
        type: 'Warning',
        reason: 'OomKilledProcess',
        message:
          'The kernel killed 1 process of container herder for memory, 6 in all since it started. The container kept running.',
        count: 6,
      },
    },
    twin: { container: KILLED, status: { conditions: [{ type: 'Ready', status: 'False' }] } },
    probe: { log: 'memory.oom.group=0\n' },
  },
};

/** The kinds that the manifests use. Those with a `*` have no namespace. */
const KINDS: Readonly<Record<string, string>> = {
  v1: 'Namespace* Node* Pod Event ServiceAccount ConfigMap PersistentVolumeClaim Secret Service ResourceQuota',
  'apps/v1': 'DaemonSet Deployment StatefulSet',
  'batch/v1': 'Job',
  'rbac.authorization.k8s.io/v1': 'ClusterRole* ClusterRoleBinding*',
  'authorization.k8s.io/v1': 'SelfSubjectAccessReview*',
  'admissionregistration.k8s.io/v1': 'MutatingAdmissionPolicy* MutatingAdmissionPolicyBinding*',
  'monitoring.coreos.com/v1': 'PodMonitor PrometheusRule',
  'networking.k8s.io/v1': 'NetworkPolicy',
  'security.openshift.io/v1': 'SecurityContextConstraints*',
};

type Answer = [status: number, body: object | string];

export class ClusterServer {
  public static async start(recording: Recording = GOOD): Promise<ClusterServer> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new ClusterServer(server, recording);
  }

  /** Requests that changed something, as "METHOD path". */
  public readonly changes: string[] = [];

  /** What is there, by path. */
  private readonly stored = new Map<string, Stored>();

  /** Namespaces that were deleted, and that go with all that is in them once somebody has looked. */
  private readonly ending = new Set<string>();

  private readonly port: number;

  private constructor(
    private readonly server: Server,
    private readonly recording: Recording,
  ) {
    this.port = (server.address() as AddressInfo).port;
    server.on('request', (request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (data: Buffer) => chunks.push(data));
      request.on('end', () => {
        const url = new URL(request.url ?? '/', 'http://api');
        const body = Buffer.concat(chunks).toString();
        const [status, answer] = this.answer(request.method ?? 'GET', url, body);
        const text = typeof answer === 'string';
        response.writeHead(status, { 'content-type': text ? 'text/plain' : 'application/json' });
        response.end(text ? answer : JSON.stringify(answer));
      });
    });
    server.on('upgrade', (request: IncomingMessage, socket: Duplex) => {
      this.exec(request, socket);
    });
  }

  /** A kubeconfig that leads here. */
  public get kubeconfig(): string {
    return JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'test', cluster: { server: `http://127.0.0.1:${this.port}` } }],
      contexts: [{ name: 'test', context: { cluster: 'test', user: '' } }],
      'current-context': 'test',
    });
  }

  public stop(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  /** What was created and is still there, as "Kind namespace/name" or "Kind name". */
  public get present(): string[] {
    return [...this.stored.values()].map(
      ({ kind, metadata: { namespace, name } }) =>
        `${kind} ${namespace === undefined ? '' : `${namespace}/`}${name}`,
    );
  }

  /** The images of all workloads, each once, sorted. */
  public get images(): string[] {
    const found = JSON.stringify([...this.stored.values()]).matchAll(/"image":"([^"]*)"/g);
    return [...new Set([...found].map(([, image]) => image ?? ''))].sort();
  }

  /** Creates what somebody else has created before. */
  public put(object: Stored): void {
    this.stored.set(pathOf(object), object);
  }

  private answer(method: string, url: URL, body: string): Answer {
    const path = url.pathname;
    if (path === this.recording.forbidden) {
      return failure(403, 'Forbidden', `${path} is forbidden`);
    }
    if (path.endsWith('/selfsubjectaccessreviews')) {
      return [201, this.review(JSON.parse(body) as Stored)];
    }
    if (method === 'GET') {
      const found = discovery(path, this.recording.version);
      const answer = found ?? this.get(path, url.searchParams);
      if (!found && !this.recording.stuck) {
        this.end();
      }
      return answer;
    }
    if (method === 'POST') {
      return this.create(path, JSON.parse(body) as Stored);
    }
    const there = this.stored.get(path);
    if (!there) {
      return failure(404, 'NotFound', `${path} not found`);
    }
    this.changes.push(`${method} ${path}`);
    if (method === 'PUT') {
      // Helm leaves the namespace to the path.
      const { metadata, ...rest } = JSON.parse(body) as Stored;
      const object = { ...there, ...rest, metadata: { ...there.metadata, ...metadata } };
      this.stored.set(path, object);
      return [200, object];
    }
    if (method === 'PATCH') {
      const { metadata } = JSON.parse(body) as Partial<Stored>;
      const labels = { ...there.metadata.labels, ...metadata?.labels };
      const changed = { ...there, metadata: { ...there.metadata, labels } };
      this.stored.set(path, changed);
      return [200, changed];
    }
    if (there.kind === 'Namespace') {
      this.ending.add(there.metadata.name);
    } else {
      this.stored.delete(path);
    }
    return [200, { kind: 'Status', apiVersion: 'v1', status: 'Success' }];
  }

  private end(): void {
    for (const [path, { kind, metadata }] of this.stored) {
      const namespace = kind === 'Namespace' ? metadata.name : metadata.namespace;
      if (this.ending.has(namespace ?? '')) {
        this.stored.delete(path);
      }
    }
    this.ending.clear();
  }

  private review(review: Stored): object {
    const { resourceAttributes } = review.spec as unknown as {
      resourceAttributes: Record<string, string | undefined>;
    };
    const { verb = '', resource, subresource } = resourceAttributes;
    const asked = `${verb} ${[resource, subresource].filter(Boolean).join('/')}`;
    return { ...review, status: { allowed: asked !== this.recording.no } };
  }

  private create(path: string, object: Stored): Answer {
    const [, namespace] = /\/namespaces\/([^/]+)\//.exec(path) ?? [];
    const there = namespace === undefined || this.stored.has(`/api/v1/namespaces/${namespace}`);
    if (!there && namespace !== 'default') {
      return failure(404, 'NotFound', `namespaces "${namespace}" not found`);
    }
    this.changes.push(`POST ${path}`);
    // kubectl run leaves the namespace to the path.
    this.put({ ...object, metadata: { ...object.metadata, ...(namespace && { namespace }) } });
    return [201, object];
  }

  private get(path: string, query: URLSearchParams): Answer {
    if (query.has('watch')) {
      // Who watches is to list again. Initial events are refused, as 1.28 does.
      return query.has('sendInitialEvents')
        ? failure(422, 'Invalid', 'sendInitialEvents is forbidden')
        : [200, { type: 'ERROR', object: failure(410, 'Expired', 'list again')[1] }];
    }
    const objects = this.objects();
    const pod = objects.get(path.replace(/\/log$/, ''));
    if (pod && path.endsWith('/log')) {
      return [200, this.logOf(pod.metadata.name)];
    }
    const found = objects.get(path);
    const [, prefix = '', namespace, resource = ''] =
      /^(\/api\/v1|\/apis\/[^/]+\/[^/]+)(?:\/namespaces\/([^/]+))?\/([a-z]+)$/.exec(path) ?? [];
    const apiVersion = prefix.replace(/^\/apis?\//, '');
    const kind = kindsOf(apiVersion).find((one) => plural(one) === resource);
    if (found || kind === undefined) {
      return found ? [200, found] : failure(404, 'NotFound', `${path} not found`);
    }
    const items = [...objects.values()].filter(
      (one) =>
        one.kind === kind &&
        (namespace === undefined || one.metadata.namespace === namespace) &&
        isSelected(one, query),
    );
    return [200, { kind: `${kind}List`, apiVersion, metadata: {}, items }];
  }

  private logOf(pod: string): string {
    const found = Object.entries(this.recording.pods).find(([owner]) =>
      pod.startsWith(`${owner}-`),
    );
    const namespaces = [...this.stored.values()].filter(({ kind }) => kind === 'Namespace');
    return (found?.[1].log ?? '').replaceAll('$NAMESPACE', namespaces.at(-1)?.metadata.name ?? '');
  }

  /** What was created, and what is there because of it. */
  private objects(): Map<string, Stored> {
    const stored = [...this.stored.values()];
    const all = [
      ...this.recording.nodes,
      ...stored.map((object) => ({ ...object, ...this.statusOf(object) })),
      ...stored.flatMap((object) => this.podsOf(object)),
    ];
    return new Map(all.map((object) => [pathOf(object), object]));
  }

  /** Every rollout is over, and every pod runs. */
  private statusOf({ kind, metadata, spec }: Stored): object {
    const count = spec?.replicas ?? this.recording.nodes.length;
    const updated = { observedGeneration: 1, replicas: count, updatedReplicas: count };
    const daemons = { desiredNumberScheduled: count, updatedNumberScheduled: count };
    const available = { availableReplicas: count, numberAvailable: count };
    return kind === 'Pod'
      ? { status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] } }
      : spec?.template
        ? {
            metadata: { ...metadata, generation: 1 },
            status: { ...updated, ...daemons, ...available },
          }
        : {};
  }

  /** The pods of a workload, as they were recorded, and the Events about them. */
  private podsOf({ kind, metadata: { name: owner, namespace }, spec }: Stored): Stored[] {
    if (spec?.template === undefined) {
      return [];
    }
    const { status, container, spec: injected, event, denied } = this.recording.pods[owner] ?? {};
    if (denied !== undefined) {
      const about =
        kind === 'DaemonSet'
          ? { kind, name: owner }
          : { kind: 'ReplicaSet', name: `${owner}-5d4f` };
      const told = { type: 'Warning', reason: 'FailedCreate', message: denied };
      return [eventOf({ ...about, namespace }, told)];
    }
    const { metadata: { labels } = {}, spec: podSpec } = spec.template;
    const ready = this.recording.nodes.filter((one) => JSON.stringify(one).includes('"True"'));
    return ready.slice(0, spec.replicas).flatMap(({ metadata: { name: nodeName } }) => {
      const name = `${owner}-${nodeName}`;
      const metadata = { name, namespace, uid: `uid-of-${namespace ?? ''}-${name}`, labels };
      const first = { ...podSpec?.containers[0], imageID: '', ready: true, restartCount: 0 };
      const pod: Stored = {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata,
        spec: { ...podSpec, nodeName, ...injected } as Stored['spec'],
        status: {
          phase: 'Running',
          conditions: [{ type: 'Ready', status: 'True' }],
          containerStatuses: [{ ...first, state: { running: {} }, lastState: {}, ...container }],
          ...status,
        },
      };
      return event
        ? [pod, eventOf({ kind: 'Pod', name, namespace, uid: metadata.uid }, event)]
        : [pod];
    });
  }

  /** A container's own view of its mode, for `kubectl exec`: WebSocket, as kubectl has it since 1.30. */
  private exec(request: IncomingMessage, socket: Duplex): void {
    const url = new URL(request.url ?? '/', 'http://api');
    const pod = this.objects().get(url.pathname.replace(/\/exec$/, ''));
    const command = url.searchParams.getAll('command').join(' ');
    if (!pod || command !== 'cat /sys/fs/cgroup/memory.oom.group') {
      socket.end('HTTP/1.1 404 Not Found\r\n\r\n');
      return;
    }
    const key = `${request.headers['sec-websocket-key'] ?? ''}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
    const head = [
      'HTTP/1.1 101 Switching Protocols',
      'Upgrade: websocket',
      'Connection: Upgrade',
      `Sec-WebSocket-Accept: ${createHash('sha1').update(key).digest('base64')}`,
      'Sec-WebSocket-Protocol: v5.channel.k8s.io',
    ];
    socket.write(`${head.join('\r\n')}\r\n\r\n`);
    // Channel 1 is the output, channel 3 the result.
    const mode = pod.metadata.labels?.['cdk8s-oom-kill-mode/mode'];
    for (const text of [`\x01${mode === 'Single' ? 0 : 1}\n`, '\x03{"status":"Success"}']) {
      socket.write(Buffer.concat([Buffer.from([0x82, text.length]), Buffer.from(text)]));
    }
    // "Closed", with the status of an ordinary end.
    socket.end(Buffer.from([0x88, 2, 0x03, 0xe8]));
  }
}

function eventOf(
  involvedObject: { kind: string; name: string; namespace?: string; uid?: string },
  event: object,
): Stored {
  const { name, namespace } = involvedObject;
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: `${name}.0f2a9c01`, namespace },
    involvedObject,
    lastTimestamp: '2026-11-24T03:31:10Z',
    ...event,
  };
}

function failure(code: number, reason: string, message: string): Answer {
  return [code, { kind: 'Status', apiVersion: 'v1', status: 'Failure', reason, message, code }];
}

function root(apiVersion: string): string {
  return apiVersion === 'v1' ? '/api/v1' : `/apis/${apiVersion}`;
}

function plural(kind: string): string {
  return `${kind.toLowerCase()}s`.replace(/ys$/, 'ies').replace(/ss$/, 's');
}

function pathOf({ apiVersion, kind, metadata: { namespace, name } }: Stored): string {
  const place = namespace === undefined ? '' : `/namespaces/${namespace}`;
  return `${root(apiVersion)}${place}/${plural(kind)}/${name}`;
}

function kindsOf(apiVersion: string): string[] {
  return (KINDS[apiVersion] ?? '').replaceAll('*', '').split(' ');
}

/** What kubectl asks for before it asks for anything else. */
function discovery(path: string, gitVersion: string): Answer | undefined {
  const versions = Object.keys(KINDS);
  const groupVersion = versions.find((one) => root(one) === path);
  if (groupVersion !== undefined) {
    const resources = (KINDS[groupVersion] ?? '').split(' ').map((text) => {
      const kind = text.replace('*', '');
      const verbs = ['create', 'delete', 'get', 'list', 'patch', 'watch'];
      const [name, singularName] = [plural(kind), kind.toLowerCase()];
      return { kind, name, singularName, namespaced: !text.endsWith('*'), verbs };
    });
    return [200, { kind: 'APIResourceList', apiVersion: 'v1', groupVersion, resources }];
  }
  const groups = versions.slice(1).map((one) => {
    const [name, version] = one.split('/');
    const preferredVersion = { groupVersion: one, version };
    return { name, versions: [preferredVersion], preferredVersion };
  });
  const [, major, minor] = /^v(\d+)\.(\d+)/.exec(gitVersion) ?? [];
  const answers: Record<string, object | string> = {
    '/version': { major, minor, gitVersion },
    '/api': { kind: 'APIVersions', versions: ['v1'] },
    '/apis': { kind: 'APIGroupList', apiVersion: 'v1', groups },
    // A document without types, in protobuf: kubectl checks nothing.
    '/openapi/v2': '',
  };
  const answer = answers[path];
  return answer === undefined ? undefined : [200, answer];
}

/** Whether an object has the labels and the fields that a request asks for. */
function isSelected(object: Stored, query: URLSearchParams): boolean {
  const terms = (name: string) => (query.get(name) ?? '').split(',').filter(Boolean);
  return (
    terms('labelSelector').every((term) => {
      const [key = '', value] = term.split('=');
      const label = object.metadata.labels?.[key];
      return value === undefined ? label !== undefined : label === value;
    }) &&
    terms('fieldSelector').every((term) => {
      const [path = '', value] = term.split('=');
      const field = path
        .split('.')
        .reduce<unknown>(
          (found, key) => (found as Record<string, unknown> | undefined)?.[key],
          object,
        );
      return field === value;
    })
  );
}
