import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { createServer, Socket } from 'node:net';

import {
  Agent,
  ANNOTATION,
  aWhile,
  commandLine,
  containerId,
  cpu,
  eventually,
  FakeNode,
  LABEL,
  newPod,
  pathWith,
  podUid,
  requireTools,
  SHELLS,
  signal,
  SYSTEMD,
} from '../support/agent';
import { fail, FakeApiServer, PodMetadata } from '../support/api-server';

// What the agent survives: every test injects a fault, and says what stays protected meanwhile and how
// long it may take until everything is right again. The times that it took are listed at the end. The
// faults that take no time to speak of (statuses, garbage, a killed process) are in agent.test.ts.

const MEBIBYTE = 2 ** 20;
// The memory limit of the agent's container.
const MEMORY_LIMIT = 64 * MEBIBYTE;

jest.setTimeout(120_000);

beforeAll(requireTools);

/** What was measured: the worst of each. */
const worst = new Map<string, { value: number; unit: string }>();

function measured(what: string, value: number, unit: string): void {
  const name = `${expect.getState().currentTestName ?? ''}: ${what}`;
  worst.set(name, { value: Math.max(value, worst.get(name)?.value ?? 0), unit });
}

afterAll(() => {
  const lines = [...worst].map(([name, { value, unit }]) => {
    return `${value.toFixed(2).padStart(7)} ${unit}  ${name}\n`;
  });
  process.stdout.write(`\nmeasured (of the most that is allowed)\n${lines.join('')}\n`);
});

/** Waits until something is right again, at most as long as it may take. */
async function heals(
  what: string,
  seconds: number,
  agent: Agent,
  condition: () => boolean,
): Promise<void> {
  const began = Date.now();
  await eventually(what, condition, agent, seconds);
  measured(what, (Date.now() - began) / 1000, `s of ${seconds} s`);
}

/** An agent on a node of its own, with an API server of its own. */
class Scene {
  public static async with(
    shell: string[],
    environment: (node: FakeNode) => Record<string, string>,
    play: (scene: Scene) => Promise<void>,
  ): Promise<void> {
    const node = new FakeNode(SYSTEMD);
    const scene = new Scene(await FakeApiServer.start(), node, shell, environment(node));
    try {
      await play(scene);
      expect(scene.agent.errors).toBe('');
    } finally {
      await scene.end();
    }
  }

  public readonly agent: Agent;

  public constructor(
    public readonly api: FakeApiServer,
    public readonly node: FakeNode,
    shell: string[],
    environment: Record<string, string> = {},
  ) {
    this.agent = new Agent(node, api, shell, environment);
  }

  /** Opts in a pod with containers that run already. */
  public async protect(containers = 1, mode = 'Single'): Promise<Protected> {
    const pod = newPod(mode);
    const directory = this.node.createPod(pod.uid);
    const wanted = mode === 'Single' ? '0' : '1';
    const cgroups = Array.from({ length: containers }, () =>
      this.node.createContainer(directory, containerId(), wanted === '0' ? '1' : '0'),
    );
    this.api.setPod(pod);
    await eventually(mode, () => this.all(cgroups, wanted), this.agent, 20);
    return { pod, directory, cgroups, cgroup: cgroups[0] as string };
  }

  public all(cgroups: string[], value: string): boolean {
    return cgroups.every((cgroup) => this.node.read(cgroup) === value);
  }

  /** Waits until the only inotifyd watches these containers; its process number. */
  public async watcher(cgroups: string[]): Promise<number> {
    let watcher = 0;
    let since = 0;
    const watches = () => {
      const running = this.agent.running('inotifyd');
      if (running[0] !== watcher) {
        watcher = running[0] ?? 0;
        since = Date.now();
      }
      // It cuts its arguments in two where their colon was.
      const watched = commandLine(watcher);
      return (
        running.length === 1 &&
        cgroups.every((cgroup) =>
          watched.includes(`-${id(cgroup).slice(0, 8)}/memory.oom.group c `),
        )
      );
    };
    // One more is started for what may have been missed while it started.
    const settled = () => watches() && Date.now() - since > 200;
    await eventually(`an inotifyd for ${cgroups.length} containers`, settled, this.agent, 20);
    return watcher;
  }

  public async end(): Promise<void> {
    await this.agent.stop('SIGKILL');
    await this.api.stop();
    this.node.remove();
  }
}

interface Protected {
  readonly pod: PodMetadata;
  /** The pod's cgroup. */
  readonly directory: string;
  /** Its containers' cgroups, and the first of them. */
  readonly cgroups: string[];
  readonly cgroup: string;
}

function withMode(pod: PodMetadata, mode: string): PodMetadata {
  return { ...pod, labels: { ...pod.labels, [LABEL]: mode } };
}

/** The id of a container, from the name of its cgroup. */
function id(cgroup: string): string {
  return /[0-9a-f]{64}/.exec(cgroup)?.[0] ?? '';
}

function parent(pid: number): number {
  return Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);
}

/** The most memory that each of the processes ever had, together. */
function peakMemory(pids: number[]): number {
  const peaks = pids.map((pid) => {
    try {
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      return Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
    } catch {
      return 0;
    }
  });
  return peaks.reduce((sum, peak) => sum + peak, 0);
}

/** The links in RUN_DIR: containers and pods that the agent knows. */
function links(node: FakeNode): string[] {
  return readdirSync(node.run)
    .filter((name) => name.startsWith('farm.'))
    .flatMap((farm) =>
      ['0', '1', 'pod'].flatMap((kind) =>
        readdirSync(`${node.run}/${farm}/${kind}`).map((name) => `${kind}/${name}`),
      ),
    );
}

describe.each(Object.entries(SHELLS))('%s', (name, shell) => {
  let scene: Scene;
  let api: FakeApiServer;
  let node: FakeNode;
  let agent: Agent;
  /** What the agent's tools may say of the fault. */
  let noise: RegExp | '';

  beforeEach(async () => {
    api = await FakeApiServer.start();
    node = new FakeNode(SYSTEMD);
    noise = '';
  });

  afterEach(async () => {
    await scene.end();
    expect(agent.errors.replace(noise, '')).toBe('');
  });

  function start(environment: Record<string, string> = {}): void {
    scene = new Scene(api, node, shell, environment);
    agent = scene.agent;
  }

  test('looks that were due while it stood still, without inotify, are one look', async () => {
    start({ PATH: pathWith(node, 'inotifyd', 'exit 1'), RESYNC_SECONDS: '600' });
    await scene.protect(300);
    await agent.ready();
    const before = cpu(agent.pid);
    await aWhile(8000);
    const eight = cpu(agent.pid) - before;
    process.kill(agent.pid, 'SIGSTOP');
    await aWhile(16_000);
    const stopped = cpu(agent.pid);
    process.kill(agent.pid, 'SIGCONT');
    await aWhile(2500);
    const rest = cpu(agent.pid) - stopped;
    measured('CPU after 16 s of standing still', rest, `ms of ${eight}, that of eight looks`);
    expect(rest).toBeLessThan(eight);
  });

  test('an inotify queue that overflows by 20,000 events', async () => {
    start();
    const pods = [await scene.protect(10), await scene.protect(10)] as const;
    const cgroups = pods.flatMap((pod) => pod.cgroups);
    await agent.ready();
    const watcher = await scene.watcher(cgroups);
    process.kill(watcher, 'SIGSTOP');
    // The kernel merges an event with the one before it if they are alike: two files, in turns.
    const files = cgroups.slice(0, 2).map((cgroup) => openSync(node.file(cgroup), 'r+'));
    const size = Number(readFileSync('/proc/sys/fs/inotify/max_queued_events', 'utf8'));
    for (let n = 0; n < size + 20_000; n += 1) {
      writeSync(files[n % 2] as number, '0\n', 0);
    }
    files.forEach(closeSync);
    // From here on events are lost.
    cgroups.forEach((cgroup) => {
      node.write(cgroup, '1');
    });
    const late = node.createContainer(pods[0].directory, containerId(), '1');
    await aWhile();
    expect(scene.all([...cgroups, late], '1')).toBe(true);
    process.kill(watcher, 'SIGCONT');
    await heals('20 drifted containers and a new one', 20, agent, () =>
      scene.all([...cgroups, late], '0'),
    );
    expect(agent.logged('inotify lost events').length).toBeGreaterThan(0);
    await scene.watcher([...cgroups, late]);
  });

  test('330 containers reset within two seconds, three times, as by the static CPU manager', async () => {
    const pods = Array.from({ length: 110 }, () => newPod('Single'));
    const cgroups = pods.flatMap((pod) => {
      const directory = node.createPod(pod.uid);
      api.setPod(pod);
      return [1, 2, 3].map(() => node.createContainer(directory, containerId(), '1'));
    });
    start();
    await heals('330 containers at the start', 30, agent, () => scene.all(cgroups, '0'));
    await agent.ready();
    await scene.watcher(cgroups);
    for (let round = 0; round < 3; round += 1) {
      const began = Date.now();
      for (const [n, cgroup] of cgroups.entries()) {
        node.write(cgroup, '1');
        if (n % 10 === 9) {
          await aWhile(Math.max(0, began + (n / cgroups.length) * 1900 - Date.now()));
        }
      }
    }
    await heals('after the last write', 5, agent, () => scene.all(cgroups, '0'));
  });

  test('each of its processes hangs for a while', async () => {
    start({ RESYNC_SECONDS: '1' });
    const { pod, directory, cgroup } = await scene.protect();
    await agent.ready();
    await eventually('a watch', () => api.watching === 1, agent);
    const running = [cgroup];
    const tried = new Map<number, string>();
    const known = () => [...tried.values()];
    const nameOf = (pid: number) => /^[a-z]+(?= -)/.exec(commandLine(pid))?.[0] ?? 'shell';
    while (tried.size < 9) {
      await scene.watcher(running);
      // Programs first: an agent that has to start them anew has others at each turn.
      const rest = agent.processes.filter((pid) => {
        return pid !== agent.pid && !tried.has(pid) && !commandLine(pid).startsWith('sleep ');
      });
      const victim = rest.find((pid) => !['shell', ...known()].includes(nameOf(pid))) ?? rest[0];
      if (victim === undefined) break;
      const name = nameOf(victim);
      tried.set(victim, name);
      signal(victim, 'SIGSTOP');
      node.write(cgroup, '1');
      await heals(`drift while ${name} hangs`, 6, agent, () => node.read(cgroup) === '0');
      const started = node.createContainer(directory, containerId(), '1');
      await heals(
        `a new container while ${name} hangs`,
        6,
        agent,
        () => node.read(started) === '0',
      );
      running.push(started);
      api.setPod(withMode(pod, 'Group'));
      signal(victim, 'SIGCONT');
      await heals(`a new mode after ${name} hung`, 10, agent, () => node.read(cgroup) === '1');
      api.setPod(pod);
      await eventually('Single again', () => node.read(cgroup) === '0', agent);
    }
    expect(known()).toEqual(expect.arrayContaining(['curl', 'awk', 'inotifyd', 'shell']));
    expect(tried.size).toBeGreaterThanOrEqual(6);
  });

  test.each(['inotifyd', 'the process that keeps inotifyd'])('%s hangs forever', async (name) => {
    start({ RESYNC_SECONDS: '2' });
    const { directory, cgroup } = await scene.protect();
    await agent.ready();
    const watcher = await scene.watcher([cgroup]);
    process.kill(name === 'inotifyd' ? watcher : parent(watcher), 'SIGSTOP');
    node.write(cgroup, '1');
    await heals('drift', 6, agent, () => node.read(cgroup) === '0');
    const began = [cgroup];
    if (name !== 'inotifyd') {
      // Its end is what the next one waits for.
      began.push(node.createContainer(directory, containerId(), '1'));
      await heals('a new container', 6, agent, () => scene.all(began, '0'));
    }
    await heals('found out', 10, agent, () => agent.logged('inotifyd hangs').length > 0);
    began.push(node.createContainer(directory, containerId(), '1'));
    await heals('a new container afterwards', 6, agent, () => scene.all(began, '0'));
    expect(await scene.watcher(began)).not.toBe(watcher);
  });

  test('a tick that is heard of late, shortly before the next, is not held against inotifyd', async () => {
    const seconds = 4;
    start({ RESYNC_SECONDS: String(seconds) });
    const { cgroup } = await scene.protect();
    await agent.ready();
    const watcher = await scene.watcher([cgroup]);
    const beat = () => Number(readFileSync(`${node.run}/alive`, 'utf8'));
    const before = beat();
    await eventually('a tick', () => beat() > before, agent);
    const ticked = Date.now();
    const at = (periods: number) => aWhile(ticked + periods * seconds * 1000 - Date.now());
    process.kill(agent.pid, 'SIGSTOP');
    await at(1.7);
    process.kill(watcher, 'SIGSTOP');
    process.kill(agent.pid, 'SIGCONT');
    await eventually('the late tick', () => beat() > before + seconds, agent);
    expect(Date.now()).toBeLessThan(ticked + 1.9 * seconds * 1000);
    await at(2.3);
    process.kill(watcher, 'SIGCONT');
    await at(3.3);
    expect(agent.logged('inotifyd hangs')).toEqual([]);
    expect(await scene.watcher([cgroup])).toBe(watcher);
  });

  test('an inotifyd that fails to start, and then one that takes its time', async () => {
    const plan = `${node.directory}/plan`;
    const late = `read -r plan <'${plan}'
case $plan in
  fail)
    echo slow >'${plan}'
    echo 'inotifyd: 0/1-00000000: No such file or directory'
    exit 1
    ;;
  slow)
    echo done >'${plan}'
    sleep 1
    ;;
esac
PATH=\${PATH#*:} exec inotifyd "$@"`;
    writeFileSync(plan, '\n');
    start({ PATH: pathWith(node, 'inotifyd', late) });
    const { directory, cgroup } = await scene.protect();
    await agent.ready();
    await scene.watcher([cgroup]);
    writeFileSync(plan, 'fail\n');
    const started = node.createContainer(directory, containerId(), '1');
    await eventually('the slow one', () => readFileSync(plan, 'utf8') === 'done\n', agent);
    await aWhile();
    node.write(cgroup, '1');
    await heals('drift of what is watched still', 5, agent, () => node.read(cgroup) === '0');
    await scene.watcher([cgroup, started]);
    expect(scene.all([cgroup, started], '0')).toBe(true);
  });

  // An API server takes no more than 256 KiB. Backslashes, which it doubles, are what costs most.
  test.each([
    ['1 MiB of letters', 'x'.repeat(MEBIBYTE)],
    ['1 MiB of braces and quotes', '{"a":"}"},'.repeat(MEBIBYTE / 10)],
    ['256 KiB of backslashes', '\\'.repeat(MEBIBYTE / 4)],
  ])('annotations of %s', async (_name, text) => {
    const listed = newPod('Single', { annotations: { note: text } });
    const running = node.createContainer(node.createPod(listed.uid), containerId(), '1');
    api.setPod(listed);
    start();
    let peak = 0;
    const meanwhile = (condition: () => boolean) => () => {
      peak = Math.max(peak, peakMemory(agent.processes));
      return condition();
    };
    await heals(
      'a pod in the list',
      20,
      agent,
      meanwhile(() => node.read(running) === '0'),
    );
    await agent.ready();
    await eventually('a watch', () => api.watching === 1, agent);
    const noted = newPod('Single', { annotations: { note: text } });
    const ours = newPod('Single', { annotations: { [ANNOTATION]: text } });
    const cgroups = [noted, ours].map((pod) => {
      api.setPod(pod);
      return node.createContainer(node.createPod(pod.uid), containerId(), '1');
    });
    await heals(
      'two pods in the watch',
      20,
      agent,
      meanwhile(() => scene.all(cgroups, '0')),
    );
    const malformed = () => agent.logged('has an entry that is not').length === 1;
    await eventually('a word about the one that is ours', malformed, agent);
    node.write(running, '1');
    await eventually('repair', () => node.read(running) === '0', agent);
    measured('peak memory of all processes', peak / MEBIBYTE, 'MiB of 64 MiB');
    expect(peak).toBeLessThan(MEMORY_LIMIT);
  });

  test('500 pods within 10 s, and all of them deleted', async () => {
    start({ RESYNC_SECONDS: '5' });
    await agent.ready();
    const began = Date.now();
    const started: { pod: PodMetadata; directory: string; cgroup: string }[] = [];
    for (let n = 0; n < 500; n += 1) {
      const pod = newPod('Single');
      api.setPod(pod);
      const directory = node.createPod(pod.uid);
      const cgroup = node.createContainer(directory, containerId(), '0');
      started.push({ pod, directory, cgroup });
      await aWhile(Math.max(1, began + n * 20 - Date.now()));
      // As runc does, a little later than the cgroup is made.
      node.write(cgroup, '1');
    }
    measured('500 starts', (Date.now() - began) / 1000, 's of 10 s');
    const cgroups = started.map(({ cgroup }) => cgroup);
    await heals('after the last start', 30, agent, () => scene.all(cgroups, '0'));
    await scene.watcher(cgroups);
    for (const { pod, directory } of started) {
      node.vanish(directory);
      api.deletePod(pod.uid);
    }
    await heals('forgotten after the last end', 30, agent, () => links(node).length === 0);
  });

  test.each([
    ['Single', '0'],
    ['Group', '1'],
    ['absent', '1'],
  ])('a label flipped 100 times at once, ending as %s', async (last, value) => {
    start();
    const { pod, cgroup } = await scene.protect();
    const modes = ['Single', 'absent', 'Group', 'absent', 'Group', 'Single'];
    for (const mode of [...Array.from({ length: 99 }, (_, n) => modes[n % modes.length]), last]) {
      if (mode === undefined || mode === 'absent') {
        api.removeLabel(pod.uid);
      } else {
        api.setPod(withMode(pod, mode));
      }
    }
    // The very last word, so that its effect tells that all the others were heard.
    const { cgroup: marker } = await scene.protect();
    await heals(`${last} after the last word`, 10, agent, () => node.read(cgroup) === value);
    for (const drift of ['0', '1']) {
      node.write(cgroup, drift);
      node.write(marker, '1');
      await eventually('the marker', () => node.read(marker) === '0', agent);
      const expected = last === 'absent' ? drift : value;
      await eventually(`${expected} after ${drift}`, () => node.read(cgroup) === expected, agent);
    }
  });

  test('300 scopes that vanish before they can be written', async () => {
    start();
    const { directory, cgroup } = await scene.protect();
    const ordinary = node.createContainer(node.createPod(podUid()), containerId(), '1');
    await agent.ready();
    for (let n = 0; n < 300; n += 1) {
      const gone = node.createContainer(directory, containerId(), '0');
      node.write(gone, '1');
      // At once, or when it is known, or when it is watched.
      if (n % 10 > 4) await aWhile((n % 10) * 2);
      node.vanish(gone);
    }
    const last = node.createContainer(directory, containerId(), '1');
    await heals('one that stays', 5, agent, () => node.read(last) === '0');
    await scene.watcher([cgroup, last]);
    for (const drifted of [cgroup, last]) {
      node.write(drifted, '1');
      await heals('drift', 5, agent, () => node.read(drifted) === '0');
    }
    expect(node.read(ordinary)).toBe('1');
    expect(agent.log.filter((line) => line.level === 'error' || line.level === 'warn')).toEqual([]);
  });

  test.each(['before', 'after'])(
    'a pod whose cgroup is gone %s the API server says so, made again under its name, five times',
    async (when) => {
      start();
      const steady = await scene.protect();
      let { pod, directory } = await scene.protect();
      await agent.ready();
      for (let n = 0; n < 5; n += 1) {
        if (when === 'before') node.vanish(directory);
        api.deletePod(pod.uid);
        const again = newPod('Single', { name: pod.name });
        const made = node.createPod(again.uid);
        const cgroup = node.createContainer(made, containerId(), '1');
        api.setPod(again);
        await heals('the new one', 5, agent, () => node.read(cgroup) === '0');
        if (when === 'after') node.vanish(directory);
        for (const drifted of [cgroup, steady.cgroup]) {
          node.write(drifted, '1');
          await heals('drift', 5, agent, () => node.read(drifted) === '0');
        }
        [pod, directory] = [again, made];
      }
      const known = () => links(node).filter((link) => link.startsWith('pod/')).length;
      // What told of its end last decides whether its link goes at once or at the next tick.
      await eventually('two pods', () => known() === 2, agent, 70);
      expect(agent.log.filter(({ level }) => level === 'error' || level === 'warn')).toEqual([]);
    },
  );

  test('an API server that is away when it starts', async () => {
    const pod = newPod('Single');
    const cgroup = node.createContainer(node.createPod(pod.uid), containerId(), '1');
    api.setPod(pod);
    const port = await api.pause();
    start();
    await eventually('a complaint', () => agent.logged('no answer').length > 0, agent);
    await aWhile(3000);
    expect(agent.logged('no answer')).toHaveLength(1);
    expect([await agent.check('ready'), await agent.check('live')]).toEqual([1, 0]);
    expect(node.read(cgroup)).toBe('1');
    await api.resume(port);
    await heals('Single', 15, agent, () => node.read(cgroup) === '0');
    await heals('ready', 5, agent, () => existsSync(`${node.run}/ready`));
    expect(agent.logged('answers again')).toHaveLength(1);
  });

  test('a scope that is made again under its name, 20 times', async () => {
    start({ RESYNC_SECONDS: '2' });
    const { directory, cgroup } = await scene.protect();
    await agent.ready();
    const name = containerId();
    for (let n = 0; n < 20; n += 1) {
      const scope = node.createContainer(directory, name, '1');
      await aWhile(n * 5);
      node.vanish(scope);
    }
    const again = node.createContainer(directory, name, '1');
    await heals('the last one', 6, agent, () => node.read(again) === '0');
    for (const drifted of [cgroup, again]) {
      node.write(drifted, '1');
      await heals('drift', 6, agent, () => node.read(drifted) === '0');
    }
  });

  test('a scope that gets its memory.oom.group late', async () => {
    // dash cannot wait for a part of a second, so under it only a tick looks again.
    start({ RESYNC_SECONDS: name === 'dash' ? '2' : '600' });
    const { directory } = await scene.protect();
    await agent.ready();
    for (const delay of [5, 50, 500]) {
      const late = `${directory}/${SYSTEMD.container(containerId())}`;
      mkdirSync(`${node.cgroupRoot}/${late}`);
      await aWhile(delay);
      node.write(late, '1');
      await heals(`one that was late by ${delay} ms`, 5, agent, () => node.read(late) === '0');
    }
  });

  test('a scope without memory.oom.group, until it has one', async () => {
    start({ RESYNC_SECONDS: '2' });
    const { directory, cgroup } = await scene.protect();
    await agent.ready();
    const bare = `${directory}/${SYSTEMD.container(containerId())}`;
    mkdirSync(`${node.cgroupRoot}/${bare}`);
    const later = node.createContainer(directory, containerId(), '1');
    await heals('a container beside it', 5, agent, () => node.read(later) === '0');
    node.write(cgroup, '1');
    await heals('drift beside it', 5, agent, () => node.read(cgroup) === '0');
    expect(readdirSync(`${node.cgroupRoot}/${bare}`)).toEqual([]);
    node.write(bare, '1');
    await heals('itself', 5, agent, () => node.read(bare) === '0');
    rmSync(node.file(cgroup));
    node.write(later, '1');
    await heals('drift beside one that lost it', 5, agent, () => node.read(later) === '0');
    expect(agent.log.filter((line) => line.level === 'error' || line.level === 'warn')).toEqual([]);
  });

  describe('in an emptyDir of its own', () => {
    beforeEach(() => {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=128k,nr_inodes=80', 'tmpfs', node.run]);
    });

    afterEach(() => {
      execFileSync('umount', ['-l', node.run]);
    });

    test.each(['room', 'inodes'])('that has no %s left', async (what) => {
      noise = /^ln: .*No space left on device\n/gm;
      start({ RESYNC_SECONDS: '2' });
      const { pod, directory, cgroup } = await scene.protect();
      await agent.ready();
      await eventually('a watch', () => api.watching === 1, agent);
      await scene.watcher([cgroup]);
      const litter = `${node.run}/litter`;
      mkdirSync(litter);
      let files = 0;
      const fill = () => {
        for (;;) {
          files += 1;
          writeFileSync(
            `${litter}/${what === 'room' ? 0 : files}`,
            what === 'room' ? Buffer.alloc(4096) : '',
            { flag: 'a' },
          );
        }
      };
      expect(fill).toThrow('ENOSPC');
      // A new inotifyd and a new request, both without any room.
      process.kill(await scene.watcher([cgroup]), 'SIGKILL');
      api.breakConnections();
      node.write(cgroup, '1');
      await heals('drift', 6, agent, () => node.read(cgroup) === '0');
      api.setPod(withMode(pod, 'Group'));
      await heals('a new mode', 10, agent, () => {
        // Whatever is let go of does not come back.
        expect(fill).toThrow('ENOSPC');
        return node.read(cgroup) === '1';
      });
      const started = node.createContainer(directory, containerId(), '0');
      const late = newPod('Single');
      const other = node.createContainer(node.createPod(late.uid), containerId(), '1');
      api.setPod(late);
      // What a request came to is not lost.
      expect(agent.logged('no answer').filter((line) => line.status === '0')).toEqual([]);
      const told = () =>
        agent.logged('no link could be made').length + (agent.errors === '' ? 0 : 1) > 0;
      if (what === 'inodes') {
        await eventually('a word of it', told, agent);
      }
      expect(await agent.check('live')).toBe(0);
      rmSync(litter, { recursive: true });
      await heals('a new container and a new pod, once there is room', 6, agent, () => {
        return node.read(started) === '1' && node.read(other) === '0';
      });
    });
  });

  test('a clock that jumps: there is none that it reads', async () => {
    // A clock that never says the same twice, and that leaves a trace.
    const trap = `${node.directory}/trap`;
    start({ PATH: pathWith(node, 'date', `echo "$*" >>'${trap}'\necho $$`), RESYNC_SECONDS: '1' });
    const { cgroup } = await scene.protect();
    await agent.ready();
    await aWhile(1500);
    node.write(cgroup, '1');
    await eventually('repair', () => node.read(cgroup) === '0', agent);
    expect(await agent.check('live')).toBe(0);
    expect(existsSync(trap)).toBe(false);
    const scripts = `${__dirname}/../../lib/agent`;
    for (const name of readdirSync(scripts)) {
      // What others are told has a time in it, and nothing that is done depends on that.
      const code = readFileSync(`${scripts}/${name}`, 'utf8')
        .replaceAll(/^\s*#.*$/gm, '')
        .replaceAll(/\$\(date (-u \+%Y-%m-%dT%H:%M:%SZ|\+%s)\)/g, '');
      expect(code).not.toMatch(
        /\bdate\b|EPOCH|systime|strftime|%\(|-[no]t\b|-newer|-[amc]min|-[amc]time/,
      );
    }
  });

  test('another authority: new ca.crt, new certificate', async () => {
    start();
    const { pod, cgroup } = await scene.protect();
    await agent.ready();
    api.rotateCertificate();
    api.breakConnections();
    await eventually('a complaint', () => agent.logged('no answer').length > 0, agent, 20);
    expect(agent.logged('no answer').at(-1)?.curl).toBe('60');
    node.write(cgroup, '1');
    await heals('drift', 5, agent, () => node.read(cgroup) === '0');
    api.setPod(withMode(pod, 'Group'));
    // As the kubelet does it: all at once.
    writeFileSync(`${node.serviceAccount}/ca.new`, api.caPem);
    renameSync(`${node.serviceAccount}/ca.new`, `${node.serviceAccount}/ca.crt`);
    await heals('what was said meanwhile', 15, agent, () => node.read(cgroup) === '1');
    expect(agent.logged('answers again')).toHaveLength(1);
  });
});

// Where nearly all of the time is spent waiting, both shells wait at once.
describe('both shells', () => {
  async function both(
    environment: (node: FakeNode) => Record<string, string>,
    play: (scene: Scene) => Promise<void>,
  ): Promise<void> {
    const scenes = Object.values(SHELLS).map((shell) => Scene.with(shell, environment, play));
    const failed = (await Promise.allSettled(scenes)).find((one) => one.status === 'rejected');
    if (failed) {
      throw failed.reason;
    }
  }

  /** Why an agent that was stopped did not do what it should, if so; it does while others are tested. */
  let stoodStill: Promise<unknown>;

  beforeAll(() => {
    stoodStill = both(
      () => ({ RESYNC_SECONDS: '1' }),
      async ({ agent }) => {
        await agent.ready();
        process.kill(agent.pid, 'SIGSTOP');
        const began = Date.now();
        const took = () => (Date.now() - began) / 1000;
        while ((await agent.check('live')) === 0) {
          expect(took()).toBeLessThan(75);
          await aWhile(500);
        }
        // Its last sign of life was up to a tick older.
        expect(took()).toBeGreaterThan(60);
        process.kill(agent.pid, 'SIGCONT');
        const end = Date.now() + 10_000;
        while ((await agent.check('live')) !== 0) {
          expect(Date.now()).toBeLessThan(end);
          await aWhile(100);
        }
      },
    ).catch((reason: unknown) => reason);
  });

  afterAll(() => stoodStill);

  test.each(['are refused', 'hang'])(
    '20 s in which connections to the API server %s',
    async (how) => {
      await both(
        () => ({}),
        async (scene) => {
          const { api, node, agent } = scene;
          const [stays, changes, leaves] = [
            await scene.protect(),
            await scene.protect(),
            await scene.protect(),
          ];
          await agent.ready();
          const port = await api.pause();
          // Accepts connections, and never says a word.
          const sockets: Socket[] = [];
          const mute = createServer((socket) => sockets.push(socket.on('error', () => undefined)));
          if (how === 'hang') {
            await new Promise<void>((done) => mute.listen(port, '127.0.0.1', done));
          }
          const end = Date.now() + 20_000;
          const late = newPod('Single');
          const other = node.createContainer(node.createPod(late.uid), containerId(), '1');
          api.setPod(withMode(changes.pod, 'Group'));
          api.removeLabel(leaves.pod.uid);
          api.setPod(late);
          const running = [stays, changes, leaves].map(({ cgroup }) => cgroup);
          while (Date.now() < end) {
            const restarted = node.createContainer(stays.directory, containerId(), '0');
            node.write(restarted, '1');
            running.push(restarted);
            running.forEach((cgroup) => {
              node.write(cgroup, '1');
            });
            await heals('drift and a restart', 5, agent, () => scene.all(running, '0'));
            node.vanish(restarted);
            running.pop();
            await aWhile(4000);
          }
          expect(node.read(other)).toBe('1');
          expect(await agent.check('ready')).toBe(0);
          if (how === 'hang') {
            mute.close();
          }
          await api.resume(port);
          // Its pauses between two requests grow up to 30 s, and a connection may take 10 s.
          await heals('what changed meanwhile', 40, agent, () => {
            return (
              scene.all([changes.cgroup, leaves.cgroup], '1') &&
              scene.all([stays.cgroup, other], '0')
            );
          });
          sockets.forEach((socket) => socket.destroy());
          expect(agent.logged('answers again')).toHaveLength(1);
        },
      );
    },
  );

  test('a stream that falls silent without an end', async () => {
    // The agent's own patience is 150 s.
    const impatient = `for argument; do
  shift
  if [ "$previous" = --speed-time ]; then
    [ "$argument" = 150 ] || exit 99
    argument=3
  fi
  previous=$argument
  set -- "$@" "$argument"
done
PATH=\${PATH#*:} exec curl "$@"`;
    const path = (node: FakeNode) => ({ PATH: pathWith(node, 'curl', impatient) });
    await both(path, async (scene) => {
      const { api, node, agent } = scene;
      // The first list is never answered.
      api.faults.push(() => undefined);
      const ready = () => existsSync(`${node.run}/ready`);
      await heals('ready though the first list hung', 30, agent, ready);
      const { pod, cgroup } = await scene.protect();
      await eventually('a watch', () => api.watching === 1, agent);
      api.hangWatches();
      // Nor is the next watch.
      api.faults.push(() => undefined);
      const late = newPod('Single');
      const other = node.createContainer(node.createPod(late.uid), containerId(), '1');
      api.setPod(withMode(pod, 'Group'));
      api.setPod(late);
      await heals('what was said meanwhile', 30, agent, () => {
        return node.read(cgroup) === '1' && node.read(other) === '0';
      });
      expect(agent.logged('no answer')[0]?.curl).toBe('28');
    });
  });

  test('an API server in trouble is asked again after 1, 2, 4 and 8 s', async () => {
    await both(
      () => ({}),
      async ({ api, agent }) => {
        await agent.ready();
        await eventually('a watch', () => api.watching === 1, agent);
        const before = api.requests.length;
        api.outage = (response) => {
          fail(response, 503);
        };
        const began = Date.now();
        api.endWatches();
        const trouble = () => api.requests.slice(before);
        await eventually('four answers', () => trouble().length >= 4, agent, 60);
        const times = [began, ...trouble().map(({ at }) => at)];
        [0, 1, 2, 3].forEach((n) => {
          const seconds = ((times[n + 1] ?? NaN) - (times[n] ?? NaN)) / 1000;
          measured(`pause ${n + 1}`, seconds, `s, which is to be ${2 ** n} s`);
          expect(seconds).toBeGreaterThan(2 ** n * 0.95);
          expect(seconds).toBeLessThan(2 ** n + 5);
        });
      },
    );
  });

  test('a storm of events does not keep the loop from its heartbeat', async () => {
    await both(
      () => ({ RESYNC_SECONDS: '1' }),
      async (scene) => {
        const { node, agent } = scene;
        const { cgroups } = await scene.protect(20);
        await agent.ready();
        const end = Date.now() + 15_000;
        let oldest = 0;
        let events = 0;
        while (Date.now() < end) {
          for (const cgroup of cgroups) {
            node.write(cgroup, events % 3 === 0 ? '1' : '0');
            events += 1;
          }
          const uptime = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]);
          oldest = Math.max(oldest, uptime - Number(readFileSync(`${node.run}/alive`, 'utf8')));
          await aWhile(2);
        }
        // Liveness would give it 62 s.
        measured(`oldest heartbeat in a storm of events`, oldest, 's of 30 s');
        expect(events).toBeGreaterThan(5000);
        expect(oldest).toBeLessThan(30);
        expect(await agent.check('live')).toBe(0);
        // The queue may still be full of it: up to 16,384 events of each inotifyd.
        await heals('after the storm', 20, agent, () => scene.all(cgroups, '0'));
      },
    );
  });

  test('a loop that stands still is not live after two ticks and a minute, and not before', async () => {
    expect(await stoodStill).toBeUndefined();
  });
});
