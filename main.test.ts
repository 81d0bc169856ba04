import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Testing } from 'cdk8s';
import { allPropsChart } from './test/support/all-props';
import {
  Manifest,
  ROOT,
  find,
  parse,
  read,
  runApp,
  synth,
  template,
} from './test/support/manifests';

/** Without the script and its hashes, which dist/ has. */
function withoutScript(manifests: Manifest[]): Manifest[] {
  const configMap = find(manifests, 'ConfigMap');
  configMap.data = { 'agent.sh': '…' };
  const { spec } = template(find(manifests, 'DaemonSet'));
  const [volume] = spec.volumes;
  for (const reference of [configMap.metadata, volume?.configMap]) {
    if (reference !== undefined) {
      reference.name = reference.name.replace(/-[0-9a-f]{10}$/, '-…');
    }
  }
  for (const variable of spec.containers[0]?.env ?? []) {
    if (variable.name === 'SCRIPT_SHA256') {
      variable.value = '…';
    }
  }
  return manifests;
}

test('the agent with every option is that of the snapshot', () => {
  expect(withoutScript(synth(allPropsChart(Testing.app())))).toMatchSnapshot();
});

describe('the app', () => {
  test('synthesizes dist/, byte for byte', () => {
    const { status, stderr, files } = runApp('.');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(files).toEqual({ 'herder.k8s.yaml': read('dist', 'herder.k8s.yaml') });
  });

  test.each(['.', 'examples/agent-only'])(
    'asks nobody for a newer version when `npx cdk8s synth` runs in %s',
    (directory) => {
      const { stdout } = spawnSync(
        'npm',
        ['exec', '-c', 'node -p "[process.env.CDK8S_CHECK_UPGRADE, process.env.NODE_OPTIONS]"'],
        {
          cwd: join(ROOT, directory),
          encoding: 'utf8',
          env: { PATH: process.env['PATH'], HOME: tmpdir() },
        },
      );
      expect(stdout).toBe("[ 'false', undefined ]\n");
    },
  );

  test('takes its replicas from HERDER_REPLICAS', () => {
    const { status, files } = runApp('.', { HERDER_REPLICAS: '7' });
    expect(status).toBe(0);
    const herder = find(parse(files['herder.k8s.yaml'] ?? ''), 'Deployment');
    expect(herder.spec.replicas).toBe(7);
  });

  test.each(['0', '-1', '1.5', '3e0', 'three', ''])(
    'refuses HERDER_REPLICAS=%j in one line',
    (value) => {
      const { status, stderr, files } = runApp('.', { HERDER_REPLICAS: value });
      expect(status).toBe(1);
      expect(stderr).toBe(
        `HERDER_REPLICAS is not a positive integer: ${JSON.stringify(value)}. Write HERDER_REPLICAS=3.\n`,
      );
      expect(files).toEqual({});
    },
  );

  test('refuses more HERDER_REPLICAS than Kubernetes can count, in one line', () => {
    const { status, stderr } = runApp('.', { HERDER_REPLICAS: '2147483648' });
    expect(status).toBe(1);
    expect(stderr).toBe(
      '[herder/herder/OnePerNode] replicas is not a positive integer: 2147483648. Write a whole number from 1 to 2147483647.\n',
    );
  });
});
