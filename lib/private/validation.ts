import { Duration, Size, SizeRoundingBehavior } from 'cdk8s';
import * as kplus from 'cdk8s-plus-28';
import { k8s } from 'cdk8s-plus-28';
import { IConstruct } from 'constructs';
import { usageError } from './usage-error';
import { isObject, show } from './props';

// The syntax of the Kubernetes API server:
// https://github.com/kubernetes/apimachinery/blob/master/pkg/util/validation/validation.go
const DNS_LABEL = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/;
const DNS_SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
const QUALIFIED_NAME = /^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/;

// https://github.com/distribution/reference/blob/main/regexp.go, with the digest algorithm that every
// registry supports.
export const IMAGE =
  /^(?<name>[a-zA-Z0-9.-]+(:[0-9]+(?=\/))?(\/[a-z0-9]+([._-]+[a-z0-9]+)*)*)(:(?<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(@(?<digest>sha256:[0-9a-f]{64}))?$/;

const MAX_INT32 = 2 ** 31 - 1;

export function isDnsLabel(value: string): boolean {
  return value.length <= 63 && DNS_LABEL.test(value);
}

export function isDnsSubdomain(value: string): boolean {
  return value.length <= 253 && DNS_SUBDOMAIN.test(value);
}

export function requireDnsLabel(construct: IConstruct, prop: string, value: string): string {
  if (!isDnsLabel(value)) {
    throw usageError(
      construct,
      `${prop} is not a DNS-1123 label of at most 63 characters: ${JSON.stringify(value)}`,
      'lower case letters, digits and inner hyphens',
    );
  }
  return value;
}

export function requireDnsSubdomain(construct: IConstruct, prop: string, value: string): string {
  if (!isDnsSubdomain(value)) {
    throw usageError(
      construct,
      `${prop} is not a DNS-1123 subdomain of at most 253 characters: ${JSON.stringify(value)}`,
      'lower case letters, digits, and inner hyphens and dots',
    );
  }
  return value;
}

/** An image reference with a digest, or with a tag that is not `latest`. */
export function requirePinnedImage(construct: IConstruct, prop: string, image: string): string {
  const { tag, digest } = IMAGE.exec(image)?.groups ?? {};
  if (digest === undefined && (tag === undefined || tag === 'latest')) {
    throw usageError(
      construct,
      `${prop} is not a reference pinned by tag or digest: ${JSON.stringify(image)}`,
      '"name:1.2.3" or "name@sha256:…"',
    );
  }
  return image;
}

/** Milli-CPUs, the smallest unit of Kubernetes. */
export function requireCpu(construct: IConstruct, prop: string, cpu: kplus.Cpu): number {
  const [, amount, milli] = /^(\d+(?:\.\d+)?)(m?)$/.exec(cpu.amount) ?? [];
  const millis = milli === 'm' ? Number(amount) : Math.round(Number(amount) * 1e6) / 1e3;
  if (!Number.isSafeInteger(millis) || millis < 1) {
    throw usageError(
      construct,
      `${prop} is not a positive whole number of milli-CPUs: ${cpu.amount}`,
      'a quantity such as Cpu.millis(100)',
    );
  }
  return millis;
}

/** Mebibytes. */
export function requireSize(construct: IConstruct, prop: string, size: Size): number {
  const mebibytes = size.toMebibytes({ rounding: SizeRoundingBehavior.NONE });
  if (!Number.isSafeInteger(mebibytes) || mebibytes < 1) {
    throw usageError(
      construct,
      `${prop} is not a positive whole number of mebibytes: ${size.asString()}`,
      'a quantity such as Size.mebibytes(64)',
    );
  }
  return mebibytes;
}

export function requireAtMost(
  construct: IConstruct,
  prop: string,
  value: number,
  limit: number,
  unit: string,
): void {
  if (value > limit) {
    throw usageError(
      construct,
      `${prop} is ${value}${unit}, more than the maximum of ${limit}${unit}`,
      `${limit}${unit} or less`,
    );
  }
}

/** Refuses amounts that were measured to be too small, see `AgentResources`. */
export function requireCpuFloor(
  construct: IConstruct,
  prop: string,
  millis: number,
  tooLate: number,
): void {
  if (millis <= tooLate) {
    throw usageError(
      construct,
      `${prop} is ${millis}m, but with ${tooLate}m the agent was too late for the first instruction of a container`,
      `more than ${tooLate}m, or leave cpuRequest and cpuLimit out`,
    );
  }
}

/** Refuses a request above its limit. A default request is not lowered silently. */
export function requireRequest(
  construct: IConstruct,
  resource: 'cpu' | 'memory',
  amounts: { readonly request: number; readonly limit: number },
  isDefault: boolean,
  unit: 'm' | 'Mi',
): void {
  const { request, limit } = amounts;
  if (request > limit) {
    const one = (value: number) =>
      unit === 'm' ? `Cpu.millis(${value})` : `Size.mebibytes(${value})`;
    throw usageError(
      construct,
      `${resource}Request is ${request}${unit}${isDefault ? ' by default' : ''}, more than ${resource}Limit: ${limit}${unit}`,
      `${resource}Request: ${one(limit)} or less, or ${resource}Limit: ${one(request)} or more`,
    );
  }
}

export function requireReplicas(construct: IConstruct, replicas: number): number {
  if (!Number.isInteger(replicas) || replicas < 1 || replicas > MAX_INT32) {
    throw usageError(
      construct,
      `replicas is not a positive integer: ${replicas}`,
      `a whole number from 1 to ${MAX_INT32}`,
    );
  }
  return replicas;
}

/** A number of nodes from 1, or whole percents from 1 to 100. With 0 no rollout would start. */
export function requirePercentOrAbsolute(
  construct: IConstruct,
  prop: string,
  amount: kplus.PercentOrAbsolute,
): k8s.IntOrString {
  const value = amount.value as unknown;
  const percent = /^(\d+)%$/.exec(String(value))?.[1];
  const count = Number(percent ?? value);
  const most = percent === undefined ? MAX_INT32 : 100;
  if (!Number.isInteger(count) || count < 1 || count > most) {
    throw usageError(
      construct,
      `${prop} is neither a positive whole number nor from 1 to 100 percent: ${String(value)}`,
      'an amount such as PercentOrAbsolute.absolute(1) or PercentOrAbsolute.percent(10)',
    );
  }
  return percent === undefined
    ? k8s.IntOrString.fromNumber(count)
    : k8s.IntOrString.fromString(`${percent}%`);
}

/** Whole seconds. */
export function requireSeconds(
  construct: IConstruct,
  prop: string,
  duration: Duration,
  min: number,
  max: number,
): number {
  const seconds = duration.toSeconds({ integral: false });
  if (!Number.isInteger(seconds) || seconds < min || seconds > max) {
    throw usageError(
      construct,
      `${prop} is not a whole number of seconds from ${min} to ${max}: ${seconds}`,
      `a duration such as Duration.seconds(${min})`,
    );
  }
  return seconds;
}

/** A value of an enum, for callers without a compiler. */
export function requireMember(
  construct: IConstruct,
  prop: string,
  value: string,
  members: Record<string, string>,
): void {
  if (!Object.values(members).includes(value)) {
    throw usageError(
      construct,
      `${prop} is unknown: ${JSON.stringify(value)}`,
      Object.values(members)
        .map((member) => JSON.stringify(member))
        .join(' or '),
    );
  }
}

/** Labels that the API server accepts and that do not override ours. */
export function requireLabels(
  construct: IConstruct,
  labels: Record<string, string>,
  ours: Record<string, string>,
  prop = 'labels',
): void {
  requireKeys(construct, prop, labels, ours);
  requireLabelValues(construct, prop, labels);
}

function requireLabelValues(
  construct: IConstruct,
  prop: string,
  labels: Record<string, string>,
): void {
  for (const [key, value] of Object.entries(labels)) {
    if (value !== '' && !isQualifiedName(value)) {
      throw usageError(
        construct,
        `${prop}[${JSON.stringify(key)}] is not a valid label value: ${JSON.stringify(value)}`,
        'at most 63 letters, digits, "-", "_" and ".", with a letter or digit at both ends',
      );
    }
  }
}

/** Annotations that the API server accepts and that do not override ours. */
export function requireAnnotations(
  construct: IConstruct,
  annotations: Record<string, string>,
  ours: Record<string, string>,
): void {
  requireKeys(construct, 'annotations', annotations, ours);
}

/** A node selector that the API server accepts and that does not override ours. */
export function requireNodeSelector(
  construct: IConstruct,
  selector: Record<string, string>,
  ours: Record<string, string>,
): void {
  requireLabels(construct, selector, ours, 'nodeSelector');
}

function requireKeys(
  construct: IConstruct,
  prop: string,
  map: Record<string, string>,
  ours: Record<string, string>,
): void {
  for (const key of Object.keys(map)) {
    const [name = '', prefix, ...rest] = key.split('/').reverse();
    if (
      rest.length > 0 ||
      !isQualifiedName(name) ||
      (prefix !== undefined && !isDnsSubdomain(prefix))
    ) {
      throw usageError(
        construct,
        `${prop} has an invalid key: ${JSON.stringify(key)}`,
        'a key such as "example.com/team"',
      );
    }
    if (key in ours) {
      throw usageError(
        construct,
        `${prop} would override a value that this construct depends on: ${JSON.stringify(key)}`,
        'another key',
      );
    }
  }
}

function isQualifiedName(value: string): boolean {
  return value.length <= 63 && QUALIFIED_NAME.test(value);
}

/** Tolerations that the API server accepts. */
export function requireTolerations(
  construct: IConstruct,
  tolerations: k8s.Toleration[] | undefined,
): k8s.Toleration[] | undefined {
  for (const [i, toleration] of (tolerations ?? []).entries()) {
    const { key, operator = 'Equal', value, effect, tolerationSeconds } = { ...toleration };
    const problem = !isObject(toleration)
      ? 'is not an object'
      : !['Equal', 'Exists'].includes(operator)
        ? 'has another operator than Equal and Exists'
        : effect !== undefined && !['NoSchedule', 'PreferNoSchedule', 'NoExecute'].includes(effect)
          ? 'has another effect than NoSchedule, PreferNoSchedule and NoExecute'
          : !key && operator !== 'Exists'
            ? 'has no key, which only the operator Exists allows'
            : operator === 'Exists' && value
              ? 'has a value, which the operator Exists does not allow'
              : tolerationSeconds !== undefined && effect !== 'NoExecute'
                ? 'has tolerationSeconds, which only the effect NoExecute allows'
                : undefined;
    if (problem !== undefined) {
      throw usageError(
        construct,
        `tolerations[${i}] ${problem}: ${show(toleration)}`,
        "a toleration such as { key: 'dedicated', operator: 'Exists', effect: 'NoSchedule' }",
      );
    }
  }
  return tolerations;
}

/** An affinity without unknown fields. The types of cdk8s-plus-28 would drop them silently. */
export function requireAffinity(
  construct: IConstruct,
  affinity: k8s.Affinity | undefined,
): k8s.Affinity | undefined {
  const lost = firstLost(affinity, rendered(affinity), 'affinity');
  if (lost !== undefined) {
    throw usageError(
      construct,
      `${lost} is not valid in an affinity of Kubernetes 1.28`,
      "an affinity such as { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions: [{ key: 'pool', operator: 'In', values: ['a'] }] }] } } }",
    );
  }
  return affinity;
}

function rendered(affinity: k8s.Affinity | undefined): unknown {
  try {
    return k8s.toJson_Affinity(affinity);
  } catch {
    return undefined;
  }
}

/** The path of the first value that is missing in the rendered object. */
function firstLost(value: unknown, made: unknown, path: string): string | undefined {
  if (value === undefined || value === made) {
    return undefined;
  }
  if (Array.isArray(value) && Array.isArray(made)) {
    return value
      .map((one: unknown, i) => firstLost(one, made[i], `${path}[${i}]`))
      .find((one) => one !== undefined);
  }
  if (!isObject(value) || !isObject(made)) {
    return path;
  }
  return Object.entries(value)
    .map(([key, one]) => firstLost(one, made[key], `${path}.${key}`))
    .find((one) => one !== undefined);
}

/** Environment variables that every version of Kubernetes accepts. */
export function requireEnv(construct: IConstruct, prop: string, env: object): void {
  for (const name of Object.keys(env)) {
    if (!/^[-._a-zA-Z][-._a-zA-Z0-9]*$/.test(name) || /^\.$|^\.\./.test(name)) {
      throw usageError(
        construct,
        `${prop} has an invalid name: ${JSON.stringify(name)}`,
        'a name of letters, digits, "_", "-" and ".", without a digit at its start',
      );
    }
  }
}
