import { parseLog } from '../support/agent';
import { FakeApiServer } from '../support/api-server';
import { Container, ContainerOptions, Driver, Node, Pod, Qos } from './node';
import { Vm } from './vm';

const MODE = 'cdk8s-oom-kill-mode/mode';
const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

/** A program whose first instruction prints the mode of its container. */
export const PRINT_MODE = { command: 'print-mode CGROUP/memory.oom.group' };

export interface PodOptions {
  readonly mode?: string;
  readonly annotations?: Record<string, string>;
  readonly qos?: Qos;
  readonly memory?: string;
}

/** An API server and a virtual machine with the node, and the agent, that belong to it. */
export class Cluster {
  /** Boots, with more programs in the guest if there are any. */
  static async boot(more: string[] = []): Promise<Cluster> {
    const api = await FakeApiServer.start();
    const vm = await Vm.boot(more);
    await vm.measure();
    await vm.sh(`
      mkdir -p ${SERVICE_ACCOUNT}
      echo '${api.token}' >${SERVICE_ACCOUNT}/token
      echo '${api.caPem}' >${SERVICE_ACCOUNT}/ca.crt`);
    return new Cluster(api, vm);
  }

  readonly optedIn: Pod[] = [];
  private current: Node | undefined;
  private running: Container | undefined;

  private constructor(
    readonly api: FakeApiServer,
    readonly vm: Vm,
  ) {}

  get node(): Node {
    return required(this.current, 'node');
  }

  get agent(): Container {
    return required(this.running, 'agent');
  }

  /** Makes the node another one: there is nothing in its cgroups. */
  async prepare(driver: Driver): Promise<void> {
    this.current = new Node(this.vm, driver);
    await this.current.prepare();
  }

  /** Ends everything; throws if an agent logged what docs/monitoring.md does not say. */
  async stop(): Promise<void> {
    try {
      await this.checkLog();
    } finally {
      await this.vm.stop();
      await this.api.stop();
    }
  }

  /** Ends the agent, if it has not ended, and reads every line of its log. */
  private async checkLog(): Promise<void> {
    const agent = this.running;
    if (agent === undefined) {
      return;
    }
    this.running = undefined;
    const ended = '^exited [0-9]*$\\|^killed [0-9]*$';
    await this.vm.run(`kill -TERM ${await this.processOne(agent)}`);
    await this.vm.until(`grep -q '${ended}' ${agent.log}`, 10_000);
    // runc-standin's own lines are in the same file.
    parseLog(await this.vm.sh(`grep -v '^started [0-9]*$\\|${ended}' ${agent.log} || :`));
  }

  /** What the guest has to say about a failure. */
  async report(): Promise<string> {
    const log = this.running
      ? (await this.vm.run(`tail -n 40 ${this.running.log}`)).output
      : 'not started';
    const pace = `The guest was ${this.vm.slowness.toFixed(1)} times as slow as usual when the test began.`;
    return `${pace}\nThe agent's log:\n${log}\nThe guest's console:\n${this.vm.console}`;
  }

  /** Pods that nobody made yet; the API server tells the agent of those with a mode. */
  announce(names: string[], { mode, annotations, qos }: PodOptions = {}): Pod[] {
    const classes: Qos[] = qos ? [qos] : ['burstable', 'besteffort', 'guaranteed'];
    const pods = names.map((name, i) => this.node.pod(name, classes[i % classes.length]));
    if (mode !== undefined) {
      pods.forEach((pod) => {
        this.opt(pod, mode, annotations);
      });
      this.optedIn.push(...pods);
    }
    return pods;
  }

  /** Gives a pod a mode, as the API server tells it. */
  opt({ uid, name, namespace }: Pod, mode: string, annotations?: Record<string, string>): void {
    this.api.setPod({ uid, name, namespace, labels: { [MODE]: mode }, annotations });
  }

  /** Creates pods, all at once: the API server tells the agent when it tells the kubelet. */
  async makePods(names: string[], options: PodOptions = {}): Promise<Pod[]> {
    const pods = this.announce(names, options);
    await this.node.create(pods, options.memory);
    return pods;
  }

  async makePod(name: string, options?: PodOptions): Promise<Pod> {
    const [pod] = await this.makePods([name], options);
    return required(pod, `pod ${name}`);
  }

  async start(pod: Pod, options: ContainerOptions): Promise<Container> {
    const [container] = await this.node.start([pod], options);
    return required(container, `container in ${pod.name}`);
  }

  async removePods(pods: Pod[]): Promise<void> {
    pods.forEach(({ uid }) => {
      this.api.deletePod(uid);
    });
    await this.node.remove(pods);
  }

  value(container: Container): Promise<string> {
    return this.vm.sh(`cat ${container.file}`);
  }

  becomes(container: Container, mode: string, timeoutMs = 5_000): Promise<boolean> {
    return this.vm.until(`[ "$(cat ${container.file})" = ${mode} ]`, timeoutMs);
  }

  /** The first instructions of containers that print them: one started in each of the pods. */
  async firstModes(pods: Pod[]): Promise<{ modes: string[]; containers: Container[] }> {
    const containers = await this.node.start(pods, PRINT_MODE);
    const logs = containers.map(({ log }) => log).join(' ');
    const ended = `[ $(grep -l '^exited 0$' ${logs} | wc -l) = ${containers.length} ]`;
    expect(await this.vm.until(ended, 20_000)).toBe(true);
    return { modes: (await this.vm.sh(`grep -h '^[01]$' ${logs}`)).split('\n'), containers };
  }

  /** The agent's CPU limit: what it can do with it is the same on a host that is slow. */
  private get quota(): number {
    return Math.round(25_000 * this.vm.slowness);
  }

  /** Measures how slow the guest is at the moment, and gives the agent its limit accordingly. */
  async measure(): Promise<void> {
    await this.vm.measure();
    if (this.running) {
      await this.node.write(`echo ${this.quota} 100000 >${this.running.pod.cgroup}/cpu.max`);
    }
  }

  processOne(container: Container): Promise<string> {
    return this.vm.sh(`sed -n 's/^started //p' ${container.log}`);
  }

  /**
   * Starts the agent as its DaemonSet does: requests 100m, limit 250m, no privileges, Events. One before it
   * is ended, and every line of its log is read.
   */
  async startAgent(more: Record<string, string> = {}, seconds = 20): Promise<void> {
    await this.checkLog();
    const pod = await this.makePod('agent');
    await this.node.write(`
      echo 4 >${pod.cgroup}/cpu.weight
      echo ${this.quota} 100000 >${pod.cgroup}/cpu.max`);
    const environment = {
      NODE_NAME: 'node-1',
      POD_UID: pod.uid,
      KUBERNETES_SERVICE_HOST: '10.0.2.2',
      KUBERNETES_SERVICE_PORT: String(this.api.port),
      LOG_LEVEL: 'debug',
      EVENTS: 'yes',
      ...more,
    };
    const words = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
    this.running = await this.start(pod, {
      command: `env ${words.join(' ')} sh /agent-container.sh`,
    });
    const pid = await this.processOne(this.running);
    const ready = `nsenter -t ${pid} -m -p -r sh /agent/agent.sh ready`;
    expect(await this.vm.until(ready, seconds * 1000)).toBe(true);
  }
}

/** Makes `test` measure how slow the guest is, and show its side of a failure. */
export function testIn(cluster: () => Cluster): (name: string, run: () => Promise<void>) => void {
  return (name, run) => {
    test(name, async () => {
      try {
        await cluster().measure();
        await run();
      } catch (error) {
        console.error(await cluster().report());
        throw error;
      }
    });
  };
}

function required<T>(value: T | undefined, what: string): T {
  if (value === undefined) {
    throw new Error(`no ${what}`);
  }
  return value;
}
