import { join } from 'node:path';
import { Cluster, HOG, LIVENESS_PROBE, testIn } from './cluster';
import { Container, ContainerOptions } from './node';
import { RealNode } from './real-node';

// A virtual machine for each release of systemd, with the real one as process 1 and the real runc.

const CONDITION = 'systemd_oom_policy';
const KILL: ContainerOptions = { ...HOG, oomPolicy: 'kill' };
const DROP_IN = [
  join(__dirname, '../../lib/drop-in'),
  join(__dirname, 'guest/drop-in-container.sh'),
];

let cluster: Cluster;
let node: RealNode;
const inGuest = testIn(() => cluster);

function machine(release: string, systemd: string): void {
  beforeAll(async () => {
    ({ cluster, node } = await Cluster.bootDebian(release, DROP_IN));
    expect(await cluster.vm.sh('systemctl --version')).toMatch(new RegExp(`^systemd ${systemd} `));
    await cluster.startAgent({ RESYNC_SECONDS: '5', SYSTEMD_TRANSIENT: '/host/systemd/transient' });
  });

  afterAll(async () => {
    await cluster.stop();
  });
}

/** A hog that waits for a word, so that the agent has all the time it wants before the first kill. */
const waiting = (word: string, options: ContainerOptions): ContainerOptions => ({
  ...options,
  command: `sh -c 'until [ -e /tmp/${word} ]; do sleep 0.3; done; exec ${HOG.command}'`,
});
const say = (word: string) => cluster.vm.sh(`: >/image/tmp/${word}`);

/** Waits until the agent has begun and ended a tick, twice. */
async function ticks(): Promise<void> {
  const probe = await cluster.probe(LIVENESS_PROBE);
  for (let n = 0; n < 3; n++) {
    await cluster.vm.until(probe);
  }
}

const logged = async ({ pod }: Container) =>
  (await cluster.log()).filter((line) => line.pod === `default/${pod.name}`);

async function isNotCalledSurvivor(container: Container): Promise<void> {
  await ticks();
  expect((await logged(container)).filter(({ msg }) => msg?.includes('kept running'))).toEqual([]);
  expect(cluster.events(container.pod.name).map(({ reason }) => reason)).toEqual([
    'OomKillModeCannotApply',
  ]);
}

const ends = ({ pod }: Container) =>
  cluster.logs(
    (line) =>
      line.condition === CONDITION &&
      line.pod === `default/${pod.name}` &&
      line.msg === 'works again',
  );

describe('systemd 257', () => {
  machine('trixie', '257');

  inGuest('without an OOMPolicy `Single` survives, and `Group` dies as a whole', async () => {
    const single = await cluster.run('single', { mode: 'Single' }, HOG);
    const group = await cluster.run('group', { mode: 'Group' }, HOG);
    await cluster.isKilled(group);
    await cluster.survives(single, 3);
    expect(await node.oomPolicy(single)).toBe('continue');
    expect((await cluster.log()).filter(({ condition }) => condition === CONDITION)).toEqual([]);
    await cluster.removePods([single.pod, group.pod]);
  });

  inGuest('with OOMPolicy=kill `Single` dies as a whole, and the agent says why', async () => {
    const single = await cluster.run('killed', { mode: 'Single' }, waiting('killed', KILL));
    await cluster.become([single], '0');
    await cluster.conditionEvent('killed', CONDITION);
    await say('killed');
    await cluster.isKilled(single);
    await node.isEndedBySystemd(single);
    await isNotCalledSurvivor(single);
    await cluster.removePods([single.pod]);
  });

  describe('with the drop-in', () => {
    let early: Container;

    beforeAll(async () => {
      early = await cluster.run('early', { mode: 'Single' }, waiting('early', KILL));
      await cluster.conditionEvent('early', CONDITION);
      const dropIn = await cluster.run('drop-in', {}, { command: 'sh /drop-in-container.sh', hostPid: true });
      await cluster.vm.until(`grep 'OOMPolicy=continue is in place' ${dropIn.log}`);
    });

    inGuest('a container that was there survives, and the condition ends', async () => {
      await cluster.eventually(
        'OOMPolicy=continue',
        async () => (await node.oomPolicy(early)) === 'continue',
      );
      await ends(early);
      await say('early');
      await cluster.survives(early, 3);
    });

    inGuest('a new one survives, without a condition', async () => {
      const late = await cluster.run('late', { mode: 'Single' }, KILL);
      await cluster.survives(late, 3);
      expect(await node.oomPolicy(late)).toBe('continue');
      await ticks();
      expect((await logged(late)).filter(({ condition }) => condition === CONDITION)).toEqual([]);
    });

    inGuest('`Group` dies as a whole', async () => {
      await cluster.isKilled(await cluster.run('group-kill', { mode: 'Group' }, KILL));
    });
  });
});

describe('systemd 262', () => {
  machine('forky', '262');

  inGuest('with OOMPolicy=kill `Single` survives, and the condition ends', async () => {
    const single = await cluster.run('single', { mode: 'Single' }, waiting('single', KILL));
    await cluster.conditionEvent('single', CONDITION);
    await say('single');
    await cluster.survives(single, 3);
    await ends(single);
    expect(await node.oomPolicy(single)).toBe('kill');
  });

  inGuest('it does not come back for another container', async () => {
    const next = await cluster.run('next', { mode: 'Single' }, KILL);
    await cluster.survives(next, 3);
    await ticks();
    expect((await logged(next)).filter(({ condition }) => condition === CONDITION)).toEqual([]);
  });

  inGuest('`Group` dies as a whole', async () => {
    await cluster.isKilled(await cluster.run('group', { mode: 'Group' }, KILL));
  });

  inGuest('with OOMPolicy=stop `Single` dies as a whole, and the agent says why', async () => {
    const stop: ContainerOptions = { ...HOG, oomPolicy: 'stop' };
    const single = await cluster.run('stopped', { mode: 'Single' }, waiting('stopped', stop));
    await cluster.become([single], '0');
    await cluster.conditionEvent('stopped', CONDITION);
    await say('stopped');
    await cluster.isKilled(single);
    await node.isEndedBySystemd(single);
    await isNotCalledSurvivor(single);
  });
});
