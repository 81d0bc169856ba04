import { ApiObject, Cron, Size, Testing } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { OnePerNodeDeployment, OomKillMode, OomKillPolicy } from '../lib';
import {
  admissionChart,
  allPropsChart,
  defaultsChart,
  dropInChart,
  followingChart,
} from './support/all-props';
import { Manifest, chart, parse, read, synth } from './support/manifests';
import { Schema, VERSIONS, loadSchemas, violations } from './support/schema';

let schemas: Record<string, Schema>;

beforeAll(() => {
  schemas = loadSchemas();
});

function schemaOf(version: string): Schema {
  const schema = schemas[version];
  if (schema === undefined) {
    throw new Error(`no schema of ${version}`);
  }
  return schema;
}

function workloads(): Manifest[] {
  const scope = chart();
  const containers = [{ name: 'main', image: 'example.com/image:1' }];
  new kplus.Pod(scope, 'pod', { containers });
  new kplus.Job(scope, 'job', { containers });
  new kplus.CronJob(scope, 'cron-job', { containers, schedule: Cron.daily() });
  new ApiObject(scope, 'replica-set', {
    apiVersion: 'apps/v1',
    kind: 'ReplicaSet',
    spec: { selector: {}, template: { spec: { containers } } },
  });
  new OnePerNodeDeployment(scope, 'deployment', {
    name: 'main',
    image: 'example.com/image:1',
    replicas: 1,
    cpu: kplus.Cpu.millis(1),
    memory: Size.mebibytes(1),
    env: { A: 'b' },
    oomKillMode: OomKillMode.GROUP,
  });
  OomKillPolicy.of(scope).single().perContainer({ main: OomKillMode.GROUP });
  return synth(scope);
}

describe.each(VERSIONS)('Kubernetes %s', (version) => {
  const minor = Number(version.slice(2));
  const found = (all: Manifest[]) => all.flatMap((m) => violations(schemaOf(version), m));

  test.each([
    ['dist/', () => parse(read('dist', 'herder.k8s.yaml'))],
    ['the agent with every option', () => synth(allPropsChart(Testing.app()))],
    ['a deployment that follows the nodes', () => synth(followingChart(Testing.app()))],
    ['a workload of every kind with a policy', workloads],
  ])('accepts %s', (_, manifests) => {
    const all = manifests();
    expect(all.length).toBeGreaterThanOrEqual(4);
    expect(found(all)).toEqual([]);
  });

  // Before it has the API in v1, the kind itself is unknown.
  test.each([
    { what: 'the admission policy', make: admissionChart, since: 30 },
    { what: 'the defaults', make: defaultsChart, since: 36 },
  ])('accepts $what, if it has that API', ({ make, since }) => {
    const all = synth(make(Testing.app()));
    expect(all).toHaveLength(4);
    expect(found(all)).toEqual(
      minor >= since ? [] : all.map(({ kind }) => `${kind} has the unknown type V1${kind}`),
    );
  });

  // Before, kubectl refuses the field, or drops it with --validate=warn. An annotation says the same.
  test('accepts the drop-in for systemd, from 1.30 on with its field for AppArmor', () => {
    const all = synth(dropInChart(Testing.app()));
    expect(all).toHaveLength(6);
    const unknown =
      'DaemonSet.spec.template.spec.containers[0].securityContext.appArmorProfile is unknown';
    expect(found(all)).toEqual(minor >= 30 ? [] : [unknown, unknown]);
  });

  // The checks above would pass by a schema that knows nothing.
  test('rejects what it does not know', () => {
    const wrong = `
      apiVersion: apps/v1
      kind: DaemonSet
      metadata: { labels: { a: 1 } }
      spec: { tempalte: {}, template: { spec: { containers: { name: a } } } }`;
    expect(found(parse(wrong))).toEqual([
      'DaemonSet.metadata.labels.a is no string',
      'DaemonSet.spec.tempalte is unknown',
      'DaemonSet.spec.template.spec.containers is no array',
    ]);
  });
});
