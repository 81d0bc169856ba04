import { join } from 'node:path';

import { EventObject } from '../support/api-server';
import { Cluster, testIn } from './cluster';
import { Container, Pod } from './node';
import { DRIFT } from './vm';

// What the kernel kills, counted by the kernel and by the agent, and what containers that are short of
// memory all the time cost the agent. The machine is emulated, about ten times slower than a node.

let cluster: Cluster;
const inGuest = testIn(() => cluster);

beforeAll(async () => {
  cluster = await Cluster.boot([join(__dirname, 'guest/thrash.c'), DRIFT]);
  await cluster.prepare('systemd');
  await cluster.startAgent({ METRICS: 'yes' });
}, 180_000);

afterAll(async () => {
  await cluster.stop();
});

/** A pod of the mode Single with one container. */
async function run(name: string, command: string, memory?: string): Promise<Container> {
  const pod = await cluster.makePod(name, { mode: 'Single', memory });
  const container = await cluster.start(pod, { name: 'worker', command });
  expect(await cluster.becomes(container, '0')).toBe(true);
  return container;
}

const counter = async (cgroup: string, name: string) =>
  Number(await cluster.vm.sh(`awk '$1 == "${name}" { print $2 }' ${cgroup}/memory.events`));

/** The kills that the agent's log tells of, in one pod. */
async function told(pod: Pod): Promise<number> {
  const { output } = await cluster.vm.run(
    `grep 'kept running' ${cluster.agent.log} | grep '/${pod.name}"'`,
  );
  return output
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as { kills: string })
    .reduce((sum, { kills }) => sum + Number(kills), 0);
}

function events(pod: Pod): EventObject[] {
  return [...cluster.api.events.values()].filter((event) => event.involvedObject.name === pod.name);
}

async function waitFor(what: string, seconds: number, is: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!(await is())) {
    if (Date.now() > end) {
      throw new Error(`not within ${seconds} s: ${what}`);
    }
    await cluster.vm.sh('sleep 1');
  }
}

inGuest('real kills are counted exactly, in one Event', async () => {
  // The pod's limit is the one that is hit.
  const hog = await run('hog', 'hog 2', '32M');
  expect(await cluster.vm.until(`grep -E 'child died 10$' ${hog.log}`, 60_000)).toBe(true);
  await cluster.node.write(`echo 1 >${hog.pod.cgroup}/cgroup.freeze`);
  await cluster.vm.sh('sleep 1');
  const kills = await counter(hog.cgroup, 'oom_kill');
  expect(kills).toBeGreaterThanOrEqual(10);
  await waitFor('the log', 90, async () => (await told(hog.pod)) === kills);
  await waitFor('the Event', 180, () => Promise.resolve(events(hog.pod)[0]?.count === kills));
  expect(events(hog.pod)).toHaveLength(1);
  expect(events(hog.pod)[0]).toMatchObject({
    reason: 'OomKilledProcess',
    involvedObject: { fieldPath: 'spec.containers{worker}', uid: hog.pod.uid },
  });
  const times = cluster.api.eventWrites.map(({ at }) => at);
  // Ten seconds of the guest's clock, which is not ours.
  expect(times.filter((at, i) => i > 0 && at - (times[i - 1] ?? 0) < 9_000)).toEqual([]);
  await cluster.removePods([hog.pod]);
});

inGuest('where Single cannot work, an Event names the condition', async () => {
  const says = (pod: Pod, condition: string) =>
    waitFor(`the Event of ${condition}`, 180, () =>
      Promise.resolve(events(pod).some(({ message }) => message.endsWith(`: ${condition}`))),
    );

  // Nobody but the main process fills the memory.
  const eater = await cluster.makePod('eater', { mode: 'Single' });
  const main = await cluster.start(eater, {
    name: 'worker',
    memory: '16M',
    command: `sh -c 'sleep 10; exec tail /dev/zero'`,
  });
  expect(await cluster.becomes(main, '0')).toBe(true);
  expect(await cluster.vm.until(`grep -qx 'killed 9' ${main.log}`, 60_000)).toBe(true);
  expect(await counter(eater.cgroup, 'oom_group_kill')).toBe(0);
  await says(eater, 'main_process_killed');

  // The pod's own cgroup has 1, and its limit is the one that is hit.
  const grouped = await cluster.makePod('grouped', { mode: 'Single', memory: '32M' });
  await cluster.node.write(`echo 1 >${grouped.cgroup}/memory.oom.group`);
  const hog = await cluster.start(grouped, {
    name: 'worker',
    command: `sh -c 'sleep 10; exec hog 1'`,
  });
  expect(await cluster.becomes(hog, '0')).toBe(true);
  expect(await cluster.vm.until(`grep -qx 'killed 9' ${hog.log}`, 60_000)).toBe(true);
  await says(grouped, 'ancestor_group');
  expect(events(grouped).some(({ reason }) => reason === 'OomKilledProcess')).toBe(false);
  await cluster.removePods([eater, grouped]);
});

inGuest('a minute of containers at their limits costs little and delays no repair', async () => {
  const calm = await run('calm', 'sleep 1000');
  const storms = [await run('max', 'thrash 32 2000'), await run('high', 'thrash 32 2000')] as const;
  const [max, high] = storms;
  const all = (word: string) =>
    cluster.node.write(
      storms.map(({ pod }) => `echo ${word} >${pod.cgroup}/cgroup.freeze`).join('\n'),
    );
  await cluster.node.write(`
    echo 8M >${max.cgroup}/memory.max
    echo 8M >${high.cgroup}/memory.high`);
  await cluster.vm.sh('sleep 5');

  const used = async () =>
    Number(await cluster.vm.sh(`sed -n 's/^usage_usec //p' ${cluster.agent.pod.cgroup}/cpu.stat`));
  const changes = () => Promise.all([counter(max.cgroup, 'max'), counter(high.cgroup, 'high')]);
  const [before, first] = [await used(), await changes()];
  await cluster.vm.sh('sleep 60', 120_000);
  const [after, last] = [await used(), await changes()];
  const share = (after - before) / 60e6;
  const made = last.map((n, i) => n - (first[i] ?? 0));

  // In turns, so that whatever else the host does meets both alike.
  const calmly: number[] = [];
  const stormily: number[] = [];
  for (let n = 0; n < 5; n += 1) {
    await all('1');
    calmly.push(...(await drifts(calm, 4)));
    await all('0');
    stormily.push(...(await drifts(calm, 4)));
  }
  const ratio = median(stormily) / median(calmly);
  console.info(
    `${made.join(' + ')} changes in 60 s; ${(share * 100).toFixed(1)} % of an emulated core\n` +
      `repairs, us, calm: ${calmly.join(' ')}; median ${median(calmly)}\n` +
      `repairs, us, storm: ${stormily.join(' ')}; median ${median(stormily)}; ${ratio.toFixed(2)} x`,
  );
  expect([await counter(max.cgroup, 'oom_kill'), await counter(high.cgroup, 'oom_kill')]).toEqual([
    0, 0,
  ]);
  expect(Math.min(...made)).toBeGreaterThan(1000);
  // Of this machine's core, so it would be about a tenth of that on a node.
  expect(share).toBeLessThan(0.05);
  // Medians of 20 are alike within a factor of two here, and the storm adds nothing that could be seen.
  expect(ratio).toBeLessThan(3);

  // Nor does it hide kills: those of another container of that pod, while the other storm goes on.
  const hog = await cluster.start(max.pod, { name: 'hog', memory: '16M', command: 'hog 1' });
  expect(await cluster.vm.until(`grep -q 'child died 3$' ${hog.log}`, 60_000)).toBe(true);
  await cluster.node.write(`echo 1 >${max.pod.cgroup}/cgroup.freeze`);
  await cluster.vm.sh('sleep 1');
  const kills = await counter(hog.cgroup, 'oom_kill');
  expect(kills).toBeGreaterThanOrEqual(3);
  await waitFor('the log', 120, async () => (await told(max.pod)) === kills);
  await cluster.removePods([calm.pod, max.pod, high.pod]);
});

/** How long repairs of a container's mode took, one after the other, in microseconds. */
async function drifts(container: Container, count: number): Promise<number[]> {
  const times = (await cluster.vm.sh(`echo ${container.file} | drift 0 ${count} 3 60 ${count}`))
    .split('\n')
    .map(Number);
  expect(times).toHaveLength(count);
  expect(times.filter((time) => !(time > 0))).toEqual([]);
  return times;
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}
