import { IConstruct } from 'constructs';
import { usageError } from './usage-error';
import { isDnsSubdomain } from './validation';

/** The default prefix of the agent and the policies. */
export const DEFAULT_LABEL_PREFIX = 'cdk8s-oom-kill-mode';

/** The pod label that opts a pod in; its value is the mode of every container. */
export function modeLabel(prefix: string): string {
  return keysOf(prefix).mode;
}

/** The pod annotation that overrides the mode of single containers: `name=Mode,name=Mode`. */
export function containersAnnotation(prefix: string): string {
  return keysOf(prefix).containers;
}

const KEYS = new Map<string, { readonly mode: string; readonly containers: string }>();

/** Every object of an app is searched for these keys, which is faster if they are always the same strings. */
function keysOf(prefix: string) {
  const keys = KEYS.get(prefix) ?? { mode: `${prefix}/mode`, containers: `${prefix}/containers` };
  KEYS.set(prefix, keys);
  return keys;
}

/** The agent ignores a longer annotation. Its api.awk has the same number. */
export const LONGEST_CONTAINERS_ANNOTATION = 8192;

export function requireLabelPrefix(construct: IConstruct, prefix: string): string {
  if (!isDnsSubdomain(prefix)) {
    throw usageError(
      construct,
      `labelPrefix is not a DNS-1123 subdomain of at most 253 characters: ${JSON.stringify(prefix)}`,
      'a domain that you own, in lower case, such as "oom.example.com"',
    );
  }
  // https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
  if (/(^|\.)(kubernetes|k8s)\.io$/.test(prefix)) {
    throw usageError(
      construct,
      `labelPrefix is reserved for Kubernetes itself: ${JSON.stringify(prefix)}`,
      'a domain that you own, such as "oom.example.com"',
    );
  }
  return prefix;
}
