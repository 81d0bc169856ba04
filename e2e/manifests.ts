import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ApiObject, App, Chart, JsonPatch, Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { parseAllDocuments } from 'yaml';

import { Herder, OnePerNodeDeployment, OomKillMode, OomKillModeAgent } from '../lib';
import { Agent } from './cluster';
import { KubernetesObject } from './kubectl';

const DIST = join(__dirname, '..', 'dist');

/** The first thing that the probe does is to look. Then it runs on, for `kubectl logs` to find it. */
const PROBE = `
read -r value </sys/fs/cgroup/memory.oom.group
echo "memory.oom.group=$value"
exec sleep 86400
`.trim();

/** The throw-away namespace, and in it a herder, its twin without the label, and a probe on each node. */
export function workloads(
  namespace: string,
  /** Values of the nodes' label `kubernetes.io/hostname`. */
  hostnames: string[],
  { labelPrefix, image: agentImage }: Agent,
  herderImage?: string,
): KubernetesObject[] {
  const app = new App();
  // A cluster whose default is "restricted" would refuse herder, which runs as its image says.
  const labels = { 'pod-security.kubernetes.io/enforce': 'baseline' };
  const metadata = { name: namespace, labels };
  new kplus.Namespace(new Chart(app, 'namespace'), 'Namespace', { metadata });
  const chart = new Chart(app, 'workloads', { namespace });
  const replicas = hostnames.length;
  // Small, so that three pods have room on a busy node. The requests are what they really use.
  const size = { cpu: kplus.Cpu.millis(100), memory: Size.mebibytes(128) };
  const images = { image: herderImage, waitImage: agentImage };
  const herder = new Herder(chart, 'herder', { ...size, ...images, replicas, labelPrefix });
  const image = herder.deployment.containers.map((one) => one.image).join();
  const twin = new OnePerNodeDeployment(chart, 'twin', { ...size, name: 'twin', replicas, image });
  const probe = new OnePerNodeDeployment(chart, 'probe', {
    name: 'probe',
    replicas,
    image: agentImage,
    cpu: kplus.Cpu.millis(50),
    memory: Size.mebibytes(32),
    oomKillMode: OomKillMode.SINGLE,
    labelPrefix,
    command: ['/bin/sh', '-c', PROBE],
    securityContext: { ensureNonRoot: true, user: 65534 },
  });
  for (const { deployment } of [herder, twin, probe]) {
    // They tolerate every taint: without this, also that of a node which is down.
    deployment.scheduling.attract(
      kplus.Node.labeled(kplus.NodeLabelQuery.in('kubernetes.io/hostname', hostnames)),
    );
    // OnePerNodeDeployment has no such option. There is nothing to lose, and cleaning up is quick.
    ApiObject.of(deployment).addJsonPatch(
      JsonPatch.add('/spec/template/spec/terminationGracePeriodSeconds', 1),
    );
  }
  return parse(app.synthYaml());
}

/** The agent, as it is in dist/ or with another image. Of dist/'s herder a run has its own, on each node. */
export function agentManifests(image?: string): KubernetesObject[] {
  if (image !== undefined) {
    const app = new App();
    new OomKillModeAgent(new Chart(app, 'agent'), 'agent', { image });
    return parse(app.synthYaml());
  }
  return readdirSync(DIST)
    .flatMap((name) => parse(readFileSync(join(DIST, name), 'utf8')))
    .filter(({ metadata }) => metadata.name !== 'herder');
}

function parse(text: string): KubernetesObject[] {
  return parseAllDocuments(text).map((document) => document.toJS() as KubernetesObject);
}
