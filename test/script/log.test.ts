import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { LOG_KEYS, parseLog } from '../support/agent';
import { asRoot } from '../support/root';
import { Scene } from './scene';

// The log as such. What each line says is a matter of the tests of what it is about; every agent of
// every test has all of its log read by parseLog() when it ends.

const LEVELS = ['error', 'warn', 'info', 'debug'];

describe('the reader of logs in these tests', () => {
  const line = JSON.stringify({ ts: 1, level: 'info', msg: 'ready', node: 'node-1' });

  test('takes what is documented, with or without an end', () => {
    expect(parseLog('')).toEqual([]);
    expect(parseLog(`${line}\n${line}`)).toHaveLength(2);
    expect(parseLog(`${line}\n${line}\n`)).toHaveLength(2);
  });

  test.each([
    ['a line cut short', `${line}\n${line.slice(0, -5)}`],
    ['a complaint of a shell', `${line}\nsh: 1: not found\n`],
    ['an empty line', `${line}\n\n${line}\n`],
    ['no object', '["level"]'],
    ['a key that is not documented', line.replace('node"', 'nodes"')],
    ['a value that is no string', line.replace('"node-1"', '1')],
    ['another level', line.replace('info', 'fatal')],
    ['no message', '{"ts":1,"level":"info"}'],
    ['no time', line.replace('"ts":1,', '')],
    ['a time that is a string', line.replace('1', '"1"')],
  ])('refuses %s', (_, text) => {
    expect(() => parseLog(text)).toThrow();
  });
});

test('the calls of log in the script have a value for each key, and the keys of docs/monitoring.md', () => {
  const directory = join(__dirname, '../../lib/agent');
  const script = readdirSync(directory)
    .map((name) => readFileSync(join(directory, name), 'utf8'))
    .join('\n')
    .replaceAll(/ *\\\n */g, ' ');
  const calls = [...script.matchAll(/^.*\blog (?:error|warn|info|debug) ('[^']*'|"[^"]*")(.*)$/gm)];
  const pairs = calls.map(([, , rest = '']) =>
    rest.replace(/ *(;|&&).*$/, '').match(/"\$\(\(.*?\)\)"|"[^"]*"|'[^']*'|\S+/g),
  );
  expect(calls.length).toBeGreaterThan(8);
  expect(pairs.filter((words) => (words?.length ?? 0) % 2 === 1)).toEqual([]);
  const keys = pairs.flatMap((words) => words?.filter((_, i) => i % 2 === 0) ?? []);
  // A key of the caller's is in another call as well.
  const own = keys.filter((key) => !key.startsWith('"$'));
  expect([...new Set([...own, 'ts', 'level', 'msg'])].sort()).toEqual([...LOG_KEYS].sort());
});

describe('the log', () => {
  const scene = Scene.use();

  test('has the time of each line, and what is ready', async () => {
    const before = Math.floor(Date.now() / 1000);
    await scene.ready({ SCRIPT_SHA256: 'f00' });
    await scene.eventually('a line', () => scene.agent.logged('ready').length === 1);
    expect(scene.agent.logged('ready')).toMatchObject([{ node: 'node-1', script: 'f00' }]);
    const times = scene.agent.log.map(({ ts }) => Number(ts));
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(times[0]).toBeGreaterThanOrEqual(before);
    expect(times.at(-1)).toBeLessThanOrEqual(Date.now() / 1000);
  });

  test.each(LEVELS)(
    'has at level %s the lines of that level and those before it',
    async (level) => {
      const refusing = scene.pod('Single');
      const file = scene.node.file(refusing.run('app').cgroup);
      asRoot('chattr', '+i', file);
      try {
        refusing.opt();
        await scene.ready({ LOG_LEVEL: level });
        scene.optIn('Nonsense');
        await scene.settle();
      } finally {
        asRoot('chattr', '-i', file);
      }
      await scene.agent.stop();
      const levels = new Set(scene.agent.log.map((line) => line.level ?? ''));
      expect([...levels].filter((one) => LEVELS.indexOf(one) > LEVELS.indexOf(level))).toEqual([]);
      // There is no error that keeps the agent from its work.
      expect(levels.has(level)).toBe(level !== 'error');
    },
  );
});
