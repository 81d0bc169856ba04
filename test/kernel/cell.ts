import { Cluster, HOG, SLEEP, testIn } from './cluster';
import { Container, Driver, Pod, Runtime, unit } from './node';

/**
 * The pods of Kubernetes' own node test "OOMKiller": one process, the same as an init container, two processes. Their
 * limit is 15 MiB there, which is too little where runc's copy of itself is charged to the container.
 */
const DD = 'sleep 5 && dd if=/dev/zero of=/dev/null bs=20M';
const OOM_KILLER = {
  single: ['sh', '-c', DD],
  init: ['sh', '-c', DD],
  multi: ['sh', '-c', `${DD} & sleep 86400`],
};
const LIMIT = 19;

const rows: string[][] = [
  ['systemd', 'runtime', 'driver', 'kernel', 'resets by an update', 'resets by a daemon-reload'],
  ['---', '---', '---', '---', '---', '---'],
];

/** Prints what was tested, when all tests of a file are over. */
function printCells(): void {
  process.stdout.write(`\n${rows.map((row) => `| ${row.join(' | ')} |\n`).join('')}\n`);
}

/**
 * A virtual machine with the runtimes of a release of Debian, with its systemd as process 1 for the systemd driver, and
 * one agent for the tests of each runtime.
 */
export function cells(driver: Driver, release: string, systemd?: number): () => Cluster {
  let cluster: Cluster;
  const name = systemd === undefined ? 'no systemd' : `systemd ${systemd}`;

  beforeAll(async () => {
    cluster = await Cluster.boot(driver, release);
    await cluster.watch();
    if (systemd !== undefined) {
      expect(await cluster.vm.sh('systemctl --version')).toMatch(`systemd ${systemd} `);
    }
  });

  afterAll(async () => {
    await cluster.stop();
    printCells();
  });

  describe.each(['runc', 'crun'] as const)(`${name}, %s, ${driver} driver:`, (runtime) => {
    cell(runtime, driver, () => cluster);
  });
  return () => cluster;
}

/** What holds with every runtime and every driver, whatever makes the cgroups. */
function cell(runtime: Runtime, driver: Driver, get: () => Cluster): void {
  const inGuest = testIn(get);
  let cluster: Cluster;
  let ordinary: Pod;
  let group: Pod;
  let single: Pod;
  let others: Container[] = [];
  const resets = { update: NaN, reload: 'none' };

  beforeAll(async () => {
    cluster = get();
    cluster.node.runtime = runtime;
    await cluster.startAgent();
    ordinary = await cluster.makePod('ordinary', { memory: 64 });
    group = await cluster.makePod('group', { mode: 'Group', memory: 64, qos: 'guaranteed' });
    single = await cluster.makePod('single', { mode: 'Single', memory: 64, qos: 'besteffort' });
  });

  afterAll(async () => {
    await cluster.removePods([ordinary, group, single]);
    const version = async (command: string) =>
      (await cluster.vm.sh(`${command} --version | head -n 1`)).replace(/^.*?(\d\S*).*$/, '$1');
    const systemd = driver === 'systemd' ? await version('systemctl') : 'none';
    const kernel = await cluster.vm.sh('uname -r');
    const names = [systemd, `${runtime} ${await version(runtime)}`, driver, kernel];
    rows.push([...names, String(resets.update), resets.reload]);
  });

  /** How often the runtime or systemd has opened a container's file to write it. */
  const writes = async ({ file }: Container) =>
    (await cluster.witnessed('node')).filter(
      ({ path, actions }) => path === file && actions.includes('write'),
    ).length;

  inGuest('ten containers at once, and one more, see Single from the start', async () => {
    expect(await cluster.firstModes(Array<Pod>(10).fill(single))).toEqual(Array(10).fill('0'));
    expect(await cluster.firstModes([single])).toEqual(['0']);
  });

  inGuest(
    "of Kubernetes' own OOMKiller pods, two processes survive with Single alone",
    async () => {
      const started: Container[][] = [];
      for (const [name, command] of Object.entries(OOM_KILLER)) {
        const options = { name, command, memory: LIMIT };
        started.push(await cluster.node.start([ordinary, group, single], options));
      }
      const logs = started.flat().map(({ log }) => log);
      await cluster.vm.until(`[ $(grep -lE '^(exited|killed)' ${logs.join(' ')} | wc -l) -ge 8 ]`);
      others = started.map(([container]) => container as Container);
      const survivor = started[2]?.[2] as Container;
      await cluster.vm.until(`grep 'oom_kill [1-9]' ${survivor.cgroup}/memory.events`);
      const ends = await cluster.vm.sh(logs.map((log) => `tail -n 1 ${log}`).join('\n'));
      const dead = expect.stringMatching(/^(killed 9|exited 137)$/) as string;
      const alive = expect.stringMatching(/^started/) as string;
      expect(ends.split('\n')).toEqual([...Array<string>(8).fill(dead), alive]);
    },
  );

  inGuest('a container with Single survives its kills, one with Group dies', async () => {
    const survivor = await cluster.start(single, HOG);
    await cluster.survives(survivor, 3);
    await cluster.vm.sh(`kill -KILL ${await cluster.processOne(survivor)}`);
    await cluster.isKilled(survivor);
    const victim = await cluster.start(group, HOG);
    await cluster.isKilled(victim);
    expect(await cluster.vm.sh(`cat ${victim.log}`)).not.toMatch(/child died/);
  });

  inGuest('what an update, a reload of systemd or others write is repaired', async () => {
    const inSingle = await cluster.start(single, { ...SLEEP, memory: 32 });
    const inGroup = await cluster.start(group, { ...SLEEP, memory: 32 });
    await cluster.become([inSingle], '0');
    await cluster.become([inGroup], '1');
    const before = await writes(inSingle);
    await cluster.node.resize(inSingle, 48);
    resets.update = (await writes(inSingle)) - before;
    expect(resets.update).toBeGreaterThan(0);
    await cluster.become([inSingle], '0');
    // systemd writes the scope's own file, which is not the one of the processes with crun.
    const scope = (one: Container) => ({ ...one, file: `${one.cgroup}/memory.oom.group` });
    const [singleScope, groupScope] = [scope(inSingle), scope(inGroup)];
    if (driver === 'systemd') {
      const reset = await writes(groupScope);
      await cluster.vm.sh(
        `systemctl set-property --runtime ${unit(inGroup.cgroup)} MemoryHigh=64M`,
      );
      await cluster.eventually('systemd writes', async () => (await writes(groupScope)) > reset);
      const reloaded = await writes(singleScope);
      await cluster.vm.sh('systemctl daemon-reload');
      resets.reload = String((await writes(singleScope)) - reloaded);
      await cluster.become([inSingle, singleScope], '0');
      await cluster.become([groupScope], '1');
    }
    await cluster.drift([inSingle, singleScope], '0');
    await cluster.drift([inGroup, groupScope], '1');
    cluster.api.removeLabel(single.uid);
    // The value of the node, which all had before they opted in.
    await cluster.become([inSingle], '1');
  });

  inGuest('the agent only opened files of opted-in pods, and only wrote their modes', async () => {
    for (const container of others) {
      expect(await writes(container)).toBeGreaterThan(0);
    }
    const seen = await cluster.witnessed('agent');
    const written = seen.filter(({ actions }) => actions.includes('write'));
    const isMode = ({ path }: { path: string }) =>
      path.endsWith('/memory.oom.group') &&
      cluster.optedIn.some(({ cgroup }) => path.startsWith(`${cgroup}/`));
    expect(written.length).toBeGreaterThanOrEqual(10);
    expect(written.filter((access) => !isMode(access))).toEqual([]);
    const theirs = ({ path }: { path: string }) => others.some(({ file }) => path === file);
    expect(seen.filter(theirs)).toEqual([]);
  });
}
