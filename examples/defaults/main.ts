import { App, Chart } from 'cdk8s';
import { OomKillMode, OomKillModeDefaults } from '../../lib';

const app = new App();
// JupyterHub makes the pods of its users itself. They have this label, and no chart has one of ours for them.
new OomKillModeDefaults(new Chart(app, 'defaults'), 'notebooks', {
  mode: OomKillMode.SINGLE,
  namespaces: ['jupyterhub'],
  podLabels: { component: 'singleuser-server' },
});
app.synth();
