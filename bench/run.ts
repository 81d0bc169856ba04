// npm run bench: this agent, the polling loop people use today, and a C program that does only inotify, read
// and write, in one boot of one virtual machine. Writes bench/results.json, which holds every single figure;
// bench/report.ts makes the tables of it. Takes a quarter of an hour.
//
// Every tool has the same pods and containers in a kubepods root of its own, and the same CPU weight (a
// request of 100m). The limit of 250m is more than there is: a quarter of a CPU of a node is two and a half
// that are ten times slower. Idle minutes are the same for all. In what is timed they take turns, and the
// others are frozen.

import { execFileSync } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { OomKillModeAgent } from '../lib';
import { MEASURING, Vm } from '../test/kernel/vm';
import { FakeApiServer, PodMetadata } from '../test/support/api-server';
import { Manifest, chart, container, synth, template } from '../test/support/manifests';
import { writeResults } from './report';
import { ENDED_PODS, Latencies, median, Minute, Results, Starts, Tool, TOOLS } from './schema';

const number = (name: string, standard: number) => Number(process.env[name] ?? standard);

const SIZES = (process.env.BENCH_SIZES ?? '1,110').split(',').map(Number);
const CONTAINERS = 3;
/** Container starts of the agent, all sizes together; the others have a fortieth. */
const STARTS = number('BENCH_STARTS', 1000);
/** Seconds from one start to the next, that of the sandbox included. */
const PAUSE = 0.25;
/**
 * Of the agent, for each size. What it does once a minute goes by the clock of the machine, which goes on while
 * it is frozen: it has more than the others, so that it is not met much more often than on a node.
 */
const DRIFTS = number('BENCH_DRIFTS', 240);
const SHARE_OF_DRIFTS = { agent: 1, limit: 1 / 2 } as const;
/**
 * Of all containers together. The agent calls a file contested that somebody else writes more than 50 times
 * within a second, and then repairs it once a second: this pace, which drift.c never makes up for, stays far
 * below that even where there is one pod.
 */
const DRIFTS_PER_SECOND = 10;
/** The tools take turns that are so short that noise meets all of them. */
const BLOCKS = 6;
const MINUTE = number('BENCH_MINUTE', 60);
/** At processes and memory, in a minute: none of them falls on the same second of the agent's ten-second ticks. */
const LOOKS = 7;

const MODE = 'cdk8s-oom-kill-mode/mode';
const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';
/** When runc-standin takes its steps: as on a real node with the systemd driver, ten times slower as the guest is. */
const STEPS = '26,348,368,680';

/** All have the same pod, each in its own root. */
const OWN_UID = randomUUID();
const OWN_ID = randomBytes(32).toString('hex');

/** The agent as the construct makes it unless told otherwise. */
const agentChart = chart();
new OomKillModeAgent(agentChart, 'agent');
const manifests = synth(agentChart);
const one = (kind: string) => manifests.find((manifest) => manifest.kind === kind) as Manifest;
const AGENT = container(template(one('DaemonSet')));
const PROBE = AGENT.livenessProbe.exec.command.join(' ');

class Bench {
  private readonly pods: string[] = [];

  public constructor(
    private readonly vm: Vm,
    private readonly api: FakeApiServer,
  ) {}

  /** Starts every tool as a container of its own pod. */
  public async startTools(): Promise<void> {
    await this.vm.sh(`
      echo '+cpu +memory' >/sys/fs/cgroup/cgroup.subtree_control
      /churn.sh roots ${TOOLS.join(' ')}
      mkdir -p ${SERVICE_ACCOUNT}
      echo '${this.api.token}' >${SERVICE_ACCOUNT}/token
      echo '${this.api.caPem}' >${SERVICE_ACCOUNT}/ca.crt`);
    for (const tool of TOOLS) {
      const pod = this.own(tool).replace(/\/[^/]*$/, '');
      await this.vm.sh(`
        mkdir -p /run/starts/${tool} ${pod}
        echo '+cpu +memory' >${pod}/cgroup.subtree_control
        echo 4 >${pod}/cpu.weight
        runc-standin -t 0,0,10,20 ${this.own(tool)} ${this.command(tool)} >/run/${tool}.log 2>&1 &`);
    }
    await this.vm.until(
      `[ -e /proc/$(head -n 1 ${this.own('agent')}/cgroup.procs)/root/run/oom-kill-mode/ready ]`,
    );
  }

  public async measure(size: number): Promise<Results['sizes'][number]> {
    say(`${size} pods`);
    await this.grow(size);
    const idle = await this.minute(TOOLS);
    const drift = size > 0 ? await this.drift(size) : undefined;
    const starts: Partial<Record<Tool, Starts>> = {};
    for (const tool of size > 0 ? TOOLS : []) {
      await this.alone([tool]);
      const count = tool === 'agent' ? STARTS : STARTS / 40;
      starts[tool] = await this.starts(tool, count / SIZES.length);
    }
    await this.alone(TOOLS);
    const tools = eachTool((tool) => ({
      idle: idle[tool],
      drift: drift?.[tool],
      starts: starts[tool],
    }));
    return { pods: size, tools };
  }

  /** Adds pods until there are this many, and waits until every tool has reached all of them. */
  private async grow(size: number): Promise<void> {
    const commands: string[] = [];
    while (this.pods.length < size) {
      const uid = this.setPod(`still-${this.pods.length}`);
      this.pods.push(uid);
      commands.push(`/churn.sh still ${uid} ${ids(CONTAINERS).join(' ')} -- ${TOOLS.join(' ')}`);
    }
    await this.vm.sh(commands.join('\n'));
    for (const tool of TOOLS) {
      await this.vm.until(
        `[ "$(cat $(${this.files(tool)}) /dev/null | grep -c 0)" = ${size * CONTAINERS} ]`,
      );
    }
    // What a tool had put off until then.
    await sleep(10_000);
  }

  /** A minute of tools that have nothing to do but what there is; the others are frozen, and their figures nothing. */
  private async minute(tools: readonly Tool[]): Promise<Record<Tool, Minute>> {
    await this.alone(tools);
    const requests = this.api.requests.length;
    const cpu = await this.cpu();
    // Once a minute, but not at its very end: it is to be over by then.
    await this.vm.sh(`(
      sleep ${(MINUTE * 5) / 6}
      pid=$(head -n 1 ${this.own('agent')}/cgroup.procs)
      echo 0 >${this.own('agent')}/cgroup.procs
      exec nsenter -t $pid -m -p -r ${PROBE}) >/run/probe.log 2>&1 </dev/null &`);
    const look = TOOLS.map(
      (tool) => `cd ${this.own(tool)}; echo $(wc -l <cgroup.procs) $(cat memory.current)`,
    ).join('\n');
    const looks: string[][] = [];
    while (looks.length < LOOKS) {
      await sleep((MINUTE * 1000) / LOOKS);
      looks.push((await this.vm.sh(look)).split('\n'));
    }
    const spent = await this.cpu();
    const complaints = await this.vm.sh('cat /run/probe.log');
    if (complaints !== '') {
      throw new Error(`the probe failed: ${complaints}`);
    }
    await this.alone(TOOLS);
    return eachTool((tool, i) => {
      const seen = looks.map((lines) => (lines[i] ?? '').split(' ').map(Number));
      return {
        cpuSeconds: ((spent[tool] - cpu[tool]) * 60) / MINUTE,
        processes: median(seen.map(([processes = NaN]) => processes)),
        currentBytes: median(seen.map(([, bytes = NaN]) => bytes)),
        requests: tool === 'agent' ? this.api.requests.length - requests : 0,
      };
    });
  }

  private async drift(size: number): Promise<Record<Tool, Latencies>> {
    say('drift');
    const output = eachTool(() => '');
    const block = async (tool: Tool, count: number, seconds: number, seed: number) => {
      await this.alone([tool]);
      const command = `drift 0 ${count} ${DRIFTS_PER_SECOND} ${seconds} ${seed}`;
      output[tool] += `${await this.vm.sh(`${this.files(tool)} | ${command}`)}\n`;
    };
    for (let i = 0; i < BLOCKS; i++) {
      for (const [tool, share] of Object.entries(SHARE_OF_DRIFTS) as [Tool, number][]) {
        await block(tool, (DRIFTS * share) / BLOCKS, 120, size * 1000 + i);
      }
    }
    // Not as many where most containers are still wrong.
    await block('poll', DRIFTS / 4, 10, size * 1000);
    await this.alone(TOOLS);
    return eachTool((tool) => ({
      microseconds: numbers(output[tool], /^(\d+)$/gm),
      pending: numbers(output[tool], /^pending (\d+)$/gm),
    }));
  }

  private async starts(tool: Tool, count: number): Promise<Starts> {
    say(`${count} starts, ${tool}`);
    const before = await this.cpu();
    await this.vm.sh(`rm -rf /run/starts/${tool}/*`);
    const leaving: string[] = [];
    for (let i = 0; i < count / CONTAINERS; i++) {
      const name = `starting-${tool}-${this.pods.length}-${i}`;
      const uid = this.setPod(name);
      leaving.push(uid);
      const words = [tool, PAUSE, STEPS, name, uid, ...ids(CONTAINERS + 1)];
      await this.vm.sh(`/churn.sh start ${words.join(' ')} >>/run/churn.log 2>&1 </dev/null &`);
      await sleep(PAUSE * (CONTAINERS + 1) * 1000);
      // The kubelet removes a pod from the API once its containers have ended.
      while (leaving.length > 5 / (PAUSE * (CONTAINERS + 1))) {
        this.api.deletePod(leaving.shift() ?? '');
      }
    }
    await this.vm.until('! pgrep -f "churn.sh start"');
    for (const uid of leaving) {
      this.api.deletePod(uid);
    }
    const cpuSeconds = (await this.cpu())[tool] - before[tool];
    const complaints = await this.vm.sh('cat /run/churn.log');
    if (complaints !== '') {
      throw new Error(`churn.sh complains:\n${complaints}`);
    }
    const modes = (await this.vm.sh(`cat /run/starts/${tool}/* | grep '^[01]$'`)).split('\n');
    return {
      count: modes.length,
      rightAtFirstInstruction: modes.filter((mode) => mode === '0').length,
      cpuSeconds,
    };
  }

  /** A minute in which the kernel kills processes of one pod all the time; the agent's alone. */
  public async killed(): Promise<Results['killed']> {
    say('kills');
    const uid = this.setPod('killed');
    const scope = this.scope('agent', uid, randomBytes(32).toString('hex'));
    const pod = scope.replace(/\/[^/]*$/, '');
    const kills = async () =>
      Number(await this.vm.sh(`awk '$1 == "oom_kill" { print $2 }' ${scope}/memory.events`));
    await this.vm.sh(`
      mkdir ${pod}
      echo '+cpu +memory' >${pod}/cgroup.subtree_control
      runc-standin -m 32M ${scope} sh -c 'until grep -q 0 ${scope}/memory.oom.group; do sleep 1; done; exec hog 2' \
        >/run/hog.log 2>&1 </dev/null &`);
    await this.vm.until('grep "died 3$" /run/hog.log');
    const before = await kills();
    const minute = (await this.minute(['agent'])).agent;
    const result = { ...minute, kills: (await kills()) - before };
    await this.vm.sh(`echo 1 >${pod}/cgroup.kill`);
    await this.vm.until(`rmdir ${pod}/*/ ${pod} 2>/dev/null || ! [ -e ${pod} ]`);
    this.api.deletePod(uid);
    return result;
  }

  /** The most memory that the agent's container has had, after it was told of a pod with 1.4 MB of text. */
  public async largePodBytes(): Promise<number> {
    say('large pods');
    // The first one, of half a megabyte, is just small enough to be read as a whole.
    for (const count of [30_000, 100_000]) {
      const labels = Array.from({ length: count }, (_, i): [string, string] => [`l${i + 1e5}`, '']);
      this.setPod(`large-${count}`, {
        labels: Object.fromEntries([[MODE, 'Single'], ...labels]),
        annotations: { text: '"'.repeat(50_000) },
      });
    }
    await this.vm.until('grep -q pod_too_large /run/agent.log');
    return Number(await this.vm.sh(`cat ${this.own('agent')}/memory.peak`));
  }

  /** The API server is told of a pod with the label: its UID. */
  public setPod(name: string, more: Partial<PodMetadata> = {}): string {
    const uid = randomUUID();
    this.api.setPod({ uid, name, namespace: 'default', labels: { [MODE]: 'Single' }, ...more });
    return uid;
  }

  private scope(tool: Tool, uid: string, id: string): string {
    const slice = `kubepods-burstable-pod${uid.replaceAll('-', '_')}.slice`;
    return `/sys/fs/cgroup/${tool}/kubepods.slice/kubepods-burstable.slice/${slice}/cri-containerd-${id}.scope`;
  }

  private own(tool: Tool): string {
    return this.scope(tool, OWN_UID, OWN_ID);
  }

  /** A command that lists the files of all containers but the tool's own. */
  private files(tool: Tool): string {
    return `{ ls /sys/fs/cgroup/${tool}/kubepods.slice/*/*pod*/cri-containerd-*/memory.oom.group | grep -v ${OWN_ID} || :; }`;
  }

  private command(tool: Tool): string {
    const root = `/sys/fs/cgroup/${tool}/kubepods.slice`;
    if (tool === 'limit') {
      return `limit ${root} 0`;
    }
    if (tool === 'poll') {
      return `sh /poll.sh ${root} 0 1`;
    }
    const environment = [
      ...AGENT.env.flatMap(({ name, value }) => (value ? [`${name}=${value}`] : [])),
      'NODE_NAME=node-1',
      `POD_UID=${OWN_UID}`,
      'KUBERNETES_SERVICE_HOST=10.0.2.2',
      `KUBERNETES_SERVICE_PORT=${this.api.port}`,
      `TREE=/sys/fs/cgroup/${tool}`,
      // Ten times slower is this pause as well.
      'EXAMINE_SECONDS=0.1',
    ];
    return `env ${environment.join(' ')} sh /agent-container.sh`;
  }

  /** Freezes all tools but these. */
  private async alone(tools: readonly Tool[]): Promise<void> {
    const commands = TOOLS.map((tool) => {
      const frozen = tools.includes(tool) ? 0 : 1;
      return `
        echo ${frozen} >${this.own(tool)}/cgroup.freeze
        until grep -q 'frozen ${frozen}' ${this.own(tool)}/cgroup.events; do sleep 0.01; done`;
    });
    await this.vm.sh(commands.join('\n'));
  }

  /** Seconds of CPU that each tool has used. */
  private async cpu(): Promise<Record<Tool, number>> {
    const files = TOOLS.map((tool) => `${this.own(tool)}/cpu.stat`);
    const output = await this.vm.sh(`awk '/^usage_usec/ { print $2 }' ${files.join(' ')}`);
    const lines = output.split('\n');
    return eachTool((_, i) => Number(lines[i]) / 1e6);
  }
}

function ids(count: number): string[] {
  return Array.from({ length: count }, () => randomBytes(32).toString('hex'));
}

function eachTool<T>(make: (tool: Tool, i: number) => T): Record<Tool, T> {
  return Object.fromEntries(TOOLS.map((tool, i) => [tool, make(tool, i)])) as Record<Tool, T>;
}

/** What a pattern finds, in ascending order. */
function numbers(text: string, pattern: RegExp): number[] {
  return [...text.matchAll(pattern)].map(([, found]) => Number(found)).sort((a, b) => a - b);
}

function say(what: string): void {
  console.info(`${new Date().toISOString().slice(11, 19)} ${what}`);
}

async function main(): Promise<void> {
  const load = loadavg();
  const api = await FakeApiServer.start();
  // As an API server does.
  const bookmarks = setInterval(() => {
    api.bookmark();
  }, 60_000);
  const programs = ['runc-standin.c', 'limit.c', 'drift.c', 'poll.sh', 'churn.sh'];
  const vm = await Vm.boot(
    programs.map((name) => join(__dirname, 'guest', name)),
    MEASURING,
  );
  try {
    const bench = new Bench(vm, api);
    const [began = NaN, over = NaN] = (
      await vm.sh('cat /proc/uptime; for n in $(seq 100); do /bin/true; done; cat /proc/uptime')
    )
      .split('\n')
      .map((line) => Number(line.split(' ')[0]));
    // They are there when the agent asks for the first time, as after a reboot.
    const endedPods = Array.from({ length: ENDED_PODS }, (_, i) =>
      bench.setPod(`ended-${i}`, { phase: i % 2 ? 'Succeeded' : 'Failed' }),
    );
    await bench.startTools();
    say(`${ENDED_PODS} ended pods`);
    const ended = (await bench.measure(0)).tools.agent.idle;
    endedPods.forEach((uid) => {
      api.deletePod(uid);
    });
    const sizes = [await bench.measure(0)];
    const killed = await bench.killed();
    for (const size of SIZES) {
      sizes.push(await bench.measure(size));
    }
    const qemu = execFileSync('qemu-system-x86_64', ['--version'], { encoding: 'utf8' });
    writeResults('results.json', {
      environment: {
        script: one('ConfigMap').metadata.name,
        kernel: await vm.sh('uname -r'),
        busybox: (await vm.sh('/busybox | head -n 1')).split(' (')[0] ?? '',
        qemu: qemu.split('\n')[0] ?? '',
        hostCpus: cpus().length,
        hostLoadBefore: load,
        hostLoadAfter: loadavg(),
        millisecondsOfACommand: (over - began) * 10,
        secondsBetweenStarts: PAUSE,
        driftsPerSecond: DRIFTS_PER_SECOND,
      },
      sizes,
      ended,
      killed,
      largePodBytes: await bench.largePodBytes(),
    });
    say('written: bench/results.json, docs/performance.md');
  } catch (error) {
    const logs = TOOLS.map((tool) => `/run/${tool}.log`).join(' ');
    console.error(`${await vm.sh(`tail -n 20 ${logs}`).catch(() => '')}\n${vm.console}`);
    throw error;
  } finally {
    clearInterval(bookmarks);
    await vm.stop();
    await api.stop();
  }
}

void main();
