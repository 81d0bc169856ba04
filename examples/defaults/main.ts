import { App, Chart } from 'cdk8s';
import { OomKillMode, OomKillModeDefaults } from '../../lib';

const app = new App();
// JupyterHub makes the pods of its users, and gives them this label. Its chart stays as it is.
new OomKillModeDefaults(new Chart(app, 'defaults'), 'notebooks', {
  mode: OomKillMode.SINGLE,
  namespaces: ['jupyterhub'],
  podLabels: { component: 'singleuser-server' },
});
app.synth();
