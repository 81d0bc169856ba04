import { ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

import { FakeApiServer, PodMetadata } from './api-server';

const ROOT = resolve(__dirname, '../..');
const TOOLS = join(ROOT, '.cache/tools');
const SCRIPT = join(ROOT, 'lib/agent/agent.sh');
const OWN_UID = '0a0a0a0a-1111-4222-8333-444444444444';

/** Seconds until what was waited for counts as never coming; less than the limit of a test. */
const PATIENCE = Number(process.env.PATIENCE_SECONDS ?? 120);

/** The PATH of an agent: busybox's tools first. */
export const TOOLS_PATH = `${join(TOOLS, 'bin')}:${process.env.PATH ?? ''}`;

/** The shell that the script is written for, as the command line that runs it. */
const SHELL = [join(TOOLS, 'busybox'), 'ash'];

/** Fails with the names of the tools that are missing, and what brings them. */
export function requireTools(): void {
  const missing = ['curl', 'openssl', 'ps', 'chattr', 'busybox', 'inotifyd'].filter(
    (tool) =>
      spawnSync('sh', ['-c', `PATH=${TOOLS}/bin:${TOOLS}:$PATH; command -v ${tool}`]).status,
  );
  if (missing.length > 0) {
    throw new Error(`missing: ${missing.join(', ')}; this brings them: sh scripts/tools.sh`);
  }
}

/** How a kubelet names its cgroups: one entry for each layout that is in use. */
export interface Layout {
  /** The directory of a pod of the given QoS class, below the cgroup root. */
  pod(uid: string, qos: Qos): string;
  /** The directory of a container, below the pod's. */
  container(id: string): string;
  /** Whether it is CRI-O's with crun and conmon: the processes are one level below, in `container`. */
  readonly crun?: boolean;
}

/** A class of pods; Kubernetes 1.38 plans a level of its own for the pods of the system. */
export type Qos = `${'' | 'system-'}${'guaranteed' | 'burstable' | 'besteffort'}`;
const CLASSES = ['guaranteed', 'burstable', 'besteffort'] as const;
/** The levels of cgroups from the root of all pods to that of a class. */
const levels = (qos: Qos) => qos.split('-').filter((level) => level !== 'guaranteed');

export const LAYOUTS: Record<string, Layout> = {
  'systemd driver, containerd': systemd('kubepods', (id) => `cri-containerd-${id}.scope`),
  'systemd driver, CRI-O': { ...systemd('kubepods', (id) => `crio-${id}.scope`), crun: true },
  'systemd driver, cri-dockerd': systemd('kubepods', (id) => `docker-${id}.scope`),
  'systemd driver, kind': systemd(
    'kubelet-kubepods',
    (id) => `cri-containerd-${id}.scope`,
    'kubelet.slice/kubelet-kubepods.slice',
  ),
  'cgroupfs driver, containerd': cgroupfs('kubepods', (id) => id),
  'cgroupfs driver, CRI-O': cgroupfs('kubepods', (id) => `crio-${id}`),
  'cgroupfs driver, own cgroup root': cgroupfs('my/own/root/kubepods', (id) => id),
};

/** The most common of them. */
export const SYSTEMD = LAYOUTS['systemd driver, containerd'] as Layout;

function systemd(
  slice: string,
  container: (id: string) => string,
  root = `${slice}.slice`,
): Layout {
  const pod = (uid: string, qos: Qos) => {
    const parts = [slice, ...levels(qos), `pod${uid.replaceAll('-', '_')}`];
    const slices = parts.map((_, i) => `${parts.slice(0, i + 1).join('-')}.slice`);
    return [root, ...slices.slice(1)].join('/');
  };
  return { container, pod };
}

function cgroupfs(top: string, container: (id: string) => string): Layout {
  return { container, pod: (uid, qos) => [top, ...levels(qos), `pod${uid}`].join('/') };
}

/** What the kernel counts in memory.events, in its order. */
const MEMORY_EVENTS = ['low', 'high', 'max', 'oom', 'oom_kill', 'oom_group_kill'] as const;
type Counters = Partial<Record<(typeof MEMORY_EVENTS)[number], number>>;

/** The files of the counters of a cgroup and all below it, and of those of the cgroup alone. */
const COUNTERS = ['memory.events', 'memory.events.local'] as const;

/** Whose limit is hit when processes of a container are killed. */
export type Limit = 'container' | 'inside' | 'pod' | 'node';

/** The path of a pod's cgroup, at the beginning of a container's. */
const POD = /^.*?pod[0-9a-f][^/]*/;

let ids = 0;

/** A container id: 64 hex digits, another one each time. */
export function containerId(): string {
  ids += 1;
  return ids.toString(16).padStart(8, '0').padEnd(64, '5');
}

/** A pod UID, another one each time. */
export function podUid(): string {
  ids += 1;
  return `e${ids.toString(16).padStart(7, '0')}-1111-4222-8333-444444444444`;
}

/** The label and the annotation that the agent looks at, unless it is told otherwise. */
export const LABEL = 'cdk8s-oom-kill-mode/mode';
export const ANNOTATION = 'cdk8s-oom-kill-mode/containers';

/** A pod with a mode, or with none, that nobody knows of yet. */
export function newPod(mode?: string, more: Partial<PodMetadata> = {}): PodMetadata {
  const uid = more.uid ?? podUid();
  const labels = { app: 'x', ...(mode === undefined ? {} : { [LABEL]: mode }) };
  return { uid, name: `pod-${uid.slice(0, 8)}`, namespace: 'default', labels, ...more };
}

/**
 * A node made of a temporary directory: cgroups, container logs, and the agent's own pod.
 *
 * The kernel makes a cgroup with all its files at one blow, and removes it so. Here it is made in a
 * place of its own, and a link brings it into the tree: that is one system call, of which inotify
 * tells as of a new directory.
 */
export class FakeNode {
  public readonly directory = mkdtempSync(join(tmpdir(), 'agent-'));
  public readonly cgroupRoot = join(this.directory, 'cgroup');
  public readonly logs = join(this.directory, 'containers');
  public readonly run = join(this.directory, 'run');
  public readonly serviceAccount = join(this.directory, 'serviceaccount');
  /** Where systemd keeps its scopes; on a node without systemd it is not there. */
  public readonly transient = join(this.directory, 'systemd');
  /** The directory of the agent's own container, below the cgroup root. */
  public readonly own: string;
  /** Where the kernel lists the agent's process; another one is a container of a foreign place. */
  public procs: string;

  private readonly made = join(this.directory, 'made');
  /** When the node itself wrote its files last. */
  private readonly times = new Map<string, number>();

  public constructor(
    public readonly layout: Layout,
    options: { nodeValue?: string; ownQos?: Qos; version?: 1 | 2; system?: boolean } = {},
  ) {
    const { cgroupRoot, logs, run, serviceAccount, made } = this;
    for (const directory of [cgroupRoot, logs, run, serviceAccount, made]) {
      mkdirSync(directory);
    }
    if (options.version !== 1) {
      writeFileSync(join(cgroupRoot, 'cgroup.controllers'), 'cpu memory pids\n');
    }
    for (const qos of CLASSES.flatMap((one): Qos[] =>
      options.system ? [one, `system-${one}`] : [one],
    )) {
      const above = dirname(layout.pod('x', qos));
      mkdirSync(join(cgroupRoot, above), { recursive: true });
      this.write(above, '0');
    }
    const pod = this.createPod(OWN_UID, options.ownQos);
    this.createSandbox(pod);
    this.own = this.createContainer(pod, containerId(), options.nodeValue ?? '1');
    this.procs = join(cgroupRoot, this.own, 'cgroup.procs');
  }

  /** Creates a pod's cgroup. */
  public createPod(uid: string, qos: Qos = 'burstable'): string {
    const pod = this.layout.pod(uid, qos);
    mkdirSync(join(this.cgroupRoot, pod));
    this.write(pod, '0');
    COUNTERS.forEach((name) => {
      this.put(pod, name, memoryEvents({}));
    });
    return pod;
  }

  /** Creates a container's cgroup with a value, as the kernel (0) or runc (1) leaves it. */
  public createContainer(pod: string, id: string, value = '0'): string {
    const path = join(pod, this.layout.container(id));
    if (!this.layout.crun) {
      return this.createCgroup(path, value);
    }
    this.createCgroup(join(pod, `crio-conmon-${id}.scope`));
    return this.createCgroup(join(this.createCgroup(path), 'container'), value);
  }

  /** Creates the cgroup of a pod's sandbox, which never gets a log; CRI-O's is no scope. */
  public createSandbox(pod: string): string {
    const id = containerId();
    return this.createCgroup(
      join(pod, this.layout.crun ? `crio-${id}` : this.layout.container(id)),
    );
  }

  /** Creates a cgroup in one that there is. */
  public createCgroup(path: string, value = '0'): string {
    const directory = mkdtempSync(join(this.made, 'cgroup-'));
    const files = {
      'memory.oom.group': `${value}\n`,
      ...Object.fromEntries(COUNTERS.map((name) => [name, memoryEvents({})])),
      'cgroup.events': 'populated 1\nfrozen 0\n',
    };
    // The processes of others have no number in the agent's container. It is the kernel that writes it.
    writeFileSync(join(directory, 'cgroup.procs'), '0\n');
    for (const [name, text] of Object.entries(files)) {
      writeFileSync(join(directory, name), text);
      this.times.set(this.file(path, name), statSync(join(directory, name)).mtimeMs);
    }
    symlinkSync(directory, join(this.cgroupRoot, path));
    return path;
  }

  public write(cgroup: string, value: string): void {
    this.put(cgroup, 'memory.oom.group', `${value}\n`);
  }

  public read(cgroup: string): string {
    return readFileSync(this.file(cgroup), 'utf8').trim();
  }

  public file(cgroup: string, name = 'memory.oom.group'): string {
    return join(this.cgroupRoot, cgroup, name);
  }

  /** The files that somebody else wrote after the node had, but those of containers of these pods. */
  public strange(pods: Iterable<string>): string[] {
    const ours = [...pods];
    const container =
      /^\/(?!crio-conmon-)[^/]*[0-9a-f]{64}(\.scope)?(\/container)?\/memory\.oom\.group$/;
    return [...this.times]
      .filter(([path, time]) => existsSync(path) && statSync(path).mtimeMs !== time)
      .map(([path]) => path.slice(this.cgroupRoot.length + 1))
      .filter(
        (path) =>
          !ours.some((pod) => path.startsWith(`${pod}/`) && container.test(path.slice(pod.length))),
      );
  }

  /** Removes a cgroup, or a pod's with all that are in it. */
  public vanish(cgroup: string): void {
    const path = join(this.cgroupRoot, cgroup.replace(/\/container$/, ''));
    if (lstatSync(path).isSymbolicLink()) {
      const directory = realpathSync(path);
      unlinkSync(path);
      rmSync(directory, { recursive: true });
      return;
    }
    const trash = join(mkdtempSync(join(this.directory, 'trash-')), 'pod');
    renameSync(path, trash);
    for (const name of readdirSync(trash)) {
      rmSync(realpathSync(join(trash, name)), { recursive: true });
    }
    rmSync(dirname(trash), { recursive: true });
  }

  /** Adds to the kernel's counters of a cgroup, which counts what is in those below it as well. */
  public count(cgroup: string, events: Counters, name: (typeof COUNTERS)[number]): void {
    this.put(cgroup, name, memoryEvents(events, readFileSync(this.file(cgroup, name), 'utf8')));
  }

  /** The kernel kills processes of a container, since a limit is hit; of a group all at once. */
  public kill(container: string, processes = 1, limit: Limit = 'container', group = false): void {
    const killed = { oom_kill: processes, oom_group_kill: group ? 1 : 0 };
    const [pod] = POD.exec(container) as unknown as [string];
    const hit = { container, pod, inside: undefined, node: undefined }[limit];
    if (hit !== undefined) {
      this.count(hit, { oom: 1 }, 'memory.events.local');
    }
    this.count(pod, { ...killed, oom: limit === 'node' ? 0 : 1 }, 'memory.events');
    const own = limit === 'container' || limit === 'inside';
    for (let path = container; path !== pod; path = dirname(path)) {
      this.count(path, { ...killed, oom: own ? 1 : 0 }, 'memory.events');
    }
  }

  /** The last process of a container ended; its cgroup is there for a while. */
  public empty(container: string): void {
    this.put(container, 'cgroup.events', 'populated 0\nfrozen 0\n');
  }

  /** Writes a file in place and at one blow, as the kernel does. */
  private put(cgroup: string, name: string, text: string): void {
    const path = this.file(cgroup, name);
    const file = openSync(path, existsSync(path) ? 'r+' : 'w');
    writeSync(file, text, 0);
    closeSync(file);
    this.times.set(path, statSync(path).mtimeMs);
  }

  /** What the kubelet leaves in /var/log/containers once a container runs. */
  public createLog(pod: PodMetadata, container: string, id: string): void {
    const name = `${pod.name}_${pod.namespace}_${container}-${id}`.slice(0, 251);
    const target = `/var/log/pods/${pod.namespace}_${pod.name}_${pod.uid}/${container}/0.log`;
    symlinkSync(target, join(this.logs, `${name}.log`));
  }

  public remove(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** The text of memory.events after some more of them. */
function memoryEvents(more: Counters, before = ''): string {
  const count = (name: string) =>
    Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(before)?.[1] ?? 0);
  return MEMORY_EVENTS.map((name) => `${name} ${count(name) + (more[name] ?? 0)}\n`).join('');
}

/** A directory to put first in PATH, with one program. */
export function pathWith(node: FakeNode, program: string, lines: string): string {
  const bin = `${node.directory}/bin-${program}`;
  mkdirSync(bin);
  writeFileSync(`${bin}/${program}`, `#!/bin/sh\n${lines}\n`, { mode: 0o755 });
  return `${bin}:${TOOLS_PATH}`;
}

/** One JSON line of the agent's log, its time as a string like all the rest. */
export type LogLine = Record<string, string>;

/** The keys that docs/monitoring.md promises, and no other. */
export const LOG_KEYS = new Set(
  [
    ...(
      readFileSync(join(ROOT, 'docs/monitoring.md'), 'utf8').split('\n## Logs\n')[1] ?? ''
    ).matchAll(/^\| `(\w+)`(?:, `(\w+)`)? /gm),
  ].flatMap(([, ...keys]) => keys.filter(Boolean)),
);

/** Reads a line; what is no object throws as well. */
function parseJson(line: string): Record<string, unknown> {
  try {
    const parsed: unknown = JSON.parse(line);
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) {
      return parsed as Record<string, unknown>;
    }
  } catch {
    // Said below.
  }
  throw new Error(`not a JSON object in the log: ${line}`);
}

/** Reads one line of a log; throws if it is not what docs/monitoring.md says. */
function parseLine(line: string): LogLine {
  const parsed = parseJson(line);
  const odd = Object.entries(parsed).filter(
    ([key, value]) => !LOG_KEYS.has(key) || typeof value !== (key === 'ts' ? 'number' : 'string'),
  );
  const [first] = Object.keys(parsed);
  if (odd.length > 0 || first !== 'ts' || parsed.msg === undefined) {
    throw new Error(`not what docs/monitoring.md says of the log: ${line}`);
  }
  if (!['error', 'warn', 'info', 'debug'].includes(String(parsed.level))) {
    throw new Error(`not a level: ${line}`);
  }
  return { ...(parsed as LogLine), ts: String(parsed.ts) };
}

/** Reads a whole log, its last line included; throws if one is not what docs/monitoring.md says. */
export function parseLog(text: string): LogLine[] {
  return text
    .split('\n')
    .filter((line, i, lines) => line !== '' || i < lines.length - 1)
    .map(parseLine);
}

/** What processes write to a file: to be read as soon as it is written, which a pipe is only later. */
class Output {
  private ended: string | undefined;

  public constructor(public readonly path: string) {}

  /** All of it so far. */
  public get text(): string {
    return this.ended ?? readFileSync(this.path, 'utf8');
  }

  /** Keeps it when the file goes. */
  public end(): void {
    this.ended = this.text;
  }
}

/** A running agent. */
export class Agent {
  private readonly output: Output;
  private readonly complaints: Output;
  private readonly child: ChildProcess;
  private readonly exit: Promise<number | null>;

  public constructor(
    private readonly node: FakeNode,
    api: Pick<FakeApiServer, 'caPem' | 'token' | 'port'>,
    environment: Record<string, string> = {},
    script = SCRIPT,
  ) {
    writeFileSync(join(node.serviceAccount, 'ca.crt'), api.caPem);
    writeFileSync(join(node.serviceAccount, 'token'), api.token);
    const said = mkdtempSync(join(node.directory, 'said-'));
    this.output = new Output(join(said, 'stdout'));
    this.complaints = new Output(join(said, 'stderr'));
    const files = [this.output, this.complaints].map(({ path }) => openSync(path, 'a'));
    // The shell that writes its number becomes the agent. A group of its own, so that whatever is
    // left of it can be found and ended.
    const enter = 'echo $$ >"$PROCS"; unset PROCS; exec "$@"';
    this.child = spawn('sh', ['-c', enter, 'sh', ...SHELL, script], {
      env: {
        PATH: TOOLS_PATH,
        PROCS: node.procs,
        NODE_NAME: 'node-1',
        POD_UID: OWN_UID,
        KUBERNETES_SERVICE_HOST: '127.0.0.1',
        KUBERNETES_SERVICE_PORT: String(api.port),
        LOG_LEVEL: 'debug',
        TICK_SECONDS: '1',
        // What no tick and no event repairs is not repaired.
        RESYNC_SECONDS: '600',
        CGROUP_ROOT: node.cgroupRoot,
        CONTAINER_LOGS: node.logs,
        RUN_DIR: node.run,
        SYSTEMD_TRANSIENT: node.transient,
        SERVICE_ACCOUNT: node.serviceAccount,
        SCRIPT_SHA256: 'abc',
        ...environment,
      },
      detached: true,
      stdio: ['ignore', ...files],
    });
    files.forEach(closeSync);
    this.exit = new Promise((done) => this.child.on('exit', done));
  }

  public get pid(): number {
    return this.child.pid ?? -1;
  }

  /** The process numbers of the agent and of everything that it started and that runs still. */
  public get processes(): number[] {
    return execFileSync('ps', ['-e', '-o', 'pid=,pgid=,stat='], { encoding: 'utf8' })
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter(([, group, state]) => Number(group) === this.pid && !state?.startsWith('Z'))
      .map(([pid]) => Number(pid));
  }

  /** The most memory that each of them has had, added up, in KiB. */
  public get memory(): number {
    return this.processes
      .map((pid) => Number(/^VmHWM:\s+(\d+) kB$/m.exec(ofProcess(pid, 'status'))?.[1] ?? 0))
      .reduce((sum, kib) => sum + kib, 0);
  }

  /** The CPU time of all of them up to now, of those that ended as well, in the kernel's ticks. */
  public get cpu(): number {
    const times = this.processes.map((pid) =>
      ofProcess(pid, 'stat')
        .replace(/^.*\) /, '')
        .split(' ')
        .slice(11, pid === this.pid ? 15 : 13)
        .reduce((sum, ticks) => sum + Number(ticks), 0),
    );
    return times.reduce((sum, ticks) => sum + ticks, 0);
  }

  /** The processes of the agent whose command line begins with a word, "inotifyd" for example. */
  public running(word: string): number[] {
    return this.processes.filter((pid) => commandLine(pid).startsWith(`${word} `));
  }

  /** Every complete line that the agent logged so far; a line that is not what it should be throws. */
  public get log(): LogLine[] {
    const { text } = this.output;
    return parseLog(text.slice(0, text.lastIndexOf('\n') + 1));
  }

  /** All that went to standard error. */
  public get errors(): string {
    return this.complaints.text;
  }

  public logged(message: string): LogLine[] {
    return this.log.filter((line) => line.msg?.includes(message));
  }

  /** What the startup probe waits for. */
  public get isReady(): boolean {
    return existsSync(join(this.node.run, 'ready'));
  }

  public async ready(): Promise<void> {
    await eventually('ready', () => this.isReady, this);
  }

  /** What the liveness probe does: it fails unless the loop made the file since the last time. */
  public probe(): boolean {
    return spawnSync(join(TOOLS, 'bin/rm'), [join(this.node.run, 'alive')]).status === 0;
  }

  /** Waits for a whole tick that begins from now on. */
  public async ticks(times = 1): Promise<void> {
    // The file is made in the course of a tick: what began before the probe took it away ends with
    // the first, what begins afterwards with the second.
    for (let n = 0; n <= times; n += 1) {
      rmSync(join(this.node.run, 'alive'), { force: true });
      await eventually('a tick', () => existsSync(join(this.node.run, 'alive')), this);
    }
  }

  /** Sends a signal to the agent's first process, waits for its end, and reads all that it logged. */
  public async stop(name: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.child.kill(name);
    const code = await this.exit;
    signal(-this.pid, 'SIGKILL');
    // Whatever the test looked at, no agent may ever say anything else, to the last byte.
    while (this.processes.length > 0) {
      await aWhile(5);
    }
    this.output.end();
    this.complaints.end();
    parseLog(this.output.text);
    return code;
  }
}

/**
 * Waits until something is so; says what it waited for, and the agent's log, if it never is. The limit
 * is for what never comes: it is no measure of how fast anything has to be.
 */
export async function eventually(
  what: string,
  condition: () => boolean,
  agent?: { readonly log: LogLine[]; readonly errors: string },
  seconds = PATIENCE,
): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!condition()) {
    if (Date.now() > end) {
      const log = agent ? `\n${JSON.stringify(agent.log, null, 1)}\n${agent.errors}` : '';
      throw new Error(`not within ${seconds} s: ${what}${log}`);
    }
    await new Promise((done) => setTimeout(done, 5));
  }
}

/** Time for an agent to do what it must not do. */
export async function aWhile(milliseconds = 300): Promise<void> {
  await new Promise((done) => setTimeout(done, milliseconds));
}

/** Sends a signal to a process; whether there was one. */
export function signal(pid: number, name: NodeJS.Signals): boolean {
  // There is none of this number: it stands for our own group.
  if (pid === 0) {
    return false;
  }
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}

/** The command line of a process, or nothing if it has ended by now. */
export function commandLine(pid: number): string {
  return ofProcess(pid, 'cmdline').replaceAll('\0', ' ');
}

/** A file of the kernel about a process, or nothing if it has ended by now. */
function ofProcess(pid: number, name: string): string {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8');
  } catch {
    return '';
  }
}
