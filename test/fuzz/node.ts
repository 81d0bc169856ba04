import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';

import {
  Agent,
  eventually,
  FakeNode,
  LAYOUTS,
  parent,
  Qos,
  SHELLS,
  signal,
} from '../support/agent';
import { fail, FakeApiServer, PodMetadata } from '../support/api-server';
import { Random } from './random';
import { ANNOTATION, LABEL, MIRROR, parseOverrides, valueOf } from './reference';

/** What the scripts run: a program of another name in the agent's group is not theirs. */
const PROGRAMS = new Set(
  (
    'dash busybox ash sh agent.sh awk chmod curl date dirname find grep head inotifyd ln mkdir mkfifo mv rm ' +
    'sleep'
  ).split(' '),
);

const FILE = 'memory.oom.group';

/** A cgroup that a runtime made, or one that nobody may write but the test. */
interface Cgroup {
  readonly path: string;
  readonly id: string;
  readonly name: string | undefined;
  logged: boolean;
  /** What the file has to say in the end, if the pod is not opted in. */
  value: string;
  /** The change time of a file that the agent must not have touched. */
  untouched: bigint | undefined;
}

interface Pod {
  metadata: PodMetadata;
  readonly cgroupUid: string;
  readonly directory: string;
  readonly containers: Set<Cgroup>;
  /** The API server says so; otherwise it is as if it had never been labelled. */
  optedIn: boolean;
}

/** Runs one agent through a random life; returns what went wrong, if anything. */
export async function liveThrough(seed: number, end: number): Promise<Life> {
  const life = new Life(seed);
  try {
    await life.live(end);
  } catch (error) {
    life.failure = (error instanceof Error ? error.message : String(error)).slice(0, 6000);
  } finally {
    await life.end();
  }
  return life;
}

export class Life {
  public failure: string | undefined;
  public steps = 0;
  private readonly random: Random;
  private readonly trace: string[] = [];
  private readonly shell: string;
  private readonly node: FakeNode;
  private readonly nodeValue: string;
  /** With faults, an event may be lost until the next resync; without, never. */
  private readonly faulty: boolean;
  private readonly talkative: boolean;
  private readonly pods: Pod[] = [];
  private readonly decoys: Cgroup[] = [];
  private readonly strangers = new Set<string>();
  private readonly trap: string;
  private api!: FakeApiServer;
  private agent!: Agent;
  private apiFaults = 0;
  private killed = false;
  private kills = 0;
  private sampler: NodeJS.Timeout | undefined;

  public constructor(seed: number) {
    this.random = new Random(seed);
    const { random } = this;
    this.shell = random.pick(Object.keys(SHELLS));
    this.nodeValue = random.pick(['1', '1', '0']);
    this.faulty = random.chance(0.4);
    this.talkative = random.chance(0.5);
    const layout = random.pick(Object.keys(LAYOUTS));
    this.node = new FakeNode(LAYOUTS[layout] as (typeof LAYOUTS)[string], {
      nodeValue: this.nodeValue,
      ownQos: random.pick<Qos>(['guaranteed', 'burstable', 'besteffort']),
    });
    this.trap = join(this.node.directory, 'trap');
    this.note(`${this.shell}, ${layout}, node value ${this.nodeValue}`);
    this.note(this.faulty ? 'with faults' : 'without faults');
  }

  public get story(): string {
    return this.trace.join('\n');
  }

  public async live(end: number): Promise<void> {
    const { random } = this;
    this.api = await FakeApiServer.start();
    this.api.chunk = random.pick([Infinity, Infinity, 1 + random.size(2000)]);
    this.decoy(this.node.own, this.nodeValue);
    const steps = 5 + random.int(40);
    const start = random.int(10);
    for (let step = 0; step < steps; step += 1) {
      if (step === start) {
        await this.start();
      }
      await this.step();
      await pause(random.chance(0.5) ? 0 : random.size(120));
      this.checkStrangers();
      if (Date.now() > end) {
        break;
      }
    }
    if (this.sampler === undefined) {
      await this.start();
    }
    await this.settle('the end');
    await pause(200);
    this.checkAll();
  }

  public async end(): Promise<void> {
    clearInterval(this.sampler);
    if (this.failure !== undefined && this.started) {
      this.note(`left:${this.family()}`);
    }
    if (this.sampler !== undefined) {
      await this.agent.stop('SIGKILL');
    }
    await (this.api as FakeApiServer | undefined)?.stop();
    this.node.remove();
  }

  private note(text: string): void {
    this.trace.push(text);
  }

  private async start(): Promise<void> {
    this.note('start');
    this.agent = new Agent(this.node, this.api, SHELLS[this.shell] as string[], {
      LOG_LEVEL: 'info',
      RESYNC_SECONDS: this.faulty ? '1' : '600',
      // What is told of it may not change what is done.
      EVENTS: this.talkative ? 'yes' : 'no',
      EVENTS_APPLIED: this.talkative ? 'yes' : 'no',
      METRICS: this.talkative ? 'yes' : 'no',
      KILL_SECONDS: '1',
    });
    this.sampler = setInterval(() => {
      for (const name of this.processes().values()) {
        if (!PROGRAMS.has(name)) {
          this.strangers.add(name);
        }
      }
    }, 20);
    await eventually('ready', () => existsSync(join(this.node.run, 'ready')), this.agent, 20);
  }

  private get started(): boolean {
    return this.sampler !== undefined;
  }

  private async step(): Promise<void> {
    const { random } = this;
    this.steps += 1;
    const pod = this.pods.length > 0 ? random.pick(this.pods) : undefined;
    const steps: (() => Promise<void> | void)[] = [
      () => this.newPod(),
      () => {
        this.newDecoy();
      },
    ];
    if (pod) {
      const { containers } = pod;
      steps.push(
        () => {
          this.newContainer(pod);
        },
        () => {
          this.newContainer(pod);
        },
        () => {
          this.relabel(pod);
        },
        () => {
          this.annotate(pod);
        },
        () => {
          this.flip(pod);
        },
        () => this.leave(pod),
        () => {
          if (pod.optedIn) {
            this.api.setPod(pod.metadata);
          }
        },
      );
      if (containers.size > 0) {
        const container = random.pick([...containers]);
        steps.push(
          () => {
            this.rewrite(pod, container);
          },
          () => {
            this.rewrite(pod, container);
          },
          () => {
            this.log(pod, container);
          },
          () => {
            this.removeContainer(pod, container);
          },
          () => {
            this.kill(container);
          },
        );
      }
    }
    if (random.chance(0.1)) {
      this.api.bookmark();
    }
    if (random.chance(0.2) && this.decoys.length > 0) {
      this.writeDecoy(random.pick(this.decoys));
    }
    if (this.started && random.chance(0.1)) {
      this.note('the watch ends');
      this.api.endWatches();
    }
    if (this.started && this.faulty && random.chance(0.3)) {
      await this.fault();
    }
    await random.pick(steps)();
  }

  private async newPod(): Promise<void> {
    const { random } = this;
    const uid = random.uid();
    const twin = this.pods.length > 0 ? random.pick(this.pods) : undefined;
    const hash = random.chance(0.15) ? random.hex(32) : undefined;
    const cgroupUid = hash ?? uid;
    // A name may be anything that a DNS name may be: another pod's UID, the start of another name.
    const name =
      twin && random.chance(0.3)
        ? random.pick([twin.metadata.name, `${twin.metadata.name}-b`, twin.cgroupUid])
        : random.pick(['web', 'db-0', 'a.b', 'single', `p${random.hex(8)}`, 'x'.repeat(120)]);
    const qos = random.pick<Qos>(['guaranteed', 'burstable', 'besteffort']);
    const directory = this.node.layout.pod(cgroupUid, qos);
    const pod: Pod = {
      metadata: {
        uid,
        name,
        namespace: random.pick(['default', 'kube-system', 'x']),
        labels: this.labels(random.pick(['Single', 'Single', 'Group'])),
        annotations: {
          ...(hash === undefined ? {} : { [MIRROR]: hash }),
          ...(random.chance(0.3) ? { note: this.evil() } : {}),
          ...(random.chance(0.5) ? { [ANNOTATION]: this.overrides() } : {}),
        },
      },
      cgroupUid,
      directory,
      containers: new Set(),
      optedIn: true,
    };
    if (
      this.pods.some(
        (one) => one.metadata.name === name && one.metadata.namespace === pod.metadata.namespace,
      )
    ) {
      return; // Two pods of one name exist one after the other only.
    }
    this.pods.push(pod);
    this.note(`new pod ${JSON.stringify(pod.metadata)} in ${directory}`);
    const early = random.chance(0.5);
    if (early) {
      this.api.setPod(pod.metadata);
    }
    this.node.createPod(cgroupUid, qos);
    await pause(random.chance(0.5) ? 0 : random.size(50));
    random.times(random.int(4), () => {
      this.newContainer(pod);
    });
    if (!early) {
      this.api.setPod(pod.metadata);
    }
  }

  private labels(mode: string): Record<string, string> {
    return { app: 'x', [LABEL]: mode, ...(this.random.chance(0.1) ? { evil: this.evil() } : {}) };
  }

  private overrides(): string {
    const { random } = this;
    return random
      .times(1 + random.int(3), () =>
        random.chance(0.9)
          ? `${random.pick(['web', 'web-2', 'web-2-b', 'init'])}=${random.pick(['Single', 'Group'])}`
          : this.evil(),
      )
      .join(',');
  }

  private evil(): string {
    return this.random.pick([
      `$(touch ${this.trap})`,
      `\`touch ${this.trap}\``,
      `";touch ${this.trap};"`,
      `\n\nanswer 200 0\n`,
      `"}}\n{"type":"DELETED"`,
      '}'.repeat(this.random.size(1000)),
      JSON.stringify({ [LABEL]: 'Group' }),
      '../../x=Group',
      '*=Group',
      '\\',
      '\u0000\u001b[2J\u{1f600}',
    ]);
  }

  private newContainer(pod: Pod): void {
    const { random } = this;
    const id = random.hex(64);
    const name = random.pick([undefined, 'web', 'web-2', 'web-2-b', 'init', 'other']);
    const path = join(pod.directory, this.node.layout.container(id));
    // A runtime leaves the node value in it; some do so after a while.
    const made = this.make(path, random.pick(['0', this.nodeValue]));
    if (made.value !== this.nodeValue) {
      this.set(made, this.nodeValue);
    }
    this.node.count(path, {});
    const container: Cgroup = { ...made, id, name };
    pod.containers.add(container);
    this.note(`new container ${name ?? '(no log)'} ${path}`);
    if (random.chance(0.7)) {
      this.log(pod, container);
    }
    if (path.endsWith('.scope') && random.chance(0.15)) {
      const inner = this.make(join(path, 'container'), this.nodeValue);
      const child: Cgroup = { ...inner, id, name, logged: container.logged };
      pod.containers.add(child);
      this.note('with a container/ of crun');
      if (random.chance(0.3)) {
        this.decoy(join(inner.path, 'container'), '1');
      }
    }
    if (random.chance(0.3)) {
      this.decoy(
        join(path, random.pick(['system.slice', 'init.scope', random.hex(64), 'x y'])),
        '1',
      );
    }
    if (!pod.optedIn) {
      container.untouched = this.changed(path);
    }
  }

  private log(pod: Pod, container: Cgroup): void {
    if (container.name !== undefined && !container.logged) {
      this.note(`log of ${container.name} ${container.id.slice(0, 8)}`);
      this.node.createLog(pod.metadata, container.name, container.id);
      for (const one of pod.containers) {
        if (one.id === container.id) {
          one.logged = true;
        }
      }
    }
  }

  private rewrite(pod: Pod, container: Cgroup): void {
    const values = this.random.times(1 + this.random.int(3), () => this.random.pick(['0', '1']));
    this.note(`the runtime writes ${values.join(', ')} to ${container.path}`);
    values.forEach((value) => {
      this.set(container, value);
    });
    if (!pod.optedIn) {
      container.untouched = this.changed(container.path);
    }
  }

  private removeContainer(pod: Pod, container: Cgroup): void {
    if (basename(container.path) === 'container') {
      return;
    }
    this.note(`container ${container.path} ends`);
    for (const one of pod.containers) {
      if (one.id === container.id) {
        pod.containers.delete(one);
      }
    }
    this.remove(container.path);
    if (container.logged) {
      const log = readdirSync(this.node.logs).find((file) => file.includes(`-${container.id}.log`));
      if (log !== undefined) {
        unlinkSync(join(this.node.logs, log));
      }
    }
  }

  private remove(path: string): void {
    const aside = join(this.node.directory, `gone-${this.random.hex(16)}`);
    renameSync(join(this.node.cgroupRoot, path), aside);
    rmSync(aside, { recursive: true });
    for (let index = this.decoys.length - 1; index >= 0; index -= 1) {
      if (this.decoys[index]?.path.startsWith(`${path}/`)) {
        this.decoys.splice(index, 1);
      }
    }
  }

  /** The mode changes, or the pod comes back after it had lost its label. */
  private relabel(pod: Pod): void {
    const labels = this.labels(this.random.pick(['Single', 'Group']));
    pod.metadata = { ...pod.metadata, labels };
    pod.optedIn = true;
    for (const container of pod.containers) {
      container.untouched = undefined;
    }
    this.note(`${pod.cgroupUid} is ${labels[LABEL]} now`);
    this.api.setPod(pod.metadata);
  }

  private annotate(pod: Pod): void {
    const annotations = Object.fromEntries(
      Object.entries(pod.metadata.annotations ?? {}).filter(([key]) => key !== ANNOTATION),
    );
    if (this.random.chance(0.7)) {
      annotations[ANNOTATION] = this.overrides();
    }
    pod.metadata = { ...pod.metadata, annotations };
    this.note(`${pod.cgroupUid} has ${JSON.stringify(annotations)} now`);
    if (pod.optedIn) {
      this.api.setPod(pod.metadata);
    }
  }

  private flip(pod: Pod): void {
    for (let count = this.random.int(6); count > 0; count -= 1) {
      if (this.random.chance(0.3) && pod.optedIn) {
        this.api.removeLabel(pod.metadata.uid);
      }
      this.relabel(pod);
    }
  }

  /** Waits until the agent has heard of all that happened to a pod, in the order of the events. */
  private async hear(pod: Pod): Promise<void> {
    const mark = `mark-${this.random.hex(8)}`;
    const annotations = { ...pod.metadata.annotations };
    annotations[ANNOTATION] = [annotations[ANNOTATION] ?? [], `${mark}=Group`].flat().join(',');
    pod.metadata = { ...pod.metadata, annotations };
    this.api.setPod(pod.metadata);
    const heard = () =>
      this.agent.logged('pod changed').some((line) => line.overrides?.includes(mark));
    await eventually(`heard of ${mark}`, heard, this.agent, 45);
  }

  /** The label is removed or becomes invalid, or the pod is deleted. */
  private async leave(pod: Pod): Promise<void> {
    const { random } = this;
    if (!this.started || !pod.optedIn) {
      return;
    }
    // The agent must know the pod before it can be seen to let go of it.
    await this.settle(`before ${pod.cgroupUid} leaves`);
    await this.hear(pod);
    const how = random.pick(['delete', 'remove', 'invalid', 'unseen']);
    this.note(`${pod.cgroupUid} leaves: ${how}`);
    const { namespace, name } = pod.metadata;
    const left = () =>
      this.agent.logged('no longer opted in').filter((line) => line.pod === `${namespace}/${name}`);
    const before = left().length;
    pod.optedIn = false;
    if (how === 'delete') {
      const first = random.chance(0.5);
      if (first) {
        this.api.deletePod(pod.metadata.uid);
      }
      for (const container of [...pod.containers]) {
        this.removeContainer(pod, container);
      }
      this.remove(pod.directory);
      this.pods.splice(this.pods.indexOf(pod), 1);
      if (!first) {
        this.api.deletePod(pod.metadata.uid);
      }
      return;
    }
    for (const container of pod.containers) {
      container.value = this.nodeValue;
    }
    if (how === 'remove') {
      this.api.removeLabel(pod.metadata.uid);
    } else if (how === 'invalid') {
      const mode = random.pick(['', 'single', 'Single ', '0', this.evil()]);
      this.api.setPod({ ...pod.metadata, labels: this.labels(mode) });
    } else {
      this.api.forgetSilently(pod.metadata.uid);
      this.api.compact();
      this.api.breakConnections();
    }
    await eventually(
      `${how}: let go of ${namespace}/${name}`,
      () => left().length > before,
      this.agent,
      45,
    );
    await this.settle(`after ${pod.cgroupUid} left`);
    for (const container of pod.containers) {
      container.untouched = this.changed(container.path);
      if (!container.logged) {
        container.value = this.read(container.path);
      }
    }
  }

  /** Something beside the containers: nobody's, a runtime's monitor's, or another pod's. */
  private newDecoy(): void {
    const { random } = this;
    const id = random.hex(64);
    const { layout } = this.node;
    const pod = this.pods.length > 0 ? random.pick(this.pods) : undefined;
    const parent = pod?.directory ?? layout.pod(random.uid(), 'burstable');
    const uid = pod?.cgroupUid ?? random.uid();
    const path = random.pick([
      // A pod that did not opt in, and pods whose UIDs begin or end like another's.
      join(
        layout.pod(random.uid(), random.pick<Qos>(['guaranteed', 'burstable'])),
        layout.container(id),
      ),
      join(layout.pod(`${uid}0`, 'burstable'), layout.container(id)),
      join(layout.pod(uid.slice(0, -1), 'besteffort'), layout.container(id)),
      join(layout.pod(uid.slice(1), 'guaranteed'), layout.container(id)),
      join(
        dirname(layout.pod(uid, 'burstable')),
        `x${basename(layout.pod(uid, 'burstable'))}`,
        layout.container(id),
      ),
      join(parent, layout.container(id.slice(1))),
      join(parent, layout.container(`${id}0`)),
      join(parent, layout.container(id.toUpperCase().replace(/^./, 'A'))),
      join(parent, layout.container(id.replace(/^./, 'g'))),
      join(parent, `crio-conmon-${id}.scope`),
      join(parent, `crio-conmon-${id}`),
      join(parent, `libpod-${id}.scope`),
      join(parent, 'container'),
      join(parent, random.pick(['x y', '-n', '$(id)', '*', "'", '"', 'é', '0\t1', '\\n'])),
      join('system.slice', layout.container(id)),
    ]);
    this.note(`decoy ${path}`);
    this.decoy(path, random.pick(['0', '1']));
  }

  private decoy(path: string, value: string): void {
    const file = join(this.node.cgroupRoot, path, FILE);
    if (existsSync(file) && this.decoys.some((decoy) => decoy.path === path)) {
      return;
    }
    const decoy = existsSync(file)
      ? { path, id: '', name: undefined, logged: false, value, untouched: undefined }
      : this.make(path, value);
    this.decoys.push({ ...decoy, untouched: this.changed(path) });
  }

  private writeDecoy(decoy: Cgroup): void {
    if (decoy.path === this.node.own) {
      return; // The node value is read from it.
    }
    const value = this.random.pick(['0', '1']);
    this.note(`somebody writes ${value} to ${decoy.path}`);
    this.set(decoy, value);
    decoy.untouched = this.changed(decoy.path);
  }

  private async fault(): Promise<void> {
    const { random, api } = this;
    const kinds = [
      () => {
        const [pid, name] = random.pick(
          [...this.processes()].filter(
            ([one, called]) =>
              one !== this.agent.pid && !/^(find|head|ln|mkdir|mkfifo|mv|rm)$/.test(called),
          ),
        );
        this.note(`kill ${name} ${pid} of${this.family()}`);
        signal(pid, 'SIGKILL');
      },
      () => {
        this.note('connections break');
        api.breakConnections();
      },
      () => {
        const status = random.pick([401, 410, 429, 500, 503]);
        this.note(`status ${status}`);
        api.faults.push((response) => {
          fail(response, status, this.evil());
        });
        api.endWatches();
      },
      () => {
        this.note('half a line');
        api.sendRaw('{"type":"DELETED","object":{"metadata":{"name":"x","uid":"');
        api.breakConnections();
      },
      () => {
        this.note('garbage');
        api.sendRaw(`${this.evil().replaceAll('\n', '')}"{\n`);
        api.endWatches();
      },
      () => {
        this.note('compaction');
        api.compact();
        api.endWatches();
      },
    ];
    // Pauses between requests grow with each failure, so that few of them fit into a life.
    // One process only: whoever starts the others again could be the next to go.
    const kind = random.int(this.apiFaults < 3 ? kinds.length : 1);
    if (kind > 0) {
      this.apiFaults += 1;
    } else if (this.killed) {
      return;
    } else {
      this.killed = true;
    }
    kinds[kind]?.();
    await pause(kind === 0 ? 1_000 : 0);
    api.bookmark(); // A real server sends one every minute.
  }

  /** The kernel kills processes of a container. */
  private kill(container: Cgroup): void {
    if (basename(container.path) === 'container') {
      return; // Of the same container: the kernel would count it in all levels.
    }
    const processes = 1 + this.random.int(3);
    this.note(`the kernel kills ${processes} in ${container.path}`);
    this.node.kill(container.path, processes);
    this.kills += processes;
  }

  private make(path: string, value: string): Cgroup {
    this.node.createCgroup(path, value);
    return { path, id: '', name: undefined, logged: false, value, untouched: undefined };
  }

  /** Writes like a runtime: nobody sees an empty file. */
  private set(cgroup: Cgroup, value: string): void {
    const file = openSync(join(this.node.cgroupRoot, cgroup.path, FILE), 'r+');
    writeSync(file, `${value}\n`);
    closeSync(file);
    cgroup.value = value;
  }

  private changed(path: string): bigint {
    return statSync(join(this.node.cgroupRoot, path, FILE), { bigint: true }).ctimeNs;
  }

  /** What the file has to say once everything has been heard of. */
  private wanted(pod: Pod, container: Cgroup): string {
    if (!pod.optedIn) {
      return container.value;
    }
    const { labels, annotations } = pod.metadata;
    const { overrides } = parseOverrides(annotations?.[ANNOTATION]);
    const override =
      container.logged && container.name !== undefined ? overrides.get(container.name) : undefined;
    return override ?? valueOf(labels?.[LABEL]) ?? '?';
  }

  private read(path: string): string {
    const text = readFileSync(join(this.node.cgroupRoot, path, FILE), 'utf8');
    if (text !== '0\n' && text !== '1\n') {
      throw new Error(`${path} says ${JSON.stringify(text)}`);
    }
    return text.trim();
  }

  private wrong(): string | undefined {
    for (const pod of this.pods) {
      for (const container of pod.containers) {
        const [is, wanted] = [this.read(container.path), this.wanted(pod, container)];
        if (!pod.optedIn && !container.logged) {
          continue; // Without a log file it may have been taken for the sandbox.
        }
        if (is !== wanted) {
          return `${container.path} (${container.name ?? 'no log'}) says ${is}, not ${wanted}`;
        }
      }
    }
    const touched = [...this.decoys, ...this.pods.flatMap((pod) => [...pod.containers])].find(
      (one) => one.untouched !== undefined && one.untouched !== this.changed(one.path),
    );
    if (touched) {
      throw new Error(`the agent wrote ${touched.path}`);
    }
    return undefined;
  }

  private async settle(when: string): Promise<void> {
    let last: string | undefined;
    const end = Date.now() + (this.faulty ? 45_000 : 8_000);
    for (;;) {
      last = this.wrong();
      const { log } = this.agent;
      const unknown = this.pods.find(
        (pod) =>
          pod.optedIn &&
          !log.some(
            (line) =>
              line.msg === 'pod opted in' &&
              line.pod === `${pod.metadata.namespace}/${pod.metadata.name}`,
          ),
      );
      if (unknown) {
        last ??= `nothing is known of ${unknown.cgroupUid}`;
      }
      if (last === undefined) {
        break;
      }
      if (Date.now() > end) {
        throw new Error(`${when}: ${last}\n${log.map((line) => JSON.stringify(line)).join('\n')}`);
      }
      await pause(10);
    }
  }

  private checkAll(): void {
    const wrong = this.wrong();
    if (wrong !== undefined) {
      throw new Error(`after it was right once: ${wrong}`);
    }
    this.checkStrangers();
    this.checkFiles();
    const told = this.agent
      .logged('the container kept running')
      .reduce((sum, { kills }) => sum + Number(kills), 0);
    if (told > this.kills) {
      throw new Error(`the agent tells of ${told} kills, and there were ${this.kills}`);
    }
    // dash says so when somebody else kills what it waits for.
    const errors = this.agent.errors.replaceAll('Killed\n', this.faulty ? '' : 'Killed\n');
    if (this.agent.log.length === 0 || errors !== '') {
      throw new Error(`standard error: ${this.agent.errors}`);
    }
  }

  /** In the node's cgroups there is no file but those that the kernel makes. */
  private checkFiles(): void {
    const files = readdirSync(this.node.cgroupRoot, { recursive: true, withFileTypes: true })
      .filter((entry) => !entry.isDirectory())
      .map(({ name }) => name);
    const odd = files.filter(
      (name) => ![FILE, 'memory.events', 'cgroup.controllers'].includes(name),
    );
    if (odd.length > 0) {
      throw new Error(`the agent made ${odd.join(', ')}`);
    }
  }

  private checkStrangers(): void {
    if (this.strangers.size > 0) {
      throw new Error(`the agent ran ${[...this.strangers].join(', ')}`);
    }
    if (existsSync(this.trap)) {
      throw new Error('the agent ran what a pod says');
    }
  }

  /** Who is whose child, for the story. */
  private family(): string {
    return [...this.processes()]
      .map(([pid, name]) => {
        try {
          return ` ${parent(pid)}>${pid}:${name}`;
        } catch {
          return '';
        }
      })
      .join('');
  }

  /** The names of the processes of the agent's group. */
  private processes(): Map<number, string> {
    const found = new Map<number, string>();
    for (const pid of readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name))) {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
        const [, name = '', group] = /^[0-9]+ \((.*)\) \S+ \S+ (\S+)/s.exec(stat) ?? [];
        if (Number(group) === this.agent.pid) {
          found.set(Number(pid), name);
        }
      } catch {
        // It is gone.
      }
    }
    return found;
  }
}

async function pause(milliseconds: number): Promise<void> {
  await new Promise((done) => setTimeout(done, milliseconds));
}
