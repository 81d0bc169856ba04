import { spawnSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT, find, parse, read } from './support/manifests';

// `cdk8s synth` as a user runs it, in a copy of the repository.

const APPS = ['.', ...readdirSync(join(ROOT, 'examples')).map((name) => `examples/${name}`)];

let copy: string;

jest.setTimeout(60_000);

beforeAll(() => {
  copy = mkdtempSync(join(tmpdir(), 'oom-kill-mode-synth-'));
  for (const name of ['cdk8s.yaml', 'dist', 'examples', 'imports', 'lib', 'main.ts']) {
    cpSync(join(ROOT, name), join(copy, name), { recursive: true });
  }
  cpSync(join(ROOT, 'tsconfig.json'), join(copy, 'tsconfig.json'));
  symlinkSync(join(ROOT, 'node_modules'), join(copy, 'node_modules'));
  mkdirSync(join(copy, 'bin'));
  symlinkSync(process.execPath, join(copy, 'bin', 'node'));
});

afterAll(() => {
  rmSync(copy, { recursive: true });
});

/** There is Node.js in the PATH, and no helm. */
function synth(directory: string, options: string[] = [], env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(ROOT, 'node_modules/cdk8s-cli/bin/cdk8s'), 'synth', ...options],
    {
      cwd: join(copy, directory),
      encoding: 'utf8',
      env: { PATH: join(copy, 'bin'), HOME: copy, CDK8S_CHECK_UPGRADE: 'false', ...env },
    },
  );
  return { status, stdout, stderr };
}

function dist(directory: string): Record<string, string> {
  const files = readdirSync(join(copy, directory, 'dist'));
  return Object.fromEntries(
    files.map((file) => [file, readFileSync(join(copy, directory, 'dist', file), 'utf8')]),
  );
}

/** What a synthesis must not touch: the directory, with a file that is only there. */
function mark(directory: string): Record<string, string> {
  writeFileSync(join(copy, directory, 'dist', 'of-the-user.yaml'), '# mine\n');
  return dist(directory);
}

test('every app of the repository is synthesized in the same way', () => {
  const [ours, ...others] = APPS.map((app) => read(app, 'cdk8s.yaml'));
  expect(others.length).toBeGreaterThan(0);
  expect(new Set(others)).toEqual(new Set([ours]));
});

describe('dist/ is as it was', () => {
  test.each<[string, string, string[], Record<string, string>, RegExp]>([
    ['a wrong variable', '.', [], { HERDER_REPLICAS: '0' }, /^HERDER_REPLICAS is not a positive/m],
    ['a missing helm', 'examples/helm', [], {}, /unable to execute 'helm'/],
    ['a missing option', '.', ['--format', 'helm'], {}, /--chart-version/],
  ])('after %s', (_, directory, options, env, message) => {
    const before = mark(directory);
    const { status, stderr } = synth(directory, options, env);
    expect(stderr).toMatch(message);
    expect(status).not.toBe(0);
    expect(dist(directory)).toEqual(before);
  });

  test.each([
    ['standard output', ['--stdout']],
    ['another directory', ['--output', 'elsewhere']],
    ['a Helm chart', ['--format', 'helm', '--chart-version', '1.0.0', '--output', 'chart']],
  ])('after a synthesis to %s', (_, options) => {
    const before = mark('.');
    const { status } = synth('.', options, { HERDER_REPLICAS: '7' });
    expect(status).toBe(0);
    expect(dist('.')).toEqual(before);
  });
});

test('a synthesis that succeeds makes dist/ anew', () => {
  mark('.');
  expect(synth('.', [], { HERDER_REPLICAS: '7' }).status).toBe(0);
  const files = dist('.');
  expect(Object.keys(files)).toEqual(['herder.k8s.yaml']);
  expect(find(parse(files['herder.k8s.yaml'] ?? ''), 'Deployment').spec.replicas).toBe(7);
});
