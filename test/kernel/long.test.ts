import { Cluster, HOG, testIn } from './cluster';
import { Container } from './node';

// What takes too long for every change: hours of a cluster in minutes, with one agent for all tests.

const OUTAGE_SECONDS = 300;

let cluster: Cluster;
const inGuest = testIn(() => cluster);
let steady: Container;

beforeAll(async () => {
  cluster = await Cluster.boot('systemd', 'trixie');
  await cluster.startAgent();
  steady = await cluster.run('steady', { mode: 'Single' });
  await cluster.become([steady], '0');
});

afterAll(async () => {
  await cluster.stop();
});

inGuest('the first instruction of an opted-in container sees Single, 1,000 of 1,000', async () => {
  const names = Array.from({ length: 20 }, (_, i) => `first-${i}`);
  const pods = await cluster.makePods(names, { mode: 'Single' });
  for (let n = 0; n < 50; n++) {
    expect([n, ...(await cluster.firstModes(pods))]).toEqual([n, ...Array<string>(20).fill('0')]);
  }
  await cluster.removePods(pods);
});

inGuest('a container that is killed for ten minutes survives, counted exactly', async () => {
  const hog = await cluster.run('hog', { mode: 'Single' }, { name: 'worker', ...HOG });
  await new Promise((done) => setTimeout(done, 600_000));
  await cluster.freeze(hog.pod);
  const kills = await cluster.kills(hog);
  expect(kills).toBeGreaterThan(100);
  await cluster.keepsProcessOne(hog);
  // Its Event may wait five minutes for the next.
  await cluster.eventually('the Event', () => cluster.events('hog')[0]?.count === kills, 600);
  expect(cluster.events('hog')).toHaveLength(1);
  // Ten seconds, twice as long each time, five minutes at most.
  expect(cluster.api.eventWrites.length).toBeLessThanOrEqual(15);
  await cluster.removePods([hog.pod]);
});

inGuest('an API server that is away for five minutes', async () => {
  const [leaver, changer] = await Promise.all([
    cluster.run('leaver', { mode: 'Single' }),
    cluster.run('changer', { mode: 'Single' }),
  ]);
  await cluster.become([leaver, changer], '0');
  const port = await cluster.api.pause();
  const end = Date.now() + OUTAGE_SECONDS * 1000;
  cluster.api.removeLabel(leaver.pod.uid);
  cluster.opt(changer.pod, 'Group');
  while (Date.now() < end) {
    expect(await cluster.firstModes([steady.pod])).toEqual(['0']);
    await cluster.drift([steady, changer], '0');
    await new Promise((done) => setTimeout(done, 5000));
  }
  expect(await cluster.value(leaver)).toBe('0');
  await cluster.api.resume(port);
  await cluster.become([leaver, changer], '1');
  await cluster.removePods([leaver.pod, changer.pod]);
});

// A year on, the API server's certificate has expired; two years back it was not valid yet.
inGuest('a clock that jumps a year forwards and back', async () => {
  const jump = (seconds: number) => cluster.vm.sh(`date -s @$(($(date +%s) + ${seconds}))`);
  const year = 365 * 24 * 3600;
  for (const seconds of [year, -2 * year]) {
    const before = (await cluster.log()).filter(({ msg }) =>
      msg?.includes('does not answer'),
    ).length;
    try {
      await jump(seconds);
      await cluster.drift([steady], '0');
      cluster.api.endWatches();
      await cluster.logs(({ msg }) => msg?.includes('does not answer') === true, before + 1);
      await cluster.drift([steady], '0');
      cluster.opt(steady.pod, 'Group');
    } finally {
      await jump(-seconds);
    }
    await cluster.become([steady], '1');
    cluster.opt(steady.pod, 'Single');
    await cluster.become([steady], '0');
  }
});

inGuest('it is the agent that was started, and it is as small as ever', async () => {
  await cluster.keepsProcessOne(cluster.agent);
  await cluster.isAtRest();
});
