/** A node of a CustomResourceDefinition's openAPIV3Schema. */
export interface Schema {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema | boolean;
  readonly items?: Schema;
  readonly required?: readonly string[];
  readonly default?: unknown;
  readonly nullable?: boolean;
  readonly 'x-kubernetes-preserve-unknown-fields'?: boolean;
  readonly 'x-kubernetes-int-or-string'?: boolean;
  readonly 'x-kubernetes-list-type'?: string;
  readonly 'x-kubernetes-list-map-keys'?: readonly string[];
  readonly 'x-kubernetes-validations'?: readonly { readonly rule: string; readonly message?: string }[];
  readonly [keyword: string]: unknown;
}

/** What apiextensions v1 refuses wherever it stands. */
const FORBIDDEN = [
  ...['$ref', '$schema', 'id', 'definitions', 'dependencies', 'deprecated', 'discriminator', 'patternProperties'],
  ...['readOnly', 'writeOnly', 'xml', 'additionalItems'],
];
const TYPES = ['object', 'array', 'string', 'integer', 'number', 'boolean'];
const LOGICAL = ['allOf', 'anyOf', 'oneOf', 'not'] as const;
/** What must not stand below allOf, anyOf, oneOf and not. */
const ONLY_STRUCTURAL = ['type', 'description', 'title', 'default', 'additionalProperties', 'nullable'];

/**
 * What keeps a schema from being structural, by path; empty where it is. The rules are those of the page "structural schemas" of the
 * Kubernetes documentation, and of the validation of list types.
 */
export function structuralProblems(schema: Schema, path = ''): string[] {
  const say = (problem: string) => `${path || '.'}: ${problem}`;
  const { properties, additionalProperties, items } = schema;
  const forbidden = FORBIDDEN.filter((keyword) => keyword in schema).map((keyword) => say(`${keyword} is forbidden`));
  const uniqueness = schema['uniqueItems'] === true ? [say('uniqueItems must not be true')] : [];
  const both =
    properties && additionalProperties ? [say('properties and additionalProperties exclude each other')] : [];
  const closed = additionalProperties === false ? [say('additionalProperties must not be false')] : [];
  const below = [
    ...Object.entries(properties ?? {}).map(([name, node]) => [`${path}.${name}`, node] as const),
    ...(typeof additionalProperties === 'object' ? [[`${path}.*`, additionalProperties] as const] : []),
    ...(items === undefined ? [] : [[`${path}[]`, items] as const]),
  ];
  return [
    ...[...forbidden, ...uniqueness, ...both, ...closed],
    ...typeProblems(schema).map(say),
    ...listProblems(schema).map(say),
    ...logicalProblems(schema).map(say),
    ...below.flatMap(([at, node]) => structuralProblems(node, at)),
  ];
}

function typeProblems({ type, items, ...schema }: Schema): string[] {
  const isFree =
    schema['x-kubernetes-int-or-string'] === true || schema['x-kubernetes-preserve-unknown-fields'] === true;
  if (type === undefined) return isFree ? [] : ['type is missing'];
  if (schema['x-kubernetes-int-or-string'] === true) return ['int-or-string must have no type'];
  if (!TYPES.includes(type)) return [`type ${type} is none`];
  if (type === 'array' && items === undefined) return ['an array without items'];
  if (schema.properties && type !== 'object') return ['properties of what is no object'];
  return [];
}

function listProblems(schema: Schema): string[] {
  const kind = schema['x-kubernetes-list-type'];
  const keys = schema['x-kubernetes-list-map-keys'] ?? [];
  if (kind !== undefined && schema.type !== 'array') return ['a list type on what is no array'];
  if (kind === 'map' && keys.length === 0) return ['a list map without keys'];
  if (kind !== 'map') return keys.length > 0 ? ['keys of what is no list map'] : [];
  return keys.flatMap((key) => {
    const node = schema.items?.properties?.[key];
    if (node === undefined) return [`the key ${key} is no property of the items`];
    if (['object', 'array'].includes(node.type ?? '')) return [`the key ${key} is no scalar`];
    const isSure = schema.items?.required?.includes(key) === true || node.default !== undefined;
    return isSure ? [] : [`the key ${key} is neither required nor has a default`];
  });
}

function logicalProblems(schema: Schema): string[] {
  return LOGICAL.flatMap((keyword) => {
    const nodes = [schema[keyword] ?? []].flat() as Schema[];
    const isPair = keyword === 'anyOf' && schema['x-kubernetes-int-or-string'] === true;
    if (isPair && nodes.map(({ type }) => type).join() === 'integer,string') return [];
    return nodes.flatMap((node) =>
      ONLY_STRUCTURAL.filter((word) => word in node).map((word) => `${word} must not stand below ${keyword}`),
    );
  });
}
