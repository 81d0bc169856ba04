import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Chart, Size, Testing } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import {
  HerderChart,
  OnePerNodeDeployment,
  OomKillModeAdmissionPolicy,
  OomKillModeAgent,
  OomKillModeMonitoring,
} from '../lib';
import {
  admissionChart,
  allPropsChart,
  defaultsChart,
  dropInChart,
  followingChart,
  monitoringChart,
} from './support/all-props';
import { Manifest, ROOT, chart, parse, read, synth } from './support/manifests';

// The API server keeps an object as a structure of Go and writes it out anew: fields of some types are
// dropped when they have no value, and quantities get another form. A tool that compares what it gets with
// what is in Git then sees a difference that no apply can remove.

/** Empty maps that mean something: pointers in the API, which the server keeps. */
const EMPTY_MAPS = ['emptyDir', 'podSelector'];

/** Fields whose `false`, 0 or "" the server keeps, because they are pointers in the API or required. */
const ZEROS = [
  'allowPrivilegeEscalation',
  'automountServiceAccountToken',
  'backoffLimit',
  'enableServiceLinks',
  'immutable',
  'maxSurge',
  'maxUnavailable',
  'partition',
  'privileged',
  'readOnlyRootFilesystem',
  'runAsGroup',
  'runAsNonRoot',
  'runAsUser',
  'setHostnameAsFQDN',
];

/** What the server adds to elements of lists without a key, which many tools compare as a whole. */
const DEFAULTS: [elements: RegExp, field: string][] = [
  [/\bresourceRules\.\d+$/, 'scope'],
  [/\b(in|e)gress\.\d+\.ports\.\d+$/, 'protocol'],
  [/\bvolumeClaimTemplates\.\d+\.spec$/, 'volumeMode'],
];

/** Maps whose values are quantities, and fields that are one. */
const QUANTITIES = ['hard', 'limits', 'requests'];
const QUANTITY = ['sizeLimit'];

/** The kinds of Kubernetes itself. Those of a CustomResourceDefinition are kept as they are written. */
function isBuiltIn({ apiVersion }: Pick<Manifest, 'apiVersion'>): boolean {
  const [group = '', version] = apiVersion.split('/');
  return version === undefined || !group.includes('.') || group.endsWith('.k8s.io');
}

/** What the server would not give back as it is written, each with its place. */
function changes(manifest: Manifest): string[] {
  return isBuiltIn(manifest) ? walk(manifest, []) : [];
}

function walk(value: unknown, path: string[]): string[] {
  const key = path.at(-1) ?? '';
  const at = path.join('.');
  if (Array.isArray(value)) {
    return value.length === 0
      ? [`${at} is an empty list`]
      : value.flatMap((item, i) =>
          // A list of strings keeps its empty ones, such as the core group in rules of RBAC.
          item === '' ? [] : walk(item, [...path, String(i)]),
        );
  }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value);
    if (entries.length === 0) {
      return EMPTY_MAPS.includes(key) ? [] : [`${at} is an empty map`];
    }
    if (QUANTITIES.includes(key)) {
      return entries.flatMap(([name, text]) => quantity(text, `${at}.${name}`));
    }
    const added = DEFAULTS.find(([list, field]) => list.test(at) && !(field in value))?.[1];
    if (added !== undefined) {
      return [`${at} has no ${added}, which the server adds; the list is compared as a whole`];
    }
    // What is in a map of the user's own names is text, which the server does not look at.
    return ['annotations', 'data', 'labels', 'matchLabels', 'nodeSelector'].includes(key)
      ? []
      : entries.flatMap(([name, child]) => walk(child, [...path, name]));
  }
  if (QUANTITY.includes(key)) {
    return quantity(value, at);
  }
  if (value === null) {
    return [`${at} is null`];
  }
  return value || ZEROS.includes(key) ? [] : [`${at} is ${JSON.stringify(value)}`];
}

function quantity(value: unknown, at: string): string[] {
  const form = canonical(String(value));
  return value === form ? [] : [`${at} is ${String(value)}, which the server writes as ${form}`];
}

/**
 * A quantity as the server writes it: no fraction, and the largest suffix of its kind that allows that.
 * https://github.com/kubernetes/apimachinery/blob/master/pkg/api/resource/quantity.go
 */
function canonical(text: string): string {
  const [, digits = '', suffix = ''] = /^([0-9.]+)([numkKMGTPE]?i?)$/.exec(text) ?? [];
  if (digits === '') {
    throw new Error(`a quantity that this test cannot read: ${text}`);
  }
  const isBinary = suffix.endsWith('i');
  const [base, suffixes] = isBinary
    ? [1024, ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei']]
    : [1000, ['n', 'u', 'm', '', 'k', 'M', 'G', 'T', 'P', 'E']];
  let exponent = suffixes.indexOf(suffix);
  let number = Number(digits);
  while (!Number.isInteger(number)) {
    number = Number((number * base).toPrecision(15));
    exponent -= 1;
  }
  while (number !== 0 && number % base === 0 && exponent < suffixes.length - 1) {
    number /= base;
    exponent += 1;
  }
  return `${number}${suffixes[exponent] ?? ''}`;
}

/** A deployment with whatever cdk8s-plus would write in another form. */
function largeChart(): Chart {
  const chart = new Chart(Testing.app(), 'large');
  new OnePerNodeDeployment(chart, 'large', {
    name: 'large',
    image: 'example.com/image:1',
    replicas: 1,
    cpu: kplus.Cpu.millis(2000),
    memory: Size.gibibytes(2),
    env: { EMPTY: '', LEVEL: 'debug' },
  });
  return chart;
}

/** Every option that can be given and be empty. */
function emptyChart(): Chart {
  const chart = new Chart(Testing.app(), 'empty', { namespace: 'elsewhere', labels: {} });
  const agent = new OomKillModeAgent(chart, 'agent', {
    imagePullSecrets: [],
    tolerations: [],
    nodeSelector: {},
    affinity: {},
    resources: {},
    metrics: true,
    labels: {},
    annotations: {},
  });
  const empty = { labels: {}, annotations: {} };
  new OomKillModeMonitoring(chart, 'monitoring', { agent, dashboardLabels: {}, ...empty });
  new OomKillModeAdmissionPolicy(chart, 'admission', { injectedContainers: [], ...empty });
  new OnePerNodeDeployment(chart, 'web', {
    name: 'web',
    image: 'example.com/image:1',
    followNodes: true,
    cpu: kplus.Cpu.millis(100),
    memory: Size.mebibytes(64),
    command: [],
    args: [],
    env: {},
    labels: {},
    securityContext: {},
  });
  return chart;
}

function agentChart(): Chart {
  const scope = chart();
  new OomKillModeAgent(scope, 'agent');
  return scope;
}

const CHARTS: [string, () => Chart][] = [
  ['the agent', agentChart],
  ['the agent and the herder', () => new HerderChart(Testing.app(), 'herder')],
  ['the agent with every option', () => allPropsChart(Testing.app())],
  ['a deployment that follows the nodes', () => followingChart(Testing.app())],
  ['a large deployment', largeChart],
  ['what is given and empty', emptyChart],
  ['the admission policy', () => admissionChart(Testing.app())],
  ['the defaults', () => defaultsChart(Testing.app())],
  ['the drop-in', () => dropInChart(Testing.app())],
  ['the monitoring', () => monitoringChart(Testing.app())],
];

const COMMITTED = ['dist', ...readdirSync(join(ROOT, 'examples')).map((e) => `examples/${e}/dist`)];

const ALL: [string, () => Manifest[]][] = [
  ...CHARTS.map(([name, make]): [string, () => Manifest[]] => [name, () => synth(make())]),
  ...COMMITTED.map((directory): [string, () => Manifest[]] => [
    directory,
    () => readdirSync(join(ROOT, directory)).flatMap((file) => parse(read(directory, file))),
  ]),
];

test.each(ALL)('the API server gives back what is written in %s', (_, manifests) => {
  const all = manifests();
  expect(all.length).toBeGreaterThanOrEqual(1);
  expect(
    all.flatMap((m) => changes(m).map((change) => `${m.kind} ${m.metadata.name}: ${change}`)),
  ).toEqual([]);
});

// The checks above would pass by a walk that finds nothing.
test('what the API server changes is found', () => {
  const [wrong] = parse(`
    apiVersion: v1
    kind: Wrong
    metadata: { name: a, labels: {} }
    spec: { hostNetwork: false, affinity: {}, tolerations: [], replicas: null, minReadySeconds: 0 }
    limits: { cpu: 1000m, memory: 1024Mi }
    resourceRules: [{ resources: [pods] }]
    subjects: [{ apiGroup: '' }]`);
  expect(changes(wrong as Manifest)).toEqual([
    'metadata.labels is an empty map',
    'spec.hostNetwork is false',
    'spec.affinity is an empty map',
    'spec.tolerations is an empty list',
    'spec.replicas is null',
    'spec.minReadySeconds is 0',
    'limits.cpu is 1000m, which the server writes as 1',
    'limits.memory is 1024Mi, which the server writes as 1Gi',
    'resourceRules.0 has no scope, which the server adds; the list is compared as a whole',
    'subjects.0.apiGroup is ""',
  ]);
});
