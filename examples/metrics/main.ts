import { App, Chart } from 'cdk8s';
import { OomKillModeAgent, OomKillModeMonitoring } from '../../lib';

const app = new App();
const chart = new Chart(app, 'oom-kill-mode-agent');
const agent = new OomKillModeAgent(chart, 'agent', { metrics: true });
new OomKillModeMonitoring(chart, 'monitoring', { agent });
app.synth();
