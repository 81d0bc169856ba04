import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { Manifest } from '../support/manifests';
import { loadSchemas, VERSIONS, violations } from '../support/schema';
import {
  Agent,
  containerId,
  eventually,
  FakeNode,
  newPod,
  requireTools,
  SYSTEMD,
} from '../support/agent';
import { EventObject, FakeApiServer, PodMetadata } from '../support/api-server';
import { KUBECTLS, install } from '../support/binaries';
import { ClusterServer, Stored } from '../support/cluster-server';

// What users see: the Events of a real run of the agent, as it wrote them, in the output of a real
// kubectl, and against the types that the clients of each version of Kubernetes have for them.

const HASH = '0123456789abcdef0123456789abcdef';

describe('the Events of a run of the agent', () => {
  const ordinary = newPod('Single');
  // The kubelet's cgroup of a static pod has the hash, and so have the Events about it.
  const still = newPod('Single', { annotations: { 'kubernetes.io/config.mirror': HASH } });
  const typo = newPod('single');
  const events: EventObject[] = [];

  beforeAll(async () => {
    requireTools();
    const api = await FakeApiServer.start();
    const node = new FakeNode(SYSTEMD);
    const [worker, other] = [ordinary, still].map((metadata) => {
      const id = containerId();
      const uid = metadata.annotations ? HASH : metadata.uid;
      const cgroup = node.createContainer(node.createPod(uid), id, '1');
      node.createLog(metadata, 'worker', id);
      api.setPod(metadata);
      return cgroup;
    }) as [string, string];
    api.setPod(typo);
    const agent = new Agent(node, api, { EVENTS: 'yes', TICK_SECONDS: '1' });
    const count = (reason: string, { name }: PodMetadata) =>
      [...api.events.values()].find(
        (event) => event.reason === reason && event.involvedObject.name === name,
      )?.count;
    try {
      await agent.ready();
      await eventually(
        'both modes',
        () => [worker, other].every((c) => node.read(c) === '0'),
        agent,
      );
      node.kill(worker);
      node.kill(other);
      await eventually('one', () => count('OomKilledProcess', ordinary) === 1, agent);
      node.kill(worker, 4);
      await eventually('five', () => count('OomKilledProcess', ordinary) === 5, agent);
      await eventually('another', () => count('OomKilledProcess', still) === 1, agent);
      await eventually('a typo', () => count('OomKillModeCannotApply', typo) === 1, agent);
    } finally {
      await agent.stop();
      await api.stop();
      node.remove();
    }
    events.push(...api.events.values());
  }, 120_000);

  /** The lines of the table of Events in the output of `kubectl describe pod`. */
  async function described(
    { namespace, name }: PodMetadata,
    kubectl?: (typeof KUBECTLS)[number],
  ): Promise<string[]> {
    const server = await ClusterServer.start();
    const home = mkdtempSync(join(tmpdir(), 'kubectl-'));
    for (const metadata of [ordinary, still, typo]) {
      const spec = { nodeName: 'node-1', containers: [{ name: 'worker', image: 'worker:1' }] };
      server.put({ apiVersion: 'v1', kind: 'Pod', metadata, spec } as Stored);
    }
    for (const event of events) {
      server.put(event as unknown as Stored);
    }
    try {
      writeFileSync(join(home, 'kubeconfig'), server.kubeconfig);
      const args = ['--kubeconfig', 'kubeconfig', '-n', namespace, 'describe', 'pod', name];
      // Not synchronous: the server that it talks to is in this process. Any status but 0 is an error.
      const { stdout, stderr } = await promisify(execFile)(
        join(install('kubectl', kubectl), 'kubectl'),
        args,
        { cwd: home, env: { HOME: home } },
      );
      expect(stderr).toBe('');
      return stdout
        .slice(stdout.indexOf('\nEvents:\n'))
        .trim()
        .split('\n')
        .slice(3)
        .map((line) => line.trim().replaceAll(/ {2,}/g, ' | '));
    } finally {
      server.stop();
      rmSync(home, { recursive: true });
    }
  }

  // Since 1.35 the container stands before the message.
  test.each(KUBECTLS)(
    'are shown by kubectl %s describe pod, with count and message',
    async (kubectl) => {
      const lines = await described(ordinary, kubectl);
      expect(lines).toEqual([
        expect.stringMatching(
          /^Warning \| OomKilledProcess \| \d+s \(x5 over \d+s\) \| cdk8s-oom-kill-mode \| (spec\.containers\{worker\}: )?The kernel killed 4 processes of container worker for memory, 5 in all since it started\. The container kept running\. The container had reached its memory limit\.$/,
        ),
      ]);
    },
  );

  test('are shown for a static pod as well', async () => {
    expect(await described(still)).toEqual([
      expect.stringMatching(/^Warning \| OomKilledProcess \| \d+s \| .*killed 1 process of/),
    ]);
  });

  test('name the condition of a mode that cannot work', async () => {
    expect(await described(typo)).toEqual([
      expect.stringMatching(/^Warning \| OomKillModeCannotApply \| .*Condition: invalid_mode$/),
    ]);
  });

  const schemas = loadSchemas();

  test.each(VERSIONS)('are Events of the core group of Kubernetes %s', (version) => {
    const schema = schemas[version] ?? {};
    const named = { ...schema, V1Event: schema.CoreV1Event ?? [] };
    expect(named.V1Event.length).toBeGreaterThan(10);
    expect(new Set(events.map(({ reason }) => reason)).size).toBe(2);
    for (const event of events) {
      const manifest = event as unknown as Manifest;
      expect(violations(named, manifest)).toEqual([]);
      const broken = { ...manifest, involvedObject: { uuid: 'x' }, count: '1' } as Manifest;
      expect(violations(named, broken)).toHaveLength(2);
    }
  });
});
