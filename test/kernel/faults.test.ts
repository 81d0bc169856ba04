import { setTimeout as sleep } from 'node:timers/promises';

import { Cluster, testIn } from './cluster';
import { Container, Pod } from './node';

// Faults that only a kernel shows, in one virtual machine: nobody restarts the agent, which has to
// outlive all of them, but for the last test. Most of them happen while the API server is away.

const RESYNC_SECONDS = 10;
// From the end of a fault to the tick that finds out, and what it then has to do, emulated.
const TICK = RESYNC_SECONDS + 20;
const OUTAGE_SECONDS = 300;
const RUN = '/agent-root/run/oom-kill-mode';
const SLEEP = { command: 'sleep 100000' };

// Time is told in hundredths of a second.
const LIBRARY = `
now() {
  read -r up _ </proc/uptime
  NOW=\${up%.*}\${up#*.}
}
say() { # value, files
  wanted=$1
  shift
  for file; do
    read -r found <"$file" && [ "$found" = "$wanted" ] || return 1
  done
}
heal() { # value, seconds, files: how many milliseconds until they say so
  value=$1 limit=$2
  shift 2
  now
  began=$NOW
  until say $value "$@"; do
    now
    if [ $((NOW - began)) -gt \${limit}00 ]; then
      echo never
      return 0
    fi
    sleep 0.02
  done
  now
  echo $(((NOW - began) * 10))
}
drift() { # value, seconds, files: the same after somebody wrote the other value
  for path; do
    case $path in /*) echo $((1 - $1)) >"$path" ;; esac
  done
  heal "$@"
}
inotifyds() { # agent's cgroup; not the one that watches for kills
  for pid in $(cat $1/cgroup.procs); do
    if { tr '\\0' ' ' </proc/$pid/cmdline; } 2>/dev/null | grep ^inotifyd | grep -qv memory.events; then echo $pid; fi
  done
}
`;

let cluster: Cluster;
const inGuest = testIn(() => cluster);
const measured: string[] = [];

beforeAll(async () => {
  cluster = await Cluster.boot();
  await cluster.vm.sh(`cat >/run/library <<'END'\n${LIBRARY}\nEND`);
  await cluster.prepare('systemd');
}, 120_000);

afterAll(async () => {
  console.info(measured.join('\n'));
  await cluster.stop();
});

const guest = (script: string, seconds = 60) =>
  cluster.vm.sh(`. /run/library\n${script}`, seconds * 1000);

function note(what: string, milliseconds: number | number[]): void {
  measured.push(`${what}: ${[milliseconds].flat().join(' ')} ms`);
}

const files = (containers: Container[]) => containers.map(({ file }) => file).join(' ');

/** Milliseconds until the containers have this value. */
async function heal(containers: Container[], value: string, seconds: number): Promise<number> {
  const time = await guest(`heal ${value} ${seconds} ${files(containers)}`, seconds + 60);
  expect(time).toMatch(/^\d+$/);
  return Number(time);
}

/** Milliseconds from drift of all of the containers, which are Single, to its repair. */
async function drift(containers: Container[], seconds: number): Promise<number> {
  const time = await guest(`drift 0 ${seconds} ${files(containers)}`, seconds + 60);
  expect(time).toMatch(/^\d+$/);
  return Number(time);
}

async function drifts(containers: Container[], seconds: number, times = 5): Promise<number[]> {
  const all = [];
  for (let n = 0; n < times; n++) {
    all.push(await drift(containers, seconds));
  }
  return all;
}

/** How often the agent logged this. */
const logged = async (text: string) =>
  Number(await guest(`grep -c '${text}' ${cluster.agent.log} || :`));

/** Milliseconds until the agent has logged this more often than it had. */
async function logs(text: string, before: number, seconds: number): Promise<number> {
  const began = Date.now();
  const more = `[ "$(grep -c '${text}' ${cluster.agent.log})" -gt ${before} ]`;
  expect([text, await cluster.vm.until(more, seconds * 1000)]).toEqual([text, true]);
  return Date.now() - began;
}

const inotifyds = async () =>
  (await guest(`inotifyds ${cluster.agent.cgroup}`)).split('\n').filter((pid) => pid !== '');

/** Runs a script in the mounts of the agent, without being it. */
const inMounts = async (script: string) =>
  guest(`nsenter -t ${await cluster.processOne(cluster.agent)} -m sh -eu <<'END'\n${script}\nEND`);

/** Makes the agent's cgroup mount read-only, which is refused while anybody has a file open for a write. */
const makeReadOnly = () =>
  inMounts(`
    n=0
    until mount -o remount,bind,ro /agent-root/host/cgroup 2>/dev/null; do
      n=$((n + 1))
      [ $n -lt 100 ]
      sleep 0.02
    done`);

const limit = (name: string) => `/proc/sys/fs/inotify/${name}`;

/** The limits of a kernel that was left alone. */
const NO_LIMIT = `
  echo 128 >${limit('max_user_instances')}
  echo 8192 >${limit('max_user_watches')}`;

/** Waits until the agent has nothing to do, and one inotifyd for everything; tells which. */
async function calm(): Promise<string> {
  const usage = `sed -n 's/^usage_usec //p' ${cluster.agent.cgroup}/cpu.stat`;
  let running: string[] = [];
  await eventually(120, async () => {
    const spent = await guest(`before=$(${usage}); sleep 1; echo $(($(${usage}) - before))`);
    running = await inotifyds();
    return Number(spent) < 60_000 && running.length === 1;
  });
  return running.join(' ');
}

/**
 * Waits for a moment that is far from a tick: there are six times as many as on a node, and emulated,
 * with the CPU limit of the agent, each takes seconds.
 */
async function betweenTicks(): Promise<void> {
  const alive = `/proc/${await cluster.processOne(cluster.agent)}/root/run/oom-kill-mode/alive`;
  await guest(`
    until read -r beat <${alive} && now && age=$((NOW / 100 - beat)) &&
      [ $age -ge 3 ] && [ $age -le ${RESYNC_SECONDS - 2} ]; do
      sleep 0.2
    done`);
}

async function eventually(seconds: number, condition: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!(await condition())) {
    if (Date.now() > end) {
      throw new Error(`not within ${seconds} s`);
    }
    await sleep(200);
  }
}

/** What a container's first instruction sees, this many times in a row. */
async function firstModes(pod: Pod, times: number): Promise<string[]> {
  const modes: string[] = [];
  await calm();
  for (let n = 0; n < times; n++) {
    await betweenTicks();
    modes.push(...(await cluster.firstModes([pod])).modes);
  }
  return modes;
}

/** Whatever a shell or a tool complained of: the agent's own lines are all JSON. */
const complaints = () => guest(`grep -v '^{' ${cluster.agent.log} | grep -v '^started' || :`);

describe('with every inotify instance of root taken by others when the agent starts', () => {
  let early: Container;

  beforeAll(async () => {
    early = await cluster.start(await cluster.makePod('early', { mode: 'Single' }), SLEEP);
    await guest(`
      echo 4 >${limit('max_user_instances')}
      : >/run/hogged
      for n in 1 2 3 4; do
        inotifyd - /run/hogged:c >/dev/null 2>&1 &
        echo $! >>/run/hogs
      done
      sleep 1`);
    await cluster.startAgent({ RESYNC_SECONDS: String(RESYNC_SECONDS) }, 60);
  }, 100_000);

  inGuest(
    'it says so, polls, and repairs drift and reaches new containers in seconds',
    async () => {
      expect(await logged('no inotify')).toBe(1);
      expect(await inotifyds()).toEqual([]);
      note('no instance at the start, found', await heal([early], '0', 20));
      note('no instance at the start, drift', await drifts([early], 10));
      const late = await cluster.start(early.pod, SLEEP);
      note('no instance at the start, new container', await heal([late], '0', 10));
      expect(await logged('inotify is back')).toBe(0);
    },
  );

  inGuest('it watches again once they let go, and is in time for first instructions', async () => {
    await guest('kill $(cat /run/hogs)');
    note('instances are back, inotify is back', await logs('inotify is back', 0, TICK));
    await guest(NO_LIMIT);
    expect(await firstModes(early.pod, 2)).toEqual(['0', '0']);
    note('inotify is back, drift', await drifts([early], 5));
  });
});

describe('with the API server away for five minutes', () => {
  let steady: Container;
  let restarted: Pod;
  let three: Container[];
  let burst: Pod[];
  let leaver: Container;
  let changer: Container;
  let late: Container;
  let port: number;
  let began: number;

  beforeAll(async () => {
    const [pods, old] = [
      ['steady', 'restarted'],
      ['three', 'leaver', 'changer'],
    ].map((names) => cluster.announce(names, { mode: 'Single' })) as [Pod[], Pod[]];
    burst = cluster.announce(
      Array.from({ length: 30 }, (_, i) => `burst-${i}`),
      { mode: 'Single' },
    );
    await cluster.node.create(pods);
    restarted = pods[1] as Pod;
    steady = await cluster.start(pods[0] as Pod, SLEEP);
    const containers = await cluster.node.createEmpty(old, 3);
    three = containers.slice(0, 3);
    [leaver, changer] = [containers[3] as Container, containers[6] as Container];
    await heal([steady, ...containers], '0', 30);
    await calm();

    port = await cluster.api.pause();
    began = Date.now();
    cluster.api.compact();
    cluster.api.removeLabel(leaver.pod.uid);
    cluster.opt(changer.pod, 'Group');
    [late] = (await cluster.node.createEmpty(
      cluster.announce(['late'], { mode: 'Single' }),
      1,
    )) as [Container];
    await guest(`
      cat >/run/steady.sh <<'END'
. /run/library
while ! [ -e /run/steady.stop ]; do
  sleep 3
  drift 0 200 ${steady.file} >>/run/steady
done
END
      sh -eu /run/steady.sh >/run/steady.errors 2>&1 &`);
  }, 90_000);

  beforeEach(async () => {
    await guest(
      `echo '${(expect.getState().currentTestName ?? '').replace(/^.*?five minutes /, '')}' >>/run/steady`,
    );
  });

  inGuest(
    'a container that is restarted three times sees Single from the first instruction on',
    async () => {
      // The first attempts to reach the API server follow each other closely, and each costs as much as
      // some starts: from the last of them to the next it is half a minute.
      await sleep(25_000);
      expect(await cluster.vm.until('pidof curl', 60_000)).toBe(true);
      expect(await cluster.vm.until('! pidof curl', 60_000)).toBe(true);
      expect(await firstModes(restarted, 3)).toEqual(Array(3).fill('0'));
    },
  );

  inGuest(
    'max_user_watches too low for one more: it polls, and the old inotifyd keeps its watches',
    async () => {
      const before = [await logged('no inotify'), await logged('inotify is back')] as const;
      const old = await calm();
      try {
        await guest(`echo 10 >${limit('max_user_watches')}`);
        const [empty] = await cluster.node.createEmpty([restarted], 1);
        note('no watch left, new container', await heal([empty as Container], '0', 10));
        await logs('no inotify', before[0], 10);
        await eventually(10, async () => (await inotifyds()).join(' ') === old);
        note('no watch left, drift, old inotifyd', await drifts(three, 10));
        await guest(`kill -KILL ${old}`);
        note('no watch left, drift, no inotifyd', await drifts(three, 10));
        expect(await logged('no inotify')).toBe(before[0] + 1);
        expect(await logged('inotify is back')).toBe(before[1]);
      } finally {
        await guest(NO_LIMIT);
      }
      note('watches are back, inotify is back', await logs('inotify is back', before[1], TICK));
      note('watches are back, drift', await drifts(three, 5));
    },
  );

  inGuest(
    'max_user_instances too low for one more: it polls, and the old inotifyd stays',
    async () => {
      const before = [await logged('no inotify'), await logged('inotify is back')] as const;
      const old = await calm();
      try {
        await guest(`echo 1 >${limit('max_user_instances')}`);
        const [empty] = await cluster.node.createEmpty([restarted], 1);
        note('no instance left, new container', await heal([empty as Container], '0', 10));
        await logs('no inotify', before[0], 10);
        await sleep((RESYNC_SECONDS * 2 + 5) * 1000);
        // The one that every tick tries to start is there for a moment.
        await eventually(10, async () => (await inotifyds()).join(' ') === old);
        expect(await logged('inotifyd hangs')).toBe(0);
        note('no instance left, drift', await drifts(three, 10));
        expect(await logged('inotify is back')).toBe(before[1]);
      } finally {
        await guest(NO_LIMIT);
      }
      note('instances are back, inotify is back', await logs('inotify is back', before[1], TICK));
    },
  );

  inGuest(
    'a read-only cgroup mount: said once for each container, no spinning, healed by a tick',
    async () => {
      const before = await logged('kill mode not written');
      const usage = `sed -n 's/^usage_usec //p' ${cluster.agent.cgroup}/cpu.stat`;
      await calm();
      try {
        await makeReadOnly();
        for (let n = 0; n < 5; n++) {
          await guest(`for file in ${files(three)}; do echo 0 >$file; echo 1 >$file; done`);
        }
        // These three, and the steady one.
        await logs('kill mode not written', before + 3, 20);
        const start = Number(await guest(usage));
        await sleep(RESYNC_SECONDS * 1000);
        const spent = (Number(await guest(usage)) - start) / 1000;
        note(`read-only, CPU in ${RESYNC_SECONDS} s`, spent);
        // A loop that spins uses all that its limit allows, 250 ms a second. A tick, and what curl takes for
        // an attempt, are 700 ms of CPU here.
        expect(spent).toBeLessThan(RESYNC_SECONDS * 170 * cluster.vm.slowness);
        expect(await logged('kill mode not written')).toBe(before + 4);
      } finally {
        await inMounts('mount -o remount,bind,rw /agent-root/host/cgroup');
      }
      note('writable again', await heal([...three, steady], '0', TICK));
      note('writable again, drift', await drifts(three, 5));
      await makeReadOnly();
      await guest(`echo 1 >${files(three.slice(0, 1))}`);
      await logs('kill mode not written', before + 4, 10);
      await inMounts('mount -o remount,bind,rw /agent-root/host/cgroup');
      note('writable once more', await heal([...three, steady], '0', TICK));
    },
  );

  inGuest('no byte left in RUN_DIR: known pods stay protected, new containers too', async () => {
    try {
      await inMounts(`
        mount -o remount,size=1m ${RUN}
        cat /dev/zero >${RUN}/fill 2>/dev/null || :
        if echo something 2>/dev/null >${RUN}/more; then exit 1; fi`);
      note('no byte left, drift', await drifts(three, 5));
      expect(await firstModes(restarted, 2)).toEqual(['0', '0']);
    } finally {
      await inMounts(`rm -f ${RUN}/fill ${RUN}/more`);
    }
    expect(await firstModes(restarted, 1)).toEqual(['0']);
  });

  inGuest(
    'no inode left in RUN_DIR: known containers stay protected, new ones are by a tick',
    async () => {
      let unlinked: Container | undefined;
      try {
        await inMounts(`
        mount -o remount,nr_inodes=1000 ${RUN}
        mkdir ${RUN}/fill
        n=0
        while true >${RUN}/fill/$n; do n=$((n + 1)); done 2>/dev/null`);
        note('no inode left, drift', await drifts(three, 5));
        [unlinked] = await cluster.node.createEmpty([restarted], 1);
        note('no inode left, new container', await heal([unlinked as Container], '0', TICK));
        note('no inode left, new container, drift', await drift([unlinked as Container], TICK));
        expect(await logged('no link could be made')).toBe(1);
      } finally {
        await inMounts(`rm -rf ${RUN}/fill`);
      }
      const back = Date.now();
      const link = `ls ${RUN}/farm.*/0 | grep ^.*-${unlinked?.id.slice(0, 8)}`;
      await eventually(TICK, async () => (await inMounts(`${link} || :`)) !== '');
      note('inodes are back, new container watched', Date.now() - back);
      note('inodes are back, new container, drift', await drifts([unlinked as Container], 5));
      expect(await firstModes(restarted, 1)).toEqual(['0']);
    },
  );

  inGuest('20,000 events while inotifyd is stopped: what the queue lost is found', async () => {
    const found = 'inotify lost events\\|inotifyd hangs';
    const before = await logged(found);
    const overflow = await guest(
      `
      old=${await calm()}
      now
      began=$NOW
      kill -STOP $old
      set -- ${files(three)}
      n=0
      while [ $n -lt 10000 ]; do
        echo 1 >$1
        echo 1 >$2
        n=$((n + 1))
      done
      echo 1 >$3
      kill -CONT $old
      now
      echo $(((NOW - began) * 10))`,
      120,
    );
    note('20,000 events were made in', Number(overflow));
    note('after 20,000 events, drift of three', await heal(three, '0', 120));
    note('after 20,000 events, found out', await logs(found, before, 120));
    note('after 20,000 events, drift', await drifts(three, 60));
  });

  inGuest('90 new containers, then all of them reset to Group at once, three times', async () => {
    const all = await cluster.node.createEmpty(burst, 3);
    note('90 new containers at once', await heal(all, '0', 120));
    for (let n = 0; n < 3; n++) {
      note('90 containers reset at once', await drift(all, 60));
      await sleep(2000);
    }
    await guest(`
      for pod in ${burst.map(({ cgroup }) => cgroup).join(' ')}; do
        rmdir $pod/*/ $pod
      done`);
    burst.forEach(({ uid }) => {
      cluster.api.deletePod(uid);
    });
  });

  inGuest(
    'scopes that vanish at once, 100 times: no complaint, and the next one is protected',
    async () => {
      const scopes = `${restarted.cgroup}/cri-containerd-`;
      await guest(
        `
      n=0
      while [ $n -lt 100 ]; do
        scope=${scopes}$(printf '%08x%056d' $n 7).scope
        mkdir $scope
        echo 1 >$scope/memory.oom.group
        case $n in *[05]) sleep 0.05 ;; *[27]) sleep 0.2 ;; esac
        rmdir $scope
        n=$((n + 1))
      done`,
        120,
      );
      expect(await firstModes(restarted, 1)).toEqual(['0']);
      expect(await complaints()).toBe('');
    },
  );

  inGuest(
    'the same container sees Single twice more, ten times in all, until the five minutes are over',
    async () => {
      expect(await firstModes(restarted, 2)).toEqual(['0', '0']);
      await sleep(Math.max(0, OUTAGE_SECONDS * 1000 - (Date.now() - began)));
    },
  );

  inGuest('what changed meanwhile is applied once the API server is back', async () => {
    const away = Date.now() - began;
    await cluster.api.resume(port);
    const back = Date.now();
    expect(await cluster.value(late)).toBe('1');
    await heal([leaver, changer], '1', 90);
    await heal([late], '0', 30);
    note(`the API server was away for ${away} ms, changes applied after`, Date.now() - back);
    await guest(': >/run/steady.stop; sleep 4');
    expect(await guest('cat /run/steady.errors')).toBe('');
    const report = await guest('cat /run/steady');
    expect(report).not.toContain('never');
    measured.push('drift every three seconds meanwhile, its repair in ms:');
    measured.push(report.replaceAll(/\n(?=\d+$)/gm, ' '));
  });
});

describe('with a clock that jumps', () => {
  // A year on, the API server's certificate has expired.
  inGuest('a year forwards and back: nothing is lost, in between and afterwards', async () => {
    const pod = await cluster.makePod('timeless', { mode: 'Single' });
    const container = await cluster.start(pod, SLEEP);
    await heal([container], '0', 10);
    const jump = (seconds: number) => guest(`date -s @$(($(date +%s) + ${seconds}))`);
    const year = 365 * 24 * 3600;
    for (const seconds of [year, -2 * year]) {
      const before = await logged('no answer');
      try {
        await jump(seconds);
        note('after a jump of the clock, drift', await drifts([container], 10));
        cluster.api.endWatches();
        await logs('no answer', before, 30);
        note('without an API server that can be trusted, drift', await drifts([container], 10));
        cluster.opt(pod, 'Group');
      } finally {
        await jump(-seconds);
      }
      note('clock is right again, a change of the API', await heal([container], '1', 60));
      cluster.opt(pod, 'Single');
      note('clock is right again, another', await heal([container], '0', 20));
    }
  });

  inGuest(
    'no process complained of anything all the time, and the agent is the one that was started',
    async () => {
      expect(await complaints()).toBe('');
      expect(await guest(`cat ${cluster.agent.cgroup}/cgroup.procs`)).toMatch(
        new RegExp(`^${await cluster.processOne(cluster.agent)}$`, 'm'),
      );
    },
  );
});

describe('with max_user_watches too low when the agent starts', () => {
  inGuest('it says so, polls, and watches once there are enough', async () => {
    await guest(`
      kill -KILL ${await cluster.processOne(cluster.agent)}
      echo 4 >${limit('max_user_watches')}`);
    const pod = await cluster.makePod('second', { mode: 'Single' });
    const container = await cluster.start(pod, SLEEP);
    try {
      await cluster.startAgent({ RESYNC_SECONDS: String(RESYNC_SECONDS) }, 60);
      expect(await logged('no inotify')).toBe(1);
      note('no watch at the start, found', await heal([container], '0', 20));
      note('no watch at the start, drift', await drifts([container], 10));
    } finally {
      await guest(NO_LIMIT);
    }
    note('watches are back, inotify is back', await logs('inotify is back', 0, TICK));
    expect(await firstModes(pod, 2)).toEqual(['0', '0']);
    expect(await complaints()).toBe('');
  });
});
