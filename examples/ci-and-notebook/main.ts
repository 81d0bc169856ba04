import { ApiObject, App, Chart, Duration, JsonPatch, Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { OomKillPolicy } from '../../lib';

const app = new App();
const chart = new Chart(app, 'ci-and-notebook');
const capabilities = { drop: [kplus.Capability.ALL] };

// The server is the container's first program; the kernel of every open notebook is a child of it.
const notebook = new kplus.Pod(chart, 'notebook', {
  metadata: { name: 'notebook' },
  securityContext: { user: 1000, group: 100, fsGroup: 100 },
  containers: [
    {
      name: 'notebook',
      image: 'quay.io/jupyter/base-notebook:2025-03-14',
      portNumber: 8888,
      startup: kplus.Probe.fromTcpSocket({ failureThreshold: 30 }),
      resources: {
        cpu: { request: kplus.Cpu.millis(500), limit: kplus.Cpu.units(2) },
        memory: { request: Size.mebibytes(2000), limit: Size.mebibytes(2000) },
      },
      // The image writes to its own home directory.
      securityContext: { user: 1000, group: 100, readOnlyRootFilesystem: false, capabilities },
    },
  ],
});

const sources = new kplus.ConfigMap(chart, 'sources', {
  metadata: { name: 'build' },
  data: {
    Makefile: '.PHONY: all\nall: a.o b.o c.o d.o\n%.o: /src/part.cpp\n\tg++ -O2 -c -o $@ $<\n',
    'part.cpp':
      '#include <regex>\nbool part(const char *s) { return std::regex_match(s, std::regex("a*")); }\n',
  },
});
// The first program is make; every compiler is a child of it.
const build = new kplus.Job(chart, 'build', {
  metadata: { name: 'build' },
  backoffLimit: 0,
  ttlAfterFinished: Duration.hours(1),
  containers: [
    {
      name: 'make',
      image: 'docker.io/library/gcc:14.2.0',
      command: ['make', '--jobs=4', '--keep-going', '--makefile=/src/Makefile'],
      workingDir: '/build',
      resources: {
        cpu: { request: kplus.Cpu.units(1), limit: kplus.Cpu.units(4) },
        memory: { request: Size.mebibytes(1000), limit: Size.mebibytes(1000) },
      },
      securityContext: { user: 65534, group: 65534, capabilities },
      volumeMounts: [
        {
          path: '/src',
          volume: kplus.Volume.fromConfigMap(chart, 'src', sources, { name: 'src' }),
        },
        { path: '/build', volume: kplus.Volume.fromEmptyDir(chart, 'objects', 'objects') },
        { path: '/tmp', volume: kplus.Volume.fromEmptyDir(chart, 'tmp', 'tmp') },
      ],
    },
  ],
});

// cdk8s-plus writes this with no value, which the API server drops: some tools would show a difference.
ApiObject.of(notebook).addJsonPatch(JsonPatch.remove('/spec/hostNetwork'));
ApiObject.of(build).addJsonPatch(JsonPatch.remove('/spec/template/spec/hostNetwork'));
OomKillPolicy.of(chart).single();
app.synth();
