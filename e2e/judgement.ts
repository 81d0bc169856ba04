import { AgentLine, Event, Pod, isOf, sum } from './cluster';

/** One thing that was looked at. */
export interface Check {
  readonly name: string;
  readonly passed: boolean;
  readonly detail: string;
}

/** A check that passes without problems. */
export function check(name: string, problems: readonly string[], good = ''): Check {
  return { name, passed: problems.length === 0, detail: problems.join(', ') || good };
}

/** What a run has seen in the end. */
export interface Observation {
  readonly nodes: readonly string[];
  readonly seconds: number;
  /** The pods when it began to look, and now. */
  readonly before: readonly Pod[];
  readonly pods: readonly Pod[];
  /** The last line that the probe of each node has printed. */
  readonly probes: ReadonlyMap<string, string>;
  readonly events: readonly Event[];
  readonly said: readonly AgentLine[];
}

/** One line of the table. */
export type NodeRow = ReturnType<typeof nodeRows>[number];

export function nodeRows({ nodes, pods, probes, events, said }: Observation) {
  return nodes.map((node) => {
    const herders = pods.filter((pod) => pod.node === node && isOf('herder', pod));
    const twins = pods.filter((pod) => pod.node === node && isOf('twin', pod));
    const inEvents = events
      .filter(({ reason }) => reason === 'OomKilledProcess')
      .filter(({ involvedObject }) => herders.some(({ uid }) => uid === involvedObject.uid))
      .map(({ count = 1 }) => count);
    const inLogs = killsInLogs(said, herders);
    return {
      node,
      /** memory.oom.group as the probe's first instruction saw it. */
      firstInstruction: /^memory\.oom\.group=(\w+)$/.exec(probes.get(node) ?? '')?.[1],
      herders,
      kills: sum(inEvents) || sum(inLogs),
      seenIn: inEvents.length > 0 ? 'Event' : 'log',
      twin: twins.map(({ story }) => story).join(', ') || 'not there',
      twinKilled: twins.some(({ killed }) => killed),
    };
  });
}

/** The newest total of each container. */
function killsInLogs(said: readonly AgentLine[], herders: readonly Pod[]): number[] {
  const names = herders.map(({ namespace, name }) => `${namespace}/${name}`);
  const totals = said
    .filter(({ pod = '', kills }) => names.includes(pod) && kills !== undefined)
    .map(
      ({ pod, container, total }) => [`${pod ?? ''} ${container ?? ''}`, Number(total)] as const,
    );
  return [...new Map(totals).values()];
}

/** Everything that the run was made for. */
export function judge(seen: Observation): Check[] {
  const rows = nodeRows(seen);
  const herders = rows.flatMap((row) => row.herders);
  const early = rows.filter((row) => row.firstInstruction !== '0');
  const notOne = rows.filter((row) => row.herders.length !== 1);
  const limited = seen.pods.filter((pod) => !isOf('probe', pod));
  const over = limited.filter((pod) => !(pod.milliCpu <= 250 && pod.mebibytes <= 256));
  const down = herders.filter(({ restarts, ready }) => restarts > 0 || !ready);
  const gone = seen.before
    .filter((pod) => isOf('herder', pod))
    .filter((old) => herders.every(({ uid }) => uid !== old.uid));
  return [
    check(
      'Single at the first instruction',
      early.map((row) => `${row.node}: ${row.firstInstruction ?? 'not seen'}`),
      'memory.oom.group is 0 in every probe',
    ),
    check(
      'one herder on each node',
      notOne.map((row) => `${row.node} has ${row.herders.length}`),
      `${rows.length} nodes`,
    ),
    check(
      'no pod over 250m CPU and 256Mi',
      over.map((pod) => `${pod.name} has ${pod.milliCpu}m and ${pod.mebibytes}Mi`),
      `${limited.length} pods`,
    ),
    check(
      'no herder restarted',
      [
        ...down.map(({ name, node, restarts, story }) =>
          restarts > 0 ? `${name} on ${node} ${story}` : `${name} on ${node} is not ready`,
        ),
        ...gone.map(({ name, node }) => `${name} on ${node} was replaced`),
      ],
      `${herders.length} herders for ${seen.seconds} s`,
    ),
    ...toCome(seen),
  ];
}

/** The two checks that may fail only because it is too early. */
export function toCome(seen: Observation): Check[] {
  const rows = nodeRows(seen);
  const unseen = rows.filter(({ kills }) => kills === 0).map(({ node }) => node);
  const alive = rows.filter(({ twinKilled }) => !twinKilled);
  const same = seen.said.filter(({ nodeValue }) => nodeValue === '0').map(({ node }) => node);
  return [
    check(
      'every herder survived an OOM kill',
      unseen.map((node) => `not seen on ${node}, neither in Events nor in the agent's log`),
      `${sum(rows.map(({ kills }) => kills))} processes killed`,
    ),
    // What shows that the difference is ours: without the label, all of the container dies.
    check(
      'the twin without the label is killed and restarted',
      alive.map(({ node, twin }) =>
        same.includes(node)
          ? `on ${node} containers without the label have 0, too: nothing to tell apart`
          : `on ${node}: ${twin}`,
      ),
      `on ${rows.length} of ${rows.length} nodes`,
    ),
  ];
}
