import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import {
  Agent,
  ANNOTATION,
  containerId,
  eventually,
  FakeNode,
  LABEL,
  Limit,
  LogLine,
  newPod,
  Qos,
  requireTools,
  SYSTEMD,
} from '../support/agent';
import { EventObject, FakeApiServer, PodMetadata } from '../support/api-server';

/**
 * A node, an API server and an agent for each test of a file. After each of them the agent is ended,
 * and no test passes in which it complained, logged what is not documented, or wrote anything but
 * memory.oom.group of containers of pods that had opted in.
 */
export class Scene {
  public static use(): Scene {
    const scene = new Scene();
    jest.setTimeout(300_000);
    beforeAll(requireTools);
    beforeEach(() => scene.begin());
    afterEach(() => scene.end());
    return scene;
  }

  public api!: FakeApiServer;
  public node!: FakeNode;
  public agent!: Agent;
  /** What the agent's tools may say of a fault. */
  public noise: RegExp | '' = '';

  private readonly optedIn = new Set<string>();
  private markers = 0;

  /** Starts an agent, on another node if it is given one. */
  public start(environment: Record<string, string> = {}, node = this.node, script?: string): Agent {
    if (node !== this.node) {
      this.node.remove();
      this.node = node;
    }
    this.agent = new Agent(node, this.api, environment, script);
    return this.agent;
  }

  public async ready(environment?: Record<string, string>, node?: FakeNode): Promise<Agent> {
    const agent = this.start(environment, node);
    await agent.ready();
    return agent;
  }

  /** A pod that the API server does not know yet; without a mode it never will. */
  public pod(mode?: string, more: Partial<PodMetadata> = {}, qos?: Qos): Pod {
    return new Pod(this, newPod(mode, more), qos);
  }

  /** A pod that opted in, with overrides if there are any. */
  public optIn(mode: string, overrides = '', more: Partial<PodMetadata> = {}): Pod {
    const pod = this.pod(mode, more);
    pod.opt(mode, overrides);
    return pod;
  }

  /** A pod that opted in, with containers that run and that the agent has reached. */
  public async protect(mode = 'Single', ...names: string[]): Promise<Container[]> {
    const pod = this.optIn(mode);
    const [wrong = '', right = ''] = mode === 'Single' ? ['1', '0'] : ['0', '1'];
    const containers = (names.length > 0 ? names : ['worker']).map((name) => pod.run(name, wrong));
    await this.become(right.repeat(containers.length), ...containers);
    return containers;
  }

  /** Tells the API server of a pod. */
  public announce(pod: PodMetadata, cgroup: string): void {
    this.optedIn.add(cgroup);
    this.api.setPod(pod);
  }

  /** Waits until the containers have these values, one digit each. */
  public async become(wanted: string, ...containers: Container[]): Promise<void> {
    await this.eventually(wanted, () => this.values(containers) === wanted);
  }

  /** Makes drift of every container and waits for the repair. */
  public async drift(wanted: string, ...containers: Container[]): Promise<void> {
    containers.forEach(({ cgroup }, i) => {
      this.node.write(cgroup, wanted[i] === '1' ? '0' : '1');
    });
    await this.become(wanted, ...containers);
  }

  /** What the agent logged that is not as it should be. */
  public get warnings(): LogLine[] {
    return this.agent.log.filter(({ level }) => level === 'error' || level === 'warn');
  }

  public get metricsFile(): string {
    return join(this.node.run, 'metrics/oom_kill_mode.prom');
  }

  /** The text of the metrics, or nothing before the first. */
  public get metrics(): string {
    return existsSync(this.metricsFile) ? readFileSync(this.metricsFile, 'utf8') : '';
  }

  public values(containers: Container[]): string {
    return containers.map((container) => container.value).join('');
  }

  public async eventually(what: string, condition: () => boolean): Promise<void> {
    await eventually(what, condition, this.agent);
  }

  /**
   * Waits until the agent has done whatever it does about all that happened so far: a new pod, its
   * container, drift of that and whole ticks come after it.
   */
  public async settle(): Promise<void> {
    this.markers += 1;
    const [marker] = await this.protect('Single', `marker-${this.markers}`);
    await this.drift('0', marker as Container);
    await this.agent.ticks();
  }

  /** The Events about a pod. */
  public eventsOf({ name }: PodMetadata): EventObject[] {
    return [...this.api.events.values()].filter((event) => event.involvedObject.name === name);
  }

  private async begin(): Promise<void> {
    this.api = await FakeApiServer.start();
    this.node = new FakeNode(SYSTEMD);
    this.noise = '';
    this.optedIn.clear();
  }

  private async end(): Promise<void> {
    const { node, agent, api } = this;
    await agent.stop('SIGKILL');
    await api.stop();
    const strange = node.strange(this.optedIn);
    node.remove();
    expect(strange).toEqual([]);
    expect(agent.errors.replace(this.noise, '')).toBe('');
  }
}

/** A pod of a scene, whose cgroup there is. */
export class Pod {
  public readonly cgroup: string;

  public constructor(
    private readonly scene: Scene,
    public metadata: PodMetadata,
    qos?: Qos,
  ) {
    const { uid, annotations } = metadata;
    this.cgroup = scene.node.createPod(annotations?.['kubernetes.io/config.mirror'] ?? uid, qos);
  }

  public get events(): EventObject[] {
    return this.scene.eventsOf(this.metadata);
  }

  /** Tells the API server of it, with another mode or other overrides if there are any. */
  public opt(mode?: string, overrides?: string): void {
    const { labels, annotations } = this.metadata;
    const other: Record<string, string> =
      overrides === undefined ? {} : { [ANNOTATION]: overrides };
    this.metadata = {
      ...this.metadata,
      labels: { ...labels, ...(mode === undefined ? {} : { [LABEL]: mode }) },
      annotations: { ...annotations, ...other },
    };
    this.scene.announce(this.metadata, this.cgroup);
  }

  public optOut(): void {
    this.scene.api.removeLabel(this.metadata.uid);
  }

  /** A container up to where runc has written 1; its name cannot be known yet. */
  public create(value = '1', id = containerId()): Container {
    const cgroup = this.scene.node.createContainer(this.cgroup, id, value);
    return new Container(this.scene.node, this.metadata, cgroup, id);
  }

  /** A container with everything that the runtime and the kubelet do. */
  public run(name: string, value?: string, id?: string): Container {
    const container = this.create(value, id);
    container.link(name);
    return container;
  }
}

/** A container of a pod of a scene. */
export class Container {
  public constructor(
    private readonly node: FakeNode,
    public readonly pod: PodMetadata,
    public readonly cgroup: string,
    public readonly id: string,
  ) {}

  /** What the agent calls it where its name is not known. */
  public get short(): string {
    return this.id.slice(0, 12);
  }

  public get value(): string {
    return this.node.read(this.cgroup);
  }

  /** The kubelet makes the link to the container's log, and keeps it when the container ends. */
  public link(name: string): void {
    this.node.createLog(this.pod, name, this.id);
  }

  public kill(processes?: number, limit?: Limit): void {
    this.node.kill(this.cgroup, processes, limit);
  }

  public end(): void {
    this.node.vanish(this.cgroup);
  }
}
