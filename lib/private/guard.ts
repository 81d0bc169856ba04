import { ApiObject, Chart } from 'cdk8s';
import { IConstruct } from 'constructs';
import { DEFAULT_LABEL_PREFIX, containersAnnotation, modeLabel } from './contract';
import { Mark, markOf, policiesOf, setMark } from './marks';
import { misuse } from './misuse';
import { NodeTerms, areDisjoint } from './nodes';
import { apiGroup } from './pod-template';
import { Policies, hookRendering } from './rendering';

/** What of an agent the others need to know. */
export interface GuardedAgent extends IConstruct {
  readonly labelPrefix: string;
  readonly _nodes: NodeTerms;
  readonly _createsNamespace: boolean;
  readonly namespace: string;
}

interface GuardedMonitoring extends IConstruct {
  readonly _agent: IConstruct;
}

const GUARD = Symbol.for('cdk8s-oom-kill-mode.guard');

// What has no namespace in Kubernetes, whatever its chart says.
const CLUSTER_SCOPED = new Set([
  'Namespace',
  'ClusterRole',
  'ClusterRoleBinding',
  'PriorityClass',
  'CustomResourceDefinition',
  'ValidatingAdmissionPolicy',
  'ValidatingAdmissionPolicyBinding',
]);

/** Makes a construct one of ours, and its app one whose objects are looked at. */
export function guard(construct: IConstruct, mark: Mark): void {
  setMark(construct, mark);
  guardApp(construct);
}

/** Looks at all objects of an app at once, at every synthesis, whatever the number of our constructs in it. */
export function guardApp(construct: IConstruct): void {
  const { root } = construct.node;
  if (GUARD in root) {
    return;
  }
  Object.defineProperty(root, GUARD, { value: true });
  root.node.addValidation({
    validate: () => {
      const app = new Survey(root);
      const prefixes = requirePrefixes(app);
      requireNoChartLabels(app.charts, prefixes);
      requireOwnNodes(app);
      requireOwnNamespaces(app);
      for (const cluster of app.clusters.values()) {
        requireUnique(cluster);
      }
      for (const [object, policies] of app.pods) {
        hookRendering(object, policies, prefixes);
      }
      return [];
    },
  });
}

/** All that is in an app, in one walk. */
class Survey {
  /** The objects that may make pods, and the policies above each. */
  public readonly pods = new Map<ApiObject, Policies>();

  /**
   * The objects of each outermost chart: an app for several clusters has a chart for each. Names,
   * namespaces and labels mean something within one.
   */
  public readonly clusters = new Map<IConstruct, Owned[]>();

  public readonly agents = new Map<GuardedAgent, Owned[]>();
  public readonly charts: Chart[] = [];

  /** Every use of a prefix by something that an agent is to obey. */
  public readonly uses: [IConstruct, string][] = [];

  public constructor(root: IConstruct) {
    this.visit(root, { policies: new Map() });
  }

  private visit(construct: IConstruct, above: Above): void {
    let { cluster, policies, owner } = above;
    if (Chart.isChart(construct)) {
      this.charts.push(construct);
      cluster ??= this.clusterOf(construct);
    }
    const own = policiesOf(construct);
    if (own) {
      policies &&= new Map(policies);
      for (const [prefix, policy] of own) {
        policy._forget();
        policies?.set(prefix, [policy, ...(policies.get(prefix) ?? [])]);
        this.uses.push([construct, prefix]);
      }
    }
    const mark = markOf(construct);
    if (mark !== undefined) {
      owner ??= construct;
      if (mark === 'agent') {
        this.agents.set(construct as GuardedAgent, cluster ?? []);
        // Nobody opts in the pods of an agent.
        policies = undefined;
      } else if (mark === 'drop-in') {
        policies = undefined;
      } else if (mark === 'monitoring') {
        // Wherever it is written down, it is where its agent is.
        cluster = this.clusterOf((construct as GuardedMonitoring)._agent);
      } else if (mark === 'admission') {
        this.uses.push([construct, (construct as GuardedAgent).labelPrefix]);
      }
    }
    if (ApiObject.isApiObject(construct)) {
      cluster?.push({ object: construct, owner });
      if (policies) {
        this.pods.set(construct, policies);
        for (const [nearest, ...others] of policies.values()) {
          nearest._reach(construct, true);
          others.forEach((policy) => {
            policy._reach(construct, false);
          });
        }
      }
    }
    for (const child of construct.node.children) {
      this.visit(child, { cluster, policies, owner });
    }
  }

  private clusterOf(construct: IConstruct): Owned[] {
    const chart = construct.node.scopes.find((scope) => Chart.isChart(scope)) ?? construct;
    const cluster = this.clusters.get(chart) ?? [];
    this.clusters.set(chart, cluster);
    return cluster;
  }
}

/** An object, and the construct of ours that it belongs to. */
interface Owned {
  readonly object: ApiObject;
  readonly owner?: IConstruct;
}

interface Above {
  readonly cluster?: Owned[];
  readonly policies?: Policies;
  readonly owner?: IConstruct;
}

/** All prefixes; if there are agents, each has to be one of theirs, or what has it does nothing. */
function requirePrefixes({ agents, uses }: Survey): Set<string> {
  const known = new Set([...agents.keys()].map((agent) => agent.labelPrefix));
  for (const [construct, prefix] of uses) {
    if (known.size > 0 && !known.has(prefix)) {
      throw misuse(
        construct,
        `labelPrefix is ${prefix}, and no agent of this app has it`,
        `labelPrefix: ${[...known].map((one) => JSON.stringify(one)).join(' or ')}`,
      );
    }
  }
  return new Set([DEFAULT_LABEL_PREFIX, ...known, ...uses.map(([, prefix]) => prefix)]);
}

function requireNoChartLabels(charts: Chart[], prefixes: Set<string>): void {
  for (const chart of charts) {
    for (const prefix of prefixes) {
      for (const key of [modeLabel(prefix), containersAnnotation(prefix)]) {
        if (key in chart.labels) {
          throw misuse(
            chart,
            `the labels of the chart have ${key}, and a chart labels objects, not the pods of workloads`,
            'OomKillPolicy.of() of the chart',
          );
        }
      }
    }
  }
}

/** Two agents with one prefix on one node would fight over every file. */
function requireOwnNodes({ agents }: Survey): void {
  const all = [...agents];
  all.forEach(([agent, cluster], i) => {
    for (const [other, its] of all.slice(0, i)) {
      if (
        other.labelPrefix === agent.labelPrefix &&
        its === cluster &&
        !areDisjoint(other._nodes, agent._nodes)
      ) {
        throw misuse(
          agent,
          `${other.node.path} is an agent with the same labelPrefix, ${agent.labelPrefix}, perhaps on the same nodes of this cluster (its outermost chart)`,
          'one agent, a chart for each cluster, two prefixes, or a nodeSelector or affinity that shares no node with the other,',
        );
      }
    }
  });
}

/** Of two objects with one name the API server keeps the last. */
function requireUnique(cluster: Owned[]): void {
  const seen = new Map<string, Owned>();
  for (const one of cluster) {
    const { object, owner } = one;
    const { kind, name } = object;
    const namespace = CLUSTER_SCOPED.has(kind) ? undefined : object.metadata.namespace;
    const key = `${apiGroup(object.apiVersion)} ${kind} ${namespace} ${name}`;
    const other = seen.get(key);
    if (other) {
      throw misuse(
        owner ?? object,
        `${(other.owner ?? other.object).node.path} makes the same ${kind} of this cluster (its outermost chart): ${namespace ? `${namespace}/` : ''}${name}`,
        kind === 'Namespace' && owner
          ? 'createNamespace: false or another namespace'
          : 'another name, or a chart for each cluster,',
      );
    }
    seen.set(key, one);
  }
}

/** Somebody else's Namespace of the same name, in whatever chart, would lose its labels to ours, or ours to it. */
function requireOwnNamespaces({ agents, clusters }: Survey): void {
  const others = [...clusters.values()]
    .flat()
    .filter(
      ({ object, owner }) => object.kind === 'Namespace' && !(owner && markOf(owner) === 'agent'),
    );
  for (const agent of agents.keys()) {
    const other = others.find(({ object }) => object.name === agent.namespace);
    if (other && agent._createsNamespace) {
      throw misuse(
        agent,
        `${other.object.node.path} makes the same Namespace: ${agent.namespace}`,
        'createNamespace: false, or another namespace,',
      );
    }
  }
}
