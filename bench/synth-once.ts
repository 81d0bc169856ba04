// Synthesizes a chart of Deployments, each opted in or none, and prints how many seconds that took: the
// part of `cdk8s synth` that is not starting Node.js and loading the libraries.
//
//   synth-once.js plain|opted-in WORKLOADS

import { App, Chart } from 'cdk8s';
import { Deployment } from 'cdk8s-plus-28';

import { OomKillPolicy } from '../lib';

function synth(optIn: boolean, workloads: number): void {
  const app = new App();
  const chart = new Chart(app, 'workloads');
  for (let i = 0; i < workloads; i++) {
    const deployment = new Deployment(chart, `web-${i}`, {
      containers: [{ name: 'web', image: 'web:1' }],
    });
    if (optIn) {
      OomKillPolicy.of(deployment).single();
    }
  }
  const optedIn = app.synthYaml().split('cdk8s-oom-kill-mode/mode: Single').length - 1;
  if (optedIn !== (optIn ? workloads : 0)) {
    throw new Error(`${optedIn} workloads are opted in`);
  }
}

const [kind, workloads] = process.argv.slice(2);
const began = process.hrtime.bigint();
synth(kind === 'opted-in', Number(workloads));
console.info(Number(process.hrtime.bigint() - began) / 1e9);
