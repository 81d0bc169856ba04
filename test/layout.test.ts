import { readdirSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';

import { ROOT, read } from './support/manifests';

const LIB = join(ROOT, 'lib');

test('each import of lib/ points down the list of folders in CONTRIBUTING.md', () => {
  const found = read('CONTRIBUTING.md').matchAll(/^- `([a-z-]+)\/`: /gm);
  const folders = [...found].map(([, name = '']) => name);
  const all = readdirSync(LIB, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  expect([...folders].sort()).toEqual(all.map(({ name }) => name).sort());

  const up = folders.flatMap((folder, i) =>
    readdirSync(join(LIB, folder))
      .filter((name) => /(?<!\.d)\.ts$/.test(name))
      .flatMap((name) =>
        [...read('lib', folder, name).matchAll(/ from '(\.[^']*)'/g)]
          .map(([, path = '']) => relative(LIB, resolve(LIB, folder, path)))
          .filter((path) => ![...folders.slice(i), '..'].includes(path.split('/')[0] ?? ''))
          .map((path) => `${folder}/${name}: ${path}`),
      ),
  );
  expect(up).toEqual([]);
});
