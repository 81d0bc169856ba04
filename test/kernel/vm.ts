import { ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, mkdirSync, openSync, rmSync, symlinkSync } from 'node:fs';
import { AddressInfo, createServer, Server, Socket } from 'node:net';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';

const repo = join(__dirname, '../..');
const tools = join(repo, '.cache/tools');
// Of this process alone: another may have a machine of its own at the same time.
const work = join(repo, '.cache', `kernel-${process.pid}`);
const root = join(work, 'root');
const guest = join(__dirname, 'guest');

// The guest's clock counts its instructions, 2 ns each, while it has anything to do, which makes it just as
// fast on every host: to start a program takes 2 to 4 times as long as on a node, a shell is 20 times slower, and
// so are the pauses of the shim. A host that is busy, or stalls, makes a test
// take longer, but gives no process of the guest less time than another one: a race between them ends as it
// would on a host that has nothing else to do. While the guest waits its clock goes as ours does.
export const COUNTING = '-accel tcg,thread=single -icount shift=1,sleep=on -smp 1';

/** Two CPUs that are as fast as the host lets them be, with the host's clock: for the benchmark. */
export const MEASURING = '-accel tcg,thread=multi -smp 2';

/**
 * Seconds, by the clock of the host, that anything may take which takes a few: the end of a wait for what never comes.
 * Beside other tests and two busy loops, three minutes were too few for 330 containers.
 */
export const PATIENCE = 900;

/** How a command in the guest ended: its exit status, and stdout and stderr together. */
export interface Result {
  status: number;
  output: string;
}

/** What a guest has of a release of Debian. */
export interface Debian {
  readonly release: string;
  readonly systemd: boolean;
}

/**
 * A virtual machine with Debian's kernel and an initramfs of busybox, curl, the agent and the
 * programs in `guest/`. It is emulated, which needs no privileges.
 */
export class Vm {
  /**
   * Builds the initramfs, with more files, directories and C programs if there are any, and boots; resolves
   * once the guest takes commands. A release of Debian brings its runtimes, and its systemd as process 1 if that is asked for.
   */
  static async boot(more: string[], cpus: string, debian?: Debian): Promise<Vm> {
    requireTools(debian?.release);
    buildInitramfs(more, debian?.release);
    const server = createServer();
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const vm = new Vm(server, cpus, debian?.systemd);
    try {
      const connection = once(server, 'connection') as Promise<[Socket]>;
      const [socket] = await vm.orFail('boot', connection);
      // Lost when the machine ends, which is noticed elsewhere.
      socket.on('error', () => undefined);
      vm.guest = { socket, answers: createInterface(socket)[Symbol.asyncIterator]() };
    } catch (error) {
      await vm.stop();
      throw error;
    }
    return vm;
  }

  private readonly qemu: ChildProcess;
  private readonly kill = () => this.qemu.kill('SIGKILL');
  private guest: { socket: Socket; answers: AsyncIterator<string, undefined> } | undefined;
  private serial = '';

  private constructor(
    private readonly server: Server,
    cpus: string,
    systemd = false,
  ) {
    const { port } = server.address() as AddressInfo;
    // Without a source of random numbers curl would first spend a second of CPU on one. With erms and fsrm, a program
    // copies memory by one instruction for each byte, which the emulator executes one by one.
    const machine = `${cpus} -cpu max,erms=off,fsrm=off -m 1024`;
    // Less CPU for the boot: no self-tests of the cryptography, and pages are cleared once.
    const kernel = `init_on_alloc=0 cryptomgr.notests commands=${port}${systemd ? ' systemd=yes' : ''}`;
    this.qemu = spawn(
      'qemu-system-x86_64',
      [
        ...machine.split(' '),
        ...['-nodefaults', '-nographic', '-no-reboot', '-serial', 'stdio'],
        ...['-kernel', join(tools, 'vmlinuz'), '-initrd', join(work, 'initramfs')],
        ...['-append', `console=ttyS0 rdinit=/init panic=-1 quiet ${kernel}`],
        ...['-netdev', 'user,id=net', '-device', 'virtio-net-pci,netdev=net,romfile='],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    const collect = (data: Buffer) => (this.serial = (this.serial + data.toString()).slice(-8192));
    this.qemu.stdout?.on('data', collect);
    this.qemu.stderr?.on('data', collect);
    process.on('exit', this.kill);
  }

  /** The last lines on the guest's console. */
  get console(): string {
    return this.serial.split('\n').slice(-30).join('\n');
  }

  /** Runs a shell script in the guest (`sh -eu`), one at a time. */
  async run(script: string): Promise<Result> {
    if (!this.guest) {
      throw new Error('the guest is not up');
    }
    const { socket, answers } = this.guest;
    socket.write(`${Buffer.from(script).toString('base64')}\n`);
    const answer = await this.orFail(script, answers.next());
    const [status, output = ''] = (answer.value ?? '').split(' ');
    return { status: Number(status), output: Buffer.from(output, 'base64').toString() };
  }

  /** Like `run`, for scripts that must succeed: the output, without the final newline. */
  async sh(script: string): Promise<string> {
    const { status, output } = await this.run(script);
    if (status !== 0) {
      throw new Error(`exit status ${status} in the guest:\n${script}\n${output}`);
    }
    return output.trimEnd();
  }

  /** Resolves once the shell condition holds in the guest, however long that takes; fails if it never does. */
  async until(condition: string, seconds = PATIENCE): Promise<void> {
    const deadline = Date.now() + seconds * 1000;
    // By the clock of the guest: at the pace of a busy host it would do little else than look.
    const look = `for n in 1 2 3 4 5 6 7 8 9 10; do\n(${condition}\n) && exit\nsleep 0.2\ndone\nexit 1`;
    while ((await this.run(look)).status !== 0) {
      if (Date.now() > deadline) {
        throw new Error(`not within ${seconds} s in the guest: ${condition}`);
      }
    }
  }

  /** Ends the virtual machine, whatever it does. */
  async stop(): Promise<void> {
    process.off('exit', this.kill);
    this.server.close();
    this.guest?.socket.destroy();
    if (this.qemu.exitCode === null && this.qemu.signalCode === null) {
      this.kill();
      await once(this.qemu, 'exit');
    }
    rmSync(work, { recursive: true, force: true });
  }

  private async orFail<T>(what: string, result: Promise<T>): Promise<T> {
    const failed = new AbortController();
    const { signal } = failed;
    const ended = async (reason: string, event: Promise<unknown>): Promise<never> => {
      await event;
      throw new Error(`${reason}: ${what}\nThe guest's console ends:\n${this.console}`);
    };
    const timeout = new Promise((resolve) => {
      const timer = setTimeout(resolve, PATIENCE * 1000);
      signal.addEventListener('abort', () => {
        clearTimeout(timer);
      });
    });
    try {
      return await Promise.race([
        result,
        ended('the virtual machine ended', once(this.qemu, 'exit', { signal })),
        ended(`no answer in ${PATIENCE} s`, timeout),
      ]);
    } finally {
      failed.abort();
    }
  }
}

function requireTools(release?: string): void {
  const parts = ['kernel', ...(release === undefined ? [] : [`systemd-${release}`])];
  const { status, stderr } = spawnSync(join(repo, 'scripts/tools.sh'), ['--check', ...parts], {
    encoding: 'utf8',
  });
  if (status !== 0) {
    const command = `scripts/tools.sh ${parts.join(' ')}`;
    throw new Error(`tools of the kernel test are missing; run ${command}\n${stderr}`);
  }
}

function buildInitramfs(more: string[], release?: string): void {
  rmSync(work, { recursive: true, force: true });
  for (const directory of [
    ...['dev', 'proc', 'sys', 'tmp', 'agent-root', 'host/cgroup', 'host/containers'],
    ...['host/systemd/system', 'run/oom-kill-mode', 'var/log/containers', 'var/run/secrets'],
  ]) {
    mkdirSync(join(root, directory), { recursive: true });
  }
  // Where all of this is for a guest whose own root is Debian's.
  symlinkSync('.', join(root, 'image'));
  const copy = (from: string, to: string) => {
    cpSync(from, join(root, to), { recursive: true, verbatimSymlinks: true });
  };
  copy(join(tools, 'busybox'), 'busybox');
  copy(join(tools, 'bin'), 'bin');
  copy(join(tools, 'curl'), '.');
  copy(join(tools, 'modules'), 'modules');
  copy(join(repo, 'lib/agent'), 'agent');
  for (const [from, to] of [
    ['init.sh', 'init'],
    ['commands.sh', 'commands.sh'],
    ['agent-container.sh', 'agent-container.sh'],
  ] as const) {
    copy(join(guest, from), to);
    chmodSync(join(root, to), 0o755);
  }
  const compile = (source: string, ...options: string[]) => {
    const files = [source, '-o', join(root, 'bin', basename(source, '.c')), '-lm'];
    execFileSync('gcc', ['-static', '-Os', '-Wall', '-Wextra', '-Werror', ...options, ...files]);
  };
  const programs = ['shim', 'confine', 'hog', 'witness'].map((name) => `${name}.c`);
  for (const source of [...programs.map((name) => join(guest, name)), ...more]) {
    if (source.endsWith('.c')) {
      compile(source);
    } else {
      copy(source, basename(source));
      chmodSync(join(root, basename(source)), 0o755);
    }
  }
  compile(join(guest, 'print-mode.c'), '-nostdlib', '-fno-stack-protector');
  // The kernel unpacks one archive after the other.
  let archives = 'find . | cpio --quiet -o -H newc -R 0:0';
  if (release !== undefined) {
    copy(join(guest, 'commands.service'), 'debian/etc/systemd/system/commands.service');
    archives = `cat '${join(tools, `systemd-${release}.cpio`)}'; ${archives}`;
  }
  execFileSync('sh', ['-euc', archives], {
    cwd: root,
    stdio: ['ignore', openSync(join(work, 'initramfs'), 'w'), 'inherit'],
  });
}
