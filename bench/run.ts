// npm run bench: this agent, the polling loops people use today, and a C program that does only inotify,
// read and write, side by side in one boot of one virtual machine. Writes bench/results.json, which
// holds every single figure; bench/report.ts makes the table and the plots of it.
//
// Every tool has the same pods and containers in a kubepods root of its own, the same CPU weight (a
// request of 100m) and the same limit (250m). While the agent and the C program repair drift, in small
// blocks in turns so that noise meets both, the loops are frozen, and the other way round. Starts of containers and
// idle time are the same moments for all of them.
//
// The host may be slower than usual, and so is the guest then. What has a fixed pace, the limit and the
// runtime's steps, is slowed down as much (see Vm.slowness), or the agent had less CPU for each start
// than any node gives it.

import { execFileSync } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { Testing } from 'cdk8s';

import { OomKillModeAgent } from '../lib';
import { FakeApiServer } from '../test/support/api-server';
import { drivers } from '../test/kernel/node';
import { DRIFT, Vm } from '../test/kernel/vm';
import { writeResults } from './report';
import { Latencies, Results, SizeResults, Tool, ToolResults, TOOLS } from './schema';

const number = (name: string, standard: number) => Number(process.env[name] ?? standard);

const SIZES = (process.env.BENCH_SIZES ?? '1,30,110').split(',').map(Number);
const CONTAINERS = 3;
/** Container starts for each tool, all sizes together. */
const STARTS = number('BENCH_STARTS', 1000);
/** Seconds from one start to the next, that of the sandbox included, and the runtime's steps in ms. */
const PAUSE = number('BENCH_PAUSE', 1);
const STEPS = drivers.systemd.times;
const DRIFTS = number('BENCH_DRIFTS', 500);
const DRIFTS_PER_SECOND = 5;
/** So short that the agent's ticks, one a minute, meet its own blocks as often as they would its time. */
const BLOCKS = 25;
const IDLE_SECONDS = number('BENCH_IDLE_SECONDS', 60);
/** The tools' limit: microseconds of CPU in each 100 ms. */
const QUOTA = 25_000;
/** As much as a node gives for the same limit, which is about ten times as fast; and starts with it. */
const QUOTA_OF_NODE = 10 * QUOTA;
const STARTS_OF_NODE = number('BENCH_STARTS_OF_NODE', 1000);

const guest = join(__dirname, 'guest');
const OWN_UID = randomUUID();
const OWN_ID = randomBytes(32).toString('hex');
const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

/** How long the drift of a polling loop is watched: longer than its period. */
const POLL_SECONDS = number('BENCH_POLL_SECONDS', 90);

interface DaemonSetSpec {
  readonly template: { readonly metadata: { readonly annotations: Record<string, string> } };
}

interface Usage {
  readonly cpuMicroseconds: number;
  readonly wakeups: number;
  readonly pssBytes: number;
  readonly currentBytes: number;
  readonly peakBytes: number;
}

class Bench {
  private pods: string[] = [];
  /** How slow the guest was before the starts at each size, and before what has the CPU of a node. */
  public readonly slowness: number[] = [];

  public constructor(
    private readonly vm: Vm,
    private readonly api: FakeApiServer,
  ) {}

  /** Starts every tool as a container of its own pod. */
  public async startTools(): Promise<void> {
    await this.vm.sh(`
      mkdir -p ${SERVICE_ACCOUNT} /run/starts
      echo '${this.api.token}' >${SERVICE_ACCOUNT}/token
      echo '${this.api.caPem}' >${SERVICE_ACCOUNT}/ca.crt
      echo '+cpu +memory' >/sys/fs/cgroup/cgroup.subtree_control
      /churn.sh roots ${TOOLS.join(' ')}`);
    for (const tool of TOOLS) {
      const scope = this.own(tool);
      await this.vm.sh(`
        mkdir -p /run/starts/${tool} ${scope.slice(0, scope.lastIndexOf('/'))}
        cd ${scope.slice(0, scope.lastIndexOf('/'))}
        echo '+cpu +memory' >cgroup.subtree_control
        echo 4 >cpu.weight
        runc-standin -t 0,0,0,0 ${scope} ${this.command(tool)} >/run/${tool}.log 2>&1 &`);
    }
    const ready = `nsenter -t $(head -n 1 ${this.own('agent')}/cgroup.procs) -m -p -r sh /agent/agent.sh ready`;
    if (!(await this.vm.until(ready, 60_000))) {
      throw new Error(`the agent does not get ready:\n${await this.vm.sh('cat /run/agent.log')}`);
    }
  }

  public async measure(size: number, starts: number): Promise<SizeResults> {
    say(`${size} pods`);
    await this.limit(QUOTA);
    await this.grow(size);
    const idle = await this.idle();
    say('drift');
    const drift = await this.drift(size);
    say('starts');
    const started = await this.starts(starts, QUOTA);
    return {
      pods: size,
      containers: size * CONTAINERS,
      tools: Object.fromEntries(
        TOOLS.map((tool) => {
          const results: ToolResults = {
            idle: idle[tool],
            drift: drift[tool],
            starts: started[tool],
          };
          return [tool, results];
        }),
      ) as Record<Tool, ToolResults>,
    };
  }

  /** Adds pods until there are this many, and waits until the agent has reached all of them. */
  private async grow(size: number): Promise<void> {
    while (this.pods.length < size) {
      const uid = randomUUID();
      this.pods.push(uid);
      this.setPod(uid, `still-${this.pods.length}`);
      await this.vm.sh(`/churn.sh still ${uid} ${ids(CONTAINERS).join(' ')} -- ${TOOLS.join(' ')}`);
    }
    for (const tool of TOOLS) {
      const all = `[ "$(cat $(${this.files(tool)}) | grep -c 0)" = ${size * CONTAINERS} ]`;
      if (!(await this.vm.until(all, 120_000))) {
        throw new Error(`${tool} does not reach ${size} pods`);
      }
    }
    // What it had put off until then.
    await sleep(5000);
  }

  private async idle(): Promise<Record<Tool, ToolResults['idle']>> {
    say('idle');
    const requests = this.api.requests.length;
    const bytes = this.api.bytes;
    const before = await this.usages();
    await sleep((IDLE_SECONDS * 1000) / 2);
    this.api.bookmark();
    await sleep((IDLE_SECONDS * 1000) / 2);
    const after = await this.usages();
    const perMinute = (amount: number) => (amount * 60) / IDLE_SECONDS;
    return eachTool((tool) => ({
      cpuSecondsPerMinute: perMinute(
        (after[tool].cpuMicroseconds - before[tool].cpuMicroseconds) / 1e6,
      ),
      wakeupsPerMinute: perMinute(after[tool].wakeups - before[tool].wakeups),
      requestsPerMinute: tool === 'agent' ? perMinute(this.api.requests.length - requests) : 0,
      requestBytesPerMinute: tool === 'agent' ? perMinute(this.api.bytes - bytes) : 0,
      pssBytes: after[tool].pssBytes,
      currentBytes: after[tool].currentBytes,
      peakBytes: after[tool].peakBytes,
    }));
  }

  private async drift(size: number): Promise<Record<Tool, ToolResults['drift']>> {
    const latencies = eachTool((): Latencies => ({ microseconds: [], pending: [] }));
    const cpu = eachTool(() => 0);
    // The two that take turns do nothing in the other's but the agent its tick, which comes as often as
    // ever: while one of them was frozen its clock would go on, and a tick would meet it in each turn.
    // Turns of ten seconds, three of each a minute, would put all ticks in those of one of the two.
    const loops = TOOLS.filter((tool) => tool.startsWith('poll'));
    await this.freeze(loops);
    const block = async (tool: Tool, count: number, seconds: number, seed: number) => {
      const before = await this.cpu(tool);
      const command = `drift 0 ${count} ${DRIFTS_PER_SECOND} ${seconds} ${seed}`;
      const output = await this.vm.sh(`${this.files(tool)} | ${command}`, (seconds + 60) * 1000);
      cpu[tool] += (await this.cpu(tool)) - before;
      read(output, latencies[tool]);
    };
    for (let i = 0; i < BLOCKS; i++) {
      for (const tool of ['agent', 'limit'] as const) {
        await block(tool, DRIFTS / BLOCKS, 120, size * 1000 + i);
      }
    }
    await this.freeze(['agent', 'limit']);
    await this.thaw(loops);
    await this.pollingDrift(size, latencies, cpu);
    await this.thaw(['agent', 'limit']);
    return eachTool((tool) => {
      const { microseconds, pending } = latencies[tool];
      const events = microseconds.length + pending.length;
      return {
        cpuSecondsPerThousand: cpu[tool] / 1e6 / (events / 1000),
        latencies: sorted(latencies[tool]),
      };
    });
  }

  /** The loops at the same time: they have minutes to wait, and nothing to do for each other. */
  private async pollingDrift(
    size: number,
    latencies: Record<Tool, Latencies>,
    cpu: Record<Tool, number>,
  ): Promise<void> {
    const loops = TOOLS.filter((tool) => tool.startsWith('poll'));
    const before = await this.usages();
    const drift = `drift 0 ${DRIFTS} ${DRIFTS_PER_SECOND} ${POLL_SECONDS} ${size * 1000}`;
    const commands = loops.map((tool) => `(${this.files(tool)} | ${drift} >/run/drift-${tool}) &`);
    await this.vm.sh(`${commands.join('\n')}\nwait`, (POLL_SECONDS + 60) * 1000);
    const after = await this.usages();
    for (const tool of loops) {
      read(await this.vm.sh(`cat /run/drift-${tool}`), latencies[tool]);
      cpu[tool] = after[tool].cpuMicroseconds - before[tool].cpuMicroseconds;
    }
  }

  /** Starts and drift with as much CPU as the limit is on a node. */
  public async withCpuOfNode(): Promise<Results['withCpuOfNode']> {
    say('starts, with the CPU of a node');
    const starts = await this.starts(STARTS_OF_NODE, QUOTA_OF_NODE);
    say('drift, with the CPU of a node');
    const drift = await this.drift(this.pods.length);
    return eachTool((tool) => ({ drift: drift[tool], starts: starts[tool] }));
  }

  /** Measures how slow the guest is when no tool does anything, and limits the pods of the tools. */
  private async limit(quota: number): Promise<number> {
    await this.freeze(TOOLS);
    const measured: number[] = [];
    for (let i = 0; i < 9; i++) {
      await this.vm.measure();
      measured.push(this.vm.slowness);
    }
    await this.thaw(TOOLS);
    const slowness = measured.sort((a, b) => a - b)[4] ?? 1;
    for (const tool of TOOLS) {
      const pod = this.own(tool).replace(/\/[^/]*$/, '');
      await this.vm.sh(`echo ${Math.round(quota * slowness)} 100000 >${pod}/cpu.max`);
    }
    say(`${slowness.toFixed(2)} times as slow as usual`);
    return slowness;
  }

  private async starts(count: number, quota: number): Promise<Record<Tool, ToolResults['starts']>> {
    const slowness = await this.limit(quota);
    this.slowness.push(slowness);
    const pause = PAUSE * slowness;
    const steps = STEPS.map((step) => Math.round(step * slowness)).join(',');
    const before = await this.usages();
    await this.vm.sh(TOOLS.map((tool) => `rm -rf /run/starts/${tool}/*`).join('\n'));
    const leaving: string[] = [];
    const pods = Math.ceil(count / CONTAINERS);
    for (let i = 0; i < pods; i++) {
      const uid = randomUUID();
      const name = `starting-${i}-${uid.slice(0, 8)}`;
      this.setPod(uid, name);
      leaving.push(uid);
      await this.vm.sh(
        `/churn.sh start ${pause.toFixed(3)} ${steps} ${name} ${uid} ${ids(CONTAINERS + 1).join(' ')} -- ${TOOLS.join(' ')} >>/run/churn.log 2>&1 &`,
      );
      await sleep(pause * (CONTAINERS + 1) * 1000);
      // The kubelet removes a pod from the API once its containers have ended.
      while (leaving.length > Math.ceil(12 / (pause * (CONTAINERS + 1))) + 1) {
        this.api.deletePod(leaving.shift() ?? '');
      }
    }
    await sleep(15_000);
    leaving.forEach((uid) => {
      this.api.deletePod(uid);
    });
    const after = await this.usages();
    const complaints = await this.vm.sh('cat /run/churn.log');
    if (complaints !== '') {
      throw new Error(`churn.sh complains:\n${complaints}`);
    }
    const latencies = eachTool((): Latencies => ({ microseconds: [], pending: [] }));
    const right = eachTool(() => 0);
    const seen = eachTool(() => 0);
    for (const tool of TOOLS) {
      const output = await this.vm.sh(
        `cd /run/starts/${tool}; for file in *; do echo $(cat $file); done`,
      );
      for (const line of output.split('\n')) {
        const first = /(?:^| )([01])(?: |$)/.exec(line)?.[1];
        const written = /written (\w+)/.exec(line)?.[1];
        if (first === undefined || written === undefined) {
          throw new Error(`${tool}: a container that did not start: ${line}`);
        }
        seen[tool] += 1;
        right[tool] += first === '0' ? 1 : 0;
        if (written === 'never') {
          latencies[tool].pending.push(3e6);
        } else {
          latencies[tool].microseconds.push(Number(written));
        }
      }
    }
    const cpu = eachTool(
      (tool) =>
        (after[tool].cpuMicroseconds - before[tool].cpuMicroseconds) / 1e6 / (seen[tool] / 1000),
    );
    return eachTool((tool) => ({
      count: seen[tool],
      rightAtFirstInstruction: right[tool],
      cpuSecondsPerThousand: cpu[tool],
      latencies: sorted(latencies[tool]),
    }));
  }

  private setPod(uid: string, name: string): void {
    this.api.setPod({
      uid,
      name,
      namespace: 'default',
      labels: { 'cdk8s-oom-kill-mode/mode': 'Single' },
    });
  }

  private own(tool: Tool): string {
    const slice = `kubepods-burstable-pod${OWN_UID.replaceAll('-', '_')}.slice`;
    return `/sys/fs/cgroup/${tool}/kubepods.slice/kubepods-burstable.slice/${slice}/cri-containerd-${OWN_ID}.scope`;
  }

  /** A command that lists the files of all containers but the tool's own. */
  private files(tool: Tool): string {
    return `ls /sys/fs/cgroup/${tool}/kubepods.slice/*/*pod*/cri-containerd-*/memory.oom.group | grep -v ${OWN_ID}`;
  }

  private command(tool: Tool): string {
    const root = `/sys/fs/cgroup/${tool}/kubepods.slice`;
    if (tool === 'limit') {
      return `limit ${root} 0`;
    }
    if (tool !== 'agent') {
      return `sh /poll.sh ${root} 0 ${tool.slice('poll-'.length)}`;
    }
    const environment = [
      'NODE_NAME=node-1',
      `POD_UID=${OWN_UID}`,
      'KUBERNETES_SERVICE_HOST=10.0.2.2',
      `KUBERNETES_SERVICE_PORT=${this.api.port}`,
      'CGROUPS=/sys/fs/cgroup/agent',
      // As the construct has it unless told otherwise.
      'EVENTS=yes',
    ];
    return `env ${environment.join(' ')} sh /agent-container.sh`;
  }

  private async freeze(tools: readonly Tool[]): Promise<void> {
    for (const tool of tools) {
      await this.vm.sh(`
        echo 1 >${this.own(tool)}/cgroup.freeze
        until grep -q 'frozen 1' ${this.own(tool)}/cgroup.events; do sleep 0.01; done`);
    }
  }

  private async thaw(tools: readonly Tool[]): Promise<void> {
    await this.vm.sh(tools.map((tool) => `echo 0 >${this.own(tool)}/cgroup.freeze`).join('\n'));
  }

  private async cpu(tool: Tool): Promise<number> {
    return Number(await this.vm.sh(`awk '/^usage_usec/ { print $2 }' ${this.own(tool)}/cpu.stat`));
  }

  private async usages(): Promise<Record<Tool, Usage>> {
    const output = await this.vm.sh(
      TOOLS.map((tool) => {
        const scope = this.own(tool);
        return `
          cd ${scope}
          echo $(awk '/^usage_usec/ { print $2 }' cpu.stat) $(cat memory.current memory.peak) \\
            $(for pid in $(cat cgroup.procs); do cat /proc/$pid/smaps_rollup /proc/$pid/status; done 2>/dev/null |
              awk '/^Pss:/ { pss += $2 } /^voluntary_ctxt/ { wakeups += $2 } END { print pss, wakeups }')`;
      }).join('\n'),
    );
    const lines = output.split('\n');
    return eachTool((_, i) => {
      const [cpuMicroseconds = NaN, currentBytes = NaN, peakBytes = NaN, pss = NaN, wakeups = NaN] =
        (lines[i] ?? '').split(' ').map(Number);
      return { cpuMicroseconds, currentBytes, peakBytes, pssBytes: pss * 1024, wakeups };
    });
  }
}

function ids(count: number): string[] {
  return Array.from({ length: count }, () => randomBytes(32).toString('hex'));
}

function eachTool<T>(make: (tool: Tool, i: number) => T): Record<Tool, T> {
  return Object.fromEntries(TOOLS.map((tool, i) => [tool, make(tool, i)])) as Record<Tool, T>;
}

/** What `drift` printed. */
function read(output: string, latencies: Latencies): void {
  for (const line of output.split('\n').filter((text) => text !== '')) {
    const [word, age] = line.split(' ');
    if (word === 'pending') {
      latencies.pending.push(Number(age));
    } else {
      latencies.microseconds.push(Number(word));
    }
  }
}

function sorted({ microseconds, pending }: Latencies): Latencies {
  const ascending = (a: number, b: number) => a - b;
  return { microseconds: microseconds.sort(ascending), pending: pending.sort(ascending) };
}

function say(what: string): void {
  console.info(`${new Date().toISOString().slice(11, 19)} ${what}`);
}

/** The state of the agent that was measured: what the annotation of its pods says. */
function scriptSha256(): string {
  const chart = Testing.chart();
  new OomKillModeAgent(chart, 'agent');
  const manifests = Testing.synth(chart) as { kind: string; spec: DaemonSetSpec }[];
  const { annotations } = manifests.find(({ kind }) => kind === 'DaemonSet')?.spec.template
    .metadata ?? { annotations: {} };
  return annotations['cdk8s-oom-kill-mode/script-sha256'] ?? '';
}

async function main(): Promise<void> {
  const load = loadavg();
  const api = await FakeApiServer.start();
  const vm = await Vm.boot(
    ['limit.c', 'poll.sh', 'churn.sh'].map((name) => join(guest, name)).concat(DRIFT),
  );
  try {
    const bench = new Bench(vm, api);
    await bench.startTools();
    const sizes: SizeResults[] = [];
    for (const size of SIZES) {
      sizes.push(await bench.measure(size, STARTS / SIZES.length));
    }
    const withCpuOfNode = await bench.withCpuOfNode();
    const qemu = execFileSync('qemu-system-x86_64', ['--version'], { encoding: 'utf8' });
    const results: Results = {
      environment: {
        script: scriptSha256(),
        kernel: await vm.sh('uname -r'),
        busybox: (await vm.sh('/busybox | head -n 1')).split(' (')[0] ?? '',
        qemu: qemu.split('\n')[0] ?? '',
        hostCpus: cpus().length,
        hostLoadBefore: load,
        hostLoadAfter: loadavg(),
        secondsBetweenStarts: PAUSE,
        driftsPerSecond: DRIFTS_PER_SECOND,
        slowness: bench.slowness,
      },
      sizes,
      withCpuOfNode,
    };
    await writeResults('results.json', results);
    say('written: bench/results.json, docs/performance*');
  } catch (error) {
    console.error(`${await vm.sh('tail -n 30 /run/agent.log').catch(() => '')}\n${vm.console}`);
    throw error;
  } finally {
    await vm.stop();
    await api.stop();
  }
}

void main();
