import { execFileSync } from 'node:child_process';
import { readdirSync, writeFileSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Yaml } from 'cdk8s';
import { install } from '../test/support/binaries';
import { Manifest, parse, read } from '../test/support/manifests';

// Writes the dist/ of every example, as `npx cdk8s synth` in its directory does, and the patch that makes the agent
// of examples/agent-only that of examples/metrics.

type Fields = Readonly<Record<string, unknown>>;

const EXAMPLES = resolve(__dirname, '../examples');
const PATH = `${install('helm')}${delimiter}${process.env['PATH'] ?? ''}`;

for (const example of readdirSync(EXAMPLES)) {
  execFileSync('npx', ['cdk8s', 'synth'], {
    cwd: join(EXAMPLES, example),
    env: { ...process.env, PATH },
    stdio: 'inherit',
  });
}
const agentOnly = agentOf('agent-only');
const patches = agentOf('metrics').flatMap((object) => {
  const { apiVersion, kind, metadata } = object;
  const { name, namespace } = metadata;
  const alone = agentOnly.find(
    (one) => one.kind === kind && isDeepStrictEqual(one.metadata, metadata),
  );
  const added = additions(alone, object) as Fields | undefined;
  return added ? [{ apiVersion, kind, metadata: { name, namespace }, ...added }] : [];
});
writeFileSync(join(EXAMPLES, 'metrics/agent.patch.yaml'), Yaml.stringify(...patches));

function agentOf(example: string): Manifest[] {
  return parse(read('examples', example, 'dist/oom-kill-mode-agent.k8s.yaml'));
}

/** What a strategic merge patch adds to `from`. Undefined if they are equal. Items of lists have names. */
function additions(from: unknown, to: unknown): unknown {
  if (isDeepStrictEqual(from, to)) {
    return undefined;
  }
  if (Array.isArray(from) && Array.isArray(to)) {
    return (to as Fields[]).flatMap((item) => {
      const { name } = item;
      const same = (from as Fields[]).find((one) => one['name'] === name);
      const added = additions(same, item) as Fields | undefined;
      return added ? [{ name, ...added }] : [];
    });
  }
  if (from instanceof Object && to instanceof Object) {
    const fields = Object.entries(to).map(([key, value]) => [
      key,
      additions((from as Fields)[key], value),
    ]);
    return Object.fromEntries(fields.filter(([, value]) => value !== undefined));
  }
  return to;
}
