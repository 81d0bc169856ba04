import { execFileSync } from 'node:child_process';
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

import {
  aWhile,
  commandLine,
  containerId,
  LABEL,
  newPod,
  pathWith,
  signal,
} from '../support/agent';
import { Container, Pod, Scene } from './scene';

// Whatever happens to the node or to the agent itself, known pods stay protected and the agent heals
// without a restart. Faults of the API server are in api.test.ts, what cannot heal in conditions.test.ts.

const SCRIPTS = join(__dirname, '../../lib/agent');
const scene = Scene.use();

const short = (pid: number) => commandLine(pid).split(' ').slice(0, 2).join(' ') || 'ended';

/** Everything works: drift is repaired, a container and a pod are new, and a mode changes. */
async function works(pod: Pod, container: Container): Promise<void> {
  await scene.drift('0', container);
  const started = pod.run('started');
  await scene.become('0', started);
  pod.opt('Group');
  await scene.become('11', container, started);
  pod.opt('Single');
  await scene.become('00', container, started);
  started.end();
}

/** Waits until an inotifyd watches these containers, and is the only one. */
async function watcher(...containers: Container[]): Promise<number> {
  let pid = 0;
  await scene.eventually('one inotifyd for all', () => {
    const [one = 0, ...others] = scene.agent.running('inotifyd');
    pid = one;
    const watched = commandLine(one);
    return others.length === 0 && containers.every(({ id }) => watched.includes(id));
  });
  return pid;
}

async function start(environment: Record<string, string> = {}): Promise<[Pod, Container]> {
  await scene.ready(environment);
  const pod = scene.optIn('Single');
  const container = pod.run('worker');
  await scene.become('0', container);
  return [pod, container];
}

describe('the agent works on', () => {
  test.each(['curl', 'awk', 'inotifyd'])('after %s is killed, several times', async (name) => {
    const [pod, container] = await start();
    for (let n = 0; n < 3; n += 1) {
      await scene.eventually(name, () => scene.agent.running(name).length > 0);
      scene.agent.running(name).forEach((pid) => signal(pid, 'SIGKILL'));
      await works(pod, container);
    }
  });

  test('after each process that sends an Event is killed', async () => {
    // A shell says so of its own child.
    scene.noise = /^Killed\n/gm;
    const [pod, container] = await start({ EVENTS: 'yes' });
    await scene.settle();
    const rest = scene.agent.processes;
    const tried = new Set<string>();
    scene.api.eventDelay = 4000;
    for (let n = 0; n < 4; n += 1) {
      const one = pod.run(`c-${n}`);
      await scene.become('0', one);
      await scene.agent.ticks();
      one.kill();
      let others: number[] = [];
      await scene.eventually('a request', () => {
        others = scene.agent.processes.filter((pid) => !rest.includes(pid));
        return others.some((pid) => commandLine(pid).includes('/events/'));
      });
      const victim = others[n % others.length] ?? 0;
      tried.add(short(victim));
      signal(victim, 'SIGKILL');
      await scene.eventually(`an Event after ${short(victim)}`, () =>
        pod.events.some(({ involvedObject }) => involvedObject.fieldPath?.includes(`{c-${n}}`)),
      );
      one.end();
    }
    expect(tried.size).toBeGreaterThan(1);
    await works(pod, container);
  });

  test('after all processes but the first are killed at once', async () => {
    const [pod, container] = await start();
    const children = scene.agent.processes.filter((pid) => pid !== scene.agent.pid);
    for (const name of ['SIGSTOP', 'SIGKILL'] as const) {
      children.forEach((pid) => signal(pid, name));
    }
    await works(pod, container);
  });

  test.each(['curl', 'awk', 'inotifyd'])('after %s hangs for a while', async (name) => {
    const [pod, container] = await start({ RESYNC_SECONDS: '1' });
    const [victim = 0] = scene.agent.running(name);
    signal(victim, 'SIGSTOP');
    await scene.drift('0', container);
    await scene.become('0', pod.run('started'));
    pod.opt('Group');
    signal(victim, 'SIGCONT');
    await scene.become('1', container);
    pod.opt('Single');
    await scene.become('0', container);
    await works(pod, container);
  });

  test('after its loop was stuck, while liveness fails', async () => {
    const [pod, container] = await start();
    await scene.eventually('a sign of life', () => scene.agent.probe());
    signal(scene.agent.pid, 'SIGSTOP');
    scene.agent.probe();
    expect([scene.agent.probe(), scene.agent.probe()]).toEqual([false, false]);
    signal(scene.agent.pid, 'SIGCONT');
    await scene.eventually('a sign of life', () => scene.agent.probe());
    await works(pod, container);
  });

  test('while inotifyd misses a file 15 times, with much to do, and the next one takes its time', async () => {
    const left = join(scene.node.directory, 'left');
    writeFileSync(left, '-1\n');
    const late = `read -r left <'${left}'
echo $((left - 1)) >'${left}'
case $left in
  -*) ;;
  0) sleep 1 ;;
  *)
    echo 'inotifyd: x: No such file or directory' >&2
    exit 1
    ;;
esac
PATH=\${PATH#*:} exec inotifyd "$@"`;
    const [pod, container] = await start({ PATH: pathWith(scene.node, 'inotifyd', late) });
    await watcher(container);
    writeFileSync(left, '15\n');
    const started = pod.run('started');
    // All of this is in the queue before what inotifyd says.
    const other = scene.optIn('Single');
    for (let n = 0; n < 4000; n += 1) other.opt('Single', n % 2 === 0 ? 'x=Group' : '');
    await scene.eventually('the failures', () => Number(readFileSync(left, 'utf8')) < 1);
    await scene.drift('0', container);
    await watcher(container, started);
    await scene.drift('00', container, started);
    expect(scene.warnings).toEqual([]);
  });

  test('until SIGTERM ends it, and leaves containers as they are', async () => {
    // Nothing else would wake it for ten minutes. In a container everything ends with it.
    const [, container] = await start({ TICK_SECONDS: '600' });
    await watcher(container);
    expect(await scene.agent.stop('SIGTERM')).toBe(0);
    expect(container.value).toBe('0');
  });
});

describe('the agent works on when the node', () => {
  test('loses inotify events: the queue overflows', async () => {
    const [pod, container] = await start();
    const other = pod.run('other');
    await scene.become('0', other);
    const pid = await watcher(container, other);
    signal(pid, 'SIGSTOP');
    // The kernel merges an event with the one before it if they are alike: two files, in turns.
    const files = [container, other].map(({ cgroup }) => openSync(scene.node.file(cgroup), 'r+'));
    const size = Number(readFileSync('/proc/sys/fs/inotify/max_queued_events', 'utf8'));
    for (let n = 0; n < size + 1000; n += 1) {
      writeSync(files[n % 2] as number, '0\n', 0);
    }
    files.forEach(closeSync);
    // From here on events are lost.
    [container, other].forEach(({ cgroup }) => {
      scene.node.write(cgroup, '1');
    });
    const late = pod.run('late');
    signal(pid, 'SIGCONT');
    await scene.become('000', container, other, late);
    await works(pod, container);
  });

  test('never pauses, and its loop gives signs of life all the while', async () => {
    const [pod, container] = await start();
    const storm = setInterval(() => {
      for (let n = 0; n < 10; n += 1) {
        scene.node.write(container.cgroup, n % 3 === 0 ? '1' : '0');
      }
    }, 5);
    await scene.agent.ticks(5);
    clearInterval(storm);
    await scene.become('0', container);
    await works(pod, container);
  });

  test('resets 330 containers within two seconds, as the static CPU manager does', async () => {
    const pods = Array.from({ length: 110 }, () => scene.optIn('Single'));
    const containers = pods.flatMap((pod) => ['a', 'b', 'c'].map((name) => pod.run(name)));
    await scene.ready();
    await scene.become('0'.repeat(330), ...containers);
    await watcher(...containers);
    for (let round = 0; round < 2; round += 1) {
      for (const [n, { cgroup }] of containers.entries()) {
        scene.node.write(cgroup, '1');
        if (n % 10 === 9) await aWhile(60);
      }
      await scene.become('0'.repeat(330), ...containers);
    }
  });

  test('gets 500 pods within 10 s, and all of them are deleted', async () => {
    const [pod, container] = await start({ METRICS: 'yes', RESYNC_SECONDS: '2' });
    const began = Date.now();
    const pods: Pod[] = [];
    const containers: Container[] = [];
    for (let n = 0; n < 500; n += 1) {
      const one = scene.optIn('Single');
      pods.push(one);
      const started = one.run('job', '0');
      containers.push(started);
      // As runc does, a little later than the cgroup is made.
      await aWhile(Math.max(1, began + n * 20 - Date.now()));
      scene.node.write(started.cgroup, '1');
    }
    await scene.become('0'.repeat(500), ...containers);
    for (const { cgroup, metadata } of pods) {
      scene.node.vanish(cgroup);
      scene.api.deletePod(metadata.uid);
    }
    await scene.eventually('all forgotten', () =>
      scene.metrics.includes('oom_kill_mode_containers{mode="Single"} 1\n'),
    );
    await works(pod, container);
    expect(scene.warnings).toEqual([]);
  });

  test('has 3,000 pods without a cgroup: they do not cost a hundred times as much as 300', async () => {
    let told = 0;
    const cost = async (count: number): Promise<number> => {
      for (; told < count; told += 1) {
        scene.api.setPod(newPod('Single'));
      }
      // The last one that there is runs: first when it is told of, then when all are told of again.
      await scene.ready();
      await scene.protect();
      scene.api.endWatches();
      const [last] = (await scene.protect()) as [Container];
      // Then all are looked at, this one at last.
      scene.node.write(dirname(last.cgroup), '1');
      signal(await watcher(last), 'SIGKILL');
      await scene.eventually('the last one', () =>
        scene.agent.log.some(({ condition }) => condition === 'ancestor_group'),
      );
      const { cpu } = scene.agent;
      await scene.agent.stop();
      scene.node.write(dirname(last.cgroup), '0');
      return cpu;
    };
    const some = await cost(300);
    const many = await cost(3000);
    // Ten times as many pods, each of which is looked for among all of them.
    expect(many / some).toBeLessThan(50);
  });

  test.each([
    ['Single', '0'],
    ['Group', '1'],
    ['absent', '1'],
  ])('has a pod whose label flips 100 times at once, ending as %s', async (last, value) => {
    const [pod, container] = await start();
    const modes = ['Single', 'absent', 'Group', 'absent', 'Group', 'Single', 'neither'];
    for (const mode of [...Array.from({ length: 99 }, (_, n) => modes[n % modes.length]), last]) {
      if (mode === 'absent') {
        pod.optOut();
      } else {
        scene.api.setPod({ ...pod.metadata, labels: { [LABEL]: mode ?? '' } });
      }
    }
    await scene.settle();
    await scene.become(value, container);
    for (const drift of ['0', '1']) {
      scene.node.write(container.cgroup, drift);
      await scene.settle();
      await scene.become(last === 'absent' ? drift : value, container);
    }
  });

  test.each(['before', 'after'])(
    'makes a pod again under its name, five times; its cgroup goes %s the API server says so',
    async (when) => {
      const [steady, container] = await start();
      let pod = scene.optIn('Single');
      for (let n = 0; n < 5; n += 1) {
        if (when === 'before') scene.node.vanish(pod.cgroup);
        scene.api.deletePod(pod.metadata.uid);
        const again = scene.optIn('Single', '', { name: pod.metadata.name });
        const made = again.run('app');
        await scene.become('0', made);
        if (when === 'after') scene.node.vanish(pod.cgroup);
        await scene.drift('00', made, container);
        pod = again;
      }
      await works(steady, container);
      expect(scene.warnings).toEqual([]);
    },
  );

  test('has 300 containers that are gone before they can be written', async () => {
    const [pod, container] = await start({ RESYNC_SECONDS: '2' });
    for (let n = 0; n < 300; n += 1) {
      const gone = pod.create('0');
      scene.node.write(gone.cgroup, '1');
      // At once, or when it is known, or when it is watched.
      if (n % 10 > 4) await aWhile((n % 10) * 2);
      gone.end();
    }
    await works(pod, container);
    expect(scene.warnings).toEqual([]);
  });

  test('makes a container again under its name, 20 times', async () => {
    const [pod, container] = await start({ RESYNC_SECONDS: '2' });
    const id = containerId();
    for (let n = 0; n < 20; n += 1) {
      const scope = pod.create('1', id);
      await aWhile(n * 5);
      scope.end();
    }
    const last = pod.create('1', id);
    await scene.become('0', last);
    await scene.drift('00', last, container);
  });

  test('has a cgroup without memory.oom.group, until it has one, and one that loses it', async () => {
    const [pod, container] = await start({ RESYNC_SECONDS: '1' });
    const bare = `${pod.cgroup}/${scene.node.layout.container(containerId())}`;
    mkdirSync(join(scene.node.cgroupRoot, bare));
    await works(pod, container);
    expect(readdirSync(join(scene.node.cgroupRoot, bare))).toEqual([]);
    scene.node.write(bare, '1');
    await scene.eventually('itself', () => scene.node.read(bare) === '0');
    rmSync(scene.node.file(bare));
    await works(pod, container);
    expect(scene.warnings).toEqual([]);
  });

  test('has a clock that jumps: what time it is decides nothing', async () => {
    // A clock that never says the same twice.
    const path = pathWith(scene.node, 'date', 'echo "20$$-13-99T25:61:61Z"');
    const [pod, container] = await start({ PATH: path, EVENTS: 'yes', METRICS: 'yes' });
    container.kill();
    await scene.eventually('an Event', () => pod.events.length === 1);
    await works(pod, container);
    const code = readdirSync(SCRIPTS)
      .map((name) => readFileSync(join(SCRIPTS, name), 'utf8').replaceAll(/^\s*#.*$/gm, ''))
      .join('')
      // What others are told has a time in it.
      .replace('now=$(date -u +%Y-%m-%dT%H:%M:%SZ)', '')
      .replaceAll('SYNCED=${EPOCHSECONDS-}', '')
      .replace('\\"ts\\":${EPOCHSECONDS:-0},', '');
    expect(code).not.toMatch(
      /\bdate\b|EPOCH|systime|strftime|%\(|-[no]t\b|-newer|-[amc]min|-[amc]time/,
    );
  });

  describe('has an emptyDir', () => {
    beforeEach(() => {
      const options = 'size=128k,nr_inodes=40';
      execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', scene.node.run]);
    });

    afterEach(() => {
      execFileSync('umount', ['-l', scene.node.run]);
    });

    test.each(['room', 'inodes'])('without any %s left', async (what) => {
      const [pod, container] = await start({ METRICS: 'yes', EVENTS: 'yes' });
      await watcher(container);
      const litter = join(scene.node.run, 'litter');
      mkdirSync(litter);
      let files = 0;
      const fill = () => {
        for (;;) {
          files += 1;
          const [name, text] = what === 'room' ? ['0', Buffer.alloc(4096)] : [String(files), ''];
          writeFileSync(join(litter, name), text, { flag: 'a' });
        }
      };
      expect(fill).toThrow('ENOSPC');
      // A new inotifyd and a new request, both without any room.
      signal(await watcher(container), 'SIGKILL');
      scene.api.breakConnections();
      await works(pod, container);
      expect(fill).toThrow('ENOSPC');
      container.kill();
      await scene.eventually('an Event', () => pod.events.length === 1);
      rmSync(litter, { recursive: true });
      await scene.agent.ticks();
      await works(pod, container);
    });
  });
});

test('a script that is replaced under the agent changes nothing until it is started again', async () => {
  const copy = join(scene.node.directory, 'script');
  cpSync(SCRIPTS, copy, { recursive: true });
  scene.start({ EVENTS: 'yes' }, scene.node, join(copy, 'agent.sh'));
  await scene.agent.ready();
  const pod = scene.optIn('Single');
  const container = pod.run('worker');
  await scene.become('0', container);
  // In place, all of it, by something else: what happens to pods that mount it is the same.
  for (const name of readdirSync(copy)) {
    writeFileSync(join(copy, name), name.endsWith('.awk') ? 'BEGIN { exit 1 }\n' : 'exit 1\n');
  }
  await works(pod, container);
  // Only the next request reads another file. It makes no sense, and opts nobody out.
  scene.api.endWatches();
  await scene.agent.ticks(3);
  await scene.drift('0', container);
  await scene.become('0', pod.run('started'));
  cpSync(SCRIPTS, copy, { recursive: true });
  await works(pod, container);
  expect(existsSync(join(scene.node.run, 'ready'))).toBe(true);
});
