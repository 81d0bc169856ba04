import { existsSync, readdirSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';

import { ROOT, read } from './support/manifests';

// From the top down, as CONTRIBUTING.md has it.
const FOLDERS = [
  ...['workloads', 'monitoring', 'admission', 'drop-in', 'agent', 'policy', 'private'],
  '../imports',
];
const LIB = join(ROOT, 'lib');

function filesOf(folder: string): string[] {
  return readdirSync(join(LIB, folder))
    .filter((name) => /(?<!\.d)\.ts$/.test(name))
    .map((name) => join(folder, name));
}

/** The files that a file imports, for their values or only for their types. */
function importsOf(file: string): string[] {
  return [...read('lib', file).matchAll(/ from '(\.[^']*)'/g)].map(([, path = '']) =>
    relative(LIB, resolve(LIB, file, '..', `${path}.ts`)),
  );
}

test('the folders of lib/ are those of CONTRIBUTING.md, and each import points down the list', () => {
  const folders = readdirSync(LIB, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  expect(folders.map(({ name }) => name).sort()).toEqual(FOLDERS.slice(0, -1).sort());
  const listed = [...read('CONTRIBUTING.md').matchAll(/^- `([a-z-]+)\/`: /gm)].map(
    ([, name]) => name,
  );
  expect(listed).toEqual(FOLDERS.slice(0, -1));

  const up = FOLDERS.slice(0, -1).flatMap((folder, i) =>
    filesOf(folder).flatMap((file) =>
      importsOf(file)
        .filter((path) => !FOLDERS.slice(i).some((below) => path.startsWith(`${below}/`)))
        .map((path) => `${file}: ${path}`),
    ),
  );
  expect(up).toEqual([]);
});

test('no file of lib/ imports itself through others', () => {
  const circles = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) {
      circles.add([...path.slice(path.indexOf(file)), file].join(' > '));
    } else if (existsSync(join(LIB, file)) && !done.has(file)) {
      importsOf(file).forEach((one) => {
        visit(one, [...path, file]);
      });
      done.add(file);
    }
  };
  const done = new Set<string>();
  FOLDERS.slice(0, -1)
    .flatMap(filesOf)
    .forEach((file) => {
      visit(file, []);
    });
  expect([...circles]).toEqual([]);
});
