// npm run e2e: tries the agent and a herder on the cluster that kubectl speaks to. See docs/e2e.md.

import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { junit, render } from './report';
import { Run, messageOf } from './run';

const USAGE = `npm run e2e -- [options]

  --context NAME        context of the kubeconfig          [the current one]
  --duration SECONDS    how long the herders must last     [60]
  --timeout SECONDS     how long pods may take to start    [300]
  --image IMAGE         of the agent, instead of dist/'s
  --herder-image IMAGE  of herder and its twin
  --keep                leave everything there
  --json                print the result as JSON
  --junit FILE          write the checks there, as JUnit XML
`;

/** Signals, and the exit status of a program that they ended. */
const SIGNALS: Readonly<Record<string, number>> = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 };

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      context: { type: 'string' },
      duration: { type: 'string', default: '60' },
      timeout: { type: 'string', default: '300' },
      image: { type: 'string' },
      'herder-image': { type: 'string' },
      keep: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      junit: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  });
  const duration = seconds('duration', values.duration);
  const timeout = seconds('timeout', values.timeout);
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  // Only the first one counts: npm hands on what the terminal has sent to all of us already.
  const stop = new AbortController();
  for (const signal of Object.keys(SIGNALS)) {
    process.on(signal, () => {
      stop.abort(signal);
    });
  }
  const run = new Run({ ...values, duration, timeout }, stop.signal);
  await run.execute();
  await run.cleanUp();
  const report = run.report();
  process.stdout.write(
    values.json ? `${JSON.stringify(report, undefined, 2)}\n` : `\n${render(report)}`,
  );
  if (values.junit !== undefined) {
    writeFileSync(values.junit, junit(report.checks));
  }
  return SIGNALS[String(stop.signal.reason)] ?? (report.passed ? 0 : 1);
}

function seconds(option: string, value: string): number {
  if (!/^[1-9][0-9]{0,5}$/.test(value)) {
    throw new Error(`--${option} is not a number of seconds: ${value}; write --${option} 60`);
  }
  return Number(value);
}

// A reader or a terminal that went away must not keep us from cleaning up.
process.stdout.on('error', () => undefined);
process.stderr.on('error', () => undefined);

void main()
  .catch((error: unknown) => {
    process.stderr.write(`${messageOf(error)}\n`);
    return 1;
  })
  .then((status) => (process.exitCode = status));
