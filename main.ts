import { App } from 'cdk8s';
import { HerderChart } from './lib';

/** The number of herders, from the environment variable of that name. */
function herderReplicas(value = '3'): number {
  if (!/^[1-9][0-9]*$/.test(value)) {
    throw new Error(
      `HERDER_REPLICAS is not a positive integer: ${JSON.stringify(value)}. Write HERDER_REPLICAS=3.`,
    );
  }
  return Number(value);
}

try {
  const app = new App();
  new HerderChart(app, 'herder', { replicas: herderReplicas(process.env['HERDER_REPLICAS']) });
  app.synth();
} catch (error) {
  // The message says all; a stack trace of ours would only hide it.
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
