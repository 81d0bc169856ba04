import { ApiObject, App, Chart } from 'cdk8s';
import { OomKillModeAgent } from '../../lib';

const app = new App();
const chart = new Chart(app, 'openshift');
const agent = new OomKillModeAgent(chart, 'agent', { selinuxType: 'spc_t' });

// OpenShift admits a pod by one of its security context constraints. This one lets the agent do what
// its DaemonSet asks for, and nobody else anything.
new ApiObject(chart, 'constraints', {
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
  runAsUser: { type: 'MustRunAs', uid: 0 },
  seLinuxContext: { type: 'MustRunAs', seLinuxOptions: { type: 'spc_t' } },
  fsGroup: { type: 'RunAsAny' },
  supplementalGroups: { type: 'RunAsAny' },
  seccompProfiles: ['runtime/default'],
  volumes: ['configMap', 'emptyDir', 'hostPath', 'projected'],
});
app.synth();
