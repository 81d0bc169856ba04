import { App, Chart, Duration, Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import {
  AdmissionAction,
  AdmissionFailurePolicy,
  AgentLogLevel,
  AgentResources,
  MetricsResources,
  OomKillModeAdmissionPolicy,
  OomKillModeAdmissionPolicyProps,
  OomKillModeAgent,
  OomKillModeAgentProps,
  OomKillModeDefaults,
  OomKillModeDefaultsProps,
  OomKillModeMonitoring,
  OnePerNodeDeployment,
  OnePerNodeDeploymentProps,
  OomKillMode,
  OomPolicyDropIn,
  OomPolicyDropInProps,
} from '../../lib';

/** Every option of the agent; a new option does not compile until it is here. */
const ALL_RESOURCES: Required<AgentResources> = {
  cpuRequest: kplus.Cpu.millis(50),
  cpuLimit: kplus.Cpu.units(0.2),
  memoryRequest: Size.mebibytes(8),
  memoryLimit: Size.mebibytes(128),
};

const ALL_METRICS_RESOURCES: Required<MetricsResources> = {
  cpuRequest: kplus.Cpu.millis(20),
  cpuLimit: kplus.Cpu.millis(200),
  memoryRequest: Size.mebibytes(24),
  memoryLimit: Size.mebibytes(96),
};

export const ALL_PROPS: Required<OomKillModeAgentProps> = {
  namespace: 'node-agents',
  createNamespace: true,
  name: 'oom-agent',
  labelPrefix: 'oom.example.com',
  image: 'registry.example.com:5000/mirror/curl:8.20.0',
  imagePullPolicy: kplus.ImagePullPolicy.ALWAYS,
  imagePullSecrets: ['mirror-credentials'],
  resources: ALL_RESOURCES,
  priorityClassName: 'agents',
  resourceQuota: true,
  maxUnavailable: kplus.PercentOrAbsolute.percent(25),
  tolerations: [{ key: 'dedicated', operator: 'Exists', effect: 'NoSchedule' }],
  nodeSelector: { 'example.com/pool': 'workers' },
  affinity: {
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: [
          { matchExpressions: [{ key: 'example.com/gpu', operator: 'DoesNotExist' }] },
        ],
      },
    },
  },
  selinuxType: 'spc_t',
  logLevel: AgentLogLevel.DEBUG,
  resyncPeriod: Duration.minutes(5),
  events: true,
  metrics: true,
  metricsImage: 'registry.example.com:5000/mirror/node-exporter:v1.12.1',
  metricsResources: ALL_METRICS_RESOURCES,
  labels: { 'example.com/team': 'platform' },
  annotations: { 'example.com/runbook': 'https://example.com/oom' },
};

/** In a chart with a namespace and labels of its own, which must not get where they do not belong. */
export function allPropsChart(app: App): Chart {
  const chart = new Chart(app, 'all-props', {
    namespace: 'elsewhere',
    labels: { 'example.com/chart': 'all-props' },
  });
  new OomKillModeAgent(chart, 'agent', ALL_PROPS);
  return chart;
}

/** Every option of the admission policy. */
export const ALL_ADMISSION_PROPS: Required<OomKillModeAdmissionPolicyProps> = {
  name: 'guard.example.com',
  labelPrefix: 'oom.example.com',
  allowedNamespaces: ['team-a', 'team-b'],
  injectedContainers: ['istio-proxy'],
  validationActions: [AdmissionAction.WARN, AdmissionAction.AUDIT],
  failurePolicy: AdmissionFailurePolicy.IGNORE,
  kubernetesVersion: 'v1.33.2-eks-1',
  labels: { 'example.com/team': 'platform' },
  annotations: { 'example.com/runbook': 'https://example.com/oom' },
};

/** The policy as it is by default, and with every option. */
export function admissionChart(app: App): Chart {
  const chart = new Chart(app, 'admission', { namespace: 'elsewhere' });
  new OomKillModeAdmissionPolicy(chart, 'default');
  new OomKillModeAdmissionPolicy(chart, 'all-props', ALL_ADMISSION_PROPS);
  return chart;
}

/** Every option of the defaults. */
export const ALL_DEFAULTS_PROPS: Required<OomKillModeDefaultsProps> = {
  mode: OomKillMode.GROUP,
  containers: { main: OomKillMode.SINGLE, 'istio-proxy': OomKillMode.SINGLE },
  injectedContainers: ['istio-proxy'],
  namespaces: ['ci', 'notebooks'],
  namespaceLabels: { team: 'data' },
  podLabels: { app: 'a' },
  name: 'defaults.example.com',
  labelPrefix: 'oom.example.com',
  failurePolicy: AdmissionFailurePolicy.FAIL,
  kubernetesVersion: '1.36',
  labels: { 'example.com/team': 'platform' },
  annotations: { 'example.com/runbook': 'https://example.com/oom' },
};

/** The defaults as they are with few options, and with every option. */
export function defaultsChart(app: App): Chart {
  const chart = new Chart(app, 'defaults', { namespace: 'elsewhere' });
  new OomKillModeDefaults(chart, 'few', { mode: OomKillMode.SINGLE, namespaces: ['notebooks'] });
  new OomKillModeDefaults(chart, 'every', ALL_DEFAULTS_PROPS);
  return chart;
}

/** Every option of a deployment but those that say how many pods; a new one does not compile until it is here. */
export const DEPLOYMENT_PROPS: Omit<
  Required<OnePerNodeDeploymentProps>,
  'replicas' | 'followNodes' | 'autoscalerImage'
> = {
  name: 'web',
  namespace: 'sheep',
  image: 'example.com/web:1.2.3',
  cpu: kplus.Cpu.millis(250),
  memory: Size.mebibytes(256),
  oomKillMode: OomKillMode.SINGLE,
  labelPrefix: 'oom.example.com',
  waitForAgent: true,
  waitImage: 'example.com/busybox:1',
  command: ['/bin/web'],
  args: ['--port', '80'],
  env: { LEVEL: 'debug', EMPTY: '' },
  envVariables: { POD_NAME: kplus.EnvValue.fromFieldRef(kplus.EnvFieldPaths.POD_NAME) },
  imagePullSecrets: ['mirror-credentials'],
  labels: { 'example.com/team': 'platform' },
  tolerateAllTaints: true,
  securityContext: { ensureNonRoot: true, user: 1000, readOnlyRootFilesystem: false },
};

/** The same of one that follows the nodes, which excludes `replicas`. */
export const ALL_FOLLOWING_PROPS: Omit<Required<OnePerNodeDeploymentProps>, 'replicas'> = {
  ...DEPLOYMENT_PROPS,
  followNodes: true,
  autoscalerImage: 'registry.example.com:5000/mirror/cluster-proportional-autoscaler:v1.10.3',
};

export function followingChart(app: App): Chart {
  const chart = new Chart(app, 'following', {
    namespace: 'elsewhere',
    labels: { 'example.com/chart': 'following' },
  });
  new OnePerNodeDeployment(chart, 'web', ALL_FOLLOWING_PROPS);
  return chart;
}

/** Every option of the drop-in. */
export const ALL_DROP_IN_PROPS: Required<OomPolicyDropInProps> = {
  namespace: 'node-agents',
  name: 'every',
  image: 'registry.example.com:5000/mirror/curl:8.20.0',
  imagePullPolicy: kplus.ImagePullPolicy.ALWAYS,
  imagePullSecrets: ['mirror-credentials'],
  priorityClassName: 'agents',
  tolerations: [{ key: 'dedicated', operator: 'Exists', effect: 'NoSchedule' }],
  nodeSelector: { 'example.com/pool': 'workers' },
  affinity: ALL_PROPS.affinity,
  selinuxType: 'spc_t',
  labels: { 'example.com/team': 'platform' },
  annotations: { 'example.com/runbook': 'https://example.com/oom' },
};

/** The drop-in as it is by default, and with every option. */
export function dropInChart(app: App): Chart {
  const chart = new Chart(app, 'drop-in', { namespace: 'elsewhere' });
  new OomPolicyDropIn(chart, 'default');
  new OomPolicyDropIn(chart, 'every', ALL_DROP_IN_PROPS);
  return chart;
}

/** The monitoring of an agent that has metrics. */
export function monitoringChart(app: App): Chart {
  const chart = new Chart(app, 'monitoring');
  const agent = new OomKillModeAgent(chart, 'agent', { metrics: true });
  new OomKillModeMonitoring(chart, 'monitoring', { agent });
  return chart;
}
