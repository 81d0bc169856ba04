import { ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

import { Node } from '../../e2e/kubectl';
import { Report } from '../../e2e/report';
import { ROOT, parse, read } from './manifests';
import { install } from './binaries';
import { ClusterServer, Situation, node } from './cluster-server';

// Complete runs of the script, with a real kubectl, against a stand-in that plays a small cluster.

export interface Result {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly server: ClusterServer;
}

const servers: ClusterServer[] = [];
const directories: string[] = [];
const children: ChildProcess[] = [];

afterEach(() => {
  servers.splice(0).forEach((server) => {
    server.stop();
  });
  children.splice(0).forEach((child) => child.kill('SIGKILL'));
  directories.splice(0).forEach((directory) => {
    rmSync(directory, { recursive: true });
  });
});

/** A node of the stand-in, which has no kubelets, with the version of one. */
export function nodeOf(name: string, { ready = true, kubeletVersion = 'v1.34.1' } = {}): Node {
  const { status, ...rest } = node(name, ready);
  const nodeInfo = { kubeletVersion } as NonNullable<Node['status']>['nodeInfo'];
  return { ...rest, status: { ...status, nodeInfo } };
}

export async function play(situation?: Situation): Promise<ClusterServer> {
  const nodes = [nodeOf('worker-1'), nodeOf('worker-2')];
  const server = await ClusterServer.play({ nodes, ...situation });
  servers.push(server);
  return server;
}

/** What somebody else has installed before: of dist/, the namespace, and the agent or not. */
export function installAgent(server: ClusterServer, kinds = ['Namespace', 'DaemonSet']): void {
  const paths: Record<string, string> = {
    Namespace: '/api/v1/namespaces',
    DaemonSet: '/apis/apps/v1/namespaces/{namespace}/daemonsets',
  };
  for (const manifest of parse(read('dist', 'herder.k8s.yaml'))) {
    const path = paths[manifest.kind];
    if (path !== undefined && kinds.includes(manifest.kind)) {
      server.install(path, manifest);
    }
  }
}

/** Starts the script; `react` is told everything that it prints meanwhile. */
export async function start(
  server: ClusterServer,
  args: string[],
  options: {
    command?: string[];
    /** The version of kubectl, instead of the newest. */
    kubectl?: string;
    path?: string;
    react?: (stderr: string, pid: number) => void;
  } = {},
): Promise<Result> {
  const home = mkdtempSync(join(tmpdir(), 'oom-kill-mode-'));
  directories.push(home);
  writeFileSync(join(home, 'config'), server.kubeconfig);
  const script = [process.execPath, '-r', 'ts-node/register/transpile-only', 'e2e/main.ts'];
  const [program = '', ...rest] = options.command ?? script;
  const path =
    options.path ??
    `${install('kubectl', options.kubectl)}${delimiter}${process.env['PATH'] ?? ''}`;
  const child = spawn(program, [...rest, ...args], {
    cwd: ROOT,
    env: { PATH: path, HOME: home, KUBECONFIG: join(home, 'config') },
    // As a shell does with what it runs in the foreground of a terminal.
    detached: true,
  });
  children.push(child);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
  child.stderr.on('data', (data: Buffer) => {
    stderr += data.toString();
    options.react?.(stderr, child.pid ?? 0);
  });
  const status = await new Promise<number | null>((done) => child.on('close', done));
  return { status, stdout, stderr, server };
}

/** Runs the script to its end, in a cluster of this kind. */
export async function run(
  situation: Situation,
  ...args: string[]
): Promise<Result & { report: Report }> {
  return runIn(await play(situation), undefined, ...args);
}

/** The same in a cluster that is there, with a kubectl of that version. */
export async function runIn(
  server: ClusterServer,
  kubectl: string | undefined,
  ...args: string[]
): Promise<Result & { report: Report }> {
  const result = await start(server, ['--duration', '3', '--json', ...args], { kubectl });
  try {
    return { ...result, report: JSON.parse(result.stdout) as Report };
  } catch {
    throw new Error(`no report:\n${result.stdout}\n${result.stderr}`);
  }
}

/** What a run checks, in order. */
export const CHECKS = [
  'Kubernetes 1.28 or later',
  'permission to look around',
  'nodes',
  'permission to install the agent',
  'permission to run pods',
  'the agent is ready on each node',
  'cgroup v2',
  'herder, twin and probe have started',
  'Single at the first instruction',
  'one herder on each node',
  'no pod over 250m CPU and 256Mi',
  'no herder restarted',
  'every herder survived an OOM kill',
  'the twin without the label is killed and restarted',
  'cleaned up',
];

/** What has failed, and why. */
export function failed(report: Report): Record<string, string> {
  return Object.fromEntries(
    report.checks.filter(({ passed }) => !passed).map(({ name, detail }) => [name, detail]),
  );
}
