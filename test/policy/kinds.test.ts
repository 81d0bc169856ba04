import { ApiObject, ApiObjectProps } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { parse as parseYaml } from 'yaml';
import { OomKillPolicy } from '../../lib';
import { KNOWN_KINDS } from '../../lib/policy/known-kinds';
import { apiGroup, dig } from '../../lib/policy/json';
import { kindsTable } from '../../scripts/kinds-page';
import { Manifest, chart, read, synth, synthText } from '../support/manifests';

const LABEL = 'cdk8s-oom-kill-mode/mode';

interface Case extends ApiObjectProps {
  readonly reached?: string[];
  readonly error?: string;
  readonly at?: string;
  readonly entry?: string;
}

// Anchors are read as copies, so that what is written in one manifest is not in the next.
const CASES = JSON.parse(
  JSON.stringify(parseYaml(read('test/policy/kinds.yaml'), { maxAliasCount: -1 })),
) as Record<'known' | 'untouched' | 'unknown', Case[]>;

/** The YAML of the object beside a Deployment, with a policy on the chart or without one. */
function yaml(
  one: Case,
  use?: (object: ApiObject) => OomKillPolicy,
): { text: string; manifests: Manifest[] } {
  const manifest = Object.fromEntries(
    Object.entries(one).filter(([key]) => !['reached', 'error', 'at', 'entry'].includes(key)),
  ) as unknown as ApiObjectProps;
  const scope = chart();
  const object = new ApiObject(scope, 'x', manifest);
  new kplus.Deployment(scope, 'web', { containers: [{ name: 'main', image: 'example.com/a:1' }] });
  use?.(object);
  const text = synthText(scope);
  return { text: text.split('---\n')[0] ?? '', manifests: synth(scope) };
}

/** Every place that has the label. */
function labelled(value: unknown, path = ''): string[] {
  if (typeof value !== 'object' || value === null) {
    return [];
  }
  const own = dig(value, ['labels', LABEL]) === 'Single' ? [path] : [];
  return [
    ...own,
    ...Object.entries(value).flatMap(([key, child]) => labelled(child, `${path}/${key}`)),
  ];
}

/** Without the label, and what is empty without it. */
function pruned(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return Array.isArray(value) ? value.map(pruned) : value;
  }
  const entries = Object.entries(value)
    .filter(([key]) => key !== LABEL)
    .map(([key, child]): [string, unknown] => [key, pruned(child)]);
  const left = entries.filter(([, child]) => child !== undefined);
  return left.length > 0 ? Object.fromEntries(left) : undefined;
}

const titled = (cases: Case[]) =>
  cases.map((one): [string, Case] => [`${one.apiVersion} ${one.kind}`, one]);

test.each(titled(CASES.known.filter(({ reached }) => reached)))('%s is reached', (_, one) => {
  const { manifests } = yaml(one, (object) => OomKillPolicy.of(object.node.root).single());
  expect(labelled(manifests[0]).sort()).toEqual([...(one.reached ?? [])].sort());
  expect(pruned(manifests[0])).toEqual(pruned(yaml(one).manifests[0]));
});

test.each(titled(CASES.known.filter(({ error }) => error)))('%s cannot be reached', (_, one) => {
  const single = (object: ApiObject) => OomKillPolicy.of(object.node.root).single();
  expect(() => yaml(one, single)).toThrow(`[test/x] ${one.apiVersion} ${one.error}`);
  const { text } = yaml(one, (object) => {
    single(object);
    return OomKillPolicy.of(object).none();
  });
  expect(text).toBe(yaml(one).text);
});

test('labels that an operator is configured to hand on can be told to a policy', () => {
  const postgresql = CASES.known.find(({ kind }) => kind === 'postgresql') as Case;
  const workloadKinds = [
    { apiGroup: 'acid.zalan.do', kind: 'postgresql', podMetadata: ['/metadata'] },
  ];
  const { manifests } = yaml(postgresql, (object) =>
    OomKillPolicy.of(object.node.root, { workloadKinds }).single(),
  );
  expect(labelled(manifests[0])).toEqual(['/metadata']);
});

test.each(titled(CASES.untouched))('%s is left alone', (_, one) => {
  const { text, manifests } = yaml(one, (object) => OomKillPolicy.of(object.node.root).single());
  expect(text).toBe(yaml(one).text);
  expect(labelled(manifests[1])).toEqual(['/spec/template/metadata']);
});

test.each(titled(CASES.unknown))('%s is not guessed at', (_, one) => {
  const single = (object: ApiObject) => OomKillPolicy.of(object.node.root).single();
  const start = `workloadKinds: [{ apiGroup: "${apiGroup(one.apiVersion)}", kind: "${one.kind}"`;
  expect(() => yaml(one, single)).toThrow(
    `[test/x] ${one.apiVersion} ${one.kind} is an unknown kind, but ${one.at} looks like the template of a pod. Write ${start}, ${one.entry} }], or ${start}, skipped: true }], in`,
  );
  // What is to be pasted does what it says.
  const pointers = /\[(.*)\]/.exec(one.entry ?? '')?.[1] ?? '';
  const podTemplates = JSON.parse(`[${pointers}]`) as string[];
  const kind = { apiGroup: apiGroup(one.apiVersion), kind: one.kind };
  const reached = yaml(one, (object) =>
    OomKillPolicy.of(object.node.root, { workloadKinds: [{ ...kind, podTemplates }] }).single(),
  );
  expect(labelled(reached.manifests[0]).length).toBeGreaterThan(0);
  const skipped = yaml(one, (object) =>
    OomKillPolicy.of(object.node.root, { workloadKinds: [{ ...kind, skipped: true }] }).single(),
  );
  expect(skipped.text).toBe(yaml(one).text);
});

test('every kind of the table has a manifest, and a source', () => {
  const name = (one: Case) => `${apiGroup(one.apiVersion)} ${one.kind}`;
  const tested = new Set(CASES.known.map(name));
  expect(
    KNOWN_KINDS.map((one) => `${one.apiGroup} ${one.kind}`).filter((one) => !tested.has(one)),
  ).toEqual([]);
  expect(KNOWN_KINDS.filter(({ source }) => !source.startsWith('https://'))).toEqual([]);
});

test('docs/kinds.md has the table of kinds', () => {
  expect(read('docs/kinds.md')).toContain(kindsTable());
});
