import { SpawnSyncReturns, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Size } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';

import { OnePerNodeDeployment, OomKillMode } from '../../lib';
import { chart, find, synth } from '../support/manifests';
import { TOOLS_PATH, requireTools } from '../support/agent';

beforeAll(requireTools);

/**
 * Runs the init container of waitForAgent with a file in the place of the container's own, and the given
 * program in the place of `sleep`; says how it ended, and how often it slept.
 */
function wait(mode: string, value?: string, sleep = ''): [SpawnSyncReturns<string>, number] {
  const scope = chart();
  new OnePerNodeDeployment(scope, 'web', {
    name: 'web',
    image: 'example.com/web:1.2.3',
    replicas: 3,
    cpu: kplus.Cpu.millis(250),
    memory: Size.mebibytes(256),
    oomKillMode: OomKillMode.SINGLE,
    waitForAgent: true,
  });
  const [init] = find(synth(scope), 'Deployment').spec.template.spec.initContainers;
  const [, , script = ''] = init?.command ?? [];
  const directory = mkdtempSync(join(tmpdir(), 'wait-'));
  const file = join(directory, 'memory.oom.group');
  if (value !== undefined) {
    writeFileSync(file, `${value}\n`);
  }
  const slept = join(directory, 'slept');
  writeFileSync(join(directory, 'sleep'), `#!/bin/sh\necho "$*" >>${slept}\n${sleep}\n`, {
    mode: 0o755,
  });
  const result = spawnSync('sh', ['-c', script.replace('/sys/fs/cgroup/memory.oom.group', file)], {
    cwd: directory,
    encoding: 'utf8',
    env: { PATH: `${directory}:${TOOLS_PATH}`, KILL_MODE: mode },
  });
  return [result, existsSync(slept) ? readFileSync(slept, 'utf8').trim().split('\n').length : 0];
}

test.each([
  { why: 'the agent was there', mode: 'Single', value: '0' },
  { why: 'cgroup v1 has no such file', mode: 'Single' },
  { why: 'the label was taken off a copy', mode: '', value: '1' },
])('the init container of waitForAgent goes on where $why', ({ mode, value }) => {
  const [result, slept] = wait(mode, value);
  expect(result).toMatchObject({ status: 0, stderr: '' });
  expect(slept).toBe(0);
});

test('the init container waits until the agent has written 0', () => {
  const writes = '[ "$(wc -l <slept)" -lt 3 ] || echo 0 >memory.oom.group';
  const [result, slept] = wait('Single', '1', writes);
  expect(result).toMatchObject({ status: 0, stderr: '' });
  expect(slept).toBe(3);
});

test('the init container waits two minutes at most, for the kubelet to go on with the pod', () => {
  const [result, slept] = wait('Single', '1');
  expect(result).toMatchObject({ status: 0, stderr: '' });
  expect(slept).toBe(120);
});

test('the init container ends when it is told to', () => {
  const [result] = wait('Single', '1', 'kill -TERM "$PPID"');
  expect(result).toMatchObject({ status: 1, stderr: '' });
});
