import { KUBECTLS } from '../support/binaries';
import { failed, installAgent, nodeOf, play, runIn } from '../support/e2e';

// What depends on the kubectl: each does it with the oldest and the newest, and in `npm run test:kubectl`
// with those between.

jest.setTimeout(120_000);

describe.each(KUBECTLS)('kubectl %s', (kubectl) => {
  const distance = Math.abs(Number(kubectl.slice(2)) - 34);

  test('does all of it, where a part of the agent was there before', async () => {
    const server = await play();
    installAgent(server, ['Namespace']);
    const { status, report } = await runIn(server, kubectl);
    expect(failed(report)).toEqual({});
    expect({ status, checks: report.checks.length }).toEqual({ status: 0, checks: 15 });
    expect(report.notes).toEqual([
      ...(distance > 1
        ? [
            expect.stringMatching(
              `^kubectl v${kubectl}\\.\\d+ is more than one minor version away from the server's v1.34.1$`,
            ) as string,
          ]
        : []),
      'were there already, are patched and stay: Namespace oom-kill-mode',
    ]);
    expect(server.changes).toContain('PATCH /api/v1/namespaces/oom-kill-mode');
    expect(server.present).toEqual(['Namespace oom-kill-mode']);
  });

  test.each([
    ['is no version', { version: 'unknown' }, '"unknown"'],
    ['is that of a build without tags', { version: 'v0.0.0-master' }, '"v0.0.0-master"'],
    ['must not be read', { forbidden: ['/version'] }, '""'],
  ])('looks at the nodes where the version of the server %s', async (_, situation, told) => {
    const nodes = [nodeOf('old', { kubeletVersion: 'v1.27.16' })];
    const { report } = await runIn(await play({ ...situation, nodes }), kubectl);
    expect(report.checks[0]?.detail).toContain(`the API server's version is not known (${told})`);
    expect(failed(report)).toEqual({ nodes: 'none can run a herder' });
    expect(report.notes).toEqual([
      'old is left out: its kubelet is v1.27.16, and those before 1.28 never set memory.oom.group',
    ]);
  });

  test('names what is not permitted, and a cluster that does not answer', async () => {
    const { report } = await runIn(await play({ denied: ['get pods/log'] }), kubectl);
    expect(Object.values(failed(report)).join()).toMatch(
      /^"no" to: kubectl auth can-i get pods --subresource=log --namespace /,
    );
    const server = await play();
    server.stop();
    const { report: none } = await runIn(server, kubectl);
    expect(failed(none)['the run itself']).toMatch(/^kubectl version -o json: .*refused/);
  });

  test('names what does not go away', async () => {
    const server = await play({ stuck: true });
    const { report } = await runIn(server, kubectl, '--duration', '1', '--timeout', '3');
    expect(failed(report)['cleaned up']).toMatch(
      /^still there: namespace\/oom-kill-mode, namespace\/oom-kill-mode-e2e-\w+$/,
    );
  });
});
