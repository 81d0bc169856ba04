import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { bars, page, readResults, readSynthResults } from '../bench/report';
import { TOOLS } from '../bench/schema';

test('the tables of docs/performance.md are made of the figures of the last benchmarks', () => {
  expect(page()).toBe(readFileSync(join(__dirname, '../docs/performance.md'), 'utf8'));
});

test('the figures are of all sizes, of every tool, and of a thousand starts', () => {
  const { sizes, killed } = readResults();
  expect(sizes.map(({ pods }) => pods)).toEqual([0, 1, 110]);
  for (const tool of TOOLS) {
    expect(sizes.every(({ pods, tools }) => pods === 0 || tools[tool].drift)).toBe(true);
  }
  const starts = sizes.map(({ tools }) => tools.agent.starts?.count ?? 0);
  expect(starts.reduce((sum, count) => sum + count, 0)).toBeGreaterThanOrEqual(1000);
  expect(killed.kills).toBeGreaterThan(60);
});

test('every bar has a figure, and what the page says of it is so', () => {
  const text = page();
  for (const { what, most, figure } of bars(readResults(), readSynthResults())) {
    expect([what, Number.isFinite(figure)]).toEqual([what, true]);
    const row = text.split('\n').find((line) => line.startsWith(`| ${what} `)) ?? '';
    expect([what, row.trimEnd().replace(/ +\|$/, '').endsWith('| yes')]).toEqual([
      what,
      figure <= most,
    ]);
  }
});

test('the figures of synthesis are of four shapes, and of loading', () => {
  const { synth, import: loading } = readSynthResults();
  expect(synth.map(({ shape, workloads }) => `${shape} ${workloads}`)).toEqual([
    ...['one chart 10', 'one chart 100', 'one chart 1000'],
    ...['many charts 2000', 'raw objects 1000', 'beside definitions 50'],
  ]);
  for (const { plainSeconds, oursSeconds } of [...synth, loading]) {
    expect(plainSeconds.length).toBeGreaterThanOrEqual(10);
    expect(oursSeconds).toHaveLength(plainSeconds.length);
  }
});
