import { Ajv, ValidateFunction } from 'ajv';
import { parse } from 'yaml';
import { Manifest, read } from './manifests';

interface Definition {
  readonly spec: {
    readonly group: string;
    readonly names: { readonly kind: string };
    readonly versions: {
      readonly name: string;
      readonly schema: { readonly openAPIV3Schema: object };
    }[];
  };
}

/** Validates a custom resource as the API server does, against its definition in imports/crds. */
export function crdValidator(file: string): (manifest: Manifest) => string[] {
  const { spec } = parse(read('imports', 'crds', file)) as Definition;
  const [version, ...others] = spec.versions;
  if (version === undefined || others.length > 0) {
    throw new Error(`${file} has ${spec.versions.length} versions`);
  }
  const validate = compile(version.schema.openAPIV3Schema);
  return (manifest) => [
    ...(manifest.apiVersion === `${spec.group}/${version.name}` && manifest.kind === spec.names.kind
      ? []
      : [`${manifest.apiVersion} ${manifest.kind} is another kind`]),
    ...(validate(manifest)
      ? []
      : (validate.errors ?? []).map(
          ({ instancePath, message, params }) =>
            `${instancePath} ${message ?? ''} ${JSON.stringify(params)}`,
        )),
  ];
}

function compile(schema: object): ValidateFunction {
  const ajv = new Ajv({
    allErrors: true,
    strictTypes: false,
    // Go's patterns may begin with flags, which JavaScript's may not.
    code: {
      regExp: Object.assign(
        (pattern: string) =>
          new RegExp(pattern.replace('(?i)', ''), pattern.includes('(?i)') ? 'i' : ''),
        { code: 'goPattern' },
      ),
    },
    formats: { int32: true, int64: true, 'date-time': true },
  });
  ajv.addVocabulary([
    'x-kubernetes-int-or-string',
    'x-kubernetes-list-map-keys',
    'x-kubernetes-list-type',
    'x-kubernetes-map-type',
  ]);
  return ajv.compile(strict(schema) as object);
}

/** An object may have the properties of its schema and no other, which is what strict validation means. */
function strict(schema: unknown): unknown {
  if (Array.isArray(schema)) {
    return schema.map(strict);
  }
  if (typeof schema !== 'object' || schema === null) {
    return schema;
  }
  const copy = Object.fromEntries(
    Object.entries(schema).map(([key, value]) => [key, strict(value)]),
  );
  return 'properties' in schema && 'type' in schema && schema.type === 'object'
    ? { ...copy, additionalProperties: false }
    : copy;
}
