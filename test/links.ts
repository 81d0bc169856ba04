// npm run docs:links: asks for every address of docs/links.txt, and fails if one does not answer.
//
//   npm run docs:links -- [FILE]
//
// It needs the network, which .ci/run does without: a workflow runs it.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { each } from '../e2e/kubectl';

const TIMEOUT = 30_000;

/** Why an address is not to be had, or nothing. Some servers know only GET. */
export async function failure(url: string): Promise<string | undefined> {
  return (await request(url, 'HEAD')) && (await request(url, 'GET'));
}

async function request(url: string, method: string): Promise<string | undefined> {
  try {
    const response = await fetch(url, { method, signal: AbortSignal.timeout(TIMEOUT) });
    await response.body?.cancel();
    return response.ok ? undefined : `status ${response.status}`;
  } catch (error) {
    const { message, cause } = error as Error & { readonly cause?: Error };
    return cause === undefined ? message : `${message}: ${cause.message}`;
  }
}

/** Started by `node -e`, so that an argument follows the program's name. */
export async function main(): Promise<void> {
  const file = process.argv[1] ?? join(__dirname, '../docs/links.txt');
  const urls = readFileSync(file, 'utf8').split('\n').filter(Boolean);
  const answers = await each(urls, async (url) => {
    const reason = await failure(url);
    if (reason !== undefined) {
      console.log(`${url}: ${reason}`);
    }
    return reason === undefined;
  });
  const good = answers.filter(Boolean).length;
  console.log(`${good} of ${urls.length} addresses answer`);
  process.exitCode = urls.length > 0 && good === urls.length ? 0 : 1;
}
