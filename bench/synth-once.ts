// Synthesizes an app, with what it has opted in or not, and prints how many seconds that took: the part of
// `cdk8s synth` that is not starting Node.js and loading the libraries.
//
//   synth-once.js plain|opted-in SHAPE NUMBER

import { ApiObject, App, Chart } from 'cdk8s';
import { Deployment } from 'cdk8s-plus-28';
import { Construct } from 'constructs';

import { OomKillPolicy } from '../lib';
import { Shape } from './schema';

const CHARTS = 200;
const CRDS = 20;

function deployment(scope: Construct, i: number): Deployment {
  return new Deployment(scope, `web-${i}`, { containers: [{ name: 'web', image: 'web:1' }] });
}

/** A definition of some 280 KiB, as big operators have them. */
function definition(scope: Construct, i: number): ApiObject {
  const properties = Object.fromEntries(
    Array.from({ length: 2000 }, (_, field) => [
      `field${field}`,
      { type: 'string', description: 'What this field of the specification means, in one line.' },
    ]),
  );
  const schema = { openAPIV3Schema: { type: 'object', properties } };
  return new ApiObject(scope, `crd-${i}`, {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `kinds${i}.example.com` },
    spec: { group: 'example.com', versions: [{ name: 'v1', served: true, schema }] },
  });
}

function rawDeployment(scope: Construct): ApiObject {
  const template = { spec: { containers: [{ name: 'web', image: 'web:1' }] } };
  return new ApiObject(scope, 'web', {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    spec: { template },
  });
}

/** Each makes so many workloads, and returns what policies are to be of. */
const SHAPES: Record<Shape, (app: App, count: number) => Construct[]> = {
  'one chart': (app, count) => {
    const chart = new Chart(app, 'workloads');
    return Array.from({ length: count }, (_, i) => deployment(chart, i));
  },
  'many charts': (app, count) =>
    Array.from({ length: CHARTS }, (_, i) => new Chart(app, `chart-${i}`)).flatMap((chart) =>
      Array.from({ length: count / CHARTS }, (_, i) => deployment(chart, i)),
    ),
  'raw objects': (app, count) =>
    Array.from({ length: count }, (_, i) => rawDeployment(new Chart(app, `chart-${i}`))),
  'beside definitions': (app, count) => {
    const definitions = new Chart(app, 'definitions');
    Array.from({ length: CRDS }, (_, i) => definition(definitions, i));
    Array.from({ length: count }, (_, i) => deployment(new Chart(app, `chart-${i}`), i));
    return [app];
  },
};

function synth(isOptedIn: boolean, shape: Shape, count: number): void {
  const app = new App();
  const targets = SHAPES[shape](app, count);
  if (isOptedIn) {
    targets.forEach((target) => OomKillPolicy.of(target).single());
  }
  const optedIn = app.synthYaml().split('cdk8s-oom-kill-mode/mode: Single').length - 1;
  if (optedIn !== (isOptedIn ? count : 0)) {
    throw new Error(`${optedIn} workloads are opted in`);
  }
}

const [kind, shape, count] = process.argv.slice(2);
const began = process.hrtime.bigint();
synth(kind === 'opted-in', shape as Shape, Number(count));
console.info(Number(process.hrtime.bigint() - began) / 1e9);
