import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import {
  Agent,
  AgentLog,
  Check,
  Observation,
  Permission,
  TO_LOOK,
  canI,
  cgroupV2,
  hasStarted,
  isAllowed,
  isComplete,
  isReady,
  judge,
  kubectlSkew,
  nodeRows,
  permissions,
  podsOf,
  readAgent,
  readAgentLog,
  readVersions,
  serverVersion,
  toApply,
  toCreate,
  toWatch,
  usableNodes,
} from './checks';
import { Event, Kubectl, KubernetesObject, Node, Pod, each, list } from './kubectl';
import { agent as agentManifests, workloads } from './manifests';
import { Progress } from './progress';
import { Report } from './report';
import { denialOf, waitingFor } from './waiting';

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

const DIST = join(__dirname, '..', 'dist');

/** Events are sent at most every ten seconds, and a kubelet restarts with growing pauses. */
const GRACE_SECONDS = 60;

const POLL_SECONDS = 1;

/** A check that failed and that nothing after it makes sense without. */
class Failure extends Error {}

/** One run against a cluster: what it made, what it found, and the end of both. */
export class Run {
  private readonly kubectl: Kubectl;
  private readonly namespace = `oom-kill-mode-e2e-${randomBytes(3).toString('hex')}`;
  private readonly checks: Check[] = [];
  private readonly notes: string[] = [];
  private context = '';
  private nodeValues: ReadonlyMap<string, string | undefined> = new Map();
  private seen?: Observation;
  /** What is there only because of us. */
  private created: KubernetesObject[] = [];

  /**
   * @param options What the user asked for.
   * @param progress Where to say what is going on.
   * @param interruption Ends the run; the reason is the name of a signal.
   */
  public constructor(
    private readonly options: Options,
    private readonly progress: Progress,
    private readonly interruption: AbortSignal,
  ) {
    this.kubectl = new Kubectl(options.context);
  }

  /** Does everything but clean up. What went wrong is in the report. */
  public async execute(): Promise<void> {
    try {
      await this.begin();
      const nodes = await this.findNodes();
      const there = await this.findAgent();
      const missing = there ? [] : agentManifests({ dist: DIST, image: this.options.image });
      const agent = there ?? readAgent(daemonSetOf(missing));
      const objects = workloads({
        namespace: this.namespace,
        hostnames: nodes.map(({ hostname }) => hostname),
        labelPrefix: agent.labelPrefix,
        agentImage: agent.image,
        herderImage: this.options.herderImage,
      });
      const names = nodes.map(({ name }) => name);
      // All of it before anything is changed; that a namespace is not there yet is no matter.
      await this.requirePermissions({
        ...(there ? {} : { 'install the agent': toApply(missing) }),
        'run pods': [
          ...toCreate(objects),
          ...toWatch(this.namespace),
          ...toWatch(agent.namespace),
          { verb: 'list', resource: 'events', namespace: this.namespace },
        ],
      });
      if (!there) {
        await this.installAgent(missing);
      }
      await this.waitForAgent(agent, names);
      await this.create(objects);
      await this.waitForPods(names);
      await this.observe(agent, names);
    } catch (error) {
      if (!this.interruption.aborted && !(error instanceof Failure)) {
        this.checks.push({ name: 'the run itself', passed: false, detail: messageOf(error) });
      }
    }
  }

  /**
   * Removes what is there only because of this run, whatever happened to it.
   *
   * @param impatience Ends the waiting; everything has been asked for by then.
   */
  public async cleanUp(impatience: AbortSignal): Promise<void> {
    if (this.created.length === 0) {
      return;
    }
    const objects = list(this.created);
    if (this.options.keep) {
      this.notes.push(`kept: ${summaryOf(this.created)}`);
      return;
    }
    let left = 'everything';
    try {
      this.progress.show('cleaning up');
      await this.kubectl.text(['delete', '-f', '-', '--ignore-not-found', '--wait=false'], objects);
      const end = Date.now() + this.options.timeout * 1000;
      while ((left = await this.remaining(objects)) !== '' && Date.now() < end) {
        this.progress.show(`cleaning up: waiting for ${left}`);
        await sleep(POLL_SECONDS * 1000, undefined, { signal: impatience });
      }
    } catch (error) {
      left = impatience.aborted ? `${left} (not waited for)` : `${left}: ${messageOf(error)}`;
    }
    this.checks.push({
      name: 'cleaned up',
      passed: left === '',
      detail: left === '' ? summaryOf(this.created) : `still there: ${left}`,
    });
  }

  public report(): Report {
    const { aborted } = this.interruption;
    return {
      passed: !aborted && this.checks.every(({ passed }) => passed),
      interrupted: aborted ? String(this.interruption.reason) : undefined,
      context: this.context,
      namespace: this.created.some((object) => nameOf(object).endsWith(this.namespace))
        ? this.namespace
        : undefined,
      checks: this.checks,
      nodes: this.seen ? nodeRows(this.seen) : [],
      notes: this.notes,
    };
  }

  private async begin(): Promise<void> {
    const { context } = this.options;
    this.context = context ?? (await this.kubectl.text(['config', 'current-context'])).trim();
    const versions = readVersions(await this.kubectl.run(['version', '-o', 'json']));
    this.notes.push(...kubectlSkew(versions));
    this.require(serverVersion(versions));
    this.progress.say(`context ${this.context}, ${this.checks[0]?.detail ?? ''}`);
    await this.requirePermissions({ 'look around': TO_LOOK });
  }

  private async findNodes(): Promise<{ name: string; hostname: string }[]> {
    const { usable, notes } = usableNodes(await this.kubectl.get<Node>(['nodes']));
    this.notes.push(...notes);
    this.require({
      name: 'nodes',
      passed: usable.length > 0,
      detail:
        usable.map(({ name, kubelet }) => `${name} ${kubelet}`).join(', ') ||
        'none can run a herder',
    });
    return usable;
  }

  /** An agent that is there already stays as it is, and stays. */
  private async findAgent(): Promise<Agent | undefined> {
    const selector = 'app.kubernetes.io/name=cdk8s-oom-kill-mode';
    const found = await this.kubectl.get<KubernetesObject>([
      ...['daemonsets.apps', '--all-namespaces', '--selector', selector],
    ]);
    const [agent, ...others] = found.map(readAgent);
    if (!agent) {
      return undefined;
    }
    if (others.length > 0) {
      const names = [agent, ...others].map(({ namespace, name }) => `${namespace}/${name}`);
      throw new Error(`there are ${names.length} agents: ${names.join(', ')}; leave one`);
    }
    const where = `${agent.namespace}/${agent.name}`;
    if (this.options.image !== undefined) {
      throw new Error(`the agent is installed already: ${where}; --image would change it`);
    }
    this.notes.push(`the agent was there already and stays as it is: ${where}`);
    return agent;
  }

  private async installAgent(objects: KubernetesObject[]): Promise<void> {
    this.progress.show('installing the agent');
    const there = await this.kubectl.get<KubernetesObject>(
      ['-f', '-', '--ignore-not-found'],
      list(objects),
    );
    const before = new Set(there.map(nameOf));
    if (before.size > 0) {
      this.notes.push(`were there already, are patched and stay: ${[...before].join(', ')}`);
    }
    this.interruption.throwIfAborted();
    this.created.push(...objects.filter((object) => !before.has(nameOf(object))));
    await this.kubectl.text(['apply', '-f', '-'], list(objects));
  }

  /** Asks for all, by purpose, so that all that is missing is told at once. */
  private async requirePermissions(wanted: Record<string, readonly Permission[]>): Promise<void> {
    const found: Check[] = [];
    for (const [purpose, asked] of Object.entries(wanted)) {
      this.progress.show(`checking the permission to ${purpose}`);
      const answers = await each(asked, async (permission) => {
        this.interruption.throwIfAborted();
        const { stdout, stderr } = await this.kubectl.run(canI(permission));
        const allowed = isAllowed(stdout);
        if (allowed === undefined) {
          throw new Error(`kubectl ${canI(permission).join(' ')}: ${stderr.trim()}`);
        }
        return allowed;
      });
      const missing = asked.filter((_, index) => answers[index] === false);
      found.push(permissions(purpose, asked, missing));
    }
    this.require(...found);
  }

  private async waitForAgent(agent: Agent, nodes: string[]): Promise<void> {
    await this.waitFor('the agent is ready on each node', 'ready agents', async () => {
      const pods = await this.agentPods(agent);
      const events = await this.eventsOf(agent.namespace);
      const ready = pods.filter(isReady).map(({ spec }) => spec?.nodeName);
      const missing = nodes.filter((node) => !ready.includes(node));
      const without = missing.filter((node) => pods.every(({ spec }) => spec?.nodeName !== node));
      return {
        done: missing.length === 0,
        text: `${nodes.length - missing.length} of ${nodes.length}`,
        reasons: [
          ...absence(agent.name, without.length, events, ` on ${without.join(', ')}`),
          ...waitingFor(
            pods.filter((pod) => !isReady(pod)),
            events,
          ),
        ],
      };
    });
    // What an agent says of its node is the first that it says.
    const logs = await this.agentLogs(agent, nodes, '--limit-bytes=100000');
    this.nodeValues = new Map(logs.map(({ node, nodeValue }) => [node, nodeValue]));
    this.require(cgroupV2(logs));
  }

  private async create(objects: KubernetesObject[]): Promise<void> {
    this.interruption.throwIfAborted();
    this.progress.say(`namespace ${this.namespace}: herder, twin and probe`);
    this.created.push(...objects.filter(({ kind }) => kind === 'Namespace'));
    await this.kubectl.text(['create', '-f', '-'], list(objects));
  }

  private async waitForPods(nodes: string[]): Promise<void> {
    await this.waitFor('herder, twin and probe have started', 'started pods', async () => {
      const pods = await this.pods();
      const events = await this.eventsOf(this.namespace);
      const waiting = [
        ...podsOf('probe', pods).filter((pod) => !isReady(pod)),
        // Those may be down again by now, which is for the judgement and not for us.
        ...[...podsOf('herder', pods), ...podsOf('twin', pods)].filter((pod) => !hasStarted(pod)),
      ];
      const started = pods.length - waiting.length;
      return {
        done: started === 3 * nodes.length,
        text: `${started} of ${3 * nodes.length} pods`,
        reasons: [
          ...['herder', 'twin', 'probe'].flatMap((name) =>
            absence(name, nodes.length - podsOf(name, pods).length, events),
          ),
          ...waitingFor(waiting, events),
        ],
      };
    });
  }

  private async observe(agent: Agent, nodes: string[]): Promise<void> {
    const { duration } = this.options;
    const before = podsOf('herder', await this.pods());
    const probes = await this.probeLogs();
    const began = Date.now();
    const elapsed = () => Math.floor((Date.now() - began) / 1000);
    const last = duration + Math.min(duration, GRACE_SECONDS);
    for (;;) {
      const pods = await this.pods();
      this.seen = {
        nodes,
        seconds: elapsed(),
        before,
        herders: podsOf('herder', pods),
        twins: podsOf('twin', pods),
        probes,
        events: await this.kubectl.get<Event>(['events', '--namespace', this.namespace]),
        // By the clock of the node, which may not be ours.
        logs:
          elapsed() >= duration
            ? await this.agentLogs(agent, nodes, `--since=${elapsed() + this.options.timeout}s`)
            : [],
      };
      const rows = nodeRows(this.seen);
      const count = (matches: (row: (typeof rows)[number]) => boolean) =>
        `${rows.filter(matches).length} of ${rows.length}`;
      const overtime = elapsed() - duration;
      this.progress.show(
        `${duration + Math.min(overtime, 0)} of ${duration} s` +
          `${overtime > 0 ? `, ${overtime} s more` : ''}: kills survived on ${count((row) => row.survivedKills > 0)} nodes,` +
          ` twin killed on ${count((row) => row.twin.startsWith('restarted'))},` +
          ` herder restarted on ${count((row) => row.herderRestarts !== 0)}`,
      );
      const enough = this.seen.seconds >= duration && isComplete(this.seen);
      if (enough || this.seen.seconds >= last) {
        break;
      }
      await this.pause(Math.min(Math.max(1, duration / 12), 30));
    }
    this.checks.push(...judge(this.seen));
    this.notes.push(...this.seen.logs.flatMap(({ warnings }) => warnings));
    const troubles = this.seen.events.filter(({ reason }) => reason === 'OomKillModeCannotApply');
    this.notes.push(
      ...troubles.map(
        ({ involvedObject, message }) => `${involvedObject.name ?? ''}: ${message ?? ''}`,
      ),
    );
  }

  /** Only to explain: in the agent's namespace, not everybody may list them. */
  private async eventsOf(namespace: string): Promise<Event[]> {
    const { status, stdout } = await this.kubectl.run([
      ...['get', 'events', '--namespace', namespace, '-o', 'json'],
    ]);
    return status === 0 ? (JSON.parse(stdout) as { items: Event[] }).items : [];
  }

  private pods(): Promise<Pod[]> {
    return this.kubectl.get<Pod>(['pods', '--namespace', this.namespace]);
  }

  private agentPods({ namespace, selector }: Agent): Promise<Pod[]> {
    return this.kubectl.get<Pod>(['pods', '--namespace', namespace, '--selector', selector]);
  }

  private async agentLogs(agent: Agent, nodes: string[], part: string): Promise<AgentLog[]> {
    const pods = (await this.agentPods(agent)).filter(({ spec }) =>
      nodes.includes(spec?.nodeName ?? ''),
    );
    return each(pods, async ({ metadata, spec }) => {
      const node = spec?.nodeName ?? '';
      const text = await this.logs(metadata?.name ?? '', agent.namespace, 'agent', part);
      const log = readAgentLog(node, text);
      return { ...log, nodeValue: log.nodeValue ?? this.nodeValues.get(node) };
    });
  }

  /** What each node's probe printed first. */
  private async probeLogs(): Promise<Map<string, string>> {
    const found = new Map<string, string>();
    await each(podsOf('probe', await this.pods()), async ({ metadata, spec }) => {
      const text = await this.logs(metadata?.name ?? '', this.namespace, 'probe');
      found.set(spec?.nodeName ?? '', text.split('\n')[0] ?? '');
    });
    return found;
  }

  /** A pod that has just gone has no log, and the next look is going to find that out. */
  private async logs(
    pod: string,
    namespace: string,
    container: string,
    part = '--limit-bytes=1000',
  ): Promise<string> {
    const { stdout } = await this.kubectl.run([
      ...['logs', pod, '--namespace', namespace, '--container', container, part],
    ]);
    return stdout;
  }

  private async remaining(objects: string): Promise<string> {
    const names = await this.kubectl.text(
      ['get', '-f', '-', '--ignore-not-found', '-o', 'name'],
      objects,
    );
    return names.trim().split('\n').join(', ');
  }

  private async waitFor(
    name: string,
    subject: string,
    look: () => Promise<{ done: boolean; text: string; reasons: string[] }>,
  ): Promise<void> {
    const end = Date.now() + this.options.timeout * 1000;
    for (;;) {
      const { done, text, reasons } = await look();
      // Short before the reasons: a terminal shows one line of it.
      this.progress.show([`${subject}: ${text}`, ...(done ? [] : reasons)].join('; '));
      if (done || Date.now() >= end) {
        const detail = [`${text} after ${this.options.timeout} s`, ...reasons];
        this.require({ name, passed: done, detail: done ? text : detail.join('; ') });
        return;
      }
      await this.pause(POLL_SECONDS);
    }
  }

  private async pause(seconds: number): Promise<void> {
    await sleep(seconds * 1000, undefined, { signal: this.interruption });
  }

  private require(...checks: Check[]): void {
    this.checks.push(...checks);
    const failed = checks.find(({ passed }) => !passed);
    if (failed) {
      throw new Failure(failed.name);
    }
    this.interruption.throwIfAborted();
  }
}

function daemonSetOf(objects: readonly KubernetesObject[]): KubernetesObject {
  const daemonSet = objects.find(({ kind }) => kind === 'DaemonSet');
  if (!daemonSet) {
    throw new Error(`there is no DaemonSet in ${DIST}`);
  }
  return daemonSet;
}

/** What there is to say if pods of a workload are not there at all. */
function absence(workload: string, count: number, events: readonly Event[], where = ''): string[] {
  const denial = denialOf(workload, events);
  const why = denial === undefined ? '' : ` (${denial})`;
  return count > 0 ? [`${workload}: ${count} missing${where}${why}`] : [];
}

/** "Kind namespace/name", whoever made the object. */
function nameOf({ kind, metadata }: KubernetesObject): string {
  const place = metadata.namespace === undefined ? '' : `${metadata.namespace}/`;
  return `${kind} ${place}${metadata.name}`;
}

/** The namespaces by name, and how many others. */
function summaryOf(objects: readonly KubernetesObject[]): string {
  const namespaces = objects.filter(({ kind }) => kind === 'Namespace').map(nameOf);
  const others = objects.length - namespaces.length;
  return [...namespaces, ...(others > 0 ? [`${others} other objects`] : [])].join(', ');
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
