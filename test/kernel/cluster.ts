import { dirname } from 'node:path';
import { LogLine, parseLog } from '../support/agent';
import { EventObject, FakeApiServer } from '../support/api-server';
import { CgroupOptions, Container, ContainerOptions, Driver, Node, Pod, Qos } from './node';
import { COUNTING, PATIENCE, Vm } from './vm';

const MODE = 'cdk8s-oom-kill-mode/mode';
const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';
const RUN_DIR = '/run/oom-kill-mode';
const ENDED = '^exited [0-9]*$\\|^killed [0-9]*$';

/** The probes of the DaemonSet. */
export const STARTUP_PROBE = `sh -c 'until test -e ${RUN_DIR}/ready; do sleep 1; done'`;
export const LIVENESS_PROBE = `rm ${RUN_DIR}/alive`;

/** What is in containers that do nothing, and in those that are killed for memory all the time. */
export const SLEEP = { command: ['sleep', '100000'] };
export const HOG = { command: ['hog', '2'], memory: 32 };

interface PodOptions extends CgroupOptions {
  readonly mode?: string;
  readonly annotations?: Record<string, string>;
  readonly qos?: Qos;
}

interface Access {
  readonly actions: string[];
  readonly path: string;
}

/** An API server, a virtual machine with a node, and the agent that belongs to them. */
export class Cluster {
  /** With the systemd driver, the systemd of the release is process 1. */
  static async boot(driver: Driver, release: string, more: string[] = []): Promise<Cluster> {
    // Its certificate must not begin after the clock of the guest, which has that of its boot.
    const api = await FakeApiServer.start();
    const vm = await Vm.boot(more, COUNTING, { release, systemd: driver === 'systemd' });
    await vm.sh(`
      mkdir -p /image${SERVICE_ACCOUNT}
      echo '${api.token}' >/image${SERVICE_ACCOUNT}/token
      echo '${api.caPem}' >/image${SERVICE_ACCOUNT}/ca.crt`);
    const node = new Node(vm, driver);
    await node.prepare();
    return new Cluster(api, vm, node);
  }

  /** All pods that ever opted in. */
  readonly optedIn: Pod[] = [];
  private running: Container | undefined;
  // As an API server does once a minute, that of the guest's clock.
  private readonly bookmarks = setInterval(() => {
    this.api.bookmark();
  }, 20_000);

  private constructor(
    readonly api: FakeApiServer,
    readonly vm: Vm,
    readonly node: Node,
  ) {}

  get agent(): Container {
    return required(this.running, 'agent');
  }

  /** Ends everything; throws if an agent logged what docs/monitoring.md does not say. */
  async stop(): Promise<void> {
    clearInterval(this.bookmarks);
    try {
      await this.stopAgent();
    } finally {
      await this.vm.stop();
      await this.api.stop();
    }
  }

  /** What the guest has to say about a failure. */
  async report(): Promise<string> {
    const log = this.running
      ? (await this.vm.run(`tail -n 60 ${this.running.log}`)).output
      : 'not started';
    return `The agent's log:\n${log}\nThe guest's console:\n${this.vm.console}`;
  }

  /** Pods that nobody made yet; the API server tells the agent of those with a mode. */
  async announce(names: string[], { mode, annotations, qos }: PodOptions = {}): Promise<Pod[]> {
    const classes: Qos[] = qos ? [qos] : ['burstable', 'besteffort', 'guaranteed'];
    const pods = names.map((name, i) =>
      this.node.pod(name, classes[i % classes.length] ?? 'burstable'),
    );
    if (mode !== undefined) {
      pods.forEach((pod) => {
        this.opt(pod, mode, annotations);
      });
      if (this.running) {
        const { log } = this.running;
        // The API server and the network are the host's, which is as slow as it likes.
        await this.vm.until(names.map((name) => `grep -q '"default/${name}"' ${log}`).join(' && '));
      }
    }
    return pods;
  }

  /** Gives a pod a mode, as the API server tells it. */
  opt(pod: Pod, mode: string, annotations?: Record<string, string>): void {
    const { uid, name, namespace } = pod;
    this.api.setPod({ uid, name, namespace, labels: { [MODE]: mode }, annotations });
    this.optedIn.push(pod);
  }

  /** Creates pods with their sandboxes. */
  async makePods(names: string[], options: PodOptions = {}): Promise<Pod[]> {
    const pods = await this.announce(names, options);
    await this.node.create(pods, options);
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

  /** A pod with one container. */
  async run(
    name: string,
    pod: PodOptions,
    container: ContainerOptions = SLEEP,
  ): Promise<Container> {
    return this.start(await this.makePod(name, pod), container);
  }

  async removePods(pods: Pod[]): Promise<void> {
    // The kubelet removes the cgroup of a pod before the pod goes from the API.
    await this.node.remove(pods);
    pods.forEach(({ uid }) => {
      this.api.deletePod(uid);
    });
  }

  /** Stops the processes of a pod, so that none of them is killed for memory until it is removed. */
  async freeze({ cgroup }: Pod): Promise<void> {
    await this.vm.sh(`
      echo 1 >${cgroup}/cgroup.freeze
      until grep 'frozen 1' ${cgroup}/cgroup.events; do sleep 0.1; done`);
  }

  value({ file }: Container): Promise<string> {
    return this.vm.sh(`cat ${file}`);
  }

  /** Waits until all of the containers have this value. */
  async become(containers: Container[], mode: string): Promise<void> {
    const files = containers.map(({ file }) => file).join(' ');
    await this.vm.until(`[ "$(cat ${files} | grep -cx ${mode})" = ${containers.length} ]`);
  }

  /** Somebody else writes the other value: waits until the agent has written the wanted one. */
  async drift(containers: Container[], wanted: string): Promise<void> {
    const other = 1 - Number(wanted);
    await this.vm.sh(containers.map(({ file }) => `echo ${other} >${file}`).join('\n'));
    await this.become(containers, wanted);
  }

  /** What the first instructions of containers see: one started in each of the pods. */
  async firstModes(pods: Pod[]): Promise<string[]> {
    const command = ['print-mode', 'CGROUP/memory.oom.group'];
    const containers = await this.node.start(pods, { command });
    const logs = containers.map(({ log }) => log).join(' ');
    await this.vm.until(`[ $(grep -l '^exited 0$' ${logs} | wc -l) = ${containers.length} ]`);
    return (await this.vm.sh(`grep -h '^[01]$' ${logs}`)).split('\n');
  }

  /** The number of process 1 of a container, as the guest has it. */
  processOne({ log }: Container): Promise<string> {
    return this.vm.sh(`sed -n 's/^started //p' ${log}`);
  }

  /** How many of its processes the kernel has killed for memory. */
  async kills({ cgroup }: Container): Promise<number> {
    const count = `awk '$1 == "oom_kill" { print $2 }' ${cgroup}/memory.events`;
    return Number(await this.vm.sh(count));
  }

  /** Process 1 is the one that was started. */
  async keepsProcessOne(container: Container): Promise<void> {
    const main = await this.processOne(container);
    expect(await this.vm.sh(`cat ${container.cgroup}/cgroup.procs`)).toMatch(
      new RegExp(`^${main}$`, 'm'),
    );
  }

  /** Waits until the agent has at most six processes and 8 MiB. What it does at a tick is over in a moment. */
  async isAtRest(): Promise<void> {
    const { cgroup } = this.agent;
    await this.vm.until(
      `[ $(wc -l <${cgroup}/cgroup.procs) -le 6 ] && [ $(cat ${cgroup}/memory.current) -le ${8 << 20} ]`,
    );
  }

  async isKilled({ cgroup, log }: Container): Promise<void> {
    await this.vm.until(`grep '^killed 9$' ${log} && ! [ -e ${cgroup} ]`);
  }

  /** Waits until the children of the container's hog died this many times; nothing else did. */
  async survives({ log }: Container, kills: number): Promise<void> {
    await this.vm.until(`grep -E 'child died ${kills}$|killed|exited' ${log}`);
    expect(await this.vm.sh(`cat ${log}`)).not.toMatch(/killed|exited/);
  }

  /** Starts the agent as its DaemonSet does, and waits for its startup probe; one before it is ended. */
  async startAgent(more: Record<string, string> = {}): Promise<void> {
    await this.launchAgent(more);
    await this.vm.sh(await this.probe(STARTUP_PROBE));
  }

  /**
   * The same without the wait. It requests 100m CPU. Its limit, 250m, is a quarter of a node's CPU, which
   * is more than there is in the guest: ten times slower is also its pause between looks at new containers.
   */
  async launchAgent(more: Record<string, string> = {}): Promise<void> {
    await this.stopAgent();
    const pod = await this.makePod('agent', { weight: 4 });
    const environment = {
      NODE_NAME: 'node-1',
      POD_UID: pod.uid,
      KUBERNETES_SERVICE_HOST: '10.0.2.2',
      KUBERNETES_SERVICE_PORT: String(this.api.port),
      LOG_LEVEL: 'debug',
      EVENTS: 'yes',
      METRICS: 'yes',
      EXAMINE_SECONDS: '0.1',
      ...more,
    };
    const words = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
    const command = ['env', ...words, 'sh', '/agent-container.sh'];
    this.running = await this.start(pod, { name: 'agent', command });
  }

  /** Ends the agent, if it has not ended, and reads every line of its log. */
  async stopAgent(): Promise<void> {
    if (this.running) {
      const { log } = this.running;
      await this.vm.run(`kill -TERM ${await this.processOne(this.running)}`);
      await this.vm.until(`grep -q '${ENDED}' ${log}`);
      await this.log();
      this.running = undefined;
    }
  }

  /** A command in the guest that a kubelet would run as a probe of the agent: in its container. */
  async probe(command: string): Promise<string> {
    const enter = `nsenter -t ${await this.processOne(this.agent)} -m -p -r`;
    return `(echo 0 >${dirname(this.agent.file)}/cgroup.procs; exec ${enter} ${command})`;
  }

  /** Starts the witness, for `witnessed`. */
  async watch(): Promise<void> {
    await this.vm.sh('witness /sys/fs/cgroup >/run/witness 2>&1 &');
    await this.vm.until('grep watching /run/witness');
  }

  /** Who opened and closed which files of cgroups: what the witness saw on the mount of the agent, or on the node's. */
  async witnessed(whose: 'agent' | 'node'): Promise<Access[]> {
    const mount = { agent: '/agent-root/host/cgroup', node: '/sys/fs/cgroup' }[whose];
    const { output } = await this.vm.run(`grep -F ' ${mount}/kubepods' /run/witness`);
    return output
      .trimEnd()
      .split('\n')
      .map((line) => {
        const actions = line.split(' ');
        const path = (actions.pop() ?? '').replace(mount, '/sys/fs/cgroup');
        return { actions, path };
      });
  }

  /** Runs a script in the mounts of the agent, without being it. */
  async inMounts(script: string): Promise<string> {
    const pid = await this.processOne(this.agent);
    return this.vm.sh(`nsenter -t ${pid} -m -p sh -eu <<'END'\n${script}\nEND`);
  }

  /** The agent's metrics. */
  async metrics(): Promise<string> {
    return this.inMounts(`cat /agent-root${RUN_DIR}/metrics/oom_kill_mode.prom`);
  }

  /** The agent's log; throws if a line, or a complaint of some program, is not as it should be. */
  async log(): Promise<LogLine[]> {
    // The shim's own lines are in the same file.
    const text = await this.vm.sh(`grep -v '^started [0-9]*$\\|${ENDED}' ${this.agent.log} || :`);
    return text === '' ? [] : parseLog(`${text}\n`);
  }

  /** Waits until the agent has logged such a line this many times. */
  async logs(is: (line: LogLine) => boolean, times = 1): Promise<LogLine[]> {
    let found: LogLine[] = [];
    await this.eventually(`the agent's log: ${is.toString()}`, async () => {
      found = (await this.log()).filter(is);
      return found.length >= times;
    });
    return found;
  }

  events(name: string): EventObject[] {
    return [...this.api.events.values()].filter((event) => event.involvedObject.name === name);
  }

  /** Waits until there is an Event that names a condition. */
  async conditionEvent(name: string, condition: string): Promise<void> {
    await this.eventually(`the Event of ${condition}`, () =>
      this.events(name).some(({ message }) => message.endsWith(`Condition: ${condition}`)),
    );
  }

  async eventually(
    what: string,
    is: () => boolean | Promise<boolean>,
    seconds = PATIENCE,
  ): Promise<void> {
    const end = Date.now() + seconds * 1000;
    while (!(await is())) {
      if (Date.now() > end) {
        throw new Error(`not within ${seconds} s: ${what}`);
      }
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
}

/** Makes `test` show the guest's side of a failure. */
export function testIn(cluster: () => Cluster): (name: string, run: () => Promise<void>) => void {
  return (name, run) => {
    test(name, async () => {
      try {
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
