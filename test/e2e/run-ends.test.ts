import { failed, play, run, start } from '../support/e2e';
import { Report } from '../../e2e/report';

jest.setTimeout(120_000);

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
