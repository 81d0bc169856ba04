import { AgentLog } from './agent';
import { Check, check } from './checks';
import { ContainerStatus, Event, Pod, isReady } from './kubectl';
import { whyNot } from './waiting';

// What a run concludes from the pods, Events and logs that it has seen.

/** What a run has seen in the end. */
export interface Observation {
  readonly nodes: readonly string[];
  readonly seconds: number;
  /** The herders when it began to look. */
  readonly before: readonly Pod[];
  readonly herders: readonly Pod[];
  readonly twins: readonly Pod[];
  /** The log of each node's probe. */
  readonly probes: ReadonlyMap<string, string>;
  readonly events: readonly Event[];
  readonly logs: readonly AgentLog[];
}

/** One line of the table. */
export interface NodeRow {
  readonly node: string;
  /** memory.oom.group as the probe's first instruction saw it. */
  readonly firstInstruction: string;
  readonly herderRestarts?: number;
  readonly survivedKills: number;
  readonly seenIn?: 'Event' | 'log';
  readonly twin: string;
}

export function nodeRows(seen: Observation): NodeRow[] {
  return seen.nodes.map((node) => {
    const herders = on(node, seen.herders);
    const twins = on(node, seen.twins).map((pod) => (hasStarted(pod) ? story(pod) : whyNot(pod)));
    const first = /^memory\.oom\.group=(\w+)$/m.exec(seen.probes.get(node) ?? '');
    return {
      node,
      firstInstruction: first?.[1] ?? 'not seen',
      herderRestarts: herders.length === 0 ? undefined : sum(herders.map(restarts)),
      ...survivedKills(herders, seen),
      twin: twins.join(', ') || 'not there',
    };
  });
}

/** Everything that the run was made for. */
export function judge(seen: Observation): Check[] {
  const { nodes, before, herders, twins } = seen;
  const rows = nodeRows(seen);
  const pods = [...herders, ...twins];
  const alone = nodes.filter((node) => on(node, herders).length !== 1);
  const elsewhere = herders.filter((pod) => !nodes.includes(pod.spec?.nodeName ?? ''));
  const gone = before.filter(({ metadata }) => !uidsOf(herders).has(metadata?.uid));
  const restarted = herders.filter((pod) => restarts(pod) > 0);
  const down = herders.filter((pod) => restarts(pod) === 0 && !isReady(pod));
  const unseen = rows.filter((row) => row.survivedKills === 0).map(({ node }) => node);
  return [
    check(
      'Single at the first instruction',
      rows
        .filter((row) => row.firstInstruction !== '0')
        .map((row) => `${row.node}: ${row.firstInstruction}`),
      'memory.oom.group is 0 in every probe',
    ),
    check(
      'one herder on each node',
      [
        ...alone.map((node) => `${node} has ${on(node, herders).length}`),
        ...elsewhere.map(({ metadata }) => `${metadata?.name ?? ''} is on none of them`),
      ],
      `${nodes.length} nodes`,
    ),
    check('no pod over 250m CPU and 256Mi', pods.flatMap(overLimit), `${pods.length} pods`),
    check(
      'no herder restarted',
      [
        ...restarted.map((pod) => `${describe(pod)} ${story(pod)}`),
        ...gone.map((pod) => `${describe(pod)} was replaced`),
        ...down.map((pod) => `${describe(pod)} is not ready`),
        ...(herders.length === 0 ? ['there is no herder'] : []),
      ],
      `${herders.length} herders for ${seen.seconds} s`,
    ),
    check(
      'every herder survived an OOM kill',
      unseen.length > 0
        ? [`not seen, neither in Events nor in the agents' logs, on ${unseen.join(', ')}`]
        : [],
      `${sum(rows.map((row) => row.survivedKills))} processes killed`,
    ),
    check(
      'the twin without the label is killed and restarted',
      nodes
        .filter((node) => !on(node, twins).some(wasKilled))
        .map((node) =>
          // What shows that the difference is ours: without the label, all of the container dies.
          seen.logs.find((log) => log.node === node)?.nodeValue === '0'
            ? `on ${node} containers without the label have 0, too: nothing to tell apart`
            : `on ${node} it ${on(node, twins).map(story).join(', ') || 'is not there'}`,
        ),
      `on ${nodes.length} of ${nodes.length} nodes`,
    ),
  ];
}

/** Whether everything that can still come has come. */
export function isComplete(seen: Observation): boolean {
  return judge(seen)
    .slice(-2)
    .every(({ passed }) => passed);
}

/** The pods of a workload on a node that are not on their way out. */
function on(node: string, pods: readonly Pod[]): Pod[] {
  return pods.filter((pod) => pod.spec?.nodeName === node && !pod.metadata?.deletionTimestamp);
}

/** The pods of one of the workloads. */
export function podsOf(name: string, pods: readonly Pod[]): Pod[] {
  return pods.filter((pod) => pod.metadata?.labels?.['app.kubernetes.io/name'] === name);
}

/** Whether a pod, or its twin that keeps restarting, was started at all. */
export function hasStarted(pod: Pod): boolean {
  return statuses(pod).some(
    ({ state, restartCount }) => state?.running !== undefined || restartCount > 0,
  );
}

function statuses(pod: Pod): readonly ContainerStatus[] {
  return pod.status?.containerStatuses ?? [];
}

function allStatuses(pod: Pod): ContainerStatus[] {
  return [...(pod.status?.initContainerStatuses ?? []), ...statuses(pod)];
}

function restarts(pod: Pod): number {
  return sum(allStatuses(pod).map(({ restartCount }) => restartCount));
}

function uidsOf(pods: readonly Pod[]): Set<string | undefined> {
  return new Set(pods.map(({ metadata }) => metadata?.uid));
}

function survivedKills(
  pods: readonly Pod[],
  { events, logs }: Observation,
): Pick<NodeRow, 'survivedKills' | 'seenIn'> {
  const inEvents = events
    .filter(({ reason }) => reason === 'OomKilledProcess')
    .filter(({ involvedObject }) => uidsOf(pods).has(involvedObject.uid))
    .map(({ count }) => count ?? 1);
  const names = pods.map(({ metadata }) => `${metadata?.namespace ?? ''}/${metadata?.name ?? ''}`);
  const inLogs = logs
    .flatMap(({ kills }) => [...kills])
    .filter(([key]) => names.includes(key.replace(/ .*/, '')))
    .map(([, count]) => count);
  if (inEvents.length > 0) {
    return { survivedKills: sum(inEvents), seenIn: 'Event' };
  }
  return { survivedKills: sum(inLogs), seenIn: sum(inLogs) > 0 ? 'log' : undefined };
}

/** Restarted after an OOM kill. Some runtimes only tell that it was SIGKILL: 137 without the reason. */
function wasKilled(pod: Pod): boolean {
  return statuses(pod).some(({ restartCount, lastState, state }) => {
    const { reason, exitCode } = lastState?.terminated ?? state?.terminated ?? {};
    return restartCount > 0 && (reason === 'OOMKilled' || exitCode === 137);
  });
}

/** "restarted 2 times, last OOMKilled (137)". */
function story(pod: Pod): string {
  const count = restarts(pod);
  const last = allStatuses(pod)
    .map(({ lastState, state }) => lastState?.terminated ?? state?.terminated)
    .find((terminated) => terminated && terminated.exitCode !== 0);
  const times = count === 1 ? 'once' : `${count} times`;
  const why = last ? `, last ${last.reason ?? 'ended'} (${last.exitCode})` : '';
  return count === 0 ? `never restarted${why}` : `restarted ${times}${why}`;
}

function describe(pod: Pod): string {
  return `${pod.metadata?.name ?? ''} on ${pod.spec?.nodeName ?? 'no node'}`;
}

/** The limits as the API server has them, with whatever was injected into the pod. */
function overLimit(pod: Pod): string[] {
  // Whole ones, because 0.1 and 0.2 are more than 0.3.
  const [cpu, memory] = [Math.round(limitOf(pod, 'cpu') * 1000), limitOf(pod, 'memory') / 2 ** 20];
  return cpu <= 250 && memory <= 256
    ? []
    : [`${pod.metadata?.name ?? ''} has ${cpu}m and ${memory}Mi`];
}

/** What a pod can use at most: its containers and sidecars together, or one of its init containers. */
function limitOf({ spec }: Pod, resource: 'cpu' | 'memory'): number {
  const inits = spec?.initContainers ?? [];
  const sidecars = inits.filter(({ restartPolicy }) => restartPolicy === 'Always');
  const [alone, together] = [inits, [...(spec?.containers ?? []), ...sidecars]].map((containers) =>
    containers.map(({ resources }) => quantity(resources?.limits?.[resource])),
  );
  return Math.max(sum(together ?? []), ...(alone ?? []));
}

/** A Kubernetes quantity as a number. No limit is an infinite one. */
export function quantity(text: string | undefined): number {
  const [, amount, unit = ''] = /^([\d.]+(?:[eE]-?\d+)?)([a-zA-Z]*)$/.exec(text ?? '') ?? [];
  const power =
    ['n', 'u', 'm', '', 'k', 'M', 'G', 'T', 'P', 'E'].indexOf(
      unit.replace('Ki', 'k').replace('i', ''),
    ) - 3;
  return text === undefined
    ? Infinity
    : Number(amount) * (unit.endsWith('i') ? 1024 : 1000) ** power;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
