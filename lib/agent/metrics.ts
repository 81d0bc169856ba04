/**
 * What the agent writes for Prometheus, in one place: the alerts, the dashboard, their tests and
 * docs/monitoring.md are held against this list, and so is what the agent's script writes.
 */
export interface Metric {
  readonly name: string;
  readonly type: 'counter' | 'gauge';
  /** The labels that the agent writes, each with its values where they are few. */
  readonly labels: Record<string, readonly string[] | undefined>;
  readonly help: string;
}

const CONTAINER_LABELS = { namespace: undefined, pod: undefined, container: undefined };

/** What keeps a mode from working; the anchors of docs/troubleshooting.md. */
export const CONDITIONS = [
  'cgroup_v1',
  'cgroup_not_found',
  'no_inotify',
  'write_refused',
  'contested',
  'ancestor_group',
  'systemd_oom_policy',
  'invalid_mode',
  'invalid_override',
  'unknown_container',
  'name_too_long',
  'pod_too_large',
] as const;

export const METRICS = {
  BUILD_INFO: {
    name: 'oom_kill_mode_build_info',
    type: 'gauge',
    labels: { script_sha256: undefined },
    help: 'Always 1. The label identifies the running script.',
  },
  CONTAINERS: {
    name: 'oom_kill_mode_containers',
    type: 'gauge',
    labels: { mode: ['Single', 'Group'] },
    help: 'Containers of opted-in pods on this node, by desired mode.',
  },
  GROUP_DESIRED: {
    name: 'oom_kill_mode_container_group_desired',
    type: 'gauge',
    labels: CONTAINER_LABELS,
    help: 'Desired mode of the container: 0 for Single, 1 for Group.',
  },
  GROUP_EFFECTIVE: {
    name: 'oom_kill_mode_container_group_effective',
    type: 'gauge',
    labels: CONTAINER_LABELS,
    help: 'Value of memory.oom.group of the container: 0 or 1.',
  },
  WRITES: {
    name: 'oom_kill_mode_writes_total',
    type: 'counter',
    labels: { cause: ['start', 'event', 'resync', 'restore'] },
    help: 'Writes to memory.oom.group: when a container started, when the kernel reported drift, when the periodic check found drift, or when a pod opted out.',
  },
  SURVIVED_KILLS: {
    name: 'oom_kill_mode_survived_process_kills_total',
    type: 'counter',
    labels: CONTAINER_LABELS,
    help: 'Processes that the kernel killed for memory in a container that kept running.',
  },
  WATCH_RECONNECTS: {
    name: 'oom_kill_mode_watch_reconnects_total',
    type: 'counter',
    labels: {},
    help: 'Number of times that the agent reopened its watch on the API server.',
  },
  LAST_SYNC: {
    name: 'oom_kill_mode_last_sync_timestamp_seconds',
    type: 'gauge',
    labels: {},
    help: 'Last time at which the agent knew all opted-in pods of the node, in seconds since 1970.',
  },
  CONDITION: {
    name: 'oom_kill_mode_condition',
    type: 'gauge',
    labels: { condition: CONDITIONS },
    help: '1 while this condition prevents a mode from working on the node, otherwise 0.',
  },
} as const satisfies Record<string, Metric>;

/** The directory below the agent's run directory with the files for Prometheus; the sidecar sees no other. */
export const METRICS_DIR = 'metrics';

/** The sidecar's port; node-exporter's own, 9100, is left to the node's exporter. */
export const METRICS_PORT = 9539;

/** The name of the sidecar and of its port. */
export const METRICS_NAME = 'metrics';
