import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import {
  Agent,
  containerId,
  eventually,
  FakeNode,
  LOG_KEYS,
  newPod,
  parseLog,
  requireTools,
  SHELLS,
  SYSTEMD,
} from '../support/agent';
import { FakeApiServer } from '../support/api-server';

// The log as such. What each line says is a matter of the tests of what it is about; every agent of
// every test has all of its log read by parseLog() when it ends.

const LEVELS = ['error', 'warn', 'info', 'debug'];

jest.setTimeout(60_000);

beforeAll(requireTools);

describe('what reads a log in the tests', () => {
  const line = JSON.stringify({ level: 'info', msg: 'ready', node: 'node-1' });

  test('takes what is documented, with or without an end', () => {
    expect(parseLog('')).toEqual([]);
    expect(parseLog(`${line}\n${line}`)).toHaveLength(2);
    expect(parseLog(`${line}\n${line}\n`)).toHaveLength(2);
    expect(LOG_KEYS.size).toBeGreaterThan(15);
  });

  test.each([
    ['a line cut short', `${line}\n${line.slice(0, -5)}`],
    ['a complaint of a shell', `${line}\nsh: 1: not found\n`],
    ['an empty line', `${line}\n\n${line}\n`],
    ['no object', '["level"]'],
    ['a key that is not documented', line.replace('node"', 'nodes"')],
    ['a value that is no string', line.replace('"node-1"', '1')],
    ['another level', line.replace('info', 'fatal')],
    ['no message', '{"level":"info"}'],
  ])('refuses %s', (_, text) => {
    expect(() => parseLog(text)).toThrow();
  });
});

describe('the calls of log in the script', () => {
  const directory = join(__dirname, '../../lib/agent');
  const script = readdirSync(directory)
    .map((name) => readFileSync(join(directory, name), 'utf8'))
    .join('\n')
    .replaceAll(/ *\\\n */g, ' ');
  const calls = [
    ...script.matchAll(/^.*\blog(?:_text)? (error|warn|info|debug) ('[^']*'|"[^"]*")(.*)$/gm),
  ];
  const pairs = calls.map(([, , , rest = '']) =>
    rest.replace(/ *;.*$/, '').match(/\$\(\(.*?\)\)|"[^"]*"|'[^']*'|\S+/g),
  );
  const keys = new Set(pairs.flatMap((words) => words?.filter((_, i) => i % 2 === 0) ?? []));

  test('have a value for each key, and all levels', () => {
    expect(calls.length).toBeGreaterThan(25);
    expect(pairs.filter((words) => (words?.length ?? 0) % 2 === 1)).toEqual([]);
    expect(new Set(calls.map(([, level]) => level))).toEqual(new Set(LEVELS));
  });

  test('have the keys of docs/monitoring.md and no other, those of rare lines included', () => {
    expect([...keys, 'level', 'msg'].sort()).toEqual([...LOG_KEYS].sort());
  });
});

describe.each(Object.entries(SHELLS))('the log under %s', (_, shell) => {
  test.each(LEVELS)('of level %s has lines of that level and those before it', async (level) => {
    const api = await FakeApiServer.start();
    const node = new FakeNode(SYSTEMD);
    const run = (mode: string) => {
      const pod = newPod(mode);
      const cgroup = node.createContainer(node.createPod(pod.uid), containerId(), '1');
      api.setPod(pod);
      return cgroup;
    };
    run('Nonsense');
    const [refusing, plain] = [run('Single'), run('Single')];
    execFileSync('chattr', ['+i', node.file(refusing)]);
    const agent = new Agent(node, api, shell, { LOG_LEVEL: level });
    try {
      await agent.ready();
      await eventually('0', () => node.read(plain) === '0', agent);
      await eventually(level, () => agent.log.some((line) => line.level === level), agent);
      await eventually('a watch', () => api.watching === 1, agent);
    } finally {
      execFileSync('chattr', ['-i', node.file(refusing)]);
      await agent.stop();
      await api.stop();
    }
    expect(agent.errors).toBe('');
    expect([...new Set(agent.log.map((line) => line.level))].sort()).toEqual(
      LEVELS.slice(0, LEVELS.indexOf(level) + 1).sort(),
    );
    node.remove();
  });
});
