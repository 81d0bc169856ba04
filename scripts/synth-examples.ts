import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { install } from '../test/support/binaries';

// Writes the dist/ of every example, as `npx cdk8s synth` in its directory does.

const EXAMPLES = resolve(__dirname, '../examples');
const PATH = `${install('helm')}${delimiter}${process.env['PATH'] ?? ''}`;

for (const example of readdirSync(EXAMPLES)) {
  execFileSync('npx', ['cdk8s', 'synth'], {
    cwd: join(EXAMPLES, example),
    env: { ...process.env, PATH },
    stdio: 'inherit',
  });
}
