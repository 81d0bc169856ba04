import { spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

import { Report } from '../../e2e/report';
import { KUBECTLS, install } from '../support/binaries';
import {
  ClusterServer,
  GOOD,
  KILLED,
  PodRecording,
  Recording,
  node,
} from '../support/cluster-server';
import { ROOT, parse, read } from '../support/manifests';

// Complete runs of the script, with the real kubectl, against recorded answers.

jest.setTimeout(120_000);

const CHECKS = [
  'Kubernetes 1.28 or later',
  'permission to look around',
  'nodes',
  'permission to install the agent',
  'permission to run pods',
  'the agent is ready on each node',
  'cgroup v2',
  'herder, twin and probe have started',
  'Single at the first instruction',
  'one herder on each node',
  'no pod over 250m CPU and 256Mi',
  'no herder restarted',
  'every herder survived an OOM kill',
  'the twin without the label is killed and restarted',
  'cleaned up',
];

const AGENT = 'oom-kill-mode-agent';

// In the repository, where it finds node_modules.
const home = mkdtempSync(join(ROOT, '.cache', 'e2e-'));
const servers: ClusterServer[] = [];

// Compiled once: ts-node would take longer than all the rest of a run.
beforeAll(() => {
  for (const part of ['dist', 'e2e', 'imports', 'lib']) {
    cpSync(join(ROOT, part), join(home, part), { recursive: true });
  }
  const esbuild = join(ROOT, 'node_modules/.bin/esbuild');
  const options = ['--format=cjs', '--outdir=.', '--allow-overwrite', '--log-level=warning'];
  const files = 'e2e/*.ts lib/*.ts lib/*/*.ts imports/*.ts';
  const command = `${esbuild} ${files} ${options.join(' ')}`;
  expect(spawnSync('sh', ['-c', command], { cwd: home, encoding: 'utf8' }).stderr).toBe('');
});

afterEach(() => {
  servers.splice(0).forEach((server) => {
    server.stop();
  });
});

afterAll(() => {
  rmSync(home, { recursive: true });
});

/** A cluster where everything is as it should be but this, with these kinds of dist/ there before. */
async function cluster(but: Partial<Recording> = {}, kinds: string[] = []): Promise<ClusterServer> {
  const server = await ClusterServer.start({ ...GOOD, ...but });
  servers.push(server);
  parse(read('dist', 'herder.k8s.yaml'))
    .filter(({ kind }) => kinds.includes(kind))
    .forEach((object) => {
      server.put(object);
    });
  return server;
}

/** Recorded pods, of which some are another way. */
function pods(but: Record<string, PodRecording>): Partial<Recording> {
  return { pods: { ...GOOD.pods, ...but } };
}

interface Result {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the script to its end; `react` is told everything that it prints meanwhile. */
async function run(
  server: ClusterServer,
  args: string[],
  react: (stderr: string, pid: number) => void = () => undefined,
  options: { command?: string[]; cwd?: string; kubectl?: (typeof KUBECTLS)[number] | 'none' } = {},
): Promise<Result> {
  const directory = mkdtempSync(join(tmpdir(), 'oom-kill-mode-'));
  writeFileSync(join(directory, 'config'), server.kubeconfig);
  const { command = [process.execPath, 'e2e/main.js'], cwd = home, kubectl } = options;
  const [program = '', ...rest] = [...command, ...args];
  const path = kubectl === 'none' ? '/nonexistent' : install('kubectl', kubectl);
  const child = spawn(program, rest, {
    cwd,
    env: {
      PATH: [path, kubectl === 'none' ? '' : process.env['PATH']].join(delimiter),
      HOME: directory,
      KUBECONFIG: join(directory, 'config'),
    },
    // As a shell does with what it runs in the foreground of a terminal.
    detached: true,
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
  child.stderr.on('data', (data: Buffer) => {
    stderr += data.toString();
    react(stderr, child.pid ?? 0);
  });
  const status = await new Promise<number | null>((done) => child.on('close', done));
  rmSync(directory, { recursive: true });
  return { status, stdout, stderr };
}

/** The same for one second and with --json, and what has failed and why. */
async function judged(
  server: ClusterServer,
  args: string[] = [],
  kubectl?: (typeof KUBECTLS)[number],
): Promise<Result & { report: Report; failed: Record<string, string> }> {
  const all = ['--duration', '1', '--json', ...args];
  const result = await run(server, all, undefined, { kubectl });
  const report = JSON.parse(result.stdout) as Report;
  const failed = report.checks.filter(({ passed }) => !passed);
  return {
    ...result,
    report,
    failed: Object.fromEntries(failed.map(({ name, detail }) => [name, detail])),
  };
}

describe('a run on a good cluster', () => {
  test('shows a table, passes 15 checks, writes them as JUnit XML, and leaves nothing', async () => {
    const server = await cluster();
    const file = join(home, 'e2e.xml');
    const { status, stdout, stderr } = await run(server, ['--duration', '1', '--junit', file]);
    expect(stdout).toMatch(
      /^NODE +FIRST INSTRUCTION +HERDER RESTARTS +KILLS SURVIVED +TWIN\nworker-1 +0 +0 +6 \(Event\) +restarted 2 times, last OOMKilled \(137\)$/m,
    );
    expect([...stdout.matchAll(/^ok {2}(.*?) {2}/gm)].map(([, name]) => name)).toEqual(CHECKS);
    expect(stdout).toMatch(/\n15 passed, 0 failed\n$/);
    expect(stderr).toMatch(/^context test, v1\.34\.1\n/);
    expect(stderr).toContain('kills survived on 2 of 2 nodes, twin killed on 2 of 2');
    const cases = [...readFileSync(file, 'utf8').matchAll(/<testcase [^>]*name="([^"]*)"/g)];
    expect(cases.map(([, name]) => name)).toEqual(CHECKS);
    expect({ status, present: server.present }).toEqual({ status: 0, present: [] });
    expect(server.changes).toContain('POST /apis/apps/v1/namespaces/oom-kill-mode/daemonsets');
  });

  // Old ones read only the first of several JSON documents.
  test.each(KUBECTLS)('passes with kubectl %s, and patches what is there', async (kubectl) => {
    const server = await cluster({}, ['Namespace']);
    const { status, report, failed } = await judged(server, [], kubectl);
    expect(failed).toEqual({});
    expect({ status, checks: report.checks.length }).toEqual({ status: 0, checks: 15 });
    expect(report.notes.at(-1)).toBe(
      'were there already, are patched and stay: Namespace oom-kill-mode',
    );
    expect(report.notes.length).toBe(kubectl === '1.28' ? 2 : 1);
    expect(server.changes).toContain('PATCH /api/v1/namespaces/oom-kill-mode');
    expect(server.present).toEqual(['Namespace oom-kill-mode']);
  });

  test('keeps everything with --keep, and uses other images for all of it', async () => {
    const server = await cluster();
    const images = ['mirror.example/curl:1', 'mirror.example/herder:1'];
    const [image = '', herder = ''] = images;
    const options = ['--keep', '--image', image, '--herder-image', herder];
    const { status, report } = await judged(server, options);
    expect(status).toBe(0);
    expect(report.checks.map(({ name }) => name)).toEqual(CHECKS.slice(0, -1));
    expect(server.present).toContain(`Deployment ${report.namespace ?? ''}/herder`);
    expect(server.present).toContain(`DaemonSet oom-kill-mode/${AGENT}`);
    expect(server.images).toEqual(images);
    expect(report.notes.join()).toMatch(/kept: Namespace oom-kill-mode,.*oom-kill-mode-e2e-/);
  });

  test('does not touch an agent that is there, and reads kills from its log', async () => {
    const total = (name: string) =>
      `{"level":"warn","pod":"$NAMESPACE/herder-${name}","container":"herder","kills":"1","total":"4"}\n`;
    const log = `${GOOD.pods[AGENT]?.log ?? ''}${total('worker-1')}${total('worker-2')}`;
    const server = await cluster(pods({ herder: {}, [AGENT]: { log } }), [
      'Namespace',
      'DaemonSet',
    ]);
    const before = server.present;
    const { status, stdout } = await run(server, ['--duration', '1']);
    expect(stdout).toContain(
      `the agent was there already and stays as it is: oom-kill-mode/${AGENT}`,
    );
    expect(stdout).toMatch(/^worker-2 +0 +0 +8 \(log\) /m);
    expect({ status, present: server.present }).toEqual({ status: 0, present: before });
    expect(server.changes.join()).not.toMatch(/oom-kill-mode(,|\/|$)/);
  });
});

describe('a run on a bad cluster', () => {
  test('says that herders restart like their twins if the agent writes nothing', async () => {
    const server = await cluster(
      pods({ herder: { container: KILLED }, probe: { log: 'memory.oom.group=1\n' } }),
    );
    const file = join(home, 'failed.xml');
    const { status, failed } = await judged(server, ['--junit', file]);
    expect(failed).toEqual({
      'Single at the first instruction': 'worker-1: 1, worker-2: 1',
      'no herder restarted':
        'herder-worker-1 on worker-1 restarted 2 times, last OOMKilled (137), herder-worker-2 on worker-2 restarted 2 times, last OOMKilled (137)',
      'every herder survived an OOM kill':
        "not seen, neither in Events nor in the agents' logs, on worker-1, worker-2",
    });
    expect(readFileSync(file, 'utf8')).toContain('<failure message="worker-1: 1, worker-2: 1"/>');
    expect({ status, present: server.present }).toEqual({ status: 1, present: [] });
  });

  test('makes no herder on cgroup v1, which only the agents know', async () => {
    const log =
      '{"level":"error","msg":"The node has cgroup v1.","condition":"cgroup_v1","node":"a"}\n';
    const server = await cluster(pods({ [AGENT]: { log } }));
    const { status, failed } = await judged(server);
    expect(failed).toEqual({
      'cgroup v2': 'cgroup v1, where there is nothing to choose, on worker-1, worker-2',
    });
    expect(server.changes.join()).not.toContain('e2e');
    expect({ status, present: server.present }).toEqual({ status: 1, present: [] });
  });

  test.each<[string, Partial<Recording>, RegExp]>([
    ['an old API server', { version: 'v1.27.16-eks-a' }, /^v1\.27\.16-eks-a$/],
    [
      'old and unready nodes',
      { nodes: [node('a', 'v1.27.1'), node('b', 'v1.34.1', 'False')] },
      /^none/,
    ],
    [
      'a right that the agent needs',
      { no: 'create clusterroles' },
      /^"no" to: kubectl auth can-i create clusterroles\.rbac\.authorization\.k8s\.io --all-namespaces$/,
    ],
    [
      'a right that the pods need',
      { no: 'get pods/log' },
      /^"no" to: kubectl auth can-i get pods --subresource=log --namespace oom-kill-mode-e2e-\w+; /,
    ],
    ['the version, which it must not read', { forbidden: '/version', nodes: [] }, /^none/],
  ])('changes nothing because of %s, and says so', async (_, but, told) => {
    const server = await cluster(but);
    const { status, failed } = await judged(server);
    expect(Object.values(failed).join()).toMatch(told);
    expect({ status, changes: server.changes }).toEqual({ status: 1, changes: [] });
  });

  test('says while it waits who keeps pods from starting', async () => {
    const conditions = [
      {
        type: 'PodScheduled',
        status: 'False',
        message: '0/2 nodes are available: 2 Insufficient cpu.',
      },
    ];
    const event = { type: 'Normal', reason: 'Pulling', message: 'Pulling image "x:1"' };
    const held = { ready: false, state: { waiting: { reason: 'ContainerCreating' } } };
    const server = await cluster(
      pods({
        herder: { status: { phase: 'Pending', conditions, containerStatuses: undefined } },
        twin: { status: { phase: 'Pending', conditions: [] }, container: held, event },
        probe: { denied: 'Error creating: pods "probe-5d4f-x" is forbidden: violates PodSecurity' },
      }),
    );
    const { status, stdout, stderr } = await run(server, ['--timeout', '2']);
    const name = 'herder, twin and probe have started';
    const [, told] = new RegExp(`^${name}: 0 of 6 pods; (.*)$`, 'm').exec(stderr) ?? [];
    expect(told?.split('; ')).toEqual([
      'probe: missing on worker-1, worker-2 (forbidden: violates PodSecurity)',
      '2 pods: 0/2 nodes are available: 2 Insufficient cpu.',
      '2 pods: Pulling image "x:1"',
    ]);
    expect(stdout).toContain(`${name}  0 of 6 pods after 2 s; ${told ?? ''}\n`);
    expect({ status, present: server.present }).toEqual({ status: 1, present: [] });
  });

  test('says that an agent is missing where it must not see the Events', async () => {
    const server = await cluster({
      ...pods({ [AGENT]: { denied: 'Error creating: no' } }),
      forbidden: '/api/v1/namespaces/oom-kill-mode/events',
    });
    const { status, failed } = await judged(server, ['--timeout', '1']);
    expect(failed['the agent is ready on each node']).toBe(
      `0 of 2 pods after 1 s; ${AGENT}: missing on worker-1, worker-2`,
    );
    expect({ status, present: server.present }).toEqual({ status: 1, present: [] });
  });

  test('names what does not go away, when the time is up or at Ctrl-C', async () => {
    const server = await cluster({ stuck: true });
    const { status, failed } = await judged(server, ['--timeout', '2']);
    const left = 'still there: namespace/oom-kill-mode, namespace/oom-kill-mode-e2e-\\w+';
    expect(failed['cleaned up']).toMatch(new RegExp(`^${left}$`));
    expect(status).toBe(1);
    const { stdout } = await run(server, ['--duration', '1'], (stderr, pid) => {
      if (stderr.includes('cleaning up: waiting')) {
        process.kill(pid, 'SIGINT');
      }
    });
    expect(stdout).toMatch(/^FAIL +cleaned up +still there: .* \(not waited for\)$/m);
  });

  test('tells in one line that there is no kubectl, or no server', async () => {
    const server = await cluster();
    const { stdout } = await run(server, [], undefined, { kubectl: 'none' });
    expect(stdout).toMatch(/FAIL +the run itself +kubectl is not on PATH; install it\n/);
    server.stop();
    const { failed } = await judged(server);
    expect(failed['the run itself']).toMatch(/^kubectl version -o json: .*refused/);
  });
});

describe('a run that is interrupted', () => {
  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)('cleans up after %s, and says so', async (signal, expected) => {
    const server = await cluster();
    let sent = false;
    const { status, stdout } = await run(server, ['--json'], (stderr, pid) => {
      if (!sent && stderr.includes('of 60 s:')) {
        sent = true;
        expect(server.present.join()).toContain('/herder');
        process.kill(pid, signal);
      }
    });
    const report = JSON.parse(stdout) as Report;
    expect(report).toMatchObject({ passed: false, interrupted: signal });
    expect(report.checks.at(-1)).toMatchObject({ name: 'cleaned up', passed: true });
    expect({ sent, status, present: server.present }).toEqual({
      sent: true,
      status: expected,
      present: [],
    });
  });

  test('cleans up after Ctrl-C under npm, while the agent is being installed', async () => {
    const server = await cluster();
    let sent = false;
    const react = (stderr: string, pid: number) => {
      if (!sent && stderr.includes('installing the agent')) {
        sent = true;
        // What a terminal does: to npm, its shell, the script, and any kubectl in their group.
        process.kill(-pid, 'SIGINT');
      }
    };
    const npm = { command: ['npm', 'run', 'e2e', '--'], cwd: ROOT };
    const { status, stdout } = await run(server, [], react, npm);
    expect(stdout).toContain('interrupted by SIGINT; ');
    expect(sent).toBe(true);
    expect(status).not.toBe(0);
    expect(server.present).toEqual([]);
  });
});

describe('the command line', () => {
  test.each([
    [
      ['--duration', '1m'],
      '--duration is not a number of seconds: 1m; write --duration 60 instead',
    ],
    [['--durations', '5'], "Unknown option '--durations'"],
  ])('refuses %j in one line', async (args, message) => {
    const server = await cluster();
    const { status, stdout, stderr } = await run(server, args);
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(stderr).toContain(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });

  test('has a context, and says that it does not know one', async () => {
    const { failed } = await judged(await cluster(), ['--context', 'elsewhere']);
    expect(failed['the run itself']).toContain('context "elsewhere" does not exist');
  });

  test('refuses an image without tag or digest before it changes anything', async () => {
    const server = await cluster();
    const { failed } = await judged(server, ['--image', 'mirror.example/curl']);
    expect(failed['the run itself']).toContain('not a reference pinned by tag or digest');
    expect(server.changes).toEqual([]);
  });

  test('shows every option and every check where a user looks', async () => {
    const { stdout } = await run(await cluster(), ['--help']);
    const page = read('docs', 'e2e.md').replace(/\s+/g, ' ');
    for (const option of 'context duration timeout image herder-image keep json junit'.split(' ')) {
      expect(stdout).toContain(`--${option} `);
    }
    expect(CHECKS.filter((name) => !page.includes(name))).toEqual([]);
  });
});
