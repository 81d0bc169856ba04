// npm run e2e: tries the agent and a herder on the cluster that kubectl speaks to. See docs/e2e.md.

import { parseArgs } from 'node:util';

import { Progress } from './progress';
import { render } from './report';
import { Options, Run } from './run';

const USAGE = `npm run e2e -- [options]

  --context NAME        context of the kubeconfig          [the current one]
  --duration SECONDS    how long the herders must last     [60]
  --timeout SECONDS     how long pods may take to start    [300]
  --image IMAGE         of the agent, instead of dist/'s
  --herder-image IMAGE  of herder and its twin
  --keep                leave everything there
  --json                print the result as JSON
`;

/** Signals, and the exit status of a program that they ended. */
const SIGNALS: Readonly<Record<string, number>> = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 };

/** npm hands on a signal that the terminal has sent to all of us: that is one Ctrl-C, not two. */
const SAME_MILLISECONDS = 2000;

async function main(): Promise<number> {
  const { json, help, ...options } = parse(process.argv.slice(2));
  if (help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const interruption = new AbortController();
  const impatience = new AbortController();
  let interrupted = -Infinity;
  let cleaning = false;
  for (const signal of Object.keys(SIGNALS)) {
    process.on(signal, () => {
      if (!cleaning && !interruption.signal.aborted) {
        interruption.abort(signal);
        interrupted = Date.now();
      } else if (Date.now() - interrupted > SAME_MILLISECONDS) {
        impatience.abort(signal);
      }
    });
  }
  const progress = new Progress(process.stderr);
  const run = new Run(options, progress, interruption.signal);
  await run.execute();
  cleaning = true;
  await run.cleanUp(impatience.signal);
  progress.clear();
  const report = run.report();
  process.stdout.write(json ? `${JSON.stringify(report, undefined, 2)}\n` : `\n${render(report)}`);
  return report.passed ? 0 : (SIGNALS[report.interrupted ?? ''] ?? 1);
}

function parse(args: string[]): Options & { json: boolean; help: boolean } {
  const { values } = parseArgs({
    args,
    options: {
      context: { type: 'string' },
      duration: { type: 'string', default: '60' },
      timeout: { type: 'string', default: '300' },
      image: { type: 'string' },
      'herder-image': { type: 'string' },
      keep: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  return {
    context: values.context,
    duration: seconds('duration', values.duration),
    timeout: seconds('timeout', values.timeout),
    image: values.image,
    herderImage: values['herder-image'],
    keep: values.keep,
    json: values.json,
    help: values.help,
  };
}

function seconds(option: string, value: string): number {
  if (!/^[1-9][0-9]{0,5}$/.test(value)) {
    throw new Error(
      `--${option} is not a number of seconds: ${value}; write --${option} 60 instead`,
    );
  }
  return Number(value);
}

// A reader that went away must not keep us from cleaning up.
process.stdout.on('error', () => undefined);

main().then(
  (status) => {
    process.exitCode = status;
  },
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  },
);
