import { ApiObject, App, Chart, Cron, Helm, Include, JsonPatch, Lazy, Size, Testing } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { k8s } from 'cdk8s-plus-28';
import * as kplus33 from 'cdk8s-plus-33';
import * as kplus34 from 'cdk8s-plus-34';
import { Construct } from 'constructs';
import {
  Herder,
  OomKillMode,
  OomKillModeAgent,
  OomKillPolicy,
  OomKillPolicyProps,
  OnePerNodeDeployment,
  WorkloadKind,
} from '../../lib';
import {
  Manifest,
  chart,
  expectRefusals,
  synth,
  synthText,
  template,
  temporary,
} from '../support/manifests';

const LABEL = 'cdk8s-oom-kill-mode/mode';
const CONTAINERS = 'cdk8s-oom-kill-mode/containers';
const IMAGE = 'example.com/image:1';

/** The contract of every workload, by name: the mode, and the overrides after a space. */
function policies(manifests: Manifest[]): Record<string, string | undefined> {
  const workloads = manifests.filter(({ kind }) => kind in KINDS);
  return Object.fromEntries(
    workloads.map((manifest) => {
      const { metadata } = template(manifest) as { metadata?: Partial<Manifest['metadata']> };
      const mode = metadata?.labels?.[LABEL];
      const containers = metadata?.annotations?.[CONTAINERS];
      return [manifest.metadata.name, containers === undefined ? mode : `${mode} ${containers}`];
    }),
  );
}

/** Every kind with a pod template, around one. */
const KINDS: Record<string, (pods: object) => object> = {
  Pod: (pods) => ({ apiVersion: 'v1', ...pods }),
  ReplicationController: (pods) => ({ apiVersion: 'v1', spec: { template: pods } }),
  DaemonSet: (pods) => ({ apiVersion: 'apps/v1', spec: { template: pods } }),
  Deployment: (pods) => ({ apiVersion: 'apps/v1', spec: { template: pods } }),
  ReplicaSet: (pods) => ({ apiVersion: 'apps/v1', spec: { template: pods } }),
  StatefulSet: (pods) => ({ apiVersion: 'apps/v1', spec: { template: pods } }),
  Job: (pods) => ({ apiVersion: 'batch/v1', spec: { template: pods } }),
  CronJob: (pods) => ({
    apiVersion: 'batch/v1',
    spec: { jobTemplate: { spec: { template: pods } } },
  }),
};

function raw(scope: Construct, kind: string, pods: object = { spec: { containers: [] } }) {
  return new ApiObject(scope, `raw-${kind}`, {
    kind,
    ...(KINDS[kind]?.(pods) as { apiVersion: string }),
  });
}

function deployment(scope: Construct, name: string, ...containers: string[]): kplus.Deployment {
  const [first = 'main', ...others] = containers;
  return new kplus.Deployment(scope, name, {
    metadata: { name },
    containers: [first, ...others].map((container) => ({ name: container, image: IMAGE })),
  });
}

const YAML = `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      initContainers: [{name: setup, image: example.com/setup:1}]
      containers: [{name: php, image: example.com/php:8}, {name: nginx, image: example.com/nginx:1}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  template:
    metadata: {labels: {app: db}, annotations: {checksum: abc}}
    spec: {containers: [{name: postgres, image: example.com/postgres:17}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: backup}
spec:
  schedule: '@daily'
  jobTemplate: {spec: {template: {metadata: {annotations: {}}, spec: {containers: [{name: backup}]}}}}
`;

describe('a workload of cdk8s-plus', () => {
  const containers = [{ image: IMAGE }];
  test.each<[string, (scope: Construct) => kplus.AbstractPod]>([
    ['Pod', (scope) => new kplus.Pod(scope, 'w', { containers })],
    ['Deployment', (scope) => new kplus.Deployment(scope, 'w', { containers })],
    ['DaemonSet', (scope) => new kplus.DaemonSet(scope, 'w', { containers })],
    ['Job', (scope) => new kplus.Job(scope, 'w', { containers })],
    ['CronJob', (scope) => new kplus.CronJob(scope, 'w', { containers, schedule: Cron.hourly() })],
    [
      'StatefulSet',
      (scope) => {
        const service = new kplus.Service(scope, 's', { ports: [{ port: 80 }] });
        return new kplus.StatefulSet(scope, 'w', { containers, service });
      },
    ],
  ])('%s carries the label and the annotation on its pods', (kind, make) => {
    const scope = chart();
    OomKillPolicy.of(make(scope)).single().perContainer({ main: OomKillMode.GROUP });
    const [workload, ...others] = synth(scope).filter((manifest) => manifest.kind === kind);
    expect(others).toEqual([]);
    const { labels, annotations } = template(workload as Manifest).metadata;
    expect(labels).toMatchObject({ [LABEL]: 'Single' });
    expect(annotations).toEqual({ [CONTAINERS]: 'main=Group' });
  });

  test('differs from a plain one in nothing else', () => {
    const plain = chart();
    deployment(plain, 'web');
    const opted = chart();
    OomKillPolicy.of(deployment(opted, 'web')).single();
    expect(synthText(opted).split(`        ${LABEL}: Single\n`).join('')).toBe(synthText(plain));
    expect(policies(synth(opted))).toEqual({ web: 'Single' });
  });

  test('keeps the metadata that its pods have', () => {
    const scope = chart();
    const web = new kplus.Deployment(scope, 'web', {
      containers,
      podMetadata: { labels: { app: 'web' }, annotations: { checksum: 'abc' } },
    });
    OomKillPolicy.of(web).group().perContainer({ main: OomKillMode.SINGLE });
    const { labels, annotations } = template(synth(scope)[0] as Manifest).metadata;
    expect(labels).toMatchObject({ app: 'web', [LABEL]: 'Group' });
    expect(annotations).toEqual({ checksum: 'abc', [CONTAINERS]: 'main=Single' });
  });

  test('is reached when its API object is the target', () => {
    const scope = chart();
    OomKillPolicy.of(ApiObject.of(deployment(scope, 'web'))).single();
    expect(policies(synth(scope))).toEqual({ web: 'Single' });
  });

  test('is told from a workload that is defined inside it', () => {
    const scope = chart();
    const web = deployment(scope, 'web');
    const job = raw(web, 'Job', { spec: { containers: [{ name: 'a' }] } });
    OomKillPolicy.of(job).perContainer({ a: OomKillMode.SINGLE });
    expect(policies(synth(scope))).toEqual({ web: undefined, [job.name]: 'Single' });
  });

  test('is reached as a typed L1 object, too', () => {
    const scope = chart();
    const job = new k8s.KubeJob(scope, 'job', {
      metadata: { name: 'job' },
      spec: {
        template: { spec: { restartPolicy: 'Never', containers: [{ name: 'a', image: IMAGE }] } },
      },
    });
    OomKillPolicy.of(job).group().perContainer({ a: OomKillMode.SINGLE });
    expect(policies(synth(scope))).toEqual({ job: 'Group a=Single' });
  });
});

describe('an ApiObject', () => {
  test.each(Object.keys(KINDS))('%s gets label and annotation where it had no metadata', (kind) => {
    const scope = chart();
    const pods = { spec: { containers: [{ name: 'a' }], initContainers: [{ name: 'b' }] } };
    OomKillPolicy.of(raw(scope, kind, pods))
      .single()
      .perContainer({ b: OomKillMode.GROUP, a: OomKillMode.SINGLE });
    const [manifest] = synth(scope);
    expect(template(manifest as Manifest).metadata).toMatchObject({
      labels: { [LABEL]: 'Single' },
      annotations: { [CONTAINERS]: 'a=Single,b=Group' },
    });
    expect(template(manifest as Manifest).spec).toEqual(pods.spec);
  });

  test.each([
    ['no labels', { annotations: { checksum: 'abc' } }],
    ['no annotations', { labels: { app: 'web' } }],
    ['both', { labels: { app: 'web' }, annotations: { checksum: 'abc' } }],
    ['empty maps', { labels: {}, annotations: {} }],
    ['nothing', {}],
  ])('keeps the metadata of its pods, which is %s', (_, metadata: Record<string, object>) => {
    const scope = chart();
    const pods = { metadata, spec: { containers: [{ name: 'a' }, { name: 'b' }] } };
    OomKillPolicy.of(raw(scope, 'Deployment', pods)).perContainer({ a: OomKillMode.SINGLE });
    expect(template(synth(scope)[0] as Manifest).metadata).toEqual({
      labels: { ...metadata['labels'], [LABEL]: 'Group' },
      annotations: { ...metadata['annotations'], [CONTAINERS]: 'a=Single' },
    });
  });
});

describe('a scope', () => {
  function included(scope: Construct): Include {
    return new Include(scope, 'include', { url: temporary('all.yaml', YAML) });
  }

  test('of plain YAML passes a policy to every workload', () => {
    const scope = chart();
    OomKillPolicy.of(included(scope)).single();
    const manifests = synth(scope);
    expect(policies(manifests)).toEqual({ web: 'Single', db: 'Single', backup: 'Single' });
    expect(template(manifests[2] as Manifest).metadata).toEqual({
      labels: { app: 'db', [LABEL]: 'Single' },
      annotations: { checksum: 'abc' },
    });
    expect(JSON.stringify(manifests[0])).not.toContain('oom-kill-mode');
  });

  test('of a Helm release passes a policy to every workload', () => {
    // Stands in for the helm binary: it is the construct and its children that matter here.
    const helmExecutable = temporary('helm', `#!/bin/sh\ncat <<'END'${YAML}END\n`, 0o755);
    const scope = chart();
    const release = new Helm(scope, 'release', { chart: 'some/chart', helmExecutable });
    OomKillPolicy.of(release).group();
    expect(policies(synth(scope))).toEqual({ web: 'Group', db: 'Group', backup: 'Group' });
  });

  test('of a chart passes a policy to what is added after the call, however deep', () => {
    const scope = chart();
    OomKillPolicy.of(scope).single();
    deployment(scope, 'api');
    included(new Construct(scope, 'group'));
    deployment(new Construct(new Construct(scope, 'a'), 'b'), 'deep');
    expect(policies(synth(scope))).toMatchObject({ api: 'Single', db: 'Single', deep: 'Single' });
  });

  test('of an app passes a policy to every chart', () => {
    const app = Testing.app();
    const [a, b] = [new Chart(app, 'a'), new Chart(app, 'b')] as const;
    deployment(a, 'web');
    deployment(b, 'web');
    OomKillPolicy.of(app).single();
    expect([policies(synth(a)), policies(synth(b))]).toEqual([
      { web: 'Single' },
      { web: 'Single' },
    ]);
  });

  test('gives each workload the modes of the containers that it has', () => {
    const scope = chart();
    OomKillPolicy.of(included(scope))
      .single()
      .perContainer({ php: OomKillMode.SINGLE, setup: OomKillMode.GROUP })
      .perContainer({ postgres: OomKillMode.GROUP });
    expect(policies(synth(scope))).toEqual({
      web: 'Single php=Single,setup=Group',
      db: 'Single postgres=Group',
      backup: 'Single',
    });
  });

  test('opts in nothing but the named containers when it has no mode of its own', () => {
    const scope = chart();
    OomKillPolicy.of(included(scope)).perContainer({ postgres: OomKillMode.SINGLE });
    expect(policies(synth(scope))).toEqual({ db: 'Single' });
  });

  test('leaves the pods of the agent alone', () => {
    const scope = chart();
    OomKillPolicy.of(scope).single();
    new OomKillModeAgent(scope, 'agent', { name: 'agent' });
    deployment(scope, 'web');
    expect(policies(synth(scope))).toEqual({ agent: undefined, web: 'Single' });
  });

  test.each(['outer first', 'inner first'])('the nearest policy counts alone: %s', (order) => {
    const scope = chart();
    const group = new Construct(scope, 'group');
    const web = deployment(group, 'web', 'php', 'nginx');
    deployment(group, 'api');
    deployment(scope, 'cron');
    const calls = [
      () => OomKillPolicy.of(scope).single(),
      () => OomKillPolicy.of(group).group(),
      () => OomKillPolicy.of(web).perContainer({ php: OomKillMode.SINGLE }),
    ];
    (order === 'outer first' ? calls : calls.reverse()).forEach((call) => call());
    expect(policies(synth(scope))).toEqual({
      web: 'Group php=Single',
      api: 'Group',
      cron: 'Single',
    });
  });

  test('policies of two prefixes are two policies', () => {
    const scope = chart();
    const web = deployment(scope, 'web');
    OomKillPolicy.of(scope, { labelPrefix: 'oom.example.com' }).group();
    OomKillPolicy.of(web).single();
    expect(template(synth(scope)[0] as Manifest).metadata.labels).toMatchObject({
      'oom.example.com/mode': 'Group',
      [LABEL]: 'Single',
    });
  });

  test('two syntheses give the same bytes', () => {
    const app = new App({ outdir: Testing.app().outdir });
    const scope = new Chart(app, 'test');
    included(scope);
    deployment(scope, 'spread');
    OomKillPolicy.of(scope).single().perContainer({ php: OomKillMode.GROUP });
    const first = synthText(scope);
    app.synth();
    expect(synthText(scope)).toBe(first);
    expect(first).toContain(`${CONTAINERS}: php=Group`);
  });

  test('a label that says the same already is no contradiction', () => {
    const scope = chart();
    const pods = { metadata: { labels: { [LABEL]: 'Single' } }, spec: { containers: [] } };
    OomKillPolicy.of(raw(scope, 'Deployment', pods)).single();
    expect(template(synth(scope)[0] as Manifest).metadata.labels).toEqual({ [LABEL]: 'Single' });
  });
});

describe.each([
  ['cdk8s-plus-28', kplus],
  ['cdk8s-plus-33', kplus33 as unknown as typeof kplus],
  ['cdk8s-plus-34', kplus34 as unknown as typeof kplus],
])('what is rendered counts: on %s', (_, plus) => {
  function workload(scope: Construct, name: string, ...containers: string[]): kplus.Deployment {
    return new plus.Deployment(scope, name, {
      metadata: { name },
      containers: containers.map((container) => ({ name: container, image: IMAGE })),
    });
  }

  test.each([
    ['the labels', JsonPatch.replace('/spec/template/metadata/labels', { app: 'web' })],
    ['the metadata', JsonPatch.add('/spec/template/metadata', {})],
  ])('a patch that replaces %s takes nothing away', (_name, patch) => {
    const scope = chart();
    const web = workload(scope, 'web', 'main', 'proxy');
    ApiObject.of(web).addJsonPatch(patch);
    OomKillPolicy.of(web).single().perContainer({ proxy: OomKillMode.GROUP });
    expect(policies(synth(scope))).toEqual({ web: 'Single proxy=Group' });
    ApiObject.of(web).addJsonPatch(patch);
    expect(policies(synth(scope))).toEqual({ web: 'Single proxy=Group' });
  });

  test('a patch that sets another mode is a contradiction', () => {
    const scope = chart();
    const web = workload(scope, 'web', 'main');
    OomKillPolicy.of(web).single();
    expect(policies(synth(scope))).toEqual({ web: 'Single' });
    ApiObject.of(web).addJsonPatch(
      JsonPatch.add(`/spec/template/metadata/labels/${LABEL.replace('/', '~1')}`, 'Group'),
    );
    expect(() => synth(scope)).toThrow(
      '[test/web/Resource] its pods already have cdk8s-oom-kill-mode/mode: Group, but OomKillPolicy of test/web says Single. Write only one of the two.',
    );
  });

  test.each(['before', 'after'])(
    'a container that a patch renames %s a synthesis is gone',
    (when) => {
      const scope = chart();
      const web = workload(scope, 'web', 'main', 'proxy');
      const others = workload(new Construct(scope, 'others'), 'api', 'proxy');
      const group = when === 'before' ? web : scope;
      OomKillPolicy.of(group).perContainer({ main: OomKillMode.SINGLE, proxy: OomKillMode.GROUP });
      if (when === 'after') {
        expect(policies(synth(scope))).toMatchObject({ web: 'Group main=Single,proxy=Group' });
      }
      ApiObject.of(web).addJsonPatch(
        JsonPatch.replace('/spec/template/spec/containers/0/name', 'renamed'),
      );
      expect(others).toBeDefined();
      expect(() => synth(scope)).toThrow(
        `[${group.node.path}] perContainer() names the container main, but no workload in this scope has it. Write proxy or renamed, or injectedContainers`,
      );
    },
  );

  test('a container that a patch adds is there', () => {
    const scope = chart();
    const web = workload(scope, 'web', 'main');
    OomKillPolicy.of(web).perContainer({ late: OomKillMode.SINGLE });
    ApiObject.of(web).addJsonPatch(
      JsonPatch.add('/spec/template/spec/containers/-', { name: 'late', image: IMAGE }),
    );
    expect(policies(synth(scope))).toEqual({ web: 'Group late=Single' });
  });

  test('a policy on it and one on its API object are about one thing', () => {
    const scope = chart();
    const web = workload(scope, 'web', 'main');
    OomKillPolicy.of(web).single();
    const same = OomKillPolicy.of(ApiObject.of(web));
    same.perContainer({ main: OomKillMode.SINGLE });
    expect(policies(synth(scope))).toEqual({ web: 'Single' });
    same.group();
    expect(() => synth(scope)).toThrow(
      '[test/web/Resource] OomKillPolicy of test/web/Resource says Group main=Single about its pods, but OomKillPolicy of test/web says Single. Write only one of the two.',
    );
  });

  test('a mode that is misspelt on the pods is an error, whatever policy there is', () => {
    const scope = chart();
    workload(scope, 'web', 'main').podMetadata.addLabel(LABEL, 'Sinlge');
    new OomKillModeAgent(scope, 'agent');
    expect(() => synth(scope)).toThrow(
      '[test/web/Resource] its pods have cdk8s-oom-kill-mode/mode: Sinlge, which is not a mode. Write cdk8s-oom-kill-mode/mode: Single or',
    );
  });

  test('a mode on the workload instead of its pods is an error', () => {
    const scope = chart();
    workload(scope, 'web', 'main').metadata.addLabel(LABEL, 'Single');
    new OomKillModeAgent(scope, 'agent');
    expect(() => synth(scope)).toThrow(
      '[test/web/Resource] the label cdk8s-oom-kill-mode/mode: Single is on the Deployment itself, but its pods do not have it. Write OomKillPolicy.of() of this object',
    );
  });
});

test('values that are made late, and resolvers, count as they come out', () => {
  const late = { produce: () => ({ labels: { app: 'late' }, annotations: { a: 'b' } }) };
  const resolver = {
    resolve: (context: { value: unknown; replaceValue: (value: unknown) => void }) => {
      if (context.value === 'RENAMED') {
        context.replaceValue('worker');
      }
    },
  };
  const scope = new Chart(Testing.app({ resolvers: [resolver] }), 'test');
  const web = raw(scope, 'Deployment', {
    metadata: Lazy.any(late) as unknown,
    spec: { containers: [{ name: 'RENAMED' }, { name: 'proxy' }] },
  });
  OomKillPolicy.of(web).perContainer({ worker: OomKillMode.SINGLE });
  expect(template(synth(scope)[0] as Manifest).metadata).toEqual({
    labels: { app: 'late', [LABEL]: 'Group' },
    annotations: { a: 'b', [CONTAINERS]: 'worker=Single' },
  });
});

describe('kinds that are not known', () => {
  const pods = {
    metadata: { labels: { a: 'b' } },
    spec: { containers: [{ name: 'main', image: IMAGE }] },
  };
  function pipeline(scope: Construct, props: OomKillPolicyProps = {}): OomKillPolicy {
    deployment(scope, 'web');
    new ApiObject(scope, 'pipeline', {
      apiVersion: 'ci.example.com/v1',
      kind: 'Pipeline',
      metadata: { name: 'pipeline' },
      spec: {
        steps: [{ pod: pods }, { pod: pods }],
        sidecar: { containers: [{ name: 'main', image: IMAGE }] },
      },
    });
    return OomKillPolicy.of(scope, props);
  }

  const KIND = { apiGroup: 'ci.example.com', kind: 'Pipeline' };

  test('what makes pods that cannot be reached is an error', () => {
    const scope = chart();
    pipeline(scope).single();
    expect(() => synth(scope)).toThrow(
      '[test/pipeline] ci.example.com/v1 Pipeline is an unknown kind, but /spec/sidecar looks like the template of a pod. Write workloadKinds: [{ apiGroup: "ci.example.com", kind: "Pipeline", podMetadata: ["…"] }] with a pointer to the metadata of its pods, or workloadKinds: [{ apiGroup: "ci.example.com", kind: "Pipeline", skipped: true }], in the options of OomKillPolicy.of().',
    );
  });

  test.each<[string, WorkloadKind, object]>([
    [
      'where its templates are',
      { ...KIND, podTemplates: ['/spec/steps/*/pod'] },
      {
        spec: {
          steps: [
            { pod: { metadata: { labels: { a: 'b', [LABEL]: 'Single' } } } },
            { pod: { metadata: { labels: { [LABEL]: 'Single' } } } },
          ],
        },
      },
    ],
    [
      'where its labels for pods are',
      { ...KIND, podMetadata: ['/spec/podMeta'] },
      { spec: { podMeta: { labels: { [LABEL]: 'Single' } } } },
    ],
    ['that it is skipped', { ...KIND, skipped: true }, {}],
  ])('a policy can be told %s', (_, kind, expected) => {
    const scope = chart();
    pipeline(scope, { workloadKinds: [kind] }).single();
    const manifests = synth(scope);
    expect(policies(manifests)).toEqual({ web: 'Single' });
    expect(manifests[1]).toMatchObject(expected);
    expect(JSON.stringify(manifests[1]).includes(LABEL)).toBe(!kind.skipped);
  });

  test('a policy takes every option at once', () => {
    const kind: Required<WorkloadKind> = {
      ...KIND,
      podTemplates: ['/spec/steps/*/pod'],
      podMetadata: ['/spec/podMeta'],
      skipped: false,
    };
    const props: Required<OomKillPolicyProps> = {
      labelPrefix: 'oom.example.com',
      injectedContainers: ['istio-proxy'],
      untilNamed: OomKillMode.SINGLE,
      workloadKinds: [kind],
      allowEmpty: true,
    };
    const scope = chart();
    pipeline(scope, props).perContainer({
      main: OomKillMode.SINGLE,
      'istio-proxy': OomKillMode.GROUP,
    });
    const text = synthText(scope);
    expect(text.split('oom.example.com/mode: Single')).toHaveLength(5);
    expect(text.split('oom.example.com/containers: istio-proxy=Group,main=Single')).toHaveLength(4);
  });

  test('names of containers that cannot be known are not guessed', () => {
    const scope = chart();
    deployment(scope, 'web', 'postgres');
    new ApiObject(scope, 'db', { apiVersion: 'postgresql.cnpg.io/v1', kind: 'Cluster' });
    OomKillPolicy.of(scope).perContainer({ postgres: OomKillMode.SINGLE });
    expect(() => synth(scope)).toThrow(
      '[test/db] perContainer() of test cannot know the names of its containers. Write single() or group() beside perContainer(), injectedContainers, or another OomKillPolicy for this object.',
    );
    OomKillPolicy.of(scope, { injectedContainers: ['postgres'] });
    expect(synthText(scope)).toContain(`${CONTAINERS}: postgres=Single`);
  });
});

describe('workloadKinds', () => {
  const THING = { apiGroup: 'example.com', kind: 'Thing', podTemplates: ['/spec/parts/*/pod'] };
  const pod = { spec: { containers: [{ name: 'main', image: IMAGE }] } };

  function thing(scope: Construct, parts: object[] = [{ pod }], id = 'thing'): ApiObject {
    return new ApiObject(scope, id, {
      apiVersion: 'example.com/v1',
      kind: 'Thing',
      spec: { parts },
    });
  }

  const GROUP = { apiGroup: 'example.com', kind: 'Thing' };

  test.each<[string, WorkloadKind[], parts?: object[]]>([
    [
      '[test] workloadKinds has an invalid API group: "example.com/v1". Write apiGroup: "example.com", without a version.',
      [{ ...THING, apiGroup: 'example.com/v1' }],
    ],
    [
      '[test] workloadKinds has an invalid kind: "thing". Write a kind as in the manifest, such as kind: "Thing".',
      [{ ...THING, kind: 'thing' }],
    ],
    [
      '[test] workloadKinds has example.com Things, but this scope has no such object. Write apiGroup: "example.com", kind: "Thing", or allowEmpty: true.',
      [{ ...THING, kind: 'Things' }],
    ],
    [
      '[test/thing] example.com/v1 Thing has nothing at /spec/parts/1/pod, although workloadKinds says that its pods are there. Write pointers',
      [THING],
      [{ pod }, { name: 'other' }],
    ],
    ['[test/thing] example.com/v1 Thing has nothing at /spec/parts/*/pod, although', [THING], []],
    [
      '[test/thing] example.com/v1 Thing has no spec.containers in /spec, although',
      [{ ...GROUP, podTemplates: ['/spec'] }],
    ],
    [
      '[test/thing] example.com/v1 Thing has nothing at /spce/pods, although',
      [{ ...GROUP, podMetadata: ['/spce/pods'] }],
    ],
    [
      '[test] one entry of workloadKinds says where the pods of Thing are, and another entry skips it. Write only one of them.',
      [THING, { ...GROUP, skipped: true }],
    ],
    ['[test] workloadKinds must either skip Thing or say where its pods are. Write', [GROUP]],
    [
      '[test] workloadKinds must either skip Thing or say where its pods are. Write',
      [{ ...THING, skipped: true }],
    ],
    [
      '[test] workloadKinds has an invalid JSON pointer for Thing: "spec". Write',
      [{ ...GROUP, podMetadata: ['spec'] }],
    ],
  ])('are refused: %s', (message, kinds, ...[parts]) => {
    const scope = chart();
    deployment(scope, 'web');
    thing(scope, parts);
    expect(() => {
      kinds.forEach((kind) => OomKillPolicy.of(scope, { workloadKinds: [kind] }).single());
      synth(scope);
    }).toThrow(message);
  });

  test('of several calls for one kind add up, and nearer policies know them', () => {
    const scope = chart();
    const group = new Construct(scope, 'group');
    for (const where of [scope, group]) {
      new ApiObject(where, 'thing', {
        ...{ apiVersion: 'example.com/v1', kind: 'Thing' },
        spec: { parts: [{ pod }], other: { pod } },
      });
    }
    OomKillPolicy.of(scope, { workloadKinds: [THING] }).single();
    OomKillPolicy.of(scope, { workloadKinds: [{ ...THING, podTemplates: ['/spec/other/pod'] }] });
    const repeated = OomKillPolicy.of(group, { workloadKinds: [THING] }).group();
    expect(repeated.report()).toHaveLength(2);
    const text = synthText(scope);
    expect(text.split(`${LABEL}: Single`)).toHaveLength(3);
    expect(text.split(`${LABEL}: Group`)).toHaveLength(3);
  });

  test('of a nearer policy say what is skipped', () => {
    const scope = chart();
    thing(scope);
    const group = new Construct(scope, 'group');
    thing(group);
    deployment(group, 'web');
    OomKillPolicy.of(scope, { workloadKinds: [THING] }).single();
    const skipped = { apiGroup: 'example.com', kind: 'Thing', skipped: true };
    OomKillPolicy.of(group, { workloadKinds: [skipped] }).group();
    const text = synthText(scope);
    expect([text.split(`${LABEL}: Single`).length, text.split(`${LABEL}: Group`).length]).toEqual([
      2, 2,
    ]);
  });

  test('fit objects in a List, too', () => {
    const scope = chart();
    const item = { apiVersion: 'example.com/v1', kind: 'Thing', spec: { parts: [{ pod }] } };
    new ApiObject(scope, 'list', { apiVersion: 'v1', kind: 'List', items: [item] });
    OomKillPolicy.of(scope, { workloadKinds: [THING] }).single();
    expect(synthText(scope)).toContain(`${LABEL}: Single`);
  });
});

describe('none and allowEmpty', () => {
  test('none() leaves a workload, or a scope, out', () => {
    const scope = chart();
    deployment(scope, 'web');
    const group = new Construct(scope, 'group');
    deployment(group, 'migration');
    const unknown = { spec: { pod: { spec: { containers: [{ name: 'a', image: IMAGE }] } } } };
    new ApiObject(group, 'x', { apiVersion: 'example.com/v1', kind: 'Thing', ...unknown });
    OomKillPolicy.of(scope).single();
    OomKillPolicy.of(group).none();
    OomKillPolicy.of(new Construct(scope, 'empty')).none();
    expect(policies(synth(scope))).toEqual({ web: 'Single', migration: undefined });
  });

  test.each<[string, (web: kplus.Deployment) => unknown]>([
    [
      '[test/web] both none() and single() are set. Write only one of them.',
      (web) => OomKillPolicy.of(web).none().single(),
    ],
    [
      '[test/web] both none() and perContainer() are set. Write only one of them.',
      (web) => OomKillPolicy.of(web).none().perContainer({ main: OomKillMode.SINGLE }),
    ],
    [
      '[test/web] both perContainer() and none() are set. Write only one of them.',
      (web) => OomKillPolicy.of(web).perContainer({ main: OomKillMode.SINGLE }).none(),
    ],
    [
      '[test/web/Resource] OomKillPolicy of test/web/Resource says nothing about its pods, but OomKillPolicy of test/web says Single. Write only one of the two.',
      (web) => [OomKillPolicy.of(web).single(), OomKillPolicy.of(ApiObject.of(web)).none()],
    ],
    [
      '[test/web/Resource] its pods already have cdk8s-oom-kill-mode/mode: Single, but OomKillPolicy of test/web says none(). Write only one of the two.',
      (web) => {
        web.podMetadata.addLabel(LABEL, 'Single');
        OomKillPolicy.of(web).none();
      },
    ],
  ])('none() beside another choice is refused: %s', (message, make) => {
    const scope = chart();
    expect(() => {
      make(deployment(scope, 'web'));
      synth(scope);
    }).toThrow(message);
  });

  test('allowEmpty is for a scope that may be empty', () => {
    const scope = chart();
    deployment(scope, 'web');
    const empty = new Construct(scope, 'empty');
    const policy = OomKillPolicy.of(empty).single().perContainer({ a: OomKillMode.GROUP });
    expect(() => synth(scope)).toThrow(
      '[test/empty] this scope has no workload for OomKillPolicy. Write',
    );
    const workloadKinds = [{ apiGroup: 'example.com', kind: 'Thing', skipped: true }];
    expect(OomKillPolicy.of(empty, { allowEmpty: true, workloadKinds })).toBe(policy);
    expect(policies(synth(scope))).toEqual({ web: undefined });
  });
});

describe('a report', () => {
  function app(): { root: App; scope: Chart; policy: OomKillPolicy } {
    const root = Testing.app();
    const scope = new Chart(root, 'shop');
    deployment(scope, 'web', 'php', 'nginx');
    const job = raw(scope, 'Job', { spec: { containers: [{ name: 'a' }] } });
    deployment(new Construct(scope, 'near'), 'api');
    new ApiObject(scope, 'rule', { apiVersion: 'kyverno.io/v1', kind: 'ClusterPolicy' });
    new kplus.ConfigMap(scope, 'config');
    deployment(new Chart(root, 'other'), 'own').podMetadata.addLabel(LABEL, 'Group');
    deployment(new Chart(root, 'rest'), 'plain');
    OomKillPolicy.of(job).none();
    OomKillPolicy.of(scope.node.findChild('near')).group();
    const policy = OomKillPolicy.of(scope).single().perContainer({ php: OomKillMode.GROUP });
    return { root, scope, policy };
  }

  const TEMPLATE = { apiVersion: 'apps/v1', kind: 'Deployment', pods: '/spec/template/metadata' };
  const WEB = {
    ...TEMPLATE,
    path: 'shop/web/Resource',
    name: 'web',
    policy: 'shop',
    mode: 'Single',
    containers: { nginx: 'Single', php: 'Group' },
  };
  const RULE = {
    ...{ path: 'shop/rule', apiVersion: 'kyverno.io/v1', kind: 'ClusterPolicy' },
    name: expect.stringContaining('rule') as string,
    policy: 'shop',
    untouched: 'it belongs to a policy engine',
  };
  const JOB = {
    ...TEMPLATE,
    ...{ path: 'shop/raw-Job', apiVersion: 'batch/v1', kind: 'Job' },
    name: expect.stringContaining('raw-job') as string,
  };
  const API = { ...TEMPLATE, path: 'shop/near/api/Resource', name: 'api' };

  test('of a policy lists what it reached, and what it left alone and why', () => {
    expect(app().policy.report()).toEqual([
      { ...API, policy: 'shop/near', untouched: 'OomKillPolicy of shop/near is nearer' },
      { ...JOB, policy: 'shop/raw-Job', untouched: 'OomKillPolicy of shop/raw-Job is nearer' },
      RULE,
      WEB,
    ]);
  });

  test('of an app lists all, and is the same before and after a synthesis', () => {
    const { root } = app();
    const report = OomKillPolicy.reportOf(root);
    expect(report).toEqual([
      {
        ...TEMPLATE,
        path: 'other/own/Resource',
        name: 'own',
        mode: 'Group',
        containers: { main: 'Group' },
      },
      {
        ...TEMPLATE,
        path: 'rest/plain/Resource',
        name: 'plain',
        untouched: 'there is no OomKillPolicy above it',
      },
      { ...API, policy: 'shop/near', mode: 'Group', containers: { main: 'Group' } },
      { ...JOB, policy: 'shop/raw-Job', untouched: 'OomKillPolicy of shop/raw-Job says none()' },
      RULE,
      WEB,
    ]);
    root.synthYaml();
    expect(OomKillPolicy.reportOf(root)).toEqual(report);
    expect(OomKillPolicy.reportOf(root.node.findChild('rest'))).toEqual([report[1]]);
  });

  test.each(['synth', 'synthYaml'] as const)(
    'is printed by %s() if the environment says so',
    (how) => {
      const { root } = app();
      const write = jest.spyOn(process.stderr, 'write').mockReturnValue(true);
      try {
        root[how]();
        expect(write).not.toHaveBeenCalled();
        process.env['OOM_KILL_POLICY_REPORT'] = '1';
        root[how]();
        const [text = ''] = write.mock.calls.map(([one]) => String(one));
        expect(write).toHaveBeenCalledTimes(1);
        expect(text).toMatch(/^PATH +KIND +NAME +PODS +MODE\n/);
        expect(text).toMatch(
          /^shop\/web\/Resource +Deployment +web +\/spec\/template\/metadata +Single php=Group$/m,
        );
        expect(text).toMatch(/^shop\/rule +ClusterPolicy .* - it belongs to a policy engine$/m);
      } finally {
        delete process.env['OOM_KILL_POLICY_REPORT'];
        write.mockRestore();
      }
    },
  );

  test('fails where a synthesis would', () => {
    const { root, scope } = app();
    deployment(scope, 'late').podMetadata.addLabel(LABEL, 'Sinlge');
    expect(() => OomKillPolicy.reportOf(root)).toThrow('[shop/late/Resource] its pods have');
    expect(() => OomKillPolicy.reportOf(null as never)).toThrow(
      '[OomKillPolicy.reportOf] the target',
    );
  });
});

describe('a synthesis', () => {
  test('renders each object once, and leaves nothing behind', () => {
    const root = Testing.app();
    const rendered: string[] = [];
    for (const id of ['a', 'b', 'c']) {
      const produce = () => (rendered.push(id), [{ name: 'main' }]);
      const spec = { containers: Lazy.any({ produce }) as unknown };
      OomKillPolicy.of(raw(new Chart(root, id), 'Deployment', { spec })).perContainer({
        main: OomKillMode.SINGLE,
      });
    }
    const object = root.charts[0]?.apiObjects[0] as ApiObject;
    const before = Object.getOwnPropertyNames(object);
    expect(root.synthYaml().split(`${LABEL}: Single`)).toHaveLength(4);
    expect(rendered.splice(0).sort()).toEqual(['a', 'b', 'c']);
    Testing.synth(root.charts.find(({ node }) => node.id === 'b') as Chart);
    expect(rendered).toEqual(['b']);
    root.synthYaml();
    expect(Object.getOwnPropertyNames(object)).toEqual(before);
  });

  test('counts what a validation adds', () => {
    const scope = chart();
    const web = deployment(scope, 'web');
    const patch = JsonPatch.replace('/spec/template/spec/containers/0/name', 'late');
    web.node.addValidation({ validate: () => (ApiObject.of(web).addJsonPatch(patch), []) });
    OomKillPolicy.of(web).perContainer({ late: OomKillMode.SINGLE });
    expect(policies(synth(scope))).toEqual({ web: 'Single' });
  });

  test('keeps a toJson of the user', () => {
    const root = Testing.app();
    const web = ApiObject.of(deployment(new Chart(root, 'a'), 'web'));
    const plain = web.toJson.bind(web);
    const own = jest.fn(() => ({ ...(plain() as object), extra: true }));
    web.toJson = own;
    OomKillPolicy.of(web).single();
    expect(root.synthYaml()).toContain('extra: true');
    expect(Object.getOwnPropertyDescriptor(web, 'toJson')?.value).toBe(own);
  });
});

test('an autoscaler only names its workload', () => {
  const scope = chart();
  const target = deployment(scope, 'web');
  new kplus.HorizontalPodAutoscaler(scope, 'h', { target, maxReplicas: 3 });
  const before = synthText(scope).split('---\n')[1];
  OomKillPolicy.of(scope).single();
  expect(policies(synth(scope))).toEqual({ web: 'Single' });
  expect(synthText(scope).split('---\n')[1]).toBe(before);
});

describe('what is written by hand', () => {
  const NO_MARK =
    'but its pods do not have it. Write OomKillPolicy.of() of this object, or the same on its pod template.';

  test.each<[string, object, string]>([
    [
      'CronJob',
      { spec: { jobTemplate: { metadata: { labels: { [LABEL]: 'Single' } } } } },
      `[test/x] the label ${LABEL}: Single is on /spec/jobTemplate/metadata, ${NO_MARK}`,
    ],
    [
      'Deployment',
      { metadata: { annotations: { [CONTAINERS]: 'main=Single' } } },
      `[test/x] the annotation ${CONTAINERS}: main=Single is on the Deployment itself, ${NO_MARK}`,
    ],
    [
      'Namespace',
      { metadata: { labels: { [LABEL]: 'Single' } } },
      `[test/x] the label ${LABEL}: Single is on the Namespace itself, ${NO_MARK}`,
    ],
    [
      'Pod',
      { metadata: { annotations: { [CONTAINERS]: 'main=Single' } } },
      `[test/x] its pods have the annotation ${CONTAINERS}: main=Single without the label ${LABEL}, so the agent ignores it. Write ${LABEL}: Single or ${LABEL}: Group on the same pods.`,
    ],
    [
      'Pod',
      { metadata: { labels: { [LABEL]: 'Group' }, annotations: { [CONTAINERS]: 'mian=Single' } } },
      `[test/x] its pods have ${CONTAINERS}: mian=Single, but no container mian. Write main, or injectedContainers: ["mian"] in an OomKillPolicy with perContainer() if something adds it later.`,
    ],
  ])('is an error on a %s with %j', (kind, written, message) => {
    const scope = chart();
    const around = KINDS[kind]?.({ spec: { containers: [{ name: 'main' }] } }) ?? {
      apiVersion: 'v1',
    };
    const merged = merge(around, written) as { apiVersion: string };
    new ApiObject(scope, 'x', { kind, ...merged });
    deployment(scope, 'web');
    OomKillPolicy.of(scope.node.findChild('web')).single();
    expect(() => synth(scope)).toThrow(message);
  });

  /** Two trees of maps, as one. */
  function merge(a: object, b: object): object {
    const both = Object.entries(b).map(([key, value]: [string, unknown]) => {
      const own = (a as Record<string, unknown>)[key];
      const isMap = typeof own === 'object' && own !== null && !Array.isArray(own);
      return [key, isMap ? merge(own, value as object) : value];
    });
    return { ...a, ...Object.fromEntries(both) } as object;
  }

  test('may name a container that a policy knows to be injected', () => {
    const scope = chart();
    const web = deployment(scope, 'web');
    web.podMetadata.addLabel(LABEL, 'Group');
    web.podMetadata.addAnnotation(CONTAINERS, 'istio-proxy=Single');
    OomKillPolicy.of(web, { injectedContainers: ['istio-proxy'] })
      .group()
      .perContainer({
        'istio-proxy': OomKillMode.SINGLE,
      });
    expect(policies(synth(scope))).toEqual({ web: 'Group istio-proxy=Single' });
  });

  test('may be where the kind of an operator takes it from', () => {
    const scope = chart();
    deployment(scope, 'web');
    const labels = { [LABEL]: 'Single' };
    new ApiObject(scope, 'db', {
      apiVersion: 'acid.zalan.do/v1',
      kind: 'postgresql',
      metadata: { labels },
    });
    new ApiObject(scope, 'task', {
      apiVersion: 'tekton.dev/v1',
      kind: 'Task',
      metadata: { labels },
    });
    new ApiObject(scope, 'own', {
      apiVersion: 'example.com/v1',
      kind: 'Thing',
      metadata: { labels },
    });
    OomKillPolicy.of(scope.node.findChild('web')).single();
    expect(synthText(scope).split(`${LABEL}: Single`)).toHaveLength(5);
  });
});

describe('perContainer', () => {
  test.each<[string, string[], Record<string, OomKillMode>, OomKillPolicyProps, string]>([
    ['all are alike', ['a', 'b'], { a: OomKillMode.SINGLE, b: OomKillMode.SINGLE }, {}, 'Single'],
    ['one is not named', ['a', 'b'], { a: OomKillMode.SINGLE }, {}, 'Group a=Single'],
    ['the unnamed one is Group anyway', ['a', 'b'], { a: OomKillMode.GROUP }, {}, 'Group'],
    [
      'they differ',
      ['a', 'b'],
      { a: OomKillMode.SINGLE, b: OomKillMode.GROUP },
      {},
      'Group a=Single,b=Group',
    ],
    [
      'untilNamed says so',
      ['a', 'b', 'c'],
      { a: OomKillMode.SINGLE, b: OomKillMode.GROUP },
      { untilNamed: OomKillMode.SINGLE },
      'Single a=Single,b=Group,c=Group',
    ],
    [
      'something is injected',
      ['a'],
      { a: OomKillMode.SINGLE },
      { injectedContainers: ['istio-proxy'] },
      'Group a=Single',
    ],
    [
      'what is injected is named',
      ['a'],
      { 'istio-proxy': OomKillMode.SINGLE },
      { injectedContainers: ['istio-proxy'] },
      'Group istio-proxy=Single',
    ],
  ])('the label is the mode that is right the longest: %s', (_, names, modes, props, expected) => {
    const scope = chart();
    deployment(scope, 'web', ...names);
    OomKillPolicy.of(scope, props).perContainer(modes);
    expect(policies(synth(scope))).toEqual({ web: expected });
  });

  test('an annotation that the agent would not read is an error', () => {
    const scope = chart();
    const names = Array.from({ length: 600 }, (_, i) => `container-${i}`);
    deployment(scope, 'web', 'main', ...names);
    OomKillPolicy.of(scope).perContainer(
      Object.fromEntries(names.map((name) => [name, OomKillMode.SINGLE])),
    );
    expect(() => synth(scope)).toThrow(
      '[test/web/Resource] cdk8s-oom-kill-mode/containers would have 12489 characters, but the agent reads at most 8192. Write single()',
    );
  });

  test('a name that a nearer policy shadows is said to be shadowed', () => {
    const scope = chart();
    OomKillPolicy.of(deployment(scope, 'web', 'php')).single();
    deployment(scope, 'api');
    OomKillPolicy.of(scope).single().perContainer({ php: OomKillMode.GROUP });
    expect(() => synth(scope)).toThrow(
      '[test] perContainer() names php, a container of test/web/Resource, but only the nearest policy applies there: OomKillPolicy of test/web. Write perContainer({ php: … }) of test/web.',
    );
  });
});

describe('a deployment of ours', () => {
  const PROPS = {
    name: 'web',
    image: IMAGE,
    replicas: 1,
    cpu: kplus.Cpu.millis(100),
    memory: Size.mebibytes(64),
    oomKillMode: OomKillMode.SINGLE,
  };

  test.each<[string, (scope: Construct) => void, string]>([
    [
      'itself',
      (scope) => OomKillPolicy.of(new OnePerNodeDeployment(scope, 'web', PROPS)).group(),
      '[test/web/Deployment/Resource] oomKillMode: Single of test/web/Deployment says Single about its pods, but OomKillPolicy of test/web says Group. Write',
    ],
    [
      'its Deployment',
      (scope) => OomKillPolicy.of(new OnePerNodeDeployment(scope, 'web', PROPS).deployment).group(),
      '[test/web/Deployment] both oomKillMode: Single and group() are set. Write',
    ],
    [
      'a herder',
      (scope) => OomKillPolicy.of(new Herder(scope, 'web')).group(),
      '[test/web/OnePerNode/Deployment/Resource] oomKillMode: Single of test/web/OnePerNode/Deployment says Single about its pods, but OomKillPolicy of test/web says Group. Write',
    ],
  ])('contradicts a policy on %s audibly', (_, make, message) => {
    const scope = chart();
    expect(() => {
      make(scope);
      synth(scope);
    }).toThrow(message);
  });

  test('agrees with a policy that says the same, and a chart around it does not matter', () => {
    const scope = chart();
    OomKillPolicy.of(new OnePerNodeDeployment(scope, 'web', PROPS)).single();
    OomKillPolicy.of(scope).group();
    deployment(scope, 'api');
    expect(policies(synth(scope))).toEqual({ web: 'Single', api: 'Group' });
  });
});

test('two policies on objects that share a pod template of the user do not meet in it', () => {
  const scope = chart();
  const shared = { metadata: { labels: { a: 'b' } }, spec: { containers: [{ name: 'a' }] } };
  const [a, b] = ['Deployment', 'StatefulSet'].map((kind) => raw(scope, kind, shared)) as [
    ApiObject,
    ApiObject,
  ];
  for (const object of [a, b]) {
    object.addJsonPatch(JsonPatch.replace('/spec/template', shared));
  }
  OomKillPolicy.of(a).single();
  OomKillPolicy.of(b).group();
  expect(policies(synth(scope))).toEqual({ [a.name]: 'Single', [b.name]: 'Group' });
  expect(shared.metadata.labels).toEqual({ a: 'b' });
});

describe('misuse is refused with the path and the remedy', () => {
  const MODES = { main: OomKillMode.SINGLE };
  const of = OomKillPolicy.of.bind(OomKillPolicy);

  test.each<[string, (scope: Chart, web: kplus.Deployment) => void]>([
    [
      '[test/web] OomKillPolicy.of() chooses no mode. Write .single(), .group(), .perContainer({ … }) or .none() after it.',
      (_, web) => of(web),
    ],
    [
      '[test/web] perContainer() names the container phpp, but no workload in this scope has it. Write nginx or php, or injectedContainers: ["phpp"] if something adds it later.',
      (_, web) => of(web).perContainer({ phpp: OomKillMode.SINGLE }),
    ],
    [
      '[test] perContainer() names the container main, but no workload in this scope has it. Write nginx or php or postgres, or',
      (scope) => {
        deployment(scope, 'db', 'postgres');
        of(scope).single().perContainer({ php: OomKillMode.SINGLE, main: OomKillMode.GROUP });
      },
    ],
    [
      '[test/raw-Job] perContainer() names the container main, but no workload in this scope has it. Write a, or',
      (scope) => {
        of(raw(scope, 'Job', { spec: { containers: [{ name: 'a' }] } })).perContainer(MODES);
      },
    ],
    [
      '[test/empty] this scope has no workload for OomKillPolicy. Write OomKillPolicy.of() of a scope that holds one (CronJob, DaemonSet, Deployment, Job, Pod, ReplicaSet, ReplicationController, StatefulSet or another kind in docs/kinds.md), or allowEmpty: true in its options.',
      (scope) => of(new Construct(scope, 'empty')).single(),
    ],
    [
      '[test/rules] this scope has no workload for OomKillPolicy, and kyverno.io/v1 ClusterPolicy is left alone because it belongs to a policy engine. Write',
      (scope) => {
        const rules = new Construct(scope, 'rules');
        new ApiObject(rules, 'rule', { apiVersion: 'kyverno.io/v1', kind: 'ClusterPolicy' });
        of(rules).single();
      },
    ],
    [
      '[test/agent] this scope has no workload except an OomKillModeAgent, whose pods are never opted in. Write',
      (scope) => of(new OomKillModeAgent(scope, 'agent')).single(),
    ],
    [
      '[test/x] v1 Service has no pods for OomKillPolicy. Write OomKillPolicy.of() of a workload (',
      (scope) => of(new ApiObject(scope, 'x', { apiVersion: 'v1', kind: 'Service' })).single(),
    ],
    [
      '[test/x] v1 ConfigMap has no pods for OomKillPolicy. Write',
      (scope) => of(new kplus.ConfigMap(scope, 'x')).single(),
    ],
    [
      '[test/x] apps/v1 Deployment has nothing at /spec/template, so OomKillPolicy cannot reach its pods. Write',
      (scope) =>
        of(new ApiObject(scope, 'x', { apiVersion: 'apps/v1', kind: 'Deployment' })).group(),
    ],
    [
      '[test/web] both single() and group() are set. Write only one of them.',
      (_, web) => of(web).single().group(),
    ],
    [
      '[test/web] both group() and single() are set. Write only one of them.',
      (_, web) => [of(web).group(), of(web).single()],
    ],
    ['[test/web] perContainer() names no container. Write', (_, web) => of(web).perContainer({})],
    [
      '[test/web] perContainer() has an invalid container name: "a=Single,b". Write',
      (_, web) => of(web).perContainer({ 'a=Single,b': OomKillMode.SINGLE }),
    ],
    [
      '[test/web] the mode of container main is unknown: "single". Write "Single" or "Group".',
      (_, web) => of(web).perContainer({ main: 'single' as never }),
    ],
    [
      '[test/web] perContainer() needs names and modes, not null. Write',
      (_, web) => of(web).perContainer(null as never),
    ],
    [
      '[OomKillPolicy.of] the target is not a construct: null. Write a workload, a chart, or a scope',
      () => of(null as never),
    ],
    [
      '[test/web] labelPrefix is not a string: null. Write "text".',
      (_, web) => of(web, { labelPrefix: null as never }),
    ],
    [
      '[test/web] labelPrefix is not a DNS-1123 subdomain of at most 253 characters: "a/b". Write',
      (_, web) => of(web, { labelPrefix: 'a/b' }),
    ],
    [
      '[test] workloadKinds are not an object: null. Write { … }.',
      (scope) => of(scope, { workloadKinds: [null as never] }),
    ],
    [
      '[test] injectedContainers is not a DNS-1123 label',
      (scope) => of(scope, { injectedContainers: ['Istio'] }),
    ],
    [
      '[test] untilNamed is both Single and Group. Write only one of them.',
      (scope) => {
        of(scope, { untilNamed: OomKillMode.SINGLE });
        of(scope, { untilNamed: OomKillMode.GROUP });
      },
    ],
    [
      '[test/web] container main has two modes: Single and Group. Write only one of them.',
      (_, web) => of(web).perContainer(MODES).perContainer({ main: OomKillMode.GROUP }),
    ],
    [
      '[test/web/Resource] its pods already have cdk8s-oom-kill-mode/mode: Group, but OomKillPolicy of test says Single. Write only one of the two.',
      (scope, web) => {
        web.podMetadata.addLabel(LABEL, 'Group');
        of(scope).single();
      },
    ],
    [
      '[test/raw-Pod] its pods have cdk8s-oom-kill-mode/mode: 1, which is not a mode. Write',
      (scope) => {
        const metadata = { labels: { [LABEL]: 1 } };
        of(raw(scope, 'Pod', { metadata, spec: { containers: [] } })).single();
      },
    ],
    [
      '[test/web/Resource] its pods already have cdk8s-oom-kill-mode/containers: php=Group, but OomKillPolicy of test/web says nothing about it. Write',
      (_, web) => {
        web.podMetadata.addAnnotation(CONTAINERS, 'php=Group');
        of(web).perContainer({ php: OomKillMode.SINGLE, nginx: OomKillMode.SINGLE });
      },
    ],
  ])('%s', (message, misuse) => {
    const use = (wrong: typeof misuse) => {
      const scope = chart();
      wrong(scope, deployment(scope, 'web', 'php', 'nginx'));
      synth(scope);
    };
    expectRefusals(use, message, [misuse]);
  });
});
