import { ApiObject } from 'cdk8s';
import { OomKillReportEntry } from './oom-kill-report';
import { Json, pointerOf } from './json';
import { modeOf, parseContainers, readMarks } from './pod-marks';
import { Manifest, PodMetadata } from './pods';
import { PodMarks, PolicyChoices, nameOf, reasonOf } from './policy-choices';
import { given } from '../private/props';
import { Surveyed } from './survey';

/** The decision about some pods of a manifest, or about a manifest without pods. */
export interface Decision {
  readonly manifest: Manifest;
  readonly policy?: PolicyChoices;
  readonly pods?: PodMetadata;
  readonly marks?: PodMarks;
  readonly untouched?: string;
}

/** The decisions for a manifest without a policy above it. The user may have labelled its pods. */
export function ungoverned(
  one: Surveyed,
  json: Json,
  manifest: Manifest,
  prefix: string,
): Decision[] {
  return manifest.pods.map((pods) => {
    const { mode: word, containers } = readMarks(json, pods, prefix);
    const mode = modeOf(word);
    return mode
      ? { manifest, pods, marks: { mode, containers } }
      : {
          manifest,
          pods,
          untouched: one.isOfAgent
            ? 'the pods of an OomKillModeAgent are never opted in'
            : 'there is no OomKillPolicy above it',
        };
  });
}

function entryOf(
  object: ApiObject,
  { manifest, policy, pods, marks, untouched }: Decision,
): OomKillReportEntry {
  const { apiVersion, kind, name } = manifest;
  const named = parseContainers(marks?.containers);
  const names = [...new Set([...(pods?.containers() ?? []), ...named.keys()])].sort();
  return given({
    path: object.node.path,
    apiVersion,
    kind,
    name,
    pods: pods && pointerOf(pods.path),
    policy: policy && (policy.target.node.path || 'app'),
    mode: marks?.mode,
    containers:
      marks && Object.fromEntries(names.map((one) => [one, named.get(one) ?? marks.mode])),
    untouched: marks ? undefined : (untouched ?? (policy && reasonOf(policy))),
  });
}

/** The entries of an object: all, or those of one policy above it. */
export function entriesOf(
  one: Surveyed,
  decisions: readonly Decision[],
  policy?: PolicyChoices,
): OomKillReportEntry[] {
  const above = one.policies.find(({ policies }) => policy && policies.includes(policy));
  const nearest = above?.policies[0];
  return decisions
    .filter((decision) => !policy || (nearest && (decision.policy ?? nearest) === nearest))
    .map((decision) =>
      entryOf(
        one.object,
        !nearest || nearest === policy
          ? decision
          : { ...decision, marks: undefined, untouched: `${nameOf(nearest)} is nearer` },
      ),
    );
}

export function byPath(a: OomKillReportEntry, b: OomKillReportEntry): number {
  return compare(a.path, b.path) || compare(a.pods ?? '', b.pods ?? '');
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** A report as a table, for people. */
export function tableOf(entries: readonly OomKillReportEntry[]): string {
  const rows = [
    ['PATH', 'KIND', 'NAME', 'PODS', 'MODE'],
    ...entries.map(({ path, kind, name = '', pods = '', mode, containers = {}, untouched }) => {
      const others = Object.entries(containers).filter(([, its]) => its !== mode);
      const says = [mode, ...others.map((one) => one.join('='))].join(' ');
      return [path, kind, name, pods, untouched === undefined ? says : `- ${untouched}`];
    }),
  ];
  const widths = [0, 1, 2, 3].map((i) => Math.max(...rows.map((row) => (row[i] ?? '').length)));
  return rows
    .map(
      (row) =>
        `${row
          .map((cell, i) => cell.padEnd(widths[i] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}
