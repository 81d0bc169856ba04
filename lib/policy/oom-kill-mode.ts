/**
 * What the kernel kills when a container runs out of memory.
 *
 * The values are those of the pod label, and those of the field `oomKillMode` that KEP-5507 proposes for
 * containers. So a later move to that field is one to one.
 *
 * @see https://github.com/kubernetes/enhancements/issues/5507
 * @see https://docs.kernel.org/admin-guide/cgroup-v2.html
 */
export enum OomKillMode {
  /**
   * One process dies, and the container keeps running unless the victim is its PID 1.
   *
   * `memory.oom.group` is 0, the behaviour of Kubernetes before 1.28.
   */
  SINGLE = 'Single',

  /**
   * All processes of the container die together and the kubelet restarts it.
   *
   * `memory.oom.group` is 1, as Kubernetes sets it on cgroup v2 since 1.28, unless the kubelet
   * has `singleProcessOOMKill: true`.
   */
  GROUP = 'Group',
}
