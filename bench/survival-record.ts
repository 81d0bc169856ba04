// npm run bench:survival: records docs/survival.json in the kernel test's machine, and draws
// docs/survival.svg from it. Takes some minutes.
//
// Two pods run the same program; the agent knows of the label of one. There is no kubelet: this program
// starts the twin's container anew as a kubelet does, at once and then after 10, 20, 40, ... seconds.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Cluster } from '../test/kernel/cluster';
import { Pod } from '../test/kernel/node';
import { json } from './report';
import { DATA, Sample, SECONDS, Survival, lives, writeDrawing } from './survival';

const WORKERS = 3;
const PERIOD = 10;
const LIMIT = 32;
const PROGRAM = { command: ['workers', String(WORKERS), String(PERIOD)], memory: LIMIT };
const BACK_OFF = [0, 10, 20, 40, 80];

/** A command for the guest that looks at the pods four times a second. */
function look(labelled: Pod, twin: Pod): string {
  return `
    while :; do
      read now idle </proc/uptime
      echo $now \\
        $(($(cat ${labelled.cgroup}/*/cgroup.procs | wc -l) - 1)) \\
        $(cat ${labelled.cgroup}/*/memory.events | awk '$1 == "oom_kill" { n += $2 } END { print n }') \\
        $(($(cat ${twin.cgroup}/*/cgroup.procs | wc -l) - 1))
      sleep 0.23
    done`;
}

async function record(cluster: Cluster): Promise<Survival> {
  const { vm, node } = cluster;
  await cluster.startAgent();
  const [labelled, twin] = [
    await cluster.makePod('labelled', { mode: 'Single' }),
    await cluster.makePod('twin'),
  ];
  await vm.sh(`(${look(labelled, twin)}) >/run/samples 2>/dev/null </dev/null &`);
  const [survivor, first] = await node.start([labelled, twin], PROGRAM);
  if (survivor === undefined || first === undefined) {
    throw new Error('not started');
  }
  const end = Number(await vm.sh('cut -d . -f 1 /proc/uptime')) + SECONDS + 5;
  const isOver = async () => Number(await vm.sh('cut -d . -f 1 /proc/uptime')) >= end;

  let current = first;
  for (const delay of BACK_OFF) {
    const until = `grep -q '^killed 9$' ${current.log} || [ $(cut -d . -f 1 /proc/uptime) -ge ${end} ]`;
    await vm.until(until, 600);
    if (await isOver()) {
      break;
    }
    for (let left = delay; left > 0 && !(await isOver()); left--) {
      await vm.sh('sleep 1');
    }
    if (await isOver()) {
      break;
    }
    [current = first] = await node.start([twin], PROGRAM);
  }
  await vm.until(`[ $(cut -d . -f 1 /proc/uptime) -ge ${end} ]`, 600);

  const log = await vm.sh(`cat ${survivor.log}`);
  if (!/^started \d+$/.test(log)) {
    throw new Error(`the labelled program did not survive: ${log}`);
  }
  const samples = (await vm.sh('cat /run/samples')).split('\n').map((line): Sample => {
    const [at = NaN, processes = NaN, kills = NaN, twins = NaN] = line.split(' ').map(Number);
    return { at, labelled: processes, kills, twin: twins };
  });
  return {
    kernel: await vm.sh('uname -r'),
    workers: WORKERS,
    secondsBetweenRequests: PERIOD,
    memoryLimitMebibytes: LIMIT,
    ...lives(samples, WORKERS + 1),
  };
}

async function main(): Promise<void> {
  const cluster = await Cluster.boot('cgroupfs', 'trixie', [join(__dirname, 'guest/workers.c')]);
  try {
    const survival = await record(cluster);
    writeFileSync(DATA, json(survival));
    writeDrawing();
  } catch (error) {
    console.error(await cluster.report());
    throw error;
  } finally {
    await cluster.stop();
  }
}

void main();
