import { createHash, randomUUID } from 'node:crypto';
import { IncomingMessage, Server } from 'node:http';
import { Duplex } from 'node:stream';

import { ContainerStatus, Event, Node, Pod, PodTemplate } from '../../e2e/kubectl';
import { ApiRequest, Answer, KubectlServer, Manifest, forbidden, notFound } from './kubectl-server';

/** What is the matter with a cluster. */
export interface Situation {
  readonly version?: string;
  readonly nodes?: readonly Node[];
  /** What `kubectl auth can-i` says no to, as "verb resource" or "verb resource/subresource". */
  readonly denied?: readonly string[];
  /** Whether the agent writes anything. */
  readonly agentWorks?: boolean;
  /** Where the agent tells of survived kills. */
  readonly kills?: 'Events' | 'log' | 'nowhere';
  /** What the kubelets give to containers without the label. */
  readonly nodeValue?: '0' | '1';
  readonly cgroupV1?: boolean;
  /** Paths that are answered with 403. */
  readonly forbidden?: readonly string[];
  /** A workload whose pods never start, and who keeps them from it. */
  readonly heldUp?: {
    readonly workload: string;
    readonly by: 'image pull' | 'scheduler' | 'admission';
  };
  /** Whether namespaces stay for ever, as with a finalizer that nobody serves. */
  readonly stuck?: boolean;
}

interface Workload extends Manifest {
  readonly metadata: Manifest['metadata'] & { readonly labels?: Record<string, string> };
  readonly spec: { readonly replicas?: number; readonly template: PodTemplate };
}

interface Stored {
  readonly manifest: Manifest;
  readonly created: number;
}

const MODE = 'cdk8s-oom-kill-mode/mode';
const MODE_FILE = '/sys/fs/cgroup/memory.oom.group';
const AGENT = 'oom-kill-mode-agent';

/** Milliseconds: a pod starts, then its herder runs out of memory again and again. */
const START = 500;
const OOM_AFTER = 1500;
const OOM_PERIOD = 1000;
const TERMINATION = 300;

/** Channels of `kubectl exec`. */
const STDOUT = 1;
const RESULT = 3;

/** What can be listed. */
const KINDS: Record<string, string | undefined> = {
  nodes: 'Node',
  pods: 'Pod',
  events: 'Event',
  daemonsets: 'DaemonSet',
  deployments: 'Deployment',
};

/** As the API server, and the scheduler, word it. */
const DENIAL =
  'Error creating: pods "x-2k9vd" is forbidden: violates PodSecurity "restricted:latest": privileged';
const UNSCHEDULABLE = {
  type: 'PodScheduled',
  status: 'False',
  reason: 'Unschedulable',
  message: '0/2 nodes are available: 2 Insufficient cpu.',
};

/**
 * A stand-in that plays a small cluster: what is created is there until it is deleted, Deployments and
 * DaemonSets have pods, and the containers of herders run out of memory. Whether they survive depends on
 * what it depends on in a real one: the label, the agent, and the kubelet.
 */
export class ClusterServer extends KubectlServer {
  public static async play(situation: Situation = {}): Promise<ClusterServer> {
    return new ClusterServer(await KubectlServer.listen(), situation);
  }

  /** Requests that changed something, as "METHOD path". */
  public readonly changes: string[] = [];

  private readonly objects = new Map<string, Stored>();
  private readonly uids = new Map<string, string>();

  private constructor(
    server: Server,
    private readonly situation: Situation,
  ) {
    super(server);
    server.on('upgrade', (request: IncomingMessage, socket: Duplex) => {
      this.exec(new URL(request.url ?? '/', 'http://api'), request, socket);
    });
  }

  /** What is there, as "Kind namespace/name" or "Kind name". */
  public get present(): string[] {
    return [...this.objects.values()].map(({ manifest: { kind, metadata } }) =>
      [kind, [metadata.namespace, metadata.name].filter(Boolean).join('/')].join(' '),
    );
  }

  /** The images of all workloads, each once, sorted. */
  public get images(): string[] {
    const specs = [...this.workloads('DaemonSet'), ...this.workloads('Deployment')].map(
      ({ manifest }) => manifest.spec.template.spec,
    );
    const all = specs.flatMap((spec) => [
      ...(spec?.initContainers ?? []),
      ...(spec?.containers ?? []),
    ]);
    return [...new Set(all.map(({ image }) => image ?? ''))].sort();
  }

  /** Creates what somebody else has created before. */
  public install(path: string, manifest: Manifest): void {
    const { namespace, name } = manifest.metadata;
    this.objects.set(path.replace('{namespace}', namespace ?? '') + `/${name}`, {
      manifest,
      created: 0,
    });
  }

  protected override answer(request: ApiRequest): Answer {
    const { method, url, body } = request;
    const path = url.pathname;
    if (this.situation.forbidden?.includes(path)) {
      return forbidden(path);
    }
    if (path === '/version') {
      const version = this.situation.version ?? 'v1.34.1';
      const [, major, minor] = /^v(\d+)\.(\d+)/.exec(version) ?? [];
      return [200, { major, minor, gitVersion: version }];
    }
    if (path.endsWith('/selfsubjectaccessreviews')) {
      return [201, this.review(body)];
    }
    if (method === 'POST' || method === 'PATCH' || method === 'PUT') {
      return this.change(method, path, body);
    }
    if (method === 'DELETE') {
      return this.remove(path);
    }
    return this.find(path, url.searchParams) ?? super.answer(request);
  }

  private review(body: Buffer): object {
    const [, verb, , , resource, subresource] = accessReview(body);
    const what = `${verb ?? ''} ${[resource, subresource].filter(Boolean).join('/')}`;
    return {
      kind: 'SelfSubjectAccessReview',
      apiVersion: 'authorization.k8s.io/v1',
      metadata: {},
      spec: {},
      status: { allowed: !this.situation.denied?.includes(what) },
    };
  }

  private change(method: string, path: string, body: Buffer): Answer {
    const manifest = JSON.parse(body.toString()) as Manifest;
    this.changes.push(`${method} ${path}`);
    if (method === 'PUT') {
      this.objects.set(path, { manifest, created: Date.now() });
      return [200, manifest];
    }
    if (method === 'PATCH') {
      return this.patch(path, manifest);
    }
    const [, namespace] = /\/namespaces\/([^/]+)\//.exec(path) ?? [];
    const { name } = manifest.metadata;
    const exists =
      namespace === undefined ||
      namespace === 'default' ||
      this.objects.has(`/api/v1/namespaces/${namespace}`);
    if (!exists) {
      return notFound(`namespaces "${namespace}" not found`);
    }
    // kubectl run leaves it to the path.
    const placed = {
      ...manifest,
      metadata: { ...manifest.metadata, ...(namespace && { namespace }) },
    };
    this.objects.set(`${path}/${name}`, { manifest: placed, created: Date.now() });
    return [201, placed];
  }

  /** Of a pod the labels change, as kubectl label has it; the rest is here to stay. */
  private patch(path: string, patch: Manifest): Answer {
    const there = this.objects.get(path);
    if (!there) {
      return notFound(path);
    }
    if (there.manifest.kind === 'Pod') {
      const { metadata } = there.manifest as Pod;
      const labels = { ...metadata?.labels, ...(patch as Pod).metadata?.labels };
      const manifest = { ...there.manifest, metadata: { ...there.manifest.metadata, labels } };
      this.objects.set(path, { ...there, manifest });
      return [200, manifest];
    }
    return [200, there.manifest];
  }

  /** A container's own view of its mode, for `kubectl exec`: WebSocket, as kubectl has it since 1.30. */
  private exec(url: URL, request: IncomingMessage, socket: Duplex): void {
    const [, namespace, name] =
      /^\/api\/v1\/namespaces\/([^/]+)\/pods\/([^/]+)\/exec$/.exec(url.pathname) ?? [];
    const pod = this.pods().find(
      ({ metadata }) => metadata?.namespace === namespace && metadata?.name === name,
    );
    if (!pod || url.searchParams.getAll('command').join(' ') !== `cat ${MODE_FILE}`) {
      socket.end('HTTP/1.1 404 Not Found\r\n\r\n');
      return;
    }
    const key = `${request.headers['sec-websocket-key'] ?? ''}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
    const accept = createHash('sha1').update(key).digest('base64');
    const head = ['Upgrade: websocket', 'Connection: Upgrade', `Sec-WebSocket-Accept: ${accept}`];
    const protocol = 'Sec-WebSocket-Protocol: v5.channel.k8s.io';
    socket.write(`HTTP/1.1 101 Switching Protocols\r\n${head.join('\r\n')}\r\n${protocol}\r\n\r\n`);
    const send = (channel: number, text: string) => {
      const data = Buffer.from(`${String.fromCharCode(channel)}${text}`);
      socket.write(Buffer.concat([Buffer.from([0x82, data.length]), data]));
    };
    const { labels } = pod.metadata ?? {};
    send(STDOUT, this.isSingle({ metadata: { labels } }) ? '0\n' : '1\n');
    send(RESULT, JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Success' }));
    // "Closed", with the status of an ordinary end.
    socket.end(Buffer.from([0x88, 2, 0x03, 0xe8]));
  }

  /** A namespace goes with all that is in it, and takes a moment. */
  private remove(path: string): Answer {
    const there = this.objects.get(path);
    if (!there) {
      return notFound(`${path} not found`);
    }
    this.changes.push(`DELETE ${path}`);
    const { kind, metadata } = there.manifest;
    const inside = (stored: Stored) =>
      kind === 'Namespace' && stored.manifest.metadata.namespace === metadata.name;
    const remove = () => {
      for (const [key, stored] of this.objects) {
        if (key === path || inside(stored)) {
          this.objects.delete(key);
        }
      }
    };
    if (kind === 'Namespace' && this.situation.stuck) {
      return [200, { kind: 'Status', apiVersion: 'v1', status: 'Success' }];
    } else if (kind === 'Namespace') {
      setTimeout(remove, TERMINATION).unref();
    } else {
      remove();
    }
    return [200, { kind: 'Status', apiVersion: 'v1', status: 'Success' }];
  }

  private find(path: string, query: URLSearchParams): Answer | undefined {
    const [, namespace, resource, name, log] =
      /^\/(?:api\/v1|apis\/apps\/v1)(?:\/namespaces\/([^/]+))?\/([a-z]+)(?:\/([^/]+)(\/log)?)?$/.exec(
        path,
      ) ?? [];
    if (query.has('watch')) {
      return watch(query);
    }
    if (resource === 'pods' && name !== undefined) {
      const pod = this.pods().find(
        ({ metadata }) => metadata?.namespace === namespace && metadata?.name === name,
      );
      return pod ? [200, log ? this.log(pod) : pod] : notFound(`pods "${name}" not found`);
    }
    const stored = this.objects.get(path);
    if (stored) {
      return [200, this.withStatus(stored.manifest)];
    }
    const kind = KINDS[resource ?? ''];
    if (kind !== undefined && name === undefined) {
      return listOf(
        kind,
        this.list(kind, namespace).filter((item) => isSelected(item, query)),
      );
    }
    return query.has('fieldSelector') || query.has('labelSelector')
      ? this.others(path, query)
      : undefined;
  }

  /** Of the other kinds, which kubectl lists when it waits for their end, and Helm's own records. */
  private others(path: string, query: URLSearchParams): Answer {
    const items = [...this.objects]
      .filter(([key]) => key.slice(0, key.lastIndexOf('/')) === path)
      .map(([, { manifest }]) => manifest)
      .filter((manifest) => isSelected(manifest, query));
    return [200, { kind: `${items[0]?.kind ?? ''}List`, apiVersion: 'v1', metadata: {}, items }];
  }

  private list(kind: string, namespace?: string): readonly object[] {
    const here = ({ metadata }: { readonly metadata?: { readonly namespace?: string } }) =>
      namespace === undefined || metadata?.namespace === namespace;
    if (kind === 'Node') {
      return this.nodes;
    }
    const pods = this.pods().filter(here);
    if (kind === 'Pod') {
      return pods;
    }
    if (kind === 'Event') {
      return [...this.events(pods), ...this.troubles(namespace ?? '', pods)];
    }
    return this.workloads(kind)
      .map(({ manifest }) => this.withStatus(manifest))
      .filter(here);
  }

  /** A rollout is over at once: all pods are what the manifest says. */
  private withStatus(manifest: Manifest): Manifest {
    if (manifest.kind === 'DaemonSet') {
      const count = this.nodes.length;
      const status = {
        observedGeneration: 1,
        desiredNumberScheduled: count,
        updatedNumberScheduled: count,
        numberAvailable: count,
      };
      return { ...manifest, metadata: { ...manifest.metadata, generation: 1 }, status } as Manifest;
    }
    if (manifest.kind === 'Deployment') {
      const { replicas = 1 } = (manifest as Workload).spec;
      const status = { observedGeneration: 1, replicas, updatedReplicas: replicas };
      return {
        ...manifest,
        metadata: { ...manifest.metadata, generation: 1 },
        status: { ...status, availableReplicas: replicas },
      } as Manifest;
    }
    return manifest;
  }

  private get nodes(): readonly Node[] {
    return this.situation.nodes ?? [node('worker-1'), node('worker-2')];
  }

  private workloads(kind: string): { manifest: Workload; created: number }[] {
    return [...this.objects.values()]
      .filter(({ manifest }) => manifest.kind === kind)
      .map(({ manifest, created }) => ({ manifest: manifest as Workload, created }));
  }

  private pods(): Pod[] {
    const names = this.nodes
      .filter(({ status }) => status?.conditions?.[0]?.status === 'True')
      .map(({ metadata }) => metadata?.name ?? '');
    const daemons = this.workloads('DaemonSet').flatMap((workload) =>
      names.map((name) => this.pod(workload, name)),
    );
    const others = this.workloads('Deployment').flatMap((workload) =>
      names.slice(0, workload.manifest.spec.replicas).map((name) => this.pod(workload, name)),
    );
    const single = [...this.objects.entries()]
      .filter(([, { manifest }]) => manifest.kind === 'Pod')
      .map(([key, { manifest }]) => this.runningPod(key, manifest as Pod, names[0] ?? ''));
    return [...daemons, ...others, ...single].filter(
      (pod) => !(this.isHeldUp(pod) && this.situation.heldUp?.by === 'admission'),
    );
  }

  /** A pod of its own, as `kubectl run` makes it. */
  private runningPod(key: string, pod: Pod, nodeName: string): Pod {
    const uid = this.uids.get(key) ?? randomUUID();
    this.uids.set(key, uid);
    return {
      ...pod,
      metadata: { ...pod.metadata, uid },
      spec: { containers: [], ...pod.spec, nodeName },
      status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] },
    };
  }

  private isHeldUp({ metadata }: Pod): boolean {
    const { workload } = this.situation.heldUp ?? {};
    return workload !== undefined && metadata?.name?.startsWith(`${workload}-`) === true;
  }

  /** What the controller, the scheduler or the kubelet tells of pods that are held up. */
  private troubles(namespace: string, pods: Pod[]): Event[] {
    const { workload = '', by } = this.situation.heldUp ?? {};
    const found = [...this.workloads('DaemonSet'), ...this.workloads('Deployment')]
      .map(({ manifest }) => manifest)
      .find(({ metadata }) => metadata.name === workload && metadata.namespace === namespace);
    if (found && by === 'admission') {
      const isDaemonSet = found.kind === 'DaemonSet';
      const owner = isDaemonSet
        ? { kind: 'DaemonSet', name: workload }
        : { kind: 'ReplicaSet', name: `${workload}-5d4f8c7b9` };
      return [eventOf({ ...owner, namespace }, 'Warning', 'FailedCreate', DENIAL)];
    }
    return pods
      .filter((pod) => by === 'image pull' && this.isHeldUp(pod))
      .map((pod) => {
        const image = pod.spec?.containers[0]?.image ?? '';
        const { name, uid } = pod.metadata ?? {};
        const object = { kind: 'Pod', namespace, name, uid };
        return eventOf(object, 'Normal', 'Pulling', `Pulling image "${image}"`);
      });
  }

  private pod({ manifest, created }: { manifest: Workload; created: number }, name: string): Pod {
    const { template } = manifest.spec;
    const podName = `${manifest.metadata.name}-${name}`;
    const key = `${manifest.metadata.namespace ?? ''}/${podName}`;
    const uid = this.uids.get(key) ?? randomUUID();
    this.uids.set(key, uid);
    const age = Date.now() - created;
    const heldUp = this.isHeldUp({ metadata: { name: podName } });
    const scheduled = !(heldUp && this.situation.heldUp?.by === 'scheduler');
    const running = age >= START && !heldUp;
    const status: ContainerStatus = {
      name: template.spec?.containers[0]?.name ?? '',
      image: template.spec?.containers[0]?.image ?? '',
      imageID: '',
      ready: running,
      restartCount: 0,
      state: running ? { running: {} } : { waiting: { reason: 'ContainerCreating' } },
      lastState: {},
      ...(this.isSingle(template) || heldUp ? {} : restarted(ooms(manifest.metadata.name, age))),
    };
    return {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name: podName,
        namespace: manifest.metadata.namespace,
        uid,
        labels: template.metadata?.labels,
        creationTimestamp: new Date(created).toISOString(),
      },
      spec: { containers: [], ...template.spec, nodeName: scheduled ? name : undefined },
      status: {
        phase: running ? 'Running' : 'Pending',
        conditions: [
          scheduled ? { type: 'PodScheduled', status: 'True' } : UNSCHEDULABLE,
          { type: 'Ready', status: status.ready ? 'True' : 'False' },
        ],
        containerStatuses: scheduled ? [status] : undefined,
      },
    };
  }

  private isSingle(template: PodTemplate): boolean {
    const optedIn = template.metadata?.labels?.[MODE] === 'Single';
    const agent = this.workloads('DaemonSet').length > 0 && (this.situation.agentWorks ?? true);
    return (optedIn && agent) || this.situation.nodeValue === '0';
  }

  private kills(pod: Pod): number {
    const { labels, creationTimestamp, name = '' } = pod.metadata ?? {};
    const template = { metadata: { labels } };
    return labels?.[MODE] !== undefined && this.isSingle(template)
      ? ooms(name, Date.now() - Date.parse(creationTimestamp ?? ''))
      : 0;
  }

  private events(pods: Pod[]): Event[] {
    if ((this.situation.kills ?? 'Events') !== 'Events') {
      return [];
    }
    return pods
      .filter((pod) => this.kills(pod) > 0)
      .map((pod) => ({
        apiVersion: 'v1',
        kind: 'Event',
        metadata: {
          name: `${pod.metadata?.name ?? ''}.0f2a9c01`,
          namespace: pod.metadata?.namespace,
        },
        involvedObject: {
          kind: 'Pod',
          namespace: pod.metadata?.namespace,
          name: pod.metadata?.name,
          uid: pod.metadata?.uid,
        },
        type: 'Warning',
        reason: 'OomKilledProcess',
        message:
          'The kernel killed 1 process of container herder for memory, 1 in all since it started. The container kept running.',
        count: this.kills(pod),
      }));
  }

  private log(pod: Pod): string {
    const nodeName = pod.spec?.nodeName ?? '';
    if (pod.metadata?.name?.startsWith('probe')) {
      const single = this.isSingle({ metadata: { labels: pod.metadata.labels } });
      return `memory.oom.group=${single ? '0' : '1'}\n`;
    }
    if (!pod.metadata?.name?.startsWith(AGENT)) {
      return '';
    }
    if (this.situation.cgroupV1) {
      return `${JSON.stringify({ level: 'warn', msg: 'cgroup v1: nothing to do', node: nodeName })}\n`;
    }
    const ready = { level: 'info', msg: 'ready', node: nodeName, driver: 'systemd' };
    const kills = this.pods()
      .filter((other) => other.spec?.nodeName === nodeName && this.kills(other) > 0)
      .map((other) => ({
        level: 'warn',
        msg: 'processes killed for memory; the container kept running',
        pod: `${other.metadata?.namespace ?? ''}/${other.metadata?.name ?? ''}`,
        container: 'herder',
        kills: '1',
        total: String(this.kills(other)),
      }));
    return [
      { ...ready, nodeValue: this.situation.nodeValue ?? '1' },
      ...(this.situation.kills === 'log' ? kills : []),
    ]
      .map((line) => `${JSON.stringify(line)}\n`)
      .join('');
  }
}

function eventOf(
  involvedObject: Event['involvedObject'],
  type: string,
  reason: string,
  message: string,
): Event {
  const { name = '', namespace } = involvedObject;
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: `${name}.${reason.toLowerCase()}`, namespace },
    involvedObject,
    type,
    reason,
    message,
    lastTimestamp: new Date().toISOString(),
  };
}

/** How often a herder, with the label or without, has run out of memory. */
function ooms(name: string, age: number): number {
  const hungry = /^(herder|twin)/.test(name);
  return hungry ? Math.max(0, Math.floor((age - OOM_AFTER) / OOM_PERIOD) + 1) : 0;
}

function restarted(restartCount: number): Partial<ContainerStatus> {
  const terminated = { exitCode: 137, reason: 'OOMKilled' };
  return restartCount === 0
    ? {}
    : {
        restartCount,
        ready: false,
        state: { waiting: { reason: 'CrashLoopBackOff', message: 'back-off 10s restarting' } },
        lastState: { terminated },
      };
}

export function node(name: string, ready = true): Node {
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: { 'kubernetes.io/hostname': name, 'kubernetes.io/os': 'linux' } },
    status: { conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }] },
  };
}

function listOf(kind: string, items: readonly object[]): Answer {
  const apiVersion = /Set|Deployment/.test(kind) ? 'apps/v1' : 'v1';
  return [200, { kind: `${kind}List`, apiVersion, metadata: {}, items }];
}

/** Nothing is ever told: who watches is to list again. Initial events are refused, as 1.28 does. */
function watch(query: URLSearchParams): Answer {
  const status = { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure' };
  return query.has('sendInitialEvents')
    ? [422, { ...status, reason: 'Invalid', code: 422 }]
    : [200, { type: 'ERROR', object: { ...status, reason: 'Expired', code: 410 } }];
}

/** Whether an object has the labels and the fields that a request asks for. */
function isSelected(item: object, query: URLSearchParams): boolean {
  const { metadata } = item as Manifest & { metadata: { labels?: Record<string, string> } };
  const terms = (name: string) => (query.get(name) ?? '').split(',').filter(Boolean);
  return (
    terms('labelSelector').every((term) => {
      const [key = '', value] = term.split('=');
      const label = metadata.labels?.[key];
      return value === undefined ? label !== undefined : label === value;
    }) &&
    terms('fieldSelector').every((term) => {
      const [field = '', value] = term.split('=');
      const found = field
        .split('.')
        .reduce<unknown>(
          (object, part) => (object as Record<string, unknown> | undefined)?.[part],
          item,
        );
      return found === value;
    })
  );
}

/**
 * The resource attributes of a SelfSubjectAccessReview (namespace, verb, group, version, resource,
 * subresource). Up to 1.31, kubectl sends it as JSON; later ones as protobuf: after four bytes of magic,
 * an Unknown whose second field is the review, whose second field is the spec, whose first field are the
 * attributes.
 */
function accessReview(body: Buffer): (string | undefined)[] {
  if (body.toString('latin1', 0, 1) === '{') {
    const review = JSON.parse(body.toString()) as AccessReview;
    const { namespace, verb, group, version, resource, subresource } =
      review.spec.resourceAttributes;
    return [namespace, verb, group, version, resource, subresource];
  }
  const review = protobuf(body.subarray(4))[2];
  const attributes = protobuf(protobuf(review)[2])[1];
  const fields = protobuf(attributes);
  return [1, 2, 3, 4, 5, 6].map((field) => fields[field]?.toString());
}

interface AccessReview {
  readonly spec: { readonly resourceAttributes: Readonly<Record<string, string | undefined>> };
}

/** The fields of a message that has nothing but strings and messages. */
function protobuf(message: Buffer = Buffer.alloc(0)): Record<number, Buffer | undefined> {
  const fields: Record<number, Buffer | undefined> = {};
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = message.readUInt8(at++);
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        return value;
      }
    }
  };
  while (at < message.length) {
    const field = varint() >> 3;
    const length = varint();
    fields[field] = message.subarray(at, at + length);
    at += length;
  }
  return fields;
}
