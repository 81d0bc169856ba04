/**
 * Random input against the agent: npm run fuzz.
 *
 * FUZZ_SECONDS   how long it runs  [60]
 * FUZZ_SEED      repeats a run     [random]
 */
import { fuzzAwk } from './awk';
import { Random } from './random';

async function main(): Promise<void> {
  const seconds = Number(process.env.FUZZ_SECONDS ?? 60);
  const seed = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`FUZZ_SEED=${seed} FUZZ_SECONDS=${seconds}`);
  const random = new Random(seed);
  const began = Date.now();
  const parser = await fuzzAwk(random.seed(), began + seconds * 400);
  console.log(`pods.awk: ${parser.cases} events and lists`);
  if (parser.failure !== undefined) {
    console.log(`\nFAILED with FUZZ_SEED=${seed}\n${parser.failure}`);
    process.exit(1);
  }
  console.log(`${parser.cases} cases`);
}

void main();
