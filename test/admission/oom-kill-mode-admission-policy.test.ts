import { Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import {
  OomKillMode,
  OomKillModeAdmissionPolicy,
  OomKillModeAdmissionPolicyProps,
  OomKillPolicy,
  OnePerNodeDeployment,
} from '../../lib';
import { WORKLOAD_KINDS } from '../../lib/policy/known-kinds';
import { ALL_ADMISSION_PROPS } from '../support/all-props';
import { Random } from '../fuzz/random';
import { parseOverrides } from '../fuzz/reference';
import { Manifest, chart, expectRefusals, synth } from '../support/manifests';
import { Admission, Json, Review } from '../support/admission';

const LABEL = 'cdk8s-oom-kill-mode/mode';
const CONTAINERS = 'cdk8s-oom-kill-mode/containers';

function manifests(props?: OomKillModeAdmissionPolicyProps): Manifest[] {
  const scope = chart('elsewhere');
  new OomKillModeAdmissionPolicy(scope, 'guard', props);
  return synth(scope);
}

function admission(props?: OomKillModeAdmissionPolicyProps): Admission {
  return new Admission(manifests(props)[0] as Manifest);
}

/** Where each kind has its pod. */
const KINDS: Record<string, (pod: Json) => Json> = {
  Pod: (pod) => ({ apiVersion: 'v1', ...pod }),
  ReplicationController: (pod) => ({ apiVersion: 'v1', spec: { template: pod } }),
  DaemonSet: (pod) => ({ apiVersion: 'apps/v1', spec: { template: pod } }),
  Deployment: (pod) => ({ apiVersion: 'apps/v1', spec: { template: pod } }),
  ReplicaSet: (pod) => ({ apiVersion: 'apps/v1', spec: { template: pod } }),
  StatefulSet: (pod) => ({ apiVersion: 'apps/v1', spec: { template: pod } }),
  Job: (pod) => ({ apiVersion: 'batch/v1', spec: { template: pod } }),
  CronJob: (pod) => ({
    apiVersion: 'batch/v1',
    spec: { jobTemplate: { spec: { template: pod } } },
  }),
};

interface PodProps {
  readonly mode?: string;
  readonly overrides?: string;
  readonly containers?: string[];
  readonly initContainers?: string[];
  readonly ephemeralContainers?: string[];
}

function pod({ mode, overrides, containers = ['main'], ...others }: PodProps): Json {
  const lists = Object.entries({ containers, ...others }).map(([field, names]) => [
    field,
    names.map((name) => ({ name, image: 'example.com/image:1' })),
  ]);
  return {
    metadata: {
      ...(mode === undefined ? {} : { labels: { app: 'web', [LABEL]: mode } }),
      ...(overrides === undefined ? {} : { annotations: { [CONTAINERS]: overrides } }),
    },
    spec: Object.fromEntries(lists) as Json,
  };
}

function object(kind: string, props: PodProps): Json {
  return { kind, ...KINDS[kind]?.(pod(props)) };
}

function create(kind: string, props: PodProps, namespace?: string): Review {
  return { operation: 'CREATE', object: object(kind, props), namespace };
}

function update(
  before: PodProps,
  after: PodProps,
  kind = 'Deployment',
  namespace?: string,
): Review {
  return {
    operation: 'UPDATE',
    oldObject: object(kind, before),
    object: object(kind, after),
    namespace,
  };
}

const WRITE = `write ${CONTAINERS}: name=Single,other=Group instead`;

function neither(mode: string): string {
  return `${LABEL} is neither Single nor Group: "${mode}"; write one of them instead`;
}

function malformed(...entries: string[]): string {
  const quoted = entries.map((entry) => `"${entry}"`).join(', ');
  return `${CONTAINERS} has entries that are not name=Single or name=Group: ${quoted}; ${WRITE}`;
}

function unknown(names: string, known: string): string {
  return `${CONTAINERS} names containers that the pod does not have: ${names}; write names of its containers instead: ${known}`;
}

describe.each(Object.keys(KINDS))('on a %s, the guard', (kind) => {
  const guard = admission();

  test.each<[string, PodProps]>([
    ['Single', { mode: 'Single' }],
    ['Group', { mode: 'Group' }],
    ['an override', { mode: 'Single', overrides: 'main=Group' }],
    [
      'overrides of every sort of container, with blanks around',
      {
        mode: 'Group',
        overrides: ' a=Single ,b=Group,  c=Single',
        containers: ['a'],
        initContainers: ['b'],
        ephemeralContainers: ['c'],
      },
    ],
    [
      'a name twice, of which the last counts',
      { mode: 'Single', overrides: 'main=Single,main=Group' },
    ],
    ['an empty annotation', { mode: 'Single', overrides: '' }],
    ['an annotation without the label', { overrides: 'main=Group' }],
    [
      'a name of 63 characters',
      { mode: 'Single', overrides: `${'a'.repeat(63)}=Group`, containers: ['a'.repeat(63)] },
    ],
    ['an annotation of 8192 characters', { mode: 'Single', overrides: 'main=Group'.padEnd(8192) }],
  ])('lets %s through', (_, props) => {
    expect(guard.matches(create(kind, props))).toBe(true);
    expect(guard.review(create(kind, props))).toEqual([]);
  });

  test.each<[string, PodProps, string[]]>([
    ['a mode in lower case', { mode: 'single' }, [neither('single')]],
    ['an empty mode', { mode: '' }, [neither('')]],
    ['the node value', { mode: '1' }, [neither('1')]],
    ['an override without a mode', { mode: 'Single', overrides: 'main' }, [malformed('main')]],
    [
      'an override in lower case',
      { mode: 'Single', overrides: 'main=group' },
      [malformed('main=group')],
    ],
    [
      'blanks around the equals sign',
      { mode: 'Single', overrides: 'main = Group' },
      [malformed('main = Group')],
    ],
    ['a comma at the end', { mode: 'Single', overrides: 'main=Group,' }, [malformed('')]],
    ['nothing but a blank', { mode: 'Single', overrides: ' ' }, [malformed(' ')]],
    ['a tab', { mode: 'Single', overrides: '\tmain=Group' }, [malformed('\tmain=Group').trim()]],
    [
      'a colon',
      { mode: 'Single', overrides: 'a:Single,main=Group,b=' },
      [malformed('a:Single', 'b=')],
    ],
    ['a dot in a name', { mode: 'Single', overrides: 'ma.in=Group' }, [malformed('ma.in=Group')]],
    [
      'a name in upper case',
      { mode: 'Single', overrides: 'Main=Group' },
      [malformed('Main=Group')],
    ],
    ['no name', { mode: 'Single', overrides: '=Group' }, [malformed('=Group')]],
    [
      'a name of 64 characters',
      { mode: 'Single', overrides: `${'a'.repeat(64)}=Group`, containers: ['a'.repeat(64)] },
      [malformed(`${'a'.repeat(64)}=Group`)],
    ],
    [
      'a line feed, which no message can quote',
      { mode: 'Single', overrides: 'main=Group\n' },
      [`${CONTAINERS} is malformed, or longer than 8192 characters; ${WRITE}`],
    ],
    [
      'more than a message can quote',
      { mode: 'Single', overrides: 'x'.repeat(8000) },
      [`${CONTAINERS} is malformed, or longer than 8192 characters; ${WRITE}`],
    ],
    [
      'an annotation of 8193 characters',
      { mode: 'Single', overrides: 'main=Group'.padEnd(8193) },
      [`${CONTAINERS} is longer than 8192 characters; ${WRITE}`],
    ],
    ['a malformed annotation without the label', { overrides: 'main' }, [malformed('main')]],
    [
      'names that the pod does not have',
      { mode: 'Single', overrides: 'a=Single,main=Group, b=Group', initContainers: ['init'] },
      [unknown('a, b', 'main, init')],
    ],
    ['everything at once', { mode: 'x', overrides: 'main=x' }, [neither('x'), malformed('main=x')]],
  ])('refuses %s, and says what to write', (_, props, messages) => {
    expect(guard.review(create(kind, props))).toEqual(messages);
    expect(guard.review(update({}, props, kind))).toEqual(messages);
    messages.forEach((message) => {
      expect(message).toMatch(/; write .* instead/);
    });
  });

  test('is not evaluated without label and annotation', () => {
    const metadata = [
      undefined,
      {},
      { labels: {} },
      { labels: { app: 'web' }, annotations: { a: 'b' } },
    ];
    for (const each of metadata) {
      const bare = { ...pod({}), metadata: each };
      expect(guard.matches({ operation: 'CREATE', object: { kind, ...KINDS[kind]?.(bare) } })).toBe(
        false,
      );
    }
    const own = object(kind, {});
    const labels = { metadata: { labels: { [LABEL]: 'x' } } };
    expect(guard.matches({ operation: 'CREATE', object: { ...own, ...labels } })).toBe(
      kind === 'Pod',
    );
  });

  test('lets updates through that leave a bad object as it was', () => {
    const bad = { mode: 'x', overrides: 'nobody=Group,' };
    expect(guard.review(create(kind, bad))).toHaveLength(2);
    expect(guard.review(update(bad, bad, kind))).toEqual([]);
    const stranger = { mode: 'Single', overrides: 'nobody=Group' };
    expect(guard.review(create(kind, stranger))).toHaveLength(1);
    expect(guard.review(update(stranger, stranger, kind))).toEqual([]);
  });

  test('has no say in deletions and status', () => {
    const review = { ...update({}, { mode: 'x' }, kind), oldObject: object(kind, { mode: 'x' }) };
    expect(guard.selects(review)).toBe(true);
    expect(guard.selects({ ...review, operation: 'DELETE' })).toBe(false);
    for (const subresource of ['status', 'scale', 'ephemeralcontainers', 'eviction', 'binding']) {
      expect(guard.selects({ ...review, subresource })).toBe(false);
    }
  });
});

describe('an update', () => {
  const guard = admission();
  const bad = { mode: 'x', overrides: 'nobody=Group' };

  test.each<[string, PodProps, PodProps, number]>([
    ['opts out with a bad annotation', bad, { overrides: bad.overrides }, 0],
    ['repairs the mode', bad, { ...bad, mode: 'Single' }, 0],
    ['repairs the annotation', bad, { ...bad, overrides: 'main=Group' }, 0],
    ['takes the annotation off', bad, { mode: 'x' }, 0],
    ['makes another bad mode of it', bad, { ...bad, mode: 'y' }, 1],
    ['makes another bad annotation of it', bad, { ...bad, overrides: 'nothing=Group' }, 1],
    [
      'opts in with an annotation that was bad before',
      { overrides: 'a=b' },
      { mode: 'Single', overrides: 'a=b' },
      1,
    ],
    [
      'takes the container of an override away',
      { mode: 'Single', overrides: 'a=Group', containers: ['a', 'b'] },
      { mode: 'Single', overrides: 'a=Group', containers: ['b'] },
      1,
    ],
    [
      'adds the container of a bad override',
      { mode: 'Single', overrides: 'a=Group' },
      { mode: 'Single', overrides: 'a=Group', containers: ['a', 'main'] },
      0,
    ],
  ])('that %s is judged by what it changes', (_, before, after, problems) => {
    expect(guard.review(update(before, after))).toHaveLength(problems);
  });
});

describe('the guard', () => {
  test('lets through what the library writes', () => {
    const scope = chart();
    const web = new OnePerNodeDeployment(scope, 'web', {
      name: 'web',
      image: 'example.com/web:1',
      replicas: 1,
      cpu: kplus.Cpu.millis(1),
      memory: Size.mebibytes(1),
      oomKillMode: OomKillMode.SINGLE,
      waitForAgent: true,
    });
    OomKillPolicy.of(web.deployment).perContainer({
      web: OomKillMode.GROUP,
      'wait-for-kill-mode': OomKillMode.SINGLE,
    });
    const [deployment] = synth(scope);
    const review: Review = { operation: 'CREATE', object: deployment };
    const guard = admission();
    expect(guard.matches(review)).toBe(true);
    expect(guard.review(review)).toEqual([]);
  });

  test('lets a ReplicationController without a template through', () => {
    const review: Review = {
      operation: 'CREATE',
      object: { apiVersion: 'v1', kind: 'ReplicationController', spec: {} },
    };
    expect(admission().selects(review)).toBe(true);
    expect(admission().review(review)).toEqual([]);
  });

  test('looks at every kind that OomKillPolicy knows', () => {
    expect(Object.keys(KINDS).sort().join(', ')).toBe(WORKLOAD_KINDS);
    const namesake = { apiVersion: 'batch.volcano.sh/v1alpha1', kind: 'Job' };
    expect(admission().selects({ operation: 'CREATE', object: namesake })).toBe(false);
  });

  test('calls malformed what the agent calls malformed, and no more', () => {
    const guard = admission();
    const random = new Random(5507);
    const counts = { good: 0, malformed: 0 };
    const names = [
      'main',
      'a',
      'a-b',
      '-',
      '0',
      'a.b',
      'A',
      '',
      'ä',
      'x'.repeat(63),
      'x'.repeat(64),
    ];
    const pieces = [' ', '  ', '', '', '', '\t', '=', '\\'];
    for (let i = 0; i < 2000; i += 1) {
      const entries = random.times(random.int(5), () =>
        [
          random.pick(pieces),
          random.chance(0.8) ? random.pick(names.slice(0, 5)) : random.pick(names),
          random.chance(0.9) ? '=' : random.pick(pieces),
          random.chance(0.9) ? random.pick(['Single', 'Group']) : random.pick(['single', '', '1']),
          random.pick(pieces.slice(0, random.chance(0.9) ? 3 : undefined)),
        ].join(''),
      );
      const overrides = entries.join(',').padEnd(random.chance(0.02) ? 8192 + random.int(2) : 0);
      const parsed = parseOverrides(overrides);
      const containers = ['main', ...parsed.overrides.keys()];
      const messages = guard.review(create('Pod', { mode: 'Single', overrides, containers }));
      expect([overrides, messages.length]).toEqual([overrides, parsed.malformed ? 1 : 0]);
      counts[parsed.malformed ? 'malformed' : 'good'] += 1;
    }
    expect(Math.min(counts.good, counts.malformed)).toBeGreaterThan(200);
  });

  test('takes as many overrides as fit into the annotation', () => {
    const containers = Array.from({ length: 36 }, (_, i) => i.toString(36));
    const overrides = Array.from({ length: 1023 }, (_, i) => `${containers[i % 36]}=Group`).join(
      ',',
    );
    expect(overrides.length).toBeLessThanOrEqual(8192);
    expect(admission().review(create('Pod', { mode: 'Single', overrides, containers }))).toEqual(
      [],
    );
  });

  test('lets pods opt in where it is allowed, and nowhere else', () => {
    const guard = admission({ allowedNamespaces: ['team-a', 'team-b'] });
    const message = `${LABEL} is allowed in these namespaces only: team-a, team-b; remove the label, or ask an administrator to add this namespace to allowedNamespaces`;
    const mode = 'Group';
    expect(guard.review(create('Pod', { mode }, 'team-a'))).toEqual([]);
    expect(guard.review(create('Pod', { mode }, 'team-b'))).toEqual([]);
    expect(guard.review(create('Pod', { mode }, 'team'))).toEqual([message]);
    expect(guard.review(create('CronJob', { mode: 'x' }, 'other'))).toEqual([
      neither('x'),
      message,
    ]);
    expect(guard.review(create('Pod', { overrides: 'main=Group' }, 'other'))).toEqual([]);
    const update_ = (before: PodProps, after: PodProps) =>
      guard.review(update(before, after, 'Job', 'other'));
    expect(update_({}, { mode })).toEqual([message]);
    expect(update_({ mode: 'Single' }, { mode })).toEqual([message]);
    expect(update_({ mode }, { mode, containers: ['other'] })).toEqual([]);
    expect(update_({ mode }, {})).toEqual([]);
  });

  test('takes names of containers that are injected later', () => {
    const props = { mode: 'Single', overrides: 'istio-proxy=Group,linkerd=Group' };
    const guard = admission({ injectedContainers: ['istio-proxy'] });
    expect(guard.review(create('Deployment', props))).toEqual([unknown('linkerd', 'main')]);
    expect(
      admission({ injectedContainers: ['istio-proxy', 'linkerd'] }).review(
        create('Deployment', props),
      ),
    ).toEqual([]);
  });

  test('is about its own prefix', () => {
    const guard = admission({ labelPrefix: 'oom.example.com' });
    const own = { metadata: { labels: { 'oom.example.com/mode': 'x' } }, spec: { containers: [] } };
    expect(guard.review(create('Pod', { mode: 'x' }))).toEqual([]);
    expect(
      guard.review({ operation: 'CREATE', object: { apiVersion: 'v1', kind: 'Pod', ...own } }),
    ).toEqual(['oom.example.com/mode is neither Single nor Group: "x"; write one of them instead']);
  });

  test('is a policy and its binding, cluster-wide', () => {
    const [policy, binding, ...others] = manifests();
    expect(others).toEqual([]);
    const metadata = {
      name: 'oom-kill-mode',
      labels: {
        'app.kubernetes.io/name': 'cdk8s-oom-kill-mode',
        'app.kubernetes.io/component': 'admission',
        'app.kubernetes.io/managed-by': 'cdk8s',
        'app.kubernetes.io/version': '0.1.0',
      },
    };
    expect(policy).toMatchObject({
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'ValidatingAdmissionPolicy',
      spec: { failurePolicy: 'Fail' },
    });
    expect(policy?.metadata).toEqual(metadata);
    expect(binding).toEqual({
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'ValidatingAdmissionPolicyBinding',
      metadata,
      spec: { policyName: 'oom-kill-mode', validationActions: ['Deny'] },
    });
  });

  test('takes every option', () => {
    const [policy, binding] = manifests(ALL_ADMISSION_PROPS);
    for (const each of [policy, binding]) {
      expect(each?.metadata).toMatchObject({
        name: 'guard.example.com',
        labels: { 'example.com/team': 'platform' },
        annotations: ALL_ADMISSION_PROPS.annotations,
      });
      expect(each?.metadata.namespace).toBeUndefined();
    }
    expect(policy?.['spec']).toMatchObject({ failurePolicy: 'Ignore' });
    expect(binding?.['spec']).toEqual({
      policyName: 'guard.example.com',
      validationActions: ['Warn', 'Audit'],
    });
    expect(JSON.stringify(policy)).not.toContain('cdk8s-oom-kill-mode/');
  });

  test.each(['1.30', 'v1.30.0', '1.31+', '1.36.2', '2.0'])(
    'takes Kubernetes %s',
    (kubernetesVersion) => {
      expect(manifests({ kubernetesVersion })).toHaveLength(2);
    },
  );

  // A rule, and what breaks it.
  test.each<[string, ...unknown[]]>([
    ['the options are not an object: null. Write', null],
    [
      'ValidatingAdmissionPolicy v1 needs Kubernetes 1.30, but kubernetesVersion is',
      ...['1.29', 'v1.28.9', '1.3'].map((kubernetesVersion) => ({ kubernetesVersion })),
    ],
    [
      'kubernetesVersion is not a version',
      ...['latest', '1'].map((kubernetesVersion) => ({ kubernetesVersion })),
    ],
    ['kubernetesVersion is not a string: 1.3. Write', { kubernetesVersion: 1.3 }],
    ['name is not a DNS-1123 subdomain', { name: 'A' }],
    ['labelPrefix is not a DNS-1123 subdomain', { labelPrefix: 'a/b' }],
    ['allowedNamespaces is empty, so no pod could opt in', { allowedNamespaces: [] }],
    ['allowedNamespaces is not a DNS-1123 label', { allowedNamespaces: ["a'"] }],
    ['allowedNamespaces is not a list of strings: "a"', { allowedNamespaces: 'a' }],
    ['injectedContainers is not a DNS-1123 label', { injectedContainers: ["a']"] }],
    ['injectedContainers is not a list of strings: [null]', { injectedContainers: [null] }],
    [
      'validationActions is empty, repeats an action, or has both Deny and Warn',
      ...[[], ['Deny', 'Warn'], ['Audit', 'Audit']].map((actions) => ({
        validationActions: actions,
      })),
    ],
    ['validationActions is unknown: "deny". Write "Deny" or', { validationActions: ['deny'] }],
    ['failurePolicy is unknown: "x". Write "Fail" or "Ignore".', { failurePolicy: 'x' }],
    ['labels would override a value', { labels: { 'app.kubernetes.io/name': 'x' } }],
    ['annotations has an invalid key: "a b"', { annotations: { 'a b': 'x' } }],
  ])('refuses options with the path and the remedy: %s', (message, ...wrong) => {
    expectRefusals(manifests, `[test/guard] ${message}`, wrong);
  });
});
