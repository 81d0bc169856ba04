import { Cluster, HOG, LIVENESS_PROBE, testIn } from './cluster';
import { Container } from './node';

// One virtual machine, whose kubelet has the systemd driver, and one agent for all tests, which run in
// order: what the agent did to the pods of one test it may not undo in the next.

const CONTAINERS = 'cdk8s-oom-kill-mode/containers';

let cluster: Cluster;
const inGuest = testIn(() => cluster);
const ordinary: Container[] = [];

beforeAll(async () => {
  cluster = await Cluster.boot('systemd');
  const { vm } = cluster;
  await vm.sh('witness /sys/fs/cgroup >/run/witness 2>&1 &');
  await vm.until('grep watching /run/witness');
  await cluster.node.prepare();
});

afterAll(async () => {
  await cluster.stop();
});

const counter = async ({ cgroup }: Container, name: string) =>
  Number(await cluster.vm.sh(`awk '$1 == "${name}" { print $2 }' ${cgroup}/memory.events`));

/** What the first instructions of ten containers see, each in a pod of its own. */
async function ten(): Promise<string[]> {
  const pods = await cluster.makePods(
    Array.from({ length: 10 }, (_, i) => `first-${i}`),
    { mode: 'Single' },
  );
  const modes = await cluster.firstModes(pods);
  await cluster.removePods(pods);
  return modes;
}

interface Access {
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
      const [, pid = '', ...rest] = line.split(' ');
      const path = (rest.at(-1) ?? '').replace(/^.*?(?=\/kubepods)/, '/sys/fs/cgroup');
      return { pid, actions: rest.slice(0, -1), path };
    });
}

describe('without an agent', () => {
  inGuest('the first instruction of a container sees Group, whatever the label says', async () => {
    expect(await ten()).toEqual(Array(10).fill('1'));
  });

  inGuest('an OOM kill takes the whole container, whatever the label says', async () => {
    const container = await cluster.run('unprotected', { mode: 'Single' }, HOG);
    await cluster.isKilled(container);
    await cluster.removePods([container.pod]);
  });
});

describe('with the agent', () => {
  let single: Container;
  let group: Container;

  beforeAll(async () => {
    await cluster.startAgent();
  });

  inGuest('the first instruction of an opted-in container sees Single, 100 of 100', async () => {
    for (let n = 0; n < 10; n++) {
      expect([n, ...(await ten())]).toEqual([n, ...Array<string>(10).fill('0')]);
    }
  });

  inGuest('an opted-in container survives kills, which are counted exactly', async () => {
    // The pod's limit is the one that is hit.
    const pod = { mode: 'Single', memory: '32M' };
    const hog = await cluster.run('hog', pod, { name: 'worker', ...HOG });
    await cluster.survives(hog, 10);
    const main = await cluster.processOne(hog);
    expect(await cluster.vm.sh(`cat ${hog.cgroup}/cgroup.procs`)).toMatch(
      new RegExp(`^${main}$`, 'm'),
    );
    await cluster.freeze(hog.pod);
    const kills = await counter(hog, 'oom_kill');
    expect(kills).toBeGreaterThanOrEqual(10);
    await cluster.eventually('the Event', () => cluster.events('hog')[0]?.count === kills);
    expect(cluster.events('hog')).toEqual([
      expect.objectContaining({
        reason: 'OomKilledProcess',
        involvedObject: expect.objectContaining({
          fieldPath: 'spec.containers{worker}',
          uid: hog.pod.uid,
        }) as unknown,
      }),
    ]);
    const logged = (await cluster.log()).filter(({ msg }) => msg?.includes('kept running'));
    expect(logged.reduce((sum, line) => sum + Number(line.kills), 0)).toBe(kills);
    expect(logged.map(({ container }) => container)).toEqual(logged.map(() => 'worker'));
    const metric = 'survived_process_kills_total{namespace="default",pod="hog",container="worker"}';
    await cluster.eventually('the metric', async () =>
      (await cluster.metrics()).includes(`${metric} ${kills}\n`),
    );
    await cluster.removePods([hog.pod]);
  });

  inGuest('an ordinary container is killed as a group, process 1 and all', async () => {
    const container = await cluster.run('ordinary-hog', { memory: '32M' }, HOG);
    ordinary.push(container);
    await cluster.isKilled(container);
    expect(await cluster.vm.sh(`cat ${container.log}`)).not.toMatch(/child died/);
    expect(cluster.events('ordinary-hog')).toEqual([]);
  });

  inGuest('a value that systemd or someone else rewrites is repaired, both ways', async () => {
    single = await cluster.run('single', { mode: 'Single' });
    group = await cluster.run('group', { mode: 'Group', qos: 'guaranteed' });
    for (const [container, wanted] of [
      [single, '0'],
      [group, '1'],
    ] as const) {
      await cluster.become([container], wanted);
      for (let reload = 0; reload < 5; reload++) {
        await cluster.drift([container], wanted);
      }
    }
  });

  inGuest('the values of an in-place resize are repaired', async () => {
    await cluster.node.write(`echo 0 >${single.file}; sleep 0.1; echo 1 >${single.file}`);
    await cluster.become([single], '0');
    await cluster.node.write(`echo 0 >${group.file}; sleep 0.1; echo 1 >${group.file}`);
    await cluster.become([group], '1');
  });

  inGuest('a container that the annotation names gets its own mode', async () => {
    const annotations = { [CONTAINERS]: 'proxy=Group' };
    const pod = await cluster.makePod('web', { mode: 'Single', annotations });
    const worker = await cluster.start(pod, { name: 'worker', command: 'sleep 1000' });
    const proxy = await cluster.start(pod, { name: 'proxy', command: 'sleep 1000' });
    await cluster.become([proxy], '1');
    await cluster.become([worker], '0');
    await cluster.drift([proxy], '1');
    await cluster.drift([worker], '0');
  });

  inGuest("crun's child of a container's cgroup has the mode as well", async () => {
    const pod = { mode: 'Single', memory: '32M' };
    const hog = await cluster.run('crun', pod, { ...HOG, crun: true });
    await cluster.survives(hog, 3);
    // As a group it would be killed, if the kernel came before the repair.
    await cluster.freeze(hog.pod);
    const child = { ...hog, file: `${hog.cgroup}/container/memory.oom.group` };
    await cluster.drift([child], '0');
    await cluster.drift([hog], '0');
    await cluster.removePods([hog.pod]);
  });

  inGuest('without its label a container goes back to the value of the node', async () => {
    const container = await cluster.run('leaver', { mode: 'Single' });
    await cluster.become([container], '0');
    cluster.api.removeLabel(container.pod.uid);
    await cluster.become([container], '1');
    expect(await cluster.value(single)).toBe('0');
  });

  inGuest('a pod cgroup that has 1 itself is told of in an Event', async () => {
    const pod = await cluster.makePod('grouped');
    await cluster.node.write(`echo 1 >${pod.cgroup}/memory.oom.group`);
    cluster.opt(pod, 'Single');
    await cluster.start(pod, { command: 'sleep 1000' });
    await cluster.conditionEvent('grouped', 'ancestor_group');
    await cluster.removePods([pod]);
  });

  inGuest('nobody but the runtime ever opened the file of an ordinary container', async () => {
    ordinary.push(await cluster.run('ordinary', {}));
    // Whatever the agent would do about it, it does before what comes later.
    expect(await ten()).toEqual(Array(10).fill('0'));
    for (const { cgroup, file } of ordinary) {
      const opened = (await witnessed(cgroup)).filter(({ path }) => path === file);
      expect(opened.some(({ actions }) => actions.includes('write'))).toBe(true);
      expect(opened.filter(({ pid }) => !cluster.node.ours.has(pid))).toEqual([]);
    }
  });

  inGuest(
    'of all files of all cgroups the agent only wrote the modes of opted-in pods',
    async () => {
      const written = (await witnessed('/kubepods'))
        .filter(({ actions, pid }) => actions.includes('write') && !cluster.node.ours.has(pid))
        // A container's process 1, and a probe, enter their cgroup themselves.
        .filter(({ path }) => !path.endsWith('/cgroup.procs'));
      const isMode = ({ path }: Access) =>
        path.endsWith('/memory.oom.group') &&
        cluster.optedIn.some(({ cgroup }) => path.startsWith(`${cgroup}/`));
      expect(written.filter(isMode).length).toBeGreaterThanOrEqual(100);
      expect(written.filter((access) => !isMode(access))).toEqual([]);
    },
  );

  inGuest('a loop that is busy passes its liveness probe', async () => {
    const probe = await cluster.probe(LIVENESS_PROBE);
    await cluster.node.write(`
      (while :; do echo 1 >${single.file}; sleep 0.01; done) >/dev/null 2>&1 &
      echo $! >/run/storm
      echo $!`);
    // Each takes the file away that the loop makes at its ticks.
    for (let n = 0; n < 3; n++) {
      await cluster.vm.until(probe);
    }
    await cluster.vm.sh('kill $(cat /run/storm)');
    await cluster.become([single], '0');
  });

  inGuest('a loop that is stuck fails it, until it goes on', async () => {
    const probe = await cluster.probe(LIVENESS_PROBE);
    const main = await cluster.processOne(cluster.agent);
    await cluster.vm.until(probe);
    await cluster.vm.sh(`kill -STOP ${main}`);
    await cluster.vm.run(probe);
    // Nobody else makes the file.
    expect((await cluster.vm.run(probe)).status).not.toBe(0);
    await cluster.vm.sh(`kill -CONT ${main}`);
    await cluster.vm.until(probe);
  });

  inGuest('all that it ever asked the API server for is one watch', () => {
    expect(cluster.api.requests.map(({ url, status }) => [url.pathname, status])).toEqual([
      ['/api/v1/pods', 200],
    ]);
    return Promise.resolve();
  });

  inGuest('SIGTERM ends the agent and changes no container', async () => {
    const { log, cgroup } = cluster.agent;
    await cluster.vm.sh(`kill -TERM ${await cluster.processOne(cluster.agent)}`);
    await cluster.vm.until(`grep '^exited 0$' ${log} && ! [ -e ${cgroup} ]`);
    expect([await cluster.value(single), await cluster.value(group)]).toEqual(['0', '1']);
  });
});
