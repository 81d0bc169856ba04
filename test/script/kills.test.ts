import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import {
  Agent,
  aWhile,
  commandLine,
  containerId,
  cpu,
  eventually,
  FakeNode,
  newPod,
  parent,
  podUid,
  requireTools,
  SHELLS,
  signal,
  SYSTEMD,
} from '../support/agent';
import { EventObject, FakeApiServer, PodMetadata } from '../support/api-server';

// What a user gets to see: processes that the kernel killed in containers that kept running, and where
// a mode cannot work, as Events and in the log.

/** Ten times as fast as in production. */
const FAST = { EVENTS: 'yes', KILL_SECONDS: '1', EVENT_SECONDS: '1', RESYNC_SECONDS: '2' };

jest.setTimeout(120_000);

beforeAll(requireTools);

describe.each(Object.entries(SHELLS))('killed processes under %s', (_, shell) => {
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

  function start(environment: Record<string, string> = {}): Agent {
    agent = new Agent(node, api, shell, { ...FAST, ...environment });
    return agent;
  }

  /** A pod that opted in, and its cgroup. */
  class Pod {
    public readonly metadata: PodMetadata;
    public readonly directory: string;

    public constructor(mode = 'Single', more: Partial<PodMetadata> = {}) {
      this.metadata = newPod(mode, more);
      this.directory = node.createPod(this.metadata.uid);
    }

    public optIn(): this {
      api.setPod(this.metadata);
      return this;
    }

    /** A container that runs, with its log and its counters. */
    public run(name: string, id = containerId()): string {
      const cgroup = node.createContainer(this.directory, id, '1');
      node.createLog(this.metadata, name, id);
      node.count(cgroup, {});
      return cgroup;
    }

    public get events(): EventObject[] {
      return [...api.events.values()].filter(
        ({ involvedObject }) => involvedObject.name === this.metadata.name,
      );
    }
  }

  /** A pod with a container that the agent has made Single. */
  async function protect(...names: string[]): Promise<[Pod, string[]]> {
    const pod = new Pod();
    const cgroups = (names.length > 0 ? names : ['worker']).map((name) => pod.run(name));
    pod.optIn();
    await agent.ready();
    await eventually('0', () => cgroups.every((cgroup) => node.read(cgroup) === '0'), agent);
    await killWatch(pod);
    return [pod, cgroups];
  }

  /** Waits until the kill watch has this pod, too: until then kills are seen only at ticks. */
  async function killWatch(pod: Pod): Promise<void> {
    const watched = () => killWatches() === 1;
    await eventually(`a kill watch for ${pod.metadata.name}`, watched, agent, 20);
    await aWhile(1500);
  }

  /** The other inotifyds watch cgroups and modes; there may be several of them. */
  const killWatches = () =>
    agent.running('inotifyd').filter((pid) => commandLine(pid).includes('/memory.events')).length;

  const killLines = () => agent.logged('the container kept running');

  test('are seen, counted and told in one Event of their pod', async () => {
    start();
    const [pod, [worker = '']] = await protect('worker', 'proxy');
    const began = Date.now();
    node.kill(worker);
    await eventually('an Event', () => pod.events.length === 1, agent);
    expect(Date.now() - began).toBeLessThan(4000);
    const [event] = pod.events;
    expect(event).toEqual({
      apiVersion: 'v1',
      kind: 'Event',
      metadata: {
        name: `${pod.metadata.name}.${idOf(worker)}`,
        namespace: 'default',
      },
      involvedObject: {
        apiVersion: 'v1',
        kind: 'Pod',
        namespace: 'default',
        name: pod.metadata.name,
        uid: pod.metadata.uid,
        fieldPath: 'spec.containers{worker}',
      },
      type: 'Warning',
      reason: 'OomKilledProcess',
      message:
        'The kernel killed 1 process of container worker for memory, 1 in all since it started. The container kept running.',
      count: 1,
      firstTimestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/) as string,
      lastTimestamp: expect.any(String) as string,
      source: { component: 'cdk8s-oom-kill-mode', host: 'node-1' },
      reportingComponent: 'cdk8s-oom-kill-mode',
      reportingInstance: 'node-1',
    });
    node.kill(worker, 4);
    await eventually('five', () => pod.events[0]?.count === 5, agent, 20);
    expect(pod.events).toHaveLength(1);
    expect(pod.events[0]?.message).toContain(
      'killed 4 processes of container worker for memory, 5 in all since it started',
    );
    expect(pod.events[0]?.firstTimestamp).toBe(event?.firstTimestamp);
    expect(writes()).toEqual(['POST 201', 'PATCH 200']);
    const lines = killLines();
    expect(lines.map(({ container }) => container)).toEqual(lines.map(() => 'worker'));
    expect(lines.reduce((sum, { kills }) => sum + Number(kills), 0)).toBe(5);
    expect(lines.at(-1)).toMatchObject({ level: 'warn', total: '5' });
  });

  test('are counted exactly through a storm of changes without a kill, for little CPU', async () => {
    start({ KILL_SECONDS: '', EVENT_SECONDS: '', RESYNC_SECONDS: '60' });
    const pod = new Pod();
    const [worker, other] = [pod.run('worker'), pod.run('other')];
    pod.optIn();
    await agent.ready();
    await eventually('a kill watch', () => killWatches() === 1, agent, 30);
    await aWhile(1000);
    const quiet = await spent(10_000);
    let kills = 0;
    const storm = await spent(10_000, (n) => {
      node.count(worker, { max: 1 });
      if (n % 200 === 100) {
        node.kill(worker);
        kills += 1;
      }
      // Whatever is going on, a repair does not wait.
      if (n % 500 === 0) {
        node.write(other, '1');
      }
    });
    expect(kills).toBe(10);
    await eventually('all of them', () => total() === kills, agent, 30);
    await eventually('the repair', () => node.read(other) === '0', agent);
    // An hour of 5 % of one core is 180 s; this is 10 s of it, repairs and their log lines included.
    process.stdout.write(`\nCPU, ms: ${quiet} in 10 s at rest, ${storm} in 10 s of storm\n`);
    expect(storm - quiet).toBeLessThan(500);
    for (const [i, { at }] of api.eventWrites.entries()) {
      expect(at - (api.eventWrites[i - 1]?.at ?? 0)).toBeGreaterThan(10_000);
    }
  });

  test('are told when no container starts for three seconds', async () => {
    start();
    const [pod, [worker = '']] = await protect();
    const other = new Pod().optIn();
    let told = 0;
    for (let n = 0; n < 16; n += 1) {
      const cgroup = other.run(`starting-${n}`);
      await eventually('0', () => node.read(cgroup) === '0', agent);
      node.kill(worker);
      await aWhile(500);
      told = pod.events.length;
    }
    // Without a timed read nobody can tell that none starts any more: nothing is put off.
    expect(told).toBe(shell === SHELLS.dash ? 1 : 0);
    // Each of them is in the log by the next look nonetheless.
    await eventually('a line of all', () => killLines().at(-1)?.total === '16', agent, 3);
    await eventually('one Event of all', () => pod.events[0]?.count === 16, agent, 15);
  });

  test('of a pod that leaves while containers start are told before it does', async () => {
    start();
    const [pod, [worker = '']] = await protect();
    const other = new Pod().optIn();
    for (let n = 0; n < 8; n += 1) {
      const cgroup = other.run(`starting-${n}`);
      await eventually('0', () => node.read(cgroup) === '0', agent);
      if (n === 0) {
        node.kill(worker, 2);
      }
      if (n === 6) {
        api.deletePod(pod.metadata.uid);
        node.vanish(pod.directory);
      }
      await aWhile(500);
    }
    await eventually('its Event', () => pod.events[0]?.count === 2, agent);
    expect(pod.events).toHaveLength(1);
  });

  // The loop writes the line of a pod anew when it leaves, say, while whoever tells of its kills is at work.
  test.each([
    ['cut off', (line: string) => line.split(' ').slice(0, 2).join(' ')],
    ['of two moments', (line: string) => line.replace(' default ', ' defa ')],
  ])('are told of the right pod while the file with its line is %s', async (_name, spoil) => {
    start();
    const [pod, [worker = '']] = await protect();
    const record = join(node.run, 'farm.1', 'record', '1');
    const line = readFileSync(record, 'utf8');
    expect(line).toMatch(
      new RegExp(`^1 ${pod.metadata.uid} .* default ${pod.metadata.name} .*\\n$`),
    );
    writeFileSync(record, spoil(line));
    node.kill(worker);
    await eventually('an Event', () => api.events.size > 0, agent);
    expect(pod.events).toMatchObject([
      { count: 1, involvedObject: { namespace: 'default', uid: pod.metadata.uid } },
    ]);
  });

  test('of several containers of a pod are told in turns, of each exactly', async () => {
    start();
    const names = ['a', 'b', 'c'];
    const [pod, cgroups] = await protect(...names);
    for (let n = 0; n < 5; n += 1) {
      cgroups.forEach((cgroup, i) => {
        node.kill(cgroup, i + 1);
      });
      await aWhile(500);
    }
    const counts = () => pod.events.map(({ count }) => count).sort((a, b) => a - b);
    await eventually('5, 10, 15', () => counts().join() === '5,10,15', agent, 40);
    const times = api.eventWrites.map(({ at }) => at);
    expect(times.filter((at, i) => i > 0 && at - (times[i - 1] ?? 0) < 1000)).toEqual([]);
    // The first one ends, untold kills and all: what was told stays true.
    node.kill(cgroups[0] ?? '', 2);
    await eventually('a line', () => total() === 32, agent, 20);
    node.vanish(cgroups[0] ?? '');
    await eventually('7, 10, 15', () => counts().join() === '7,10,15', agent, 60);
  });

  test('are not lost, nor told twice, when the agent is restarted', async () => {
    start();
    const [pod, [worker = '']] = await protect();
    node.kill(worker, 3);
    await eventually('an Event', () => pod.events[0]?.count === 3, agent);
    await aWhile();
    await agent.stop('SIGKILL');
    node.kill(worker, 2);
    start();
    await agent.ready();
    await eventually('the rest', () => pod.events[0]?.count === 5, agent, 20);
    expect(pod.events[0]?.message).toContain('killed 2 processes');
    expect(killLines()).toMatchObject([{ kills: '2', total: '5' }]);
    // Until the agent knows that it was told.
    await aWhile();
    await agent.stop('SIGKILL');
    start();
    await agent.ready();
    await aWhile(3000);
    expect(killLines()).toEqual([]);
    expect(api.eventWrites).toHaveLength(2);
  });

  test("from before anyone looked are nobody's news, but part of the total", async () => {
    start();
    const pod = new Pod();
    const worker = pod.run('worker');
    node.kill(worker, 7);
    pod.optIn();
    await agent.ready();
    await killWatch(pod);
    expect(killLines()).toEqual([]);
    node.kill(worker);
    await eventually('an Event', () => pod.events[0]?.count === 8, agent);
    expect(killLines()).toMatchObject([{ kills: '1', total: '8' }]);
  });

  test('wait for an API server that is away, and are all counted then', async () => {
    start();
    const [pod, [worker = '']] = await protect();
    api.eventStatus = 500;
    for (let n = 1; n <= 3; n += 1) {
      node.kill(worker);
      await eventually('a line', () => total() === n, agent, 20);
    }
    await eventually('3 attempts', () => api.eventWrites.length >= 2, agent, 30);
    expect(agent.logged('Event not sent')).toMatchObject([{ status: '500' }]);
    expect(pod.events).toEqual([]);
    api.eventStatus = undefined;
    await eventually('three', () => pod.events[0]?.count === 3, agent, 40);
    expect(pod.events[0]?.message).toContain('killed 3 processes');
  });

  test.each([429, 403])('are told after status %d, which is said once', async (status) => {
    start();
    const [pod, [worker = '']] = await protect();
    api.eventStatus = status;
    node.kill(worker);
    await eventually('2 attempts', () => api.eventWrites.length >= 2, agent, 30);
    const said = status === 403 ? 'Events are not allowed' : 'Event not sent';
    expect(agent.logged(said)).toHaveLength(1);
    api.eventStatus = undefined;
    await eventually('one', () => pod.events[0]?.count === 1, agent, 40);
  });

  test('of many containers that ended are not kept for ever while Events are refused', async () => {
    start();
    const [pod, [worker = '']] = await protect();
    const jobs = Array.from({ length: 25 }, (_, i) => pod.run(`job-${i}`));
    await eventually('all at 0', () => jobs.every((job) => node.read(job) === '0'), agent, 20);
    await killWatch(pod);
    api.eventStatus = 403;
    for (const job of jobs) node.kill(job);
    await eventually('a line each', () => killLines().length === 25, agent, 30);
    for (const job of jobs) node.vanish(job);
    await aWhile(1500);
    node.kill(worker);
    await eventually('one more', () => killLines().length === 26, agent, 20);
    const [file = ''] = readdirSync(join(node.run, 'kills'));
    const known = () => readFileSync(join(node.run, 'kills', file), 'utf8');
    // Written after the line of the log.
    await eventually('26 known', () => known().startsWith('26 '), agent, 20);
    expect(known()).toMatch(/^26 0 ,([0-9a-f]+:1:0:0,){21}\n/);
    api.eventStatus = undefined;
    await eventually('an Event', () => pod.events.length > 0, agent, 60);
  });

  test('get an Event anew when the old one has expired', async () => {
    start();
    const [pod, [worker = '']] = await protect();
    node.kill(worker);
    await eventually('an Event', () => pod.events[0]?.count === 1, agent);
    await aWhile();
    api.events.clear();
    node.kill(worker);
    await eventually('another', () => pod.events[0]?.count === 2, agent, 20);
    node.kill(worker);
    await eventually('a change of that', () => pod.events[0]?.count === 3, agent, 20);
    expect(writes()).toEqual(['POST 201', 'PATCH 404', 'POST 201', 'PATCH 200']);
    expect(Math.min(...gaps())).toBeGreaterThan(1000);
    expect(agent.logged('Event not sent')).toEqual([]);
  });

  test('change the Event of an agent before this one, of which it knows nothing', async () => {
    start();
    const [pod, [worker = '']] = await protect();
    node.kill(worker);
    await eventually('an Event', () => pod.events[0]?.count === 1, agent);
    await agent.stop('SIGTERM');
    rmSync(node.run, { recursive: true });
    mkdirSync(node.run);
    api.eventWrites.length = 0;
    start();
    await agent.ready();
    await killWatch(pod);
    node.kill(worker);
    await eventually('a change', () => pod.events[0]?.count === 2, agent, 20);
    expect(pod.events[0]?.message).toContain('killed 1 process of container worker');
    expect(writes()).toEqual(['POST 409', 'PATCH 200']);
    expect(Math.min(...gaps())).toBeGreaterThan(1000);
    expect(agent.logged('Event not sent')).toEqual([]);
  });

  test('that do not stop are told less and less often', async () => {
    start();
    const [pod, [worker = '']] = await protect();
    const began = Date.now();
    let kills = 0;
    while (Date.now() - began < 20_000) {
      node.kill(worker);
      kills += 1;
      await aWhile(400);
    }
    const pauses = gaps();
    expect(pauses.length).toBeGreaterThanOrEqual(2);
    // At least 1 s, 2 s, 4 s, ...
    expect(pauses.filter((pause, i) => pause <= 1000 * 2 ** i)).toEqual([]);
    expect(pauses.at(-1)).toBeGreaterThan(pauses[0] ?? Infinity);
    await eventually('all of them', () => pod.events[0]?.count === kills, agent, 60);
    expect(pod.events).toHaveLength(1);
  });

  test('in containers that end with all their processes are not called survived', async () => {
    start();
    const [pod, [worker = '', other = '']] = await protect('worker', 'other');
    const single = new Pod();
    const main = single.run('main');
    single.optIn();
    const group = new Pod('Group');
    const whole = group.run('whole');
    group.optIn();
    await eventually('modes', () => node.read(main) + node.read(whole) === '01', agent);
    await aWhile(3000);
    // The first process is killed: its container ends.
    node.kill(main);
    node.vanish(main);
    // All of a group is killed.
    node.count(whole, { oom_kill: 3, oom_group_kill: 1 });
    node.vanish(whole);
    // A container ends by itself while another loses a process.
    node.kill(other);
    node.vanish(worker);
    await eventually('the survivor', () => pod.events.length === 1, agent);
    await eventually('the other', () => single.events.length === 1, agent);
    expect(pod.events[0]).toMatchObject({ reason: 'OomKilledProcess', count: 1 });
    expect(single.events[0]).toMatchObject({
      type: 'Warning',
      reason: 'OomKillModeCannotApply',
      message:
        'Container main ended when the kernel killed processes of it for memory, although Single: probably its main process. Condition: main_process_killed',
      involvedObject: { fieldPath: 'spec.containers{main}' },
    });
    // The same again, once a tick has forgotten the first: of that there is nothing new to say.
    await aWhile(4500);
    const again = single.run('main');
    await eventually('0', () => node.read(again) === '0', agent);
    node.kill(again);
    node.vanish(again);
    const known = () => readFileSync(join(node.run, 'kills', single.metadata.uid), 'utf8');
    await eventually('the second', () => known().startsWith('2 '), agent, 20);
    await aWhile(3000);
    expect(single.events).toHaveLength(1);
    expect(group.events).toEqual([]);
    expect(killLines()).toMatchObject([{ container: 'other' }]);
    expect(agent.logged('ended although it was Single')).toMatchObject([
      { container: 'main', condition: 'main_process_killed', kills: '1' },
    ]);
  });

  test('are told of a Group container that keeps running, and of none that is ending', async () => {
    // Time enough to end, also on a machine that is busy.
    start({ KILL_SECONDS: '4' });
    const group = new Pod('Group');
    const docker = group.run('docker');
    group.optIn();
    const whole = new Pod('Group');
    const ending = whole.run('ending');
    whole.optIn();
    await agent.ready();
    await killWatch(group);
    // A cgroup inside it is full; the kernel's counters are those of all that is below.
    node.count(docker, { oom_kill: 3, oom_group_kill: 1 });
    // All of it is killed, which takes a moment.
    node.count(ending, { oom_kill: 2, oom_group_kill: 1 });
    await aWhile(1400);
    node.vanish(ending);
    await eventually('an Event', () => group.events.length === 1, agent, 40);
    node.kill(docker);
    await eventually('one more', () => group.events[0]?.count === 4, agent, 40);
    await aWhile(5000);
    expect(whole.events).toEqual([]);
    const lines = killLines();
    expect(new Set(lines.map(({ container }) => container))).toEqual(new Set(['docker']));
    expect(total()).toBe(4);
    expect(agent.logged('ended although')).toEqual([]);
  });

  test('are seen by a tick before it forgets the container that ended with them', async () => {
    // The first kill watch is ten minutes away, and so is the first look.
    start({ KILL_SECONDS: '600' });
    const pod = new Pod();
    const worker = pod.run('worker');
    pod.optIn();
    await agent.ready();
    await eventually('0', () => node.read(worker) === '0', agent);
    node.kill(worker);
    node.vanish(worker);
    await eventually('an Event', () => pod.events.length === 1, agent, 10);
    expect(agent.logged('ended although it was Single')).toMatchObject([
      { container: 'worker', condition: 'main_process_killed', kills: '1' },
    ]);
  });

  test('have a valid Event whatever the names are', async () => {
    start();
    const pods = [
      new Pod('Single', { name: `${'a'.repeat(148)}.-${'b'.repeat(103)}` }),
      new Pod('Single', { name: 'a.b-c', namespace: 'n'.repeat(63) }),
      // A static pod: its cgroup and its Events have the hash.
      new Pod('Single', {
        uid: '0123456789abcdef0123456789abcdef',
        name: 'static-node-1',
        annotations: { 'kubernetes.io/config.mirror': '0123456789abcdef0123456789abcdef' },
      }),
    ];
    const name = `c${'d'.repeat(62)}`;
    const cgroups = pods.map((pod) => pod.run(name));
    // Links that nobody but a hostile kubelet makes.
    const nameless = new Pod();
    const quoted = nameless.run('a"b\\$(reboot)');
    for (const pod of [...pods, nameless]) {
      api.setPod(pod === pods[2] ? { ...pod.metadata, uid: podUid() } : pod.metadata);
    }
    await agent.ready();
    await eventually('0', () => cgroups.every((cgroup) => node.read(cgroup) === '0'), agent);
    await aWhile(3000);
    for (const cgroup of [...cgroups, quoted]) {
      node.kill(cgroup);
    }
    await eventually('4 Events', () => api.events.size === 4, agent, 20);
    for (const { metadata } of api.events.values()) {
      expect(metadata.name).toMatch(
        /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/,
      );
      expect(metadata.name.length).toBeLessThanOrEqual(253);
    }
    for (const pod of pods) {
      expect(pod.events[0]?.involvedObject).toMatchObject({
        uid: pod.metadata.uid,
        namespace: pod.metadata.namespace,
        // The kubelet cuts the longest name of a log.
        fieldPath: expect.stringMatching(/^spec.containers\{(cd{62}|[0-9a-f]{8})\}$/) as string,
      });
    }
    expect(nameless.events[0]?.involvedObject.fieldPath).toBe(`spec.containers{${idOf(quoted)}}`);
  });

  test("of a pod that left are nobody's", async () => {
    start();
    const [pod, [worker = '']] = await protect();
    node.kill(worker);
    await eventually('an Event', () => pod.events.length === 1, agent);
    api.removeLabel(pod.metadata.uid);
    await eventually('let go', () => agent.logged('no longer opted in').length === 1, agent);
    node.kill(worker, 5);
    await aWhile(3000);
    expect(pod.events[0]?.count).toBe(1);
    await eventually('forgotten', () => readdirSync(join(node.run, 'kills')).length === 0, agent);
  });

  test('wake nobody as long as there are none', async () => {
    start({ RESYNC_SECONDS: '60', KILL_SECONDS: '' });
    const [, [worker = '']] = await protect();
    // Until the kill watch knows the pod.
    await aWhile(12_000);
    // curl has a clock of its own: it looks once a second whether its connection is still alive.
    const processes = agent.processes.filter((pid) => !commandLine(pid).startsWith('curl '));
    const switches = () => processes.map((pid) => contextSwitches(pid));
    const before = switches();
    await aWhile(5000);
    expect(switches()).toEqual(before);
    expect(node.read(worker)).toBe('0');
  });

  // A real server sends a bookmark about once a minute: whatever else has ended is found out then.
  test('are told after a bookmark when only the loop and the watch of the API are left', async () => {
    start();
    const [pod, [worker = '']] = await protect();
    // Once the burst is over, too, nobody is waited for but those that are killed.
    await eventually('rest', () => agent.running('inotifyd').length === 2, agent, 20);
    const lineage = (pid: number): number[] =>
      pid === agent.pid ? [pid] : [pid, ...lineage(parent(pid))];
    const kept = ['curl', 'awk'].flatMap((word) => agent.running(word)).flatMap(lineage);
    expect(kept.length).toBeGreaterThanOrEqual(4);
    // All at once: nobody has the time to tell that another one ended.
    const killed = agent.processes.filter((pid) => !kept.includes(pid));
    for (const name of ['SIGSTOP', 'SIGKILL'] as const) {
      killed.forEach((pid) => signal(pid, name));
    }
    node.kill(worker);
    node.write(worker, '1');
    api.bookmark();
    await eventually('repair', () => node.read(worker) === '0', agent);
    await eventually('an Event', () => pod.events[0]?.count === 1, agent, 20);
  });

  test('leave no process behind when the agent ends', async () => {
    start();
    await protect();
    expect(killWatches()).toBe(1);
    expect(await agent.stop('SIGTERM')).toBe(0);
    expect(agent.running('inotifyd')).toEqual([]);
  });

  const writes = () => api.eventWrites.map(({ method, status }) => `${method} ${status}`);

  /** Milliseconds between the writes of Events. */
  const gaps = () =>
    api.eventWrites.slice(1).map(({ at }, i) => at - (api.eventWrites[i]?.at ?? Infinity));

  /** Kills that the log tells of. */
  const total = () => killLines().reduce((sum, { kills }) => sum + Number(kills), 0);

  /** CPU time, in milliseconds, of the agent with all that it started, while something is done. */
  async function spent(milliseconds: number, step?: (n: number) => void): Promise<number> {
    const before = cpu(agent.pid);
    const began = Date.now();
    for (let n = 0; Date.now() - began < milliseconds; n += 1) {
      step?.(n);
      await new Promise((done) => setTimeout(done, began + (n + 1) * 5 - Date.now()));
    }
    return cpu(agent.pid) - before;
  }
});

describe.each(Object.entries(SHELLS))('the pace of Events under %s', (_, shell) => {
  test('slows down to one in five minutes, and is back after a quiet time', () => {
    const script = `
      set -eu
      EVENT_SECONDS=10 KILL_SECONDS=10
      NL='\n'
      . lib/agent/lists.sh
      . lib/agent/events.sh
      IFS=$NL
      UPTIME=100
      sent=0
      # Something to tell at every look: for half an hour, and once more after a quiet one.
      while [ "$UPTIME" -lt 3700 ]; do
        UPTIME=$((UPTIME + 10))
        if [ "$UPTIME" -gt 1900 ] && [ "$UPTIME" -lt 3600 ]; then continue; fi
        if may_send 7; then
          printf '%s ' $((UPTIME - sent))
          sent=$UPTIME
        fi
      done
    `;
    const [command = '', ...more] = shell;
    const { stdout, stderr } = spawnSync(command, [...more, '-c', script], {
      cwd: join(__dirname, '../..'),
      encoding: 'utf8',
    });
    expect(stderr).toBe('');
    expect(stdout).toBe('110 20 30 50 90 170 310 310 310 310 1890 20 30 50 ');
  });
});

/** How often a process went to sleep, which is how often it had been woken. */
function contextSwitches(pid: number): string {
  const [line = ''] = /^voluntary_ctxt_switches:.*$/m.exec(
    readFileSync(`/proc/${pid}/status`, 'utf8'),
  ) ?? [''];
  return line;
}

/** The start of a container's id, as the agent says it. */
function idOf(cgroup: string): string {
  return /([0-9a-f]{8})[0-9a-f]{56}/.exec(cgroup)?.[1] ?? '';
}
