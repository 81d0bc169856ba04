import { join } from 'node:path';
import { App, Chart, Helm } from 'cdk8s';
import { OomKillPolicy } from '../../lib';

const app = new App();
const chart = new Chart(app, 'helm');
const release = { chart: join(__dirname, 'chart'), namespace: 'default' };

// Any chart, as it is: the policy reaches every workload that it renders.
const queue = new Helm(chart, 'queue', { ...release, releaseName: 'queue' });
OomKillPolicy.of(queue).single();

// A chart that has podLabels needs nothing of ours, and no cdk8s.
new Helm(chart, 'mailer', {
  ...release,
  releaseName: 'mailer',
  values: { podLabels: { 'cdk8s-oom-kill-mode/mode': 'Single' } },
});
app.synth();
