import { existsSync } from 'node:fs';
import { join } from 'node:path';

import {
  Agent,
  containerId,
  eventually,
  FakeNode,
  LAYOUTS,
  Layout,
  newPod,
  Qos,
  signal,
} from '../support/agent';
import { fail, FakeApiServer, PodMetadata } from '../support/api-server';
import { Random } from './random';
import { ANNOTATION, LABEL, MIRROR, parseOverrides, valueOf } from './reference';

interface Container {
  readonly cgroup: string;
  readonly id: string;
  /** What the kubelet's link says, if there is one. */
  name?: string;
  /** What the test wrote last. */
  written: string;
}

interface Pod {
  metadata: PodMetadata;
  readonly cgroup: string;
  readonly containers: Container[];
  /** Whether the API server knows it with the label. */
  told: boolean;
  /** The agent that knew it when it left by its label or its end; another one owes it nothing. */
  leftFrom?: Agent;
}

const QOS: Qos[] = ['guaranteed', 'burstable', 'besteffort'];

/**
 * One agent in a random life: pods, containers, drift, and in some lives faults. In the end every
 * container has the value that it is to have, nothing else was written, and no text was executed.
 */
export class Life {
  public failure: string | undefined;
  public steps = 0;
  public readonly story: string[] = [];
  private readonly random: Random;
  private readonly node: FakeNode;
  private readonly nodeValue: string;
  /** With faults an event may be lost until the next look at everything; without, none is. */
  private readonly faulty: boolean;
  private readonly pods: Pod[] = [];
  private readonly everOptedIn = new Set<string>();
  private readonly trap: string;
  private api!: FakeApiServer;
  private agent!: Agent;

  public constructor(seed: number) {
    this.random = new Random(seed);
    const { random } = this;
    this.nodeValue = random.pick(['1', '1', '0']);
    this.faulty = random.chance(0.5);
    const layout = random.pick(Object.keys(LAYOUTS));
    this.story.push(`${layout}, node value ${this.nodeValue}, faults: ${String(this.faulty)}`);
    this.node = new FakeNode(LAYOUTS[layout] as Layout, {
      nodeValue: this.nodeValue,
      ownQos: random.pick(QOS),
    });
    this.trap = join(this.node.directory, 'trap');
  }

  public async live(until: number): Promise<void> {
    const { random } = this;
    this.api = await FakeApiServer.start();
    try {
      this.api.knowsInitialEvents = random.chance(0.7);
      this.api.chunk = random.pick([Infinity, Infinity, 1 + random.size(2000)]);
      this.start();
      for (let count = 5 + random.int(40); count > 0 && Date.now() < until; count -= 1) {
        await this.step();
        await wait(random.chance(0.5) ? 0 : random.size(120));
      }
      await this.check();
    } catch (error) {
      this.failure = (error instanceof Error ? error.message : String(error)).slice(0, 8000);
    } finally {
      await this.agent.stop('SIGKILL');
      await this.api.stop();
      this.node.remove();
    }
  }

  private start(): void {
    const talkative = this.random.pick(['yes', 'no']);
    this.agent = new Agent(this.node, this.api, {
      RESYNC_SECONDS: this.faulty ? '1' : '600',
      // What is told of it may not change what is done.
      EVENTS: talkative,
      METRICS: talkative,
    });
  }

  private async step(): Promise<void> {
    const { random, pods } = this;
    const pod = pods.length > 0 ? random.pick(pods) : undefined;
    const container = pod && pod.containers.length > 0 ? random.pick(pod.containers) : undefined;
    const steps: Record<string, () => void | Promise<void>> = {
      pod: () => {
        this.newPod();
      },
    };
    if (pod) {
      steps['container'] = () => this.newContainer(pod);
      steps['another container'] = () => this.newContainer(pod);
      steps['one more container'] = () => this.newContainer(pod);
      steps['tell'] = () => {
        this.tell(pod);
      };
      steps['leave'] = () => {
        this.leave(pod);
      };
      steps['delete'] = () => {
        this.api.deletePod(pod.metadata.uid);
        this.node.vanish(pod.cgroup);
        pods.splice(pods.indexOf(pod), 1);
      };
    }
    if (pod && container) {
      steps['drift'] = () => {
        this.write(container, random.pick(['0', '1']));
      };
      steps['link'] = () => {
        this.link(pod, container);
      };
      steps['end'] = () => {
        this.node.vanish(container.cgroup);
        pod.containers.splice(pod.containers.indexOf(container), 1);
      };
      steps['kill'] = () => {
        this.node.kill(container.cgroup, 1 + random.int(3));
      };
    }
    steps['end of the watch'] = () => {
      this.api.endWatches();
    };
    steps['bookmark'] = () => {
      this.api.bookmark();
    };
    if (this.faulty) {
      Object.assign(steps, this.faults());
    }
    // Nothing of all that matters to a node without pods.
    const name = pods.length < 2 ? 'pod' : random.pick(Object.keys(steps));
    this.story.push(`${name} ${pod?.metadata.name ?? ''} ${container?.id.slice(0, 8) ?? ''}`);
    this.steps += 1;
    await steps[name]?.();
  }

  private faults(): Record<string, () => void | Promise<void>> {
    const { random, api } = this;
    return {
      'kill a process': () => {
        // One that cannot even begin ends, and the kubelet starts it again.
        const [, ...children] = this.agent.isReady ? this.agent.processes : [];
        children.splice(0, random.int(children.length));
        signal(children[0] ?? 0, 'SIGKILL');
      },
      'hang a process': async () => {
        const victim = random.pick(this.agent.processes);
        signal(victim, 'SIGSTOP');
        await wait(random.size(1500));
        signal(victim, 'SIGCONT');
      },
      'another agent': async () => {
        await this.agent.stop(random.pick(['SIGKILL', 'SIGTERM']));
        this.start();
      },
      'broken connections': () => {
        api.breakConnections();
      },
      'an error': () => {
        api.failWatches(random.pick([410, 500]));
      },
      'a refusal': () => {
        const code = random.pick([401, 403, 410, 429, 500]);
        api.faults.push((response) => {
          fail(response, code);
        });
        api.endWatches();
      },
      garbage: () => {
        api.sendRaw(`${random.text('{}[]",:\\ax1 \n', 1 + random.size(200))}\n`);
      },
    };
  }

  /** Text that does something, if it is ever taken for more than text. */
  private evil(): string {
    const { trap } = this;
    return this.random.pick([
      ...[`$(touch ${trap})`, `\`touch ${trap}\``, `";touch ${trap};"`, `'; touch ${trap}; '`],
      ...[
        'x\nG\tx',
        '\u0000\u001b[2J',
        '"}}\n{"type":"DELETED"',
        '\\'.repeat(99),
        '../..',
        '*',
        '',
      ],
      ...[`${LABEL}":"Group","x":"`, '%s%n', '\u2028é\u{1f600}', '-e', '{', '}}]'],
    ]);
  }

  private newPod(): void {
    const { random } = this;
    const annotations = random.chance(0.2) ? { [MIRROR]: random.hex(32) } : undefined;
    const name = random.chance(0.2)
      ? random.text('ab-', 1) + random.text('ab-.', random.size(200))
      : '';
    const metadata = newPod(undefined, { annotations, ...(name === '' ? {} : { name }) });
    const cgroup = this.node.createPod(annotations?.[MIRROR] ?? metadata.uid, random.pick(QOS));
    const pod = { metadata, cgroup, containers: [], told: false };
    this.pods.push(pod);
    if (random.chance(0.7)) {
      this.tell(pod);
    }
  }

  /** Gives a pod a mode and overrides, hostile ones among them. */
  private tell(pod: Pod): void {
    const { random } = this;
    const mode = random.chance(0.85) ? random.pick(['Single', 'Group']) : this.evil();
    const entry = () =>
      random.chance(0.85)
        ? `${random.pick(['a', 'b', 'a-b'])}=${random.pick(['Single', 'Group'])}`
        : this.evil();
    const overrides = random.times(random.int(4), entry).join(',');
    const { annotations } = pod.metadata;
    pod.metadata = {
      ...pod.metadata,
      labels: { [LABEL]: mode, x: this.evil() },
      annotations: { ...annotations, [ANNOTATION]: overrides, note: this.evil() },
    };
    this.story.push(`  ${JSON.stringify([mode, overrides])}`);
    if (wantedMode(pod) !== undefined) {
      this.everOptedIn.add(pod.cgroup);
    }
    pod.told = true;
    pod.leftFrom = this.agent;
    this.api.setPod(pod.metadata);
  }

  private leave(pod: Pod): void {
    if (!pod.told) {
      return;
    }
    const { random, api } = this;
    const { uid } = pod.metadata;
    const way = random.pick(['removeLabel', 'endPod', 'deletePod'] as const);
    // What runs of a pod that was deleted by force keeps its mode, if the agent was told of that.
    pod.leftFrom = way === 'deletePod' ? undefined : this.agent;
    pod.told = false;
    api[way](uid);
  }

  /** As the runtime and the kubelet make it: systemd and runc write, then there is a link. */
  private async newContainer(pod: Pod): Promise<void> {
    const { random, nodeValue } = this;
    const id = containerId();
    const cgroup = this.node.createContainer(pod.cgroup, id, '0');
    const container: Container = { cgroup, id, written: '0' };
    pod.containers.push(container);
    for (const value of random.pick([['0', nodeValue], [nodeValue], ['0', '0', nodeValue]])) {
      await wait(random.size(60));
      this.write(container, value);
    }
    if (random.chance(0.7)) {
      await wait(random.size(60));
      this.link(pod, container);
    }
  }

  private link(pod: Pod, container: Container): void {
    if (container.name === undefined) {
      container.name = this.random.pick(['a', 'b', 'a-b', 'a-b-a']);
      this.node.createLog(pod.metadata, container.name, container.id);
    }
  }

  private write(container: Container, value: string): void {
    container.written = value;
    this.node.write(container.cgroup, value);
  }

  /** What a container may say in the end. */
  private allowed(pod: Pod, { name, written }: Container): string[] {
    const mode = wantedMode(pod);
    if (pod.told && mode !== undefined) {
      const { overrides } = parseOverrides(pod.metadata.annotations?.[ANNOTATION]);
      // Where so much of the log's name was cut that no id is left, the name is not to be known.
      const { name: podName, namespace } = pod.metadata;
      const full = `${podName}_${namespace}_${name ?? ''}-`.length + 12 <= 251;
      return [(full && name !== undefined ? overrides.get(name) : undefined) ?? mode];
    }
    if (!this.everOptedIn.has(pod.cgroup)) {
      return [written];
    }
    return pod.leftFrom === this.agent ? [this.nodeValue, written] : ['0', '1'];
  }

  private wrong(): string[] {
    return this.pods.flatMap((pod) =>
      pod.containers
        .map((container) => ({ ...container, value: this.node.read(container.cgroup) }))
        .filter((container) => !this.allowed(pod, container).includes(container.value))
        .map(
          ({ id, name, value }) => `${pod.metadata.name} ${id.slice(0, 8)} ${name ?? '-'} ${value}`,
        ),
    );
  }

  private async check(): Promise<void> {
    // The very last word of the API server: a pod whose end state tells that all before was heard.
    const last = newPod('Single');
    const pod = this.node.createPod(last.uid);
    const cgroup = this.node.createContainer(pod, containerId(), '1');
    this.everOptedIn.add(pod);
    this.api.setPod(last);
    await eventually('the last pod', () => this.node.read(cgroup) === '0', this.agent);
    if (!this.api.knowsInitialEvents) {
      this.api.bookmark();
    }
    await eventually(
      'the right values',
      () => {
        const wrong = this.wrong();
        if (wrong.length > 0) {
          this.failure = wrong.join('\n');
        }
        return wrong.length === 0;
      },
      this.agent,
    );
    this.failure = undefined;
    await this.agent.ticks();
    const strange = this.node.strange(this.everOptedIn);
    const errors = this.agent.errors.replace(/^Killed\n/gm, '');
    const problems = [
      ...this.wrong().map((one) => `not for long: ${one}`),
      ...strange.map((path) => `written: ${path}`),
      ...(existsSync(this.trap) ? ['text was executed'] : []),
      // A shell says so of a child that was killed.
      ...(errors === '' ? [] : [`said: ${errors}`]),
      ...this.api.eventWrites
        .filter(({ status }) => status > 201)
        .map(({ status, event }) => `Event refused, ${status}: ${JSON.stringify(event)}`),
    ];
    if (problems.length > 0) {
      throw new Error(problems.join('\n'));
    }
  }
}

/** The value of a pod's own mode, or undefined if it is not opted in, whatever it says. */
function wantedMode({ metadata }: Pod): string | undefined {
  return valueOf(metadata.labels?.[LABEL]);
}

async function wait(milliseconds: number): Promise<void> {
  await new Promise((done) => setTimeout(done, milliseconds));
}
