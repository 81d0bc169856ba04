import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { CONDITIONS, METRICS, seriesOf } from '../../lib/private/metrics';
import {
  Agent,
  aWhile,
  containerId,
  eventually,
  FakeNode,
  newPod,
  pathWith,
  requireTools,
  SHELLS,
  SYSTEMD,
} from '../support/agent';
import { FakeApiServer, PodMetadata } from '../support/api-server';

// The file for Prometheus, and the conditions under which a mode cannot work, which it has as well.

jest.setTimeout(60_000);

beforeAll(requireTools);

describe.each(Object.entries(SHELLS))('metrics and conditions under %s', (name, shell) => {
  let api: FakeApiServer;
  let node: FakeNode;
  let agent: Agent;

  beforeEach(async () => {
    api = await FakeApiServer.start();
    node = new FakeNode(SYSTEMD);
  });

  afterEach(async () => {
    await agent.stop('SIGKILL');
    await api.stop();
    expect(agent.errors).toBe('');
    node.remove();
  });

  function start(environment: Record<string, string> = {}): void {
    agent = new Agent(node, api, shell, {
      METRICS: 'yes',
      EVENTS: 'yes',
      KILL_SECONDS: '1',
      EVENT_SECONDS: '1',
      RESYNC_SECONDS: '1',
      SCRIPT_SHA256: 'abc',
      ...environment,
    });
  }

  function run(pod: PodMetadata, name: string, id = containerId()): string {
    const cgroup = node.createContainer(node.layout.pod(pod.uid, 'burstable'), id, '1');
    node.createLog(pod, name, id);
    node.count(cgroup, {});
    return cgroup;
  }

  /** A pod with one container that runs, and the container's cgroup. */
  function create(mode = 'Single', name = 'worker'): [PodMetadata, string] {
    const pod = newPod(mode);
    node.createPod(pod.uid);
    const cgroup = run(pod, name);
    api.setPod(pod);
    return [pod, cgroup];
  }

  const file = () => join(node.run, 'metrics/oom_kill_mode.prom');

  const text = () => (existsSync(file()) ? readFileSync(file(), 'utf8') : '');

  /** The value of one series; undefined if there is none. */
  function value(series: string): number | undefined {
    const line = text()
      .split('\n')
      .find((one) => one.startsWith(`${series} `));
    return line === undefined ? undefined : Number(line.slice(series.length + 1));
  }

  const of = (name: string, { name: pod, namespace }: PodMetadata, container: string) =>
    value(`oom_kill_mode_${name}{namespace="${namespace}",pod="${pod}",container="${container}"}`);

  const condition = (name: string) => value(`oom_kill_mode_condition{condition="${name}"}`);

  const becomes = (what: string, check: () => number | undefined, wanted: number | undefined) =>
    eventually(what, () => check() === wanted, agent, 20);

  test('are those of the catalog, and promtool finds nothing to say about them', async () => {
    start();
    const [pod, cgroup] = create();
    const [group] = create('Group', 'php-fpm');
    await agent.ready();
    await eventually('0', () => node.read(cgroup) === '0', agent);
    await becomes('Single', () => value('oom_kill_mode_containers{mode="Single"}'), 2);
    const lines = text().split('\n');
    for (const { name, type, help } of Object.values(METRICS)) {
      expect(lines).toContain(`# HELP ${name} ${help}`);
      expect(lines).toContain(`# TYPE ${name} ${type}`);
    }
    expect(lines.filter((line) => line.startsWith('# TYPE'))).toHaveLength(
      Object.keys(METRICS).length,
    );
    for (const line of lines.filter((one) => one !== '' && !one.startsWith('#'))) {
      const [, name, set = ''] = /^(\w+)(?:\{(.*)\})? [0-9.]+$/.exec(line) ?? [];
      const metric = Object.values(METRICS).find((one) => seriesOf(one).includes(name ?? ''));
      const unlabelled = metric?.type === 'histogram' && !name?.endsWith('_bucket');
      expect([line, set.match(/\w+(?==)/g) ?? []]).toEqual([
        line,
        unlabelled ? [] : Object.keys(metric?.labels ?? { unknown: '' }),
      ]);
    }
    const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], {
      input: text(),
      encoding: 'utf8',
    });
    expect({ status, said: stdout + stderr }).toEqual({ status: 0, said: '' });
    expect(value('oom_kill_mode_build_info{script_sha256="abc"}')).toBe(1);
    // The sandbox of each pod is a container to nobody but the kernel, and of a Group pod to us.
    expect(of('container_group_desired', pod, 'worker')).toBe(0);
    expect(of('container_group_effective', pod, 'worker')).toBe(0);
    expect(of('container_group_desired', group, 'php-fpm')).toBe(1);
    expect(of('survived_process_kills_total', pod, 'worker')).toBe(0);
    expect(CONDITIONS.map(condition)).toEqual(CONDITIONS.map(() => 0));
    expect(value('oom_kill_mode_last_sync_timestamp_seconds')).toBeGreaterThan(
      Date.now() / 1000 - 30,
    );
    expect(statSync(file()).mode & 0o777).toBe(0o644);
    expect(statSync(join(node.run, 'metrics')).mode & 0o777).toBe(0o755);
  });

  test('tell how long the value of the runtime stood in a container that started', async () => {
    start();
    const [pod, former] = create();
    await agent.ready();
    await eventually('0', () => node.read(former) === '0', agent);
    const count = () => value('oom_kill_mode_apply_seconds_count');
    await becomes('no start', count, 0);
    for (let n = 1; n <= 3; n += 1) {
      const directory = node.layout.pod(pod.uid, 'burstable');
      const started = node.createContainer(directory, containerId(), '0');
      await aWhile(150);
      node.write(started, '1');
      await eventually('0', () => node.read(started) === '0', agent);
    }
    // dash cannot wait for a part of a second, so under it only inotify tells.
    await becomes('three starts', count, name === 'dash' ? 0 : 3);
    const within = (le: string) => value(`oom_kill_mode_apply_seconds_bucket{le="${le}"}`) ?? NaN;
    expect(within('+Inf')).toBe(count());
    expect(within('0.02')).toBeLessThanOrEqual(within('0.05'));
    expect(within('1')).toBe(count());
    expect(value('oom_kill_mode_apply_seconds_sum')).toBeLessThanOrEqual(3);
  });

  test.each([
    ['inotifyd: add watch (root) failed: No space left on device', undefined],
    ['inotifyd: add watch "root" failed: No space left on device', '(not printable)'],
  ])('have no inotify as long as it is so, and the log says it: %s', async (complaint, said) => {
    start({ PATH: pathWith(node, 'inotifyd', `echo '${complaint}'\nexit 1`) });
    const [, cgroup] = create();
    await agent.ready();
    await eventually('0', () => node.read(cgroup) === '0', agent);
    await becomes('the condition', () => condition('no_inotify'), 1);
    expect(agent.logged('no inotify')).toEqual([
      {
        level: 'warn',
        msg: 'no inotify: polling every second until it is back',
        reason: said ?? complaint,
        condition: 'no_inotify',
      },
    ]);
    rmSync(join(node.directory, 'bin-inotifyd/inotifyd'));
    await becomes('no condition', () => condition('no_inotify'), 0);
    expect(agent.logged('inotify is back')).toHaveLength(1);
  });

  test('count kills, repairs and watches, and forget what is gone', async () => {
    start({ RESYNC_SECONDS: '2' });
    const [pod, cgroup] = create();
    await agent.ready();
    await eventually('0', () => node.read(cgroup) === '0', agent);
    await becomes('no kill', () => of('survived_process_kills_total', pod, 'worker'), 0);
    node.kill(cgroup, 3);
    await becomes('three', () => of('survived_process_kills_total', pod, 'worker'), 3);
    const repairs = () => value('oom_kill_mode_drift_repairs_total{cause="event"}');
    const before = repairs() ?? NaN;
    for (let n = 0; n < 5; n += 1) {
      node.write(cgroup, '1');
      await eventually('0', () => node.read(cgroup) === '0', agent);
    }
    await becomes('five repairs', repairs, before + 5);
    expect(value('oom_kill_mode_writes_total')).toBeGreaterThanOrEqual(before + 6);
    const synced = value('oom_kill_mode_last_sync_timestamp_seconds') ?? NaN;
    api.endWatches();
    await becomes('a watch', () => value('oom_kill_mode_watch_reconnects_total'), 1);
    api.bookmark();
    await eventually(
      'a later sync',
      () => (value('oom_kill_mode_last_sync_timestamp_seconds') ?? 0) > synced,
      agent,
    );
    // The same name again, while the first one is still there.
    const again = run(pod, 'worker');
    await eventually('0', () => node.read(again) === '0', agent);
    const short = () => of('container_group_desired', pod, containerStart(again));
    await becomes('its id', short, 0);
    node.vanish(cgroup);
    await becomes('its name', () => of('survived_process_kills_total', pod, 'worker'), 0);
    api.removeLabel(pod.uid);
    await becomes('nothing', () => of('container_group_desired', pod, 'worker'), undefined);
  });

  test('stay as they are while there is no room for new ones', async () => {
    start();
    create();
    await agent.ready();
    await eventually('a file', () => text() !== '', agent);
    mkdirSync(join(node.run, 'metrics/.new/full'), { recursive: true });
    await aWhile(2500);
    expect(agent.errors).toBe('');
    expect(text()).toContain('oom_kill_mode_build_info');
  });

  test('say that a cgroup above the containers has 1, and that it has not any more', async () => {
    start();
    const [pod, cgroup] = create();
    const above = node.layout.pod(pod.uid, 'burstable');
    await agent.ready();
    await eventually('0', () => node.read(cgroup) === '0', agent);
    node.write(above, '1');
    await becomes('the condition', () => condition('ancestor_group'), 1);
    await eventually('an Event', () => api.events.size === 1, agent);
    expect([...api.events.values()][0]).toMatchObject({
      reason: 'OomKillModeCannotApply',
      type: 'Warning',
      message: expect.stringMatching(/Condition: ancestor_group$/) as string,
      involvedObject: { name: pod.name, uid: pod.uid },
    });
    expect(node.read(above)).toBe('1');
    node.write(above, '0');
    await becomes('no condition', () => condition('ancestor_group'), 0);
    node.write(above, '1');
    await becomes('the condition', () => condition('ancestor_group'), 1);
    await aWhile(2500);
    expect(api.eventWrites).toHaveLength(1);
    expect(agent.logged('memory.oom.group=1').map((line) => line.condition)).toContain(
      'ancestor_group',
    );
  });

  test('say that a cgroup above all pods has 1, and nothing of pods that are Group', async () => {
    node.write('kubepods.slice', '1');
    start();
    const [single] = create();
    create('Group');
    await becomes('the condition', () => condition('ancestor_group'), 1);
    await eventually('an Event', () => api.events.size === 1, agent);
    await aWhile(2500);
    expect([...api.events.values()].map((event) => event.involvedObject.name)).toEqual([
      single.name,
    ]);
  });

  test("say that systemd would stop a container's scope, of opted-in pods only", async () => {
    const transient = join(node.directory, 'transient');
    mkdirSync(transient);
    start({ SYSTEMD_TRANSIENT: transient });
    const pods = [create(), create(), create(), create(), create(), create('Group')];
    const units = pods.map(([, cgroup]) => join(transient, cgroup.replace(/^.*\//, '')));
    /** The unit of a scope, and its drop-ins in the order in which systemd reads them. */
    const write = (n: number, policy: string | undefined, ...dropIns: string[]) => {
      const unit = units[n] ?? '';
      const text = (value: string) => `[Scope]\nDelegate=yes\n${value}\n`;
      writeFileSync(unit, text(policy ?? ''));
      mkdirSync(`${unit}.d`, { recursive: true });
      dropIns.forEach((value, i) => {
        writeFileSync(join(`${unit}.d`, `${10 + i}-x.conf`), text(value));
      });
    };
    write(0, 'OOMPolicy=kill');
    write(1, undefined, 'OOMPolicy = stop ');
    write(2, 'OOMPolicy=continue');
    write(3, 'OOMPolicy=kill', 'OOMPolicy=stop', 'OOMPolicy=continue', 'MemoryLow=0');
    write(4, 'OOMPolicy=continue', 'OOMPolicy=continue', 'OOMPolicy=kill');
    write(5, 'OOMPolicy=kill');
    await becomes('the condition', () => condition('systemd_oom_policy'), 1);
    await eventually('3 Events', () => api.events.size === 3, agent);
    await aWhile(2500);
    const names = [0, 1, 4].map((n) => pods[n]?.[0].name);
    expect([...api.events.values()].map((event) => event.involvedObject.name).sort()).toEqual(
      [...names].sort(),
    );
    for (const { message } of api.events.values()) {
      expect(message).toMatch(/Condition: systemd_oom_policy$/);
    }
    expect(agent.logged('OOMPolicy')).toHaveLength(3);
    // An administrator's drop-in for two of them; the third ends.
    write(0, 'OOMPolicy=kill', 'OOMPolicy=continue');
    write(4, 'OOMPolicy=continue', 'OOMPolicy=continue', 'OOMPolicy=continue');
    await aWhile(2500);
    expect(condition('systemd_oom_policy')).toBe(1);
    node.vanish(pods[1]?.[1] ?? '');
    await becomes('no condition', () => condition('systemd_oom_policy'), 0);
    expect(agent.logged('OOMPolicy')).toHaveLength(3);
  });

  test("tell of each container of a pod whose scope systemd would stop, not of the pod's sandbox", async () => {
    const transient = join(node.directory, 'transient');
    mkdirSync(transient);
    const pod = newPod('Single');
    const scopes = [node.sandbox(node.createPod(pod.uid)), run(pod, 'a'), run(pod, 'b')];
    for (const scope of scopes) {
      writeFileSync(join(transient, scope.replace(/^.*\//, '')), '[Scope]\nOOMPolicy=kill\n');
    }
    api.setPod(pod);
    start({ SYSTEMD_TRANSIENT: transient });
    await eventually('2 Events', () => api.events.size === 2, agent, 20);
    await aWhile(2500);
    expect([...api.events.values()].map((event) => event.involvedObject.fieldPath).sort()).toEqual([
      'spec.containers{a}',
      'spec.containers{b}',
    ]);
    expect(
      agent
        .logged('OOMPolicy')
        .map(({ container }) => container)
        .sort(),
    ).toEqual(['a', 'b']);
  });

  test('say that a write is refused, until it is not', async () => {
    start();
    const pod = newPod('Single');
    node.createPod(pod.uid);
    const cgroup = run(pod, 'worker');
    execFileSync('chattr', ['+i', node.file(cgroup)]);
    try {
      api.setPod(pod);
      await becomes('the condition', () => condition('write_refused'), 1);
      await eventually('an Event', () => api.events.size === 1, agent);
      expect([...api.events.values()][0]?.message).toMatch(/Condition: write_refused$/);
      expect(of('container_group_desired', pod, 'worker')).toBe(0);
      expect(of('container_group_effective', pod, 'worker')).toBe(1);
    } finally {
      execFileSync('chattr', ['-i', node.file(cgroup)]);
    }
    node.vanish(cgroup);
    await becomes('no condition', () => condition('write_refused'), 0);
    expect(agent.logged('not written')).toMatchObject([{ condition: 'write_refused' }]);
  });

  test('are written on a node with cgroup v1 as well, and kept fresh', async () => {
    node.remove();
    node = new FakeNode(SYSTEMD, { version: 1 });
    start();
    await becomes('the condition', () => condition('cgroup_v1'), 1);
    const synced = value('oom_kill_mode_last_sync_timestamp_seconds') ?? NaN;
    await eventually(
      'a later sync',
      () => (value('oom_kill_mode_last_sync_timestamp_seconds') ?? 0) > synced,
      agent,
    );
    expect(api.requests).toEqual([]);
  });

  test('say in one Event of the node that it has cgroup v1, as soon as the API server takes it', async () => {
    node.remove();
    node = new FakeNode(SYSTEMD, { version: 1 });
    const bodies: string[] = [];
    // As the real one: what has no namespace has its Events in the namespace default.
    jest
      .spyOn(
        api as unknown as { writeEvent: (...request: (string | undefined)[]) => number },
        'writeEvent',
      )
      .mockImplementation((_request, namespace, written, body) => {
        bodies.push(`${namespace ?? ''} ${written ?? 'new'} ${body ?? ''}`);
        return bodies.length < 3 ? 503 : 201;
      });
    start();
    await eventually('3 attempts', () => bodies.length === 3, agent, 20);
    await aWhile(3500);
    expect(api.eventWrites.map(({ status }) => status)).toEqual([503, 503, 201]);
    expect(agent.logged('Event not sent')).toHaveLength(1);
    const [, body = ''] = /^default new (.*)\n$/.exec(bodies[2] ?? '') ?? [];
    expect(JSON.parse(body)).toMatchObject({
      metadata: { name: 'node-1.cgroup-v1', namespace: 'default' },
      involvedObject: { apiVersion: 'v1', kind: 'Node', name: 'node-1', uid: 'node-1' },
      type: 'Warning',
      reason: 'OomKillModeCannotApply',
      message: expect.stringMatching(/Condition: cgroup_v1$/) as string,
      count: 1,
    });
    expect(body).not.toMatch(/"involvedObject":\{[^}]*"(namespace|fieldPath)"/);
    expect(await agent.stop('SIGTERM')).toBe(0);
  });

  test('count the write that gives a container back what it had', async () => {
    start();
    const [pod, cgroup] = create();
    await agent.ready();
    await eventually('0', () => node.read(cgroup) === '0', agent);
    await becomes('one write', () => value('oom_kill_mode_writes_total'), 1);
    api.removeLabel(pod.uid);
    await becomes('another', () => value('oom_kill_mode_writes_total'), 2);
    expect(node.read(cgroup)).toBe('1');
    expect(value('oom_kill_mode_drift_repairs_total{cause="event"}')).toBe(0);
  });

  test('tell of modes applied only if they are asked to, and not of the sandbox', async () => {
    start({ EVENTS_APPLIED: 'yes' });
    const [pod] = create();
    const [group] = create('Group', 'php');
    await eventually('Events', () => api.events.size > 1, agent);
    await aWhile(4500);
    expect([...api.events.values()].map(({ message }) => message).sort()).toEqual([
      'Container php has the kill mode Group.',
      'Container worker has the kill mode Single.',
    ]);
    for (const { name: involved } of [pod, group]) {
      expect([...api.events.values()]).toContainEqual(
        expect.objectContaining({
          type: 'Normal',
          reason: 'OomKillModeApplied',
          involvedObject: expect.objectContaining({ name: involved }) as object,
        }),
      );
    }
  });

  test('tell nothing of the mode of a container that ended before that could be said', async () => {
    api.eventStatus = 503;
    start({ EVENTS_APPLIED: 'yes' });
    const [, ended] = create('Single', 'job');
    const [, worker] = create();
    await eventually('0', () => node.read(ended) + node.read(worker) === '00', agent);
    await eventually('attempts', () => api.eventWrites.length > 1, agent);
    node.vanish(ended);
    await aWhile(2500);
    api.eventStatus = undefined;
    await eventually('an Event', () => api.events.size > 0, agent, 40);
    await aWhile(4500);
    expect([...api.events.values()].map(({ message }) => message)).toEqual([
      'Container worker has the kill mode Single.',
    ]);
  });
});

/** The start of a container's id, as the agent says it. */
function containerStart(cgroup: string): string {
  return /([0-9a-f]{8})[0-9a-f]{56}/.exec(cgroup)?.[1] ?? '';
}
