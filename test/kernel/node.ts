import { randomBytes, randomUUID } from 'node:crypto';
import { dirname, join } from 'node:path';
import { Vm } from './vm';

/** Where the kubelet's cgroup driver puts a pod of each QoS class, and a container in it. */
const drivers = {
  systemd: {
    root: 'kubepods.slice',
    classes: {
      guaranteed: 'kubepods',
      burstable: 'kubepods-burstable.slice/kubepods-burstable',
      besteffort: 'kubepods-besteffort.slice/kubepods-besteffort',
    },
    pod: (prefix: string, uid: string) => `${prefix}-pod${uid.replaceAll('-', '_')}.slice`,
    container: (id: string) => `cri-containerd-${id}.scope`,
  },
  cgroupfs: {
    root: 'kubepods',
    classes: { guaranteed: '.', burstable: 'burstable', besteffort: 'besteffort' },
    pod: (prefix: string, uid: string) => `${prefix}/pod${uid}`,
    container: (id: string) => id,
  },
} as const;

/** What every container may, as the agent's has to mount what its DaemonSet mounts; a program gives it up itself. */
const CAPABILITIES = ['CAP_SETPCAP', 'CAP_SYS_ADMIN', 'CAP_SYS_CHROOT'];

const MIB = 2 ** 20;

/** The CPU weight of a pod that requests 250m. */
const WEIGHT = 10;
/** And of all pods: the guest has one CPU, where a node has some that the runtimes do not use. */
const WEIGHT_OF_PODS = 10000;

/** Seconds between two starts: twenty times those of a node that starts 20 containers a second. */
const PAUSE = 1;

export type Driver = keyof typeof drivers;
export type Runtime = 'runc' | 'crun';
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
  /** The memory.oom.group of the cgroup that its processes are in. */
  readonly file: string;
  /** What its processes and the shim printed. */
  readonly log: string;
}

export interface ContainerOptions {
  readonly name?: string;
  /** The limit, in MiB. */
  readonly memory?: number;
  /** The OOMPolicy of the container's scope, which later releases of runc set themselves. */
  readonly oomPolicy?: 'kill' | 'stop';
  /** The oom_score_adj of its first process. */
  readonly oomScoreAdj?: number;
  /** Without process numbers of its own. */
  readonly hostPid?: boolean;
  /** The program and its arguments, in which CGROUP stands for the cgroup that it is in. */
  readonly command: readonly string[];
}

export interface CgroupOptions {
  /** The limit, in MiB. */
  readonly memory?: number;
  readonly weight?: number;
}

/** The unit whose cgroup this is. */
export const unit = (cgroup: string) => cgroup.slice(cgroup.lastIndexOf('/') + 1);

/** What a kubelet and containerd do for pods: their cgroups, the runtime's configuration, and the links to their logs. */
export class Node {
  /** What starts containers. */
  runtime: Runtime = 'runc';
  private readonly layout;
  private readonly root: string;

  constructor(
    private readonly vm: Vm,
    private readonly driver: Driver,
  ) {
    this.layout = drivers[driver];
    this.root = `/sys/fs/cgroup/${this.layout.root}`;
  }

  /** The command line of the runtime for a container, without what it is to do. */
  private command(id: string): string {
    const driver = this.driver === 'systemd' ? ' --systemd-cgroup' : '';
    return `${this.runtime} --log /run/bundles/${id}/log${driver}`;
  }

  /** Makes the kubepods root and the QoS classes. */
  async prepare(): Promise<void> {
    if (this.driver === 'systemd') {
      const { burstable, besteffort } = this.layout.classes;
      const slices = [
        this.makeSlice(this.layout.root, { weight: WEIGHT_OF_PODS }),
        ...[burstable, besteffort].map((path) => this.makeSlice(dirname(path), {})),
      ];
      await this.vm.sh(slices.join('\n'));
      return;
    }
    const paths = [
      '/sys/fs/cgroup',
      ...['', '/burstable', '/besteffort'].map((path) => this.root + path),
    ];
    await this.vm.sh(`
      for path in ${paths.join(' ')}; do
        mkdir -p $path
        echo +cpu +memory >$path/cgroup.subtree_control
      done
      echo ${WEIGHT_OF_PODS} >${this.root}/cpu.weight`);
  }

  /** A pod as the API server knows it, before the kubelet does anything. */
  pod(name: string, qos: Qos = 'burstable'): Pod {
    const uid = randomUUID();
    const cgroup = join(this.root, this.layout.pod(this.layout.classes[qos], uid));
    return { uid, name, namespace: 'default', cgroup };
  }

  /** Makes the pods' cgroups and their sandboxes. */
  async create(pods: Pod[], options: CgroupOptions = {}): Promise<void> {
    const sandboxes = pods.map((pod) => this.container(pod));
    const scripts = sandboxes.map((sandbox) => [
      this.makeCgroup(sandbox.pod, options),
      this.launch(sandbox, { command: ['sleep', '100000'] }, true),
    ]);
    await this.vm.sh(scripts.flat().join('\n'));
    await this.started(sandboxes);
  }

  /** The commands that make a pod's cgroup, as the kubelet does it. */
  private makeCgroup({ cgroup }: Pod, options: CgroupOptions): string {
    if (this.driver === 'systemd') {
      return this.makeSlice(unit(cgroup), options);
    }
    const { memory, weight = WEIGHT } = options;
    return `
      mkdir -p ${cgroup}
      echo +cpu +memory >${cgroup}/cgroup.subtree_control
      echo ${weight} >${cgroup}/cpu.weight
      echo ${memory === undefined ? 'max' : memory * MIB} >${cgroup}/memory.max`;
  }

  private makeSlice(name: string, { memory, weight = WEIGHT }: CgroupOptions): string {
    const properties = [
      `CPUWeight t ${weight}`,
      ...(memory === undefined ? [] : [`MemoryMax t ${memory * MIB}`]),
    ];
    const systemd =
      'org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager';
    return `
      busctl -q call ${systemd} StartTransientUnit 'ssa(sv)a(sa(sv))' ${name} replace \
        ${properties.length} ${properties.join(' ')} 0`;
  }

  /**
   * Makes the cgroups of containers without processes, as many in each of the pods, as fast as it can,
   * and the pods' own, with their sandboxes, if need be. For the cgroupfs driver.
   */
  async createEmpty(pods: Pod[], count: number): Promise<Container[]> {
    const sandboxes = pods.map((pod) => this.container(pod));
    const containers = pods.flatMap((pod) =>
      Array.from({ length: count }, () => this.container(pod)),
    );
    await this.vm.sh(`
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
    await this.vm.sh(`
      for pod in ${pods.map(({ cgroup }) => cgroup).join(' ')}; do
        rmdir $pod/*/ $pod
      done`);
  }

  /** Ends all processes of the pods and removes their cgroups. */
  async remove(pods: Pod[]): Promise<void> {
    const cgroups = pods.map(({ cgroup }) => cgroup);
    const links = pods.map(({ name, namespace }) => `/var/log/containers/${name}_${namespace}_*`);
    // The runtimes remove those of the containers.
    await this.vm.sh(`
      rm -f ${links.join(' ')}
      for pod in ${cgroups.join(' ')}; do
        echo 1 >$pod/cgroup.kill
        until ! ls -d $pod/*/ 2>/dev/null; do sleep 0.05; done
      done
      ${this.driver === 'systemd' ? `systemctl stop ${cgroups.map(unit).join(' ')}` : `rmdir ${cgroups.join(' ')}`}`);
  }

  /** Starts a container in each of the pods at once, as a kubelet does: at the pace of a node, twenty times slower. */
  async start(pods: Pod[], options: ContainerOptions): Promise<Container[]> {
    const containers = pods.map((pod) => this.container(pod));
    const commands = containers.map((container) => this.launch(container, options));
    await this.vm.sh(commands.join(`\nsleep ${PAUSE}`));
    await this.started(containers);
    return containers;
  }

  /** The limit of a container, in place: with what containerd hands on of a resize. */
  async resize({ id }: Container, memory: number): Promise<void> {
    const resources = { memory: { limit: memory * MIB }, unified: { 'memory.oom.group': '1' } };
    await this.vm.sh(`
      echo '${JSON.stringify(resources)}' >/run/resources
      ${this.command(id)} update --resources /run/resources ${id}`);
  }

  /** The OOMPolicy of a container's scope, as systemd has it. */
  oomPolicy({ cgroup }: Container): Promise<string> {
    return this.vm.sh(`systemctl show --value -p OOMPolicy ${unit(cgroup)}`);
  }

  /** Waits until systemd has ended the scope of a container, and all in it, because of an OOM kill. */
  async isEndedBySystemd({ cgroup }: Container): Promise<void> {
    await this.vm.until(`dmesg | grep -F "${unit(cgroup)}: Failed with result 'oom-kill'"`);
  }

  private container(pod: Pod): Container {
    const id = randomBytes(32).toString('hex');
    const cgroup = `${pod.cgroup}/${this.layout.container(id)}`;
    // crun has a child of the scope for the processes.
    const inner =
      this.driver === 'systemd' && this.runtime === 'crun' ? `${cgroup}/container` : cgroup;
    return { id, pod, cgroup, file: `${inner}/memory.oom.group`, log: `/run/${id}.log` };
  }

  /** The commands that start a container. A sandbox has no name, and the kubelet sets no memory.oom.group for it. */
  private launch(container: Container, options: ContainerOptions, sandbox = false): string {
    const { id, log } = container;
    const { name: pod, namespace, uid } = container.pod;
    const { name = 'main' } = options;
    const bundle = `/run/bundles/${id}`;
    const link = `/var/log/containers/${pod}_${namespace}_${name}-${id}.log`;
    const target = `/var/log/pods/${namespace}_${pod}_${uid}/${name}/0.log`;
    return `
      mkdir -p ${bundle}
      cat >${bundle}/config.json <<'END'
      ${JSON.stringify(this.config(container, options, sandbox))}
END
      shim ${sandbox ? '' : `-l ${link} ${target}`} ${bundle} ${id} ${this.command(id)} >${log} 2>&1 &`;
  }

  /** The configuration of a runtime, as containerd makes it for a kubelet; all have the root file system of the tests. */
  private config(
    { id, pod, cgroup, file }: Container,
    { command, memory, oomPolicy, oomScoreAdj, hostPid }: ContainerOptions,
    sandbox: boolean,
  ) {
    const systemd = this.driver === 'systemd';
    const shared = ['/sys/fs/cgroup', '/var/log/containers', ...(systemd ? ['/run/systemd'] : [])];
    const bind = { type: 'bind', options: ['bind'] };
    return {
      ociVersion: '1.0.2',
      root: { path: '/image' },
      process: {
        args: command.map((word) => word.replaceAll('CGROUP', dirname(file))),
        cwd: '/',
        env: ['PATH=/bin:/usr/bin'],
        user: { uid: 0, gid: 0 },
        oomScoreAdj,
        capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
      },
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' },
        { destination: '/dev', type: 'tmpfs', source: 'tmpfs' },
        ...shared.map((path) => ({ destination: path, source: path, ...bind })),
      ],
      annotations: systemd
        ? {
            'org.systemd.property.TimeoutStopUSec': 'uint64 2000000',
            ...(oomPolicy ? { 'org.systemd.property.OOMPolicy': `'${oomPolicy}'` } : {}),
          }
        : {},
      linux: {
        cgroupsPath: systemd
          ? `${unit(pod.cgroup)}:cri-containerd:${id}`
          : cgroup.slice('/sys/fs/cgroup'.length),
        resources: {
          memory: memory === undefined ? {} : { limit: memory * MIB },
          unified: sandbox ? {} : { 'memory.oom.group': '1' },
        },
        namespaces: [...(hostPid ? [] : ['pid']), 'mount', 'ipc', 'cgroup'].map((type) => ({
          type,
        })),
      },
    };
  }

  private async started(containers: Container[]): Promise<void> {
    const logs = containers.map(({ log }) => log).join(' ');
    const count = `$(grep -lE '^(started|shim:)' ${logs} | wc -l)`;
    await this.vm.until(`[ "${count}" = ${containers.length} ]`);
    await this.vm.sh(`! grep -h -B 3 '^shim:' ${logs}`);
  }
}
