import { spawn } from 'node:child_process';

/** A model of the client library, as it is in JSON. */
export type Json<T> = T extends Date
  ? string
  : T extends object
    ? { readonly [K in keyof T]: Json<T[K]> }
    : T;

/** An object as `kubectl -o json` prints it and `kubectl apply` reads it. */
export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  /** Those of a ClusterRole. Ours name one resource each. */
  readonly rules?: readonly Record<'apiGroups' | 'resources' | 'verbs', readonly string[]>[];
}

/** The user's own kubectl: their cluster, their credentials, their proxy. */
export class Kubectl {
  public constructor(private readonly context?: string) {}

  /** What a command prints. It has to succeed. The API server has 30 seconds for each request. */
  public async text(args: readonly string[], stdin = ''): Promise<string> {
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
    const status = await new Promise((resolve, reject) => {
      child.on('error', () => {
        reject(new Error('kubectl is not on PATH; install it'));
      });
      child.on('close', resolve);
    });
    if (status !== 0) {
      throw new Error(`kubectl ${args.join(' ')}: ${stderr.trim()}`);
    }
    return stdout;
  }

  /** What a `kubectl get` finds: the items of its list, one object, or nothing. */
  public async get<T>(args: readonly string[], stdin?: string): Promise<T[]> {
    const text = await this.text(['get', ...args, '-o', 'json'], stdin);
    const found = JSON.parse(text.trim() || '{"items":[]}') as { items?: T[] };
    return found.items ?? [found as T];
  }

  /** The rights that the user does not have, as commands that ask for them again. */
  public async missing(rights: readonly Right[]): Promise<string[]> {
    const reviews = rights.map((resourceAttributes) => ({
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SelfSubjectAccessReview',
      spec: { resourceAttributes },
    }));
    const print = ['-o', 'jsonpath={.status.allowed}{"\\n"}'];
    const answers = (await this.text(['create', '-f', '-', ...print], list(reviews))).split('\n');
    return rights.filter((_, index) => answers[index] !== 'true').map(canI);
  }
}

function canI({ verb = '', group, resource, subresource, namespace }: Right): string {
  const what = [resource, group].filter(Boolean).join('.');
  const part = subresource === undefined ? '' : ` --subresource=${subresource}`;
  const where = namespace === undefined ? '--all-namespaces' : `--namespace ${namespace}`;
  return `kubectl auth can-i ${verb} ${what}${part} ${where}`;
}

/** A question to the API server. Without a namespace: in all of them. */
export type Right = Partial<
  Record<'verb' | 'group' | 'resource' | 'subresource' | 'namespace', string>
>;

/** What it takes to do something with objects. Who makes a ClusterRole must have all that it has. */
export function rightsTo(verbs: string[], objects: readonly KubernetesObject[]): Right[] {
  return objects.flatMap(({ apiVersion, kind, metadata: { namespace }, rules = [] }) => {
    const group = apiVersion.replace(/\/?v1$/, '');
    const resource = `${kind.toLowerCase()}s`.replace(/ys$/, 'ies');
    const granted = rules.flatMap((rule) =>
      rule.verbs.map((verb) => ({ verb, group: rule.apiGroups[0], resource: rule.resources[0] })),
    );
    return [...verbs.map((verb) => ({ verb, group, resource, namespace })), ...granted];
  });
}

/**
 * Objects as one document for `kubectl -f -`. Of JSON documents with `---` between them, a kubectl up to
 * 1.32 takes the first one and fails at the second.
 */
export function list(items: readonly object[]): string {
  return JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
}
