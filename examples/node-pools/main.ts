import { ApiObject, App, Chart, JsonPatch, Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { OomKillModeAgent, OomKillPolicy } from '../../lib';

const KEY = 'example.com/pool';
const POOLS = ['databases', 'builds'];

const app = new App();

// A nodeSelector could name one pool. The affinity replaces the default one, which keeps the agent
// off virtual nodes: these pools have none.
new OomKillModeAgent(new Chart(app, 'oom-kill-mode-agent'), 'agent', {
  affinity: {
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: [{ matchExpressions: [{ key: KEY, operator: 'In', values: POOLS }] }],
      },
    },
  },
});

const chart = new Chart(app, 'node-pools', { namespace: 'default' });

// Elsewhere the label would mean nothing, so who carries it must stay in the same pools.
const labels = { 'app.kubernetes.io/name': 'builder' };
const builder = new kplus.Deployment(chart, 'builder', {
  metadata: { name: 'builder', labels },
  podMetadata: { labels },
  select: false,
  replicas: 1,
  containers: [
    {
      name: 'builder',
      image: 'registry.example.com/builder:1.0.0',
      resources: {
        cpu: { request: kplus.Cpu.millis(500), limit: kplus.Cpu.units(2) },
        memory: { request: Size.mebibytes(1000), limit: Size.mebibytes(1000) },
      },
      securityContext: { user: 65534, capabilities: { drop: [kplus.Capability.ALL] } },
    },
  ],
});
builder.select(kplus.LabelSelector.of({ labels }));
builder.scheduling.attract(kplus.Node.labeled(kplus.NodeLabelQuery.in(KEY, POOLS)));
// cdk8s-plus writes these with no value, which the API server drops: some tools would show a difference.
ApiObject.of(builder).addJsonPatch(
  JsonPatch.remove('/spec/minReadySeconds'),
  JsonPatch.remove('/spec/template/spec/hostNetwork'),
);
OomKillPolicy.of(builder).single();
app.synth();
