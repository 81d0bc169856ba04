import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Chart, Testing, Yaml } from 'cdk8s';
import type {
  V1ClusterRoleBinding,
  V1ConfigMap,
  V1DaemonSet,
  V1Deployment,
  V1Namespace,
  V1NetworkPolicy,
  V1ObjectMeta,
  V1PodTemplateSpec,
} from 'k8s-1.28';
import { parseAllDocuments } from 'yaml';
import { install } from './binaries';

export const ROOT = resolve(__dirname, '../..');

/** A type whose optional fields are all there: a test that reads one that is not fails anyway. */
type Present<T> = { [K in keyof T]-?: Present<NonNullable<T[K]>> };

export type PodTemplate = Present<V1PodTemplateSpec>;

/** A manifest of any kind. */
export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Present<V1ObjectMeta>;
  readonly [field: string]: unknown;
}

export interface Kinds {
  ClusterRoleBinding: Present<V1ClusterRoleBinding>;
  ConfigMap: Present<V1ConfigMap>;
  DaemonSet: Present<V1DaemonSet>;
  Deployment: Present<V1Deployment>;
  Namespace: Present<V1Namespace>;
  NetworkPolicy: Present<V1NetworkPolicy>;
}

/** What `kubectl` would read: the synthesized YAML, parsed. */
export function synth(chart: Chart): Manifest[] {
  return parse(synthText(chart));
}

export function synthText(chart: Chart): string {
  return Yaml.stringify(...(Testing.synth(chart) as unknown[]));
}

export function parse(text: string): Manifest[] {
  return parseAllDocuments(text).map((document) => document.toJS() as Manifest);
}

export function read(...path: string[]): string {
  return readFileSync(join(ROOT, ...path), 'utf8');
}

/** The one manifest of a kind. */
export function find<K extends keyof Kinds>(manifests: Manifest[], kind: K): Kinds[K] {
  const found = manifests.filter((manifest) => manifest.kind === kind);
  expect(found).toHaveLength(1);
  return found[0] as unknown as Kinds[K];
}

/** The pod template of a workload. */
export function template(manifest: Pick<Manifest, 'kind'>): PodTemplate {
  const path =
    manifest.kind === 'Pod'
      ? []
      : manifest.kind === 'CronJob'
        ? ['spec', 'jobTemplate', 'spec', 'template']
        : ['spec', 'template'];
  return path.reduce<unknown>(
    (value, key) => (value as Record<string, unknown>)[key],
    manifest,
  ) as PodTemplate;
}

/** The only container of a pod. */
export function container(pod: PodTemplate): PodTemplate['spec']['containers'][number] {
  const [only, ...rest] = pod.spec.containers;
  if (only === undefined || rest.length > 0) {
    throw new Error(`${pod.spec.containers.length} containers`);
  }
  return only;
}

/** Each of the wrong options is refused with the same message and with a remedy. */
export function expectRefusals(
  make: (props: never) => unknown,
  message: string,
  wrong: readonly unknown[],
): void {
  for (const props of wrong) {
    const refused = () => make(props as never);
    expect(refused).toThrow(message);
    expect(refused).toThrow(/\. Write .*\.$/);
  }
}

export function chart(namespace?: string): Chart {
  return new Chart(Testing.app(), 'test', { namespace });
}

export function temporary(name: string, content: string, mode?: number): string {
  const path = join(mkdtempSync(join(tmpdir(), 'oom-kill-mode-')), name);
  writeFileSync(path, content, { mode });
  return path;
}

export interface AppRun {
  readonly status: number | null;
  readonly stderr: string;
  readonly files: Record<string, string>;
}

/** Runs an app as `cdk8s synth` does, into a fresh directory. */
export function runApp(directory: string, env: Record<string, string> = {}): AppRun {
  const outdir = mkdtempSync(join(tmpdir(), 'oom-kill-mode-'));
  const { status, stderr } = spawnSync(
    process.execPath,
    ['-r', 'ts-node/register/transpile-only', 'main.ts'],
    {
      cwd: join(ROOT, directory),
      encoding: 'utf8',
      env: { PATH: process.env['PATH'], HOME: tmpdir(), CDK8S_OUTDIR: outdir, ...env },
    },
  );
  const files = Object.fromEntries(
    readdirSync(outdir).map((file) => [file, readFileSync(join(outdir, file), 'utf8')]),
  );
  return { status, stderr, files };
}

/** A function that computes its result once for each key. */
export function memoized<T>(f: (key: string) => T): (key: string) => T {
  const known = new Map<string, T>();
  return (key) => {
    const value = known.get(key) ?? f(key);
    known.set(key, value);
    return value;
  };
}

export function byName(manifests: Manifest[]): Record<string, Manifest> {
  return Object.fromEntries(manifests.map((m) => [`${m.kind} ${m.metadata.name}`, m]));
}

/** What the real kustomize makes of a directory or an address. */
export function kustomize(source: string): Manifest[] {
  const kubectl = join(install('kubectl'), 'kubectl');
  return parse(execFileSync(kubectl, ['kustomize', source], { encoding: 'utf8' }));
}
