import {
  Agent,
  aWhile,
  containerId,
  eventually,
  FakeNode,
  Layout,
  LAYOUTS,
  podUid,
  Qos,
  SHELLS,
} from '../support/agent';
import { FakeApiServer, PodMetadata } from '../support/api-server';

const LABEL = 'cdk8s-oom-kill-mode/mode';
const ANNOTATION = 'cdk8s-oom-kill-mode/containers';
const SYSTEMD = LAYOUTS['systemd driver, containerd'] as Layout;

jest.setTimeout(60_000);

describe.each(Object.entries(SHELLS))('the agent under %s', (_, shell) => {
  let api: FakeApiServer;
  let node: FakeNode;
  let agent: Agent;

  beforeEach(async () => {
    api = await FakeApiServer.start();
  });

  afterEach(async () => {
    await agent.stop('SIGKILL');
    await api.stop();
    expect(agent.errors).toBe('');
    node.remove();
  });

  function start(options: { layout?: Layout; environment?: Record<string, string> } = {}): Agent {
    node = new FakeNode(options.layout ?? SYSTEMD);
    agent = new Agent(node, api, shell, options.environment);
    return agent;
  }

  function pod(mode: string | undefined, more: Partial<PodMetadata> = {}): PodMetadata {
    const uid = podUid();
    const labels = mode === undefined ? { app: 'x' } : { app: 'x', [LABEL]: mode };
    return { uid, name: `pod-${uid.slice(0, 8)}`, namespace: 'default', labels, ...more };
  }

  test('reaches a container that runs already, in each direction', async () => {
    start();
    const [single, group] = [pod('Single'), pod('Group')];
    const one = node.createContainer(node.createPod(single.uid), containerId(), '1');
    const two = node.createContainer(node.createPod(group.uid), containerId(), '0');
    api.setPod(single);
    api.setPod(group);
    await agent.ready();
    await eventually('0 and 1', () => node.read(one) === '0' && node.read(two) === '1', agent);
  });
});
