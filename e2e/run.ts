import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { Agent, AgentLog, cgroupV2, readAgent, readAgentLog } from './agent';
import { Check, check, serverVersion, usableNodes } from './checks';
import { Observation, isComplete, judge, nodeRows } from './judgement';
import { Event, Kubectl, KubernetesObject, Node, each, list } from './kubectl';
import { agentManifests, workloads } from './manifests';
import { permission, toManage, toWatch } from './permissions';
import { Pod, denial, readPod, waitingFor } from './pods';
import { Progress, Report } from './report';

export interface Options {
  readonly context?: string;
  /** Seconds to look at the herders. */
  readonly duration: number;
  /** Seconds to wait for pods to start, and for objects to be gone. */
  readonly timeout: number;
  readonly keep: boolean;
  readonly image?: string;
  readonly herderImage?: string;
}

/** Events are sent at most every ten seconds, and a kubelet restarts with growing pauses. */
const GRACE_SECONDS = 60;

/** The label app.kubernetes.io/name of every agent. */
const AGENT = 'cdk8s-oom-kill-mode';

/** A check that failed and that nothing after it makes sense without. */
class Failure extends Error {}

/** One run against a cluster, and what it has found. */
export class Run {
  public readonly kubectl: Kubectl;
  public readonly namespace = `oom-kill-mode-e2e-${randomBytes(3).toString('hex')}`;
  public readonly checks: Check[] = [];
  public readonly notes: string[] = [];
  /** What is there only because of this run. */
  public readonly created: KubernetesObject[] = [];
  public context = '';
  public seen?: Observation;

  /** @param stop Ends the run. Its reason is the name of a signal. */
  public constructor(
    public readonly options: Options,
    public readonly progress: Progress,
    public readonly stop: AbortSignal,
  ) {
    this.kubectl = new Kubectl(options.context);
  }

  /** Adds checks, all of which must have passed for the run to go on. */
  public require(...checks: Check[]): void {
    this.checks.push(...checks);
    if (checks.some(({ passed }) => !passed)) {
      throw new Failure();
    }
    this.stop.throwIfAborted();
  }

  public report(): Report {
    const { checks, notes, context, namespace, created, stop, seen } = this;
    return {
      passed: !stop.aborted && checks.every(({ passed }) => passed),
      interrupted: stop.aborted ? String(stop.reason) : undefined,
      context,
      namespace: created.find(({ metadata }) => metadata.name === namespace)?.metadata.name,
      checks,
      nodes: seen ? nodeRows(seen) : [],
      notes,
    };
  }
}

/** Does everything but clean up. What went wrong is in the report. */
export async function execute(run: Run): Promise<void> {
  try {
    await steps(run);
  } catch (error) {
    if (!run.stop.aborted && !(error instanceof Failure)) {
      run.checks.push(check('the run itself', [messageOf(error)], ''));
    }
  }
}

async function steps(run: Run): Promise<void> {
  const { kubectl, options, progress, notes, namespace } = run;
  run.context = options.context ?? (await kubectl.text(['config', 'current-context'])).trim();
  const version = serverVersion(await kubectl.run(['version', '-o', 'json']));
  notes.push(...version.warnings);
  run.require(version.found);
  progress.say(`context ${run.context}, ${version.found.detail}`);
  const look = [
    { verb: 'list', resource: 'nodes' },
    { verb: 'list', group: 'apps', resource: 'daemonsets' },
  ];
  run.require(await permission(kubectl, 'look around', look));

  const { usable, notes: left } = usableNodes(await kubectl.get<Node>(['nodes']));
  const nodes = usable.map(({ name }) => name);
  const kubelets = usable.map(({ name, kubelet }) => `${name} ${kubelet}`).join(', ');
  notes.push(...left);
  run.require(check('nodes', nodes.length > 0 ? [] : ['none can run a herder'], kubelets));

  const there = await findAgent(run);
  const manifests = there ? [] : agentManifests(options.image);
  const agent = there ?? readAgent(manifests.find(({ kind }) => kind === 'DaemonSet'));
  const hostnames = usable.map(({ hostname }) => hostname);
  const pods = workloads(namespace, hostnames, agent, options.herderImage);
  // All of it before anything is changed, and all that is missing at once.
  progress.show('checking the permissions');
  const apply = toManage(manifests, ['get', 'create', 'patch', 'delete']);
  run.require(
    ...(there ? [] : [await permission(kubectl, 'install the agent', apply)]),
    await permission(kubectl, 'run pods', [
      ...toManage(pods, ['get', 'create', 'delete']),
      ...toWatch(namespace),
      ...toWatch(agent.namespace),
      { verb: 'list', resource: 'events', namespace },
    ]),
  );
  if (!there) {
    await installAgent(run, manifests);
  }
  await waitForPods(run, 'the agent is ready on each node', agent, { [AGENT]: agent.name }, nodes);
  // What an agent says of its node is the first that it says.
  const first = await agentLogs(run, agent, nodes, '--limit-bytes=100000');
  run.require(cgroupV2(first));

  progress.say(`namespace ${namespace}: herder, twin and probe`);
  run.created.push(...pods.filter(({ kind }) => kind === 'Namespace'));
  await kubectl.text(['create', '-f', '-'], list(pods));
  const started = 'herder, twin and probe have started';
  const three = { herder: 'herder', twin: 'twin', probe: 'probe' };
  await waitForPods(run, started, { namespace }, three, nodes);
  run.seen = await observe(run, agent, nodes, first);
  run.checks.push(...judge(run.seen));
  notes.push(...run.seen.logs.flatMap(({ warnings }) => warnings));
  for (const { reason, involvedObject, message } of run.seen.events) {
    if (reason === 'OomKillModeCannotApply') {
      notes.push(`${involvedObject.name ?? ''}: ${message ?? ''}`);
    }
  }
}

/** An agent that is there already stays as it is, and stays. */
async function findAgent({ kubectl, options, notes }: Run): Promise<Agent | undefined> {
  const found = await kubectl.get<KubernetesObject>([
    'daemonsets.apps',
    '--all-namespaces',
    '--selector',
    `app.kubernetes.io/name=${AGENT}`,
  ]);
  const agents = found.map(readAgent);
  const names = agents.map(({ namespace, name }) => `${namespace}/${name}`).join(', ');
  if (agents.length > 1) {
    throw new Error(`there are ${agents.length} agents: ${names}; leave one`);
  }
  if (agents.length > 0 && options.image !== undefined) {
    throw new Error(`the agent is installed already: ${names}; --image would change it`);
  }
  notes.push(...agents.map(() => `the agent was there already and stays as it is: ${names}`));
  return agents[0];
}

async function installAgent(run: Run, objects: KubernetesObject[]): Promise<void> {
  run.progress.show('installing the agent');
  const get = ['-f', '-', '--ignore-not-found'];
  const there = (await run.kubectl.get<KubernetesObject>(get, list(objects))).map(nameOf);
  if (there.length > 0) {
    run.notes.push(`were there already, are patched and stay: ${there.join(', ')}`);
  }
  run.stop.throwIfAborted();
  run.created.push(...objects.filter((object) => !there.includes(nameOf(object))));
  await run.kubectl.text(['apply', '-f', '-'], list(objects));
}

/** Waits for a pod of each workload on each node, and says why one is not there. */
async function waitForPods(
  run: Run,
  name: string,
  where: Pick<Agent, 'namespace'> & Partial<Agent>,
  workloads: Readonly<Record<string, string>>,
  nodes: string[],
): Promise<void> {
  const { timeout } = run.options;
  const end = Date.now() + timeout * 1000;
  const total = Object.keys(workloads).length * nodes.length;
  for (;;) {
    const pods = await podsIn(run, where, nodes);
    // Only to explain: in the agent's namespace, not everybody may list them.
    const events = await eventsIn(run, where.namespace).catch(() => []);
    // Herder and twin may be down again by now. That is for the judgement.
    const waiting = pods.filter(({ ready, started }) => !(where.selector ? ready : started));
    const reasons = Object.entries(workloads).flatMap(([label, workload]) => {
      const theirs = podsOf(label, pods);
      const without = nodes.filter((name) => theirs.every(({ node }) => node !== name));
      return theirs.length < nodes.length
        ? [`${workload}: missing on ${without.join(', ')}${denial(workload, events)}`]
        : [];
    });
    reasons.push(...waitingFor(waiting, events));
    const done = pods.length - waiting.length === total;
    const text = `${pods.length - waiting.length} of ${total} pods`;
    // Short before the reasons: a terminal shows one line of it.
    run.progress.show([`${name}: ${text}`, ...(done ? [] : reasons)].join('; '));
    if (done || Date.now() >= end) {
      const problem = [`${text} after ${timeout} s`, ...reasons].join('; ');
      run.require(check(name, done ? [] : [problem], text));
      return;
    }
    await sleep(1000, undefined, { signal: run.stop });
  }
}

/** Looks at the pods for as long as it was asked to, and a little longer for what is still to come. */
async function observe(
  run: Run,
  agent: Agent,
  nodes: string[],
  first: AgentLog[],
): Promise<Observation> {
  const { duration, timeout } = run.options;
  const began = Date.now();
  const atFirst = await podsIn(run, run, nodes);
  const before = podsOf('herder', atFirst);
  const probes = await logsOf(run, podsOf('probe', atFirst), 'probe', '--limit-bytes=1000');
  for (;;) {
    const pods = await podsIn(run, run);
    const events = await eventsIn(run, run.namespace);
    const seconds = Math.floor((Date.now() - began) / 1000);
    // By the clock of the node, which may not be ours.
    const since = `--since=${seconds + timeout}s`;
    const logs = seconds < duration ? [] : await agentLogs(run, agent, nodes, since);
    const herders = podsOf('herder', pods);
    const twins = podsOf('twin', pods);
    const seen = { nodes, seconds, before, herders, twins, probes, events, first, logs };
    const rows = nodeRows(seen);
    const count = (matches: (row: (typeof rows)[number]) => boolean) =>
      `${rows.filter(matches).length} of ${rows.length}`;
    const more = seconds > duration ? `, ${seconds - duration} s more` : '';
    run.progress.show(
      `${Math.min(seconds, duration)} of ${duration} s${more}:` +
        ` kills survived on ${count((row) => row.survivedKills > 0)} nodes,` +
        ` twin killed on ${count((row) => row.twin.startsWith('restarted'))},` +
        ` herder restarted on ${count((row) => row.herderRestarts !== 0)}`,
    );
    const last = duration + Math.min(duration, GRACE_SECONDS);
    if (seconds >= last || (seconds >= duration && isComplete(seen))) {
      return seen;
    }
    const pause = Math.min(Math.max(1, duration / 12), 30);
    await sleep(pause * 1000, undefined, { signal: run.stop });
  }
}

async function eventsIn({ kubectl }: Run, namespace: string): Promise<Event[]> {
  return kubectl.get<Event>(['events', '--namespace', namespace]);
}

/** Pods that are not on their way out, nor on nodes that are left out. */
async function podsIn(
  { kubectl }: Run,
  { namespace, selector = '' }: Pick<Agent, 'namespace'> & Partial<Agent>,
  nodes?: readonly string[],
): Promise<Pod[]> {
  const get = ['pods', '--namespace', namespace, '--selector', selector];
  const pods = await kubectl.get<Parameters<typeof readPod>[0]>(get);
  return pods
    .filter(({ metadata }) => !metadata?.deletionTimestamp)
    .map(readPod)
    .filter(({ node }) => node === '' || (nodes?.includes(node) ?? true));
}

function podsOf(workload: string, pods: readonly Pod[]): Pod[] {
  return pods.filter((pod) => pod.workload === workload);
}

async function agentLogs(run: Run, agent: Agent, nodes: string[], part: string) {
  const logs = await logsOf(run, await podsIn(run, agent, nodes), 'agent', part);
  return [...logs].map(([node, text]) => readAgentLog(node, text));
}

/** The logs of pods by their node. A pod that has just gone has no log. */
async function logsOf(run: Run, pods: Pod[], container: string, part: string) {
  const logs = await each(pods, async ({ name, namespace, node }): Promise<[string, string]> => {
    const args = ['logs', name, '--namespace', namespace, '--container', container, part];
    return [node, (await run.kubectl.run(args)).stdout];
  });
  return new Map(logs);
}

/**
 * Removes what is there only because of this run, whatever happened to it.
 *
 * @param impatience Ends the waiting. Everything has been asked for by then.
 */
export async function cleanUp(run: Run, impatience: AbortSignal): Promise<void> {
  const { kubectl, options, created, progress } = run;
  if (created.length === 0) {
    return;
  }
  const namespaces = created.filter(({ kind }) => kind === 'Namespace').map(nameOf);
  const others = created.length - namespaces.length;
  const summary = [...namespaces, ...(others > 0 ? [`${others} other objects`] : [])].join(', ');
  if (options.keep) {
    run.notes.push(`kept: ${summary}`);
    return;
  }
  const objects = list(created);
  const get = ['get', '-f', '-', '--ignore-not-found', '-o', 'name'];
  const end = Date.now() + options.timeout * 1000;
  let left = 'everything';
  try {
    progress.show('cleaning up');
    await kubectl.text(['delete', '-f', '-', '--ignore-not-found', '--wait=false'], objects);
    for (;;) {
      left = (await kubectl.text(get, objects)).trim().split('\n').join(', ');
      if (left === '' || Date.now() >= end) {
        break;
      }
      progress.show(`cleaning up: waiting for ${left}`);
      await sleep(1000, undefined, { signal: impatience });
    }
  } catch (error) {
    left += impatience.aborted ? ' (not waited for)' : `: ${messageOf(error)}`;
  }
  run.checks.push(check('cleaned up', left === '' ? [] : [`still there: ${left}`], summary));
}

/** "Kind namespace/name". */
function nameOf({ kind, metadata: { name, namespace } }: KubernetesObject): string {
  return `${kind} ${namespace === undefined ? '' : `${namespace}/`}${name}`;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
