import { ContainerStatus, Event, Pod } from '../../e2e/kubectl';
import { denialOf, waitingFor, whyNot } from '../../e2e/waiting';

type Status = NonNullable<Pod['status']>;

/** A pod that was scheduled and has not started. */
function pod(name: string, status: Partial<Status> = {}, spec: Partial<Pod['spec']> = {}): Pod {
  return {
    metadata: { name, uid: `uid-of-${name}` },
    spec: { containers: [], nodeName: 'a', ...spec },
    status: {
      phase: 'Pending',
      conditions: [{ type: 'PodScheduled', status: 'True' }],
      containerStatuses: [waiting('ContainerCreating')],
      ...status,
    },
  };
}

function waiting(reason: string, message?: string): ContainerStatus {
  return container({ waiting: { reason, message } });
}

function container(state: ContainerStatus['state'], name = 'twin'): ContainerStatus {
  return { name, image: '', imageID: '', ready: false, restartCount: 0, state };
}

function event(podName: string, reason: string, change: Partial<Event> = {}): Event {
  return {
    metadata: { name: `${podName}.1`, namespace: 'x' },
    involvedObject: { kind: 'Pod', name: podName, uid: `uid-of-${podName}` },
    type: 'Normal',
    reason,
    lastTimestamp: '2026-11-24T03:31:10Z',
    ...change,
  };
}

const PULLING = event('p', 'Pulling', { message: 'Pulling image "mirror.example/herder:1"' });
const SCHEDULED = event('p', 'Scheduled', {
  lastTimestamp: undefined,
  eventTime: '2026-11-24T03:31:10.814301Z',
});
const MOUNT = event('p', 'FailedMount', {
  type: 'Warning',
  message: 'configmap "script" not found',
  lastTimestamp: '2026-11-24T03:31:14Z',
});

describe('a pod', () => {
  test.each<[string, Partial<Status>, string]>([
    [
      'the scheduler',
      {
        conditions: [
          {
            type: 'PodScheduled',
            status: 'False',
            reason: 'Unschedulable',
            message: '0/1 nodes are available: 1 Insufficient cpu.',
          },
        ],
      },
      '0/1 nodes are available: 1 Insufficient cpu.',
    ],
    [
      'a gate',
      { conditions: [{ type: 'PodScheduled', status: 'False', reason: 'SchedulingGated' }] },
      'SchedulingGated',
    ],
    [
      'the runtime',
      { containerStatuses: [waiting('ImagePullBackOff', 'Back-off pulling image')] },
      'ImagePullBackOff (Back-off pulling image)',
    ],
    [
      'the kubelet that refused it',
      { phase: 'Failed', reason: 'OutOfcpu', message: 'Node did not have enough cpu' },
      'OutOfcpu (Node did not have enough cpu)',
    ],
    [
      'its init container',
      {
        initContainerStatuses: [container({ running: {} }, 'wait-for-kill-mode')],
        containerStatuses: [waiting('PodInitializing')],
      },
      'init container wait-for-kill-mode is running',
    ],
    ['nobody', {}, 'ContainerCreating'],
    ['nobody at all', { containerStatuses: undefined }, 'Pending'],
    [
      'its probe',
      { phase: 'Running', containerStatuses: [container({ running: {} })] },
      'running, but not ready',
    ],
  ])('waits for what %s tells', (_, status, why) => {
    expect(whyNot(pod('p', status))).toBe(`p: ${why}`);
  });

  test.each<[string, Event[], string]>([
    ['pulls', [PULLING, SCHEDULED], 'Pulling image "mirror.example/herder:1"'],
    ['has pulled', [event('p', 'Pulled'), PULLING, SCHEDULED], 'ContainerCreating'],
    ['cannot mount', [MOUNT, PULLING], 'FailedMount (configmap "script" not found)'],
    ['could not mount', [MOUNT, { ...PULLING, lastTimestamp: '2026-11-24T03:31:15Z' }], 'Pulling'],
    [
      'fails again and again, by a series',
      [
        PULLING,
        {
          ...MOUNT,
          lastTimestamp: undefined,
          series: { count: 2, lastObservedTime: '2026-11-24T03:31:20.1Z' },
        },
      ],
      'FailedMount (configmap "script" not found)',
    ],
    [
      'had an older one of its name',
      [{ ...MOUNT, involvedObject: { kind: 'Pod', name: 'p', uid: 'of-another' } }],
      'ContainerCreating',
    ],
  ])('that %s tells so by its Events', (_, events, why) => {
    expect(whyNot(pod('p'), events)).toMatch(`p: ${why}`);
  });

  test('with a sidecar that runs is not waiting for that', () => {
    const status = {
      initContainerStatuses: [container({ running: {} }, 'proxy')],
      containerStatuses: [waiting('PodInitializing')],
    };
    const spec = { initContainers: [{ name: 'proxy', restartPolicy: 'Always' }] };
    expect(whyNot(pod('p', status, spec))).toBe('p: PodInitializing');
  });
});

test('each reason is told once, that of most pods first', () => {
  const stuck = pod('twin-1', { containerStatuses: [waiting('ErrImagePull', 'no such host')] });
  expect(waitingFor([stuck, pod('a'), pod('b')], [])).toEqual([
    '2 pods: ContainerCreating',
    'twin-1: ErrImagePull (no such host)',
  ]);
  expect(waitingFor([], [])).toEqual([]);
});

describe('a denial', () => {
  const denied = (kind: string, name: string, message: string, time = '2026-11-24T03:31:10Z') =>
    event('', 'FailedCreate', {
      involvedObject: { kind, name },
      type: 'Warning',
      message,
      lastTimestamp: time,
    });

  test.each([
    [
      'ReplicaSet',
      'twin-5d4f8c7b9',
      'Error creating: pods "twin-5d4f8c7b9-x2x9z" is forbidden: exceeded quota: compute',
      'forbidden: exceeded quota: compute',
    ],
    [
      'DaemonSet',
      'twin',
      'Error creating: insufficient quota to match these scopes: [{PriorityClass In [system-node-critical]}]',
      'insufficient quota to match these scopes: [{PriorityClass In [system-node-critical]}]',
    ],
    [
      'ReplicaSet',
      'twin-5d4f8c7b9',
      '(combined from similar events): Error creating: admission webhook "validation.gatekeeper.sh" denied the request: no',
      'admission webhook "validation.gatekeeper.sh" denied the request: no',
    ],
  ])('to a %s is told without the pod', (kind, name, message, told) => {
    expect(denialOf('twin', [denied(kind, name, message)])).toBe(told);
  });

  test('is the newest one of this workload', () => {
    const events = [
      denied('ReplicaSet', 'twin-1', 'new', '2026-11-24T03:32:00Z'),
      denied('ReplicaSet', 'twin-1', 'old'),
      denied('ReplicaSet', 'herder-1', 'other', '2026-11-24T03:33:00Z'),
      denied('DaemonSet', 'twin-agent', 'other', '2026-11-24T03:33:00Z'),
      { ...MOUNT, involvedObject: { kind: 'Pod', name: 'twin-1-x' } },
    ];
    expect(denialOf('twin', events)).toBe('new');
    expect(denialOf('probe', events)).toBeUndefined();
  });
});
