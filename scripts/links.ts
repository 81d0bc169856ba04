// npm run docs:links: asks for every address that the pages link to, and fails if one does not answer.
//
//   npm run docs:links -- [PAGE...]
//
// It needs the network, which .ci/run does without: a workflow runs it.

import { execFileSync } from 'node:child_process';
import { resolve } from 'node:path';
import { readFileSync } from 'node:fs';

const ROOT = resolve(__dirname, '..');
const TIMEOUT = 30_000;

/** Every page that is committed. */
export const PAGES = execFileSync('git', ['ls-files', '*.md'], { cwd: ROOT, encoding: 'utf8' })
  .trimEnd()
  .split('\n');

/** A page's text without its blocks of code. */
export function prose(text: string): string {
  return text.replace(/^```.*?^```$/gms, '');
}

/** A page's blocks of one language, in order. */
export function blocks(text: string, language: string): string[] {
  const found = text.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, 'gms'));
  return [...found].map(([, block]) => block ?? '');
}

/** Where `[text](target)`, `<target>`, `[name]: target` and `href="target"` lead to. */
export function links(text: string): string[] {
  const link = /\]\(([^)]+)\)|<(https?:[^>\s]+)>|^\[[^\]]+\]: (\S+)$|href="([^"]+)"/gm;
  const found = prose(text)
    .replace(/`[^`\n]*`/g, '``')
    .matchAll(link);
  return [...found].map(([, ...targets]) => targets.find(Boolean) ?? '');
}

export function isExternal(link: string): boolean {
  return /^[a-z]+:/.test(link);
}

/** Why an address is not to be had, or nothing. Some servers know only GET. */
async function failure(url: string): Promise<string | undefined> {
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

async function main(pages: string[]): Promise<void> {
  const texts = pages.map((page) => readFileSync(resolve(ROOT, page), 'utf8'));
  const urls = [...new Set(texts.flatMap(links).filter(isExternal))].sort();
  let good = 0;
  const ask = async (url: string) => {
    const reason = await failure(url);
    if (reason === undefined) {
      good += 1;
    } else {
      console.log(`${url}: ${reason}`);
    }
  };
  // Four at a time.
  for (let next = 0; next < urls.length; next += 4) {
    await Promise.all(urls.slice(next, next + 4).map(ask));
  }
  console.log(`${good} of ${urls.length} addresses answer`);
  process.exitCode = urls.length > 0 && good === urls.length ? 0 : 1;
}

if (require.main === module) {
  const pages = process.argv.slice(2);
  void main(pages.length > 0 ? pages : PAGES);
}
