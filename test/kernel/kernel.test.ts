import { Cluster, testIn } from './cluster';
import { Container } from './node';

// One virtual machine and one node for all tests, which run in order: what the agent did to the
// pods of one test it may not undo in the next.

const CONTAINERS = 'cdk8s-oom-kill-mode/containers';
const HOG = { command: 'hog 2', memory: '32M' };

let cluster: Cluster;
const inGuest = testIn(() => cluster);
const ordinary: Container[] = [];
const printers: Container[] = [];

beforeAll(async () => {
  cluster = await Cluster.boot();
  const { vm } = cluster;
  await vm.sh('witness /sys/fs/cgroup >/run/witness 2>&1 &');
  expect(await vm.until('grep watching /run/witness', 5_000)).toBe(true);
  await cluster.prepare('systemd');
}, 120_000);

afterAll(async () => {
  await cluster.stop();
});

const oomKills = async ({ cgroup }: Container) =>
  Number(await cluster.vm.sh(`awk '$1 == "oom_kill" { print $2 }' ${cgroup}/memory.events`));

/** Whether the children of the container's hog died this many times, and nothing else did. */
async function survives(hog: Container, kills: number): Promise<boolean> {
  await cluster.vm.until(`grep -E 'child died ${kills}$|killed|exited' ${hog.log}`, 60_000);
  return !/killed|exited/.test(await cluster.vm.sh(`cat ${hog.log}`));
}

const isKilled = ({ cgroup, log }: Container, timeoutMs: number) =>
  cluster.vm.until(`grep '^killed 9$' ${log} && ! [ -e ${cgroup} ]`, timeoutMs);

/** The first instructions of this many containers, each in a pod of its own, started at once. */
async function firstModes(count: number): Promise<string[]> {
  const names = Array.from({ length: count }, (_, i) => `first-${i}`);
  const pods = await cluster.makePods(names, { mode: 'Single' });
  const { modes, containers } = await cluster.firstModes(pods);
  printers.push(...containers);
  await cluster.removePods(pods);
  return modes;
}

/**
 * The first instructions of this many times ten containers. A host that stalls takes the agent's CPU but
 * not the time that the runtime sleeps, and then they say nothing: up to two tens are started anew.
 */
async function firstModesOfTens(tens: number): Promise<string[]> {
  const modes: string[] = [];
  let again = 2;
  while (modes.length < tens * 10) {
    const ten = await firstModes(10);
    if (ten.includes('1') && again > 0) {
      again -= 1;
      console.warn(`Started anew: ${ten.join('')}.\n${await cluster.report()}`);
      await cluster.measure();
    } else {
      modes.push(...ten);
    }
  }
  return modes;
}

interface Access {
  readonly time: number;
  readonly pid: string;
  readonly actions: string[];
  readonly path: string;
}

/**
 * Who opened and closed which files in the cgroups whose path has this in it. The path that the
 * witness sees depends on the mounts of the process: only what follows the mount point counts.
 */
async function witnessed(part: string): Promise<Access[]> {
  const { output } = await cluster.vm.run(
    `grep -F '${part.replace('/sys/fs/cgroup', '')}' /run/witness`,
  );
  return output
    .split('\n')
    .filter((line) => line.includes('/kubepods'))
    .map((line) => {
      const [time, pid = '', ...rest] = line.split(' ');
      const path = (rest.at(-1) ?? '').replace(/^.*?(?=\/kubepods)/, '/sys/fs/cgroup');
      return { time: Number(time) * 1000, pid, actions: rest.slice(0, -1), path };
    });
}

/** Milliseconds from the runtime's last write of a container's mode to the agent's, sorted. */
async function reactions(containers: Container[]): Promise<number[]> {
  const writes = (await witnessed('/memory.oom.group')).filter(({ actions }) =>
    actions.includes('write'),
  );
  return containers
    .map(({ file }) => {
      const here = writes.filter(({ path }) => path === file);
      const last = here.filter(({ pid }) => cluster.node.ours.has(pid)).at(-1)?.time ?? NaN;
      const next =
        here.find(({ pid, time }) => !cluster.node.ours.has(pid) && time >= last)?.time ?? Infinity;
      return Math.round(next - last);
    })
    .sort((a, b) => a - b);
}

describe('without an agent', () => {
  inGuest('the first instruction of a container sees Group, whatever the label says', async () => {
    expect(await firstModes(5)).toEqual(Array(5).fill('1'));
  });

  inGuest('an OOM kill takes the whole container, whatever the label says', async () => {
    const container = await cluster.start(
      await cluster.makePod('unprotected', { mode: 'Single' }),
      HOG,
    );
    expect(await isKilled(container, 30_000)).toBe(true);
    await cluster.removePods([container.pod]);
  });
});

describe('with the agent', () => {
  let hog: Container;
  let single: Container;
  let group: Container;

  beforeAll(async () => {
    await cluster.startAgent();
  }, 60_000);

  inGuest('an opted-in container survives ten OOM kills with the same process 1', async () => {
    hog = await cluster.start(await cluster.makePod('hog', { mode: 'Single', memory: '32M' }), HOG);
    const pid = await cluster.processOne(hog);
    expect(await survives(hog, 10)).toBe(true);
    expect(await oomKills(hog)).toBeGreaterThanOrEqual(10);
    expect(await cluster.vm.sh(`cat ${hog.cgroup}/cgroup.procs`)).toMatch(
      new RegExp(`^${pid}$`, 'm'),
    );
  });

  inGuest('an ordinary container is killed as a group, process 1 and all', async () => {
    const container = await cluster.start(
      await cluster.makePod('ordinary-hog', { memory: '32M' }),
      HOG,
    );
    ordinary.push(container);
    expect(await isKilled(container, 30_000)).toBe(true);
    expect(await cluster.vm.sh(`cat ${container.log}`)).not.toMatch(/child died/);
  });

  inGuest('the first instruction of an opted-in container sees Single, 100 of 100', async () => {
    printers.length = 0;
    const modes = await firstModesOfTens(10);
    const times = await reactions(printers);
    console.info(`From the runtime's write to the agent's, ms: ${times.join(' ')}`);
    expect(modes).toEqual(Array(100).fill('0'));
  });

  inGuest('a value that systemd or someone else rewrites is repaired, both ways', async () => {
    single = await cluster.start(await cluster.makePod('single', { mode: 'Single' }), {
      command: 'sleep 1000',
    });
    group = await cluster.start(
      await cluster.makePod('group', { mode: 'Group', qos: 'guaranteed' }),
      {
        command: 'sleep 1000',
      },
    );
    for (const [container, wanted, other] of [
      [single, '0', '1'],
      [group, '1', '0'],
    ] as const) {
      expect(await cluster.becomes(container, wanted)).toBe(true);
      for (let reload = 0; reload < 5; reload++) {
        await cluster.node.write(`echo ${other} >${container.file}`);
        expect(await cluster.becomes(container, wanted)).toBe(true);
      }
    }
  });

  inGuest('the values of an in-place resize are repaired', async () => {
    await cluster.node.write(`echo 0 >${single.file}; sleep 0.01; echo 1 >${single.file}`);
    expect(await cluster.becomes(single, '0')).toBe(true);
    await cluster.node.write(`echo 0 >${group.file}; sleep 0.01; echo 1 >${group.file}`);
    expect(await cluster.becomes(group, '1')).toBe(true);
  });

  inGuest('a container that the annotation names gets its own mode', async () => {
    const annotations = { [CONTAINERS]: 'proxy=Group' };
    const pod = await cluster.makePod('web', { mode: 'Single', annotations });
    const worker = await cluster.start(pod, { name: 'worker', command: 'sleep 1000' });
    const proxy = await cluster.start(pod, { name: 'proxy', command: 'sleep 1000' });
    expect(await cluster.becomes(proxy, '1')).toBe(true);
    expect(await cluster.becomes(worker, '0')).toBe(true);
    await cluster.node.write(`echo 0 >${proxy.file}; echo 1 >${worker.file}`);
    expect(await cluster.becomes(proxy, '1')).toBe(true);
    expect(await cluster.becomes(worker, '0')).toBe(true);
  });

  inGuest('without its label a container goes back to the value of the node', async () => {
    const container = await cluster.start(await cluster.makePod('leaver', { mode: 'Single' }), {
      command: 'sleep 1000',
    });
    expect(await cluster.becomes(container, '0')).toBe(true);
    cluster.api.removeLabel(container.pod.uid);
    expect(await cluster.becomes(container, '1')).toBe(true);
    expect(await cluster.value(single)).toBe('0');
  });

  inGuest('nobody but the runtime ever opened the file of an ordinary container', async () => {
    ordinary.push(
      await cluster.start(await cluster.makePod('ordinary'), { command: 'sleep 1000' }),
    );
    // Enough for the agent to do it: it has new pods to attend to meanwhile.
    expect(await firstModes(5)).toEqual(Array(5).fill('0'));
    for (const { cgroup, file } of ordinary) {
      const accesses = await witnessed(cgroup);
      const opened = accesses.filter(({ path }) => path === file);
      expect(opened.some(({ actions }) => actions.includes('write'))).toBe(true);
      expect(opened.filter(({ pid }) => !cluster.node.ours.has(pid))).toEqual([]);
    }
  });

  inGuest(
    'of all files of all cgroups the agent only wrote the modes of opted-in pods',
    async () => {
      const written = (await witnessed('/kubepods'))
        .filter(({ actions, pid }) => actions.includes('write') && !cluster.node.ours.has(pid))
        // A container's process 1 enters its cgroup itself.
        .filter(({ path }) => !path.endsWith('/cgroup.procs'));
      const isMode = ({ path }: Access) =>
        path.endsWith('/memory.oom.group') &&
        cluster.optedIn.some(({ cgroup }) => path.startsWith(`${cgroup}/`));
      expect(written.filter(isMode).length).toBeGreaterThanOrEqual(100);
      expect(written.filter((access) => !isMode(access))).toEqual([]);
    },
  );

  inGuest('what the agent is at rest', async () => {
    await cluster.removePods([hog.pod]);
    await cluster.vm.sh('sleep 5');
    const { cgroup, log } = cluster.agent;
    const processes = `for pid in $(cat ${cgroup}/cgroup.procs); do
      echo "$(tr '\\0' ' ' </proc/$pid/cmdline | cut -c -100)" $(grep ctxt /proc/$pid/status | tr -s '\\t\\n' ' ')
    done`;
    const lines = Number(await cluster.vm.sh(`wc -l <${log}`));
    const before = await cluster.vm.sh(processes);
    await cluster.vm.sh('sleep 10');
    const after = await cluster.vm.sh(processes);
    const figures = await cluster.vm.sh(`cd ${cgroup}
      grep . memory.current memory.peak cpu.stat 2>/dev/null || :
      grep -E '^(anon|file|kernel|slab) ' memory.stat`);
    console.info(`The agent at rest, 10 s apart:\n${before}\n--\n${after}\n--\n${figures}`);
    expect(Number(await cluster.vm.sh(`wc -l <${log}`))).toBe(lines);
  });

  inGuest('SIGTERM ends the agent within a second and changes no container', async () => {
    await cluster.vm.sh(`kill -TERM ${await cluster.processOne(cluster.agent)}`);
    expect(await cluster.vm.until(`grep -E '^(exited|killed)' ${cluster.agent.log}`, 1_000)).toBe(
      true,
    );
    expect([await cluster.value(single), await cluster.value(group)]).toEqual(['0', '1']);
  });
});

describe('with the cgroupfs driver', () => {
  beforeAll(async () => {
    await cluster.prepare('cgroupfs');
    await cluster.startAgent();
  }, 60_000);

  inGuest('the first instruction of an opted-in container sees Single, 20 of 20', async () => {
    expect(await firstModesOfTens(2)).toEqual(Array(20).fill('0'));
  });

  inGuest('an opted-in container survives OOM kills, an ordinary one does not', async () => {
    const hog = await cluster.start(await cluster.makePod('hog', { mode: 'Single' }), HOG);
    const other = await cluster.start(await cluster.makePod('ordinary'), HOG);
    expect(await isKilled(other, 30_000)).toBe(true);
    expect(await survives(hog, 3)).toBe(true);
  });
});
