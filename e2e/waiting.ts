import { Event, Pod } from './kubectl';

// Why pods do not start, in the words of the scheduler, the kubelet, the runtime or admission.

/** What every container waits for at first. */
const USUAL = [undefined, 'ContainerCreating', 'PodInitializing'];

/** Why a pod does not start: what its containers wait for, what happened last, or what it has not reached. */
export function whyNot({ metadata, status }: Pod, events: readonly Event[] = []): string {
  const containers = [
    ...(status?.initContainerStatuses ?? []),
    ...(status?.containerStatuses ?? []),
  ];
  const stuck = containers
    .flatMap(({ state }) => state?.waiting ?? [])
    .find(({ reason }) => !USUAL.includes(reason));
  if (stuck) {
    return told(stuck.reason, stuck.message);
  }
  // That it was scheduled is no news, and has the time of a finer clock.
  const last = newestFirst(events).find(
    ({ involvedObject, reason }) => involvedObject.uid === metadata?.uid && reason !== 'Scheduled',
  );
  if (last?.type === 'Warning') {
    return told(last.reason, last.message);
  }
  if (last?.reason === 'Pulling') {
    return last.message ?? last.reason;
  }
  const missing = status?.conditions?.find((one) => one.status === 'False' && one.message);
  return status?.message ?? missing?.message ?? status?.phase ?? 'unknown';
}

/** What pods wait for, each reason once, that of most pods first: "3 pods: Pulling image …". */
export function waitingFor(pods: readonly Pod[], events: readonly Event[]): string[] {
  const groups = new Map<string, string[]>();
  for (const pod of pods) {
    const reason = whyNot(pod, events);
    groups.set(reason, [...(groups.get(reason) ?? []), pod.metadata?.name ?? '']);
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
