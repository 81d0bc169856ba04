import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import * as cluster from './cluster';
import { Check, Observation, check, judge, nodeRows, toCome } from './judgement';
import { Kubectl, KubernetesObject, Right, list, rightsTo } from './kubectl';
import { agentManifests, workloads } from './manifests';
import { Report } from './report';

export interface Options {
  readonly context?: string;
  /** Seconds to look at the herders. */
  readonly duration: number;
  /** Seconds to wait for pods to start, and for objects to be gone. */
  readonly timeout: number;
  readonly keep: boolean;
  readonly image?: string;
  readonly 'herder-image'?: string;
}

/** Events are sent at most every ten seconds, and a kubelet restarts with growing pauses. */
const GRACE_SECONDS = 60;

const NAME = 'app.kubernetes.io/name';

/** A check that failed and that nothing after it makes sense without. */
class Failure extends Error {}

/** One run against a cluster, and what it has found. */
export class Run {
  public readonly checks: Check[] = [];
  private readonly kubectl: Kubectl;
  private readonly namespace = `oom-kill-mode-e2e-${randomBytes(3).toString('hex')}`;
  private readonly notes: string[] = [];
  /** What is there only because of this run. */
  private readonly created: KubernetesObject[] = [];
  private nodes: string[] = [];
  private seen?: Observation;
  private lastSaid = '';

  /** @param stop Ends the run. Its reason is the name of a signal. */
  public constructor(
    private readonly options: Options,
    private readonly stop: AbortSignal,
  ) {
    this.kubectl = new Kubectl(options.context);
  }

  /** Does everything but clean up. What went wrong is among the checks. */
  public async execute(): Promise<void> {
    try {
      await this.steps();
    } catch (error) {
      if (this.stop.aborted) {
        this.checks.push(check('the run itself', [`interrupted by ${String(this.stop.reason)}`]));
      } else if (!(error instanceof Failure)) {
        this.checks.push(check('the run itself', [messageOf(error)]));
      }
    }
  }

  /** Removes what is there only because of this run, whatever happened to it. */
  public async cleanUp(): Promise<void> {
    const { created, options } = this;
    const names = created.map(nameOf).join(', ');
    if (created.length === 0) {
      return;
    }
    if (options.keep) {
      this.notes.push(`kept: ${names}`);
      return;
    }
    this.say('cleaning up');
    const wait = ['--ignore-not-found', `--timeout=${options.timeout}s`];
    const deleted = this.kubectl.text(['delete', '-f', '-', ...wait], list(created));
    const problems = await deleted.then(
      () => [],
      (error: unknown) => [messageOf(error)],
    );
    this.checks.push(check('cleaned up', problems, names));
  }

  public report(): Report {
    const { checks, notes, seen } = this;
    const passed = checks.every((one) => one.passed);
    return { passed, nodes: seen ? nodeRows(seen) : [], notes, checks };
  }

  private async steps(): Promise<void> {
    const { kubectl, options, namespace } = this;
    const context = options.context ?? (await kubectl.text(['config', 'current-context'])).trim();
    const { gitVersion } = JSON.parse(await kubectl.text(['get', '--raw', '/version'])) as {
      gitVersion: string;
    };
    const old = cluster.isTooOld(gitVersion) ? [gitVersion] : [];
    this.require(check('Kubernetes 1.28 or later', old, gitVersion));
    this.say(`context ${context}, ${gitVersion}`);
    await this.requireRights('look around', [
      { verb: 'list', resource: 'nodes' },
      { verb: 'list', group: 'apps', resource: 'daemonsets' },
    ]);
    const hostnames = await this.findNodes();

    const there = await this.findAgent();
    const manifests = there ? [] : agentManifests(options.image);
    const daemonSet = there ?? manifests.find(({ kind }) => kind === 'DaemonSet') ?? {};
    const agent = cluster.readAgent(daemonSet);
    const pods = workloads(namespace, hostnames, agent, options['herder-image']);
    // Before anything is changed.
    const install = rightsTo(['get', 'create', 'patch', 'delete'], manifests);
    await this.requireRights('install the agent', install);
    await this.requireRights('run pods', [
      ...rightsTo(['get', 'create', 'delete'], pods),
      ...[namespace, agent.namespace].flatMap((one) => [
        { verb: 'list', resource: 'pods', namespace: one },
        { verb: 'get', resource: 'pods', namespace: one },
        { verb: 'get', resource: 'pods', subresource: 'log', namespace: one },
      ]),
      { verb: 'list', resource: 'events', namespace },
    ]);
    if (!there) {
      await this.installAgent(manifests);
    }
    const ready = 'the agent is ready on each node';
    await this.waitFor(ready, agent, [agent.name], (pod) => pod.ready);
    // What an agent says of its node is the first that it says.
    const first = await this.agentLines(agent, '--limit-bytes=100000');
    this.require(cgroupV2(first));

    this.say(`namespace ${namespace}: herder, twin and probe`);
    this.created.push(...pods.filter(({ kind }) => kind === 'Namespace'));
    await kubectl.text(['create', '-f', '-'], list(pods));
    const started = 'herder, twin and probe have started';
    const three = ['herder', 'twin', 'probe'];
    // Herder and twin may be down again by now. That is for the judgement.
    await this.waitFor(started, { namespace }, three, (pod) => pod.started);
    this.seen = await this.observe(agent, first);
    this.checks.push(...judge(this.seen));
    this.notes.push(...warnings(this.seen.said));
  }

  /** Adds a check that must have passed for the run to go on. */
  private require(one: Check): void {
    this.checks.push(one);
    if (!one.passed) {
      throw new Failure();
    }
    this.stop.throwIfAborted();
  }

  private async requireRights(purpose: string, rights: readonly Right[]): Promise<void> {
    const missing = rights.length > 0 ? await this.kubectl.missing(rights) : [];
    const problems = missing.map((command) => `"no" to ${command}`);
    this.require(check(`permission to ${purpose}`, problems, `${rights.length} asked for`));
  }

  /** Says what is going on, once. */
  private say(text: string): void {
    if (text !== this.lastSaid) {
      process.stderr.write(`${text}\n`);
    }
    this.lastSaid = text;
  }

  /** The values of the nodes' label `kubernetes.io/hostname`. */
  private async findNodes(): Promise<string[]> {
    const { usable, notes } = cluster.usableNodes(await this.kubectl.get<cluster.Node>(['nodes']));
    this.notes.push(...notes);
    this.nodes = usable.map(({ name }) => name);
    const kubelets = usable.map(({ name, kubelet }) => `${name} ${kubelet}`).join(', ');
    this.require(check('nodes', usable.length > 0 ? [] : ['none can run a herder'], kubelets));
    return usable.map(({ hostname }) => hostname);
  }

  /** An agent that is there already stays as it is, and stays. */
  private async findAgent(): Promise<cluster.DaemonSet | undefined> {
    const all = ['daemonsets.apps', '--all-namespaces', '-l', `${NAME}=cdk8s-oom-kill-mode`];
    const agents = await this.kubectl.get<KubernetesObject>(all);
    const names = agents.map(nameOf).join(', ');
    if (agents.length > 1) {
      throw new Error(`there are several agents; leave one: ${names}`);
    }
    if (agents.length === 1) {
      this.notes.push(`the agent was there already and stays as it is: ${names}`);
    }
    return agents[0];
  }

  private async installAgent(objects: KubernetesObject[]): Promise<void> {
    this.say('installing the agent');
    const get = ['-f', '-', '--ignore-not-found'];
    const there = (await this.kubectl.get<KubernetesObject>(get, list(objects))).map(nameOf);
    if (there.length > 0) {
      this.notes.push(`were there already, are patched and stay: ${there.join(', ')}`);
    }
    this.stop.throwIfAborted();
    this.created.push(...objects.filter((object) => !there.includes(nameOf(object))));
    await this.kubectl.text(['apply', '-f', '-'], list(objects));
  }

  /** Waits for a pod of each workload on each node, and says why one is not there. */
  private async waitFor(
    name: string,
    { namespace, selector }: { readonly namespace: string; readonly selector?: string },
    names: readonly string[],
    isUp: (pod: cluster.Pod) => boolean,
  ): Promise<void> {
    const { nodes, options } = this;
    const end = Date.now() + options.timeout * 1000;
    for (;;) {
      const up = (await this.podsIn(namespace, selector)).filter(isUp);
      // Only to explain: in the agent's namespace, not everybody may list them.
      const events = await this.eventsIn(namespace).catch(() => []);
      const missing = names.flatMap((workload) => {
        const theirs = up.filter((pod) => cluster.isOf(workload, pod));
        const without = nodes.filter((node) => theirs.every((pod) => pod.node !== node));
        const where = `${workload}: not on ${without.join(', ')}`;
        return without.length > 0 ? [`${where}${cluster.lastProblem(workload, events)}`] : [];
      });
      const text = `${up.length} of ${names.length * nodes.length} pods`;
      this.say([`${name}: ${text}`, ...missing].join('; '));
      if (missing.length === 0 || Date.now() >= end) {
        const problem = [`${text} after ${options.timeout} s`, ...missing].join('; ');
        this.require(check(name, missing.length > 0 ? [problem] : [], text));
        return;
      }
      await sleep(1000, undefined, { signal: this.stop });
    }
  }

  /** Looks at the pods for as long as it was asked to, and a little longer for what is still to come. */
  private async observe(
    agent: cluster.Agent,
    first: readonly cluster.AgentLine[],
  ): Promise<Observation> {
    const { nodes, namespace } = this;
    const { duration, timeout } = this.options;
    const began = Date.now();
    const before = await this.podsIn(namespace);
    const probes = new Map(await this.logs(namespace, `${NAME}=probe`, 'probe', '--tail=1'));
    for (;;) {
      const pods = await this.podsIn(namespace);
      const events = await this.eventsIn(namespace);
      const seconds = Math.floor((Date.now() - began) / 1000);
      // By the clock of the node, which may not be ours.
      const since = `--since=${seconds + timeout}s`;
      const later = seconds < duration ? [] : await this.agentLines(agent, since);
      const seen = { nodes, seconds, before, pods, probes, events, said: [...first, ...later] };
      const waits = toCome(seen).filter(({ passed }) => !passed);
      this.say([`${seconds} of ${duration} s`, ...waits.map(({ detail }) => detail)].join('; '));
      const last = duration + Math.min(duration, GRACE_SECONDS);
      if (seconds >= last || (seconds >= duration && waits.length === 0)) {
        return seen;
      }
      const pause = Math.min(Math.max(1, duration / 12), 30);
      await sleep(pause * 1000, undefined, { signal: this.stop });
    }
  }

  private async eventsIn(namespace: string): Promise<cluster.Event[]> {
    return this.kubectl.get<cluster.Event>(['events', '--namespace', namespace]);
  }

  /** Pods that are not on their way out, nor on nodes that are left out. */
  private async podsIn(namespace: string, selector = ''): Promise<cluster.Pod[]> {
    const get = ['pods', '--namespace', namespace, '--selector', selector];
    const pods = await this.kubectl.get<cluster.PodObject>(get);
    return pods
      .filter(({ metadata }) => !metadata?.deletionTimestamp)
      .map(cluster.readPod)
      .filter(({ node }) => this.nodes.includes(node));
  }

  private async agentLines(agent: cluster.Agent, part: string): Promise<cluster.AgentLine[]> {
    const lines = await this.logs(agent.namespace, agent.selector, 'agent', '--tail=-1', part);
    return cluster.readAgentLines(lines);
  }

  /** The lines of a container's logs, each with its node. A pod that has none is left out. */
  private async logs(namespace: string, selector: string, container: string, ...part: string[]) {
    const pods = await this.podsIn(namespace, selector);
    const which = ['-n', namespace, '-l', selector, '-c', container, ...part];
    const text = await this.kubectl.text(['logs', '--prefix', '--ignore-errors', ...which]);
    // Behind the last line of a log that was cut off comes the next log.
    const lines = text.matchAll(/^.*\[pod\/([^/]+)\/[^\]]+\] (.*)$/gm);
    return [...lines].map(([, name, line = '']): [node: string, line: string] => [
      pods.find((pod) => pod.name === name)?.node ?? '',
      line,
    ]);
  }
}

/** Whether there is anything to choose on these nodes. */
function cgroupV2(said: readonly cluster.AgentLine[]): Check {
  const old = said.filter((line) => line.condition === 'cgroup_v1').map(({ node }) => node);
  const problem = `cgroup v1, where there is nothing to choose, on ${old.join(', ')}`;
  return check('cgroup v2', old.length > 0 ? [problem] : [], 'no agent says otherwise');
}

/** What the agents warn of, each thing once. */
function warnings(said: readonly cluster.AgentLine[]): string[] {
  const texts = said
    .filter(({ level, kills }) => (level === 'warn' || level === 'error') && kills === undefined)
    .map(({ node, pod, msg }) => [node, pod, msg].filter(Boolean).join(': '));
  return [...new Set(texts)];
}

/** "Kind namespace/name". */
function nameOf({ kind, metadata: { name, namespace } }: KubernetesObject): string {
  return `${kind} ${namespace === undefined ? '' : `${namespace}/`}${name}`;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
