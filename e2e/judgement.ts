import { AgentLog } from './agent';
import { Check, check } from './checks';
import { Event } from './kubectl';
import { Pod, sum, whyNot } from './pods';

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
  /** What the agents said first, and what they said since. */
  readonly first: readonly AgentLog[];
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
    const twins = on(node, seen.twins).map((pod) => (pod.started ? pod.story : whyNot(pod)));
    const inEvents = seen.events
      .filter(({ reason }) => reason === 'OomKilledProcess')
      .filter(({ involvedObject }) => herders.some(({ uid }) => uid === involvedObject.uid))
      .map(({ count }) => count ?? 1);
    const names = herders.map(({ namespace, name }) => `${namespace}/${name}`);
    const inLogs = seen.logs
      .flatMap(({ kills }) => [...kills])
      .filter(([key]) => names.includes(key.replace(/ .*/, '')))
      .map(([, count]) => count);
    const kills = inEvents.length > 0 ? inEvents : inLogs;
    const first = /^memory\.oom\.group=(\w+)$/m.exec(seen.probes.get(node) ?? '');
    return {
      node,
      firstInstruction: first?.[1] ?? 'not seen',
      herderRestarts: herders.length === 0 ? undefined : sum(herders.map((pod) => pod.restarts)),
      survivedKills: sum(kills),
      seenIn: kills.length === 0 ? undefined : kills === inEvents ? 'Event' : 'log',
      twin: twins.join(', ') || 'not there',
    };
  });
}

/** Everything that the run was made for. */
export function judge(seen: Observation): Check[] {
  const { nodes, herders, twins, seconds } = seen;
  const pods = [...herders, ...twins];
  const rows = nodeRows(seen);
  const early = rows.filter((row) => row.firstInstruction !== '0');
  const alone = nodes.filter((node) => on(node, herders).length !== 1);
  const elsewhere = herders.filter(({ node }) => !nodes.includes(node));
  const over = pods.filter(({ cpu, memory }) => !(cpu <= 250 && memory <= 256));
  const gone = seen.before.filter((old) => herders.every(({ uid }) => uid !== old.uid));
  const down = herders.filter(({ restarts, ready }) => restarts > 0 || !ready);
  return [
    check(
      'Single at the first instruction',
      early.map((row) => `${row.node}: ${row.firstInstruction}`),
      'memory.oom.group is 0 in every probe',
    ),
    check(
      'one herder on each node',
      [
        ...alone.map((node) => `${node} has ${on(node, herders).length}`),
        ...elsewhere.map(({ name }) => `${name} is on none of them`),
      ],
      `${nodes.length} nodes`,
    ),
    check(
      'no pod over 250m CPU and 256Mi',
      over.map(({ name, cpu, memory }) => `${name} has ${cpu}m and ${memory}Mi`),
      `${pods.length} pods`,
    ),
    check(
      'no herder restarted',
      [
        ...down.map(
          ({ name, node, restarts, story }) =>
            `${name} on ${node} ${restarts > 0 ? story : 'is not ready'}`,
        ),
        ...gone.map(({ name, node }) => `${name} on ${node} was replaced`),
        ...(herders.length === 0 ? ['there is no herder'] : []),
      ],
      `${herders.length} herders for ${seconds} s`,
    ),
    survived(rows),
    twinRestarted(seen),
  ];
}

/** Whether everything that can still come has come. */
export function isComplete(seen: Observation): boolean {
  return survived(nodeRows(seen)).passed && twinRestarted(seen).passed;
}

function survived(rows: readonly NodeRow[]): Check {
  const unseen = rows.filter((row) => row.survivedKills === 0).map(({ node }) => node);
  return check(
    'every herder survived an OOM kill',
    unseen.length > 0
      ? [`not seen, neither in Events nor in the agents' logs, on ${unseen.join(', ')}`]
      : [],
    `${sum(rows.map((row) => row.survivedKills))} processes killed`,
  );
}

/** What shows that the difference is ours: without the label, all of the container dies. */
function twinRestarted({ nodes, twins, first }: Observation): Check {
  const kept = nodes.filter((node) => !on(node, twins).some(({ killed }) => killed));
  return check(
    'the twin without the label is killed and restarted',
    kept.map((node) =>
      first.some((log) => log.node === node && log.nodeValue === '0')
        ? `on ${node} containers without the label have 0, too: nothing to tell apart`
        : `on ${node} it ${
            on(node, twins)
              .map(({ story }) => story)
              .join(', ') || 'is not there'
          }`,
    ),
    `on ${nodes.length} of ${nodes.length} nodes`,
  );
}

function on(node: string, pods: readonly Pod[]): Pod[] {
  return pods.filter((pod) => pod.node === node);
}
