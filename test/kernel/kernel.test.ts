import { FakeApiServer } from '../support/api-server';
import { Container, ContainerOptions, Node, Pod, Qos } from './node';
import { Vm } from './vm';

// One virtual machine and one node for all tests, which run in order: what the agent did to the
// pods of one test it may not undo in the next.

const MODE = 'cdk8s-oom-kill-mode/mode';
const CONTAINERS = 'cdk8s-oom-kill-mode/containers';
const HOG = { command: 'hog 2', memory: '32M' };
const PRINT_MODE = { command: 'print-mode CGROUP/memory.oom.group' };
const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

let api: FakeApiServer;
let vm: Vm;
let node: Node;
let agent: Container | undefined;
const optedIn: Pod[] = [];
const ordinary: Container[] = [];
const printers: Container[] = [];

beforeAll(async () => {
  api = await FakeApiServer.start();
  vm = await Vm.boot();
  await vm.sh(`
    mkdir -p ${SERVICE_ACCOUNT}
    echo '${api.token}' >${SERVICE_ACCOUNT}/token
    echo '${api.caPem}' >${SERVICE_ACCOUNT}/ca.crt
    witness /sys/fs/cgroup >/run/witness 2>&1 &`);
  expect(await vm.until('grep watching /run/witness', 5_000)).toBe(true);
  node = new Node(vm, 'systemd');
  await node.prepare();
}, 120_000);

afterAll(async () => {
  await vm.stop();
  await api.stop();
});

/** A test that shows the guest's side of a failure. */
function inGuest(name: string, run: () => Promise<void>): void {
  test(name, async () => {
    try {
      await run();
    } catch (error) {
      const log = agent ? (await vm.run(`tail -n 40 ${agent.log}`)).output : 'not started';
      console.error(`The agent's log:\n${log}\nThe guest's console:\n${vm.console}`);
      throw error;
    }
  });
}

interface PodOptions {
  readonly mode?: string;
  readonly annotations?: Record<string, string>;
  readonly qos?: Qos;
  readonly memory?: string;
}

/** Creates pods, all at once: the API server tells the agent when it tells the kubelet. */
async function makePods(names: string[], options: PodOptions = {}): Promise<Pod[]> {
  const { mode, annotations, qos, memory } = options;
  const classes: Qos[] = qos ? [qos] : ['burstable', 'besteffort', 'guaranteed'];
  const pods = names.map((name, i) => node.pod(name, classes[i % classes.length]));
  if (mode !== undefined) {
    for (const { uid, name, namespace } of pods) {
      api.setPod({ uid, name, namespace, labels: { [MODE]: mode }, annotations });
    }
    optedIn.push(...pods);
  }
  await node.create(pods, memory);
  return pods;
}

async function makePod(name: string, options?: PodOptions): Promise<Pod> {
  const [pod] = await makePods([name], options);
  if (!pod) {
    throw new Error(`no pod ${name}`);
  }
  return pod;
}

async function start(pod: Pod, options: ContainerOptions): Promise<Container> {
  const [container] = await node.start([pod], options);
  if (!container) {
    throw new Error(`no container in ${pod.name}`);
  }
  return container;
}

const value = (container: Container) => vm.sh(`cat ${container.file}`);

const becomes = (container: Container, mode: string, timeoutMs = 5_000) =>
  vm.until(`[ "$(cat ${container.file})" = ${mode} ]`, timeoutMs);

const processOne = (container: Container) => vm.sh(`sed -n 's/^started //p' ${container.log}`);

const oomKills = async ({ cgroup }: Container) =>
  Number(await vm.sh(`awk '$1 == "oom_kill" { print $2 }' ${cgroup}/memory.events`));

/** Whether the children of the container's hog died this many times, and nothing else did. */
async function survives(hog: Container, kills: number): Promise<boolean> {
  await vm.until(`grep -E 'child died ${kills}$|killed|exited' ${hog.log}`, 60_000);
  return !/killed|exited/.test(await vm.sh(`cat ${hog.log}`));
}

const isKilled = ({ cgroup, log }: Container, timeoutMs: number) =>
  vm.until(`grep '^killed 9$' ${log} && ! [ -e ${cgroup} ]`, timeoutMs);

/** The first instructions of this many containers, each in a pod of its own, started at once. */
async function firstModes(count: number): Promise<string[]> {
  const names = Array.from({ length: count }, (_, i) => `first-${i}`);
  const pods = await makePods(names, { mode: 'Single' });
  const containers = await node.start(pods, PRINT_MODE);
  printers.push(...containers);
  const logs = containers.map(({ log }) => log).join(' ');
  expect(await vm.until(`[ $(grep -l '^exited 0$' ${logs} | wc -l) = ${count} ]`, 20_000)).toBe(
    true,
  );
  await removePods(pods);
  return (await vm.sh(`grep -h '^[01]$' ${logs}`)).split('\n');
}

async function removePods(pods: Pod[]): Promise<void> {
  pods.forEach(({ uid }) => {
    api.deletePod(uid);
  });
  await node.remove(pods);
}

/** Starts the agent as its DaemonSet does: requests 100m, limit 250m, no privileges. */
async function startAgent(): Promise<Container> {
  const pod = await makePod('agent');
  await node.write(`
    echo 4 >${pod.cgroup}/cpu.weight
    echo 25000 100000 >${pod.cgroup}/cpu.max`);
  const environment = [
    'NODE_NAME=node-1',
    `POD_UID=${pod.uid}`,
    'KUBERNETES_SERVICE_HOST=10.0.2.2',
    `KUBERNETES_SERVICE_PORT=${api.port}`,
    'LOG_LEVEL=debug',
  ];
  agent = await start(pod, { command: `env ${environment.join(' ')} sh /agent-container.sh` });
  const pid = await processOne(agent);
  const ready = `nsenter -t ${pid} -m -p -r sh /agent/agent.sh ready`;
  expect(await vm.until(ready, 20_000)).toBe(true);
  return agent;
}

interface Access {
  readonly time: number;
  readonly pid: string;
  readonly actions: string[];
  readonly path: string;
}

/**
 * Who opened and closed which files in the cgroups whose path has this in it. The path that the
 * witness sees depends on the mounts of the process: only what follows the mount point counts.
 */
async function witnessed(part: string): Promise<Access[]> {
  const { output } = await vm.run(`grep -F '${part.replace('/sys/fs/cgroup', '')}' /run/witness`);
  return output
    .split('\n')
    .filter((line) => line.includes('/kubepods'))
    .map((line) => {
      const [time, pid = '', ...rest] = line.split(' ');
      const path = (rest.at(-1) ?? '').replace(/^.*?(?=\/kubepods)/, '/sys/fs/cgroup');
      return { time: Number(time) * 1000, pid, actions: rest.slice(0, -1), path };
    });
}

/** Milliseconds from the runtime's last write of a container's mode to the agent's, sorted. */
async function reactions(containers: Container[]): Promise<number[]> {
  const writes = (await witnessed('/memory.oom.group')).filter(({ actions }) =>
    actions.includes('write'),
  );
  return containers
    .map(({ file }) => {
      const here = writes.filter(({ path }) => path === file);
      const last = here.filter(({ pid }) => node.ours.has(pid)).at(-1)?.time ?? NaN;
      const next =
        here.find(({ pid, time }) => !node.ours.has(pid) && time >= last)?.time ?? Infinity;
      return Math.round(next - last);
    })
    .sort((a, b) => a - b);
}

describe('without an agent', () => {
  inGuest('the first instruction of a container sees Group, whatever the label says', async () => {
    expect(await firstModes(5)).toEqual(Array(5).fill('1'));
  });

  inGuest('an OOM kill takes the whole container, whatever the label says', async () => {
    const container = await start(await makePod('unprotected', { mode: 'Single' }), HOG);
    expect(await isKilled(container, 30_000)).toBe(true);
    await removePods([container.pod]);
  });
});

describe('with the agent', () => {
  let hog: Container;
  let single: Container;
  let group: Container;

  beforeAll(async () => {
    await startAgent();
  }, 60_000);

  inGuest('an opted-in container survives ten OOM kills with the same process 1', async () => {
    hog = await start(await makePod('hog', { mode: 'Single', memory: '32M' }), HOG);
    const pid = await processOne(hog);
    expect(await survives(hog, 10)).toBe(true);
    expect(await oomKills(hog)).toBeGreaterThanOrEqual(10);
    expect(await vm.sh(`cat ${hog.cgroup}/cgroup.procs`)).toMatch(new RegExp(`^${pid}$`, 'm'));
  });

  inGuest('an ordinary container is killed as a group, process 1 and all', async () => {
    const container = await start(await makePod('ordinary-hog', { memory: '32M' }), HOG);
    ordinary.push(container);
    expect(await isKilled(container, 30_000)).toBe(true);
    expect(await vm.sh(`cat ${container.log}`)).not.toMatch(/child died/);
  });

  inGuest('the first instruction of an opted-in container sees Single, 100 of 100', async () => {
    printers.length = 0;
    const modes: string[] = [];
    for (let batch = 0; batch < 10; batch++) {
      modes.push(...(await firstModes(10)));
    }
    const times = await reactions(printers);
    console.info(`From the runtime's write to the agent's, ms: ${times.join(' ')}`);
    expect(modes).toEqual(Array(100).fill('0'));
  });

  inGuest('a value that systemd or someone else rewrites is repaired, both ways', async () => {
    single = await start(await makePod('single', { mode: 'Single' }), { command: 'sleep 1000' });
    group = await start(await makePod('group', { mode: 'Group', qos: 'guaranteed' }), {
      command: 'sleep 1000',
    });
    for (const [container, wanted, other] of [
      [single, '0', '1'],
      [group, '1', '0'],
    ] as const) {
      expect(await becomes(container, wanted)).toBe(true);
      for (let reload = 0; reload < 5; reload++) {
        await node.write(`echo ${other} >${container.file}`);
        expect(await becomes(container, wanted)).toBe(true);
      }
    }
  });

  inGuest('the values of an in-place resize are repaired', async () => {
    await node.write(`echo 0 >${single.file}; sleep 0.01; echo 1 >${single.file}`);
    expect(await becomes(single, '0')).toBe(true);
    await node.write(`echo 0 >${group.file}; sleep 0.01; echo 1 >${group.file}`);
    expect(await becomes(group, '1')).toBe(true);
  });

  inGuest('a container that the annotation names gets its own mode', async () => {
    const annotations = { [CONTAINERS]: 'proxy=Group' };
    const pod = await makePod('web', { mode: 'Single', annotations });
    const worker = await start(pod, { name: 'worker', command: 'sleep 1000' });
    const proxy = await start(pod, { name: 'proxy', command: 'sleep 1000' });
    expect(await becomes(proxy, '1')).toBe(true);
    expect(await becomes(worker, '0')).toBe(true);
    await node.write(`echo 0 >${proxy.file}; echo 1 >${worker.file}`);
    expect(await becomes(proxy, '1')).toBe(true);
    expect(await becomes(worker, '0')).toBe(true);
  });

  inGuest('without its label a container goes back to the value of the node', async () => {
    const container = await start(await makePod('leaver', { mode: 'Single' }), {
      command: 'sleep 1000',
    });
    expect(await becomes(container, '0')).toBe(true);
    api.removeLabel(container.pod.uid);
    expect(await becomes(container, '1')).toBe(true);
    expect(await value(single)).toBe('0');
  });

  inGuest('nobody but the runtime ever opened the file of an ordinary container', async () => {
    ordinary.push(await start(await makePod('ordinary'), { command: 'sleep 1000' }));
    // Enough for the agent to do it: it has new pods to attend to meanwhile.
    expect(await firstModes(5)).toEqual(Array(5).fill('0'));
    for (const { cgroup, file } of ordinary) {
      const accesses = await witnessed(cgroup);
      const opened = accesses.filter(({ path }) => path === file);
      expect(opened.some(({ actions }) => actions.includes('write'))).toBe(true);
      expect(opened.filter(({ pid }) => !node.ours.has(pid))).toEqual([]);
    }
  });

  inGuest(
    'of all files of all cgroups the agent only wrote the modes of opted-in pods',
    async () => {
      const written = (await witnessed('/kubepods'))
        .filter(({ actions, pid }) => actions.includes('write') && !node.ours.has(pid))
        // A container's process 1 enters its cgroup itself.
        .filter(({ path }) => !path.endsWith('/cgroup.procs'));
      const isMode = ({ path }: Access) =>
        path.endsWith('/memory.oom.group') &&
        optedIn.some(({ cgroup }) => path.startsWith(`${cgroup}/`));
      expect(written.filter(isMode).length).toBeGreaterThanOrEqual(100);
      expect(written.filter((access) => !isMode(access))).toEqual([]);
    },
  );

  inGuest('what the agent is at rest', async () => {
    if (!agent) {
      throw new Error('no agent');
    }
    await removePods([hog.pod]);
    await vm.sh('sleep 5');
    const { cgroup, log } = agent;
    const processes = `for pid in $(cat ${cgroup}/cgroup.procs); do
      echo "$(tr '\\0' ' ' </proc/$pid/cmdline | cut -c -100)" $(grep ctxt /proc/$pid/status | tr -s '\\t\\n' ' ')
    done`;
    const lines = Number(await vm.sh(`wc -l <${log}`));
    const before = await vm.sh(processes);
    await vm.sh('sleep 10');
    const after = await vm.sh(processes);
    const figures = await vm.sh(`cd ${cgroup}
      grep . memory.current memory.peak cpu.stat 2>/dev/null || :
      grep -E '^(anon|file|kernel|slab) ' memory.stat`);
    console.info(`The agent at rest, 10 s apart:\n${before}\n--\n${after}\n--\n${figures}`);
    expect(Number(await vm.sh(`wc -l <${log}`))).toBe(lines);
  });

  inGuest('SIGTERM ends the agent within a second and changes no container', async () => {
    if (!agent) {
      throw new Error('no agent');
    }
    await vm.sh(`kill -TERM ${await processOne(agent)}`);
    expect(await vm.until(`grep -E '^(exited|killed)' ${agent.log}`, 1_000)).toBe(true);
    expect([await value(single), await value(group)]).toEqual(['0', '1']);
  });
});

describe('with the cgroupfs driver', () => {
  beforeAll(async () => {
    node = new Node(vm, 'cgroupfs');
    await node.prepare();
    await startAgent();
  }, 60_000);

  inGuest('the first instruction of an opted-in container sees Single, 20 of 20', async () => {
    const modes = [...(await firstModes(10)), ...(await firstModes(10))];
    expect(modes).toEqual(Array(20).fill('0'));
  });

  inGuest('an opted-in container survives OOM kills, an ordinary one does not', async () => {
    const hog = await start(await makePod('hog', { mode: 'Single' }), HOG);
    const other = await start(await makePod('ordinary'), HOG);
    expect(await isKilled(other, 30_000)).toBe(true);
    expect(await survives(hog, 3)).toBe(true);
  });
});
