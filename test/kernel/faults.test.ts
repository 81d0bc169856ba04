import { join } from 'node:path';
import { Cluster, HOG, SLEEP, STARTUP_PROBE, testIn } from './cluster';
import { Container, Pod } from './node';

// Faults that only a kernel has, with runc and the cgroupfs driver.

const LIMITS = '/proc/sys/fs/inotify';

let cluster: Cluster;
const inGuest = testIn(() => cluster);

beforeAll(async () => {
  cluster = await Cluster.boot('cgroupfs', 'trixie', [join(__dirname, 'guest/flip.c')]);
});

afterAll(async () => {
  await cluster.stop();
});

/** The processes of the agent that watch. */
async function inotifyds(): Promise<string[]> {
  const found = await cluster.vm.sh(`
    for pid in $(cat ${cluster.agent.cgroup}/cgroup.procs); do
      if { tr '\\0' ' ' </proc/$pid/cmdline; } 2>/dev/null | grep -q ^inotifyd; then echo $pid; fi
    done`);
  return found.split('\n').filter((pid) => pid !== '');
}

/** Waits until there is one inotifyd, and not any of those; tells which. */
async function inotifyd(not: string[] = []): Promise<string> {
  let found: string[] = [];
  await cluster.eventually('one inotifyd', async () => {
    found = await inotifyds();
    return found.length === 1 && !not.includes(found[0] ?? '');
  });
  return found[0] ?? '';
}

const logged = async (condition: string) =>
  (await cluster.log()).filter((line) => line.condition === condition).length;

const ends = (condition: string, times: number) =>
  cluster.logs((line) => line.condition === condition && line.msg === 'works again', times);

/** Microseconds of CPU that the agent's container has had, and of the guest's clock. */
async function cpu(): Promise<{ used: number; clock: number }> {
  const { cgroup } = cluster.agent;
  const script = `sed -n 's/^usage_usec //p' ${cgroup}/cpu.stat; cut -d ' ' -f 1 /proc/uptime`;
  const [used, seconds] = (await cluster.vm.sh(script)).split('\n').map(Number);
  return { used: used ?? 0, clock: (seconds ?? 0) * 1e6 };
}

async function ready(): Promise<boolean> {
  return (
    (await cluster.vm.run(await cluster.probe('test -e /run/oom-kill-mode/ready'))).status === 0
  );
}

describe('with the agent', () => {
  let single: Container;
  let many: Pod[];

  beforeAll(async () => {
    await cluster.startAgent({ RESYNC_SECONDS: '10' });
  });

  inGuest('a write that is refused is said once, and done once it can be', async () => {
    single = await cluster.run('single', { mode: 'Single' });
    await cluster.become([single], '0');
    // Which the kernel refuses while anybody has a file open for a write.
    await cluster.eventually('a read-only mount', async () => {
      const mount = `nsenter -t ${await cluster.processOne(cluster.agent)} -m -p mount`;
      return (
        (await cluster.vm.run(`${mount} -o remount,bind,ro /agent-root/host/cgroup`)).status === 0
      );
    });
    for (let n = 0; n < 3; n++) {
      await cluster.vm.sh(`echo 0 >${single.file}; sleep 0.2; echo 1 >${single.file}`);
    }
    await cluster.logs(({ condition }) => condition === 'write_refused');
    await cluster.conditionEvent('single', 'write_refused');
    await cluster.inMounts('mount -o remount,bind,rw /agent-root/host/cgroup');
    await cluster.become([single], '0');
    await ends('write_refused', 1);
    expect(await logged('write_refused')).toBe(2);
  });

  inGuest('events that the kernel had no room for are made good', async () => {
    const old = await inotifyd();
    // Of the next one.
    await cluster.vm.sh(`
      echo 100 >${LIMITS}/max_queued_events
      kill ${old}`);
    const next = await inotifyd([old]);
    await cluster.drift([single], '0');
    const three = await cluster.node.createEmpty([single.pod], 3);
    await cluster.become(three, '0');
    const [first, second, third] = three.map(({ file }) => file);
    const present = await inotifyd();
    await cluster.vm.sh(`
      kill -STOP ${present}
      n=0
      while [ $n -lt 200 ]; do
        echo 1 >${first}
        echo 1 >${second}
        n=$((n + 1))
      done
      echo 1 >${third}
      kill -CONT ${present}
      echo 16384 >${LIMITS}/max_queued_events`);
    await cluster.become(three, '0');
    expect(next).not.toBe('');
  });

  inGuest('330 containers that are reset at once are all repaired', async () => {
    const names = Array.from({ length: 110 }, (_, i) => `many-${i}`);
    many = await cluster.announce(names, { mode: 'Single' });
    const all = await cluster.node.createEmpty(many, 3);
    await cluster.become(all, '0');
    // As the static CPU manager does.
    await cluster.drift(all, '0');
  });

  inGuest('with 330 containers it is at most six processes and 8 MiB at rest', async () => {
    await cluster.isAtRest();
    await cluster.node.removeEmpty(many);
    many.forEach(({ uid }) => {
      cluster.api.deletePod(uid);
    });
  });
});

describe('with few containers, which the agent looks at often', () => {
  beforeAll(async () => {
    await cluster.startAgent({ RESYNC_SECONDS: '5', TICK_SECONDS: '3' });
  });

  inGuest('where only the pod has a limit, a neighbour survives in both modes', async () => {
    for (const mode of ['Single', 'Group']) {
      const pod = await cluster.makePod(`limit-${mode.toLowerCase()}`, { mode, memory: 32 });
      const neighbour = await cluster.start(pod, { name: 'neighbour', ...SLEEP });
      const hog = await cluster.start(pod, { name: 'hog', command: HOG.command });
      if (mode === 'Single') {
        await cluster.survives(hog, 3);
        await cluster.freeze(pod);
        await cluster.logs(({ container, limit }) => container === 'hog' && limit === 'pod');
      } else {
        await cluster.isKilled(hog);
        expect(await cluster.vm.sh(`cat ${hog.log}`)).not.toMatch(/child died/);
      }
      expect(await cluster.vm.sh(`cat ${neighbour.log}`)).not.toMatch(/killed|exited/);
      await cluster.removePods([pod]);
    }
  });

  inGuest('a container that flips its own file 10,000 times a second harms no other', async () => {
    const command = ['sh', '-c', 'flip CGROUP/memory.oom.group 10000 & exec sleep 100000'];
    const flipper = await cluster.run('flipper', { mode: 'Single' }, { command });
    await cluster.conditionEvent('flipper', 'contested');
    const before = await cpu();
    const pods = await cluster.makePods(['beside-0', 'beside-1'], { mode: 'Single' });
    expect(await cluster.firstModes([...pods, ...pods])).toEqual(Array(4).fill('0'));
    const after = await cpu();
    // About a fifth, which is a fiftieth of a node's CPU. It would be nearly all if the agent answered each write.
    expect((after.used - before.used) / (after.clock - before.clock)).toBeLessThan(0.5);
    await cluster.removePods(pods);
    await cluster.vm.sh('kill $(pidof flip)');
    await cluster.become([flipper], '0');
    await ends('contested', 1);
  });

  // By the formula in docs/choosing.md. Process 1 holds 28 MiB of 48, so its child has at most 20. The child is always the
  // victim if the difference of their values, times 48 MiB / 1000, is more than 28 MiB, and never if it is less than 8.
  inGuest('a large process 1 survives if its children may raise oom_score_adj enough', async () => {
    for (const [main, child, survives] of [
      [-997, 0, true], // Guaranteed
      [400, 1000, true], // Burstable, requests 60% of the node's memory
      [900, 1000, false], // Burstable, requests 10%
      [993, 1000, false], // Burstable, requests less than 1%
    ] as const) {
      const command = ['hog', '1', '28', String(child)];
      const container = { command, memory: 48, oomScoreAdj: main };
      const hog = await cluster.run('adjusted', { mode: 'Single' }, container);
      await (survives ? cluster.survives(hog, 2) : cluster.isKilled(hog));
      await cluster.removePods([hog.pod]);
    }
  });
});

describe('with every inotify instance of root taken by others when the agent starts', () => {
  let early: Container;

  beforeAll(async () => {
    early = await cluster.run('early', { mode: 'Single' });
    await cluster.stopAgent();
    await cluster.vm.sh(`
      echo 2 >${LIMITS}/max_user_instances
      : >/run/hogged
      inotifyd - /run/hogged:c >/dev/null 2>&1 &
      echo $! >/run/hogs
      inotifyd - /run/hogged:c >/dev/null 2>&1 &
      echo $! >>/run/hogs`);
    await cluster.vm.until('[ $(ls -l /proc/[0-9]*/fd | grep -c anon_inode:inotify) = 2 ]');
    await cluster.startAgent();
  });

  inGuest('it says so, polls, repairs drift and reaches new containers', async () => {
    await cluster.conditionEvent('node-1', 'no_inotify');
    expect(await logged('no_inotify')).toBe(1);
    await cluster.become([early], '0');
    await cluster.drift([early], '0');
    const [late] = await cluster.node.createEmpty([early.pod], 1);
    await cluster.become([late as Container], '0');
    expect(await inotifyds()).toEqual([]);
  });

  inGuest('it watches again once they let go', async () => {
    await cluster.vm.sh(`
      kill $(cat /run/hogs)
      echo 128 >${LIMITS}/max_user_instances`);
    await ends('no_inotify', 1);
    await cluster.drift([early], '0');
  });

  inGuest('too few watches for one more: it polls, until there are enough', async () => {
    const old = await inotifyd();
    await cluster.vm.sh(`echo 4 >${LIMITS}/max_user_watches`);
    const [late] = await cluster.node.createEmpty([early.pod], 1);
    await cluster.become([late as Container], '0');
    await cluster.logs(({ condition }) => condition === 'no_inotify', 3);
    await cluster.drift([early, late as Container], '0');
    await cluster.vm.run(`kill -KILL ${old}`);
    await cluster.drift([early, late as Container], '0');
    expect(await logged('no_inotify')).toBe(3);
    await cluster.vm.sh(`echo 8192 >${LIMITS}/max_user_watches`);
    await ends('no_inotify', 2);
    await cluster.drift([early, late as Container], '0');
  });
});

inGuest('on cgroup v1 the agent says so, is ready, and leaves everything alone', async () => {
  await cluster.vm.sh(`
    mkdir -p /image/tmp/v1/systemd
    mount -t cgroup -o none,name=systemd cgroup /image/tmp/v1/systemd`);
  await cluster.startAgent({ TREE: '/tmp/v1' });
  await cluster.conditionEvent('node-1', 'cgroup_v1');
  const alone = await cluster.run('alone', {});
  cluster.opt(alone.pod, 'Single');
  expect(await cluster.value(alone)).toBe('1');
});

inGuest('an agent whose container is elsewhere says so, and is not ready', async () => {
  const elsewhere = await cluster.run('elsewhere', {}, SLEEP);
  await cluster.launchAgent({ POD_UID: elsewhere.pod.uid });
  await cluster.logs(({ condition }) => condition === 'cgroup_not_found');
  await cluster.conditionEvent('node-1', 'cgroup_not_found');
  expect(await ready()).toBe(false);
});

inGuest('the startup probe waits until the API server answers', async () => {
  const port = await cluster.api.pause();
  await cluster.launchAgent();
  await cluster.logs(({ msg }) => msg?.includes('does not answer') === true);
  await cluster.vm.sh(
    `(${await cluster.probe(STARTUP_PROBE)}; echo $? >/run/started) >/dev/null 2>&1 &`,
  );
  expect(await ready()).toBe(false);
  await cluster.api.resume(port);
  await cluster.vm.until('[ "$(cat /run/started)" = 0 ]');
});
