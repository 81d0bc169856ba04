import { AGENT_IMAGE } from '../lib/private/agent-image';
import { NODE_EXPORTER_IMAGE } from '../lib/agent/metrics-sidecar';
import { IMAGE } from '../lib/private/validation';
import { REAL_NODES } from '../lib/private/virtual-nodes';

// The values of the Helm chart. values.yaml and values.schema.json are made of them. The test of the chart compares the
// defaults with those of the library.

/** A value of the chart, or a group of them. */
export interface Value {
  readonly about: string;
  readonly initial?: unknown;
  /** The JSON Schema of the value, without the type, which is that of `initial`. */
  readonly schema?: object;
  readonly group?: Record<string, Value>;
}

const DNS_SUBDOMAIN = '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*';
const STRINGS = { additionalProperties: { type: 'string' } };
const QUANTITIES = { type: 'object', additionalProperties: { type: ['string', 'number'] } };
const RESOURCES = {
  additionalProperties: false,
  properties: { requests: QUANTITIES, limits: QUANTITIES },
};

/** Labels that the agent's pods already have. A manifest must not have a label twice. */
const POD_LABELS = ['name', 'instance', 'component'].map((n) => `app.kubernetes.io/${n}`);

function value(about: string, initial: unknown, schema: object = {}): Value {
  return { about, initial, schema };
}

function group(about: string, members: Record<string, Value>): Value {
  return { about, group: members };
}

function enabled(about: string): Value {
  return value(about, false);
}

function resources(about: string, cpu: [string, string]): Value {
  const initial = {
    requests: { cpu: cpu[0], memory: '16Mi' },
    limits: { cpu: cpu[1], memory: '64Mi' },
  };
  return value(about, initial, RESOURCES);
}

function image(about: string, reference: string, more: Record<string, Value> = {}): Value {
  const { name, tag, digest } = IMAGE.exec(reference)?.groups ?? {};
  return group(about, {
    repository: value('Registry and name.', name, { minLength: 1 }),
    tag: value('The tag, but not latest.', tag, { minLength: 1, not: { const: 'latest' } }),
    digest: value(
      'The digest, or "". With another tag, set it to "" or to the digest of that tag.',
      digest ?? '',
      { pattern: '^(sha256:[0-9a-f]{64})?$' },
    ),
    ...more,
  });
}

export const VALUES: Record<string, Value> = {
  fullnameOverride: value(
    'The name of every object. It is part of the selector of the DaemonSet, which cannot change. A second release in the same cluster needs another name, because the ClusterRole also has it.',
    'oom-kill-mode-agent',
    { pattern: '^[a-z]([-a-z0-9]*[a-z0-9])?$', maxLength: 53 },
  ),
  createNamespace: value(
    'Whether to create the namespace of the release, with the Pod Security level "privileged". For tools that render the chart and apply the result, such as Argo CD. `helm install` cannot use it, because the namespace must exist before.',
    false,
  ),
  labelPrefix: value(
    'The prefix of the pod label and annotation that the agent obeys, without the slash.',
    'cdk8s-oom-kill-mode',
    { pattern: `^${DNS_SUBDOMAIN}$`, maxLength: 253 },
  ),
  logLevel: value('How much the agent logs: error, warn, info or debug.', 'info', {
    enum: ['error', 'warn', 'info', 'debug'],
  }),
  events: value(
    'Whether the agent reports killed processes as Events of the pods. It may then create and patch Events in every namespace.',
    true,
  ),
  image: image('The image of the agent.', AGENT_IMAGE, {
    pullPolicy: value('When to pull this image and that of the metrics.', 'IfNotPresent', {
      enum: ['Always', 'IfNotPresent', 'Never'],
    }),
  }),
  imagePullSecrets: value('Secrets with registry credentials, as [{ name: NAME }].', []),
  resources: resources(
    'CPU and memory of the agent. Keep the CPU request above 10m and the CPU limit above 100m: with these amounts, the agent was too late for the first instruction of a container.',
    ['100m', '250m'],
  ),
  priorityClassName: value(
    'The priority class of the pods, or "". With a system class, and outside of kube-system, the chart also creates a ResourceQuota, because GKE needs one.',
    'system-node-critical',
    { pattern: `^(${DNS_SUBDOMAIN})?$` },
  ),
  tolerations: value('The taints that the pods tolerate. By default, all.', [
    { operator: 'Exists' },
  ]),
  nodeSelector: value(
    'Labels of the nodes. Helm adds yours to these.',
    { 'kubernetes.io/os': 'linux' },
    STRINGS,
  ),
  affinity: value(
    'The affinity of the pods. By default, every node but virtual ones, which have no cgroups. Helm merges yours with it; `nodeAffinity: null` removes it.',
    REAL_NODES,
  ),
  updateStrategy: value(
    'By default, the new pod is ready before the old one ends, which needs room for two. Without that room, set maxSurge to 0 and maxUnavailable to 10%.',
    { type: 'RollingUpdate', rollingUpdate: { maxSurge: '10%', maxUnavailable: 0 } },
  ),
  podLabels: value(
    'More labels of the pods.',
    {},
    {
      ...STRINGS,
      propertyNames: { not: { enum: POD_LABELS } },
    },
  ),
  podAnnotations: value('Annotations of the pods.', {}, STRINGS),
  selinuxType: value(
    'The SELinux type of the agent. Nodes with SELinux in enforcing mode need spc_t.',
    '',
    { pattern: '^[A-Za-z0-9_]*$' },
  ),
  metrics: group('Metrics for Prometheus, and objects for the Prometheus operator and Grafana.', {
    enabled: enabled('Whether a second container serves metrics on port 9539.'),
    image: image('The image of that container, node-exporter.', NODE_EXPORTER_IMAGE),
    resources: resources('CPU and memory of that container.', ['10m', '50m']),
    labels: value(
      'More labels of the three objects below. Prometheus selects objects by labels, often by `release: kube-prometheus-stack`.',
      {},
      STRINGS,
    ),
    podMonitor: group('The PodMonitor. It also needs metrics.enabled.', {
      enabled: enabled('Whether to create it.'),
      interval: value(
        'How often Prometheus scrapes, such as 30s. "" leaves it to Prometheus.',
        '',
        {
          pattern: '^([0-9]+s)?$',
        },
      ),
    }),
    prometheusRule: group('The PrometheusRule with the alerts. It also needs metrics.enabled.', {
      enabled: enabled('Whether to create it.'),
      labels: value('Labels of each alert.', { severity: 'warning' }, STRINGS),
      runbookUrl: value(
        'The address where you publish docs/troubleshooting.md. Each alert then links to its section.',
        '',
        { pattern: '^(https?://[^\\s#{}"]+)?$' },
      ),
      kubeletJob: value('The job with which Prometheus scrapes the kubelets.', 'kubelet', {
        pattern: '^[A-Za-z0-9_./:-]+$',
      }),
      ignoredNodes: value(
        'Nodes on which no agent runs, as a regular expression of RE2 for the whole name. "" is none.',
        '',
        { pattern: '^[^\\n]*$' },
      ),
    }),
    dashboard: group('The ConfigMap with the dashboard. It also needs metrics.enabled.', {
      enabled: enabled('Whether to create it.'),
      labels: value(
        "Labels by which Grafana's sidecar finds it.",
        { grafana_dashboard: '1' },
        STRINGS,
      ),
    }),
  }),
};
