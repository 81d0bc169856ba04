import { spawn } from 'node:child_process';
import type * as k8s from 'k8s-1.28';

/** The models of the client library, as they are in JSON. */
type Json<T> = T extends Date
  ? string
  : T extends object
    ? { readonly [K in keyof T]: Json<T[K]> }
    : T;

export type Pod = Json<k8s.V1Pod>;
export type Container = Json<k8s.V1Container>;
export type ContainerStatus = Json<k8s.V1ContainerStatus>;
export type Node = Json<k8s.V1Node>;
export type Event = Json<k8s.CoreV1Event>;
export type DaemonSetSpec = Json<k8s.V1DaemonSetSpec>;
export type PodTemplate = Json<k8s.V1PodTemplateSpec>;

/** An object as `kubectl -o json` prints it and `kubectl apply` reads it. */
export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
  };
}

/** What a command left behind. */
export interface Output {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * The user's own kubectl: their cluster, their credentials, their proxy. Every
 * command is short, since the API server has 30 seconds to answer, so that none has
 * to be killed half way.
 */
export class Kubectl {
  public constructor(private readonly context?: string) {}

  /** Runs a command, whatever its exit status. */
  public async run(args: string[], stdin = ''): Promise<Output> {
    const context = this.context === undefined ? [] : ['--context', this.context];
    const child = spawn('kubectl', [...args, ...context, '--request-timeout=30s'], {
      // A process group of its own: Ctrl-C in the terminal is for us, who clean up with kubectl.
      detached: true,
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (data: string) => (stdout += data));
    child.stderr.setEncoding('utf8').on('data', (data: string) => (stderr += data));
    // A kubectl that ends before it has read everything says why on its own.
    child.stdin.on('error', () => undefined).end(stdin);
    return new Promise((resolve, reject) => {
      child.on('error', (error: NodeJS.ErrnoException) => {
        reject(error.code === 'ENOENT' ? new Error('kubectl is not on PATH; install it') : error);
      });
      child.on('close', (code) => {
        resolve({ status: code ?? 1, stdout, stderr });
      });
    });
  }

  /** Runs a command that has to succeed, and returns what it prints. */
  public async text(args: string[], stdin?: string): Promise<string> {
    const { status, stdout, stderr } = await this.run(args, stdin);
    if (status !== 0) {
      throw new Error(`kubectl ${args.join(' ')}: ${stderr.trim() || `exit status ${status}`}`);
    }
    return stdout;
  }

  /** What a `kubectl get` finds: the items of its list, one object, or nothing. */
  public async get<T>(args: string[], stdin?: string): Promise<T[]> {
    const text = await this.text(['get', ...args, '-o', 'json'], stdin);
    if (text.trim() === '') {
      return [];
    }
    const found = JSON.parse(text) as { kind: string; items?: T[] };
    return found.items ?? [found as T];
  }
}

/**
 * Objects as one document for `kubectl -f -`. Of JSON documents with `---` between them, a kubectl up to
 * 1.32 takes the first one and fails at the second.
 */
export function list(items: readonly KubernetesObject[]): string {
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
}

/** Does something for each of many, four at a time: every kubectl is a process, say. */
export async function each<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const queue = [...items.entries()];
  const worker = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      results[next[0]] = await work(next[1]);
    }
  };
  await Promise.all([worker(), worker(), worker(), worker()]);
  return results;
}
