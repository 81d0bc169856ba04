import { NO_VIRTUAL_NODES } from '../lib/private/virtual-nodes';
import { Node, Output, failure } from './kubectl';
import { isReady } from './pods';

/** One thing that was looked at. */
export interface Check {
  readonly name: string;
  readonly passed: boolean;
  readonly detail: string;
}

/** A check that passes without problems. */
export function check(name: string, problems: readonly string[], good: string): Check {
  return { name, passed: problems.length === 0, detail: problems.join(', ') || good };
}

/**
 * Reads `kubectl version -o json`: whether the API server is new enough, and kubectl's own warning if it is
 * far away from it. No kubelet may be newer than the server. They are asked where its version does not parse,
 * or must not be read.
 */
export function serverVersion(output: Output): { found: Check; warnings: string[] } {
  const { status, stdout, stderr } = output;
  const answered = /^Error from server|could not parse|unable to parse the server version/m;
  if (status !== 0 && !answered.test(stderr)) {
    throw failure(['version', '-o', 'json'], output);
  }
  const { serverVersion } = JSON.parse(stdout) as { serverVersion?: { gitVersion?: string } };
  const version = serverVersion?.gitVersion ?? '';
  const unknown = `the API server's version is not known ("${version}"); the kubelets' are asked for`;
  const found = check(
    'Kubernetes 1.28 or later',
    isTooOld(version) ? [version] : [],
    minorOf(version) === undefined ? unknown : version,
  );
  return { found, warnings: [...(stderr.match(/^WARNING: .*$/gm) ?? [])] };
}

/** kubelets set memory.oom.group since 1.28. */
function isTooOld(version: string): boolean {
  return (minorOf(version) ?? Infinity) < 28;
}

/** 31 of "v1.31.4+k3s1". A build without tags is v0.0.0. */
function minorOf(version: string): number | undefined {
  const [, minor] = /^v?1\.(\d+)/.exec(version) ?? [];
  return minor === undefined ? undefined : Number(minor);
}

/** The nodes that can run a herder with an agent, and what to say of them and of the others. */
export function usableNodes(nodes: readonly Node[]) {
  const notes: string[] = [];
  const usable = nodes.flatMap((node) => {
    const name = node.metadata?.name ?? '';
    const kubelet = node.status?.nodeInfo?.kubeletVersion ?? '';
    const problem = whyUnusable(node, kubelet);
    if (problem !== undefined) {
      notes.push(`${name} is left out: ${problem}`);
      return [];
    }
    if (minorOf(kubelet) === undefined) {
      notes.push(`${name}: its kubelet's version is not known ("${kubelet}")`);
    }
    const hostname = node.metadata?.labels?.['kubernetes.io/hostname'] ?? name;
    return [{ name, hostname, kubelet }];
  });
  return { usable: usable.sort((a, b) => a.name.localeCompare(b.name)), notes };
}

function whyUnusable({ metadata, status }: Node, kubelet: string): string | undefined {
  const labels = metadata?.labels ?? {};
  const isVirtual = NO_VIRTUAL_NODES.some(({ key, operator, values = [] }) => {
    const value = labels[key];
    return value !== undefined && (operator === 'DoesNotExist' || values.includes(value));
  });
  // First, because those may have any system and version.
  if (isVirtual) {
    return 'it is virtual and has no agent';
  }
  const os = labels['kubernetes.io/os'] ?? status?.nodeInfo?.operatingSystem ?? 'unknown';
  if (os !== 'linux') {
    return `its system is ${os}`;
  }
  if (!isReady({ status })) {
    return 'it is not ready';
  }
  return isTooOld(kubelet)
    ? `its kubelet is ${kubelet}, and those before 1.28 never set memory.oom.group`
    : undefined;
}
