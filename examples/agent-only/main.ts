import { App, Chart } from 'cdk8s';
import { OomKillModeAgent } from '../../lib';

const app = new App();
new OomKillModeAgent(new Chart(app, 'oom-kill-mode-agent'), 'agent');
app.synth();
