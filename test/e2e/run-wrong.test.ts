import { CHECKS, failed, installAgent, nodeOf, play, run, start } from '../support/e2e';

jest.setTimeout(120_000);

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
