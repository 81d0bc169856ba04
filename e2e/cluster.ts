import type { CoreV1Event, V1Container, V1DaemonSet, V1Node, V1Pod } from 'k8s-1.28';

import { NO_VIRTUAL_NODES } from '../lib/private/virtual-nodes';
import { Json } from './kubectl';

// What a run reads from the objects and logs of a cluster.

export type DaemonSet = Json<V1DaemonSet>;
export type Event = Json<CoreV1Event>;
export type Node = Json<V1Node>;
export type PodObject = Json<V1Pod>;

/** kubelets set memory.oom.group since 1.28. A build without tags is v0.0.0, which passes. */
export function isTooOld(version: string): boolean {
  const [, minor = Infinity] = /^v?1\.(\d+)/.exec(version) ?? [];
  return Number(minor) < 28;
}

/** The nodes that can run a herder with an agent, and why the others are left out. */
export function usableNodes(nodes: readonly Node[]) {
  const all = nodes.map((node) => {
    const name = node.metadata?.name ?? '';
    const hostname = node.metadata?.labels?.['kubernetes.io/hostname'] ?? name;
    const kubelet = node.status?.nodeInfo?.kubeletVersion ?? '';
    return { name, hostname, kubelet, problem: whyUnusable(node, kubelet) };
  });
  const usable = all.filter(({ problem }) => problem === undefined);
  return {
    usable: usable.sort((a, b) => a.name.localeCompare(b.name)),
    notes: all.flatMap(({ name, problem }) => (problem ? [`${name} is left out: ${problem}`] : [])),
  };
}

function whyUnusable({ metadata, status }: Node, kubelet: string): string | undefined {
  const labels = metadata?.labels ?? {};
  const isVirtual = NO_VIRTUAL_NODES.some(({ key, operator, values = [] }) => {
    const value = labels[key];
    return value !== undefined && (operator === 'DoesNotExist' || values.includes(value));
  });
  // In this order, because virtual ones may have any system and version.
  const problems: [string, boolean][] = [
    ['it is virtual and has no agent', isVirtual],
    ['its system is not Linux', labels['kubernetes.io/os'] !== 'linux'],
    ['it is not ready', !isReady({ status })],
    [`its kubelet is ${kubelet}, and only 1.28 or later can do it`, isTooOld(kubelet)],
  ];
  return problems.find(([, is]) => is)?.[0];
}

function isReady({ status }: Pick<PodObject | Node, 'status'>): boolean {
  return status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'True';
}

/** The agent of a cluster: where to find its pods, and what to write on ours. */
export type Agent = ReturnType<typeof readAgent>;

/** Reads an agent's DaemonSet, whether from dist/ or from the cluster. */
export function readAgent({ metadata, spec }: DaemonSet) {
  const { name = '', namespace } = metadata ?? {};
  const container = spec?.template.spec?.containers.find((one) => one.name === 'agent');
  const labelPrefix = container?.env?.find((one) => one.name === 'LABEL_PREFIX')?.value;
  if (namespace === undefined || !container?.image || !labelPrefix) {
    throw new Error(`DaemonSet ${name} is not an agent of cdk8s-oom-kill-mode`);
  }
  const labels = Object.entries(spec?.selector.matchLabels ?? {});
  const selector = labels.map(([key, value]) => `${key}=${value}`).join(',');
  return { namespace, name, selector, labelPrefix, image: container.image };
}

/** A line of an agent's log, and its node. The keys are stable, the texts are not. */
export type AgentLine = Readonly<Record<string, string | undefined>> & { readonly node: string };

/** The shell's own complaints are no JSON. */
export function readAgentLines(lines: readonly [node: string, line: string][]): AgentLine[] {
  return lines
    .filter(([, line]) => /^\{.*\}$/.test(line))
    .map(([node, line]) => ({ ...(JSON.parse(line) as object), node }));
}

/** A pod, as far as a run looks at it. */
export type Pod = ReturnType<typeof readPod>;

export function readPod({ metadata, spec, status }: PodObject) {
  const { containerStatuses: main = [], initContainerStatuses: inits = [] } = status ?? {};
  const all = [...inits, ...main];
  const restarts = sum(all.map(({ restartCount }) => restartCount));
  const ends = all.flatMap(
    ({ lastState, state }) => lastState?.terminated ?? state?.terminated ?? [],
  );
  const last = ends.find(({ exitCode }) => exitCode !== 0);
  // Those that run beside each other.
  const sidecars = spec?.initContainers?.filter((one) => one.restartPolicy === 'Always') ?? [];
  const containers = [...(spec?.containers ?? []), ...sidecars];
  return {
    name: metadata?.name ?? '',
    namespace: metadata?.namespace ?? '',
    uid: metadata?.uid ?? '',
    /** Empty before it is scheduled. */
    node: spec?.nodeName ?? '',
    started: main.some(({ state, restartCount }) => state?.running ?? restartCount > 0),
    ready: isReady({ status }),
    // Some runtimes only tell that it was SIGKILL: 137 without the reason.
    killed: restarts > 0 && (last?.reason === 'OOMKilled' || last?.exitCode === 137),
    restarts,
    /** "restarted 2 times, last OOMKilled (137)". */
    story:
      (['never restarted', 'restarted once'][restarts] ?? `restarted ${restarts} times`) +
      (last ? `, last ${last.reason ?? 'ended'} (${last.exitCode})` : ''),
    /** What it can use at most. Whole thousandths, because 0.1 and 0.2 are more than 0.3. */
    milliCpu: Math.round(sum(containers.map((one) => limitOf(one, 'cpu'))) * 1000),
    mebibytes: sum(containers.map((one) => limitOf(one, 'memory'))) / 2 ** 20,
  };
}

/** A limit as a number. None is an infinite one. */
function limitOf({ resources }: Json<V1Container>, resource: string): number {
  const units = ['m', '', 'k', 'M', 'G', 'T'];
  const text = resources?.limits?.[resource] ?? 'Infinity';
  const [, amount = text, unit = '', binary] = /^([\d.]+)([mkKMGT]?)(i?)$/.exec(text) ?? [];
  const power = units.indexOf(unit.replace('K', 'k')) - 1;
  return Number(amount) * (binary ? 1024 : 1000) ** power;
}

export function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/** What belongs to a workload has its name, or a longer one. */
export function isOf(workload: string, { name = '' }: { readonly name?: string }): boolean {
  return name === workload || name.startsWith(`${workload}-`);
}

/** What the newest Event says of a workload: who denies its pods, or which node, volume or image they wait for. */
export function lastProblem(workload: string, events: readonly Event[]): string {
  const time = ({ lastTimestamp, eventTime }: Event) =>
    Date.parse(lastTimestamp ?? eventTime ?? '');
  const [last] = events
    .filter(({ involvedObject }) => isOf(workload, involvedObject))
    .filter(({ type, reason }) => type === 'Warning' || reason === 'Pulling')
    .sort((a, b) => time(b) - time(a) || 0);
  return last ? ` (${last.message ?? last.reason ?? ''})` : '';
}
