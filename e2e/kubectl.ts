import { spawn } from 'node:child_process';
import type * as k8s from 'k8s-1.28';

/** The models of the client library, as they are in JSON. */
export type Json<T> = T extends Date
  ? string
  : T extends object
    ? { readonly [K in keyof T]: Json<T[K]> }
    : T;

export type Node = Json<k8s.V1Node>;
export type Event = Json<k8s.CoreV1Event>;
export type DaemonSetSpec = Json<k8s.V1DaemonSetSpec>;

/** An object as `kubectl -o json` prints it and `kubectl apply` reads it. */
export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
}

/** What a command left behind. */
export interface Output {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * The user's own kubectl: their cluster, their credentials, their proxy. Every command is short, because
 * the API server has 30 seconds to answer. So none has to be killed.
 */
export class Kubectl {
  public constructor(private readonly context?: string) {}

  /** Runs a command, whatever its exit status. */
  public async run(args: readonly string[], stdin = ''): Promise<Output> {
    const context = this.context === undefined ? [] : ['--context', this.context];
    // In another process group: Ctrl-C in the terminal must not end the kubectl that we clean up with.
    const child = spawn('kubectl', [...args, ...context, '--request-timeout=30s'], {
      detached: true,
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (data: string) => (stdout += data));
    child.stderr.setEncoding('utf8').on('data', (data: string) => (stderr += data));
    // A kubectl that ends before it has read everything says why.
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
  public async text(args: readonly string[], stdin?: string): Promise<string> {
    const output = await this.run(args, stdin);
    if (output.status !== 0) {
      throw failure(args, output);
    }
    return output.stdout;
  }

  /** What a `kubectl get` finds: the items of its list, one object, or nothing. */
  public async get<T>(args: readonly string[], stdin?: string): Promise<T[]> {
    const text = await this.text(['get', ...args, '-o', 'json'], stdin);
    const found = JSON.parse(text.trim() || '{"items":[]}') as { items?: T[] };
    return found.items ?? [found as T];
  }
}

/** A command that failed, in the words of kubectl. */
export function failure(args: readonly string[], { status, stderr }: Output): Error {
  return new Error(`kubectl ${args.join(' ')}: ${stderr.trim() || `exit status ${status}`}`);
}

/**
 * Objects as one document for `kubectl -f -`. Of JSON documents with `---` between them, a kubectl up to
 * 1.32 takes the first one and fails at the second.
 */
export function list(items: readonly object[]): string {
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
}

/** Does something for each of many, four at a time. */
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
