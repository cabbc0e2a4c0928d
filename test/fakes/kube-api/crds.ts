import { readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv';
import { parse } from 'yaml';
import type { Json, Resource } from './resources.ts';
import type { Cause } from './status.ts';
import { type Schema, structuralProblems } from './structural.ts';

const SHIPPED = resolve(import.meta.dirname, '../../../deploy/crds');

/** The parts of a CustomResourceDefinition that are used. */
export interface Definition {
  readonly metadata: { readonly name: string };
  readonly spec: {
    readonly group: string;
    readonly scope: string;
    readonly names: { readonly kind: string; readonly plural: string };
    readonly versions: readonly {
      readonly name: string;
      readonly storage: boolean;
      readonly subresources?: { readonly status?: object };
      readonly schema: { readonly openAPIV3Schema: Schema };
    }[];
  };
}

/** The schema of a kind, as the API server uses it: prune, fill in, validate. */
export interface CustomSchema {
  /** Without what the schema does not know, and with its defaults. The object itself stays as it is. */
  fill(object: Json): Json;
  /** What is wrong with a filled object, whether it is new or takes the place of `previous`. */
  causes(object: Json, previous?: Json): Cause[];
}

/** The definitions that are shipped, by their names. */
export function readDefinitions(dir = SHIPPED): Definition[] {
  const files = readdirSync(dir).filter((name) => name.endsWith('.yaml'));
  return files.sort().map((name) => parse(readFileSync(resolve(dir, name), 'utf8')) as Definition);
}

/** The kind as the server serves it: its version that is stored. */
export function customResource({ metadata, spec }: Definition): Resource {
  const version = spec.versions.find(({ storage }) => storage);
  if (version === undefined) throw new Error(`${metadata.name} has no version that is stored`);
  return {
    ...{ group: spec.group, version: version.name, ...spec.names },
    ...{ isClusterScoped: spec.scope === 'Cluster', hasStatus: version.subresources?.status !== undefined },
    ...{ createsOnPut: false, needsVersionOnPut: true, hasGeneration: true, bookmark: {}, selectableFields: [] },
    schema: customSchema(version.schema.openAPIV3Schema),
  };
}

/** Throws where a real server would refuse the schema, and where it has a rule of CEL that is not understood here. */
export function customSchema(schema: Schema): CustomSchema {
  const problems = structuralProblems(schema);
  if (problems.length > 0) throw new Error(`the schema is not structural: ${problems.join('; ')}`);
  const validate = compile(schema);
  const rules = rulesOf(schema);
  return {
    fill: (object) => filled(schema, object, true) as Json,
    causes: (object, previous) => {
      validate(object);
      return [
        ...(validate.errors ?? []).map((error) => causeOf(error, object)),
        ...(previous === undefined ? [] : rules.flatMap((rule) => changed(rule, object, previous))),
      ];
    },
  };
}

function compile(schema: Schema): ValidateFunction {
  const ajv = new Ajv({ allErrors: true, strictTypes: false });
  for (const [format, limit] of [['int32', 2 ** 31] as const, ['int64', 2 ** 63] as const])
    ajv.addFormat(format, { type: 'number', validate: (value: number) => value >= -limit && value < limit });
  ajv.addFormat('date-time', (text) => /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/.test(text) && !Number.isNaN(Date.parse(text)));
  for (const word of ['preserve-unknown-fields', 'int-or-string', 'list-type', 'validations'])
    ajv.addKeyword(`x-kubernetes-${word}`);
  ajv.addKeyword({
    keyword: 'x-kubernetes-list-map-keys',
    type: 'array',
    error: { message: 'must not have two items with the same keys' },
    validate: (keys: string[], items: Json[]) => {
      const names = items.map((item) => JSON.stringify(keys.map((key) => item[key])));
      return new Set(names).size === names.length;
    },
  });
  return ajv.compile(schema);
}

/** Prunes, and fills in defaults from above to below. A null where there is a default counts as absent. */
function filled(schema: Schema, value: unknown, isRoot = false): unknown {
  if (Array.isArray(value)) return value.map((item) => filled(schema.items ?? OPEN, item));
  if (typeof value !== 'object' || value === null) return value;
  const known: Json = {};
  for (const [name, member] of Object.entries(value)) {
    const node = isRoot && name === 'metadata' ? OPEN : nodeOf(schema, name);
    const isAbsent = member === null && node?.default !== undefined && node.nullable !== true;
    if (node !== undefined && !isAbsent) known[name] = filled(node, member);
  }
  for (const [name, node] of Object.entries(schema.properties ?? {}))
    if (node.default !== undefined && !(name in known)) known[name] = filled(node, structuredClone(node.default));
  return known;
}

/** Takes everything. */
const OPEN: Schema = { 'x-kubernetes-preserve-unknown-fields': true };

/** The schema of a member; undefined: it is pruned. */
function nodeOf(schema: Schema, name: string): Schema | undefined {
  const { properties = {}, additionalProperties } = schema;
  if (Object.hasOwn(properties, name)) return properties[name];
  if (typeof additionalProperties === 'object') return additionalProperties;
  return additionalProperties === true || schema['x-kubernetes-preserve-unknown-fields'] === true ? OPEN : undefined;
}

/** A rule that compares a part of the object with what it was. */
interface Rule {
  readonly path: readonly string[];
  readonly message: string;
}

function rulesOf(schema: Schema, path: readonly string[] = []): Rule[] {
  const own = (schema['x-kubernetes-validations'] ?? []).map(({ rule, message = `failed rule: ${rule}` }) => {
    if (rule !== 'self == oldSelf') throw new Error(`the fake does not understand the rule ${rule}`);
    return { path, message };
  });
  const below = Object.entries(schema.properties ?? {}).flatMap(([name, node]) => rulesOf(node, [...path, name]));
  return [...own, ...below];
}

function changed({ path, message }: Rule, object: Json, previous: Json): Cause[] {
  const [now, before] = [object, previous].map((root) =>
    path.reduce<unknown>((value, name) => (value as Json | undefined)?.[name], root),
  );
  const applies = now !== undefined && before !== undefined;
  if (!applies || isDeepStrictEqual(now, before)) return [];
  return [{ reason: 'FieldValueInvalid', message: `Invalid value: ${message}`, field: path.join('.') }];
}

/** In the words of a real server, as far as they are known. */
function causeOf({ keyword, instancePath, params, message }: ErrorObject, object: Json): Cause {
  const path = instancePath.split('/').slice(1);
  const value = path.reduce<unknown>((part, name) => (part as Json | undefined)?.[name], object);
  const at = path.join('.');
  if (keyword === 'required') {
    const field = [...path, String(params['missingProperty'])].join('.');
    return { reason: 'FieldValueRequired', message: 'Required value', field };
  }
  if (keyword === 'enum') {
    const allowed = (params['allowedValues'] as unknown[]).map((one) => JSON.stringify(one)).join(', ');
    const said = `Unsupported value: ${JSON.stringify(value)}: supported values: ${allowed}`;
    return { reason: 'FieldValueNotSupported', message: said, field: at };
  }
  const reason = keyword === 'type' ? 'FieldValueTypeInvalid' : 'FieldValueInvalid';
  return { reason, message: `Invalid value: ${JSON.stringify(value)}: ${at} in body ${message}`, field: at };
}
