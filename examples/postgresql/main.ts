import { ApiObject, App, Chart, JsonPatch, Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { OomKillPolicy } from '../../lib';

const app = new App();
const chart = new Chart(app, 'postgresql');
const labels = { 'app.kubernetes.io/name': 'postgresql' };

const claim = new kplus.PersistentVolumeClaim(chart, 'claim', {
  metadata: { name: 'postgresql' },
  accessModes: [kplus.PersistentVolumeAccessMode.READ_WRITE_ONCE],
  storage: Size.gibibytes(10),
});
const service = new kplus.Service(chart, 'service', {
  metadata: { name: 'postgresql' },
  clusterIP: 'None',
  ports: [{ port: 5432 }],
});
const database = new kplus.StatefulSet(chart, 'database', {
  metadata: { name: 'postgresql', labels },
  podMetadata: { labels },
  select: false,
  service,
  securityContext: { user: 999, group: 999, fsGroup: 999 },
  containers: [
    {
      name: 'postgresql',
      image: 'docker.io/library/postgres:17.6',
      args: ['-c', 'shared_buffers=256MB'],
      portNumber: 5432,
      startup: kplus.Probe.fromCommand(['pg_isready', '-h', '127.0.0.1'], { failureThreshold: 60 }),
      readiness: kplus.Probe.fromCommand(['pg_isready', '-h', '127.0.0.1']),
      envVariables: {
        PGDATA: kplus.EnvValue.fromValue('/var/lib/postgresql/data/pgdata'),
        POSTGRES_PASSWORD: kplus.EnvValue.fromSecretValue({
          secret: kplus.Secret.fromSecretName(chart, 'secret', 'postgresql'),
          key: 'password',
        }),
        // Every process but the postmaster raises its own score from the pod's -997 to 0.
        PG_OOM_ADJUST_FILE: kplus.EnvValue.fromValue('/proc/self/oom_score_adj'),
        PG_OOM_ADJUST_VALUE: kplus.EnvValue.fromValue('0'),
      },
      // Limits equal requests: this is what makes the pod Guaranteed, and its score -997.
      resources: {
        cpu: { request: kplus.Cpu.millis(500), limit: kplus.Cpu.millis(500) },
        memory: { request: Size.mebibytes(1000), limit: Size.mebibytes(1000) },
      },
      securityContext: {
        user: 999,
        group: 999,
        capabilities: { drop: [kplus.Capability.ALL] },
      },
      volumeMounts: [
        {
          path: '/var/lib/postgresql/data',
          volume: kplus.Volume.fromPersistentVolumeClaim(chart, 'data', claim, { name: 'data' }),
        },
        {
          path: '/var/run/postgresql',
          volume: kplus.Volume.fromEmptyDir(chart, 'run', 'run'),
        },
        { path: '/tmp', volume: kplus.Volume.fromEmptyDir(chart, 'tmp', 'tmp') },
      ],
    },
  ],
});
database.select(kplus.LabelSelector.of({ labels }));
// cdk8s-plus writes these with no value, which the API server drops: some tools would show a difference.
ApiObject.of(service).addJsonPatch(JsonPatch.remove('/spec/externalIPs'));
ApiObject.of(database).addJsonPatch(
  JsonPatch.remove('/spec/minReadySeconds'),
  JsonPatch.remove('/spec/template/spec/hostNetwork'),
  JsonPatch.remove('/spec/template/spec/volumes/0/persistentVolumeClaim/readOnly'),
);
OomKillPolicy.of(database).single();
app.synth();
