import type * as k8s from 'k8s-1.28';

import { Event, Json } from './kubectl';

/** A pod, as far as a run looks at it. */
export interface Pod {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly workload: string;
  /** Empty before it is scheduled. */
  readonly node: string;
  readonly started: boolean;
  readonly ready: boolean;
  readonly killed: boolean;
  readonly restarts: number;
  /** "restarted 2 times, last OOMKilled (137)". */
  readonly story: string;
  /** What its containers wait for, if that is not usual at a start. */
  readonly stuck?: string;
  /** What the API says of a pod that has not started, if nothing else is known. */
  readonly pending: string;
  /** What it can use at most, in thousandths of a CPU and in MiB. */
  readonly cpu: number;
  readonly memory: number;
}

/** Reads a pod of `kubectl get -o json`. */
export function readPod({ metadata, spec, status }: Json<k8s.V1Pod>): Pod {
  const { containerStatuses: main = [], initContainerStatuses: inits = [] } = status ?? {};
  const all = [...inits, ...main];
  const restarts = sum(all.map(({ restartCount }) => restartCount));
  const ends = all.flatMap(
    ({ lastState, state }) => lastState?.terminated ?? state?.terminated ?? [],
  );
  const last = ends.find(({ exitCode }) => exitCode !== 0);
  const times = ['never restarted', 'restarted once'][restarts] ?? `restarted ${restarts} times`;
  const waiting = all
    .flatMap(({ state }) => state?.waiting ?? [])
    .find(
      ({ reason = 'PodInitializing' }) => !/^(ContainerCreating|PodInitializing)$/.test(reason),
    );
  const unmet = status?.conditions?.find((one) => one.status === 'False' && one.message);
  return {
    name: metadata?.name ?? '',
    namespace: metadata?.namespace ?? '',
    uid: metadata?.uid ?? '',
    workload: metadata?.labels?.['app.kubernetes.io/name'] ?? '',
    node: spec?.nodeName ?? '',
    started: main.some(({ state, restartCount }) => state?.running ?? restartCount > 0),
    ready: isReady({ status }),
    // Some runtimes only tell that it was SIGKILL: 137 without the reason.
    killed:
      restarts > 0 &&
      ends.some(({ reason, exitCode }) => reason === 'OOMKilled' || exitCode === 137),
    restarts,
    story: `${times}${last ? `, last ${last.reason ?? 'ended'} (${last.exitCode})` : ''}`,
    stuck: waiting && told(waiting.reason, waiting.message),
    pending: status?.message ?? unmet?.message ?? status?.phase ?? 'unknown',
    // Whole ones, because 0.1 and 0.2 are more than 0.3.
    cpu: Math.round(limitOf(spec, 'cpu') * 1000),
    memory: limitOf(spec, 'memory') / 2 ** 20,
  };
}

export function isReady({ status }: Pick<Json<k8s.V1Pod | k8s.V1Node>, 'status'>): boolean {
  return status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'True';
}

/** What a pod can use at most: its containers and sidecars together, or one of its init containers. */
function limitOf(spec: Json<k8s.V1Pod>['spec'], resource: string): number {
  const inits = spec?.initContainers ?? [];
  const sidecars = inits.filter(({ restartPolicy }) => restartPolicy === 'Always');
  const limits = (containers: typeof inits) =>
    containers.map(({ resources }) => quantity(resources?.limits?.[resource]));
  return Math.max(sum(limits([...(spec?.containers ?? []), ...sidecars])), ...limits(inits));
}

/** A Kubernetes quantity as a number. No limit is an infinite one. */
function quantity(text = 'Infinity'): number {
  const [, amount = text, unit = ''] = /^([\d.]+(?:[eE]-?\d+)?)([a-zA-Z]*)$/.exec(text) ?? [];
  const power = ['n', 'u', 'm', '', 'k', 'M', 'G', 'T', 'P', 'E'].indexOf(
    unit.replace(/^K?i$|i$/, ''),
  );
  return Number(amount) * (unit.endsWith('i') ? 1024 : 1000) ** (unit === 'Ki' ? 1 : power - 3);
}

export function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/** Why a pod does not start: what its containers wait for, what happened last, or what it has not reached. */
export function whyNot({ stuck, uid, pending }: Pod, events: readonly Event[] = []): string {
  // That it was scheduled is no news, and has the time of a finer clock.
  const last = newestFirst(events).find(
    ({ involvedObject, reason }) => involvedObject.uid === uid && reason !== 'Scheduled',
  );
  const pulling = last?.reason === 'Pulling' ? last.message : undefined;
  const problem = last?.type === 'Warning' ? told(last.reason, last.message) : undefined;
  return stuck ?? problem ?? pulling ?? pending;
}

/** What pods wait for, each reason once, that of most pods first: "3 pods: Pulling image …". */
export function waitingFor(pods: readonly Pod[], events: readonly Event[]): string[] {
  const groups = new Map<string, string[]>();
  for (const pod of pods) {
    const reason = whyNot(pod, events);
    groups.set(reason, [...(groups.get(reason) ?? []), pod.name]);
  }
  return [...groups]
    .sort(([, a], [, b]) => b.length - a.length)
    .map(([why, names]) => `${names.length > 1 ? `${names.length} pods` : names.join()}: ${why}`);
}

/** Who denies the pods of a workload that are not there, such as Pod Security, a quota or a webhook. */
export function denial(workload: string, events: readonly Event[]): string {
  const found = newestFirst(events).find(({ type, involvedObject: { kind, name = '' } }) => {
    // The ReplicaSet of a Deployment has a longer name.
    const ours = name === workload || (kind === 'ReplicaSet' && name.startsWith(`${workload}-`));
    return type === 'Warning' && kind !== 'Pod' && ours;
  });
  const why = found?.message?.replace(/^.*?Error creating: (pods "[^"]*" is )?/, '');
  return why === undefined ? '' : ` (${why})`;
}

function newestFirst(events: readonly Event[]): Event[] {
  const time = ({ series, lastTimestamp, eventTime }: Event) =>
    Date.parse(series?.lastObservedTime ?? lastTimestamp ?? eventTime ?? '') || 0;
  return [...events].sort((a, b) => time(b) - time(a));
}

function told(reason = '', message = ''): string {
  return message === '' ? reason : `${reason} (${message})`;
}
