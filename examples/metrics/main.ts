import { App, Chart } from 'cdk8s';
import { OomKillModeAgent, OomKillModeMonitoring } from '../../lib';

const app = new App();
const agent = new OomKillModeAgent(new Chart(app, 'oom-kill-mode-agent'), 'agent', {
  metrics: true,
});
new OomKillModeMonitoring(new Chart(app, 'monitoring'), 'monitoring', { agent });
app.synth();
