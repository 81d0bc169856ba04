import { spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

import { readPod } from '../../e2e/cluster';
import { judge } from '../../e2e/judgement';
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

const [, PAGE = ''] = read('docs', 'e2e.md').split('The checks, in this order:');
const CHECKS = [...PAGE.matchAll(/^\d+\. (.*)$/gm)].map(([, name]) => name);
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

interface HowToRun {
  readonly command?: string[];
  readonly cwd?: string;
  readonly path?: string;
  /** Is told everything that the script has printed. */
  readonly react?: (stderr: string, pid: number) => void;
}

/** Runs the script to its end. */
async function run(server: ClusterServer, args: string[], how: HowToRun = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'oom-kill-mode-'));
  writeFileSync(join(directory, 'config'), server.kubeconfig);
  const { command = [process.execPath, 'e2e/main.js'], cwd = home, react } = how;
  const { path = `${install('kubectl')}${delimiter}${process.env['PATH'] ?? ''}` } = how;
  const [program = '', ...rest] = [...command, ...args];
  const child = spawn(program, rest, {
    cwd,
    env: {
      PATH: path,
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
    react?.(stderr, child.pid ?? 0);
  });
  const status = await new Promise<number | null>((done) => child.on('close', done));
  rmSync(directory, { recursive: true });
  const checks = [...stdout.matchAll(/^(ok|FAIL) +(.*?)(?:  +(.*))?$/gm)];
  const failed = checks.filter(([, word]) => word === 'FAIL');
  return {
    status,
    stdout,
    stderr,
    names: checks.map(([, , name]) => name),
    failed: Object.fromEntries(failed.map(([, , name = '', detail = '']) => [name, detail])),
  };
}

describe('a run on a good cluster', () => {
  // Old ones read only the first of several JSON documents.
  test.each(KUBECTLS)('passes the 15 checks of the page with kubectl %s', async (version) => {
    const server = await cluster();
    const file = join(home, 'e2e.xml');
    const path = install('kubectl', version);
    const result = await run(server, ['--duration', '1', '--junit', file], { path });
    expect(result.failed).toEqual({});
    expect(result.names).toEqual(CHECKS);
    expect(CHECKS).toHaveLength(15);
    expect(result.stdout).toMatch(
      /^NODE +FIRST INSTRUCTION +HERDER RESTARTS +KILLS SURVIVED +TWIN\nworker-1 +0 +0 +6 \(Event\) +restarted 2 times, last OOMKilled \(137\)$/m,
    );
    expect(result.stdout).toMatch(/\n15 passed, 0 failed\n$/);
    expect(result.stderr).toMatch(/^context test, v1\.34\.1\n/);
    const cases = [...readFileSync(file, 'utf8').matchAll(/<testcase [^>]*name="([^"]*)"><\//g)];
    expect(cases.map(([, name]) => name)).toEqual(CHECKS);
    expect({ status: result.status, present: server.present }).toEqual({ status: 0, present: [] });
    expect(server.changes).toContain('POST /apis/apps/v1/namespaces/oom-kill-mode/daemonsets');
  });

  test('patches a part of the agent that is there, leaves it, and says so in JSON', async () => {
    const server = await cluster({}, ['Namespace']);
    const { status, stdout } = await run(server, ['--duration', '1', '--json']);
    expect(JSON.parse(stdout)).toMatchObject({
      passed: true,
      nodes: [{ node: 'worker-1', kills: 6 }, { node: 'worker-2' }],
      notes: ['were there already, are patched and stay: Namespace oom-kill-mode'],
      checks: CHECKS.map((name) => ({ name, passed: true })),
    });
    expect(server.changes).toContain('PATCH /api/v1/namespaces/oom-kill-mode');
    expect({ status, present: server.present }).toEqual({
      status: 0,
      present: ['Namespace oom-kill-mode'],
    });
  });

  test('does not touch an agent that is there, and reads kills from its log', async () => {
    const total = (name: string, total: number) =>
      `{"level":"warn","pod":"$NAMESPACE/herder-${name}","container":"herder","kills":"1","total":"${total}"}\n`;
    const lines = [total('worker-1', 3), total('worker-1', 4), total('worker-2', 5)];
    const warning = '{"level":"warn","msg":"Event not sent"}\n';
    const log = [GOOD.pods[AGENT]?.log, 'sh: write error\n', warning, warning, ...lines].join('');
    const server = await cluster(pods({ herder: {}, [AGENT]: { log } }), [
      'Namespace',
      'DaemonSet',
    ]);
    const before = server.present;
    const { status, stdout } = await run(server, ['--duration', '1']);
    expect(stdout).toContain(`stays as it is: DaemonSet oom-kill-mode/${AGENT}\n`);
    expect(stdout.match(/^note {2}worker-1: Event not sent$/gm)).toHaveLength(1);
    expect(stdout).toMatch(/^worker-1 +0 +0 +4 \(log\) .*\nworker-2 +0 +0 +5 \(log\) /m);
    expect({ status, present: server.present }).toEqual({ status: 0, present: before });
    expect(server.changes.join()).not.toMatch(/oom-kill-mode(,|\/|$)/);
  });

  test('keeps everything with --keep, and uses other images for all of it', async () => {
    const server = await cluster();
    const images = ['mirror.example/curl:1', 'mirror.example/herder:1'];
    const [image = '', herder = ''] = images;
    const options = ['--duration', '1', '--keep', '--image', image, '--herder-image', herder];
    const { status, stdout, names } = await run(server, options);
    expect(status).toBe(0);
    expect(names).toEqual(CHECKS.slice(0, -1));
    expect(server.present.join()).toMatch(/Deployment oom-kill-mode-e2e-\w+\/herder/);
    expect(server.present).toContain(`DaemonSet oom-kill-mode/${AGENT}`);
    expect(server.images).toEqual(images);
    expect(stdout).toMatch(
      /^note {2}kept: Namespace oom-kill-mode, .*Namespace oom-kill-mode-e2e-/m,
    );
  });
});

/** A node with other labels. */
function labelled(name: string, labels: object, version?: string, ready?: string) {
  const { metadata, ...rest } = node(name, version, ready);
  return { ...rest, metadata: { name, labels: { ...metadata.labels, ...labels } } };
}

describe('a run on a bad cluster', () => {
  const up = { state: { running: {} } };
  const limits = { cpu: '0.2', memory: '64Mi' };
  const proxy = { name: 'proxy', restartPolicy: 'Always', resources: { limits } };
  const notReady = { conditions: [{ type: 'Ready', status: 'False' }] };
  const sameForAll = '{"level":"info","msg":"cgroups found","nodeValue":"0"}\n';

  test.each<[string, Partial<Recording>, Record<string, string>]>([
    [
      'herders that restart, as if the agent wrote nothing',
      pods({ herder: { container: KILLED }, probe: { log: 'memory.oom.group=1\n' } }),
      {
        'Single at the first instruction': 'worker-1: 1, worker-2: 1',
        'no herder restarted':
          'herder-worker-1 on worker-1 restarted 2 times, last OOMKilled (137), herder-worker-2 on worker-2 restarted 2 times, last OOMKilled (137)',
        'every herder survived an OOM kill':
          "not seen on worker-1, neither in Events nor in the agent's log, not seen on worker-2, neither in Events nor in the agent's log",
      },
    ],
    [
      'a sidecar that was injected, and a herder that is not ready',
      pods({
        herder: { ...GOOD.pods['herder'], spec: { initContainers: [proxy] }, status: notReady },
      }),
      {
        'no pod over 250m CPU and 256Mi':
          'herder-worker-1 has 300m and 192Mi, herder-worker-2 has 300m and 192Mi',
        'no herder restarted':
          'herder-worker-1 on worker-1 is not ready, herder-worker-2 on worker-2 is not ready',
      },
    ],
    [
      'twins that live where every container has 0',
      pods({ twin: { container: up }, [AGENT]: { log: sameForAll } }),
      {
        'the twin without the label is killed and restarted':
          'on worker-1 containers without the label have 0, too: nothing to tell apart, on worker-2 containers without the label have 0, too: nothing to tell apart',
      },
    ],
  ])('fails because of %s', async (_, but, told) => {
    const server = await cluster(but);
    const file = join(home, 'failed.xml');
    const { status, failed } = await run(server, ['--duration', '1', '--junit', file]);
    expect(failed).toEqual(told);
    expect(readFileSync(file, 'utf8').match(/<failure message="[^"]+"\/>/g)).toHaveLength(
      Object.keys(told).length,
    );
    expect({ status, present: server.present }).toEqual({ status: 1, present: [] });
  });

  test('makes no herder on cgroup v1, which only the agents know', async () => {
    const log =
      '{"level":"error","msg":"The node has cgroup v1.","condition":"cgroup_v1","node":"a"}\n';
    const server = await cluster(pods({ [AGENT]: { log } }));
    const { status, failed } = await run(server, []);
    expect(failed).toEqual({
      'cgroup v2': 'cgroup v1, where there is nothing to choose, on worker-1, worker-2',
    });
    expect(server.changes.join()).not.toContain('e2e');
    expect({ status, present: server.present }).toEqual({ status: 1, present: [] });
  });

  test.each<[string, Partial<Recording>, string[], RegExp]>([
    ['an old API server', { version: 'v1.27.16-eks-a' }, [], /^v1\.27\.16-eks-a$/],
    [
      'a right that the agent needs',
      { no: 'create clusterroles' },
      [],
      /^"no" to kubectl auth can-i create clusterroles\.rbac\.authorization\.k8s\.io --all-namespaces$/,
    ],
    [
      'a right that the agent gets',
      { no: 'watch pods' },
      [],
      /^"no" to kubectl auth can-i watch pods --all-namespaces$/,
    ],
    [
      'a right that the pods need',
      { no: 'get pods/log' },
      [],
      /^"no" to kubectl auth can-i get pods --subresource=log --namespace oom-kill-mode-e2e-\w+, /,
    ],
    ['an unknown context', {}, ['--context', 'elsewhere'], /context "elsewhere" does not exist/],
    ['an image without tag or digest', {}, ['--image', 'a/b'], /not a reference pinned by tag/],
  ])('changes nothing because of %s, and says so', async (_, but, args, told) => {
    const server = await cluster(but);
    const { status, failed } = await run(server, args);
    expect(Object.values(failed).join()).toMatch(told);
    expect({ status, changes: server.changes }).toEqual({ status: 1, changes: [] });
  });

  test('says why it leaves out nodes, and changes nothing if there is no other', async () => {
    const server = await cluster({
      nodes: [
        labelled('win', { 'kubernetes.io/os': 'windows' }),
        labelled('fargate', { 'eks.amazonaws.com/compute-type': 'fargate' }),
        labelled('down', {}, 'v1.34.1', 'Unknown'),
        labelled('old', {}, 'v1.27.16'),
      ],
    });
    const { stdout, failed } = await run(server, []);
    expect(failed).toEqual({ nodes: 'none can run a herder' });
    expect([...stdout.matchAll(/^note {2}(.*)$/gm)].map(([, note]) => note)).toEqual([
      'win is left out: its system is not Linux',
      'fargate is left out: it is virtual and has no agent',
      'down is left out: it is not ready',
      'old is left out: its kubelet is v1.27.16, and only 1.28 or later can do it',
    ]);
    expect(server.changes).toEqual([]);
  });

  test('says while it waits who keeps pods from starting', async () => {
    const event = { type: 'Normal', reason: 'Pulling', message: 'Pulling image "x:1"' };
    const full = { type: 'Warning', reason: 'FailedScheduling', message: '2 Insufficient cpu.' };
    const held = { ready: false, state: { waiting: { reason: 'ContainerCreating' } } };
    const server = await cluster(
      pods({
        herder: { container: held, event: full },
        twin: { container: held, event },
        probe: { denied: 'Error creating: pods "probe-5d4f-x" is forbidden: <why>' },
      }),
    );
    const file = join(home, 'escaped.xml');
    const { status, stderr, failed } = await run(server, ['--timeout', '2', '--junit', file]);
    const name = 'herder, twin and probe have started';
    const reasons = [
      'herder: not on worker-1, worker-2 (2 Insufficient cpu.)',
      'twin: not on worker-1, worker-2 (Pulling image "x:1")',
      'probe: not on worker-1, worker-2 (Error creating: pods "probe-5d4f-x" is forbidden: <why>)',
    ];
    expect(stderr).toContain(`${name}: 0 of 6 pods; ${reasons.join('; ')}\n`);
    expect(failed[name]).toBe(`0 of 6 pods after 2 s; ${reasons.join('; ')}`);
    expect(readFileSync(file, 'utf8')).toContain(
      '&#34;probe-5d4f-x&#34; is forbidden: &#60;why&#62;',
    );
    expect({ status, present: server.present }).toEqual({ status: 1, present: [] });
  });

  test('says that an agent is missing where it must not see the Events', async () => {
    const server = await cluster({
      ...pods({ [AGENT]: { denied: 'Error creating: no' } }),
      forbidden: '/api/v1/namespaces/oom-kill-mode/events',
    });
    const { status, failed } = await run(server, ['--timeout', '1']);
    expect(failed['the agent is ready on each node']).toBe(
      `0 of 2 pods after 1 s; ${AGENT}: not on worker-1, worker-2`,
    );
    expect({ status, present: server.present }).toEqual({ status: 1, present: [] });
  });

  test('names what does not go away', async () => {
    const server = await cluster({ stuck: true });
    const { status, failed } = await run(server, ['--duration', '1', '--timeout', '2']);
    expect(failed['cleaned up']).toMatch(/timed out waiting .*namespaces\/oom-kill-mode/);
    expect(status).toBe(1);
  });

  test('tells in one line that there is no kubectl, or no server', async () => {
    const server = await cluster();
    const { failed } = await run(server, [], { path: '/none' });
    expect(failed['the run itself']).toBe('kubectl is not on PATH; install it');
    server.stop();
    const { failed: refused } = await run(server, []);
    expect(refused['the run itself']).toMatch(/^kubectl get --raw \/version: .*refused/);
  });
});

test('The judgement finds herders that are missing, too many or replaced, and pods that show nothing', () => {
  const herder = (uid: string, nodeName: string) => ({
    ...readPod({ metadata: { name: `herder-${uid}`, uid }, spec: { nodeName, containers: [] } }),
    ready: true,
  });
  const before = [herder('1', 'a'), herder('4', 'b')];
  const pods = [herder('1', 'a'), herder('2', 'a')];
  const checks = judge({
    ...{ nodes: ['a', 'b'], seconds: 60, before, pods },
    ...{ probes: new Map([['b', 'memory.oom.group=']]), events: [], said: [] },
  });
  const failed = checks.filter(({ passed }) => !passed).map(({ detail }) => detail);
  expect(failed).toEqual([
    'a: not seen, b: not seen',
    'a has 2, b has 0',
    'herder-4 on b was replaced',
    "not seen on a, neither in Events nor in the agent's log, not seen on b, neither in Events nor in the agent's log",
    'on a: not there, on b: not there',
  ]);
});

describe('a run that is interrupted', () => {
  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)('cleans up after %s, and says so', async (signal, expected) => {
    const server = await cluster();
    let sent = false;
    const react = (stderr: string, pid: number) => {
      if (!sent && stderr.includes(' of 60 s')) {
        sent = true;
        expect(server.present.join()).toContain('/herder');
        process.kill(pid, signal);
      }
    };
    const { status, failed, names } = await run(server, [], { react });
    expect(failed).toEqual({ 'the run itself': `interrupted by ${signal}` });
    expect(names.at(-1)).toBe('cleaned up');
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
    const npm = { command: ['npm', 'run', 'e2e', '--'], cwd: ROOT, react };
    const { status, stdout } = await run(server, [], npm);
    expect(stdout).toContain('interrupted by SIGINT\n');
    expect(sent).toBe(true);
    expect(status).not.toBe(0);
    expect(server.present).toEqual([]);
  });
});

describe('the command line', () => {
  test.each([
    [['--duration', '1m'], '--duration is not a number of seconds: 1m; write --duration 60'],
    [['--durations', '5'], "Unknown option '--durations'"],
  ])('refuses %j in one line', async (args, message) => {
    const { status, stdout, stderr } = await run(await cluster(), args);
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(stderr).toContain(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
  });
});
