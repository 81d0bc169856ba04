import { ApiObject, App, Chart, JsonPatch, Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { OomKillMode, OomKillPolicy } from '../../lib';

const app = new App();
const chart = new Chart(app, 'web');
const labels = { 'app.kubernetes.io/name': 'web' };

const nginx = new kplus.ConfigMap(chart, 'nginx', {
  metadata: { name: 'web-nginx' },
  data: {
    'default.conf': `server {
  listen 8080;
  location / {
    include fastcgi_params;
    fastcgi_param SCRIPT_FILENAME /app/index.php;
    fastcgi_pass 127.0.0.1:9000;
  }
}
`,
  },
});
const code = new kplus.ConfigMap(chart, 'code', {
  metadata: { name: 'web-code' },
  data: { 'index.php': "<?php echo 'worker ', getmypid(), PHP_EOL;\n" },
});

const web = new kplus.Deployment(chart, 'web', {
  metadata: { name: 'web', labels },
  podMetadata: { labels },
  select: false,
  replicas: 2,
  containers: [
    {
      name: 'php',
      image: 'docker.io/library/php:8.4.13-fpm',
      resources: {
        cpu: { request: kplus.Cpu.millis(250), limit: kplus.Cpu.units(1) },
        memory: { request: Size.mebibytes(256), limit: Size.mebibytes(256) },
      },
      securityContext: {
        user: 33,
        group: 33,
        capabilities: { drop: [kplus.Capability.ALL] },
      },
      volumeMounts: [
        { path: '/app', volume: kplus.Volume.fromConfigMap(chart, 'app', code, { name: 'code' }) },
        { path: '/tmp', volume: kplus.Volume.fromEmptyDir(chart, 'php-tmp', 'php-tmp') },
      ],
    },
    {
      name: 'nginx',
      image: 'docker.io/nginxinc/nginx-unprivileged:1.28.0',
      portNumber: 8080,
      resources: {
        cpu: { request: kplus.Cpu.millis(50), limit: kplus.Cpu.millis(250) },
        memory: { request: Size.mebibytes(64), limit: Size.mebibytes(64) },
      },
      securityContext: {
        user: 101,
        group: 101,
        capabilities: { drop: [kplus.Capability.ALL] },
      },
      volumeMounts: [
        {
          path: '/etc/nginx/conf.d',
          volume: kplus.Volume.fromConfigMap(chart, 'conf', nginx, { name: 'nginx' }),
        },
        { path: '/tmp', volume: kplus.Volume.fromEmptyDir(chart, 'nginx-tmp', 'nginx-tmp') },
      ],
    },
  ],
});
web.select(kplus.LabelSelector.of({ labels }));
// cdk8s-plus writes these with no value, which the API server drops: some tools would show a difference.
ApiObject.of(web).addJsonPatch(
  JsonPatch.remove('/spec/minReadySeconds'),
  JsonPatch.remove('/spec/template/spec/hostNetwork'),
);
OomKillPolicy.of(web).perContainer({ php: OomKillMode.SINGLE, nginx: OomKillMode.GROUP });
app.synth();
