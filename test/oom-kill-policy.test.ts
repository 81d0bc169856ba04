import { ApiObject, App, Chart, Cron, Helm, Include, Testing } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { k8s } from 'cdk8s-plus-28';
import { Construct } from 'constructs';
import { OomKillMode, OomKillModeAgent, OomKillPolicy } from '../lib';
import { Manifest, chart, synth, synthText, template, temporary } from './manifests';

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
    expect(policies(synth(scope))).toEqual({ web: undefined, [job.name]: 'Group a=Single' });
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
    const pods = { metadata, spec: { containers: [{ name: 'a' }] } };
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

  test('Include: reaches every workload of plain YAML', () => {
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

  test('Helm: reaches every workload of a release', () => {
    // Stands in for the helm binary: it is the construct and its children that matter here.
    const helmExecutable = temporary('helm', `#!/bin/sh\ncat <<'END'${YAML}END\n`, 0o755);
    const scope = chart();
    const release = new Helm(scope, 'release', { chart: 'some/chart', helmExecutable });
    OomKillPolicy.of(release).group();
    expect(policies(synth(scope))).toEqual({ web: 'Group', db: 'Group', backup: 'Group' });
  });

  test('Chart: reaches what is added after the call, however deep', () => {
    const scope = chart();
    OomKillPolicy.of(scope).single();
    deployment(scope, 'web');
    included(new Construct(scope, 'group'));
    deployment(new Construct(new Construct(scope, 'a'), 'b'), 'deep');
    expect(policies(synth(scope))).toMatchObject({ web: 'Single', db: 'Single', deep: 'Single' });
  });

  test('App: reaches every chart', () => {
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

  test('gives each workload the containers that it has', () => {
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
    expect(policies(synth(scope))).toEqual({ db: 'Group postgres=Single' });
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

describe('misuse', () => {
  const MODES = { main: OomKillMode.SINGLE };

  test.each<[string, (scope: Chart) => void, string]>([
    [
      'no mode',
      (scope) => OomKillPolicy.of(deployment(scope, 'web')),
      '[test/web] OomKillPolicy.of() chooses no mode; write .single(), .group() or .perContainer({ … }) after it instead',
    ],
    [
      'an unknown container',
      (scope) =>
        OomKillPolicy.of(deployment(scope, 'web', 'php', 'nginx')).perContainer({
          phpp: OomKillMode.SINGLE,
        }),
      '[test/web] perContainer names a container that no workload here has: phpp; write nginx or php instead',
    ],
    [
      'a container that no workload of a scope has',
      (scope) => {
        deployment(scope, 'web', 'php');
        deployment(scope, 'db', 'postgres');
        OomKillPolicy.of(scope)
          .single()
          .perContainer({ php: OomKillMode.SINGLE, nginx: OomKillMode.GROUP });
      },
      '[test] perContainer names a container that no workload here has: nginx; write php or postgres instead',
    ],
    [
      'a container of plain YAML that is not there',
      (scope) =>
        OomKillPolicy.of(raw(scope, 'Job', { spec: { containers: [{ name: 'a' }] } })).perContainer(
          MODES,
        ),
      '[test/raw-Job] perContainer names a container that no workload here has: main; write a instead',
    ],
    [
      'an empty scope',
      (scope) => {
        new kplus.ConfigMap(scope, 'config');
        OomKillPolicy.of(scope).single();
      },
      '[test] there is no workload for OomKillPolicy in this scope; write OomKillPolicy.of() of a scope that holds one (CronJob, DaemonSet, Deployment, Job, Pod, ReplicaSet, ReplicationController, StatefulSet) instead',
    ],
    [
      'a scope with the agent only',
      (scope) => OomKillPolicy.of(new OomKillModeAgent(scope, 'agent')).single(),
      '[test/agent] there is no workload for OomKillPolicy in this scope; write',
    ],
    [
      'a List in a scope',
      (scope) => {
        deployment(scope, 'web');
        new ApiObject(scope, 'list', { apiVersion: 'v1', kind: 'List' });
        OomKillPolicy.of(scope).single();
      },
      '[test] the items of List test/list are out of reach of OomKillPolicy; write its items as documents of their own instead',
    ],
    [
      'a DeploymentList in a scope',
      (scope) => {
        new ApiObject(scope, 'list', { apiVersion: 'apps/v1', kind: 'DeploymentList' });
        OomKillPolicy.of(scope).single();
      },
      '[test] the items of DeploymentList test/list are out of reach',
    ],
    [
      'a kind without pods',
      (scope) =>
        OomKillPolicy.of(new ApiObject(scope, 'x', { apiVersion: 'v1', kind: 'Service' })).single(),
      '[test/x] v1 Service has no pod template for OomKillPolicy; write OomKillPolicy.of() of one of CronJob, DaemonSet, Deployment, Job, Pod, ReplicaSet, ReplicationController, StatefulSet, or of a scope around it, instead',
    ],
    [
      'a cdk8s-plus construct without pods',
      (scope) => OomKillPolicy.of(new kplus.ConfigMap(scope, 'x')).single(),
      '[test/x] v1 ConfigMap has no pod template for OomKillPolicy; write',
    ],
    [
      'a namesake of another API group',
      (scope) =>
        OomKillPolicy.of(
          new ApiObject(scope, 'x', { apiVersion: 'batch.volcano.sh/v1alpha1', kind: 'Job' }),
        ).single(),
      '[test/x] batch.volcano.sh/v1alpha1 Job has no pod template for OomKillPolicy; write',
    ],
    [
      'a workload without its pod template',
      (scope) =>
        OomKillPolicy.of(
          new ApiObject(scope, 'x', { apiVersion: 'apps/v1', kind: 'Deployment' }),
        ).single(),
      '[test/x] Deployment has no pod template: /spec/template is missing; write the template instead',
    ],
    [
      'both modes',
      (scope) => OomKillPolicy.of(deployment(scope, 'web')).single().group(),
      '[test/web] both single() and group() are called; write one of them instead',
    ],
    [
      'both modes in two places',
      (scope) => {
        const web = deployment(scope, 'web');
        OomKillPolicy.of(web).group();
        OomKillPolicy.of(web).single();
      },
      '[test/web] both single() and group() are called; write one of them instead',
    ],
    [
      'no containers',
      (scope) => OomKillPolicy.of(deployment(scope, 'web')).perContainer({}),
      '[test/web] perContainer names no container; write { name: OomKillMode.SINGLE } instead',
    ],
    [
      'an invalid container name',
      (scope) =>
        OomKillPolicy.of(deployment(scope, 'web')).perContainer({
          'a=Single,b': OomKillMode.SINGLE,
        }),
      '[test/web] perContainer has an invalid container name: "a=Single,b"; write lower case letters',
    ],
    [
      'an unknown mode',
      (scope) =>
        OomKillPolicy.of(deployment(scope, 'web')).perContainer({
          main: 'single' as unknown as OomKillMode,
        }),
      '[test/web] the mode of container main is unknown: "single"; write "Single" or "Group" instead',
    ],
    [
      'two modes for one container',
      (scope) =>
        OomKillPolicy.of(deployment(scope, 'web'))
          .perContainer(MODES)
          .perContainer({ main: OomKillMode.GROUP }),
      '[test/web] container main has two modes: Single and Group; write one of them instead',
    ],
    [
      'an invalid prefix',
      (scope) => OomKillPolicy.of(deployment(scope, 'web'), { labelPrefix: 'a/b' }).single(),
      '[test/web] labelPrefix is not a DNS-1123 subdomain of at most 253 characters: "a/b"; write a domain of yours',
    ],
    [
      'a label set by hand',
      (scope) => {
        deployment(scope, 'web').podMetadata.addLabel(LABEL, 'Group');
        OomKillPolicy.of(scope).single();
      },
      '[test] the pods of test/web/Resource say cdk8s-oom-kill-mode/mode: Group already, and OomKillPolicy says Single; write one of the two instead',
    ],
    [
      'a label set by hand in plain YAML',
      (scope) => {
        const pods = { metadata: { labels: { [LABEL]: 1 } }, spec: { containers: [] } };
        OomKillPolicy.of(raw(scope, 'Deployment', pods)).single();
      },
      '[test/raw-Deployment] the pods of test/raw-Deployment say cdk8s-oom-kill-mode/mode: 1 already, and OomKillPolicy says Single; write',
    ],
    [
      'an annotation set by hand',
      (scope) => {
        const web = deployment(scope, 'web');
        web.podMetadata.addAnnotation(CONTAINERS, 'main=Group');
        OomKillPolicy.of(web).perContainer(MODES);
      },
      '[test/web] the pods of test/web/Resource say cdk8s-oom-kill-mode/containers: main=Group already, and OomKillPolicy says main=Single; write',
    ],
  ])('refuses %s, with the path and the remedy', (_, misuse, message) => {
    const use = () => {
      const scope = chart();
      misuse(scope);
      synth(scope);
    };
    expect(use).toThrow(message);
    expect(use).toThrow(/; write .* instead$/);
  });
});
