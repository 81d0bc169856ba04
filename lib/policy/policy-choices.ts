import { IConstruct } from 'constructs';
import { OomKillMode } from './oom-kill-mode';
import { PodMetadata, UserKind } from './pods';

/** The choices of a user for a policy. They do not depend on a synthesis. */
export interface PolicyChoices {
  readonly target: IConstruct;
  readonly prefix: string;

  /** The mode of all containers, or `none`. */
  all?: OomKillMode | 'none';

  /** The call or option that set `all`, for messages. */
  allBy?: string;

  untilNamed?: OomKillMode;
  allowEmpty?: boolean;
  readonly containers: Map<string, OomKillMode>;
  readonly injected: Set<string>;
  readonly kinds: UserKind[];
}

/** The label and the annotation of some pods. */
export interface PodMarks {
  readonly mode: OomKillMode;
  readonly containers?: string;
}

/** The policies of one prefix above an object, the nearest first. */
export type Policies = readonly [PolicyChoices, ...PolicyChoices[]];

/** The name of a policy, for messages. */
export function nameOf({ target, allBy }: PolicyChoices): string {
  const what = allBy?.includes(':') ? allBy : 'OomKillPolicy';
  return `${what} of ${target.node.path || 'the app'}`;
}

/** The label and the annotation for some pods, if the policy opts them in. */
export function marksFor(policy: PolicyChoices, pods: PodMetadata): PodMarks | undefined {
  const { all, containers } = policy;
  if (all === 'none' || (all !== undefined && containers.size === 0)) {
    return all === 'none' ? undefined : { mode: all };
  }
  const names = [...new Set([...pods.containers(), ...policy.injected])].sort();
  const named = names.filter((name) => containers.has(name));
  if (all === undefined && named.length === 0) {
    return undefined;
  }
  const modeOf = (name: string) => containers.get(name) ?? all ?? OomKillMode.GROUP;
  const [first, ...others] = new Set(names.map(modeOf));
  // If all containers have one mode, the agent need not know their names.
  const alike = all === undefined && pods.isComplete && others.length === 0;
  const mode = all ?? (alike ? first : policy.untilNamed) ?? OomKillMode.GROUP;
  const entries = alike
    ? []
    : names.filter((name) => named.includes(name) || modeOf(name) !== mode);
  return {
    mode,
    containers: entries.map((name) => `${name}=${modeOf(name)}`).join(',') || undefined,
  };
}

/**
 * The `workloadKinds` of the policies of one prefix. They add up, but the nearest policy decides which kinds
 * are skipped.
 */
export function userKindsOf([nearest, ...others]: Policies): UserKind[] {
  const kinds = [...nearest.kinds];
  for (const { kinds: outer } of others) {
    const nearer = [...kinds];
    kinds.push(
      ...outer.filter((entry) =>
        nearer.every(
          ({ apiGroup, kind, skipped = false }) =>
            apiGroup !== entry.apiGroup ||
            kind !== entry.kind ||
            (!skipped && !(entry.skipped ?? false)),
        ),
      ),
    );
  }
  return kinds;
}

/** Why a policy leaves pods alone. */
export function reasonOf(policy: PolicyChoices): string {
  return policy.all === 'none'
    ? `${nameOf(policy)} says none()`
    : `perContainer() of ${policy.target.node.path || 'the app'} names none of its containers`;
}
