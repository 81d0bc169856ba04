import { ContainerStatus, Event, Pod } from './kubectl';

// What pods wait for, from what the API tells of them: nothing here runs anything.

/** Why a pod does not get on, in the words of the scheduler, the kubelet or the runtime. */
export function whyNot(pod: Pod, events: readonly Event[] = []): string {
  return `${pod.metadata?.name ?? ''}: ${reasonOf(pod, events)}`;
}

/** What pods wait for, each reason once, that of most pods first: "3 pods: Pulling image …". */
export function waitingFor(pods: readonly Pod[], events: readonly Event[]): string[] {
  const groups = new Map<string, Pod[]>();
  for (const pod of pods) {
    const reason = reasonOf(pod, events);
    groups.set(reason, [...(groups.get(reason) ?? []), pod]);
  }
  return [...groups]
    .sort(([, a], [, b]) => b.length - a.length)
    .map(([reason, [first, ...others]]) =>
      others.length > 0
        ? `${others.length + 1} pods: ${reason}`
        : `${first?.metadata?.name ?? ''}: ${reason}`,
    );
}

/** What a controller that may not create pods is told, as by Pod Security, a quota or a webhook. */
export function denialOf(workload: string, events: readonly Event[]): string | undefined {
  const [denial] = events
    .filter(({ type, involvedObject: { kind, name = '' } }) => {
      // A Deployment's pods are created by a ReplicaSet with a name of its own.
      const ours = name === workload || (kind === 'ReplicaSet' && name.startsWith(`${workload}-`));
      return type === 'Warning' && kind !== 'Pod' && ours;
    })
    .sort((a, b) => secondOf(b) - secondOf(a));
  return denial?.message
    ?.replace(/^\(combined from similar events\): /, '')
    .replace(/^Error creating: /, '')
    .replace(/^pods "[^"]*" is /, '');
}

function reasonOf(pod: Pod, events: readonly Event[]): string {
  const { phase = 'unknown', reason, message, conditions, ...status } = pod.status ?? {};
  // The kubelet refused it, or evicted it.
  if (phase === 'Failed') {
    return withMessage(reason ?? phase, message);
  }
  const scheduled = conditions?.find(({ type }) => type === 'PodScheduled');
  if (scheduled?.status === 'False') {
    return scheduled.message ?? scheduled.reason ?? 'not scheduled';
  }
  const containers = [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])];
  const waiting = containers.flatMap(({ state }) => state?.waiting ?? []);
  const stuck = waiting.find((state) => !USUAL.has(state.reason ?? ''));
  if (stuck) {
    return withMessage(stuck.reason ?? 'waiting', stuck.message);
  }
  const event = newestEvent(pod, events);
  if (event?.reason === 'Pulling') {
    return event.message ?? 'Pulling';
  }
  if (event?.type === 'Warning') {
    return withMessage(event.reason ?? event.type, event.message);
  }
  const init = status.initContainerStatuses?.find((one) => isRunningInit(pod, one));
  if (init) {
    return `init container ${init.name} is running`;
  }
  return phase === 'Running' ? 'running, but not ready' : (waiting[0]?.reason ?? phase);
}

/** What every container waits for at first. */
const USUAL: ReadonlySet<string> = new Set(['', 'ContainerCreating', 'PodInitializing']);

function isRunningInit({ spec }: Pod, { name, state }: ContainerStatus): boolean {
  const isSidecar = spec?.initContainers?.some(
    (container) => container.name === name && container.restartPolicy === 'Always',
  );
  return state?.running !== undefined && !isSidecar;
}

/** The last thing that happened to a pod; that it was scheduled is told with a finer clock, and is no news. */
function newestEvent({ metadata }: Pod, events: readonly Event[]): Event | undefined {
  // Within one second it was pulling the image first, and then something came of it.
  const order = ({ reason, type }: Event) =>
    reason === 'Pulling' ? 0 : type === 'Warning' ? 1 : 2;
  return events
    .filter(
      ({ reason, involvedObject }) =>
        involvedObject.uid === metadata?.uid && reason !== 'Scheduled',
    )
    .sort((a, b) => secondOf(a) - secondOf(b) || order(a) - order(b))
    .at(-1);
}

function secondOf({ series, lastTimestamp, eventTime, firstTimestamp, metadata }: Event): number {
  const time =
    series?.lastObservedTime ??
    lastTimestamp ??
    eventTime ??
    firstTimestamp ??
    metadata.creationTimestamp;
  return Math.floor(Date.parse(time ?? '') / 1000) || 0;
}

function withMessage(reason: string, message: string | undefined): string {
  return message === undefined || message === '' ? reason : `${reason} (${message})`;
}
