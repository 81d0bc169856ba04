import { Check, check } from './checks';
import { DaemonSetSpec, KubernetesObject } from './kubectl';

/** The agent of a cluster: where to find its pods, and what to write on ours. */
export interface Agent {
  readonly namespace: string;
  readonly name: string;
  readonly selector: string;
  readonly labelPrefix: string;
  readonly image: string;
}

/** Reads an agent's DaemonSet, whether from dist/ or from the cluster. */
export function readAgent(daemonSet?: KubernetesObject): Agent {
  const { name = '', namespace } = daemonSet?.metadata ?? {};
  const { spec } = (daemonSet ?? {}) as { spec?: DaemonSetSpec };
  const container = spec?.template.spec?.containers.find((one) => one.name === 'agent');
  const labelPrefix = container?.env?.find((one) => one.name === 'LABEL_PREFIX')?.value;
  if (namespace === undefined || !container?.image || !labelPrefix) {
    throw new Error(`DaemonSet ${name} is not an agent of cdk8s-oom-kill-mode`);
  }
  const labels = Object.entries(spec?.selector.matchLabels ?? {});
  const selector = labels.map(([key, value]) => `${key}=${value}`).join(',');
  return { namespace, name, selector, labelPrefix, image: container.image };
}

/** What an agent said of its node. */
export interface AgentLog {
  readonly node: string;
  /** What containers without the label have: "0" or "1". Not in a log that was rotated. */
  readonly nodeValue?: string;
  readonly cgroupV1: boolean;
  /** Survived kills by "namespace/pod container". */
  readonly kills: ReadonlyMap<string, number>;
  readonly warnings: readonly string[];
}

/** Reads `kubectl logs` of an agent: one JSON object a line, by its keys. The texts are free to change. */
export function readAgentLog(node: string, text: string): AgentLog {
  let nodeValue: string | undefined;
  let cgroupV1 = false;
  const kills = new Map<string, number>();
  const warnings = new Set<string>();
  // The shell's complaints are no JSON.
  for (const line of text.split('\n').filter((one) => /^\{.*\}$/.test(one))) {
    const values = JSON.parse(line) as Record<string, string | undefined>;
    const { level, msg = '', condition, pod, container = '', total } = values;
    nodeValue = values['nodeValue'] ?? nodeValue;
    cgroupV1 ||= condition === 'cgroup_v1';
    if (pod !== undefined && total !== undefined && values['kills'] !== undefined) {
      kills.set(`${pod} ${container}`, Number(total));
    } else if (level === 'warn' || level === 'error') {
      warnings.add(`${node}: ${pod === undefined ? '' : `${pod}: `}${msg}`);
    }
  }
  return { node, nodeValue, cgroupV1, kills, warnings: [...warnings] };
}

/** Whether there is anything to choose on these nodes. */
export function cgroupV2(logs: readonly AgentLog[]): Check {
  const old = logs.filter((log) => log.cgroupV1).map(({ node }) => node);
  const told = logs.filter((log) => log.nodeValue !== undefined).length;
  return check(
    'cgroup v2',
    old.length > 0 ? [`cgroup v1, where there is nothing to choose, on ${old.join(', ')}`] : [],
    `the agents say so on ${told} of ${logs.length} nodes`,
  );
}
