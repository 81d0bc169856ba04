import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer, Socket } from 'node:net';

import {
  Agent,
  ANNOTATION,
  aWhile,
  commandLine,
  LABEL,
  newPod,
  pathWith,
  podUid,
  signal,
} from '../support/agent';
import { fail, FakeApiServer, Fault, NAMESPACE_TERMINATING, status } from '../support/api-server';
import { Container, Scene } from './scene';

// What the agent asks of the API server, and every way in which that may be down, slow, or lying. Known
// pods stay protected meanwhile, and nobody is opted out by what is not the truth.

const scene = Scene.use();
const answerWith =
  (...args: Parameters<typeof fail> extends [unknown, ...infer Rest] ? Rest : never): Fault =>
  (response) => {
    fail(response, ...args);
  };
const SILENT = 'the API server does not answer; known pods keep their modes';
const REFUSED = 'the API server refused the watch; known pods keep their modes';
const CUT = 'the watch of the API server was cut; it is opened again at once';
const troubles = () => scene.warnings.filter(({ msg }) => msg === SILENT || msg === REFUSED);
const back = () => scene.agent.logged('API server answers again').length;
/** Waits until so many watches were answered. */
const watches = (count: number) =>
  scene.eventually(`${count} watches`, () => answered().length >= count);
const answered = () => scene.api.requests.filter(({ status: code }) => code === 200);

/** What happens to a known pod while the API server is away: drift, and a container that is restarted. */
async function live(container: Container): Promise<void> {
  await scene.drift('0', container);
  const restarted = scene.node.createContainer(
    container.cgroup.replace(/\/[^/]*$/, ''),
    container.id.replace(/^.{8}/, podUid().slice(0, 8)),
    '1',
  );
  await scene.eventually('a restarted container', () => scene.node.read(restarted) === '0');
  scene.node.vanish(restarted);
}

/** A pod that nobody heard of yet is heard of. */
async function heals(): Promise<void> {
  await scene.protect('Single', 'late');
}

test('the API server is asked for nothing but the labels of the pods of its node, and no argument has the token', async () => {
  await scene.ready();
  await scene.settle();
  const [request, ...others] = scene.api.requests;
  expect(others).toEqual([]);
  const { timeoutSeconds, ...query } = Object.fromEntries(request?.url.searchParams ?? []);
  expect(query).toEqual({
    watch: '1',
    resourceVersion: '0',
    resourceVersionMatch: 'NotOlderThan',
    sendInitialEvents: 'true',
    allowWatchBookmarks: 'true',
    fieldSelector: 'spec.nodeName=node-1,status.phase!=Succeeded,status.phase!=Failed',
    labelSelector: LABEL,
  });
  expect(Number(timeoutSeconds)).toBeGreaterThanOrEqual(1800);
  expect(request?.headers).toMatchObject({
    accept: 'application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io',
    'user-agent': 'cdk8s-oom-kill-mode',
  });
  const lines = scene.agent.processes.map(commandLine);
  expect(lines.filter((line) => line.startsWith('curl '))).toHaveLength(1);
  expect(lines.filter((line) => line.includes(scene.api.token))).toEqual([]);
  // At rest there is nobody else.
  await scene.eventually('rest', () => scene.agent.processes.length <= 4);
});

test.each([422, 400])(
  'an API server that answers %d to sendInitialEvents is asked without it, and no log line tells of it',
  async (code) => {
    scene.api.knowsInitialEvents = false;
    if (code !== 422) scene.api.faults.push(answerWith(code));
    await scene.ready();
    scene.api.endWatches();
    await watches(2);
    const words = scene.api.requests.map(({ url: { searchParams } }) => [
      searchParams.get('sendInitialEvents'),
      searchParams.get('resourceVersionMatch'),
    ]);
    expect(words).toEqual([
      ['true', 'NotOlderThan'],
      [null, null],
      [null, null],
    ]);
    await heals();
    expect(scene.warnings.filter(({ status: told }) => told === String(code))).toEqual([]);
  },
);

test.each([true, false])(
  'pods that left while no watch was open are opted out at the first bookmark: at once %s',
  async (atOnce) => {
    scene.api.knowsInitialEvents = atOnce;
    await scene.ready();
    const [stays, leaves] = [...(await scene.protect()), ...(await scene.protect())] as [
      Container,
      Container,
    ];
    const wrong = scene.optIn('wrong');
    scene.api.faults.push((response) => {
      // A stream that ends before its first bookmark says nothing about who left.
      response.writeHead(200).end();
    });
    scene.api.forgetSilently(leaves.pod.uid);
    scene.api.forgetSilently(wrong.metadata.uid);
    scene.api.endWatches();
    await watches(2);
    if (!atOnce) {
      await scene.settle();
      expect(scene.values([stays, leaves])).toBe('00');
      scene.api.bookmark();
    }
    await scene.become('01', stays, leaves);
    // The others say only that all is well.
    scene.api.bookmark();
    await scene.settle();
    await scene.drift('0', stays);
    expect(troubles()).toEqual([]);
  },
);

test('pods that left are opted out without a bookmark, once the API server has told of all others', async () => {
  scene.api.knowsInitialEvents = false;
  await scene.ready({ METRICS: 'yes' });
  // A pod may have any name: this is a word of the script.
  const names = ['a', 'b', 'c', 'd', 'deleted'];
  const pods = names.map((name) => scene.optIn('Single', '', { name, namespace: name }));
  const containers = pods.map((pod) => pod.run('app'));
  await scene.become('00000', ...containers);
  const [stays] = (await scene.protect()) as [Container];
  const wrong = scene.optIn('wrong');
  const metrics = (sample: string) =>
    scene.eventually(sample, () => scene.metrics.includes(sample));
  await scene.agent.ticks();
  await metrics('condition="invalid_mode"} 1');
  [...pods, wrong].forEach(({ metadata }) => {
    scene.api.forgetSilently(metadata.uid);
  });
  scene.api.endWatches();
  await scene.become('11111', ...containers);
  await metrics('condition="invalid_mode"} 0');
  await metrics('oom_kill_mode_last_sync_timestamp_seconds 1');
  await scene.drift('0', stays);
});

test('no pod is opted out by the older bookmark of an API server whose cache is behind', async () => {
  await scene.ready();
  const [stays] = (await scene.protect()) as [Container];
  const [leaves] = (await scene.protect()) as [Container];
  scene.api.forgetSilently(leaves.pod.uid);
  const behind = scene.api.version;
  const [late] = (await scene.protect()) as [Container];
  scene.api.stayAt(behind);
  scene.api.endWatches();
  await scene.eventually('a second watch', () => scene.agent.logged('watch of').length === 2);
  scene.api.bookmark();
  await scene.agent.ticks(2);
  expect(scene.values([stays, leaves, late])).toBe('000');
  await scene.drift('000', stays, leaves, late);
  scene.api.catchUp();
  scene.api.bookmark();
  await scene.become('010', stays, leaves, late);
  await scene.settle();
  await scene.drift('00', stays, late);
});

test('the agent opens a watch again at once when one that lasted is cut, and says so once', async () => {
  scene.api.cutAfter = 2500;
  await scene.ready();
  const cuts = () => scene.warnings.map(({ msg }) => msg);
  let blind = 0;
  for (let count = 2; count <= 6; count += 1) {
    await scene.eventually('a cut', () => scene.api.watching === 0);
    const began = Date.now();
    const container = scene.optIn('Single').run('app');
    await scene.become('0', container);
    await watches(count);
    blind += (answered()[count - 1]?.at ?? NaN) - began;
  }
  // Pauses of 1, 2, 4, 8 and 15 s, as after failures, come to 30 s.
  expect(blind).toBeLessThan(15_000);
  expect(cuts()).toEqual([CUT]);
  const lasts = () => scene.agent.logged('the watch of the API server lasts again').length;
  expect(lasts()).toBe(0);
  scene.api.cutAfter = undefined;
  await scene.eventually('a last cut', () => scene.api.watching === 0);
  await watches(answered().length + 1);
  scene.api.endWatches();
  await scene.eventually('the end', () => lasts() === 1);
  await heals();
  await scene.agent.ticks(2);
  scene.api.breakConnections();
  await scene.eventually('another', () => cuts().length === 2);
  expect([cuts(), back()]).toEqual([[CUT, CUT], 0]);
});

test('the end of a watch is told once, even while the agent has much else to do', async () => {
  await scene.ready();
  const { agent, api } = scene;
  const pod = scene.optIn('Single');
  await scene.become('0', pod.run('app'));
  await agent.ticks(3);
  const before = agent.running('awk');
  signal(agent.pid, 'SIGSTOP');
  // A tick is due before all of this is read, and the end of the watch is behind it.
  for (let n = 0; n < 50; n += 1) pod.opt('Single', n % 2 === 0 ? 'x=Group' : '');
  await aWhile(1500);
  api.breakConnections();
  await scene.eventually(
    'the end',
    () => !agent.running('awk').some((pid) => before.includes(pid)),
  );
  await aWhile(1500);
  signal(agent.pid, 'SIGCONT');
  await watches(2);
  await scene.settle();
  expect(scene.warnings.map(({ msg }) => msg)).toEqual([CUT]);
  expect([answered().length, back()]).toEqual([2, 0]);
});

test.each([
  [401, status(401), 'Unauthorized', 'Unauthorized'],
  [403, status(403, 'no "watch"'), 'Forbidden', "no 'watch'"],
  [403, NAMESPACE_TERMINATING, 'Forbidden', expect.stringContaining('is being terminated')],
  [429, status(429), 'TooManyRequests', 'Too many requests, please try again later.'],
  [500, status(500), 'InternalError', 'Internal error occurred: etcdserver: request timed out'],
  [503, status(503, `"}\n{"level":"\u0000\\ é`), 'ServiceUnavailable', expect.any(String)],
  [410, status(410), 'Expired', 'too old resource version: 1 (1000)'],
])(
  'the agent goes on after status %d, and says it once: %j',
  async (code, fault, reason, message) => {
    await scene.ready();
    const [known] = (await scene.protect()) as [Container];
    const before = scene.api.requests.length;
    scene.api.outage = answerWith(fault);
    scene.api.endWatches();
    await scene.eventually('two requests', () => scene.api.requests.length >= before + 2);
    await live(known);
    expect(troubles()).toMatchObject([
      { msg: REFUSED, status: String(code), curl: '0', reason, message: message as string },
    ]);
    scene.api.outage = undefined;
    await heals();
    expect(back()).toBe(1);
  },
);

test('the agent says it again if the answer is another one', async () => {
  scene.api.outage = answerWith(503);
  scene.start();
  await scene.eventually('a line', () => troubles().length === 1);
  scene.api.outage = answerWith(401);
  await scene.eventually('another', () => troubles().length === 2);
  expect(troubles().map((line) => line.status)).toEqual(['503', '401']);
});

test('the agent asks again after 1, 2 and 4 s', async () => {
  scene.api.outage = answerWith(503);
  scene.start();
  await scene.eventually('four requests', () => scene.api.requests.length >= 4);
  const [first = NaN, , , fourth = NaN] = scene.api.requests.map(({ at }) => at);
  // The agent counts whole seconds, and three pauses of one second would be over by then.
  expect(fourth - first).toBeGreaterThan(3_500);
});

test('the agent obeys Retry-After if it is a number', async () => {
  scene.api.faults.push(answerWith(429, 6), answerWith(503, 'Wed, 21 Oct 2026 07:28:00 GMT'));
  await scene.ready();
  const [first = NaN, second = NaN] = scene.api.requests.map(({ at }) => at);
  // It would ask again after 1 s. A busy host delays each request by a while.
  expect(second - first).toBeGreaterThan(3_000);
});

test('an ERROR in the stream ends the watch, and opts no pod out', async () => {
  await scene.ready();
  const [stays, leaves] = [...(await scene.protect()), ...(await scene.protect())] as [
    Container,
    Container,
  ];
  scene.api.forgetSilently(leaves.pod.uid);
  scene.api.failWatches(410);
  await scene.become('01', stays, leaves);
  expect(troubles()).toMatchObject([{ msg: REFUSED, status: '410', reason: 'Expired' }]);
});

test.each(['are refused', 'hang'])(
  'the agent waits for an API server where connections %s, at the start and later',
  async (how) => {
    const port = await scene.api.pause();
    // Accepts connections, and never says a word.
    const sockets: Socket[] = [];
    const mute = createServer((socket) => sockets.push(socket.on('error', () => undefined)));
    const leave = async () => {
      if (how === 'hang') await new Promise<void>((done) => mute.listen(port, '127.0.0.1', done));
    };
    const come = async () => {
      if (how === 'hang') {
        mute.close();
        sockets.splice(0).forEach((socket) => socket.destroy());
      }
      await scene.api.resume(port);
    };
    await leave();
    const pod = scene.optIn('Single');
    const known = pod.run('app');
    scene.start();
    if (how === 'hang') {
      await scene.eventually('a connection', () => sockets.length > 0);
    } else {
      await scene.eventually('a complaint', () => troubles().length === 1);
      expect(troubles()[0]).toMatchObject({ msg: SILENT, status: '000', curl: '7' });
    }
    await scene.agent.ticks();
    expect([scene.agent.isReady, known.value]).toEqual([false, '1']);
    await come();
    await scene.become('0', known);
    await scene.agent.ready();
    const left = (await scene.protect()) as [Container];
    await scene.api.pause();
    await leave();
    scene.api.removeLabel(left[0].pod.uid);
    await live(known);
    await live(left[0]);
    await come();
    await scene.become('1', left[0]);
    await heals();
  },
);

test('a silent watch is ended by curl, later where no bookmark comes', async () => {
  // The test's patience is less: curl is given 5 s, whatever it was to have.
  const given = `${scene.node.directory}/given`;
  const impatient = `for argument; do
  shift
  if [ "$previous" = --speed-time ]; then
    echo "$argument" >>${given}
    argument=5
  fi
  previous=$argument
  set -- "$@" "$argument"
done
PATH=\${PATH#*:} exec curl "$@"`;
  const limits = () => readFileSync(given, 'utf8').trim().split('\n');
  // The first watch is never answered.
  scene.api.faults.push(() => undefined);
  await scene.ready({ PATH: pathWith(scene.node, 'curl', impatient) });
  expect(troubles()).toMatchObject([{ msg: SILENT, curl: '28' }]);
  scene.api.knowsInitialEvents = false;
  const [left] = (await scene.protect()) as [Container];
  scene.api.hangWatches();
  scene.api.removeLabel(left.pod.uid);
  const most = () => limits().filter((seconds) => seconds === '2400').length;
  await scene.eventually('most patience', () => most() === 2);
  // One bookmark, as soon as a watch can have it.
  await watches(answered().length + 1);
  scene.api.bookmark();
  await scene.become('1', left);
  await scene.eventually('less', () => limits().at(-1) === '150');
  const changes = limits().filter((seconds, i, all) => seconds !== all[i - 1]);
  expect(changes).toEqual(['150', '600', '2400', '150']);
  // The one that was never answered, and the first that fell silent although it had had a bookmark.
  expect(scene.warnings.map(({ msg }) => msg)).toEqual([SILENT, CUT]);
});

test('events in pieces are read, and half a line and what is no JSON are skipped', async () => {
  scene.api.chunk = 1;
  await scene.ready();
  const note = 'a } { " \\ \n é \u{1f600} \\" ';
  const first = scene.optIn('Single', '', { annotations: { note } });
  await scene.become('0', first.run('app'));
  const known = (await scene.protect()) as [Container];
  for (const text of [
    'garbage\n',
    '\n\n',
    '{"type":"DELETED","object":{"metadata":{"name":"x"\n',
    `{"type":"DELETED","object":{"metadata":${JSON.stringify(known[0].pod)}\n`,
    `{"type":"UNKNOWN","object":{"metadata":${JSON.stringify(known[0].pod)}}}\n`,
    '{"type":"ADDED"}\n[]\n"DELETED"\n}}}}\n',
    `{"type":"ERROR`,
  ]) {
    scene.api.sendRaw(text);
  }
  // The last one was half a line, and that is where the stream ends.
  scene.api.breakConnections();
  await heals();
  await scene.settle();
  await scene.drift('0', ...known);
});

test.each([
  ['1 MB of letters', 'x'.repeat(1_000_000)],
  ['256 KiB of braces and quotes', '{"a":"}"},'.repeat(2 ** 18 / 10)],
  ['256 KiB of backslashes', '\\'.repeat(2 ** 18)],
])('pods with annotations of %s are served', async (_, text) => {
  const listed = scene.pod('Single', { annotations: { note: text } });
  const running = listed.run('app');
  listed.opt();
  await scene.ready();
  await scene.become('0', running);
  const noted = scene.optIn('Single', '', { annotations: { note: text } });
  const ours = scene.optIn('Single', text);
  await scene.become('00', noted.run('app'), ours.run('app'));
  await scene.eventually('a word', () =>
    scene.agent.log.some(({ condition }) => condition === 'invalid_override'),
  );
});

test('hostile text is taken for text', async () => {
  await scene.ready({ EVENTS: 'yes', METRICS: 'yes' });
  const trap = `${scene.node.directory}/trap`;
  const evil = [
    ...[`$(touch ${trap})`, `\`touch ${trap}\``, `";touch ${trap};"`, `x=Group\ngone\tx`],
    ...['\u0000\u001b[2J', '"}}\n{"type":"DELETED"', `${LABEL}":"Group","x":"`],
    ...[
      '\\'.repeat(1000),
      '../../0=Group,*=Group',
      '*',
      '/etc',
      "' ' '",
      '%s%n',
      '\u2028é\u{1f600}',
    ],
  ];
  const containers = evil.map((text) => {
    const annotations = { [ANNOTATION]: text, other: text, [`${ANNOTATION}x`]: 'app=Group' };
    const pod = scene.optIn('Single', undefined, {
      annotations,
      labels: { [LABEL]: 'Single', evil: text },
    });
    return pod.run('app');
  });
  for (const text of evil) {
    scene.api.setPod(newPod(text));
    scene.api.setPod(newPod('Single', { name: text }));
    scene.api.setPod(newPod('Single', { namespace: text }));
    scene.api.setPod({ ...newPod('Single'), uid: text });
    scene.api.setPod(newPod('Single', { annotations: { 'kubernetes.io/config.mirror': text } }));
  }
  await scene.become('0'.repeat(evil.length), ...containers);
  containers.forEach((container) => {
    container.kill();
  });
  await scene.eventually('Events', () =>
    containers.every(({ pod }) =>
      scene.eventsOf(pod).some(({ reason }) => reason === 'OomKilledProcess'),
    ),
  );
  await scene.settle();
  expect(() => {
    renameSync(trap, trap);
  }).toThrow('ENOENT');
});

test('each request reads the token and ca.crt anew', async () => {
  await scene.ready();
  const { api, node } = scene;
  const [known] = (await scene.protect()) as [Container];
  api.token = 'second-token';
  api.breakConnections();
  await scene.eventually('a complaint', () => troubles().at(-1)?.status === '401');
  writeFileSync(`${node.serviceAccount}/token`, api.token);
  await heals();
  const before = api.requests.length;
  api.rotateCertificate();
  api.breakConnections();
  await scene.eventually('another', () => troubles().at(-1)?.curl === '60');
  await live(known);
  expect(api.requests).toHaveLength(before);
  // As the kubelet does it: all at once.
  writeFileSync(`${node.serviceAccount}/ca.new`, api.caPem);
  renameSync(`${node.serviceAccount}/ca.new`, `${node.serviceAccount}/ca.crt`);
  await heals();
  expect(back()).toBe(2);
});

test('an API server with the certificate of another authority is not believed', async () => {
  const other = await FakeApiServer.start();
  await other.stop();
  const { api, node } = scene;
  scene.agent = new Agent(node, { caPem: other.caPem, token: api.token, port: api.port });
  await scene.eventually('a complaint', () => troubles()[0]?.curl === '60');
  expect(api.requests).toEqual([]);
  expect(scene.agent.isReady).toBe(false);
});
