import { ApiObject, App, Chart } from 'cdk8s';
import { OomKillModeAgent } from '../../lib';

const app = new App();
const agents = new Chart(app, 'oom-kill-mode-agent');
const agent = new OomKillModeAgent(agents, 'agent', { selinuxType: 'spc_t' });

// A cluster may have a default node selector, which would keep the agent from all other nodes. It is for
// namespaces without this annotation.
ApiObject.of(agent.node.findChild('Namespace')).metadata.addAnnotation(
  'openshift.io/node-selector',
  '',
);

// OpenShift admits a pod by one of its security context constraints. This one lets the agent do what
// its DaemonSet asks for, and nobody else anything.
new ApiObject(new Chart(app, 'openshift'), 'constraints', {
  apiVersion: 'security.openshift.io/v1',
  kind: 'SecurityContextConstraints',
  metadata: { name: agent.name },
  users: [`system:serviceaccount:${agent.namespace}:${agent.name}`],
  groups: [],
  priority: 0,
  allowHostDirVolumePlugin: true,
  allowHostIPC: false,
  allowHostNetwork: false,
  allowHostPID: false,
  allowHostPorts: false,
  allowPrivilegedContainer: false,
  allowPrivilegeEscalation: false,
  allowedCapabilities: [],
  defaultAddCapabilities: [],
  requiredDropCapabilities: ['ALL'],
  readOnlyRootFilesystem: true,
  // MustRunAs is one user, one type and one level for all containers of a pod, and with `metrics: true`
  // there are two of each: root and spc_t for the agent, and neither for what serves the metrics.
  runAsUser: { type: 'RunAsAny' },
  seLinuxContext: { type: 'RunAsAny' },
  fsGroup: { type: 'RunAsAny' },
  supplementalGroups: { type: 'RunAsAny' },
  seccompProfiles: ['runtime/default'],
  volumes: ['configMap', 'emptyDir', 'hostPath', 'projected'],
});
app.synth();
