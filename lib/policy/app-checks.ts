import { Chart } from 'cdk8s';
import { IConstruct } from 'constructs';
import { DEFAULT_LABEL_PREFIX, containersAnnotation, modeLabel } from '../private/labels';
import { Json, apiGroup, dig, text } from './json';
import { roleOf } from './own-constructs';
import { usageError } from '../private/usage-error';
import { areDisjoint } from '../private/nodes';
import { hasOwn } from '../private/props';
import { Survey, Surveyed } from './survey';

// Kinds without a namespace, whatever their chart sets.
const CLUSTER_SCOPED = new Set([
  'Namespace',
  'ClusterRole',
  'ClusterRoleBinding',
  'PriorityClass',
  'CustomResourceDefinition',
  'MutatingAdmissionPolicy',
  'MutatingAdmissionPolicyBinding',
  'ValidatingAdmissionPolicy',
  'ValidatingAdmissionPolicyBinding',
]);

/** Renders an object, once in a synthesis. Returns undefined if that fails; cdk8s meets the same error later. */
export type Render = (one: Surveyed) => Json | undefined;

/** All prefixes of an app. */
export function prefixesOf(survey: Survey): Set<string> {
  return new Set([
    DEFAULT_LABEL_PREFIX,
    ...[...survey.agents.keys()].map((agent) => agent.labelPrefix),
    ...survey.uses.map(({ prefix }) => prefix),
  ]);
}

/**
 * In a cluster with agents, every prefix must be that of one of them. In other clusters, it may be that of
 * any agent.
 */
export function requirePrefixes({ agents, uses }: Survey): void {
  const all = new Set([...agents.keys()].map((agent) => agent.labelPrefix));
  if (all.size === 0) {
    return;
  }
  for (const { construct, prefix, clusters } of uses) {
    for (const cluster of clusters.size > 0 ? clusters : [undefined]) {
      const own = [...agents].filter(([, its]) => its === cluster);
      const known = own.length > 0 ? new Set(own.map(([agent]) => agent.labelPrefix)) : all;
      if (!known.has(prefix)) {
        const where =
          own.length > 0 && all.has(prefix)
            ? `the cluster of ${cluster?.node.path ?? ''}`
            : 'this app';
        throw usageError(
          construct,
          `labelPrefix is ${prefix}, but no agent of ${where} has this prefix`,
          `labelPrefix: ${[...known].map((one) => JSON.stringify(one)).join(' or ')}${where === 'this app' ? '' : ', or an outermost chart for each cluster'}`,
        );
      }
    }
  }
}

export function requireNoChartLabels(charts: readonly Chart[], prefixes: Set<string>): void {
  for (const chart of charts) {
    for (const prefix of prefixes) {
      for (const key of [modeLabel(prefix), containersAnnotation(prefix)]) {
        if (key in chart.labels) {
          throw usageError(
            chart,
            `the labels of the chart contain ${key}, but a chart labels objects, not the pods of workloads`,
            'OomKillPolicy.of(chart) instead',
          );
        }
      }
    }
  }
}

/** Two agents with one prefix on one node would fight over every file. */
export function requireOwnNodes({ agents }: Survey): void {
  const all = [...agents];
  all.forEach(([agent, cluster], i) => {
    for (const [other, its] of all.slice(0, i)) {
      if (
        other.labelPrefix === agent.labelPrefix &&
        its === cluster &&
        !areDisjoint(other._nodes, agent._nodes)
      ) {
        throw usageError(
          agent,
          `the agent ${other.node.path} has the same labelPrefix, ${agent.labelPrefix}, and may run on the same nodes of this cluster (outermost chart)`,
          'one agent, an outermost chart for each cluster, another labelPrefix, or a nodeSelector or affinity that excludes the nodes of the other agent',
        );
      }
    }
  });
}

/** Of two objects with one name the API server keeps the last. Checks only objects of this library. */
export function requireUnique({ objects }: Survey, render: Render): void {
  const seen = new Map<IConstruct, Map<string, Surveyed>>();
  for (const one of objects) {
    const manifest = one.owner && render(one);
    if (one.owner === undefined || manifest === undefined) {
      continue;
    }
    const { kind, group, name, namespace } = identity(manifest);
    const key = JSON.stringify([group, kind, namespace, name]);
    const cluster = seen.get(one.cluster) ?? new Map<string, Surveyed>();
    const other = cluster.get(key);
    if (other) {
      throw usageError(
        one.owner,
        `${(other.owner ?? other.object).node.path} already creates the ${kind} ${namespace ? `${namespace}/` : ''}${name} in this cluster (outermost chart)`,
        kind === 'Namespace'
          ? 'createNamespace: false or another namespace'
          : 'another name, or an outermost chart for each cluster',
      );
    }
    seen.set(one.cluster, cluster.set(key, one));
  }
}

function identity(manifest: Json) {
  const kind = text(manifest['kind']) ?? '';
  return {
    kind,
    group: apiGroup(text(manifest['apiVersion']) ?? ''),
    name: text(dig(manifest, ['metadata', 'name'])) ?? '',
    namespace: CLUSTER_SCOPED.has(kind)
      ? undefined
      : text(dig(manifest, ['metadata', 'namespace'])),
  };
}

const ENFORCE = 'pod-security.kubernetes.io/enforce';

/** Checks the Namespaces of agents that other constructs create. */
export function requireNamespaces({ agents, objects }: Survey, render: Render): void {
  const others =
    agents.size === 0
      ? []
      : objects.filter(
          ({ object, owner }) =>
            object.kind === 'Namespace' && !(owner && roleOf(owner) === 'agent'),
        );
  const clusters = new Set(agents.values());
  for (const one of others) {
    const manifest = render(one) ?? {};
    const { name } = identity(manifest);
    for (const [agent, cluster] of agents) {
      if (agent.namespace !== name) {
        continue;
      }
      // Whatever the charts of the two objects, one would replace the labels of the other.
      if (agent._createsNamespace) {
        throw usageError(
          agent,
          `${one.object.node.path} already creates the Namespace ${name}`,
          'createNamespace: false, or another namespace',
        );
      }
      const labels = dig(manifest, ['metadata', 'labels']);
      const level = text(dig(labels, [ENFORCE])) ?? 'privileged';
      const isHere = one.cluster === cluster || (clusters.size === 1 && !clusters.has(one.cluster));
      if (level !== 'privileged' && isHere && hasOwn(labels as Json, ENFORCE)) {
        throw usageError(
          agent,
          `${one.object.node.path} creates the Namespace ${name} with ${ENFORCE}: ${level}, which forbids the hostPath volumes of the agent`,
          `${ENFORCE}: privileged on that Namespace, or another namespace for the agent`,
        );
      }
    }
  }
}
