import { join } from 'node:path';
import { Cluster, HOG, LIVENESS_PROBE, testIn } from './cluster';
import { Container, ContainerOptions } from './node';

// A virtual machine for each release of systemd, with that systemd as process 1 and the real runc.

const CONDITION = 'systemd_oom_policy';
const DROP_IN = [
  join(__dirname, '../../lib/drop-in'),
  join(__dirname, 'guest/drop-in-container.sh'),
];

let cluster: Cluster;
const inGuest = testIn(() => cluster);

/** Boots a release of Debian, whose systemd is one of these. */
function machine(release: string, oldest: number, newest: number): void {
  beforeAll(async () => {
    cluster = await Cluster.boot('systemd', release, DROP_IN);
    const versions = await cluster.vm.sh(
      'systemctl --version | head -n 1; runc --version; uname -r',
    );
    console.info(versions);
    const version = Number(/^systemd (\d+)/.exec(versions)?.[1]);
    expect(version).toBeGreaterThanOrEqual(oldest);
    expect(version).toBeLessThanOrEqual(newest);
    await cluster.startAgent({ RESYNC_SECONDS: '5', TICK_SECONDS: '3' });
  });

  afterAll(async () => {
    await cluster.stop();
  });
}

/** A container that will fill its memory once it is told to: the agent has all the time it wants before that. */
async function start(
  name: string,
  mode: 'Single' | 'Group',
  oomPolicy?: ContainerOptions['oomPolicy'],
): Promise<Container> {
  const wait = `until [ -e /tmp/${name} ]; do sleep 0.3; done; exec ${HOG.command.join(' ')}`;
  const command = ['sh', '-c', wait];
  const container = await cluster.run(name, { mode }, { ...HOG, command, oomPolicy });
  await cluster.become([container], mode === 'Single' ? '0' : '1');
  return container;
}

const fillMemory = ({ pod }: Container) => cluster.vm.sh(`: >/image/tmp/${pod.name}`);

async function survives(container: Container): Promise<void> {
  await fillMemory(container);
  await cluster.survives(container, 3);
}

async function diesAsAWhole(container: Container): Promise<void> {
  await fillMemory(container);
  await cluster.isKilled(container);
}

/** Waits until the agent has begun and ended a tick, twice. */
async function ticks(): Promise<void> {
  const probe = await cluster.probe(LIVENESS_PROBE);
  for (let n = 0; n < 3; n++) {
    await cluster.vm.until(probe);
  }
}

/** What the agent said of a container's condition. */
async function told({ pod }: Container): Promise<string[]> {
  const log = await cluster.log();
  return log
    .filter(({ pod: name, condition }) => name === `default/${pod.name}` && condition === CONDITION)
    .map(({ msg }) => (msg === 'works again' ? 'ended' : 'told'));
}

const isTold = (container: Container) => cluster.conditionEvent(container.pod.name, CONDITION);

async function ends(container: Container): Promise<void> {
  await cluster.eventually('the end of the condition', async () =>
    (await told(container)).includes('ended'),
  );
}

/** systemd ends the container, whose file says 0, and the agent does not say that it kept running. */
async function isEndedBySystemd(container: Container): Promise<void> {
  await isTold(container);
  expect(await cluster.value(container)).toBe('0');
  await diesAsAWhole(container);
  await cluster.node.isEndedBySystemd(container);
  await ticks();
  expect(cluster.events(container.pod.name).map(({ reason }) => reason)).toEqual([
    'OomKillModeCannotApply',
  ]);
  const log = await cluster.log();
  expect(log.filter(({ pod, kills }) => pod === `default/${container.pod.name}` && kills)).toEqual(
    [],
  );
  await cluster.removePods([container.pod]);
}

describe('systemd 253 to 258', () => {
  machine('trixie', 253, 258);

  inGuest('without an OOMPolicy `Single` survives, and `Group` dies as a whole', async () => {
    const single = await start('single', 'Single');
    expect(await cluster.node.oomPolicy(single)).toBe('continue');
    await survives(single);
    await cluster.removePods([single.pod]);
    await diesAsAWhole(await start('group', 'Group'));
    expect(await told(single)).toEqual([]);
  });

  inGuest('with OOMPolicy=kill `Single` dies as a whole, and the agent says why', async () => {
    await isEndedBySystemd(await start('killed', 'Single', 'kill'));
  });

  describe('with the drop-in', () => {
    let early: Container;

    beforeAll(async () => {
      early = await start('early', 'Single', 'kill');
      await isTold(early);
      const options = { command: ['sh', '/drop-in-container.sh'], hostPid: true };
      const { log } = await cluster.run('drop-in', {}, options);
      await cluster.vm.until(`grep 'OOMPolicy=continue is in place' ${log}`);
    });

    inGuest('a container that ran before survives, and its condition ends', async () => {
      await cluster.eventually(
        'OOMPolicy=continue',
        async () => (await cluster.node.oomPolicy(early)) === 'continue',
      );
      await survives(early);
      await ends(early);
      await cluster.removePods([early.pod]);
    });

    inGuest('a new one survives, without a condition', async () => {
      const late = await start('late', 'Single', 'kill');
      expect(await cluster.node.oomPolicy(late)).toBe('continue');
      await survives(late);
      await ticks();
      expect(await told(late)).toEqual([]);
      await cluster.removePods([late.pod]);
    });

    inGuest('`Group` dies as a whole', async () => {
      await diesAsAWhole(await start('group-with-kill', 'Group', 'kill'));
    });
  });
});

describe('systemd 259 or later', () => {
  machine('forky', 259, Infinity);

  inGuest('with OOMPolicy=kill `Single` survives, and the condition ends', async () => {
    const single = await start('single', 'Single', 'kill');
    await isTold(single);
    await survives(single);
    await ends(single);
    expect(await cluster.node.oomPolicy(single)).toBe('kill');
    await cluster.removePods([single.pod]);
  });

  inGuest('the condition does not come back for another container', async () => {
    const next = await start('next', 'Single', 'kill');
    await survives(next);
    await ticks();
    expect(await told(next)).toEqual([]);
    await cluster.removePods([next.pod]);
  });

  inGuest('`Group` dies as a whole', async () => {
    await diesAsAWhole(await start('group', 'Group', 'kill'));
  });

  inGuest('with OOMPolicy=stop `Single` dies as a whole, and the agent says why', async () => {
    await isEndedBySystemd(await start('stopped', 'Single', 'stop'));
  });
});
