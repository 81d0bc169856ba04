import { App, Chart, Duration, Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { AgentLogLevel, AgentResources, OomKillModeAgent, OomKillModeAgentProps } from '../lib';

/** Every option of the agent; a new option does not compile until it is here. */
export const ALL_RESOURCES: Required<AgentResources> = {
  cpuRequest: kplus.Cpu.millis(50),
  cpuLimit: kplus.Cpu.units(0.2),
  memoryRequest: Size.mebibytes(8),
  memoryLimit: Size.mebibytes(128),
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
  seLinuxType: 'spc_t',
  logLevel: AgentLogLevel.DEBUG,
  resyncPeriod: Duration.minutes(5),
  metrics: true,
  metricsImage: 'registry.example.com:5000/mirror/node-exporter:v1.12.1',
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
