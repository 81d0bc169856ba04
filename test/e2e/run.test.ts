import { failed, installAgent, nodeOf, play, run, start } from '../support/e2e';
import { Report } from '../../e2e/report';
import { read } from '../support/manifests';

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

describe('a cluster where everything is as it should be', () => {
  test('passes, and is left as it was', async () => {
    const { status, report, server } = await run({});
    expect(failed(report)).toEqual({});
    expect(report.checks.map(({ name }) => name)).toEqual(CHECKS);
    expect(report.nodes).toEqual(
      ['worker-1', 'worker-2'].map((name) => ({
        node: name,
        firstInstruction: '0',
        herderRestarts: 0,
        survivedKills: expect.any(Number) as number,
        seenIn: 'Event',
        twin: expect.stringMatching(/^restarted .*, last OOMKilled \(137\)$/) as string,
      })),
    );
    expect({ status, passed: report.passed }).toEqual({ status: 0, passed: true });
    expect(server.present).toEqual([]);
    expect(server.changes).toContain('POST /apis/apps/v1/namespaces/oom-kill-mode/daemonsets');
  });

  test('shows a table, with kills from the agents’ logs where there are no Events, and plain lines of progress', async () => {
    const { status, stdout, stderr } = await start(await play({ kills: 'log' }), [
      '--duration',
      '3',
    ]);
    expect(status).toBe(0);
    expect(stdout).toMatch(
      /^NODE +FIRST INSTRUCTION +HERDER RESTARTS +KILLS SURVIVED +TWIN\nworker-1 +0 +0 +\d+ \(log\) +restarted/m,
    );
    expect(stdout).toMatch(/^ok +no herder restarted +2 herders for \d s$/m);
    expect(stdout).toMatch(/\n15 passed, 0 failed\n$/);
    expect(stderr).not.toContain('\r');
    expect(stderr).toMatch(/^context test, v1\.34\.1\n/);
    // On a busy machine a second may pass between two looks.
    expect(stderr).toMatch(
      /^3 of 3 s(, \d s more)?: kills survived on 2 of 2 nodes, twin killed on 2 of 2/m,
    );
  });

  test('with --keep, everything stays, and other images are used for all of it', async () => {
    const images = ['mirror.example/curl:1', 'mirror.example/herder:1'];
    const [image = '', herderImage = ''] = images;
    const { status, report, server } = await run(
      {},
      ...['--keep', '--image', image, '--herder-image', herderImage],
    );
    expect(status).toBe(0);
    expect(report.checks.map(({ name }) => name)).toEqual(CHECKS.slice(0, -1));
    expect(server.present).toContain(`Deployment ${report.namespace ?? ''}/herder`);
    expect(server.present).toContain('DaemonSet oom-kill-mode/oom-kill-mode-agent');
    expect(server.images).toEqual(images);
    expect(report.notes.join()).toMatch(/kept: Namespace oom-kill-mode,.*oom-kill-mode-e2e-/);
  });

  test('an agent that was there before is not touched', async () => {
    const server = await play();
    installAgent(server);
    const before = server.present;
    const { status, stdout } = await start(server, ['--duration', '3']);
    expect(stdout).toContain(
      'the agent was there already and stays as it is: oom-kill-mode/oom-kill-mode-agent',
    );
    expect(status).toBe(0);
    expect(server.present).toEqual(before);
    expect(server.changes.join()).not.toMatch(/oom-kill-mode(,|\/|$)/);
  });

  test('what was there of an agent is patched, named, and stays', async () => {
    const server = await play();
    installAgent(server, ['Namespace']);
    const { status, stdout } = await start(server, ['--duration', '3']);
    expect(stdout).toContain('were there already, are patched and stay: Namespace oom-kill-mode');
    expect(status).toBe(0);
    expect(server.changes).toContain('PATCH /api/v1/namespaces/oom-kill-mode');
    expect(server.present).toEqual(['Namespace oom-kill-mode']);
  });

  test('a node that is not ready or too old is left out, and named', async () => {
    const { status, report } = await run({
      nodes: [
        nodeOf('up'),
        nodeOf('down', { ready: false }),
        nodeOf('old', { kubeletVersion: 'v1.27.16' }),
      ],
    });
    expect(status).toBe(0);
    expect(report.notes).toEqual([
      'down is left out: it is not ready',
      'old is left out: its kubelet is v1.27.16, and those before 1.28 never set memory.oom.group',
    ]);
    expect(report.nodes.map((row) => row.node)).toEqual(['up']);
  });
});

test('a build without a version, of server and kubelets, is tried all the same', async () => {
  const nodes = [nodeOf('custom', { kubeletVersion: 'unknown' })];
  const { status, report } = await run({ version: 'unknown', nodes });
  expect(failed(report)).toEqual({});
  expect(report.checks.map(({ name }) => name)).toEqual(CHECKS);
  expect(report.notes).toEqual(['custom: its kubelet\'s version is not known ("unknown")']);
  expect(status).toBe(0);
});

describe('a cluster where something is wrong', () => {
  test('an agent that writes nothing: herders restart like their twins', async () => {
    const { status, report, server } = await run({ agentWorks: false });
    expect(status).toBe(1);
    expect(Object.keys(failed(report))).toEqual([
      'Single at the first instruction',
      'no herder restarted',
      'every herder survived an OOM kill',
    ]);
    expect(failed(report)['no herder restarted']).toMatch(
      /^herder-worker-1 on worker-1 restarted \d+ times, last OOMKilled \(137\)/,
    );
    expect(server.present).toEqual([]);
  });

  test('no kill that anybody tells of, and a twin that survives as well', async () => {
    const { status, report, server } = await run({ nodeValue: '0', kills: 'nowhere' });
    expect(status).toBe(1);
    expect(failed(report)).toEqual({
      'every herder survived an OOM kill':
        "not seen, neither in Events nor in the agents' logs, on worker-1, worker-2",
      'the twin without the label is killed and restarted':
        'on worker-1 containers without the label have 0, too: nothing to tell apart, on worker-2 containers without the label have 0, too: nothing to tell apart',
    });
    expect(server.present).toEqual([]);
  });

  test('cgroup v1, which only the agents know, ends it before herders are made', async () => {
    const { status, report, server } = await run({ cgroupV1: true });
    expect(status).toBe(1);
    expect(failed(report)).toEqual({
      'cgroup v2': 'cgroup v1, where there is nothing to choose, on worker-1, worker-2',
    });
    expect(server.changes.join()).not.toContain('e2e');
    expect(server.present).toEqual([]);
  });

  test('a server that is too old is not touched', async () => {
    const { status, report, server } = await run({ version: 'v1.27.16-eks-a' });
    expect(status).toBe(1);
    expect(failed(report)).toEqual({ 'Kubernetes 1.28 or later': 'v1.27.16-eks-a' });
    expect(server.changes).toEqual([]);
  });

  test('without a permission nothing is changed, and it is named as a command', async () => {
    const { status, report, server } = await run({ denied: ['create clusterroles', 'watch pods'] });
    expect(status).toBe(1);
    expect(failed(report)).toEqual({
      'permission to install the agent':
        '"no" to: kubectl auth can-i create clusterroles.rbac.authorization.k8s.io --all-namespaces; kubectl auth can-i watch pods --all-namespaces',
    });
    expect(server.changes).toEqual([]);
  });

  test.each([
    ['create deployments', 'create deployments.apps --namespace oom-kill-mode-e2e-\\w+'],
    ['delete namespaces', 'delete namespaces --all-namespaces'],
    ['get pods/log', 'get pods --subresource=log --namespace oom-kill-mode-e2e-\\w+'],
    ['list events', 'list events --namespace oom-kill-mode-e2e-\\w+'],
    ['patch configmaps', 'patch configmaps --namespace oom-kill-mode'],
  ])(
    'without %s nothing at all is changed, not even the agent installed',
    async (denied, named) => {
      const { status, report, server } = await run({ denied: [denied] });
      expect(status).toBe(1);
      expect(Object.values(failed(report)).join()).toMatch(
        new RegExp(`"no" to: .*kubectl auth can-i ${named}`),
      );
      expect(report.checks.map(({ name }) => name)).toEqual(CHECKS.slice(0, 5));
      expect(server.changes).toEqual([]);
      expect(server.present).toEqual([]);
    },
  );

  test('with an agent in place, what is missing is told before the namespace is made', async () => {
    const server = await play({ denied: ['create deployments'] });
    installAgent(server);
    const { status, stdout } = await start(server, ['--duration', '3']);
    expect(status).toBe(1);
    expect(stdout).toMatch(/^FAIL +permission to run pods +"no" to: .*create deployments\.apps/m);
    expect(stdout).not.toContain('permission to install the agent');
    expect(server.changes).toEqual([]);
  });

  test('nodes with old kubelets only are not touched', async () => {
    const { status, report, server } = await run({
      nodes: [nodeOf('old', { kubeletVersion: 'v1.27.16' })],
    });
    expect(status).toBe(1);
    expect(failed(report)).toEqual({ nodes: 'none can run a herder' });
    expect(report.notes.join()).toContain('old is left out: its kubelet is v1.27.16');
    expect(server.changes).toEqual([]);
  });

  test('a kubectl that is far from the server is noted, which is no failure', async () => {
    const { report } = await run({ version: 'v1.31.4+k3s1', nodes: [] });
    expect(Object.keys(failed(report))).toEqual(['nodes']);
    expect(report.notes.join()).toMatch(
      /^kubectl v1\.35\.\d+ is more than one minor version away from the server's v1\.31\.4\+k3s1$/,
    );
  });

  test.each([
    [
      'the image',
      { workload: 'twin', by: 'image pull' },
      /^2 pods: Pulling image "ghcr\.io\/[^ ]+"$/,
    ],
    [
      'the scheduler',
      { workload: 'herder', by: 'scheduler' },
      /^2 pods: 0\/2 nodes are available: 2 Insufficient cpu\.$/,
    ],
    [
      'an admission that denies',
      { workload: 'probe', by: 'admission' },
      /^probe: 2 missing \(forbidden: violates PodSecurity "restricted:latest": privileged\)$/,
    ],
  ] as const)('pods that wait for %s: it says so while it waits', async (_, heldUp, reason) => {
    const { status, stdout, stderr, server } = await start(await play({ heldUp }), [
      ...['--timeout', '3'],
    ]);
    expect(status).toBe(1);
    const progress = /^started pods: 4 of 6 pods; (.*)$/m.exec(stderr)?.[1];
    expect(progress).toMatch(reason);
    expect(stdout).toContain(
      `herder, twin and probe have started  4 of 6 pods after 3 s; ${progress ?? ''}\n`,
    );
    expect(server.present).toEqual([]);
  });

  test.each([
    ['', undefined, / \(forbidden: violates PodSecurity "restricted:latest": privileged\)$/],
    ['; Events that it may not see', ['/api/v1/namespaces/oom-kill-mode/events'], /worker-2$/],
  ])('an agent that is not admitted%s', async (_, forbidden, why) => {
    const heldUp = { workload: 'oom-kill-mode-agent', by: 'admission' } as const;
    const { status, report, stderr, server } = await run({ heldUp, forbidden }, '--timeout', '1');
    expect(status).toBe(1);
    const told = failed(report)['the agent is ready on each node'] ?? '';
    expect(told).toMatch(/^0 of 2 after 1 s; oom-kill-mode-agent: 2 missing on worker-1, worker-2/);
    expect(told).toMatch(why);
    expect(stderr).toContain(`ready agents: 0 of 2; ${told.slice('0 of 2 after 1 s; '.length)}\n`);
    expect(server.present).toEqual([]);
  });

  test('an image without tag or digest is refused before anything is changed', async () => {
    const { status, report, server } = await run({}, '--image', 'mirror.example/curl');
    expect(status).toBe(1);
    expect(failed(report)['the run itself']).toContain('not a reference pinned by tag or digest');
    expect(server.changes).toEqual([]);
  });

  test('a server that does not answer is told in kubectl’s words', async () => {
    const server = await play();
    server.stop();
    const { status, stdout } = await start(server, []);
    expect(status).toBe(1);
    expect(stdout).toMatch(/FAIL +the run itself +kubectl version -o json: .*refused/);
  });

  test('no kubectl is told in one line', async () => {
    const { status, stdout } = await start(await play(), [], { path: '/nonexistent' });
    expect(status).toBe(1);
    expect(stdout).toMatch(/FAIL +the run itself +kubectl is not on PATH; install it\n/);
  });
});

describe('an end that comes early', () => {
  test.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)('%s cleans up', async (signal, expected) => {
    let sent = false;
    const server = await play();
    const result = await start(server, ['--duration', '600', '--json'], {
      react: (stderr, pid) => {
        if (!sent && stderr.includes('of 600 s:')) {
          sent = true;
          expect(server.present.join()).toContain('/herder');
          process.kill(pid, signal);
        }
      },
    });
    const report = JSON.parse(result.stdout) as Report;
    expect(report).toMatchObject({ passed: false, interrupted: signal });
    expect(report.checks.at(-1)).toMatchObject({ name: 'cleaned up', passed: true });
    expect({ sent, status: result.status }).toEqual({ sent: true, status: expected });
    expect(server.present).toEqual([]);
  });

  test('what does not go away is named, at the second Ctrl-C or when the time is up', async () => {
    const server = await play({ stuck: true });
    const { status, stdout } = await start(server, ['--duration', '1'], {
      react: (stderr, pid) => {
        if (stderr.includes('cleaning up: waiting')) {
          process.kill(pid, 'SIGINT');
        }
      },
    });
    expect(status).toBe(1);
    expect(stdout).toMatch(
      /^FAIL +cleaned up +still there: namespace\/oom-kill-mode, namespace\/oom-kill-mode-e2e-\w+ \(not waited for\)$/m,
    );
    const late = await run({ stuck: true }, '--duration', '1', '--timeout', '3');
    expect(late.status).toBe(1);
    expect(failed(late.report)['cleaned up']).toMatch(
      /^still there: namespace\/oom-kill-mode, namespace\/oom-kill-mode-e2e-\w+$/,
    );
  });

  test('Ctrl-C while the agent is being installed, under npm, reaches everyone and cleans up', async () => {
    let sent = false;
    const server = await play();
    const { status, stdout } = await start(server, ['--duration', '600'], {
      command: ['npm', 'run', 'e2e', '--'],
      react: (stderr, pid) => {
        if (!sent && stderr.includes('installing the agent')) {
          sent = true;
          // What a terminal does: to npm, its shell, the script, and any kubectl in their group.
          process.kill(-pid, 'SIGINT');
        }
      },
    });
    expect(stdout).toContain('interrupted by SIGINT; ');
    expect(sent).toBe(true);
    expect(status).not.toBe(0);
    expect(server.present).toEqual([]);
  });
});

test('docs/e2e.md shows every check', () => {
  const page = read('docs', 'e2e.md').replace(/\s+/g, ' ');
  expect(CHECKS.filter((name) => !page.includes(name))).toEqual([]);
});

describe('the command line', () => {
  test.each([
    [['--duration', '0'], '--duration is not a number of seconds: 0; write --duration 60 instead'],
    [['--duration', '1m'], '--duration is not a number of seconds: 1m'],
    [['--durations', '5'], "Unknown option '--durations'"],
    [['now'], "Unexpected argument 'now'"],
  ])('%j is refused in one line', async (args, message) => {
    const server = await play();
    const { status, stdout, stderr } = await start(server, args);
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(stderr).toContain(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(server.changes).toEqual([]);
  });

  test('--help has every option and what it is without', async () => {
    const { status, stdout } = await start(await play(), ['--help']);
    expect(status).toBe(0);
    expect(stdout).toMatch(/--duration SECONDS .*\[60\]\n/);
    expect(stdout).toMatch(/--timeout SECONDS .*\[300\]\n/);
    for (const option of ['context', 'image', 'herder-image', 'keep', 'json']) {
      expect(stdout).toContain(`--${option} `);
    }
  });

  test('without --duration, the herders must last for 60 s', async () => {
    const server = await play();
    const { stdout } = await start(server, [], {
      react: (stderr, pid) => {
        if (stderr.includes(' of 60 s:')) process.kill(pid, 'SIGINT');
      },
    });
    expect(stdout).toContain('interrupted by SIGINT; ');
    expect(server.present).toEqual([]);
  });

  test('--context chooses a context, and one that is unknown is told', async () => {
    const { status, stdout } = await start(await play(), ['--context', 'elsewhere']);
    expect(status).toBe(1);
    expect(stdout).toContain('context "elsewhere" does not exist');
  });
});
