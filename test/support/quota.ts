import { Manifest, PodTemplate } from './manifests';
import { isSelected } from './nodes';

// The admission plugin ResourceQuota, as far as scopes of priority classes and the count of pods go:
// https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go
// https://github.com/kubernetes/kubernetes/blob/master/pkg/quota/v1/evaluator/core/pods.go

interface Selector {
  readonly scopeName: string;
  readonly operator: string;
  readonly values?: readonly string[];
}

interface QuotaSpec {
  readonly hard: Readonly<Record<string, string>>;
  readonly scopes?: readonly string[];
  readonly scopeSelector?: { readonly matchExpressions: readonly Selector[] };
}

/** What GKE limits: the message in cilium/cilium#13852 and others prints it. */
export const GKE: readonly Selector[] = [
  {
    scopeName: 'PriorityClass',
    operator: 'In',
    values: ['system-node-critical', 'system-cluster-critical'],
  },
];

/** What GKE has in kube-system: openservicemesh/osm#4408. */
export const GKE_KUBE_SYSTEM = {
  apiVersion: 'v1',
  kind: 'ResourceQuota',
  metadata: { name: 'gcp-critical-pods', namespace: 'kube-system' },
  spec: { hard: { pods: '1G' }, scopeSelector: { matchExpressions: GKE } },
} as unknown as Manifest;

/** A namespace with its quotas, and what is used of each: pods are created and deleted in it. */
export class QuotaNamespace {
  private readonly used = new Map<Manifest, number>();

  public constructor(
    private readonly limited: readonly Selector[],
    manifests: readonly Manifest[],
    namespace: string,
  ) {
    for (const manifest of manifests) {
      if (manifest.kind === 'ResourceQuota' && manifest.metadata.namespace === namespace) {
        this.used.set(manifest, 0);
      }
    }
  }

  /** Admits a pod, and counts it, or says why not. */
  public create(pod: PodTemplate): string | undefined {
    const limited = this.limited.filter((selector) => matches(selector, pod));
    const quotas = [...this.used.keys()];
    const covered = quotas.flatMap((quota) =>
      selectors(quota).filter((selector) => matches(selector, pod)),
    );
    const uncovered = limited.filter(
      ({ scopeName }) => !covered.some((selector) => selector.scopeName === scopeName),
    );
    if (uncovered.length > 0) {
      const scopes = uncovered.map(
        ({ scopeName, operator, values = [] }) =>
          `{${scopeName} ${operator} [${values.join(' ')}]}`,
      );
      return `insufficient quota to match these scopes: [${scopes.join(' ')}]`;
    }
    const counting = quotas.filter((quota) => selectors(quota).every((one) => matches(one, pod)));
    for (const quota of counting) {
      const { hard } = quota.spec as QuotaSpec;
      const others = Object.keys(hard).filter((resource) => resource !== 'pods');
      if (others.length > 0) {
        throw new Error(`this plugin counts pods and nothing else: ${others.join(' ')}`);
      }
      const used = this.used.get(quota) ?? 0;
      const limit = hard['pods'];
      if (limit !== undefined && used + 1 > quantity(limit)) {
        return `exceeded quota: ${quota.metadata.name}, requested: pods=1, used: pods=${used}, limited: pods=${limit}`;
      }
    }
    for (const quota of counting) {
      this.used.set(quota, (this.used.get(quota) ?? 0) + 1);
    }
    return undefined;
  }

  /** How many pods the quotas have counted. */
  public counts(): Record<string, number> {
    return Object.fromEntries([...this.used].map(([quota, used]) => [quota.metadata.name, used]));
  }
}

function selectors(quota: Manifest): readonly Selector[] {
  const { scopes = [], scopeSelector } = quota.spec as QuotaSpec;
  return [
    ...scopes.map((scopeName) => ({ scopeName, operator: 'Exists' })),
    ...(scopeSelector?.matchExpressions ?? []),
  ];
}

function matches({ scopeName, ...selector }: Selector, { spec }: PodTemplate): boolean {
  if (scopeName !== 'PriorityClass') {
    throw new Error(`another scope: ${scopeName}`);
  }
  return isSelected((spec as { priorityClassName?: string }).priorityClassName, selector);
}

function quantity(text: string): number {
  const [, number, suffix = ''] = /^(\d+)([kMG]?)$/.exec(text) ?? [];
  if (number === undefined) {
    throw new Error(`no whole quantity: ${text}`);
  }
  return Number(number) * 1000 ** ['', 'k', 'M', 'G'].indexOf(suffix);
}
