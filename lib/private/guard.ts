import { ApiObject, Chart } from 'cdk8s';
import { IConstruct } from 'constructs';
import { DEFAULT_LABEL_PREFIX, containersAnnotation, modeLabel } from './contract';
import { Mark, isMarked, policiesOf, setMark } from './marks';
import { misuse } from './misuse';
import { NodeTerms, areDisjoint } from './nodes';
import { apiGroup } from './pod-template';
import { hookRendering } from './rendering';

/** What of an agent the others need to know. */
export interface GuardedAgent extends IConstruct {
  readonly labelPrefix: string;
  readonly _nodes: NodeTerms;
  readonly _createsNamespace: boolean;
  readonly namespace: string;
}

const GUARD = Symbol.for('cdk8s-oom-kill-mode.guard');

// What has no namespace in Kubernetes, whatever its chart says.
const CLUSTER_SCOPED =
  /^(Namespace|ClusterRole|ClusterRoleBinding|PriorityClass|CustomResourceDefinition|ValidatingAdmissionPolicy|ValidatingAdmissionPolicyBinding)$/;

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
  let prefixes = new Set<string>();
  root.node.addValidation({
    validate: () => {
      const all = root.node.findAll();
      const agents = all.filter((c) => isMarked(c, 'agent')) as GuardedAgent[];
      prefixes = requirePrefixes(all, agents);
      requireNoChartLabels(all, prefixes);
      const objects = all.filter((c) => ApiObject.isApiObject(c));
      requireOwnNodes(agents);
      requireUnique(objects);
      requireOwnNamespaces(objects, agents);
      for (const object of objects) {
        hookRendering(object, () => prefixes);
      }
      return [];
    },
  });
}

/**
 * The outermost chart: an app for several clusters has a chart for each. Names, namespaces and labels
 * mean something within one.
 */
function clusterOf(construct: IConstruct): IConstruct | undefined {
  return construct.node.scopes.find((scope) => Chart.isChart(scope));
}

/** All prefixes; if there are agents, each has to be one of theirs, or what has it does nothing. */
function requirePrefixes(all: IConstruct[], agents: GuardedAgent[]): Set<string> {
  const known = new Set(agents.map((agent) => agent.labelPrefix));
  const used = all.flatMap((construct): [IConstruct, string][] => [
    ...[...policiesOf(construct).keys()].map((prefix): [IConstruct, string] => [construct, prefix]),
    ...(isMarked(construct, 'admission')
      ? [[construct, (construct as GuardedAgent).labelPrefix] as [IConstruct, string]]
      : []),
  ]);
  for (const [construct, prefix] of used) {
    if (known.size > 0 && !known.has(prefix)) {
      throw misuse(
        construct,
        `labelPrefix is ${prefix}, and no agent of this app has it`,
        `labelPrefix: ${[...known].map((one) => JSON.stringify(one)).join(' or ')}`,
      );
    }
  }
  return new Set([DEFAULT_LABEL_PREFIX, ...known, ...used.map(([, prefix]) => prefix)]);
}

function requireNoChartLabels(all: IConstruct[], prefixes: Set<string>): void {
  for (const chart of all.filter((c) => Chart.isChart(c))) {
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
function requireOwnNodes(agents: GuardedAgent[]): void {
  agents.forEach((agent, i) => {
    for (const other of agents.slice(0, i)) {
      if (
        other.labelPrefix === agent.labelPrefix &&
        clusterOf(other) === clusterOf(agent) &&
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
function requireUnique(objects: ApiObject[]): void {
  const seen = new Map<string, ApiObject>();
  for (const object of objects) {
    const { kind, name } = object;
    const namespace = CLUSTER_SCOPED.test(kind) ? undefined : object.metadata.namespace;
    const group = apiGroup(object.apiVersion);
    const key = JSON.stringify([clusterOf(object)?.node.path, group, kind, namespace, name]);
    const other = seen.get(key);
    if (other) {
      const owner = ours(object);
      throw misuse(
        owner ?? object,
        `${(ours(other) ?? other).node.path} makes the same ${kind} of this cluster (its outermost chart): ${namespace ? `${namespace}/` : ''}${name}`,
        kind === 'Namespace' && owner
          ? 'createNamespace: false or another namespace'
          : 'another name, or a chart for each cluster,',
      );
    }
    seen.set(key, object);
  }
}

/** Somebody else's Namespace of the same name, in whatever chart, would lose its labels to ours, or ours to it. */
function requireOwnNamespaces(objects: ApiObject[], agents: GuardedAgent[]): void {
  for (const agent of agents.filter((one) => one._createsNamespace)) {
    const other = objects.find(
      (object) =>
        object.kind === 'Namespace' &&
        object.name === agent.namespace &&
        !isMarked(ours(object) ?? object, 'agent'),
    );
    if (other) {
      throw misuse(
        agent,
        `${other.node.path} makes the same Namespace: ${agent.namespace}`,
        'createNamespace: false, or another namespace,',
      );
    }
  }
}

/** The construct of ours that an object belongs to. */
function ours(object: ApiObject): IConstruct | undefined {
  return object.node.scopes.find((scope) =>
    isMarked(scope, 'agent', 'admission', 'monitoring', 'deployment'),
  );
}
