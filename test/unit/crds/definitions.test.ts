import { CustomResourceDefinition } from 'kubernetes-models/apiextensions.k8s.io/v1/CustomResourceDefinition';
import { describe, expect, it } from 'vitest';
import { DYNAMO_CHECKPOINT } from '../../../contract/dynamo-checkpoint.ts';
import { DYNAMO_GRAPH_DEPLOYMENT } from '../../../contract/dynamo-graph-deployment.ts';
import { customSchema, readDefinitions } from '../../fakes/kube-api/crds.ts';
import { type Schema, structuralProblems } from '../../fakes/kube-api/structural.ts';

const definitions = readDefinitions();

describe.each(definitions.map((definition) => [definition.metadata.name, definition] as const))(
  '%s',
  (name, definition) => {
    const { group, names, versions } = definition.spec;
    const [version] = versions;
    const schema = version?.schema.openAPIV3Schema ?? {};

    it('is a CustomResourceDefinition of apiextensions.k8s.io/v1', () => {
      type Data = ConstructorParameters<typeof CustomResourceDefinition>[0];
      expect(() => new CustomResourceDefinition(definition as unknown as Data).validate()).not.toThrow();
      expect(name).toBe(`${names.plural}.${group}`);
      expect(versions.filter(({ storage }) => storage)).toHaveLength(1);
    });

    it('has a structural schema', () => {
      expect(structuralProblems(schema)).toEqual([]);
    });

    it('has a status of its own', () => {
      expect(version?.subresources).toEqual({ status: {} });
    });

    it('is what the contract calls it', () => {
      const [kind] = [DYNAMO_CHECKPOINT, DYNAMO_GRAPH_DEPLOYMENT].filter(({ kind }) => kind === names.kind);
      expect(kind).toEqual({
        apiVersion: `${group}/${version?.name}`,
        ...{ kind: names.kind, group, version: version?.name, plural: names.plural },
      });
    });

    it('has defaults that its own schema takes', () => {
      const nodes = (node: Schema): Schema[] => [
        node,
        ...[...Object.values(node.properties ?? {}), node.items, node.additionalProperties].flatMap((below) =>
          typeof below === 'object' ? nodes(below) : [],
        ),
      ];
      const defaulted = nodes(schema).filter((node) => node.default !== undefined);
      expect(defaulted.length).toBeGreaterThan(0);
      for (const node of defaulted) {
        const holder = customSchema({ type: 'object', properties: { it: node } });
        expect(holder.causes(holder.fill({}))).toEqual([]);
      }
    });
  },
);

it('are the two that the operator needs, with the short names and columns of the original', () => {
  expect(definitions).toMatchObject([
    {
      spec: {
        names: { kind: 'DynamoCheckpoint', shortNames: ['dckpt'] },
        versions: [
          {
            name: 'v1alpha1',
            additionalPrinterColumns: ['Model', 'Backend', 'Phase', 'CheckpointID', 'Age'].map((column) => ({
              name: column,
            })),
          },
        ],
      },
    },
    { spec: { names: { kind: 'DynamoGraphDeployment', shortNames: ['dgd'] } } },
  ]);
});

describe('the rules of structural schemas', () => {
  const text: Schema = { type: 'string' };
  it.each<[string, Schema]>([
    ['.a: type is missing', { type: 'object', properties: { a: {} } }],
    ['.a: type text is none', { type: 'object', properties: { a: { type: 'text' } } }],
    ['.*: type is missing', { type: 'object', additionalProperties: {} }],
    ['.: an array without items', { type: 'array' }],
    ['[]: type is missing', { type: 'array', items: {} }],
    ['.: $ref is forbidden', { type: 'object', $ref: '#/a' }],
    ['.: uniqueItems must not be true', { type: 'array', items: text, uniqueItems: true }],
    ['.: additionalProperties must not be false', { type: 'object', additionalProperties: false }],
    [
      '.: properties and additionalProperties exclude each other',
      { type: 'object', properties: { a: text }, additionalProperties: text },
    ],
    ['.: type must not stand below anyOf', { type: 'string', anyOf: [text] }],
    ['.: default must not stand below not', { type: 'string', not: { default: 'a' } }],
    ['.: int-or-string must have no type', { type: 'string', 'x-kubernetes-int-or-string': true }],
    ['.: a list map without keys', { type: 'array', items: text, 'x-kubernetes-list-type': 'map' }],
    [
      '.: the key a is neither required nor has a default',
      {
        type: 'array',
        items: { type: 'object', properties: { a: text } },
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['a'],
      },
    ],
  ])('find: %s', (problem, schema) => {
    expect(structuralProblems(schema)).toEqual([problem]);
  });

  it('are kept by a server: it refuses such a schema, and a rule that it cannot check', () => {
    expect(() => customSchema({ type: 'array' })).toThrow('the schema is not structural: .: an array without items');
    const rule = { type: 'object', 'x-kubernetes-validations': [{ rule: 'self.a > 1' }] };
    expect(() => customSchema(rule)).toThrow('does not understand the rule self.a > 1');
  });
});
