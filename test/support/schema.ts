import { execFileSync } from 'node:child_process';
import { Manifest, ROOT } from './manifests';

interface Attribute {
  readonly baseName: string;
  readonly type: string;
}

/** The fields of every type of one Kubernetes version. */
export type Schema = Record<string, Attribute[]>;

/** The npm aliases of the Kubernetes clients, whose models are generated from each version's OpenAPI. */
export const VERSIONS = ['1.28', '1.29', '1.30', '1.32', '1.33', '1.34', '1.36'];

// The later clients are ES modules, which jest does not load; a child process does.
const LOADER = `
  const schemas = {};
  for (const version of ${JSON.stringify(VERSIONS)}) {
    const file = Number(version.slice(2)) < 31 ? 'gen/model/models.js' : 'gen/models/all.js';
    const models = await import('./node_modules/k8s-' + version + '/dist/' + file);
    schemas[version] = Object.fromEntries(
      Object.entries({ ...models.default, ...models })
        .filter(([, model]) => model?.attributeTypeMap)
        .map(([name, model]) => [name, model.attributeTypeMap]),
    );
  }
  process.stdout.write(JSON.stringify(schemas));
`;

export function loadSchemas(): Record<string, Schema> {
  return JSON.parse(
    execFileSync(process.execPath, ['--input-type=module', '-e', LOADER], {
      cwd: ROOT,
      encoding: 'utf8',
      maxBuffer: 256 * 1024 * 1024,
    }),
  ) as Record<string, Schema>;
}

/** Every unknown field and every value of a wrong type, as the API server's strict validation finds them. */
export function violations(schema: Schema, manifest: Manifest): string[] {
  const { apiVersion, kind } = manifest;
  const version = apiVersion.split('/').pop() ?? '';
  return walk(
    schema,
    `${version.charAt(0).toUpperCase()}${version.slice(1)}${kind}`,
    manifest,
    kind,
  );
}

function walk(schema: Schema, type: string, value: unknown, path: string): string[] {
  const item = /^Array<(.*)>$/.exec(type)?.[1];
  if (item !== undefined) {
    return Array.isArray(value)
      ? value.flatMap((element, i) => walk(schema, item, element, `${path}[${i}]`))
      : [`${path} is no array`];
  }
  const member = /^\{ \[key: string\]: (.*); \}$/.exec(type)?.[1];
  if (member !== undefined) {
    return isObject(value)
      ? Object.entries(value).flatMap(([key, v]) => walk(schema, member, v, `${path}.${key}`))
      : [`${path} is no object`];
  }
  switch (type) {
    case 'any':
    case 'object':
      return [];
    case 'string':
    case 'number':
    case 'boolean':
      return typeof value === type ? [] : [`${path} is no ${type}`];
    case 'IntOrString':
      return Number.isInteger(value) || typeof value === 'string'
        ? []
        : [`${path} is neither integer nor string`];
    case 'Date':
      return typeof value === 'string' && !Number.isNaN(Date.parse(value))
        ? []
        : [`${path} is no date`];
  }
  const attributes = schema[type];
  if (attributes === undefined) {
    return [`${path} has the unknown type ${type}`];
  }
  if (!isObject(value)) {
    return [`${path} is no object`];
  }
  return Object.entries(value).flatMap(([key, v]) => {
    const attribute = attributes.find(({ baseName }) => baseName === key);
    return attribute
      ? walk(schema, attribute.type, v, `${path}.${key}`)
      : [`${path}.${key} is unknown`];
  });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
