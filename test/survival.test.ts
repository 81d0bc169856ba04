import { Sample, draw, lives, readSurvival, secondsUp } from '../bench/survival';
import { read } from './support/manifests';

const survival = readSurvival();
const all = survival.workers + 1;

test('docs/survival.svg is what bench/survival.ts draws from docs/survival.json', () => {
  expect(read('docs/survival.svg')).toBe(draw(survival));
});

test('it shows a program that was killed and never ended, and its twin that was started again', () => {
  const { labelled, twin } = survival;
  expect(labelled.kills.length).toBeGreaterThan(twin.kills.length);
  expect([labelled.restarts, secondsUp(labelled, all)]).toEqual([[], 120]);
  expect(twin.restarts.length).toBeGreaterThan(1);
  const delays = twin.restarts.map((at, i) => at - (twin.kills[i] ?? NaN));
  expect(delays.map((delay) => Math.floor(delay / 10) * 10)).toEqual([0, 10, 20, 40]);
});

test('lives begin when both programs have started, and are what the looks tell', () => {
  const sample = (at: number, labelled: number, kills: number, twin: number): Sample => ({
    ...{ at, labelled, kills, twin },
  });
  const samples = [
    sample(99.5, 4, 0, 1),
    sample(100, 4, 1, 4),
    sample(100.25, 4, 3, 0),
    sample(100.5, 3, 3, 0),
    sample(100.75, 4, 3, 1),
    sample(221, 0, 4, 4),
  ];
  const { labelled, twin } = lives(samples, 4);
  expect(labelled).toEqual({
    processes: [
      [0, 4],
      [0.5, 3],
      [0.75, 4],
    ],
    kills: [0.25, 0.25],
    restarts: [],
  });
  expect(twin).toEqual({
    processes: [
      [0, 4],
      [0.25, 0],
      [0.75, 1],
    ],
    kills: [0.25],
    restarts: [0.75],
  });
  expect(secondsUp(labelled, 4)).toBe(119.75);
  expect(secondsUp(twin, 4)).toBe(0.25);
});
