import * as cdk8s from 'cdk8s';
import { ApiObject, App, Chart, Include, JsonPatch, Lazy, Size, Testing } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { k8s } from 'cdk8s-plus-28';
import { Construct } from 'constructs';
import * as library from '../../lib';
import {
  Herder,
  HerderChart,
  HerderChartProps,
  OomKillMode,
  OomKillModeAdmissionPolicy,
  OomKillModeAgent,
  OomKillModeAgentProps,
  OomKillModeDefaults,
  OomKillModeMonitoring,
  OomKillPolicy,
  OnePerNodeDeployment,
  OomPolicyDropIn,
} from '../../lib';
import {
  ALL_PROPS,
  admissionChart,
  allPropsChart,
  defaultsChart,
  dropInChart,
  monitoringChart,
} from '../support/all-props';
import { find, parse, read, synth, temporary, template } from '../support/manifests';

// What constructs of ours, and those of others, mean to each other in one app.

const IMAGE = 'example.com/image:1';
const LABEL = 'cdk8s-oom-kill-mode/mode';

function deployment(scope: Construct, name = 'web'): kplus.Deployment {
  return new kplus.Deployment(scope, name, {
    metadata: { name },
    containers: [{ name: 'main', image: IMAGE }],
  });
}

/** Synthesizes an app of some charts. */
function app(make: (...charts: [Chart, Chart]) => void): string {
  const root = Testing.app();
  make(new Chart(root, 'a'), new Chart(root, 'b'));
  return root.synthYaml();
}

describe('the prefixes of an app', () => {
  const OTHER = { labelPrefix: 'oom.example.com' };
  const REMEDY = 'labelPrefix: "oom.example.com".';

  test.each<[string, (scope: Chart) => void, string]>([
    ['a policy', (b) => OomKillPolicy.of(deployment(b)).single(), '[b/web]'],
    ['an admission policy', (b) => new OomKillModeAdmissionPolicy(b, 'guard'), '[b/guard]'],
    ['a herder', (b) => new Herder(b, 'herder'), '[b/herder/OnePerNode/Deployment]'],
  ])('%s that no agent obeys is an error', (_, make, path) => {
    expect(() =>
      app((a, b) => {
        new OomKillModeAgent(a, 'agent', OTHER);
        make(b);
      }),
    ).toThrow(
      `${path} labelPrefix is cdk8s-oom-kill-mode, but no agent of this app has this prefix. Write ${REMEDY}`,
    );
  });

  test('are anybody’s business if the app has no agent', () => {
    const text = app((a, b) => {
      OomKillPolicy.of(deployment(a), OTHER).single();
      OomKillPolicy.of(deployment(b)).group();
    });
    expect(text).toContain('oom.example.com/mode: Single');
    expect(text).toContain(`${LABEL}: Group`);
  });

  test.each<[string, (a: Chart, b: Chart) => void, string | undefined]>([
    [
      'the agent of its own cluster',
      (a) => OomKillPolicy.of(deployment(a), OTHER).single(),
      undefined,
    ],
    [
      'the agent of another cluster',
      (a) => OomKillPolicy.of(deployment(a)).single(),
      '[a/web] labelPrefix is cdk8s-oom-kill-mode, but no agent of the cluster of a has this prefix. Write labelPrefix: "oom.example.com", or an outermost chart for each cluster.',
    ],
    [
      'any agent, where its own cluster has none',
      (a) => OomKillPolicy.of(deployment(new Chart(App.of(a), 'c'))).single(),
      undefined,
    ],
    [
      'the agent of one of its clusters',
      (a, b) => {
        deployment(a);
        deployment(b);
        OomKillPolicy.of(a.node.root).single();
      },
      '[app] labelPrefix is cdk8s-oom-kill-mode, but no agent of the cluster of a has this prefix. Write',
    ],
  ])('are those of %s', (_, make, message) => {
    const use = () =>
      app((a, b) => {
        new OomKillModeAgent(a, 'agent', OTHER);
        new OomKillModeAgent(b, 'agent');
        make(a, b);
      });
    if (message === undefined) {
      expect(use).not.toThrow();
    } else {
      expect(use).toThrow(message);
    }
  });

  test.each([
    ['labels', LABEL],
    ['labels of an agent’s prefix', 'oom.example.com/mode'],
  ])('are not for the %s of a chart, which no pod gets', (_, key) => {
    expect(() => {
      const root = Testing.app();
      new OomKillModeAgent(new Chart(root, 'a'), 'agent', OTHER);
      deployment(new Chart(root, 'b', { labels: { [key]: 'Single' } }));
      root.synthYaml();
    }).toThrow(
      `[b] the labels of the chart contain ${key}, but a chart labels objects, not the pods of workloads. Write OomKillPolicy.of(chart) instead.`,
    );
  });
});

describe('HerderChart', () => {
  test('takes every option', () => {
    const props: Required<HerderChartProps> = {
      namespace: 'elsewhere',
      labels: { 'example.com/chart': 'herder' },
      disableResourceNameHashes: true,
      replicas: 2,
      agent: ALL_PROPS,
      herder: { replicas: 2, namespace: 'sheep' },
    };
    const manifests = synth(new HerderChart(Testing.app(), 'herder', props));
    expect(find(manifests, 'DaemonSet').metadata.namespace).toBe(ALL_PROPS.namespace);
    const herder = find(manifests, 'Deployment');
    expect(herder.metadata).toMatchObject({ namespace: 'sheep', labels: props.labels });
    expect(herder.spec.replicas).toBe(2);
  });

  test('keeps the prefix of the agent where the herder has undefined', () => {
    const herder = { labelPrefix: undefined, image: undefined };
    const manifests = synth(
      new HerderChart(Testing.app(), 'herder', { agent: { labelPrefix: 'a.example' }, herder }),
    );
    expect(template(find(manifests, 'Deployment')).metadata.labels).toMatchObject({
      'a.example/mode': 'Single',
    });
  });

  test.each<[string, unknown, string]>([
    [
      'two numbers of replicas',
      { replicas: 2, herder: { replicas: 3 } },
      'replicas is 2, but herder.replicas is 3. Write only one of the two.',
    ],
    ['null', null, 'the options are not an object: null. Write { … }.'],
    ['a null herder', { herder: null }, 'herder is not an object: null. Write { … }.'],
  ])('refuses %s', (_, props, message) => {
    expect(() => new HerderChart(Testing.app(), 'herder', props as never)).toThrow(
      `[herder] ${message}`,
    );
  });
});

describe('an app for several clusters', () => {
  function cluster(chart: Chart): void {
    const agent = new OomKillModeAgent(chart, 'agent', { metrics: true });
    new OomKillModeMonitoring(chart, 'monitoring', { agent });
    new OomKillModeAdmissionPolicy(chart, 'guard');
    new Herder(chart, 'herder', { namespace: 'sheep' });
  }

  test('has everything once for each chart', () => {
    const manifests = parse(
      app((...charts) => {
        charts.forEach(cluster);
      }),
    );
    for (const kind of ['DaemonSet', 'Namespace', 'ValidatingAdmissionPolicy', 'PodMonitor']) {
      expect(manifests.filter((manifest) => manifest.kind === kind)).toHaveLength(2);
    }
  });

  test('has it for charts in charts, of which the outermost is a cluster', () => {
    expect(() =>
      app((a, b) => {
        cluster(new Chart(a, 'platform'));
        cluster(new Chart(b, 'platform'));
      }),
    ).not.toThrow();
    expect(() =>
      app((a) => {
        cluster(new Chart(a, 'one'));
        cluster(new Chart(a, 'two'));
      }),
    ).toThrow('[a/two/agent] the agent a/one/agent has the same labelPrefix');
  });

  test.each<[string, (chart: Chart) => void, string]>([
    [
      'agents of one prefix',
      (chart) => {
        new OomKillModeAgent(chart, 'one');
        new OomKillModeAgent(chart, 'two', { name: 'two', createNamespace: false });
      },
      '[a/two] the agent a/one has the same labelPrefix, cdk8s-oom-kill-mode, and may run on the same nodes of this cluster (outermost chart). Write one agent, an outermost chart for each cluster, another labelPrefix, or a nodeSelector or affinity that excludes the nodes of the other agent.',
    ],
    [
      'agents of one name',
      (chart) => {
        new OomKillModeAgent(chart, 'one');
        new OomKillModeAgent(chart, 'two', { labelPrefix: 'two.example', createNamespace: false });
      },
      '[a/two] a/one already creates the ServiceAccount oom-kill-mode/oom-kill-mode-agent in this cluster (outermost chart). Write another name, or an outermost chart for each cluster.',
    ],
    [
      'agents that create one namespace',
      (chart) => {
        new OomKillModeAgent(chart, 'one');
        new OomKillModeAgent(chart, 'two', { labelPrefix: 'two.example', name: 'two' });
      },
      '[a/two] a/one already creates the Namespace oom-kill-mode in this cluster (outermost chart). Write createNamespace: false or another namespace.',
    ],
    [
      'admission policies of one name',
      (chart) => {
        new OomKillModeAdmissionPolicy(chart, 'one');
        new OomKillModeAdmissionPolicy(chart, 'two');
      },
      '[a/two] a/one already creates the ValidatingAdmissionPolicy oom-kill-mode in this cluster (outermost chart). Write another name',
    ],
    [
      'herders of one name',
      (chart) => {
        new Herder(chart, 'one');
        new Herder(chart, 'two');
      },
      '[a/two] a/one already creates the Deployment default/herder in this cluster (outermost chart). Write another name',
    ],
  ])('has no two %s in one of them', (_, make, message) => {
    expect(() => app(make)).toThrow(message);
  });

  const affinity = (...demands: k8s.NodeSelectorRequirement[]): OomKillModeAgentProps => ({
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: demands.map((demand) => ({ matchExpressions: [demand] })),
        },
      },
    },
  });
  const secure: OomKillModeAgentProps = { nodeSelector: { pool: 'secure' }, selinuxType: 'spc_t' };

  test.each<[string, OomKillModeAgentProps, boolean]>([
    ['another value', { nodeSelector: { pool: 'plain' } }, true],
    ['all others', affinity({ key: 'pool', operator: 'NotIn', values: ['secure'] }), true],
    ['nodes without the label', affinity({ key: 'pool', operator: 'DoesNotExist' }), true],
    ['a list of others', affinity({ key: 'pool', operator: 'In', values: ['a', 'b'] }), true],
    [
      'a list with this one',
      affinity({ key: 'pool', operator: 'In', values: ['a', 'secure'] }),
      false,
    ],
    ['all but another', affinity({ key: 'pool', operator: 'NotIn', values: ['a'] }), false],
    [
      'one term of two',
      affinity({ key: 'pool', operator: 'DoesNotExist' }, { key: 'gpu', operator: 'Exists' }),
      false,
    ],
    ['another label', { nodeSelector: { disk: 'ssd' } }, false],
    ['all nodes', {}, false],
  ])('may have agents of one prefix in two pools, one on %s', (_, pool, disjoint) => {
    const make = () =>
      app((chart) => {
        new OomKillModeAgent(chart, 'secure', secure);
        new OomKillModeAgent(chart, 'plain', { name: 'plain', createNamespace: false, ...pool });
      });
    if (disjoint) {
      expect(make).not.toThrow();
    } else {
      expect(make).toThrow('[a/plain] the agent a/secure has the same labelPrefix');
    }
  });
});

test.each(['of cdk8s-plus', 'of plain YAML'])(
  'a second Namespace of an agent is an error: %s',
  (how) => {
    const make = () =>
      app((a, b) => {
        new OomKillModeAgent(a, 'agent');
        if (how === 'of cdk8s-plus') {
          new kplus.Namespace(b, 'ns', { metadata: { name: 'oom-kill-mode' } });
        } else {
          const url = temporary(
            'ns.yaml',
            'apiVersion: v1\nkind: Namespace\nmetadata: {name: oom-kill-mode}\n',
          );
          new Include(b, 'ns', { url });
        }
      });
    expect(make).toThrow(
      /^\[a\/agent\] b\/ns\/.* already creates the Namespace oom-kill-mode. Write createNamespace: false, or another namespace.$/,
    );
  },
);

describe('names are compared as they are rendered, and only ours', () => {
  const inTwo =
    (make: (scope: Construct, namespace: string) => kplus.Deployment) => (scope: Chart) => {
      const a = make(new Construct(scope, 'a'), 'one');
      const b = make(new Construct(scope, 'b'), 'two');
      [a, b].forEach((each, i) => {
        const patch = JsonPatch.add('/metadata/namespace', ['one', 'two'][i]);
        ApiObject.of(each).addJsonPatch(patch);
      });
    };
  const PROPS = { name: 'web', image: IMAGE, replicas: 1 };
  const SIZE = { cpu: kplus.Cpu.millis(100), memory: Size.mebibytes(64) };

  test.each<[string, (scope: Chart) => void]>([
    [
      'two Deployments that patches put into two namespaces',
      (scope) => {
        inTwo((each) => deployment(each))(scope);
        OomKillPolicy.of(scope).single();
      },
    ],
    [
      'two of ours that patches put into two namespaces',
      inTwo((each) => new OnePerNodeDeployment(each, 'web', { ...PROPS, ...SIZE }).deployment),
    ],
    [
      'two Deployments with late namespaces',
      (scope) => {
        for (const name of ['one', 'two']) {
          const namespace = Lazy.any({ produce: () => name }) as string;
          const spec = { template: { spec: { containers: [{ name: 'main', image: IMAGE }] } } };
          const object = { apiVersion: 'apps/v1', kind: 'Deployment', spec };
          new ApiObject(scope, name, { ...object, metadata: { name: 'web', namespace } });
        }
        OomKillPolicy.of(scope).single();
      },
    ],
    [
      'two ConfigMaps of one name, beside a policy',
      (scope) => {
        OomKillPolicy.of(deployment(scope)).single();
        for (const id of ['one', 'two']) {
          new kplus.ConfigMap(scope, id, { metadata: { name: 'config' } });
        }
      },
    ],
  ])('%s are nobody’s business', (_, make) => {
    expect(() => app(make)).not.toThrow();
  });
});

test.each<[string, (a: Chart, b: Chart) => Chart, string | undefined]>([
  ['restricted', (a) => a, 'restricted'],
  ['baseline, in another chart of the cluster', (_, b) => b, 'baseline'],
  ['privileged', (a) => a, undefined],
])('an agent in a Namespace of the user that enforces %s', (_, where, refused) => {
  const make = () =>
    app((a, b) => {
      const labels = { 'pod-security.kubernetes.io/enforce': refused ?? 'privileged' };
      new kplus.Namespace(where(a, b), 'ns', { metadata: { name: 'tools', labels } });
      new OomKillModeAgent(a, 'agent', { namespace: 'tools', createNamespace: false });
    });
  if (refused === undefined) {
    expect(make).not.toThrow();
  } else {
    expect(make).toThrow(
      new RegExp(
        `^\\[a/agent\\] [ab]/ns/Resource creates the Namespace tools with pod-security.kubernetes.io/enforce: ${refused}, which forbids the hostPath volumes of the agent\\. Write .*: privileged on that Namespace, or another namespace for the agent\\.$`,
      ),
    );
  }
});

describe('a second copy of the library', () => {
  let copy: typeof library;
  beforeAll(() => {
    jest.isolateModules(() => {
      // Of cdk8s itself there is one, as its resolvers go by `instanceof`.
      jest.doMock('cdk8s', () => cdk8s);
      jest.doMock('cdk8s-plus-28', () => kplus);
      copy = jest.requireActual<typeof library>('../../lib');
    });
    expect(copy.OomKillModeAgent).not.toBe(OomKillModeAgent);
  });

  test('finds the policies of the first', () => {
    expect(() =>
      app((a) => {
        const web = deployment(a);
        OomKillPolicy.of(web).single();
        copy.OomKillPolicy.of(web).group();
      }),
    ).toThrow('[a/web] both single() and group() are set. Write only one of them.');
  });

  test('leaves the agent of the first alone, and obeys its prefix', () => {
    const make = (labelPrefix?: string) =>
      app((a) => {
        new OomKillModeAgent(a, 'agent', { labelPrefix: 'a.example' });
        deployment(a);
        copy.OomKillPolicy.of(a, { labelPrefix }).single();
      });
    expect(make('a.example').split('a.example/mode: Single')).toHaveLength(2);
    expect(() => make()).toThrow('[a] labelPrefix is cdk8s-oom-kill-mode, but no agent');
  });

  test('watches the agent of the first, and has no second one beside it', () => {
    expect(() =>
      app((a, b) => {
        const agent = new OomKillModeAgent(a, 'agent', { metrics: true });
        new copy.OomKillModeMonitoring(b, 'monitoring', { agent });
      }),
    ).not.toThrow();
    expect(() =>
      app((a) => {
        new OomKillModeAgent(a, 'one');
        new copy.OomKillModeAgent(a, 'two', { name: 'two', createNamespace: false });
      }),
    ).toThrow('[a/two] the agent a/one has the same labelPrefix');
  });
});

test('a bundle that has lost the script says where it belongs', () => {
  jest.isolateModules(() => {
    jest.doMock('node:fs', () => ({
      ...jest.requireActual<object>('node:fs'),
      existsSync: () => false,
    }));
    const moved = jest.requireActual<typeof library>('../../lib');
    expect(() => new moved.OomKillModeAgent(new Chart(new App(), 'a'), 'agent')).toThrow(
      /^\[a\/agent\] the script of the agent is not in .*, probably because a bundler moved the library. Write a build step that copies it .*lib\/agent .*.$/,
    );
    expect(() => new moved.OomPolicyDropIn(new Chart(new App(), 'a'), 'drop-in')).toThrow(
      /^\[a\/drop-in\] the script of the drop-in is not in .*. Write a build step .*lib\/drop-in .*.$/,
    );
    jest.dontMock('node:fs');
  });
});

test('ApiObject.of() finds the main object of every construct', () => {
  const app = Testing.app();
  const scope = new Chart(app, 'a');
  const agent = new OomKillModeAgent(scope, 'agent', { metrics: true });
  const found = [
    agent,
    new OomKillModeMonitoring(scope, 'monitoring', { agent }),
    new OomKillModeAdmissionPolicy(scope, 'admission'),
    new OomKillModeDefaults(scope, 'defaults', {
      mode: OomKillMode.SINGLE,
      namespaces: ['notebooks'],
    }),
    new OomPolicyDropIn(scope, 'drop-in'),
    new Herder(scope, 'herder'),
    new HerderChart(app, 'herder-chart'),
  ].map((construct) => ApiObject.of(construct));
  expect(found.map(({ kind }) => kind)).toEqual([
    ...['DaemonSet', 'PodMonitor', 'ValidatingAdmissionPolicy', 'MutatingAdmissionPolicy'],
    ...['DaemonSet', 'Deployment', 'Deployment'],
  ]);
  expect(found[0]).toBe(agent.daemonSet);
});

test('our objects have the version of the package, and neither pods nor selectors do', () => {
  const { version } = JSON.parse(read('package.json')) as { version: string };
  const all = [allPropsChart, admissionChart, defaultsChart, dropInChart, monitoringChart].flatMap(
    (make) => synth(make(Testing.app())),
  );
  for (const { kind, metadata } of all) {
    expect([kind, metadata.labels['app.kubernetes.io/version']]).toEqual([kind, version]);
  }
  expect(JSON.stringify(all.map(({ spec }) => spec ?? {}))).not.toContain('kubernetes.io/version');
});

test('an object that is rendered before any synthesis is as it was', () => {
  const scope = new Chart(Testing.app(), 'a');
  const web = deployment(scope);
  const plain = JSON.stringify(ApiObject.of(web).toJson());
  OomKillPolicy.of(web).perContainer({ main: OomKillMode.SINGLE });
  expect(JSON.stringify(ApiObject.of(web).toJson())).toBe(plain);
  expect(JSON.stringify(synth(scope)[0])).toContain(`"${LABEL}":"Single"`);
});
