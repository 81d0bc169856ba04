import { Size, Testing } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import {
  Herder,
  HerderChart,
  HerderProps,
  OnePerNodeDeployment,
  OnePerNodeDeploymentProps,
  OomKillMode,
} from '../../lib';
import { ALL_FOLLOWING_PROPS, DEPLOYMENT_PROPS, followingChart } from '../support/all-props';
import {
  Kinds,
  Manifest,
  chart,
  container,
  expectRefusals,
  find,
  synth,
  synthText,
  template,
} from '../support/manifests';

const PROPS: OnePerNodeDeploymentProps = {
  name: 'web',
  image: 'example.com/web:1.2.3',
  replicas: 3,
  cpu: kplus.Cpu.millis(250),
  memory: Size.mebibytes(256),
};

/** With every option but those of followNodes. */
const ALL_PROPS: OnePerNodeDeploymentProps = {
  ...DEPLOYMENT_PROPS,
  replicas: 3,
  tolerateAllTaints: false,
};

function deployment(
  props: Partial<OnePerNodeDeploymentProps> = {},
  namespace?: string,
): Kinds['Deployment'] {
  const scope = chart(namespace);
  new OnePerNodeDeployment(scope, 'web', { ...PROPS, ...props });
  return find(synth(scope), 'Deployment');
}

function herder(props?: HerderProps, namespace?: string): Kinds['Deployment'] {
  const scope = chart(namespace);
  new Herder(scope, 'herder', props);
  return find(synth(scope), 'Deployment');
}

const SELECTOR = { 'app.kubernetes.io/name': 'web', 'app.kubernetes.io/instance': 'web' };

describe('OnePerNodeDeployment', () => {
  test('has a stable name and selector', () => {
    const { metadata, spec } = deployment();
    expect(metadata).toEqual({ name: 'web', labels: SELECTOR });
    expect(spec.selector).toEqual({ matchLabels: SELECTOR });
    expect(spec.template.metadata.labels).toMatchObject(SELECTOR);
    expect(spec.replicas).toBe(3);
  });

  test('keeps its pods apart by the stable selector', () => {
    expect(deployment().spec.template.spec.affinity).toEqual({
      podAntiAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: [
          { labelSelector: { matchLabels: SELECTOR }, topologyKey: 'kubernetes.io/hostname' },
        ],
      },
    });
  });

  test('can update when every node is taken', () => {
    expect(deployment().spec.strategy).toEqual({
      type: 'RollingUpdate',
      rollingUpdate: { maxSurge: 0, maxUnavailable: 1 },
    });
  });

  test('tolerates every taint unless told otherwise', () => {
    expect(deployment().spec.template.spec.tolerations).toEqual([{ operator: 'Exists' }]);
    const picky = deployment({ tolerateAllTaints: false });
    expect(picky.spec.template.spec.tolerations).toBeUndefined();
  });

  test('is Guaranteed', () => {
    const resources = { cpu: '250m', memory: '256Mi' };
    expect(container(deployment().spec.template).resources).toEqual({
      requests: resources,
      limits: resources,
    });
  });

  test('opts in only when told to', () => {
    const labels = (mode?: OomKillMode) =>
      Object.keys(deployment({ oomKillMode: mode }).spec.template.metadata.labels);
    expect(labels()).not.toContain('cdk8s-oom-kill-mode/mode');
    expect(labels(OomKillMode.SINGLE)).toContain('cdk8s-oom-kill-mode/mode');
    expect(
      deployment({ oomKillMode: OomKillMode.SINGLE }).spec.template.metadata.labels,
    ).toMatchObject({ 'cdk8s-oom-kill-mode/mode': 'Single' });
  });

  test('is in the namespace of the chart unless told otherwise', () => {
    expect(deployment({}, 'elsewhere').metadata.namespace).toBe('elsewhere');
    expect(deployment({ namespace: 'sheep' }, 'elsewhere').metadata.namespace).toBe('sheep');
  });

  test('takes every option', () => {
    const { metadata, spec } = deployment(ALL_PROPS, 'elsewhere');
    const labels = { ...SELECTOR, 'example.com/team': 'platform' };
    expect(metadata).toEqual({ name: 'web', namespace: 'sheep', labels });
    expect(spec.selector).toEqual({ matchLabels: SELECTOR });
    expect(spec.template.metadata.labels).toMatchObject({
      ...labels,
      'oom.example.com/mode': 'Single',
    });
    expect(spec.template.spec.initContainers).toMatchObject([
      {
        name: 'wait-for-kill-mode',
        image: 'example.com/busybox:1',
        env: [
          {
            name: 'KILL_MODE',
            valueFrom: { fieldRef: { fieldPath: "metadata.labels['oom.example.com/mode']" } },
          },
        ],
      },
    ]);
    expect(spec.template.spec.imagePullSecrets).toEqual([{ name: 'mirror-credentials' }]);
    expect(spec.template.spec.tolerations).toBeUndefined();
    expect(spec.template.spec.securityContext).toMatchObject({ runAsNonRoot: true });
    expect(container(spec.template)).toMatchObject({
      name: 'web',
      image: 'example.com/web:1.2.3',
      imagePullPolicy: 'IfNotPresent',
      command: ['/bin/web'],
      args: ['--port', '80'],
      env: [
        { name: 'LEVEL', value: 'debug' },
        { name: 'EMPTY' },
        { name: 'POD_NAME', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
      ],
      securityContext: {
        runAsNonRoot: true,
        runAsUser: 1000,
        readOnlyRootFilesystem: false,
        allowPrivilegeEscalation: false,
        capabilities: { drop: ['ALL'] },
      },
    });
  });

  describe('with followNodes', () => {
    const FOLLOWING: Partial<OnePerNodeDeploymentProps> = {
      replicas: undefined,
      followNodes: true,
      namespace: 'sheep',
    };

    function follow(props: Partial<OnePerNodeDeploymentProps> = {}): Manifest[] {
      const scope = chart('elsewhere');
      new OnePerNodeDeployment(scope, 'web', { ...PROPS, ...FOLLOWING, ...props });
      return synth(scope);
    }

    function named(manifests: Manifest[], kind: string, name: string): Manifest {
      const found = manifests.filter((m) => m.kind === kind && m.metadata.name === name);
      expect(found).toHaveLength(1);
      return found[0] as Manifest;
    }

    function autoscaler(props?: Partial<OnePerNodeDeploymentProps>): Kinds['Deployment'] {
      return named(follow(props), 'Deployment', 'web-autoscaler') as unknown as Kinds['Deployment'];
    }

    test('leaves replicas out, and nothing else is different', () => {
      const { spec, ...others } = named(follow(), 'Deployment', 'web');
      expect(spec).not.toHaveProperty('replicas');
      const fixed = deployment({ namespace: 'sheep' });
      expect({ ...others, spec: { ...(spec as object), replicas: 3 } }).toEqual(fixed);
    });

    test('asks for one replica a node, cordoned ones included', () => {
      const { data } = find(follow(), 'ConfigMap');
      expect(Object.keys(data)).toEqual(['linear']);
      expect(JSON.parse(data['linear'] ?? '')).toEqual({
        nodesPerReplica: 1,
        includeUnschedulableNodes: true,
      });
    });

    test('scales the deployment by the parameters in that ConfigMap', () => {
      const manifests = follow();
      expect(find(manifests, 'ConfigMap').metadata).toMatchObject({
        name: 'web-autoscaler',
        namespace: 'sheep',
      });
      expect(named(manifests, 'Deployment', 'web').metadata.namespace).toBe('sheep');
      // The flags of cmd/cluster-proportional-autoscaler/options/options.go.
      expect(container(autoscaler().spec.template)).toMatchObject({
        image: 'registry.k8s.io/cpa/cluster-proportional-autoscaler:v1.10.3',
        args: [
          '--namespace=sheep',
          '--target=deployment/web',
          '--configmap=web-autoscaler',
          '--logtostderr=true',
        ],
      });
    });

    test('runs one small autoscaler that tells how it is', () => {
      const { metadata, spec } = autoscaler();
      const labels = {
        'app.kubernetes.io/name': 'web-autoscaler',
        'app.kubernetes.io/instance': 'web-autoscaler',
      };
      expect(metadata).toEqual({ name: 'web-autoscaler', namespace: 'sheep', labels });
      expect(spec.replicas).toBe(1);
      expect(spec.selector).toEqual({ matchLabels: labels });
      expect(spec.template.metadata.labels).toMatchObject(labels);
      const { resources, readinessProbe, livenessProbe } = container(spec.template);
      expect(resources).toEqual({
        requests: { cpu: '10m', memory: '32Mi' },
        limits: { cpu: '100m', memory: '128Mi' },
      });
      expect(readinessProbe.httpGet).toMatchObject({ path: '/last-poll', port: 8080 });
      expect(livenessProbe.httpGet).toMatchObject({ path: '/healthz', port: 8080 });
    });

    test('does not stay on a node that is gone', () => {
      expect(autoscaler().spec.template.spec.tolerations).toBeUndefined();
    });

    test('is in the namespace of the chart unless told otherwise', () => {
      const manifests = follow({ namespace: undefined });
      expect(new Set(manifests.map((m) => m.metadata.namespace))).toEqual(
        new Set(['elsewhere', undefined]),
      );
      expect(find(manifests, 'ClusterRoleBinding')).toMatchObject({
        metadata: { name: 'elsewhere.web-autoscaler' },
        subjects: [{ name: 'web-autoscaler', namespace: 'elsewhere' }],
      });
      expect(JSON.stringify(named(manifests, 'Deployment', 'web-autoscaler'))).toContain(
        '--namespace=elsewhere',
      );
    });

    test('takes every option', () => {
      const manifests = synth(followingChart(Testing.app()));
      expect(manifests).toHaveLength(9);
      for (const { metadata } of manifests) {
        expect(metadata.labels).toMatchObject({ 'example.com/team': 'platform' });
        expect(['sheep', undefined]).toContain(metadata.namespace);
      }
      const pods = (name: string) => template(named(manifests, 'Deployment', name));
      expect(pods('web').metadata.labels).toMatchObject({ 'oom.example.com/mode': 'Single' });
      expect(pods('web-autoscaler').metadata.labels).toMatchObject({
        'example.com/team': 'platform',
      });
      expect(pods('web-autoscaler').metadata.labels).not.toHaveProperty(['oom.example.com/mode']);
      expect(container(pods('web-autoscaler')).image).toBe(ALL_FOLLOWING_PROPS.autoscalerImage);
    });

    test.each<[string, Partial<OnePerNodeDeploymentProps>]>([
      [
        'replicas is 3, but followNodes sets the number of pods. Write only one of the two',
        { ...FOLLOWING, replicas: 3 },
      ],
      ['neither replicas nor followNodes is set. Write', { replicas: undefined }],
      [
        'followNodes needs a namespace for its ClusterRoleBinding. Write',
        { ...FOLLOWING, namespace: undefined },
      ],
      [
        `followNodes creates a name of more than 63 characters: "${'a'.repeat(53)}-autoscaler". Write a name of at most 52 characters`,
        { ...FOLLOWING, name: 'a'.repeat(53) },
      ],
      [
        'followNodes counts tainted nodes, but these pods cannot run there without tolerateAllTaints. Write',
        { ...FOLLOWING, tolerateAllTaints: false },
      ],
      [
        'autoscalerImage is not a reference pinned by tag',
        { ...FOLLOWING, autoscalerImage: 'example.com/cpa' },
      ],
      [
        'autoscalerImage without followNodes does nothing. Write followNodes: true, or no autoscalerImage',
        { autoscalerImage: 'example.com/cpa:1' },
      ],
    ])('refuses what does not go together: %s', (message, wrong) => {
      expectRefusals(deployment, `[test/web] ${message}`, [wrong]);
    });

    test('takes the longest name', () => {
      expect(() => follow({ name: 'a'.repeat(52) })).not.toThrow();
    });
  });

  test('has nothing on its pods that changes with the id of a construct', () => {
    const text = (id: string, props: Partial<OnePerNodeDeploymentProps>) => {
      const scope = chart('sheep');
      new OnePerNodeDeployment(scope, id, { ...PROPS, ...props });
      return synthText(scope);
    };
    const following = { replicas: undefined, followNodes: true };
    expect(text('one', {})).toBe(text('another', {}));
    expect(text('one', following)).toBe(text('another', following));
    expect(text('one', following)).not.toContain('cdk8s.io');
  });

  test('is found by Services and NetworkPolicies of cdk8s-plus all the same', () => {
    const scope = chart('sheep');
    const web = new OnePerNodeDeployment(scope, 'web', { ...PROPS, namespace: 'sheep' });
    new kplus.Service(scope, 'service', { selector: web.deployment, ports: [{ port: 80 }] });
    new kplus.NetworkPolicy(scope, 'policy', { selector: web.deployment });
    const specs = synth(scope).map(({ spec }) => spec);
    const labels = { 'app.kubernetes.io/name': 'web', 'app.kubernetes.io/instance': 'web' };
    expect(specs).toMatchObject([
      { selector: { matchLabels: labels } },
      { selector: labels },
      { podSelector: { matchLabels: labels } },
    ]);
  });

  test('takes undefined for what is not there, also in the security context', () => {
    const securityContext = { readOnlyRootFilesystem: undefined, capabilities: undefined };
    expect(deployment({ securityContext, labels: undefined })).toEqual(deployment());
  });

  test('keeps the defaults of what the security context does not say, also of capabilities', () => {
    const capabilities = { add: [kplus.Capability.SYS_PTRACE] };
    expect(
      container(deployment({ securityContext: { capabilities } }).spec.template),
    ).toMatchObject({
      securityContext: {
        readOnlyRootFilesystem: true,
        allowPrivilegeEscalation: false,
        capabilities: { add: ['SYS_PTRACE'], drop: ['ALL'] },
      },
    });
    const none = deployment({ securityContext: { capabilities: { drop: [] } } });
    expect(container(none.spec.template).securityContext.capabilities).toEqual({ drop: [] });
  });

  test('gives the same bytes twice', () => {
    const scope = new HerderChart(Testing.app(), 'herder');
    expect(synthText(scope)).toBe(synthText(scope));
  });

  const millis = (count: number) => kplus.Cpu.millis(count);
  const mebibytes = (count: number) => Size.mebibytes(count);

  // A rule, and what breaks it.
  test.each<[string, ...unknown[]]>([
    [
      'replicas is not a positive integer',
      ...[0, -1, 1.5, NaN, Infinity, 2 ** 31].map((replicas) => ({ replicas })),
    ],
    ['replicas is not a number: "3"', { replicas: '3' }],
    ['name is missing. Write name: "text"', { name: undefined }],
    ['name is not a DNS-1123 label', ...['', 'Web', 'web.example'].map((name) => ({ name }))],
    ['namespace is not a DNS-1123 label', { namespace: 'a_b' }],
    ['image is not a reference pinned', { image: 'example.com/web' }, { image: 'web:latest' }],
    [
      'waitImage is not a reference pinned',
      { oomKillMode: OomKillMode.SINGLE, waitForAgent: true, waitImage: 'busybox' },
    ],
    ['waitImage without waitForAgent', { waitImage: 'example.com/x:1' }],
    [
      'waitForAgent needs OomKillMode.SINGLE, but oomKillMode is Group. Write oomKillMode: OomKillMode.SINGLE.',
      { waitForAgent: true, oomKillMode: OomKillMode.GROUP },
    ],
    ['waitForAgent needs OomKillMode.SINGLE, but oomKillMode is not set', { waitForAgent: true }],
    ['oomKillMode is unknown: "x"', { oomKillMode: 'x' }],
    ['labelPrefix without oomKillMode does nothing', { labelPrefix: 'oom.example.com' }],
    ['cpu is not a Cpu: a Size. Write', { cpu: mebibytes(64) }],
    ['memory is not a Size: a Cpu. Write', { memory: millis(64) }],
    [
      'cpu is not a positive whole number of milli-CPUs',
      ...[0, 'abc' as never].map((count) => ({ cpu: millis(count) })),
    ],
    [
      'memory is not a positive whole number',
      ...[0, 0.5, NaN].map((count) => ({ memory: mebibytes(count) })),
    ],
    ['command is not a list of strings: "sh -c true". Write ["text"]', { command: 'sh -c true' }],
    ['env has an invalid name: "1ST". Write a name of letters', { env: { '1ST': 'a' } }],
    ['env is not a map of strings: {"A":1}. Write', { env: { A: 1 } }],
    ['envVariables["A"] is not an EnvValue: "b". Write', { envVariables: { A: 'b' } }],
    [
      'env and envVariables both have "A". Write it in only one of the two.',
      { env: { A: 'b' }, envVariables: { A: kplus.EnvValue.fromValue('c') } },
    ],
    ['imagePullSecrets is not a DNS-1123 subdomain', { imagePullSecrets: ['a b'] }],
    ['tolerateAllTaints is not true or false: "false"', { tolerateAllTaints: 'false' }],
    ['securityContext is not an object: null. Write', { securityContext: null }],
    [
      'the options of securityContext have "readOnlyRootFileSystem", which does nothing. Write',
      { securityContext: { readOnlyRootFileSystem: false } },
    ],
    ['labels would override a value', { labels: SELECTOR }],
    ['labels["a"] is not a valid label value: "-"', { labels: { a: '-' } }],
    [
      'labels contains the mode label cdk8s-oom-kill-mode/mode: Sinlge. Write oomKillMode',
      { labels: { 'cdk8s-oom-kill-mode/mode': 'Sinlge' } },
    ],
  ])('refuses options with the path and the remedy: %s', (message, ...wrong) => {
    expectRefusals(deployment, `[test/web] ${message}`, wrong);
  });
});

describe('Herder', () => {
  test('is the reference workload', () => {
    const { metadata, spec } = herder();
    expect(metadata).toMatchObject({ name: 'herder', namespace: 'default' });
    expect(spec.replicas).toBe(3);
    expect(spec.template.metadata.labels).toMatchObject({
      'cdk8s-oom-kill-mode/mode': 'Single',
    });
    const resources = { cpu: '250m', memory: '256Mi' };
    expect(container(spec.template)).toMatchObject({
      name: 'herder',
      image: 'ghcr.io/iximiuz/labs/resource-hog/herder:v1.0.0',
      resources: { requests: resources, limits: resources },
    });
  });

  test('takes every option', () => {
    const props: Required<HerderProps> = {
      replicas: 1,
      waitImage: 'example.com/busybox:1',
      imagePullSecrets: ['mirror-credentials'],
      namespace: 'sheep',
      image: 'example.com/herder:2',
      cpu: kplus.Cpu.millis(100),
      memory: Size.mebibytes(128),
      oomKillMode: OomKillMode.SINGLE,
      labelPrefix: 'oom.example.com',
    };
    const { metadata, spec } = herder(props, 'elsewhere');
    expect(metadata.namespace).toBe('sheep');
    expect(spec.replicas).toBe(1);
    expect(spec.template.metadata.labels).toMatchObject({ 'oom.example.com/mode': 'Single' });
    expect(spec.template.spec.initContainers).toMatchObject([{ image: props.waitImage }]);
    expect(spec.template.spec.imagePullSecrets).toEqual([{ name: 'mirror-credentials' }]);
    const resources = { cpu: '100m', memory: '128Mi' };
    expect(container(spec.template)).toMatchObject({
      image: 'example.com/herder:2',
      resources: { requests: resources, limits: resources },
    });
  });

  test('waits for nothing in a group', () => {
    const { spec } = herder({ oomKillMode: OomKillMode.GROUP });
    expect(spec.template.metadata.labels).toMatchObject({ 'cdk8s-oom-kill-mode/mode': 'Group' });
    expect(spec.template.spec.initContainers).toBeUndefined();
  });

  test('is in the namespace of its chart', () => {
    expect(herder({}, 'elsewhere').metadata.namespace).toBe('elsewhere');
  });

  test.each<[string, HerderProps | null]>([
    [
      'cpu is 251m, more than the maximum of 250m. Write 250m or less',
      { cpu: kplus.Cpu.millis(251) },
    ],
    [
      'memory is 257Mi, more than the maximum of 256Mi. Write 256Mi',
      { memory: Size.mebibytes(257) },
    ],
    [
      'waitImage needs OomKillMode.SINGLE, but oomKillMode is Group. Write only one of the two.',
      { waitImage: 'example.com/busybox:1', oomKillMode: OomKillMode.GROUP },
    ],
    ['the options are not an object: null. Write', null],
  ])('refuses options with the path and the remedy: %s', (message, wrong) => {
    expectRefusals(herder, `[test/herder] ${message}`, [wrong]);
  });
});
