import { ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Chart, Testing } from 'cdk8s';
import { OomKillModeAgent, OomKillPolicy, OomPolicyDropIn, OomPolicyDropInProps } from '../../lib';
import { TOOLS_PATH, requireTools } from '../support/agent';
import { ALL_DROP_IN_PROPS, dropInChart } from '../support/all-props';
import {
  Manifest,
  ROOT,
  chart,
  container,
  expectRefusals,
  find,
  read,
  synth,
  template,
} from '../support/manifests';

const SCRIPT = { 'drop-in.sh': read('lib', 'drop-in', 'drop-in.sh') };
const HASH = createHash('sha256').update(JSON.stringify(SCRIPT)).digest('hex').slice(0, 10);
const APP_ARMOR = 'container.apparmor.security.beta.kubernetes.io/drop-in';

function synthDropIn(props?: OomPolicyDropInProps, namespace?: string): Manifest[] {
  const scope = chart(namespace);
  new OomPolicyDropIn(scope, 'drop-in', props);
  return synth(scope);
}

const pod = (manifests: Manifest[]) => template(find(manifests, 'DaemonSet'));
const named = (manifests: Manifest[]) =>
  manifests.map(({ kind, metadata }) => [kind, metadata.name, metadata.namespace]);

jest.setTimeout(60_000);

describe('the objects', () => {
  test('have stable names, in the namespace of the agent whatever the chart says', () => {
    expect(named(synthDropIn())).toEqual([
      ['ConfigMap', `oom-policy-drop-in-${HASH}`, 'oom-kill-mode'],
      ['NetworkPolicy', 'oom-policy-drop-in', 'oom-kill-mode'],
      ['DaemonSet', 'oom-policy-drop-in', 'oom-kill-mode'],
    ]);
    expect(synthDropIn({}, 'elsewhere')).toEqual(synthDropIn());
  });

  test('do not depend on the construct path', () => {
    const elsewhere = new Chart(Testing.app(), 'a-chart-of-another-name');
    new OomPolicyDropIn(elsewhere, 'an-id-of-another-name');
    expect(synth(elsewhere)).toEqual(synthDropIn());
  });

  test('bring the script as it is in the repository, and cannot change it', () => {
    expect(find(synthDropIn(), 'ConfigMap')).toMatchObject({ data: SCRIPT, immutable: true });
    expect(pod(synthDropIn()).spec.volumes[0]?.configMap.name).toBe(`oom-policy-drop-in-${HASH}`);
    expect(container(pod(synthDropIn())).command).toEqual([
      '/bin/sh',
      '/opt/oom-kill-mode/drop-in.sh',
    ]);
  });

  test('cost next to nothing, and need neither a probe nor a place of their own', () => {
    const { spec } = find(synthDropIn(), 'DaemonSet');
    expect(spec.minReadySeconds).toBe(10);
    expect(spec.updateStrategy.rollingUpdate).toEqual({ maxUnavailable: '10%' });
    const { startupProbe, livenessProbe, readinessProbe, resources } = container(
      pod(synthDropIn()),
    ) as Partial<ReturnType<typeof container>>;
    expect([startupProbe, livenessProbe, readinessProbe]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(resources).toEqual({
      requests: { cpu: '5m', memory: '4Mi' },
      limits: { cpu: '100m', memory: '32Mi' },
    });
    expect(pod(synthDropIn()).spec.priorityClassName).toBeUndefined();
  });

  test('are on the nodes of the agent', () => {
    const scope = chart();
    new OomKillModeAgent(scope, 'agent');
    const [ours, theirs] = [synthDropIn(), synth(scope)].map((manifests) => {
      const { tolerations, nodeSelector, affinity, containers } = pod(manifests).spec;
      return { tolerations, nodeSelector, affinity, image: containers[0]?.image };
    });
    expect(ours).toEqual(theirs);
    expect(ours?.tolerations).toEqual([{ operator: 'Exists' }]);
  });

  // An API server that knows the field refuses a pod in which the two differ.
  test('are not confined by AppArmor, by the field and by the annotation', () => {
    const { metadata, spec } = pod(synthDropIn());
    expect(metadata.annotations).toEqual({ [APP_ARMOR]: 'unconfined' });
    expect(container({ metadata, spec })).toMatchObject({
      name: 'drop-in',
      securityContext: { appArmorProfile: { type: 'Unconfined' } },
    });
  });

  test('take every option', () => {
    const manifests = synth(dropInChart(Testing.app())).slice(3);
    expect(named(manifests)).toEqual([
      ['ConfigMap', `every-${HASH}`, 'node-agents'],
      ['NetworkPolicy', 'every', 'node-agents'],
      ['DaemonSet', 'every', 'node-agents'],
    ]);
    for (const { metadata } of [...manifests, pod(manifests)]) {
      expect(metadata.labels).toMatchObject(ALL_DROP_IN_PROPS.labels);
      expect(metadata.annotations).toMatchObject(ALL_DROP_IN_PROPS.annotations);
    }
    const { image, imagePullPolicy, selinuxType, nodeSelector, ...others } = ALL_DROP_IN_PROPS;
    const { priorityClassName, tolerations, affinity } = others;
    expect(pod(manifests).spec).toMatchObject({
      priorityClassName,
      tolerations,
      affinity,
      nodeSelector: { ...nodeSelector, 'kubernetes.io/os': 'linux' },
      imagePullSecrets: [{ name: 'mirror-credentials' }],
    });
    expect(container(pod(manifests))).toMatchObject({
      image,
      imagePullPolicy,
      securityContext: { seLinuxOptions: { type: selinuxType, level: 's0' } },
    });
  });

  test('are not opted in by a policy around them', () => {
    const scope = chart();
    new OomPolicyDropIn(scope, 'drop-in');
    OomKillPolicy.of(scope).single();
    expect(() => synth(scope)).toThrow('[test] this scope has no workload for OomKillPolicy');
  });
});

describe('the options', () => {
  test.each<[string, unknown]>([
    ['the options are not an object: null', null],
    ['name is not a DNS-1123 label of at most 63 characters: "A"', { name: 'A' }],
    ['namespace is not a DNS-1123 label', { namespace: '' }],
    ['image is not a reference pinned by tag or digest: "curl"', { image: 'curl' }],
    ['priorityClassName is not a DNS-1123 subdomain', { priorityClassName: 'A' }],
    ['selinuxType is not an SELinux type: "a:b"', { selinuxType: 'a:b' }],
    ['nodeSelector would override', { nodeSelector: { 'kubernetes.io/os': 'a' } }],
    ['labels would override', { labels: { 'app.kubernetes.io/name': 'a' } }],
    ['annotations would override', { annotations: { [APP_ARMOR]: 'a' } }],
    ['tolerations[0] has no key', { tolerations: [{}] }],
  ])('are refused with the path and the remedy: %s', (message, wrong) => {
    expectRefusals(synthDropIn, `[test/drop-in] ${message}`, [wrong]);
  });

  test('are refused if two have one name in a cluster', () => {
    const scope = chart();
    new OomPolicyDropIn(scope, 'one');
    new OomPolicyDropIn(scope, 'two', { name: 'two' });
    expect(synth(scope)).toHaveLength(6);
    new OomPolicyDropIn(scope, 'three');
    expect(() => synth(scope)).toThrow(
      '[test/three] test/one already creates the ConfigMap oom-kill-mode/oom-policy-drop-in-',
    );
  });
});

describe('the script', () => {
  const FILE = '50-cdk8s-oom-kill-mode.conf';
  const DROP_INS = [`cri-containerd-.scope.d/${FILE}`, `crio-.scope.d/${FILE}`] as const;
  const CONTENT = '[Scope]\nOOMPolicy=continue\n';
  const UNREAD = '.cdk8s-oom-kill-mode.unread';
  // Higher than any process id of Linux can be.
  const NOBODY = 4_194_305;

  let directory: string;
  let system: string;
  let running: ChildProcess[];

  beforeAll(requireTools);

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'drop-in-'));
    system = join(directory, 'system');
    running = [];
    mkdirSync(system);
  });

  afterEach(() => {
    running.forEach((child) => child.kill('SIGKILL'));
    rmSync(directory, { recursive: true });
  });

  /** A process in the place of systemd, and a file that has a line for each reload that it was told of. */
  async function init(): Promise<{ pid: number; reloads: () => number }> {
    const told = join(directory, 'reloads');
    writeFileSync(told, '');
    const child = spawn('sh', [
      '-c',
      `trap 'echo >>${told}' HUP; : >${told}.ready; while :; do sleep 0.02; done`,
    ]);
    running.push(child);
    await until(() => readdirSync(directory).includes('reloads.ready'));
    return { pid: child.pid ?? NOBODY, reloads: () => readFileSync(told, 'utf8').length };
  }

  async function until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise((done) => setTimeout(done, 20));
    }
  }

  /** Runs the script until it ends or sleeps, and says how it ended and what it logged. */
  async function run(initPid: number, name = 'systemd') {
    const proc = join(directory, 'proc', String(initPid));
    mkdirSync(proc, { recursive: true });
    writeFileSync(join(proc, 'comm'), `${name}\n`);
    const child = spawn(join(ROOT, '.cache/tools/busybox'), ['ash', 'lib/drop-in/drop-in.sh'], {
      cwd: ROOT,
      env: {
        PATH: TOOLS_PATH,
        SYSTEMD_SYSTEM: system,
        INIT: proc,
      },
    });
    running.push(child);
    let output = '';
    child.stdout.on('data', (data: Buffer) => (output += data.toString()));
    const closed = new Promise((done) => child.on('close', done));
    let ended: string | undefined;
    void closed.then(() => (ended = String(child.exitCode ?? child.signalCode)));
    await until(() => ended !== undefined || commandOf(child) === 'sleep infinity');
    const sleeps = ended === undefined;
    if (sleeps) {
      child.kill('SIGTERM');
      await closed;
    }
    const log = output
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { ts: number; level: string; msg: string });
    expect(log.every(({ ts }) => Number.isInteger(ts) && ts > 1.7e9)).toBe(true);
    return { ended, sleeps, log: log.map(({ level, msg }) => `${level}: ${msg}`) };
  }

  function commandOf({ pid = NOBODY }: ChildProcess): string {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trim();
    } catch {
      return '';
    }
  }

  /** All files, with their content. */
  function files(): Record<string, string> {
    return Object.fromEntries(
      readdirSync(system, { recursive: true, encoding: 'utf8' })
        .filter((path) => statSync(join(system, path)).isFile())
        .map((path) => [path, readFileSync(join(system, path), 'utf8')]),
    );
  }

  const identities = () => DROP_INS.map((path) => statSync(join(system, path)).ino);
  const BOTH = Object.fromEntries(DROP_INS.map((path) => [path, CONTENT]));
  const IN_PLACE = 'info: OOMPolicy=continue is in place for the containers of this node';

  test('writes what differs and nothing else, and has systemd reload only then', async () => {
    const { pid, reloads } = await init();
    expect(await run(pid)).toEqual({
      // By the signal itself, at once: nothing is caught or waited for.
      ended: 'SIGTERM',
      sleeps: true,
      log: [
        ...DROP_INS.map((path) => `info: wrote ${path}`),
        'info: told systemd to reload',
        IN_PLACE,
      ],
    });
    expect(files()).toEqual(BOTH);
    expect(DROP_INS.map((path) => statSync(join(system, path)).mode & 0o777)).toEqual([
      0o644, 0o644,
    ]);
    await until(() => reloads() === 1);

    const before = identities();
    expect(await run(pid)).toMatchObject({ sleeps: true, log: [IN_PLACE] });
    expect(identities()).toEqual(before);

    writeFileSync(join(system, DROP_INS[1]), '[Scope]\nOOMPolicy=kill\n');
    expect((await run(pid)).log).toContain(`info: wrote ${DROP_INS[1]}`);
    expect(files()).toEqual(BOTH);
    expect(identities()[0]).toBe(before[0]);
    // The second run has told it nothing: there would be three.
    await until(() => reloads() > 1);
    expect(reloads()).toBe(2);
  });

  test.each(['init', 'systemd-networkd'])(
    'does nothing where process 1 is %s, and says so',
    async (name) => {
      expect(await run(NOBODY, name)).toMatchObject({
        sleeps: true,
        log: ['info: process 1 of this node is not systemd: there is nothing to do'],
      });
      expect(files()).toEqual({});
    },
  );

  // A script that is killed before it can tell systemd leaves the same files.
  test('says what to do when systemd cannot be told, and then tells it what it has not read', async () => {
    const { ended, log } = await run(NOBODY);
    expect(ended).toBe('1');
    expect(log.at(-1)).toMatch(/^error: cannot tell systemd to reload; .*AppArmor.*spc_t$/);
    expect(files()).toEqual({ ...BOTH, [UNREAD]: '' });

    const { pid, reloads } = await init();
    expect((await run(pid)).log).toEqual(['info: told systemd to reload', IN_PLACE]);
    expect(files()).toEqual(BOTH);
    await until(() => reloads() === 1);
  });

  test('says what to do where it cannot write, and tells systemd nothing', async () => {
    // A file is in the place of the second directory.
    writeFileSync(join(system, 'crio-.scope.d'), '');
    const { ended, log } = await run(NOBODY);
    expect(ended).toBe('1');
    expect(log.at(-1)).toMatch(/^error: cannot write crio-\.scope\.d\/.*; .*spc_t$/);
    expect(files()).toEqual({ [DROP_INS[0]]: CONTENT, 'crio-.scope.d': '', [UNREAD]: '' });
  });
});
