import { Container, Node, Pod } from './node';
import { Vm } from './vm';

/** A node with the real systemd and runc, which make and remove all cgroups. */
export class RealNode extends Node {
  protected override readonly runtime = 'runc.sh';

  constructor(vm: Vm) {
    super(vm, 'systemd');
  }

  override prepare(): Promise<void> {
    return Promise.resolve();
  }

  protected override makeCgroup(): string {
    return '';
  }

  override async remove(pods: Pod[]): Promise<void> {
    const kills = pods.map(({ cgroup }) => `echo 1 >${cgroup}/cgroup.kill`);
    const slices = pods.map(({ cgroup }) => unit(cgroup));
    await this.vm.sh([...kills, `systemctl stop ${slices.join(' ')}`].join('\n'));
  }

  /** The OOMPolicy of a container's scope, as systemd has it. */
  oomPolicy({ cgroup }: Container): Promise<string> {
    return this.vm.sh(`systemctl show --value -p OOMPolicy ${unit(cgroup)}`);
  }

  /** Waits until systemd has ended the scope of a container, and all in it, because of an OOM kill. */
  async isEndedBySystemd({ cgroup }: Container): Promise<void> {
    await this.vm.until(`dmesg | grep -F "${unit(cgroup)}: Failed with result 'oom-kill'"`);
  }
}

/** The unit whose cgroup this is. */
const unit = (cgroup: string) => cgroup.slice(cgroup.lastIndexOf('/') + 1);
