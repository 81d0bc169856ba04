import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { Chart, Duration, Testing, Yaml } from 'cdk8s';
import { Document, Scalar, YAMLMap, isMap, stringify } from 'yaml';
import { OomKillModeAgent, OomKillModeMonitoring } from '../lib';
import { VERSION_LABEL } from '../lib/private/version';
import { VALUES, Value } from './chart-values';

// npm run chart: writes the files of the Helm chart that depend on the library.
//
// It synthesizes the agent with all its parts, and replaces whatever a value can change by an expression of Helm. YAML
// has no such expressions, so a marker stands for each until the manifest is text.

const CHART = resolve(__dirname, '../chart');
const DO_NOT_EDIT = 'npm run chart writes this file from lib/ and scripts/chart-values.ts.';

type Json = Record<string, unknown>;

/** The expression for each marker, which may depend on the indentation of its line. */
const expressions: ((indent: number) => string)[] = [];

function marker(expression: (indent: number) => string, what = 'value'): string {
  return `__helm_${what}_${expressions.push(expression) - 1}__`;
}

function inline(expression: string): string {
  return marker(() => expression);
}

/** A line that is neither an entry nor an item. */
function action(expression: string): string {
  return marker(() => expression, 'action');
}

/** A value that takes several lines. */
function block(value: string): string {
  return marker((indent) => `{{- toYaml ${value} | nindent ${indent + 2} }}`);
}

/** More entries of a map. */
function entries(value: string): Json {
  const more = (n: number) => `{{- with ${value} }}{{ toYaml . | nindent ${n} }}{{ end }}`;
  return { [marker(more, 'action')]: null };
}

/** Leaves an entry of a map out unless a condition holds. */
function entryIf(condition: string, map: Json, key: string): void {
  for (const [name, value] of Object.entries(map)) {
    Reflect.deleteProperty(map, name);
    Object.assign(map, name === key ? between(condition, { [name]: value }) : { [name]: value });
  }
}

function between(condition: string, entry: Json): Json {
  return { [action(`{{- if ${condition} }}`)]: null, ...entry, [action('{{- end }}')]: null };
}

/** Leaves an item of a list out unless a condition holds. */
function itemIf(condition: string, list: unknown[], is: (item: Json) => boolean): void {
  const i = list.findIndex((item) => is(item as Json));
  list.splice(i, 1, action(`{{- if ${condition} }}`), list[i], action('{{- end }}'));
}

const FULLNAME = 'helm-fullname';

/** Options that the library gets, and the expressions that replace them. */
const NAMES: Record<string, string> = {
  [FULLNAME]: '{{ .Values.fullnameOverride }}',
  // In the identifier of the dashboard.
  [createHash('sha256').update(FULLNAME).digest('hex').slice(0, 12)]:
    '{{ .Values.fullnameOverride | sha256sum | trunc 12 }}',
  'helm-namespace': '{{ .Release.Namespace }}',
  'helm-kubelet': '{{ .Values.metrics.prometheusRule.kubeletJob }}',
  'https://helm.runbook': '{{ .Values.metrics.prometheusRule.runbookUrl }}',
  ', node!~"helm-ignored"':
    '{{ with .Values.metrics.prometheusRule.ignoredNodes }}, node!~{{ . | quote }}{{ end }}',
};

function withNames(value: unknown): unknown {
  if (typeof value === 'string') {
    // Prometheus and Grafana also use braces.
    const escaped = value.replaceAll('{{', () => inline('{{ "{{" }}'));
    const named = Object.entries(NAMES).reduce(
      (text, [name, expression]) => text.replaceAll(name, () => inline(expression)),
      escaped,
    );
    // A name such as "1" must not become a number.
    return value in NAMES ? inline(NAMES[value]?.replace(' }}', ' | quote }}') ?? '') : named;
  }
  if (Array.isArray(value)) {
    return (value as unknown[]).map(withNames);
  }
  if (typeof value === 'object' && value !== null) {
    const named = Object.entries(value).map(([key, one]) => [withNames(key), withNames(one)]);
    return Object.fromEntries(named) as Json;
  }
  return value;
}

/** A manifest as a template. */
function template(manifest: Json, condition?: string): string {
  const filled = Yaml.stringify(manifest)
    .replace(/^( *)(?:- )?(__helm_action_\d+__)(?:: null)?$/gm, '$1$2')
    .split('\n')
    .map((line) =>
      line.replace(/__helm_[a-z]+_(\d+)__/g, (_, n: string) => {
        return expressions[Number(n)]?.(line.search(/\S/)) ?? '';
      }),
    )
    .join('\n');
  return condition === undefined
    ? `---\n${filled}`
    : `{{- if ${condition} }}\n---\n${filled}{{- end }}\n`;
}

/** The objects by kind; the ConfigMap of the dashboard is "Dashboard". */
function synthesize(): Record<string, Json> {
  const chart = new Chart(Testing.app(), 'chart');
  const agent = new OomKillModeAgent(chart, 'agent', {
    name: FULLNAME,
    namespace: 'helm-namespace',
    createNamespace: true,
    imagePullSecrets: ['helm'],
    selinuxType: 'helm',
    metrics: true,
  });
  new OomKillModeMonitoring(chart, 'monitoring', {
    agent,
    scrapeInterval: Duration.seconds(30),
    runbookUrl: 'https://helm.runbook',
    kubeletJob: 'helm-kubelet',
    ignoredNodes: 'helm-ignored',
    dashboardLabels: {},
  });
  const manifests = (Testing.synth(chart) as Json[]).map((manifest) => withNames(manifest) as Json);
  return Object.fromEntries(
    manifests.map((manifest): [string, Json] => [
      String(at(manifest, 'metadata')['name']).endsWith('-dashboard')
        ? 'Dashboard'
        : String(manifest['kind']),
      manifest,
    ]),
  );
}

/** A part of a manifest. */
function at(manifest: Json | undefined, ...path: (string | number)[]): Json {
  return path.reduce<unknown>((value, key) => (value as Json)[key], manifest) as Json;
}

function image(path: string): string {
  return inline(
    `{{ ${path}.repository }}:{{ ${path}.tag }}{{ with ${path}.digest }}@{{ . }}{{ end }}`,
  );
}

function fillDaemonSet(daemonSet: Json | undefined): void {
  Object.assign(at(daemonSet, 'spec'), { updateStrategy: block('.Values.updateStrategy') });

  const metadata = at(daemonSet, 'spec', 'template', 'metadata');
  Object.assign(at(metadata, 'labels'), entries('.Values.podLabels'));
  metadata['annotations'] = block('.Values.podAnnotations');
  entryIf('.Values.podAnnotations', metadata, 'annotations');

  const spec = at(daemonSet, 'spec', 'template', 'spec');
  spec['priorityClassName'] = inline('{{ .Values.priorityClassName }}');
  entryIf('.Values.priorityClassName', spec, 'priorityClassName');
  for (const key of ['imagePullSecrets', 'tolerations', 'nodeSelector', 'affinity']) {
    spec[key] = block(`.Values.${key}`);
    entryIf(`.Values.${key}`, spec, key);
  }
  entryIf('.Values.selinuxType', at(spec, 'securityContext'), 'seLinuxOptions');

  const agent = at(spec, 'containers', 0);
  const metrics = at(spec, 'containers', 1);
  const pullPolicy = inline('{{ .Values.image.pullPolicy }}');
  const resources = block('.Values.resources');
  Object.assign(agent, { image: image('.Values.image'), imagePullPolicy: pullPolicy, resources });
  Object.assign(metrics, {
    image: image('.Values.metrics.image'),
    imagePullPolicy: pullPolicy,
    resources: block('.Values.metrics.resources'),
  });
  at(agent, 'securityContext', 'seLinuxOptions')['type'] = inline(
    '{{ .Values.selinuxType | quote }}',
  );
  entryIf('.Values.selinuxType', at(agent, 'securityContext'), 'seLinuxOptions');

  const named = (name: string) => (item: Json) => item['name'] === name;
  const env = agent['env'] as Json[];
  for (const [name, value] of Object.entries({
    LABEL_PREFIX: '.Values.labelPrefix',
    LOG_LEVEL: '.Values.logLevel',
  })) {
    Object.assign(env.find(named(name)) ?? {}, {
      value: inline(`{{ ${value} | quote }}`),
    });
  }
  itemIf('.Values.events', env, named('EVENTS'));
  itemIf('.Values.metrics.enabled', env, named('METRICS'));
  itemIf('.Values.metrics.enabled', spec['containers'] as Json[], named('metrics'));
  itemIf('.Values.metrics.enabled', spec['volumes'] as Json[], named('no-token'));
}

function agentTemplates(manifests: Record<string, Json>): string[] {
  fillDaemonSet(manifests['DaemonSet']);
  entryIf('.Values.metrics.enabled', at(manifests['NetworkPolicy'], 'spec'), 'ingress');
  const rules = manifests['ClusterRole']?.['rules'] as unknown[];
  itemIf('.Values.events', rules, ({ resources }) => String(resources) === 'events');
  at(manifests['ResourceQuota'], 'spec', 'scopeSelector', 'matchExpressions', 0)['values'] = [
    inline('{{ .Values.priorityClassName }}'),
  ];
  const conditions: Record<string, string> = {
    Namespace: '.Values.createNamespace',
    ResourceQuota:
      'and (has .Values.priorityClassName (list "system-node-critical" "system-cluster-critical")) (ne .Release.Namespace "kube-system")',
  };
  const kinds = [
    ...['Namespace', 'ServiceAccount', 'ResourceQuota', 'ClusterRole', 'ClusterRoleBinding'],
    ...['ConfigMap', 'NetworkPolicy', 'DaemonSet'],
  ];
  return kinds.map((kind) => template(at(manifests, kind), conditions[kind]));
}

function monitoringTemplates(manifests: Record<string, Json>): string[] {
  const values = '.Values.metrics';
  const parts = {
    PodMonitor: 'podMonitor',
    PrometheusRule: 'prometheusRule',
    Dashboard: 'dashboard',
  };
  for (const kind of Object.keys(parts)) {
    Object.assign(at(manifests[kind], 'metadata', 'labels'), entries(`${values}.labels`));
  }
  const endpoint = at(manifests['PodMonitor'], 'spec', 'podMetricsEndpoints', 0);
  endpoint['interval'] = inline(`{{ ${values}.podMonitor.interval }}`);
  entryIf(`${values}.podMonitor.interval`, endpoint, 'interval');
  for (const rule of at(manifests['PrometheusRule'], 'spec', 'groups', 0)['rules'] as Json[]) {
    rule['labels'] = block(`${values}.prometheusRule.labels`);
    entryIf(`${values}.prometheusRule.runbookUrl`, at(rule, 'annotations'), 'runbook_url');
  }
  Object.assign(
    at(manifests['Dashboard'], 'metadata', 'labels'),
    entries(`${values}.dashboard.labels`),
  );
  return Object.entries(parts).map(([kind, key]) =>
    template(at(manifests, kind), `and ${values}.enabled ${values}.${key}.enabled`),
  );
}

function initial(values: Record<string, Value>): Json {
  return Object.fromEntries(
    Object.entries(values).map(([key, { group, initial: one }]) => [
      key,
      group ? initial(group) : one,
    ]),
  );
}

/** Puts a comment above each value. */
function comment(map: YAMLMap, values: Record<string, Value>): void {
  for (const { key, value } of map.items as { key: Scalar<string>; value: unknown }[]) {
    const { about, group } = values[key.value] ?? { about: '' };
    key.commentBefore = about.replace(/(.{1,100})(?: |$)/g, ' $1\n').trimEnd();
    if (group && isMap(value)) {
      comment(value, group);
    }
  }
}

function valuesFile(): string {
  const document = new Document(initial(VALUES));
  comment(document.contents as unknown as YAMLMap, VALUES);
  document.commentBefore = ` ${DO_NOT_EDIT}`;
  return document.toString({ lineWidth: 120 });
}

function schema({ about, initial: one, schema: more, group }: Value): Json {
  const type = Array.isArray(one) ? 'array' : group ? 'object' : typeof one;
  return {
    description: about,
    type,
    ...(group && { additionalProperties: false, properties: schemas(group) }),
    ...(type === 'array' && { items: { type: 'object' } }),
    ...more,
  };
}

function schemas(values: Record<string, Value>): Json {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, schema(value)]));
}

function write(name: string, content: string): void {
  writeFileSync(join(CHART, name), content);
}

const version = VERSION_LABEL['app.kubernetes.io/version'];
const repository = 'https://github.com/cdk8s-oom-kill-mode/cdk8s-oom-kill-mode';
write(
  'Chart.yaml',
  stringify({
    apiVersion: 'v2',
    name: 'oom-kill-mode-agent',
    description:
      'An agent that lets a label choose what dies when a container runs out of memory: one process (Single) or all (Group).',
    type: 'application',
    version,
    appVersion: version,
    kubeVersion: '>=1.28.0-0',
    home: repository,
    sources: [repository],
    keywords: ['kubernetes', 'oom', 'oom-killer', 'cgroup', 'memory.oom.group'],
  }),
);
write('values.yaml', valuesFile());
write(
  'values.schema.json',
  `${JSON.stringify(
    {
      $schema: 'http://json-schema.org/draft-07/schema#',
      type: 'object',
      additionalProperties: false,
      // A chart that depends on this one passes these.
      properties: { ...schemas(VALUES), global: { type: 'object' } },
    },
    undefined,
    2,
  )}\n`,
);
const manifests = synthesize();
const comments = `{{- /* ${DO_NOT_EDIT} */ -}}\n`;
write('templates/agent.yaml', comments + agentTemplates(manifests).join(''));
write('templates/monitoring.yaml', comments + monitoringTemplates(manifests).join(''));
