import { randomBytes, randomUUID } from 'node:crypto';
import { Vm } from './vm';

/** Where the kubelet's cgroup driver puts a pod of each QoS class, and a container in it. */
export const drivers = {
  systemd: {
    root: 'kubepods.slice',
    classes: {
      guaranteed: 'kubepods',
      burstable: 'kubepods-burstable.slice/kubepods-burstable',
      besteffort: 'kubepods-besteffort.slice/kubepods-besteffort',
    },
    pod: (prefix: string, uid: string) => `${prefix}-pod${uid.replaceAll('-', '_')}.slice`,
    container: (id: string) => `cri-containerd-${id}.scope`,
    // When runc-standin's steps are on a real node, ten times slower as the guest is, in milliseconds.
    times: [26, 348, 368, 680],
  },
  cgroupfs: {
    root: 'kubepods',
    classes: { guaranteed: '.', burstable: 'burstable', besteffort: 'besteffort' },
    pod: (prefix: string, uid: string) => `${prefix}/pod${uid}`,
    container: (id: string) => id,
    times: [26, 348, 755, 930],
  },
} as const;

// Seconds between two starts, and until the kubelet makes the link to the log of one: ten times those of a
// node that starts 20 containers a second.
const PAUSE = 0.5;
const LINK = 0.75;

export type Driver = keyof typeof drivers;
export type Qos = 'guaranteed' | 'burstable' | 'besteffort';

export interface Pod {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly cgroup: string;
}

export interface Container {
  readonly id: string;
  readonly pod: Pod;
  readonly cgroup: string;
  /** The container's memory.oom.group. */
  readonly file: string;
  /** What its processes and runc-standin printed. */
  readonly log: string;
}

export interface ContainerOptions {
  readonly name?: string;
  readonly memory?: string;
  /** As crun has it: the processes, the limit and the mode are in a child of the container's cgroup. */
  readonly crun?: boolean;
  /** The OOMPolicy of the container's scope, on a node with the real systemd. */
  readonly oomPolicy?: 'kill' | 'stop';
  /** Without process numbers of its own. */
  readonly hostPid?: boolean;
  /** The program, in which CGROUP stands for the container's cgroup. */
  readonly command: string;
}

/** The part of a kubelet that makes pods: their cgroups, and the links to their logs. */
export class Node {
  /** The processes that this class wrote to cgroups with. */
  readonly ours = new Set<string>();
  /** The program that starts a container. */
  protected readonly runtime: string = 'runc-standin';
  private readonly driver;
  private readonly root: string;

  constructor(
    protected readonly vm: Vm,
    driver: Driver,
  ) {
    this.driver = drivers[driver];
    this.root = `/sys/fs/cgroup/${this.driver.root}`;
  }

  private get times(): string {
    return this.driver.times.join(',');
  }

  /** Makes the kubepods root and the QoS classes. */
  async prepare(): Promise<void> {
    const classes = Object.values(this.driver.classes).map((path) => path.split('/')[0] ?? '');
    const directories = ['', ...classes.filter((path) => /burstable|besteffort/.test(path))];
    await this.write(
      ['/sys/fs/cgroup', ...directories.map((path) => `${this.root}/${path}`)]
        .map((path) => `mkdir -p ${path}; echo +cpu +memory >${path}/cgroup.subtree_control`)
        .join('\n'),
    );
  }

  /** A pod as the API server knows it, before the kubelet does anything. */
  pod(name: string, qos: Qos = 'burstable'): Pod {
    const uid = randomUUID();
    const cgroup = `${this.root}/${this.driver.pod(this.driver.classes[qos], uid)}`;
    return { uid, name, namespace: 'default', cgroup };
  }

  /** Makes the pods' cgroups, with the CPU weight of a request of 250m, and their sandboxes. */
  async create(pods: Pod[], memory = 'max'): Promise<void> {
    const sandboxes = pods.map((pod) => this.container(pod));
    await this.write(
      sandboxes
        .map(
          ({ pod, cgroup, log }) => `
            ${this.makeCgroup(pod, memory)}
            ${this.runtime} -s -t ${this.times} ${cgroup} sleep 100000 >${log} 2>&1 &
            echo $!
            sleep ${PAUSE / 5}`,
        )
        .join('\n'),
    );
    await this.started(sandboxes);
  }

  /** The commands that make a pod's cgroup. */
  protected makeCgroup({ cgroup }: Pod, memory: string): string {
    return `
      mkdir -p ${cgroup}
      echo +cpu +memory >${cgroup}/cgroup.subtree_control
      echo 10 >${cgroup}/cpu.weight
      echo ${memory} >${cgroup}/memory.max`;
  }

  /**
   * Makes the cgroups of containers without processes, as many in each of the pods, as fast as it can,
   * and the pods' own, with their sandboxes, if need be.
   */
  async createEmpty(pods: Pod[], count: number): Promise<Container[]> {
    const sandboxes = pods.map((pod) => this.container(pod));
    const containers = pods.flatMap((pod) =>
      Array.from({ length: count }, () => this.container(pod)),
    );
    await this.write(`
      for sandbox in ${sandboxes.map(({ cgroup }) => cgroup).join(' ')}; do
        if ! [ -e \${sandbox%/*} ]; then
          mkdir -p $sandbox
          echo +cpu +memory >\${sandbox%/*}/cgroup.subtree_control
        fi
      done
      mkdir ${containers.map(({ cgroup }) => cgroup).join(' ')}
      for file in ${containers.map(({ file }) => file).join(' ')}; do
        echo 1 >$file
      done`);
    return containers;
  }

  /** Removes what createEmpty made, the pods' own cgroups included. */
  async removeEmpty(pods: Pod[]): Promise<void> {
    await this.write(`
      for pod in ${pods.map(({ cgroup }) => cgroup).join(' ')}; do
        rmdir $pod/*/ $pod
      done`);
  }

  /** Ends all processes of the pods and removes their cgroups. */
  async remove(pods: Pod[]): Promise<void> {
    const cgroups = pods.map(({ cgroup }) => cgroup).join(' ');
    await this.write(`
      for pod in ${cgroups}; do
        echo 1 >$pod/cgroup.kill
      done
      until rmdir ${cgroups} 2>/dev/null; do
        sleep 0.02
        for pod in ${cgroups}; do ! [ -e $pod ] || continue 2; done
        break
      done`);
  }

  /** Starts a container in each of the pods, one after the other. */
  async start(pods: Pod[], options: ContainerOptions): Promise<Container[]> {
    const { name = 'main', memory = 'max', command, crun, oomPolicy, hostPid } = options;
    const policy = oomPolicy ? `-o ${oomPolicy}` : '';
    const flags = `${crun ? '-c' : ''} ${hostPid ? '-p' : ''} ${policy} -m ${memory}`;
    const containers = pods.map((pod) => this.container(pod));
    // The kubelet makes the link to the log once the container has started.
    await this.write(
      containers
        .map(({ id, pod, cgroup, log }) => {
          const { namespace, name: podName, uid } = pod;
          const program = command.replaceAll('CGROUP', cgroup);
          const target = `/var/log/pods/${namespace}_${podName}_${uid}/${name}/0.log`;
          const link = `/var/log/containers/${podName}_${namespace}_${name}-${id}.log`;
          return `
            ${this.runtime} ${flags} -t ${this.times} ${cgroup} ${program} >${log} 2>&1 &
            echo $!
            (sleep ${LINK}; ln -s ${target} ${link}) >/dev/null 2>&1 &
            sleep ${PAUSE}`;
        })
        .join('\n'),
    );
    await this.started(containers);
    return containers;
  }

  private container(pod: Pod): Container {
    const id = randomBytes(32).toString('hex');
    const cgroup = `${pod.cgroup}/${this.driver.container(id)}`;
    return { id, pod, cgroup, file: `${cgroup}/memory.oom.group`, log: `/run/${id}.log` };
  }

  private async started(containers: Container[]): Promise<void> {
    const logs = containers.map(({ log }) => log).join(' ');
    await this.vm.until(`[ "$(grep -l '^started' ${logs} | wc -l)" = ${containers.length} ]`);
  }

  /** Runs a script that writes to cgroups, and remembers its processes. */
  async write(script: string): Promise<void> {
    const pids = await this.vm.sh(`echo $$\n${script}`);
    for (const pid of pids.split('\n')) {
      this.ours.add(pid);
    }
  }
}
