import { NO_VIRTUAL_NODES } from '../lib/private/virtual-nodes';
import {
  Container,
  ContainerStatus,
  DaemonSetSpec,
  Event,
  KubernetesObject,
  Node,
  Output,
  Pod,
} from './kubectl';
import { whyNot } from './waiting';

// What a run concludes from what kubectl printed: nothing here runs anything or waits.

/** One thing that was looked at. */
export interface Check {
  readonly name: string;
  readonly passed: boolean;
  readonly detail: string;
}

/** kubelets set memory.oom.group since 1.28; before, there is nothing to undo. */
const OLDEST_MINOR = 28;

/** How many minor versions a kubectl may be away from its server, by Kubernetes' version skew policy. */
const KUBECTL_SKEW = 1;

/** The caps of the herder. */
const MAX_MILLICPUS = 250;
const MAX_MEBIBYTES = 256;

/** What `kubectl version -o json` tells, whatever its exit status. */
export interface Versions {
  readonly client?: string;
  /** None if the server answered, but not with a version. */
  readonly server?: string;
}

/**
 * Reads `kubectl version -o json`. It fails where the server's version does not parse, or must not be
 * read: that is no reason to look at nothing. One that reached no server throws, in kubectl's words.
 */
export function readVersions({ status, stdout, stderr }: Output): Versions {
  const answered = /^Error from server|could not parse|unable to parse the server version/m;
  if (status !== 0 && !answered.test(stderr)) {
    throw new Error(`kubectl version -o json: ${stderr.trim() || `exit status ${status}`}`);
  }
  const { clientVersion, serverVersion } = JSON.parse(stdout) as Record<string, VersionInfo>;
  return { client: clientVersion?.gitVersion, server: serverVersion?.gitVersion };
}

type VersionInfo = { readonly gitVersion: string } | undefined;

/** Whether the API server is new enough; no kubelet may be newer, so that those answer for one that is not known. */
export function serverVersion({ server = '' }: Versions): Check {
  const name = 'Kubernetes 1.28 or later';
  return numbers(server)
    ? { name, passed: isNewEnough(server), detail: server }
    : {
        name,
        passed: true,
        detail: `the API server's version is not known ("${server}"); the kubelets' are asked for`,
      };
}

/** What to say of a kubectl that is not made for its server; it may do all the same. */
export function kubectlSkew({ client = '', server = '' }: Versions): string[] {
  const [ours, theirs] = [numbers(client), numbers(server)];
  return ours && theirs && Math.abs(ours[1] - theirs[1]) > KUBECTL_SKEW
    ? [`kubectl ${client} is more than one minor version away from the server's ${server}`]
    : [];
}

/** Of a version that is known. */
function isNewEnough(version: string): boolean {
  const [major, minor] = numbers(version) ?? [0, 0];
  return major > 1 || (major === 1 && minor >= OLDEST_MINOR);
}

/** Major and minor of "v1.31.4+k3s1"; every distribution has a tail of its own, a build without tags is v0.0.0. */
function numbers(version: string): [major: number, minor: number] | undefined {
  const [, major, minor] = /^v?(\d+)\.(\d+)/.exec(version) ?? [];
  return Number(major) > 0 ? [Number(major), Number(minor)] : undefined;
}

/** What the run is going to do, in the words of `kubectl auth can-i`. */
export interface Permission {
  readonly verb: string;
  readonly resource: string;
  readonly subresource?: string;
  /** Without it, in all namespaces, or of the whole cluster. */
  readonly namespace?: string;
}

/** The arguments of `kubectl` that ask for a permission. */
export function canI({ verb, resource, subresource, namespace }: Permission): string[] {
  return [
    ...['auth', 'can-i', verb, resource],
    ...(subresource === undefined ? [] : [`--subresource=${subresource}`]),
    ...(namespace === undefined ? ['--all-namespaces'] : ['--namespace', namespace]),
  ];
}

/** What it takes to look at the cluster at all. */
export const TO_LOOK: readonly Permission[] = [
  { verb: 'list', resource: 'nodes' },
  { verb: 'list', resource: 'daemonsets.apps' },
];

/** What it takes to watch the pods of a namespace and to read their logs. */
export function toWatch(namespace: string): Permission[] {
  return [
    { verb: 'list', resource: 'pods', namespace },
    { verb: 'get', resource: 'pods', namespace },
    { verb: 'get', resource: 'pods', subresource: 'log', namespace },
  ];
}

/** The answer of `kubectl auth can-i`, which may go on with a reason; none if it could not ask. */
export function isAllowed(stdout: string): boolean | undefined {
  const [, answer] = /^(yes|no)\b/.exec(stdout) ?? [];
  return answer === undefined ? undefined : answer === 'yes';
}

/** What it takes to create objects and to remove them. */
export function toCreate(objects: readonly KubernetesObject[]): Permission[] {
  return toManage(objects, ['get', 'create', 'delete']);
}

/** What it takes to apply objects, some of which may be there, and to remove them. */
export function toApply(objects: readonly KubernetesObject[]): Permission[] {
  return toManage(objects, ['get', 'create', 'patch', 'delete']);
}

/** Nobody may grant what they do not have. */
function toManage(
  objects: readonly KubernetesObject[],
  verbsForEach: readonly string[],
): Permission[] {
  const own = objects.flatMap((object) =>
    verbsForEach.map((verb) => ({
      verb,
      resource: resourceOf(object),
      namespace: object.metadata.namespace,
    })),
  );
  const granted = objects
    .filter(({ kind }) => kind === 'ClusterRole')
    .flatMap((role) => (role as { rules?: Rule[] }).rules ?? [])
    .flatMap(({ apiGroups, resources, verbs }) =>
      verbs.flatMap((verb) =>
        resources.map((resource) => ({ verb, resource: qualified(resource, apiGroups[0] ?? '') })),
      ),
    );
  const all = new Map([...own, ...granted].map((one) => [JSON.stringify(one), one]));
  return [...all.values()];
}

interface Rule {
  readonly apiGroups: string[];
  readonly resources: string[];
  readonly verbs: string[];
}

function resourceOf({ apiVersion, kind }: KubernetesObject): string {
  const singular = kind.toLowerCase();
  const plural = singular.endsWith('y') ? `${singular.slice(0, -1)}ies` : `${singular}s`;
  const [group = ''] = apiVersion.includes('/') ? apiVersion.split('/') : [];
  return qualified(plural, group);
}

function qualified(resource: string, group: string): string {
  return group === '' ? resource : `${resource}.${group}`;
}

/** Whether nothing is missing; what is missing, as commands to try again. */
export function permissions(
  purpose: string,
  asked: readonly Permission[],
  missing: readonly Permission[],
): Check {
  return {
    name: `permission to ${purpose}`,
    passed: missing.length === 0,
    detail:
      missing.length === 0
        ? `${asked.length} asked for, all there`
        : `"no" to: ${missing.map((one) => `kubectl ${canI(one).join(' ')}`).join('; ')}`,
  };
}

/** A node that the run uses. */
export interface UsableNode {
  readonly name: string;
  readonly hostname: string;
  readonly kubelet: string;
}

/** The nodes that can run a herder with an agent, and what to say of them and of the others. */
export function usableNodes(nodes: readonly Node[]): {
  usable: UsableNode[];
  notes: string[];
} {
  const usable: UsableNode[] = [];
  const notes: string[] = [];
  for (const node of nodes) {
    const name = node.metadata?.name ?? '';
    const problem = whyUnusable(node);
    const kubelet = node.status?.nodeInfo?.kubeletVersion ?? '';
    if (problem === undefined) {
      if (!numbers(kubelet)) {
        notes.push(`${name}: its kubelet's version is not known ("${kubelet}")`);
      }
      usable.push({
        name,
        hostname: node.metadata?.labels?.['kubernetes.io/hostname'] ?? name,
        kubelet,
      });
    } else {
      notes.push(`${name} is left out: ${problem}`);
    }
  }
  return { usable: usable.sort((a, b) => a.name.localeCompare(b.name)), notes };
}

function isVirtual(labels: Readonly<Record<string, string>>): boolean {
  return NO_VIRTUAL_NODES.some(({ key, operator, values = [] }) => {
    const value = labels[key];
    return value !== undefined && (operator === 'DoesNotExist' || values.includes(value));
  });
}

function whyUnusable({ metadata, status }: Node): string | undefined {
  const labels = metadata?.labels ?? {};
  // First, since they have what labels, system and version they like.
  if (isVirtual(labels)) {
    return 'it is virtual and has no agent';
  }
  const os = labels['kubernetes.io/os'] ?? status?.nodeInfo?.operatingSystem;
  if (os !== 'linux') {
    return `its system is ${os ?? 'unknown'}`;
  }
  const ready = status?.conditions?.find(({ type }) => type === 'Ready');
  if (ready?.status !== 'True') {
    return 'it is not ready';
  }
  const kubelet = status?.nodeInfo?.kubeletVersion ?? '';
  return !numbers(kubelet) || isNewEnough(kubelet)
    ? undefined
    : `its kubelet is ${kubelet}, and those before 1.28 never set memory.oom.group`;
}

/** The agent of a cluster: where to find its pods, and what to write on ours. */
export interface Agent {
  readonly namespace: string;
  readonly name: string;
  readonly selector: string;
  readonly labelPrefix: string;
  readonly image: string;
}

/** Reads an agent's DaemonSet, whether from dist/ or from the cluster. */
export function readAgent(daemonSet: KubernetesObject): Agent {
  const { metadata } = daemonSet;
  const { spec } = daemonSet as { spec?: DaemonSetSpec };
  const container = spec?.template.spec?.containers.find(({ name }) => name === 'agent');
  const prefix = container?.env?.find(({ name }) => name === 'LABEL_PREFIX')?.value;
  if (metadata.namespace === undefined || !container?.image || !prefix) {
    throw new Error(`DaemonSet ${metadata.name} is not an agent of cdk8s-oom-kill-mode`);
  }
  const labels = Object.entries(spec?.selector.matchLabels ?? {});
  return {
    namespace: metadata.namespace,
    name: metadata.name,
    selector: labels.map(([key, value]) => `${key}=${value}`).join(','),
    labelPrefix: prefix,
    image: container.image,
  };
}

/** The pods of a workload or an agent on a node, but not those that are on their way out. */
function on(node: string, pods: readonly Pod[]): Pod[] {
  return pods.filter((pod) => pod.spec?.nodeName === node && !pod.metadata?.deletionTimestamp);
}

/** The pods of one of the workloads. */
export function podsOf(name: string, pods: readonly Pod[]): Pod[] {
  return pods.filter((pod) => pod.metadata?.labels?.['app.kubernetes.io/name'] === name);
}

export function isReady(pod: Pod): boolean {
  return pod.status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'True';
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

/** Of a pod with init containers: a restart of one of those counts as well. */
function restarts(pod: Pod): number {
  const all = [...(pod.status?.initContainerStatuses ?? []), ...statuses(pod)];
  return all.reduce((sum, { restartCount }) => sum + restartCount, 0);
}

/** What an agent said of its node. */
export interface AgentLog {
  readonly node: string;
  /** What containers without the label have: "0" or "1"; not known from a log that was rotated. */
  readonly nodeValue?: string;
  readonly cgroupV1: boolean;
  /** Survived kills by "namespace/name" of the pod. */
  readonly kills: ReadonlyMap<string, number>;
  readonly warnings: readonly string[];
}

/** Reads `kubectl logs` of an agent: one JSON object a line, by its keys; the texts are free to change. */
export function readAgentLog(node: string, text: string): AgentLog {
  let nodeValue: string | undefined;
  let cgroupV1 = false;
  const totals = new Map<string, Map<string, number>>();
  const warnings = new Set<string>();
  for (const line of text.split('\n').map(parseLine)) {
    nodeValue = line['nodeValue'] ?? nodeValue;
    const { level, msg = '', condition, pod, container = '', kills, total } = line;
    // An agent that was there before may be an older one, that had no key for it.
    cgroupV1 ||= condition === 'cgroup_v1' || msg.startsWith('cgroup v1');
    if (pod !== undefined && kills !== undefined && total !== undefined) {
      totals.set(pod, (totals.get(pod) ?? new Map<string, number>()).set(container, Number(total)));
    } else if (level === 'warn' || level === 'error') {
      warnings.add(`${node}: ${pod === undefined ? '' : `${pod}: `}${msg}`);
    }
  }
  const kills = [...totals].map(([pod, containers]): [string, number] => [
    pod,
    sum([...containers.values()]),
  ]);
  return { node, nodeValue, cgroupV1, kills: new Map(kills), warnings: [...warnings] };
}

/** The strings of a line that is a JSON object; the shell's own complaints are not. */
function parseLine(line: string): Record<string, string | undefined> {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'object' && value !== null ? (value as Record<string, string>) : {};
  } catch {
    return {};
  }
}

/** Whether there is anything to choose on these nodes. */
export function cgroupV2(logs: readonly AgentLog[]): Check {
  const old = logs.filter((log) => log.cgroupV1).map(({ node }) => node);
  const told = logs.filter((log) => log.nodeValue !== undefined).length;
  return {
    name: 'cgroup v2',
    passed: old.length === 0,
    detail:
      old.length > 0
        ? `cgroup v1, where there is nothing to choose, on ${old.join(', ')}`
        : `the agents say so on ${told} of ${logs.length} nodes`,
  };
}

/** What a run has seen in the end. */
export interface Observation {
  readonly nodes: readonly string[];
  /** How long it looked. */
  readonly seconds: number;
  /** The herders when it began to look, and at the end. */
  readonly before: readonly Pod[];
  readonly herders: readonly Pod[];
  readonly twins: readonly Pod[];
  /** The first line of the log of each node's probe. */
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
    const twins = on(node, seen.twins);
    return {
      node,
      firstInstruction: firstInstruction(seen.probes.get(node)),
      herderRestarts: herders.length === 0 ? undefined : sum(herders.map(restarts)),
      ...survivedKills(herders, seen),
      twin: twins.map(twinStory).join(', ') || 'not there',
    };
  });
}

/** Everything that the run was made for. */
export function judge(seen: Observation): Check[] {
  const rows = nodeRows(seen);
  return [
    firstInstructions(rows),
    onePerNode(seen),
    withinLimits([...seen.herders, ...seen.twins]),
    noRestarts(seen),
    survived(rows),
    twinRestarted(seen),
  ];
}

/** Whether to stop looking early is no use: what can still come has come. */
export function isComplete(seen: Observation): boolean {
  return survived(nodeRows(seen)).passed && twinRestarted(seen).passed;
}

function firstInstruction(line = ''): string {
  return /^memory\.oom\.group=(\w+)$/m.exec(line)?.[1] ?? 'not seen';
}

function firstInstructions(rows: readonly NodeRow[]): Check {
  const wrong = rows.filter((row) => row.firstInstruction !== '0');
  return {
    name: 'Single at the first instruction',
    passed: wrong.length === 0,
    detail:
      wrong.length === 0
        ? 'memory.oom.group is 0 in every probe'
        : wrong.map((row) => `${row.node}: ${row.firstInstruction}`).join(', '),
  };
}

function onePerNode({ nodes, herders }: Observation): Check {
  const wrong = nodes.filter((node) => on(node, herders).length !== 1);
  const elsewhere = herders.filter((pod) => !nodes.includes(pod.spec?.nodeName ?? ''));
  return {
    name: 'one herder on each node',
    passed: wrong.length === 0 && elsewhere.length === 0,
    detail:
      wrong.length === 0 && elsewhere.length === 0
        ? `${nodes.length} nodes`
        : [
            ...wrong.map((node) => `${node} has ${on(node, herders).length}`),
            ...elsewhere.map((pod) => `${pod.metadata?.name ?? ''} is on none of them`),
          ].join(', '),
  };
}

/** The limits as the API server has them, with whatever was injected into the pods. */
function withinLimits(pods: readonly Pod[]): Check {
  const over = pods.filter(
    (pod) =>
      !(millicpus(pod) <= MAX_MILLICPUS) || !(limitOf(pod, 'memory') <= MAX_MEBIBYTES * 2 ** 20),
  );
  return {
    name: 'no pod over 250m CPU and 256Mi',
    passed: over.length === 0,
    detail:
      over.length === 0
        ? `${pods.length} pods`
        : over
            .map(
              (pod) =>
                `${pod.metadata?.name ?? ''} has ${millicpus(pod)}m and ${limitOf(pod, 'memory') / 2 ** 20}Mi`,
            )
            .join(', '),
  };
}

/** Whole ones: 0.1 and 0.2 are more than 0.3. */
function millicpus(pod: Pod): number {
  return Math.round(limitOf(pod, 'cpu') * 1000);
}

/** What a pod can use at most: its containers and sidecars together, or one of its init containers. */
function limitOf({ spec }: Pod, resource: 'cpu' | 'memory'): number {
  const limit = (container: Container) => quantity(container.resources?.limits?.[resource]);
  const inits = spec?.initContainers ?? [];
  const sidecars = inits.filter(({ restartPolicy }) => restartPolicy === 'Always');
  const together = [...(spec?.containers ?? []), ...sidecars].map(limit);
  return Math.max(sum(together), ...inits.map(limit));
}

const UNITS: Readonly<Record<string, number>> = {
  ...{ n: 1e-9, u: 1e-6, m: 1e-3, '': 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18 },
  ...{ Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50, Ei: 2 ** 60 },
};

/** A Kubernetes quantity as a number; no limit is an infinite one. */
export function quantity(text: string | undefined): number {
  if (text === undefined) {
    return Infinity;
  }
  const [, amount, unit = ''] = /^(\d+(?:\.\d+)?(?:[eE]-?\d+)?)([a-zA-Z]*)$/.exec(text) ?? [];
  return Number(amount) * (UNITS[unit] ?? NaN);
}

function noRestarts({ before, herders, seconds }: Observation): Check {
  const uids = new Set(herders.map((pod) => pod.metadata?.uid));
  const gone = before.filter((pod) => !uids.has(pod.metadata?.uid));
  const restarted = herders.filter((pod) => restarts(pod) > 0);
  const down = herders.filter((pod) => restarts(pod) === 0 && !isReady(pod));
  const problems = [
    ...restarted.map((pod) => `${describe(pod)} ${story(pod)}`),
    ...gone.map((pod) => `${describe(pod)} was replaced`),
    ...down.map((pod) => `${describe(pod)} is not ready`),
  ];
  return {
    name: 'no herder restarted',
    passed: problems.length === 0 && herders.length > 0,
    detail: problems.join(', ') || `${herders.length} herders for ${seconds} s`,
  };
}

function survivedKills(
  pods: readonly Pod[],
  { events, logs }: Observation,
): Pick<NodeRow, 'survivedKills' | 'seenIn'> {
  const uids = new Set(pods.map((pod) => pod.metadata?.uid));
  const inEvents = events
    .filter(({ reason }) => reason === 'OomKilledProcess')
    .filter(({ involvedObject }) => uids.has(involvedObject.uid))
    .map(({ count }) => count ?? 1);
  if (inEvents.length > 0) {
    return { survivedKills: sum(inEvents), seenIn: 'Event' };
  }
  const names = pods.map(({ metadata }) => `${metadata?.namespace ?? ''}/${metadata?.name ?? ''}`);
  const inLogs = sum(logs.flatMap(({ kills }) => names.map((name) => kills.get(name) ?? 0)));
  return inLogs > 0 ? { survivedKills: inLogs, seenIn: 'log' } : { survivedKills: 0 };
}

function survived(rows: readonly NodeRow[]): Check {
  const without = rows.filter((row) => row.survivedKills === 0);
  return {
    name: 'every herder survived an OOM kill',
    passed: without.length === 0 && rows.length > 0,
    detail:
      without.length === 0
        ? `${sum(rows.map((row) => row.survivedKills))} processes killed`
        : `not seen, neither in Events nor in the agents' logs, on ${without.map(({ node }) => node).join(', ')}`,
  };
}

/** What shows that the difference is ours: without the label, all of the container dies. */
function twinRestarted({ nodes, twins, logs }: Observation): Check {
  const problems = nodes
    .filter((node) => !on(node, twins).some(wasKilled))
    .map((node) => {
      const nodeValue = logs.find((log) => log.node === node)?.nodeValue;
      return nodeValue === '0'
        ? `on ${node} containers without the label have 0, too: nothing to tell apart`
        : `on ${node} it ${on(node, twins).map(story).join(', ') || 'is not there'}`;
    });
  return {
    name: 'the twin without the label is killed and restarted',
    passed: problems.length === 0,
    detail: problems.join(', ') || `on ${nodes.length} of ${nodes.length} nodes`,
  };
}

/** Restarted after an OOM kill. Some runtimes only tell that it was SIGKILL: 137 without the reason. */
function wasKilled(pod: Pod): boolean {
  return statuses(pod).some(({ restartCount, lastState, state }) => {
    const { reason, exitCode } = lastState?.terminated ?? state?.terminated ?? {};
    return restartCount > 0 && (reason === 'OOMKilled' || exitCode === 137);
  });
}

function twinStory(pod: Pod): string {
  return hasStarted(pod) ? story(pod) : whyNot(pod);
}

/** "restarted 2 times, last OOMKilled (137)". */
function story(pod: Pod): string {
  const count = restarts(pod);
  const last = [...(pod.status?.initContainerStatuses ?? []), ...statuses(pod)]
    .map(({ lastState, state }) => lastState?.terminated ?? state?.terminated)
    .find((terminated) => terminated && terminated.exitCode !== 0);
  const times = count === 1 ? 'once' : `${count} times`;
  const why = last ? `, last ${last.reason ?? 'ended'} (${last.exitCode})` : '';
  return count === 0 ? `never restarted${why}` : `restarted ${times}${why}`;
}

function describe(pod: Pod): string {
  return `${pod.metadata?.name ?? ''} on ${pod.spec?.nodeName ?? 'no node'}`;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
