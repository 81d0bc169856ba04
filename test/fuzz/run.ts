/**
 * Random input against the agent: npm run fuzz.
 *
 * FUZZ_SECONDS   how long it runs  [60]
 * FUZZ_SEED      repeats a run     [random]
 */
import { Life } from './lives';
import { fuzzParser } from './parser';
import { Random } from './random';

async function main(): Promise<void> {
  const seconds = Number(process.env.FUZZ_SECONDS ?? 60);
  const seed = Number(process.env.FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));
  console.log(`FUZZ_SEED=${seed} FUZZ_SECONDS=${seconds}`);
  const fail = (text: string) => {
    console.log(`\nFAILED with FUZZ_SEED=${seed}\n${text}`);
    process.exitCode = 1;
  };
  const random = new Random(seed);
  const began = Date.now();
  const lives = random.seed();

  const parser = fuzzParser(random.seed(), began + seconds * 300);
  console.log(`api.awk: ${parser.cases} events`);
  if (parser.failure !== undefined) {
    fail(parser.failure);
    return;
  }

  const end = began + seconds * 1000;
  const next = new Random(lives);
  let count = 0;
  let steps = 0;
  let failure: string | undefined;
  // Two at a time: most of a life is waiting.
  const liveAndLive = async () => {
    while (Date.now() < end && failure === undefined) {
      const life = new Life(next.seed());
      await life.live(end);
      count += 1;
      steps += life.steps;
      if (life.failure !== undefined) {
        failure ??= `${life.story.join('\n')}\n\n${life.failure}`;
      }
    }
  };
  await Promise.all([liveAndLive(), liveAndLive()]);
  // Only now: the other agent has to end as well.
  if (failure !== undefined) {
    fail(failure);
    return;
  }
  console.log(`agent: ${count} lives, ${steps} steps`);
  console.log(`${parser.cases + steps} cases`);
}

void main();
