import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

import {
  Agent,
  ANNOTATION,
  aWhile,
  commandLine,
  containerId,
  cpu,
  eventually,
  FakeNode,
  LABEL,
  Layout,
  LAYOUTS,
  newPod,
  podUid,
  Qos,
  requireTools,
  SHELLS,
  signal,
  SYSTEMD,
  TOOLS_PATH,
} from '../support/agent';
import { fail, FakeApiServer, PodMetadata } from '../support/api-server';

jest.setTimeout(60_000);

beforeAll(requireTools);

describe.each(Object.entries(SHELLS))('the agent under %s', (_, shell) => {
  let api: FakeApiServer;
  let node: FakeNode;
  let agent: Agent;
  let bookmarks: NodeJS.Timeout | undefined;

  beforeEach(async () => {
    api = await FakeApiServer.start();
  });

  afterEach(async () => {
    clearInterval(bookmarks);
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

  /** Opts in a pod whose container runs already, and waits until the agent has made it Single. */
  async function protect(single: PodMetadata): Promise<string> {
    const cgroup = node.createContainer(node.createPod(single.uid), containerId(), '1');
    api.setPod(single);
    await agent.ready();
    await eventually('0', () => node.read(cgroup) === '0', agent);
    return cgroup;
  }

  test('reaches a container that runs already, in each direction', async () => {
    start();
    const [single, group] = [newPod('Single'), newPod('Group')];
    const one = node.createContainer(node.createPod(single.uid), containerId(), '1');
    const two = node.createContainer(node.createPod(group.uid), containerId(), '0');
    api.setPod(single);
    api.setPod(group);
    await agent.ready();
    await eventually('0 and 1', () => node.read(one) === '0' && node.read(two) === '1', agent);
  });

  test('writes after the runtime has, as often as it has', async () => {
    start();
    const single = newPod('Single');
    api.setPod(single);
    await agent.ready();
    const directory = node.createPod(single.uid);
    for (let n = 0; n < 10; n += 1) {
      const cgroup = node.createContainer(directory, containerId(), '0');
      await aWhile(n * 5);
      for (const value of ['0', '0', '1']) {
        node.write(cgroup, value);
      }
      await eventually('0 after the runtime wrote 1', () => node.read(cgroup) === '0', agent);
    }
  });

  test('repairs drift in either direction', async () => {
    start();
    const [single, group] = [newPod('Single'), newPod('Group')];
    const one = node.createContainer(node.createPod(single.uid), containerId(), '1');
    const two = node.createContainer(node.createPod(group.uid), containerId(), '1');
    api.setPod(single);
    api.setPod(group);
    await agent.ready();
    for (let n = 0; n < 20; n += 1) {
      node.write(one, '1');
      node.write(two, '0');
      await eventually('repair', () => node.read(one) === '0' && node.read(two) === '1', agent);
    }
    await eventually('40 lines', () => agent.logged('kill mode written').length >= 40, agent);
  });

  test('does not answer its own writes', async () => {
    start();
    const single = newPod('Single');
    const cgroup = node.createContainer(node.createPod(single.uid), containerId(), '1');
    api.setPod(single);
    await agent.ready();
    node.write(cgroup, '1');
    await eventually('repair', () => node.read(cgroup) === '0', agent);
    await aWhile();
    const lines = agent.log.length;
    await aWhile(1000);
    expect(agent.log).toHaveLength(lines);
  });

  test('leaves pods that did not opt in alone, whatever happens to them', async () => {
    start();
    const ordinary = newPod(undefined);
    const directory = node.createPod(ordinary.uid);
    const running = node.createContainer(directory, containerId(), '1');
    const single = newPod('Single');
    api.setPod(single);
    await agent.ready();
    const cgroup = node.createContainer(node.createPod(single.uid), containerId(), '1');
    const started = node.createContainer(directory, containerId(), '1');
    const other = node.createContainer(node.createPod(podUid(), 'besteffort'), containerId(), '1');
    await eventually('the opted-in one', () => node.read(cgroup) === '0', agent);
    await aWhile();
    expect([running, started, other].map((path) => node.read(path))).toEqual(['1', '1', '1']);
    expect(node.read(node.own)).toBe('1');
  });

  test('restores the node value when the label is removed, and lets go', async () => {
    start();
    const single = newPod('Single');
    const cgroup = await protect(single);
    api.removeLabel(single.uid);
    await eventually('1', () => node.read(cgroup) === '1', agent);
    node.write(cgroup, '0');
    await aWhile();
    expect(node.read(cgroup)).toBe('0');
  });

  test('restores the node value of a node with singleProcessOOMKill', async () => {
    node = new FakeNode(SYSTEMD, { nodeValue: '0' });
    agent = new Agent(node, api, shell);
    const group = newPod('Group');
    const cgroup = node.createContainer(node.createPod(group.uid), containerId(), '0');
    api.setPod(group);
    await agent.ready();
    await eventually('1', () => node.read(cgroup) === '1', agent);
    api.removeLabel(group.uid);
    await eventually('0', () => node.read(cgroup) === '0', agent);
  });

  test('follows a label that comes and goes, and a pod that is made again under its name', async () => {
    start();
    const single = newPod('Single');
    const cgroup = node.createContainer(node.createPod(single.uid), containerId(), '1');
    await agent.ready();
    for (let n = 0; n < 10; n += 1) {
      api.setPod(single);
      await eventually('0', () => node.read(cgroup) === '0', agent);
      node.write(cgroup, '1');
      await eventually('repair', () => node.read(cgroup) === '0', agent);
      api.removeLabel(single.uid);
      await eventually('1', () => node.read(cgroup) === '1', agent);
    }
    const again = newPod('Single', { name: single.name });
    const another = node.createContainer(node.createPod(again.uid), containerId(), '1');
    api.setPod(again);
    await eventually('the new one', () => node.read(another) === '0', agent);
    expect(node.read(cgroup)).toBe('1');
  });

  test('leaves the sandbox of a new pod alone', async () => {
    start();
    const group = newPod('Group');
    api.setPod(group);
    await agent.ready();
    const directory = node.createPod(group.uid);
    await aWhile(50);
    const cgroup = node.createContainer(directory, containerId(), '0');
    await eventually('1', () => node.read(cgroup) === '1', agent);
    expect(node.read(node.sandbox(directory))).toBe('0');
    api.removeLabel(group.uid);
    await eventually('let go', () => agent.logged('no longer opted in').length === 1, agent);
    expect(node.read(node.sandbox(directory))).toBe('0');
    expect(node.read(cgroup)).toBe('1');
  });

  test('gives the sandbox of a pod that ran before it back what it had', async () => {
    start();
    const group = newPod('Group');
    const directory = node.createPod(group.uid);
    const id = containerId();
    const cgroup = node.createContainer(directory, id, '1');
    node.createLog(group, 'app', id);
    api.setPod(group);
    await agent.ready();
    api.removeLabel(group.uid);
    await eventually('let go', () => agent.logged('no longer opted in').length === 1, agent);
    expect(node.read(node.sandbox(directory))).toBe('0');
    expect(node.read(cgroup)).toBe('1');
  });

  test('takes no container for a sandbox for long', async () => {
    start({ environment: { RESYNC_SECONDS: '1' } });
    const single = newPod('Single');
    api.setPod(single);
    await agent.ready();
    const directory = node.createPod(single.uid);
    await aWhile(100);
    node.write(node.sandbox(directory), '1');
    await eventually('0', () => node.read(node.sandbox(directory)) === '0', agent);
  });

  test('treats an invalid mode as none, and says so', async () => {
    start();
    const single = newPod('Single');
    const cgroup = await protect(single);
    api.setPod({ ...single, labels: { [LABEL]: 'single' } });
    await eventually('1', () => node.read(cgroup) === '1', agent);
    await aWhile();
    expect(agent.logged('neither Single nor Group')).toHaveLength(1);
  });

  test('follows a change of the mode', async () => {
    start();
    const single = newPod('Single');
    const cgroup = node.createContainer(node.createPod(single.uid), containerId(), '1');
    api.setPod(single);
    await agent.ready();
    for (const [mode, value] of [
      ['Group', '1'],
      ['Single', '0'],
      ['Group', '1'],
    ] as const) {
      api.setPod({ ...single, labels: { [LABEL]: mode } });
      await eventually(mode, () => node.read(cgroup) === value, agent);
      node.write(cgroup, value === '1' ? '0' : '1');
      await eventually(`${mode} after drift`, () => node.read(cgroup) === value, agent);
    }
  });

  test('reaches a container that appears after its pod, and one after a restart', async () => {
    start();
    const single = newPod('Single');
    api.setPod(single);
    await agent.ready();
    const directory = node.createPod(single.uid);
    for (let n = 0; n < 3; n += 1) {
      const cgroup = node.createContainer(directory, containerId(), '1');
      await eventually('0', () => node.read(cgroup) === '0', agent);
      node.removeCgroup(cgroup);
    }
  });

  describe.each(Object.entries(LAYOUTS))('with the %s', (_name, layout) => {
    test.each(['guaranteed', 'burstable', 'besteffort'] as Qos[])('finds %s pods', async (qos) => {
      start({ layout });
      const [early, late] = [newPod('Single'), newPod('Single')];
      const before = node.createContainer(node.createPod(early.uid, qos), containerId(), '1');
      api.setPod(early);
      api.setPod(late);
      await agent.ready();
      const after = node.createContainer(node.createPod(late.uid, qos), containerId(), '1');
      await eventually('0', () => node.read(before) === '0' && node.read(after) === '0', agent);
      expect(node.read(node.own)).toBe('1');
    });
  });

  test('finds its way from a Guaranteed pod of its own', async () => {
    node = new FakeNode(SYSTEMD, { ownQos: 'guaranteed' });
    agent = new Agent(node, api, shell);
    const single = newPod('Single');
    const cgroup = node.createContainer(node.createPod(single.uid), containerId(), '1');
    api.setPod(single);
    await eventually('0', () => node.read(cgroup) === '0', agent);
  });

  test("writes crun's own level, and nothing else inside a container or beside it", async () => {
    node = new FakeNode(LAYOUTS['systemd driver, CRI-O'] as Layout);
    node.createCgroup(`${node.own}/container`, '1');
    agent = new Agent(node, api, shell);
    const single = newPod('Single');
    const directory = node.createPod(single.uid);
    api.setPod(single);
    await agent.ready();
    const scope = node.createContainer(directory, containerId(), '1');
    const conmon = node.createCgroup(`${directory}/crio-conmon-${containerId()}.scope`, '1');
    const nested = node.createCgroup(`${scope}/system.slice`, '1');
    const odd = node.createCgroup(`${directory}/something-else.scope`, '1');
    await aWhile(50);
    const crun = node.createCgroup(`${scope}/container`, '1');
    await eventually('0', () => node.read(scope) === '0' && node.read(crun) === '0', agent);
    const deeper = node.createCgroup(`${crun}/container`, '1');
    node.write(crun, '1');
    await eventually('0 again', () => node.read(crun) === '0', agent);
    await aWhile();
    expect([conmon, nested, odd, deeper].map((path) => node.read(path))).toEqual(
      Array(4).fill('1'),
    );
  });

  test("does not wait for ever for the file of a level like crun's, in two containers", async () => {
    start();
    const single = newPod('Single');
    const directory = node.createPod(single.uid);
    const scopes = [1, 2].map(() => node.createContainer(directory, containerId(), '1'));
    const levels = scopes.map((scope) => dirname(node.file(`${scope}/container`)));
    levels.forEach((level) => {
      mkdirSync(level);
    });
    api.setPod(single);
    await agent.ready();
    await eventually('0', () => scopes.every((scope) => node.read(scope) === '0'), agent);
    await aWhile(6000);
    const [before, lines] = [cpu(agent.pid), agent.log.length];
    await aWhile(3000);
    expect(cpu(agent.pid) - before).toBeLessThan(100);
    expect(agent.log).toHaveLength(lines);
  });

  test('finds a static pod by the hash in its mirror pod, and only a static pod', async () => {
    start();
    const hash = '0123456789abcdef0123456789abcdef';
    const victim = podUid();
    const mirror = newPod('Single', { annotations: { 'kubernetes.io/config.mirror': hash } });
    const liar = newPod('Single', { annotations: { 'kubernetes.io/config.mirror': victim } });
    const [wanted, unwanted] = [hash, victim].map((uid) =>
      node.createContainer(node.createPod(uid), containerId(), '1'),
    ) as [string, string];
    api.setPod(mirror);
    api.setPod(liar);
    await agent.ready();
    await eventually('0', () => node.read(wanted) === '0', agent);
    await aWhile();
    expect(node.read(unwanted)).toBe('1');
    api.removeLabel(mirror.uid);
    await eventually('1', () => node.read(wanted) === '1', agent);
  });

  test('applies an override as soon as the name of a container is known', async () => {
    start();
    const single = newPod('Single', { annotations: { [ANNOTATION]: 'web=Group, web-2=Single' } });
    const directory = node.createPod(single.uid);
    const ids = [containerId(), containerId()] as const;
    const early = node.createContainer(directory, ids[0], '1');
    node.createLog(single, 'web', ids[0]);
    api.setPod(single);
    await agent.ready();
    await aWhile();
    expect(node.read(early)).toBe('1');
    const late = node.createContainer(directory, ids[1], '1');
    await eventually("the pod's mode", () => node.read(late) === '0', agent);
    node.createLog(single, 'web', ids[1]);
    await eventually("the container's mode", () => node.read(late) === '1', agent);
    node.write(late, '0');
    await eventually('repair', () => node.read(late) === '1', agent);
  });

  test('tells containers apart whose names begin alike, and reads an override late', async () => {
    start();
    const single = newPod('Single');
    const directory = node.createPod(single.uid);
    const names = ['web', 'web-2', 'web-2-b'];
    const cgroups = names.map((container) => {
      const id = containerId();
      node.createLog(single, container, id);
      return node.createContainer(directory, id, '1');
    });
    api.setPod(single);
    const values = () => cgroups.map((cgroup) => node.read(cgroup)).join('');
    await eventually('all Single', () => values() === '000', agent);
    api.setPod({ ...single, annotations: { [ANNOTATION]: 'web-2=Group' } });
    await eventually('one Group', () => values() === '010', agent);
    api.setPod({ ...single, annotations: { [ANNOTATION]: 'web-2-b=Group,web=Group' } });
    await eventually('the other two', () => values() === '101', agent);
    api.setPod(single);
    await eventually('all Single again', () => values() === '000', agent);
  });

  test('finds the name of a container in a log name that the kubelet had to cut', async () => {
    start();
    const name = 'p'.repeat(200);
    const long = newPod('Single', { name, annotations: { [ANNOTATION]: 'worker=Group' } });
    const id = containerId();
    const cgroup = node.createContainer(node.createPod(long.uid), id, '0');
    node.createLog(long, 'worker', id);
    api.setPod(long);
    await agent.ready();
    await eventually('1', () => node.read(cgroup) === '1', agent);
  });

  test('says when an annotation has an entry that means nothing, and follows the others', async () => {
    start();
    const single = newPod('Single', { annotations: { [ANNOTATION]: 'a=Group,b=Sngle,=Group,c' } });
    const id = containerId();
    const cgroup = node.createContainer(node.createPod(single.uid), id, '0');
    node.createLog(single, 'a', id);
    api.setPod(single);
    await eventually('1', () => node.read(cgroup) === '1', agent);
    await aWhile();
    expect(agent.logged('has an entry that is not')).toHaveLength(1);
  });

  test('resumes a watch that ends from where it was, without a new list', async () => {
    start();
    await eventually('a watch', () => api.watching === 1, agent);
    const single = newPod('Single');
    const cgroup = node.createContainer(node.createPod(single.uid), containerId(), '1');
    api.endWatches();
    api.setPod(single);
    await eventually('0', () => node.read(cgroup) === '0', agent);
    expect(api.requests.map((request) => request.watch)).toEqual([false, true, true]);
  });

  test('restores a pod that left unseen, after 410', async () => {
    start();
    const [stays, leaves] = [newPod('Single'), newPod('Single')];
    const cgroups = [await protect(stays), await protect(leaves)] as const;
    api.forgetSilently(leaves.uid);
    api.compact();
    api.sendRaw('{"type":"ERROR","object":{"kind":"Status","status":"Failure","code":410}}\n');
    api.endWatches();
    await eventually('1', () => node.read(cgroups[1]) === '1', agent);
    expect(node.read(cgroups[0])).toBe('0');
  });

  test('understands events that are cut anywhere, and stands garbage', async () => {
    api.chunk = 1;
    start();
    await agent.ready();
    const first = newPod('Single', { annotations: { note: 'a } { " \\ \n é \u{1f600} \\" ' } });
    const one = node.createContainer(node.createPod(first.uid), containerId(), '1');
    api.setPod(first);
    await eventually('the first', () => node.read(one) === '0', agent);
    api.sendRaw('{"type":"ADDED","object":{"metadata":{"name":"x"\n');
    const second = newPod('Single');
    const two = node.createContainer(node.createPod(second.uid), containerId(), '1');
    api.setPod(second);
    await eventually('the second', () => node.read(two) === '0', agent);
  });

  test('takes hostile text for text', async () => {
    start();
    await agent.ready();
    const victim = node.createContainer(node.createPod(podUid()), containerId(), '1');
    const trap = `${node.directory}/trap`;
    const evil = [
      `$(touch ${trap})`,
      `\`touch ${trap}\``,
      `";touch ${trap};"`,
      `x=Group\ngone\tx`,
      '\u0000\u001b[2J',
      '"}}\n{"type":"DELETED"',
      `${LABEL}":"Group","x":"`,
      '\\'.repeat(1000),
      '../../0=Group,*=Group',
    ];
    const cgroups = evil.map((text) => {
      const one = newPod('Single', {
        annotations: { [ANNOTATION]: text, other: text, [`${ANNOTATION}x`]: 'a=Group' },
        labels: { [LABEL]: 'Single', evil: text },
      });
      api.setPod(one);
      return node.createContainer(node.createPod(one.uid), containerId(), '1');
    });
    for (const text of evil) {
      api.setPod(newPod(text));
      api.setPod(newPod('Single', { name: text }));
      api.setPod(newPod('Single', { namespace: text }));
      api.setPod({ ...newPod('Single'), uid: text });
    }
    await eventually('0', () => cgroups.every((path) => node.read(path) === '0'), agent);
    await aWhile();
    expect(node.read(victim)).toBe('1');
    expect(() => readFileSync(trap)).toThrow('ENOENT');
  });

  test('asks for nothing but the labels of the pods of its node, with the token in no argument', async () => {
    start();
    await agent.ready();
    await eventually('a watch', () => api.watching === 1, agent);
    for (const request of api.requests) {
      expect(request.url.searchParams.get('fieldSelector')).toBe('spec.nodeName=node-1');
      expect(request.url.searchParams.get('labelSelector')).toBe(LABEL);
      expect(request.headers.accept).toMatch(
        request.watch
          ? /^application\/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io$/
          : /^application\/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io$/,
      );
    }
    expect(api.requests[1]?.url.searchParams.get('allowWatchBookmarks')).toBe('true');
    const lines = agent.processes.map(commandLine);
    expect(lines.filter((line) => line.startsWith('curl '))).toHaveLength(1);
    expect(lines.filter((line) => line.includes(api.token))).toEqual([]);
  });

  test('reads the token anew for each request', async () => {
    start();
    await agent.ready();
    api.token = 'second-token';
    writeFileSync(`${node.serviceAccount}/token`, api.token);
    const single = newPod('Single');
    api.endWatches();
    api.setPod(single);
    const cgroup = node.createContainer(node.createPod(single.uid), containerId(), '1');
    await eventually('0', () => node.read(cgroup) === '0', agent);
  });

  test('refuses an API server that another authority vouches for', async () => {
    const other = await FakeApiServer.start();
    start();
    await agent.ready();
    await other.stop();
    await agent.stop();
    writeFileSync(`${node.serviceAccount}/ca.crt`, other.caPem);
    const before = api.requests.length;
    agent = new Agent(node, { caPem: other.caPem, token: api.token, port: api.port }, shell);
    await eventually('a complaint', () => agent.logged('no answer').length > 0, agent);
    expect(agent.logged('no answer')[0]?.curl).toBe('60');
    expect(api.requests).toHaveLength(before);
    expect(await agent.check('ready')).not.toBe(0);
  });

  test.each([401, 403, 429, 500, 503])(
    'goes on after status %d, and says it once',
    async (status) => {
      api.outage = (response) => {
        fail(response, status);
      };
      start();
      await eventually('2 requests', () => api.requests.length >= 2, agent);
      expect(agent.logged('no answer')).toHaveLength(1);
      expect(agent.logged('no answer')[0]?.code).toBe(String(status));
      api.outage = undefined;
      const single = newPod('Single');
      const cgroup = node.createContainer(node.createPod(single.uid), containerId(), '1');
      api.setPod(single);
      await eventually('0', () => node.read(cgroup) === '0', agent);
      await eventually('a word of it', () => agent.logged('answers again').length === 1, agent);
    },
  );

  test('keeps known pods as they should be while the API server is away', async () => {
    start();
    const single = newPod('Single');
    const directory = node.createPod(single.uid);
    const cgroup = node.createContainer(directory, containerId(), '1');
    api.setPod(single);
    await agent.ready();
    await eventually('0', () => node.read(cgroup) === '0', agent);
    const port = await api.pause();
    node.write(cgroup, '1');
    await eventually('repair', () => node.read(cgroup) === '0', agent);
    const restarted = node.createContainer(directory, containerId(), '1');
    await eventually('a restarted container', () => node.read(restarted) === '0', agent);
    await api.resume(port);
    const late = newPod('Group');
    const another = node.createContainer(node.createPod(late.uid), containerId(), '0');
    api.setPod(late);
    await eventually('a new pod', () => node.read(another) === '1', agent);
  });

  test('a list that breaks off opts nobody out', async () => {
    start();
    const single = newPod('Single');
    const cgroup = await protect(single);
    api.compact();
    let broken = 0;
    api.outage = (response, url) => {
      if (url.searchParams.get('watch') === '1') {
        fail(response, 410);
        return;
      }
      broken += 1;
      response.writeHead(200);
      response.end(
        '{"kind":"PartialObjectMetadataList","metadata":{"resourceVersion":"9999"},"items":[',
      );
    };
    api.endWatches();
    await eventually('2 broken lists', () => broken >= 2, agent);
    expect(node.read(cgroup)).toBe('0');
    node.write(cgroup, '1');
    await eventually('repair', () => node.read(cgroup) === '0', agent);
  });

  test('restores what left while its container was restarted', async () => {
    start();
    const [stays, leaves] = [newPod('Single'), newPod('Single')];
    const cgroups = [await protect(stays), await protect(leaves)] as const;
    await agent.stop('SIGKILL');
    api.forgetSilently(leaves.uid);
    agent = new Agent(node, api, shell);
    await eventually('1', () => node.read(cgroups[1]) === '1', agent);
    expect(node.read(cgroups[0])).toBe('0');
  });

  test('leaves everything as it is when it is told to end, within a second', async () => {
    start();
    const single = newPod('Single');
    const cgroup = await protect(single);
    const began = Date.now();
    expect(await agent.stop('SIGTERM')).toBe(0);
    expect(Date.now() - began).toBeLessThan(1000);
    expect(node.read(cgroup)).toBe('0');
  });

  test('is ready once it has heard of every pod, and live as long as its loop turns', async () => {
    api.outage = (response) => {
      fail(response, 500);
    };
    start({ environment: { RESYNC_SECONDS: '1' } });
    await eventually('a request', () => api.requests.length > 0, agent);
    expect(await agent.check('ready')).toBe(1);
    expect(await agent.check('live')).toBe(0);
    api.outage = undefined;
    await agent.ready();
    expect(await agent.check('ready')).toBe(0);
    const uptime = Number(readFileSync('/proc/uptime', 'utf8').split('.')[0]);
    process.kill(agent.pid, 'SIGSTOP');
    writeFileSync(`${node.run}/alive`, `${uptime - 63}\n`);
    expect(await agent.check('live')).not.toBe(0);
  });

  test('polls where there is no inotify, and says so', async () => {
    node = new FakeNode(SYSTEMD);
    const broken = `${node.directory}/bin`;
    mkdirSync(broken);
    writeFileSync(
      `${broken}/inotifyd`,
      '#!/bin/sh\necho "inotifyd: no kernel support: No file descriptors available" >&2\nexit 1\n',
      { mode: 0o755 },
    );
    const path = `${broken}:${TOOLS_PATH}`;
    agent = new Agent(node, api, shell, { PATH: path, RESYNC_SECONDS: '2' });
    const single = newPod('Single');
    const directory = node.createPod(single.uid);
    const cgroup = node.createContainer(directory, containerId(), '1');
    api.setPod(single);
    await agent.ready();
    await eventually('0', () => node.read(cgroup) === '0', agent);
    node.write(cgroup, '1');
    await eventually('repair', () => node.read(cgroup) === '0', agent);
    const restarted = node.createContainer(directory, containerId(), '1');
    await eventually('a new container', () => node.read(restarted) === '0', agent);
    expect(agent.logged('no inotify')).toHaveLength(1);
    expect(agent.logged('no inotify')[0]?.reason).toContain('No file descriptors available');
    rmSync(`${broken}/inotifyd`);
    await eventually('inotify again', () => agent.logged('inotify is back').length === 1, agent);
  });

  test('recognises cgroup v1 and stays out of the way', async () => {
    node = new FakeNode(SYSTEMD, { version: 1 });
    agent = new Agent(node, api, shell);
    const single = newPod('Single');
    const cgroup = node.createContainer(node.createPod(single.uid), containerId(), '1');
    api.setPod(single);
    await agent.ready();
    expect(agent.logged('cgroup v1')).toHaveLength(1);
    await aWhile();
    expect(node.read(cgroup)).toBe('1');
    expect(api.requests).toHaveLength(0);
    expect(await agent.stop('SIGTERM')).toBe(0);
  });

  test('says once that a write was refused', async () => {
    start();
    const single = newPod('Single');
    const cgroup = node.createContainer(node.createPod(single.uid), containerId(), '1');
    const file = `${node.cgroupRoot}/${cgroup}/memory.oom.group`;
    execFileSync('chattr', ['+i', file]);
    try {
      api.setPod(single);
      await agent.ready();
      await eventually('a complaint', () => agent.logged('not written').length > 0, agent);
      api.setPod({ ...single, annotations: { [ANNOTATION]: 'x=Group' } });
      await aWhile();
      expect(agent.logged('not written')).toHaveLength(1);
    } finally {
      execFileSync('chattr', ['-i', file]);
    }
  });

  test('starts again whichever of its processes is killed', async () => {
    start({ environment: { RESYNC_SECONDS: '1' } });
    const single = newPod('Single');
    const directory = node.createPod(single.uid);
    const cgroup = node.createContainer(directory, containerId(), '1');
    api.setPod(single);
    await agent.ready();
    await eventually('0', () => node.read(cgroup) === '0', agent);
    await eventually('a watch', () => api.watching === 1, agent);
    const victims = agent.processes.filter((pid) => pid !== agent.pid);
    expect(victims.length).toBeGreaterThanOrEqual(5);
    for (const victim of victims) {
      const name = commandLine(victim) || `process ${victim}`;
      if (!signal(victim, 'SIGKILL')) continue; // It ended together with an earlier one.
      node.write(cgroup, '1');
      await eventually(`repair after ${name}`, () => node.read(cgroup) === '0', agent);
      const mode = { ...single, labels: { [LABEL]: 'Group' } };
      api.setPod(mode);
      await eventually(`Group after ${name}`, () => node.read(cgroup) === '1', agent, 20);
      api.setPod(single);
      await eventually(`Single after ${name}`, () => node.read(cgroup) === '0', agent, 20);
      const restarted = node.createContainer(directory, containerId(), '1');
      await eventually(`a container after ${name}`, () => node.read(restarted) === '0', agent);
    }
  });

  // Those that are there all the time, and those that are there while an Event is on its way.
  test.each([
    ['at rest', '/memory.events', 5],
    ['while it writes an Event', '/events', 2],
  ])(
    'tells of every kill whichever of its processes is killed %s',
    async (when, subject, least) => {
      start({
        environment: {
          EVENTS: 'yes',
          METRICS: 'yes',
          KILL_SECONDS: '1',
          EVENT_SECONDS: '1',
          RESYNC_SECONDS: '1',
        },
      });
      api.eventDelay = 1000;
      await agent.ready();
      // Once a minute, as ticks in production: without them nobody starts a ticker again that was killed.
      bookmarks = setInterval(() => {
        api.bookmark();
      }, 1000);
      const tried: string[] = [];
      for (let n = 0; n < 12; n += 1) {
        // One of its own each time: the more Events a pod has, the longer they wait.
        const single = newPod('Single');
        const cgroup = node.createContainer(node.createPod(single.uid), containerId(), '1');
        node.count(cgroup, {});
        api.setPod(single);
        const told = () =>
          [...api.events.values()]
            .filter(({ involvedObject }) => involvedObject.uid === single.uid)
            .reduce((sum, { count }) => sum + count, 0);
        const running = (text: string) =>
          agent.processes.some((pid) => commandLine(pid).includes(text));
        await eventually('0', () => node.read(cgroup) === '0', agent);
        await eventually('a kill watch', () => running('/memory.events'), agent, 20);
        await eventually('no Event on its way', () => !running('/events'), agent, 20);
        const before = agent.processes;
        if (when !== 'at rest') {
          node.kill(cgroup);
          await eventually('an Event on its way', () => running('/events'), agent, 20);
        }
        // The one that the test is about first, then the newest: the others are those of the test
        // above. Which are there beside it, and in what order, is not the same twice.
        const isSubject = (pid: number) => Number(commandLine(pid).includes(subject));
        const victim = agent.processes
          .filter((pid) => pid !== agent.pid && before.includes(pid) === (when === 'at rest'))
          .reverse()
          .sort((a, b) => isSubject(b) - isSubject(a))[n];
        if (victim === undefined) break;
        const name = commandLine(victim) || `process ${victim}`;
        tried.push(name);
        if (!signal(victim, 'SIGKILL')) continue; // It has ended.
        node.kill(cgroup);
        node.write(cgroup, '1');
        await eventually(`repair after ${name}`, () => node.read(cgroup) === '0', agent);
        const kills = when === 'at rest' ? 1 : 2;
        await eventually(`an Event after ${name}`, () => told() === kills, agent, 30);
      }
      expect(tried.length).toBeGreaterThanOrEqual(least);
      expect(tried.join()).toContain(subject);
    },
    180_000,
  );
});
