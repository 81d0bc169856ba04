import { existsSync, readFileSync } from 'node:fs';

import { readResults, readSynthResults, report } from '../bench/report';
import { quantile, TOOLS } from '../bench/schema';

test('docs/performance.md and its plots are made of the figures of the last benchmark', async () => {
  const files = Object.entries(await report());
  expect(files).toHaveLength(3);
  for (const [path, text] of files) {
    // Not the texts: a plot is one long line.
    expect([path, existsSync(path) && readFileSync(path, 'utf8') === text]).toEqual([path, true]);
  }
});

test('the figures are of all sizes, of every tool, and of a thousand starts', () => {
  const { sizes, withCpuOfNode } = readResults();
  expect(sizes.map(({ pods }) => pods)).toEqual([1, 30, 110]);
  for (const tool of TOOLS) {
    const starts = sizes.reduce((sum, { tools }) => sum + tools[tool].starts.count, 0);
    expect(starts).toBeGreaterThanOrEqual(1000);
    expect(withCpuOfNode[tool].starts.count).toBeGreaterThanOrEqual(1000);
  }
});

// Those that the table at the end of docs/performance.md says are met.
test('with the CPU of a node every first instruction is right, and p99 at most 3 times the limit', () => {
  const { agent, limit } = readResults().withCpuOfNode;
  expect(agent.starts.rightAtFirstInstruction).toBe(agent.starts.count);
  for (const kind of ['drift', 'starts'] as const) {
    const [ours = NaN, theirs = NaN] = [agent, limit].map((of) =>
      quantile(of[kind].latencies, 0.99),
    );
    expect(ours / theirs).toBeLessThanOrEqual(3);
  }
});

test('the agent is never charged for more than 12 MiB, and asks the API server once a minute at most', () => {
  for (const { tools } of readResults().sizes) {
    expect(tools.agent.idle.peakBytes).toBeLessThanOrEqual(12 * 1024 * 1024);
    expect(tools.agent.idle.requestsPerMinute).toBeLessThanOrEqual(1);
  }
});

test('the figures of synthesis are of 10, 100 and 1,000 workloads, and of loading', () => {
  const { synth, import: loading } = readSynthResults();
  expect(synth.map(({ workloads }) => workloads)).toEqual([10, 100, 1000]);
  for (const { plainSeconds, oursSeconds } of [...synth, loading]) {
    expect(plainSeconds.length).toBeGreaterThanOrEqual(10);
    expect(oursSeconds).toHaveLength(plainSeconds.length);
  }
});

test('opting in costs at most a tenth of the synthesis of 1,000 workloads', () => {
  const { synth } = readSynthResults();
  const [plain = NaN, ours = NaN] = [synth[2]?.plainSeconds, synth[2]?.oursSeconds].map(
    (seconds = []) => [...seconds].sort((a, b) => a - b)[Math.floor(seconds.length / 2)],
  );
  expect(ours / plain).toBeLessThanOrEqual(1.1);
});
