import { IConstruct } from 'constructs';
import { METRICS } from '../agent/metrics';
import { usageError } from '../private/usage-error';

const MAX_COUNT = 1_000_000;

/** A string literal of PromQL. */
export function quote(text: string): string {
  return JSON.stringify(text);
}

/** A matcher of PromQL for the series of some jobs. Job names are DNS labels, so they need no escapes in RE2. */
export function jobIs(jobs: readonly string[]): string {
  return `job=${jobs.length > 1 ? '~' : ''}${quote(jobs.join('|'))}`;
}

/** A matcher of PromQL for the series of all other jobs. */
export function jobIsNot(jobs: readonly string[]): string {
  return `job!${jobs.length > 1 ? '~' : '='}${quote(jobs.join('|'))}`;
}

/** The containers whose memory.oom.group is wrong or cannot be read, each with its desired mode. */
export function withoutMode(matchers: string): string {
  const desired = `${METRICS.GROUP_DESIRED.name}{${matchers}}`;
  const effective = `${METRICS.GROUP_EFFECTIVE.name}{${matchers}}`;
  return [`${desired} != ${effective}`, 'or', `${desired} unless ${effective}`].join('\n');
}

/** A whole number, 0 included. */
export function requireCount(construct: IConstruct, prop: string, count: number): number {
  if (!Number.isInteger(count) || count < 0 || count > MAX_COUNT) {
    throw usageError(
      construct,
      `${prop} is not a whole number from 0 to ${MAX_COUNT}: ${count}`,
      'a number such as 10',
    );
  }
  return count;
}

/** The name of a scrape job. */
export function requireJob(construct: IConstruct, prop: string, job: string): string {
  if (!/^[A-Za-z0-9_./:-]+$/.test(job)) {
    throw usageError(
      construct,
      `${prop} is not the name of a job: ${JSON.stringify(job)}`,
      'a name of letters, digits, "_", ".", "/", ":" and "-"',
    );
  }
  return job;
}

/** A regular expression of RE2, as far as JavaScript can check it. */
export function requireRegex(construct: IConstruct, prop: string, regex: string): string {
  // RE2 has neither lookaround nor references.
  if (regex === '' || /\(\?<?[=!]|\\[1-9k]/.test(regex) || !compiles(regex)) {
    throw usageError(
      construct,
      `${prop} is not a regular expression of RE2: ${JSON.stringify(regex)}`,
      'an expression such as "windows-.+|virtual-.+"',
    );
  }
  return regex;
}

function compiles(regex: string): boolean {
  try {
    new RegExp(regex, 'u');
    return true;
  } catch {
    return false;
  }
}

/** An address to which an anchor can be added. */
export function requireUrl(construct: IConstruct, prop: string, url: string): string {
  // The address becomes part of a template, where braces have a meaning.
  if (!/^https?:\/\/[^\s#{}]+$/.test(url) || !URL.canParse(url)) {
    throw usageError(
      construct,
      `${prop} is not an http or https address without an anchor: ${JSON.stringify(url)}`,
      'an address such as "https://example.com/runbook"',
    );
  }
  return url;
}

/** Labels that Prometheus lets an alert have. */
export function requireAlertLabels(construct: IConstruct, labels: Record<string, string>): void {
  for (const name of Object.keys(labels)) {
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name) || name.startsWith('__') || name === 'alertname') {
      throw usageError(
        construct,
        `alertLabels has an invalid name: ${JSON.stringify(name)}`,
        'a name such as "team"',
      );
    }
  }
}
