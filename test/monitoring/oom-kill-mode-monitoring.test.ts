import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Chart, Duration, Testing } from 'cdk8s';
import { Deployment } from 'cdk8s-plus-28';
import { parse as parseYaml, stringify } from 'yaml';
import {
  AlertThresholds,
  OomKillModeAgent,
  OomKillModeAgentProps,
  OomKillModeMonitoring,
  OomKillModeMonitoringProps,
  OomKillPolicy,
} from '../../lib';
import { CONDITIONS } from '../../lib/agent/metrics';
import { crdValidator } from '../support/crd';
import {
  Manifest,
  ROOT,
  chart,
  expectRefusals,
  find,
  read,
  synth,
  template,
} from '../support/manifests';
import { ALL_METRICS, SERIES, exposition, names, samples } from '../support/promql';

type MonitoringOptions = Omit<OomKillModeMonitoringProps, 'agent' | 'agents'>;

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: Record<string, string>;
  readonly annotations: Record<string, string>;
}

interface Dashboard {
  readonly uid: string;
  readonly title: string;
  readonly panels: {
    readonly id: number;
    readonly title: string;
    readonly description: string;
    readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; h: number };
    readonly targets: { readonly refId: string; readonly expr: string }[];
  }[];
  readonly templating: { readonly list: { name: string; query: string | { query: string } }[] };
}

/** What the construct makes, without the agent. */
function monitoring(
  options: MonitoringOptions = {},
  agentProps: OomKillModeAgentProps = {},
): Manifest[] {
  const scope = chart();
  const agent = new OomKillModeAgent(scope, 'agent', { metrics: true, ...agentProps });
  const count = synth(scope).length;
  new OomKillModeMonitoring(scope, 'monitoring', { agent, ...options });
  return synth(scope).slice(count);
}

function only(manifests: Manifest[], kind: string): Manifest {
  const [manifest, ...others] = manifests.filter((m) => m.kind === kind);
  if (manifest === undefined || others.length > 0) {
    throw new Error(`${manifests.map((m) => m.kind).join(', ')}: not one ${kind}`);
  }
  return manifest;
}

function rulesOf(manifests: Manifest[]): Rule[] {
  const { groups } = only(manifests, 'PrometheusRule').spec as { groups: { rules: Rule[] }[] };
  return groups.flatMap(({ rules }) => rules);
}

function dashboardOf(manifests: Manifest[]): Dashboard {
  const [text, ...others] = Object.values(find(manifests, 'ConfigMap').data);
  expect(others).toEqual([]);
  return JSON.parse(text ?? '') as Dashboard;
}

/** Every query of the dashboard, by where it is; the variables of Grafana filled in. */
function queries(board: Dashboard): [where: string, query: string][] {
  const all = [
    ...board.panels.flatMap(({ title, targets }) =>
      targets.map(({ refId, expr }): [string, string] => [`${title} ${refId}`, expr]),
    ),
    ...board.templating.list.flatMap(({ name, query }): [string, string][] => {
      const [, series] = /^label_values\((.*), \w+\)$/.exec(
        typeof query === 'string' ? query : query.query,
      ) ?? [undefined, undefined];
      return series === undefined ? [] : [[`variable ${name}`, series]];
    }),
  ];
  return all.map(([where, query]) => [
    where,
    query
      .replaceAll('$__rate_interval', '5m')
      .replaceAll('$__range', '1h')
      .replaceAll('$namespace', '.*'),
  ]);
}

/** Runs a tool of Debian's; that it is not there is a failure. */
function run(tool: string, args: string[], options: { input?: string; cwd?: string } = {}) {
  const { error, status, stdout, stderr } = spawnSync(tool, args, { encoding: 'utf8', ...options });
  if (error) {
    throw new Error(`missing: ${tool}; as root on Debian, this brings it: sh scripts/tools.sh`);
  }
  return { status, output: stdout + stderr };
}

/** A directory with the rules, where promtool's tests find them. */
function withRules(groups: unknown): string {
  const directory = mkdtempSync(join(tmpdir(), 'oom-kill-mode-'));
  writeFileSync(join(directory, 'rules.yml'), stringify({ groups }));
  return directory;
}

/** What promtool makes of a file of tests for these rules. */
function expectRulesPass(directory: string, file: string): void {
  const { status, output } = run('promtool', ['test', 'rules', file], { cwd: directory });
  expect(output).toContain('SUCCESS');
  expect(status).toBe(0);
}

const RULES_OPTIONS = {
  runbookUrl: 'https://example.com/troubleshooting',
  ignoredNodes: 'windows-.+',
};
const ALERTS = [
  'OomKillModeAgentAbsent',
  'OomKillModeAgentDown',
  'OomKillModeNotApplied',
  'OomKillModeProcessKills',
  'OomKillModeCannotApply',
  'OomKillModeStaleSync',
];

/** What Prometheus adds to what it scrapes, by the PodMonitor and by itself. */
const TARGET_LABELS = ['job', 'node', 'instance'];
const OWN_SERIES: Record<string, string[]> = {
  up: TARGET_LABELS,
  ALERTS: ['alertname', 'alertstate', 'node', 'condition', 'namespace', 'pod', 'container'],
};

const ALL_THRESHOLDS: Required<AlertThresholds> = {
  agentDown: Duration.minutes(3),
  notApplied: Duration.seconds(90),
  processKills: 0,
  processKillsWindow: Duration.hours(1),
  cannotApply: Duration.minutes(20),
  staleSync: Duration.hours(2),
};

const ALL_OPTIONS: Required<MonitoringOptions> = {
  name: 'oom',
  namespace: 'monitoring',
  podMonitor: true,
  alerts: true,
  dashboard: true,
  labels: { release: 'kube-prometheus-stack' },
  annotations: { 'example.com/owner': 'platform' },
  dashboardLabels: { 'example.com/dashboard': 'yes' },
  scrapeInterval: Duration.seconds(15),
  thresholds: ALL_THRESHOLDS,
  alertLabels: { severity: 'critical', team: 'platform' },
  runbookUrl: 'https://example.com/troubleshooting',
  kubeletJob: 'kubelets',
  ignoredNodes: 'windows-.+|"quoted"\\..+',
};

test('an agent with metrics has one more container, and is otherwise the agent that it was', () => {
  const [bare, served] = [false, true].map((metrics) => {
    const scope = chart();
    new OomKillModeAgent(scope, 'agent', { metrics });
    return template(find(synth(scope), 'DaemonSet')).spec;
  });
  const [agent, sidecar, ...others] = served?.containers ?? [];
  expect([sidecar?.name, others]).toEqual(['metrics', []]);
  expect(agent?.env.slice(-1)).toEqual([{ name: 'METRICS', value: 'yes' }]);
  const containers = [{ ...agent, env: agent?.env.slice(0, -1) }];
  expect({ ...served, containers, volumes: served?.volumes.slice(0, -1) }).toEqual(bare);
});

describe('the objects', () => {
  test('are a PodMonitor, a PrometheusRule and a dashboard', () => {
    expect(monitoring().filter((m) => m.kind !== 'ConfigMap')).toMatchSnapshot();
    const { metadata, data } = find(monitoring(), 'ConfigMap');
    expect(metadata).toMatchSnapshot();
    expect(Object.keys(data)).toEqual(['oom-kill-mode-agent.json']);
  });

  test('take every option', () => {
    expect(monitoring(ALL_OPTIONS).filter((m) => m.kind !== 'ConfigMap')).toMatchSnapshot();
    const { metadata, data } = find(monitoring(ALL_OPTIONS), 'ConfigMap');
    expect(metadata).toMatchSnapshot();
    expect(Object.keys(data)).toEqual(['oom.json']);
  });

  test.each<[string, MonitoringOptions, string[]]>([
    ['PodMonitor', { podMonitor: false }, ['PrometheusRule', 'ConfigMap']],
    ['PrometheusRule', { alerts: false }, ['PodMonitor', 'ConfigMap']],
    ['ConfigMap', { dashboard: false }, ['PodMonitor', 'PrometheusRule']],
  ])('can be had without the %s', (_, options, kinds) => {
    expect(monitoring(options).map((m) => m.kind)).toEqual(kinds);
  });

  test('find the pods of the agent by its labels and its port, wherever they are themselves', () => {
    const scope = chart();
    const agent = new OomKillModeAgent(scope, 'agent', {
      name: 'a',
      namespace: 'b',
      metrics: true,
    });
    new OomKillModeMonitoring(scope, 'monitoring', { agent, name: 'c', namespace: 'd' });
    const manifests = synth(scope);
    const { spec } = only(manifests, 'PodMonitor') as unknown as {
      spec: {
        jobLabel: string;
        selector: { matchLabels: Record<string, string> };
        namespaceSelector: object;
        podMetricsEndpoints: { port: string }[];
      };
    };
    const pods = template(find(manifests, 'DaemonSet'));
    expect(pods.metadata.labels).toMatchObject(spec.selector.matchLabels);
    expect(pods.metadata.labels[spec.jobLabel]).toBe('a');
    expect(spec.namespaceSelector).toEqual({ matchNames: ['b'] });
    const ports = pods.spec.containers.flatMap(
      (c) => (c.ports as typeof c.ports | undefined) ?? [],
    );
    expect(ports.map(({ name }) => name)).toEqual(spec.podMetricsEndpoints.map(({ port }) => port));
    expect(rulesOf(manifests)[0]?.expr).toBe('absent(up{job="a"})');
  });

  test('are no workloads to a policy around them', () => {
    const scope = chart();
    const agent = new OomKillModeAgent(chart(), 'agent', { metrics: true });
    new OomKillModeMonitoring(scope, 'monitoring', { agent });
    const before = synth(scope);
    new Deployment(scope, 'web', { containers: [{ image: 'example.com/image:1' }] });
    OomKillPolicy.of(scope).single();
    expect(synth(scope).slice(0, 3)).toEqual(before);
  });

  test('do not depend on the construct path', () => {
    const elsewhere = new Chart(Testing.app(), 'a-chart-of-another-name', { namespace: 'another' });
    const agent = new OomKillModeAgent(elsewhere, 'x', { metrics: true });
    new OomKillModeMonitoring(elsewhere, 'y', { agent });
    expect(synth(elsewhere).slice(-3)).toEqual(monitoring());
  });
});

describe('the definitions of the Prometheus operator', () => {
  const podMonitor = crdValidator('monitoring.coreos.com_podmonitors.yaml');
  const prometheusRule = crdValidator('monitoring.coreos.com_prometheusrules.yaml');

  test.each<[string, MonitoringOptions]>([
    ['no option', {}],
    ['every option', ALL_OPTIONS],
  ])('accept what %s makes', (_, options) => {
    const manifests = monitoring(options);
    expect(podMonitor(only(manifests, 'PodMonitor'))).toEqual([]);
    expect(prometheusRule(only(manifests, 'PrometheusRule'))).toEqual([]);
  });
});

test('imports/ is what `cdk8s import` generates', () => {
  const generated = (directory: string) =>
    Object.fromEntries(
      readdirSync(directory)
        .filter((name) => name.endsWith('.ts') && !name.endsWith('.d.ts'))
        .map((name) => [name, readFileSync(join(directory, name), 'utf8')]),
    );
  const directory = mkdtempSync(join(tmpdir(), 'oom-kill-mode-'));
  copyFileSync(join(ROOT, 'imports/cdk8s.yaml'), join(directory, 'cdk8s.yaml'));
  cpSync(join(ROOT, 'imports/crds'), join(directory, 'crds'), { recursive: true });
  const { status, stderr } = spawnSync(
    process.execPath,
    [join(ROOT, 'node_modules/cdk8s-cli/bin/cdk8s'), 'import', '--output', '.'],
    {
      cwd: directory,
      encoding: 'utf8',
      env: { ...process.env, CDK8S_CHECK_UPGRADE: 'false' },
    },
  );
  expect({ status, stderr }).toMatchObject({ status: 0 });
  expect(Object.keys(generated(directory))).toHaveLength(2);
  expect(generated(directory)).toEqual(generated(join(ROOT, 'imports')));
}, 60_000);

describe('the catalog', () => {
  test('is what promtool finds nothing to say about', () => {
    expect(run('promtool', ['check', 'metrics'], { input: exposition() })).toEqual({
      status: 0,
      output: '',
    });
  });

  test('comes out of node-exporter as it went in, with nothing of a node', async () => {
    const scraped = await scrape(exposition());
    expect(scraped.landing).toBe(200);
    const lines = scraped.metrics.split('\n');
    expect(
      lines
        .filter((line) => line.startsWith('oom_kill_mode_'))
        .map(sortLabels)
        .sort(),
    ).toEqual(
      samples()
        .map(([series, value]) => sortLabels(`${series} ${value}`))
        .sort(),
    );
    // What the exporter says of itself, which the PodMonitor drops.
    const others = lines.filter((line) => !/^(#|oom_kill_mode_|$)/.test(line));
    expect(
      others.filter((line) => !/^(node_(exporter|scrape|textfile)|promhttp)_/.test(line)),
    ).toEqual([]);
    expect(scraped.metrics).toContain('\nnode_textfile_scrape_error 0\n');
  }, 30_000);
});

/** The same line with its labels in the order of their names. */
function sortLabels(line: string): string {
  return line.replace(/\{(.*)\}/, (_, list: string) => `{${list.split(',').sort().join(',')}}`);
}

/** Runs the sidecar's command line over a file of the agent's, as its uid if that can be had. */
async function scrape(text: string): Promise<{ metrics: string; landing: number }> {
  const { args } = (() => {
    const scope = chart();
    new OomKillModeAgent(scope, 'agent', { metrics: true });
    const sidecar = template(find(synth(scope), 'DaemonSet')).spec.containers[1];
    return { args: sidecar?.args ?? [] };
  })();
  const directory = mkdtempSync(join(tmpdir(), 'oom-kill-mode-'));
  chmodSync(directory, 0o755);
  writeFileSync(join(directory, 'oom_kill_mode.prom'), text);
  const port = await freePort();
  const child = spawn(
    'prometheus-node-exporter',
    args.map((arg) =>
      arg.replace('=/run/metrics', `=${directory}`).replace('=:9539', `=127.0.0.1:${port}`),
    ),
    { stdio: 'ignore', ...(process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : {}) },
  );
  const failure = new Promise<never>((_, reject) => {
    child.on('error', () => {
      reject(new Error('missing: prometheus-node-exporter; this brings it: sh scripts/tools.sh'));
    });
    child.on('exit', (code) => {
      reject(new Error(`node-exporter ended with ${String(code)}: ${args.join(' ')}`));
    });
  });
  let ended = false;
  const answers = async () => {
    for (;;) {
      try {
        const response = await fetch(`http://127.0.0.1:${port}/metrics`);
        const landing = await fetch(`http://127.0.0.1:${port}/`);
        return { metrics: await response.text(), landing: landing.status };
      } catch (error) {
        // Not up yet, or never.
        if (ended) {
          throw error;
        }
        await new Promise((done) => setTimeout(done, 100));
      }
    }
  };
  try {
    return await Promise.race([answers(), failure]);
  } finally {
    ended = true;
    child.removeAllListeners();
    child.kill();
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => {
    server.listen(0, '127.0.0.1', done);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}

describe('the alerts', () => {
  const manifests = monitoring(RULES_OPTIONS);
  const { groups } = only(manifests, 'PrometheusRule').spec as { groups: unknown };
  let directory: string;

  beforeAll(() => {
    directory = withRules(groups);
  });

  test('have the names that the pages give them', () => {
    expect(rulesOf(manifests).map(({ alert }) => alert)).toEqual(ALERTS);
  });

  test.each<[string, MonitoringOptions]>([
    ['no option', {}],
    ['every option', ALL_OPTIONS],
  ])('are rules to promtool with %s', (_, options) => {
    const { spec } = only(monitoring(options), 'PrometheusRule') as unknown as {
      spec: { groups: unknown };
    };
    const { status, output } = run('promtool', ['check', 'rules', 'rules.yml'], {
      cwd: withRules(spec.groups),
    });
    expect(output).toContain(`SUCCESS: ${ALERTS.length} rules found`);
    expect(status).toBe(0);
  });

  test('have a test each, which sees them fire and sees them quiet', () => {
    expect(readdirSync(join(ROOT, 'test/monitoring/prometheus')).sort()).toEqual(
      ALERTS.map((alert) => `${alert}.yml`).sort(),
    );
    for (const alert of ALERTS) {
      const { tests } = parseYaml(read('test/monitoring/prometheus', `${alert}.yml`)) as {
        tests: { alert_rule_test: { alertname: string; exp_alerts: unknown[] }[] }[];
      };
      const cases = tests.map((t) => t.alert_rule_test);
      expect(new Set(cases.flat().map(({ alertname }) => alertname))).toEqual(new Set([alert]));
      // Some test sees it fire, and some other never does.
      expect(cases.some((c) => c.some(({ exp_alerts }) => exp_alerts.length > 0))).toBe(true);
      expect(cases.some((c) => c.every(({ exp_alerts }) => exp_alerts.length === 0))).toBe(true);
    }
  });

  test.each(ALERTS)('%s fires when it should and only then', (alert) => {
    copyFileSync(
      join(ROOT, 'test/monitoring/prometheus', `${alert}.yml`),
      join(directory, `${alert}.test.yml`),
    );
    expectRulesPass(directory, `${alert}.test.yml`);
  });

  test('name metrics and labels of the catalog only', () => {
    for (const { alert, expr } of rulesOf(manifests)) {
      expect([alert, strangers(expr)]).toEqual([alert, []]);
    }
  });

  test('lead to sections that docs/troubleshooting.md has', () => {
    const headings = [...read('docs', 'troubleshooting.md').matchAll(/^#+ (.*)$/gm)].map(
      ([, heading = '']) => heading.toLowerCase().replace(/ /g, '-'),
    );
    const anchors = rulesOf(manifests).flatMap(({ annotations }) => {
      const [, anchor = ''] = annotations['runbook_url']?.split('#') ?? [];
      return anchor.startsWith('{{') ? CONDITIONS : [anchor];
    });
    expect(anchors).toHaveLength(ALERTS.length - 1 + CONDITIONS.length);
    expect(headings).toEqual(expect.arrayContaining(anchors));
    expect(new Set(headings).size).toBe(headings.length);
  });

  test('lead to the runbook, each to its own section', () => {
    const anchors = rulesOf(manifests).map(({ annotations }) =>
      annotations['runbook_url']?.replace('https://example.com/troubleshooting#', ''),
    );
    expect(anchors).toEqual(
      ALERTS.map((alert) =>
        alert === 'OomKillModeCannotApply' ? '{{ $labels.condition }}' : alert.toLowerCase(),
      ),
    );
    expect(rulesOf(monitoring()).map(({ annotations }) => annotations['runbook_url'])).toEqual(
      ALERTS.map(() => undefined),
    );
  });
});

/** What an expression names that nobody writes. */
function strangers(expr: string): string[] {
  const found = names(expr);
  const known = new Set(
    found.metrics.flatMap((name) => [
      ...(OWN_SERIES[name] ?? TARGET_LABELS),
      ...ALL_METRICS.filter((metric) => metric.name === name).flatMap(({ labels }) =>
        Object.keys(labels),
      ),
    ]),
  );
  return [
    ...found.metrics.filter((name) => !SERIES.includes(name) && !(name in OWN_SERIES)),
    ...found.labels.filter((label) => !known.has(label)),
  ];
}

describe('the dashboard', () => {
  const board = dashboardOf(monitoring());

  test('names metrics and labels of the catalog only', () => {
    expect(queries(board).length).toBeGreaterThan(10);
    for (const [where, query] of queries(board)) {
      expect([where, strangers(query)]).toEqual([where, []]);
    }
  });

  test('shows every metric of the catalog', () => {
    const shown = new Set(queries(board).flatMap(([, query]) => names(query).metrics));
    expect(SERIES.filter((name) => !shown.has(name))).toEqual([]);
  });

  test('has data in every query once the agent has written all it can', () => {
    const all = queries(board);
    const record = (i: number) => `query:${i}`;
    const directory = withRules([
      { name: 'queries', rules: all.map(([, expr], i) => ({ record: record(i), expr })) },
    ]);
    const target = 'job="oom-kill-mode-agent",node="n1",instance="10.0.0.1:9539"';
    const series = samples()
      // A container whose mode is wrong, or two panels would rightly be empty.
      .map(([name, value]): [string, number] => [name, /_effective/.test(name) ? 0 : value])
      .map(([name, value]) => ({
        series: /\}$/.test(name) ? name.replace(/\}$/, `,${target}}`) : `${name}{${target}}`,
        values: /_total\b/.test(name) ? `${value}+${value}x60` : `${value}x60`,
      }));
    writeFileSync(
      join(directory, 'queries.test.yml'),
      stringify({
        rule_files: ['rules.yml'],
        tests: [
          {
            interval: '1m',
            input_series: [
              ...series,
              {
                series: 'ALERTS{alertname="OomKillModeStaleSync",alertstate="firing"}',
                values: '1x60',
              },
            ],
            promql_expr_test: all.map((_, i) => ({
              expr: `count(${record(i)}) > bool 0`,
              eval_time: '30m',
              exp_samples: [{ labels: '{}', value: 1 }],
            })),
          },
        ],
      }),
    );
    expectRulesPass(directory, 'queries.test.yml');
  });

  test('counts a container whose memory.oom.group cannot be read, and no zero without an agent', () => {
    const [, expr = ''] =
      queries(board).find(([where]) => where === 'Containers without their mode A') ?? [];
    const directory = withRules([]);
    const agent = 'oom_kill_mode_build_info{job="oom-kill-mode-agent"}';
    const unread = 'oom_kill_mode_container_group_desired{job="oom-kill-mode-agent",namespace="a"}';
    const cases: [series: string[], counts: number[]][] = [
      [[], []],
      [[agent], [0]],
      [[agent, unread], [1]],
    ];
    writeFileSync(
      join(directory, 'count.test.yml'),
      stringify({
        tests: cases.map(([series, counts]) => ({
          interval: '1m',
          input_series: series.map((one) => ({ series: one, values: '1x5' })),
          promql_expr_test: [
            {
              expr,
              eval_time: '5m',
              exp_samples: counts.map((value) => ({ labels: '{}', value })),
            },
          ],
        })),
      }),
    );
    expectRulesPass(directory, 'count.test.yml');
  });

  test('has the panels of docs/dashboard-layout.svg', () => {
    const drawn = [...read('docs/dashboard-layout.svg').matchAll(/<text[^>]*>(.*)<\/text>/g)];
    expect(drawn.map(([, text = '']) => text.replace(/<[^>]+>/g, ''))).toEqual(
      board.panels.map(({ title }) => title),
    );
  });

  test('has panels with a name, a description and a place of their own', () => {
    const { panels } = board;
    expect(panels.map(({ id }) => id)).toEqual(panels.map((_, i) => i + 1));
    const cells = panels.flatMap(({ gridPos: { x, y, w, h } }) =>
      Array.from({ length: w * h }, (_, i) => `${x + (i % w)} ${y + Math.floor(i / w)}`),
    );
    expect(new Set(cells).size).toBe(cells.length);
    for (const { title, description, gridPos, targets } of panels) {
      expect(title).not.toBe('');
      expect(description).toMatch(/\.$/);
      expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24);
      expect(new Set(targets.map(({ refId }) => refId)).size).toBe(targets.length);
    }
  });

  test('is another one for each agent, and always the same for one agent', () => {
    const other = dashboardOf(monitoring({}, { name: 'a'.repeat(63) }));
    expect(other.uid).not.toBe(board.uid);
    expect(other.uid.length).toBeLessThanOrEqual(40);
    expect(other.title).not.toBe(board.title);
    expect(dashboardOf(monitoring({ name: 'other' })).uid).toBe(board.uid);
  });
});

describe('the options', () => {
  const each = <T>(name: string, values: T[]) => values.map((value) => ({ [name]: value }));

  // A rule, and what breaks it.
  test.each<[string, ...MonitoringOptions[]]>([
    ['name is not a DNS-1123 label', ...each('name', ['A', 'a'.repeat(64)])],
    ['namespace is not a DNS-1123 label', { namespace: '' }],
    [
      'podMonitor, alerts and dashboard are all false. Write true for one of them, or no OomKillModeMonitoring.',
      { podMonitor: false, alerts: false, dashboard: false },
    ],
    ['labels would override', { labels: { 'app.kubernetes.io/name': 'x' } }],
    ['labels["release"] is not a valid label value', { labels: { release: 'a b' } }],
    ['labels has an invalid key', { dashboardLabels: { 'a/b/c': '1' } }],
    ['annotations has an invalid key', { annotations: { '': 'x' } }],
    [
      'scrapeInterval is not a whole number of seconds from 5 to 120: 4',
      { scrapeInterval: Duration.seconds(4) },
    ],
    [
      'agentDown is not a whole number of seconds from 60 to 86400: 59',
      { thresholds: { agentDown: Duration.seconds(59) } },
      { alerts: false, thresholds: { agentDown: Duration.seconds(59) } },
    ],
    [
      'notApplied is not a whole number of seconds from 60 to 86400: 172800',
      { thresholds: { notApplied: Duration.days(2) } },
    ],
    [
      'processKillsWindow is not a whole number of seconds from 300 to 86400: 240',
      { thresholds: { processKillsWindow: Duration.minutes(4) } },
    ],
    [
      'cannotApply is not a whole number of seconds from 60 to 86400: 59',
      { thresholds: { cannotApply: Duration.seconds(59) } },
    ],
    [
      'staleSync is not a whole number of seconds from 300 to 86400: 600.5',
      { thresholds: { staleSync: Duration.millis(600_500) } },
    ],
    [
      'processKills is not a whole number from 0 to 1000000',
      ...[-1, 1.5, NaN, Infinity].map((processKills) => ({ thresholds: { processKills } })),
    ],
    [
      'alertLabels has an invalid name',
      ...['a-b', '1a', '', '__name__', 'alertname'].map((name) => ({
        alertLabels: { [name]: 'x' },
      })),
    ],
    [
      'runbookUrl is not an http or https address without an anchor',
      ...each('runbookUrl', ['', 'example.com', 'ftp://example.com', 'https://a b']),
      ...each('runbookUrl', ['https://a/#b', 'https://a/{{x}}']),
    ],
    ['kubeletJob is not the name of a job', ...each('kubeletJob', ['', 'a b', 'a"b', 'a{}'])],
    [
      'ignoredNodes is not a regular expression of RE2',
      ...each('ignoredNodes', ['', '(', '*', 'a(?=b)', '(?<!a)b', '(a)\\1']),
    ],
  ])('are refused with the path and the remedy: %s', (message, ...wrong) => {
    expectRefusals(monitoring, `[test/monitoring] ${message}`, wrong);
  });

  test.each<[string, unknown]>([
    ['the options are not an object: undefined. Write { … }.', undefined],
    ['neither agent nor agents is set. Write agent: the OomKillModeAgent to watch, or', {}],
    ['both agent and agents are set. Write agent', { agent: {}, agents: [] }],
    ['agents is empty or has an agent twice. Write each agent to watch once.', { agents: [] }],
    ['agents contains a value that is not an OomKillModeAgent. Write', { agents: [{}] }],
    ['agent is not an OomKillModeAgent. Write', { agent: {} }],
  ])('are refused where no compiler has seen them: %s', (message, props) => {
    expect(() => new OomKillModeMonitoring(chart(), 'monitoring', props as never)).toThrow(
      `[test/monitoring] ${message}`,
    );
  });

  test('are refused for an agent without metrics, with both paths', () => {
    const scope = chart();
    const agent = new OomKillModeAgent(scope, 'agent');
    expect(() => new OomKillModeMonitoring(scope, 'monitoring', { agent })).toThrow(
      '[test/monitoring] test/agent is an agent without metrics. Write metrics: true in the options of the agent.',
    );
  });

  test('are refused if two have one name in one namespace, in any charts of the app', () => {
    const app = Testing.app();
    const scope = new Chart(app, 'test');
    const agent = new OomKillModeAgent(scope, 'agent', { metrics: true });
    new OomKillModeMonitoring(scope, 'a', { agent });
    const other = new Chart(app, 'other');
    new OomKillModeMonitoring(other, 'c', { agent, namespace: 'elsewhere' });
    expect(() => synth(other)).not.toThrow();
    new OomKillModeMonitoring(other, 'b', { agent });
    expect(() => synth(other)).toThrow(
      '[other/b] test/a already creates the PodMonitor oom-kill-mode/oom-kill-mode-agent in this cluster (outermost chart). Write another name, or an outermost chart for each cluster.',
    );
  });
});

describe('with agents of several node pools', () => {
  /** Two agents, and what watches them. */
  function pools(choose: (a: OomKillModeAgent, b: OomKillModeAgent) => OomKillModeMonitoringProps) {
    const scope = new Chart(Testing.app(), 'pools');
    const agent = (name: string) =>
      new OomKillModeAgent(scope, name, {
        name,
        metrics: true,
        createNamespace: name === 'pool-a',
        nodeSelector: { pool: name },
      });
    const [a, b] = [agent('pool-a'), agent('pool-b')];
    new OomKillModeMonitoring(scope, 'monitoring', choose(a, b));
    return synth(scope);
  }

  const manifests = pools((a, b) => ({ agents: [a, b] }));

  test('one PodMonitor finds the pods of all, and one dashboard shows them', () => {
    expect(manifests.find(({ kind }) => kind === 'PodMonitor')?.['spec']).toMatchObject({
      selector: {
        matchLabels: {
          'app.kubernetes.io/name': 'cdk8s-oom-kill-mode',
          'app.kubernetes.io/component': 'agent',
        },
        matchExpressions: [
          { key: 'app.kubernetes.io/instance', operator: 'In', values: ['pool-a', 'pool-b'] },
        ],
      },
      namespaceSelector: { matchNames: ['oom-kill-mode'] },
    });
    const dashboards = manifests.filter(({ metadata }) => metadata.name === 'pool-a-dashboard');
    expect(JSON.stringify(dashboards)).toContain('job=~\\\\\\"pool-a|pool-b\\\\\\"');
  });

  // Node n1 is of pool a, n2 of pool b, and n3 is new and has no agent yet. On n2 the agent ends after ten minutes.
  test.each([
    ['one monitoring for both', manifests, ['n2', 'n3']],
    ['a monitoring for a', pools((agent) => ({ agent })), ['n3']],
    ['a monitoring for b', pools((_, agent) => ({ agent })), ['n2', 'n3']],
  ])('the node of a pool is missed by what watches its agent: %s', (_, made, missed) => {
    const directory = withRules((only(made, 'PrometheusRule').spec as { groups: unknown }).groups);
    const series = (name: string, values: string) => ({ series: name, values });
    const alert = (node: string) => ({
      exp_labels: { node, severity: 'warning' },
      exp_annotations: {
        summary: `Prometheus gets no metrics of the agent from node ${node}.`,
        description: `Node ${node} has no pod of the agent, or the pod serves no metrics. Containers that start there may keep the default mode of the node.`,
      },
    });
    const test = {
      interval: '1m',
      input_series: [
        ...['n1', 'n2', 'n3'].map((node) => series(`up{job="kubelet", node="${node}"}`, '1x60')),
        series('up{job="pool-a", node="n1"}', '1x60'),
        series('oom_kill_mode_build_info{job="pool-a", node="n1"}', '1x60'),
        series('up{job="pool-b", node="n2"}', '1x10 stale'),
        series('oom_kill_mode_build_info{job="pool-b", node="n2"}', '1x10 stale'),
      ],
      alert_rule_test: [
        { alertname: 'OomKillModeAgentDown', eval_time: '9m', exp_alerts: [alert('n3')] },
        { alertname: 'OomKillModeAgentDown', eval_time: '30m', exp_alerts: missed.map(alert) },
      ],
    };
    writeFileSync(
      join(directory, 'pools.test.yml'),
      stringify({ rule_files: ['rules.yml'], evaluation_interval: '1m', tests: [test] }),
    );
    expectRulesPass(directory, 'pools.test.yml');
  });

  test('agents of different clusters are refused', () => {
    const app = Testing.app();
    const agents = ['a', 'b'].map(
      (name) => new OomKillModeAgent(new Chart(app, name), 'agent', { metrics: true }),
    );
    expect(() => new OomKillModeMonitoring(new Chart(app, 'c'), 'monitoring', { agents })).toThrow(
      '[c/monitoring] b/agent and a/agent are agents of different clusters (outermost charts). Write an OomKillModeMonitoring for each cluster.',
    );
  });
});

describe('docs/monitoring.md', () => {
  const text = read('docs', 'monitoring.md');
  const cells = (line: string) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
  const table = (heading: string) => {
    const [, section = ''] = text.split(`\n## ${heading}\n`);
    const lines = (section.split('\n## ')[0] ?? '').split('\n').filter((l) => l.startsWith('|'));
    return lines.slice(2).map(cells);
  };

  test('has the catalog', () => {
    expect(table('Metrics')).toEqual(
      ALL_METRICS.map(({ name, type, labels, help }) => [
        `\`${name}\``,
        type,
        Object.keys(labels)
          .map((label) => `\`${label}\``)
          .join(', '),
        help,
      ]),
    );
    for (const condition of CONDITIONS) {
      expect(text).toContain(`\`${condition}\``);
    }
  });

  test('has the alerts', () => {
    expect(table('Alerts').map(([name]) => name)).toEqual(ALERTS.map((alert) => `\`${alert}\``));
  });

  test('has an example that makes what it says', () => {
    const [, program = ''] = /^```ts\n(.*?)^```$/ms.exec(text) ?? [];
    mkdirSync(join(ROOT, '.cache'), { recursive: true });
    const directory = mkdtempSync(join(ROOT, '.cache/docs-'));
    try {
      writeFileSync(
        join(directory, 'main.ts'),
        program.replace("'cdk8s-oom-kill-mode'", JSON.stringify(join(ROOT, 'lib'))),
      );
      expect(
        run(process.execPath, ['-r', 'ts-node/register/transpile-only', 'main.ts'], {
          cwd: directory,
        }),
      ).toEqual({ status: 0, output: '' });
      const made = readFileSync(join(directory, 'dist/platform.k8s.yaml'), 'utf8');
      for (const kind of ['PodMonitor', 'PrometheusRule', 'DaemonSet']) {
        expect(made).toContain(`kind: ${kind}\n`);
      }
      expect(made).toContain('grafana_dashboard: "1"');
    } finally {
      rmSync(directory, { recursive: true });
    }
  }, 120_000);
});
