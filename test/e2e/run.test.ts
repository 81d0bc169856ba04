import { CHECKS, failed, installAgent, nodeOf, play, run, start } from '../support/e2e';
import { read } from '../support/manifests';

jest.setTimeout(120_000);

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

test('docs/e2e.md shows every check', () => {
  const page = read('docs', 'e2e.md').replace(/\s+/g, ' ');
  expect(CHECKS.filter((name) => !page.includes(name))).toEqual([]);
});
