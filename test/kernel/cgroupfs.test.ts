import { cells } from './cell';
import { Cluster, HOG, LIVENESS_PROBE, SLEEP, testIn } from './cluster';
import { Container } from './node';

// The cgroupfs driver, without systemd, with runc and crun; and what depends on neither, with runc alone.

const CONTAINERS = 'cdk8s-oom-kill-mode/containers';

const get = cells('cgroupfs', 'trixie');
const inGuest = testIn(get);

describe('what does not depend on the runtime or the driver:', () => {
  let cluster: Cluster;
  let single: Container;
  let group: Container;

  beforeAll(async () => {
    cluster = get();
    cluster.node.runtime = 'runc';
    cluster.api.requests.length = 0;
    await cluster.startAgent();
    single = await cluster.run('single', { mode: 'Single' });
    group = await cluster.run('group', { mode: 'Group' });
    await cluster.become([single], '0');
    await cluster.become([group], '1');
  });

  inGuest('an opted-in container survives kills, which are counted exactly', async () => {
    // The pod's limit is the one that is hit.
    const pod = { mode: 'Single', memory: 32 };
    const hog = await cluster.run('hog', pod, { name: 'worker', ...HOG });
    await cluster.survives(hog, 10);
    await cluster.keepsProcessOne(hog);
    await cluster.freeze(hog.pod);
    const kills = await cluster.kills(hog);
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

  inGuest('a container that the annotation names gets its own mode', async () => {
    const annotations = { [CONTAINERS]: 'proxy=Group' };
    const pod = await cluster.makePod('web', { mode: 'Single', annotations });
    const worker = await cluster.start(pod, { name: 'worker', ...SLEEP });
    const proxy = await cluster.start(pod, { name: 'proxy', ...SLEEP });
    await cluster.become([proxy], '1');
    await cluster.become([worker], '0');
    await cluster.drift([proxy], '1');
    await cluster.drift([worker], '0');
  });

  inGuest('a pod cgroup that has 1 itself is told of in an Event', async () => {
    const pod = await cluster.makePod('grouped');
    await cluster.vm.sh(`echo 1 >${pod.cgroup}/memory.oom.group`);
    cluster.opt(pod, 'Single');
    await cluster.start(pod, SLEEP);
    await cluster.conditionEvent('grouped', 'ancestor_group');
    await cluster.removePods([pod]);
  });

  inGuest('a loop that is busy passes its liveness probe', async () => {
    const probe = await cluster.probe(LIVENESS_PROBE);
    await cluster.vm.sh(`
      (while :; do echo 1 >${single.file}; sleep 0.01; done) >/dev/null 2>&1 &
      echo $! >/run/storm`);
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
