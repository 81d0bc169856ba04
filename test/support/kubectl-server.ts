import { createServer, IncomingMessage, Server, ServerResponse } from 'node:http';
import { AddressInfo } from 'node:net';

export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
}

/** A request, and the status and body to answer it with. */
export interface ApiRequest {
  readonly method: string;
  readonly url: URL;
  readonly body: Buffer;
}
export type Answer = [status: number, body: object | string];

interface Resource {
  readonly kind: string;
  readonly name: string;
  readonly namespaced: boolean;
}

/** The kinds that the manifests use; anything else is unknown here. */
const GROUPS: Record<string, Resource[]> = {
  v1: [
    { kind: 'Namespace', name: 'namespaces', namespaced: false },
    { kind: 'Node', name: 'nodes', namespaced: false },
    { kind: 'Pod', name: 'pods', namespaced: true },
    { kind: 'Event', name: 'events', namespaced: true },
    { kind: 'ServiceAccount', name: 'serviceaccounts', namespaced: true },
    { kind: 'ConfigMap', name: 'configmaps', namespaced: true },
    { kind: 'PersistentVolumeClaim', name: 'persistentvolumeclaims', namespaced: true },
    { kind: 'Secret', name: 'secrets', namespaced: true },
    { kind: 'Service', name: 'services', namespaced: true },
    { kind: 'ResourceQuota', name: 'resourcequotas', namespaced: true },
  ],
  'apps/v1': [
    { kind: 'DaemonSet', name: 'daemonsets', namespaced: true },
    { kind: 'Deployment', name: 'deployments', namespaced: true },
    { kind: 'StatefulSet', name: 'statefulsets', namespaced: true },
  ],
  'batch/v1': [{ kind: 'Job', name: 'jobs', namespaced: true }],
  'rbac.authorization.k8s.io/v1': [
    { kind: 'ClusterRole', name: 'clusterroles', namespaced: false },
    { kind: 'ClusterRoleBinding', name: 'clusterrolebindings', namespaced: false },
  ],
  'authorization.k8s.io/v1': [
    { kind: 'SelfSubjectAccessReview', name: 'selfsubjectaccessreviews', namespaced: false },
  ],
  'admissionregistration.k8s.io/v1': [
    {
      kind: 'MutatingAdmissionPolicy',
      name: 'mutatingadmissionpolicies',
      namespaced: false,
    },
    {
      kind: 'MutatingAdmissionPolicyBinding',
      name: 'mutatingadmissionpolicybindings',
      namespaced: false,
    },
  ],
  'monitoring.coreos.com/v1': [
    { kind: 'PodMonitor', name: 'podmonitors', namespaced: true },
    { kind: 'PrometheusRule', name: 'prometheusrules', namespaced: true },
  ],
  'networking.k8s.io/v1': [{ kind: 'NetworkPolicy', name: 'networkpolicies', namespaced: true }],
  'security.openshift.io/v1': [
    {
      kind: 'SecurityContextConstraints',
      name: 'securitycontextconstraints',
      namespaced: false,
    },
  ],
};

/**
 * As much of an API server as `kubectl apply` needs: discovery, and objects that can be created once
 * their namespace exists.
 */
export class KubectlServer {
  public static async start(): Promise<KubectlServer> {
    return new KubectlServer(await KubectlServer.listen());
  }

  protected static async listen(): Promise<Server> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  /** What was created, as "Kind namespace/name" or "Kind name", in order. */
  public readonly created: string[] = [];

  private readonly paths = new Set<string>();

  private readonly port: number;

  protected constructor(private readonly server: Server) {
    this.port = (server.address() as AddressInfo).port;
    server.on('request', (request: IncomingMessage, response: ServerResponse) => {
      const chunks: Buffer[] = [];
      request.on('data', (data: Buffer) => chunks.push(data));
      request.on('end', () => {
        const body = Buffer.concat(chunks);
        const url = new URL(request.url ?? '/', 'http://api');
        const [status, answer] = this.answer({ method: request.method ?? 'GET', url, body });
        const text = typeof answer === 'string';
        response.writeHead(status, { 'content-type': text ? 'text/plain' : 'application/json' });
        response.end(text ? answer : JSON.stringify(answer));
      });
    });
  }

  /** A kubeconfig that leads here. */
  public get kubeconfig(): string {
    return JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'test', cluster: { server: `http://127.0.0.1:${this.port}` } }],
      contexts: [{ name: 'test', context: { cluster: 'test', user: '' } }],
      'current-context': 'test',
    });
  }

  public stop(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  protected answer({ method, url, body }: ApiRequest): Answer {
    return method === 'POST' ? this.create(url.pathname, body) : this.read(url.pathname);
  }

  private create(path: string, body: Buffer): Answer {
    const manifest = JSON.parse(body.toString()) as Manifest;
    const { kind, metadata } = manifest;
    if (metadata.namespace && !this.hasNamespace(metadata.namespace)) {
      return notFound(`namespaces "${metadata.namespace}" not found`);
    }
    this.paths.add(`${path}/${metadata.name}`);
    const place = metadata.namespace ? `${metadata.namespace}/` : '';
    this.created.push(`${kind} ${place}${metadata.name}`);
    return [201, manifest];
  }

  private hasNamespace(name: string): boolean {
    return name === 'default' || this.paths.has(`/api/v1/namespaces/${name}`);
  }

  private read(path: string): Answer {
    const group = Object.keys(GROUPS).find((name) => path === root(name));
    if (path === '/api') {
      return [200, { kind: 'APIVersions', versions: ['v1'] }];
    }
    if (path === '/apis') {
      return [200, { kind: 'APIGroupList', apiVersion: 'v1', groups: groups() }];
    }
    if (group) {
      return [200, resourceList(group)];
    }
    // For a kubectl 1.28, and for a kind: List, which every kubectl checks itself: a document with no
    // types in it, in protobuf, so that nothing is checked.
    if (path === '/openapi/v2') {
      return [200, ''];
    }
    if (path === '/openapi/v3') {
      return [200, { paths: openApiIndex() }];
    }
    if (path.startsWith('/openapi/v3')) {
      return [200, openApi(path.slice('/openapi/v3'.length))];
    }
    return notFound(`${path} not found`);
  }
}

function root(group: string): string {
  return group === 'v1' ? '/api/v1' : `/apis/${group}`;
}

export function notFound(message: string): Answer {
  return failure(404, 'NotFound', message);
}

export function forbidden(message: string): Answer {
  return failure(403, 'Forbidden', message);
}

function failure(code: number, reason: string, message: string): Answer {
  return [code, { kind: 'Status', apiVersion: 'v1', status: 'Failure', reason, message, code }];
}

function groups(): object[] {
  return Object.keys(GROUPS)
    .filter((group) => group !== 'v1')
    .map((groupVersion) => {
      const [name, version] = groupVersion.split('/');
      return {
        name,
        versions: [{ groupVersion, version }],
        preferredVersion: { groupVersion, version },
      };
    });
}

function resourceList(groupVersion: string): object {
  const resources = (GROUPS[groupVersion] ?? []).map((resource) => ({
    ...resource,
    singularName: resource.kind.toLowerCase(),
    verbs: ['create', 'delete', 'get', 'list', 'patch', 'watch'],
  }));
  return { kind: 'APIResourceList', apiVersion: 'v1', groupVersion, resources };
}

function openApiIndex(): object {
  return Object.fromEntries(
    Object.keys(GROUPS).map((group) => [
      root(group).slice(1),
      { serverRelativeURL: `/openapi/v3${root(group)}` },
    ]),
  );
}

/** Says that the server validates the fields itself, which is all that kubectl asks of it. */
function openApi(path: string): object {
  const groupVersion = Object.keys(GROUPS).find((group) => root(group) === path) ?? '';
  const [version = '', group = ''] = groupVersion.split('/').reverse();
  const paths = (GROUPS[groupVersion] ?? []).map(({ kind, name, namespaced }) => [
    `${path}${namespaced ? '/namespaces/{namespace}' : ''}/${name}/{name}`,
    {
      patch: {
        'x-kubernetes-group-version-kind': { group, version, kind },
        parameters: [{ name: 'fieldValidation', in: 'query' }],
        responses: {},
      },
    },
  ]);
  return {
    openapi: '3.0.0',
    info: { title: 'test', version: '1' },
    paths: Object.fromEntries(paths) as object,
  };
}
