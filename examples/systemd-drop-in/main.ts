import { App, Chart } from 'cdk8s';
import { OomPolicyDropIn } from '../../lib';

const app = new App();
// Beside the agent, in its namespace. A label selects the nodes: who can write unit files owns the node, so nobody
// should have this by accident.
new OomPolicyDropIn(new Chart(app, 'systemd-drop-in'), 'drop-in', {
  nodeSelector: { 'example.com/oom-policy-drop-in': 'yes' },
});
app.synth();
