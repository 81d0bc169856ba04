import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Chart, Testing } from 'cdk8s';
import { HerderChart, OomKillModeAgent } from './lib';
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

/** The script is in dist/, compared byte for byte; here it and its hashes would only bury the rest. */
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

describe('the charts', () => {
  test('the herder with its agent', () => {
    expect(withoutScript(synth(new HerderChart(Testing.app(), 'herder')))).toMatchSnapshot();
  });

  test('the agent alone', () => {
    const chart = new Chart(Testing.app(), 'oom-kill-mode-agent');
    new OomKillModeAgent(chart, 'agent');
    expect(withoutScript(synth(chart))).toMatchSnapshot();
  });

  test('the agent with every option', () => {
    expect(withoutScript(synth(allPropsChart(Testing.app())))).toMatchSnapshot();
  });
});

describe('the apps', () => {
  test('dist/ is what the app synthesizes, byte for byte', () => {
    const { status, stderr, files } = runApp('.');
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(files).toEqual({ 'herder.k8s.yaml': read('dist', 'herder.k8s.yaml') });
  });

  test.each(['.', 'examples/agent-only'])(
    '`npx cdk8s synth` in %s asks nobody for a newer version',
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

  test('HERDER_REPLICAS sets the replicas', () => {
    const { status, files } = runApp('.', { HERDER_REPLICAS: '7' });
    expect(status).toBe(0);
    const herder = find(parse(files['herder.k8s.yaml'] ?? ''), 'Deployment');
    expect(herder.spec.replicas).toBe(7);
  });

  test.each(['0', '-1', '1.5', '3e0', 'three', ''])(
    'HERDER_REPLICAS=%j is refused in one line',
    (value) => {
      const { status, stderr, files } = runApp('.', { HERDER_REPLICAS: value });
      expect(status).toBe(1);
      expect(stderr).toBe(
        `HERDER_REPLICAS is not a positive integer: ${JSON.stringify(value)}. Write HERDER_REPLICAS=3.\n`,
      );
      expect(files).toEqual({});
    },
  );

  test('HERDER_REPLICAS beyond what Kubernetes can count is refused in one line', () => {
    const { status, stderr } = runApp('.', { HERDER_REPLICAS: '2147483648' });
    expect(status).toBe(1);
    expect(stderr).toBe(
      '[herder/herder/OnePerNode] replicas is not a positive integer: 2147483648. Write a whole number from 1 to 2147483647.\n',
    );
  });
});
