import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';

import { METRICS } from '../../lib/agent/metrics';
import { containerId, FakeNode, pathWith, SYSTEMD } from '../support/agent';
import { PodMetadata } from '../support/api-server';
import { Container, Scene } from './scene';

// The file for Prometheus. The metric of conditions is in conditions.test.ts.

const scene = Scene.use();
const SETTINGS = { METRICS: 'yes', RESYNC_SECONDS: '1', SCRIPT_SHA256: 'abc' };

const directory = () => join(scene.node.run, 'metrics');

/** The value of one series; undefined if there is none. */
function value(series: string): number | undefined {
  const line = scene.metrics.split('\n').find((one) => one.startsWith(`oom_kill_mode_${series} `));
  return line === undefined ? undefined : Number(line.split(' ').at(-1));
}

const of = (name: string, { name: pod, namespace }: PodMetadata, container: string) =>
  value(`${name}{namespace="${namespace}",pod="${pod}",container="${container}"}`);

async function becomes(
  wanted: number | undefined,
  series: () => number | undefined,
): Promise<void> {
  await scene.eventually(`${wanted ?? 'no'} ${series.toString()}`, () => series() === wanted);
}

test('metrics are those of the catalog, and promtool finds nothing to say about them', async () => {
  await scene.ready(SETTINGS);
  const [worker] = (await scene.protect()) as [Container];
  const [php] = (await scene.protect('Group', 'php-fpm')) as [Container];
  await becomes(1, () => value('containers{mode="Single"}'));
  await becomes(1, () => value('containers{mode="Group"}'));
  await becomes(0, () => of('survived_process_kills_total', php.pod, 'php-fpm'));
  const lines = scene.metrics.split('\n');
  expect(lines.filter((line) => line.startsWith('# ')).sort()).toEqual(
    Object.values(METRICS)
      .flatMap(({ name, type, help }) => [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`])
      .sort(),
  );
  for (const line of lines.filter((one) => one !== '' && !one.startsWith('#'))) {
    const [, name, labels = ''] = /^(\w+)(?:\{(.*)\})? [0-9]+$/.exec(line) ?? [];
    const metric = Object.values(METRICS).find((one) => one.name === name);
    expect([line, labels.match(/\w+(?==)/g) ?? []]).toEqual([
      line,
      Object.keys(metric?.labels ?? { unknown: '' }),
    ]);
  }
  for (const [label, values] of Object.entries(METRICS.CONDITION.labels)) {
    expect(
      [...scene.metrics.matchAll(/^oom_kill_mode_condition\{condition="(\w+)"\} 0$/gm)].map(
        ([, one]) => one,
      ),
    ).toEqual(label === 'condition' ? expect.arrayContaining([...values]) : []);
  }
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], {
    input: scene.metrics,
    encoding: 'utf8',
  });
  expect({ status, said: stdout + stderr }).toEqual({ status: 0, said: '' });
  expect(value('build_info{script_sha256="abc"}')).toBe(1);
  expect(of('container_group_desired', worker.pod, 'worker')).toBe(0);
  expect(of('container_group_effective', worker.pod, 'worker')).toBe(0);
  expect(of('container_group_desired', php.pod, 'php-fpm')).toBe(1);
  expect(of('container_group_effective', php.pod, 'php-fpm')).toBe(1);
  // Another user reads it: the sidecar's.
  expect(statSync(scene.metricsFile).mode & 0o444).toBe(0o444);
  expect(statSync(directory()).mode & 0o555).toBe(0o555);
});

test('metrics count kills, repairs, writes and watches', async () => {
  await scene.ready({ ...SETTINGS, RESYNC_SECONDS: '600' });
  const [worker] = (await scene.protect()) as [Container];
  worker.kill(3);
  await becomes(3, () => of('survived_process_kills_total', worker.pod, 'worker'));
  await scene.settle();
  await scene.agent.ticks();
  const causes = ['start', 'event', 'resync', 'restore'];
  const writes = () => causes.map((cause) => value(`writes_total{cause="${cause}"}`) ?? NaN);
  const [starts = NaN, drifts = NaN, ...others] = writes();
  expect(others).toEqual([0, 0]);
  expect(starts).toBeGreaterThanOrEqual(2);
  const grow = async (...by: number[]) => {
    const wanted = [starts, drifts, 0, 0].map((before, i) => before + (by[i] ?? 0)).join();
    await scene.eventually(wanted, () => writes().join() === wanted);
  };
  for (let n = 0; n < 5; n += 1) {
    await scene.drift('0', worker);
  }
  await grow(0, 5);
  // As runc does it, before there is a link: an ordinary start.
  const pod = scene.optIn('Single');
  const app = pod.create('0');
  await scene.agent.ticks();
  scene.node.write(app.cgroup, '1');
  // The link comes after the count: the agent looks for it only when the value is written.
  await grow(1, 5);
  app.link('app');
  await scene.drift('0', app);
  await grow(1, 6);
  scene.api.removeLabel(worker.pod.uid);
  await grow(1, 6, 0, 1);
  await becomes(0, () => value('watch_reconnects_total'));
  scene.api.endWatches();
  await becomes(1, () => value('watch_reconnects_total'));
});

test('metrics count drift that no event told of as found by the periodic look', async () => {
  await scene.ready({ ...SETTINGS, PATH: pathWith(scene.node, 'inotifyd', 'exit 1') });
  const [worker] = (await scene.protect()) as [Container];
  // The first drift still belongs to the start, if the agent tries another inotifyd just then.
  do {
    await scene.drift('0', worker);
    await scene.agent.ticks();
  } while (value('writes_total{cause="resync"}') === 0);
  expect(value('writes_total{cause="event"}')).toBe(0);
});

test('metrics tell when the agent last knew the truth: at the last bookmark', async () => {
  scene.api.knowsInitialEvents = false;
  await scene.ready(SETTINGS);
  await scene.settle();
  const synced = () => value('last_sync_timestamp_seconds');
  expect(synced()).toBeUndefined();
  const before = Math.floor(Date.now() / 1000);
  scene.api.bookmark();
  await scene.eventually('a time', () => (synced() ?? 0) >= before);
  expect(synced()).toBeLessThanOrEqual(Date.now() / 1000);
  const first = synced() ?? NaN;
  await scene.eventually('a later time', () => {
    scene.api.bookmark();
    return (synced() ?? 0) > first;
  });
});

test('metrics forget containers that ended, and count none that has no name', async () => {
  await scene.ready(SETTINGS);
  const pod = scene.optIn('Single');
  const [sandbox, worker] = [pod.create(), pod.run('worker')];
  await scene.become('00', sandbox, worker);
  const desired = () => of('container_group_desired', pod.metadata, 'worker');
  await becomes(0, desired);
  expect(value('containers{mode="Single"}')).toBe(1);
  expect(scene.metrics).not.toContain(sandbox.short);
  worker.kill(2);
  await becomes(2, () => of('survived_process_kills_total', pod.metadata, 'worker'));
  worker.end();
  await becomes(undefined, desired);
  await becomes(undefined, desired);
  const last = pod.run('worker');
  await becomes(0, desired);
  scene.api.removeLabel(pod.metadata.uid);
  await becomes(undefined, desired);
  expect(last.value).toBe('1');
});

test.each([0, 1])(
  'metrics have one container of a name, with its own numbers, when it restarts: ids in order %i',
  async (order) => {
    // The links of both stay, and nothing but events tells of the end.
    await scene.ready({ ...SETTINGS, RESYNC_SECONDS: '600' });
    const pod = scene.optIn('Single', 'worker=Group');
    const ids = [containerId(), containerId()];
    const dead = pod.run('worker', '0', ids[order]);
    await scene.become('1', dead);
    dead.kill(2);
    const survived = () => of('survived_process_kills_total', pod.metadata, 'worker');
    await becomes(2, survived);
    dead.end();
    const worker = pod.run('worker', '0', ids[1 - order]);
    await scene.become('1', worker);
    await becomes(0, survived);
    worker.kill(5);
    await becomes(5, survived);
    expect(value('containers{mode="Group"}')).toBe(1);
    expect(of('container_group_desired', pod.metadata, 'worker')).toBe(1);
    expect(of('container_group_effective', pod.metadata, 'worker')).toBe(1);
    expect(scene.metrics.match(/_total\{.*container="worker"/g)).toHaveLength(1);
  },
);

test('metrics show the value of the file, if it is not the one that is wanted', async () => {
  // Until the next look at everything nobody tells of a write that inotify lost.
  await scene.ready({ ...SETTINGS, RESYNC_SECONDS: '600' });
  const [worker] = (await scene.protect()) as [Container];
  await becomes(0, () => of('container_group_effective', worker.pod, 'worker'));
});

test('metrics are written on a node with cgroup v1 as well, whole and anew at each tick', async () => {
  await scene.ready(SETTINGS, new FakeNode(SYSTEMD, { version: 1 }));
  await becomes(1, () => value('condition{condition="cgroup_v1"}'));
  for (let n = 0; n < 3; n += 1) {
    rmSync(scene.metricsFile);
    await scene.eventually('a file', () => existsSync(scene.metricsFile));
    expect(scene.metrics).toMatch(/\n$/);
    expect(scene.metrics).toContain('oom_kill_mode_condition{condition="cgroup_v1"} 1');
  }
});

test('metrics stay as they are while there is no room for new ones', async () => {
  await scene.ready(SETTINGS);
  await scene.protect();
  await scene.eventually('a file', () => scene.metrics !== '');
  // While the agent writes, its file has this name.
  await scene.eventually('a directory in the place of the file', () => {
    try {
      mkdirSync(join(directory(), '.new/full'), { recursive: true });
      return true;
    } catch {
      return false;
    }
  });
  const before = scene.metrics;
  await scene.settle();
  expect(scene.metrics).toBe(before);
  rmSync(join(directory(), '.new'), { recursive: true });
  await scene.eventually('another file', () => scene.metrics !== before);
});

test('metrics are not written unless they are asked for', async () => {
  await scene.ready();
  await scene.settle();
  expect(scene.metrics).toBe('');
});
