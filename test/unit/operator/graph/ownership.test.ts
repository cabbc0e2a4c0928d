import { describe, expect, it } from 'vitest';
import { type OwnershipFacts, rolloutOwner } from '../../../../operator/graph/ownership.ts';
import { autoGraph, deployment } from './samples.ts';

const NOW = new Date('2026-01-01T00:01:00Z');
const graph = (metadata: Readonly<Record<string, unknown>> = {}) =>
  autoGraph(
    {},
    {
      'metadata.creationTimestamp': '2026-01-01T00:00:00Z',
      ...Object.fromEntries(Object.entries(metadata).map(([name, value]) => [`metadata.${name}`, value])),
    },
  );
const owner = (more: Partial<OwnershipFacts> = {}) =>
  rolloutOwner({ graph: graph(), neighbours: [], deployments: [], mode: 'auto', settleMs: 10_000, now: NOW, ...more });
const ofGraph = [{ apiVersion: 'v', kind: 'DynamoGraphDeployment', name: 'vllm-auto-demo', uid: 'u' }];
const managed = { 'app.kubernetes.io/managed-by': 'snapshot-operator' };
const ours = deployment('ours', { labels: managed, ownerReferences: ofGraph });
const written = (manager: string, subresource?: string) => [
  { manager, operation: 'Update', subresource, fieldsType: 'FieldsV1' },
];

describe('who rolls out', () => {
  it('is what the configuration says, whatever else there is', () => {
    const foreign = graph({ finalizers: ['nvidia.com/finalizer'] });
    expect(owner({ graph: foreign, mode: 'on' })).toEqual({ isOurs: true });
    expect(owner({ mode: 'off' })).toMatchObject({ isOurs: false, reason: 'SwitchedOff' });
  });

  it.each([
    ['a finalizer', { graph: graph({ finalizers: ['nvidia.com/finalizer'] }) }, 'nvidia.com/finalizer'],
    [
      'who writes its status',
      { graph: graph({ managedFields: written('manager', 'status') }) },
      'manager writes the status',
    ],
    ['a neighbour', { neighbours: [graph({ name: 'n', finalizers: ['f.example.com/x'] })] }, 'holds n'],
    [
      'a child by its owner',
      { deployments: [deployment('theirs', { ownerReferences: ofGraph })] },
      'Deployment theirs',
    ],
    [
      'a child by its label',
      {
        deployments: [
          deployment('theirs', { labels: { 'nvidia.com/dynamo-graph-deployment-name': 'vllm-auto-demo' } }),
        ],
      },
      'Deployment theirs',
    ],
  ])('is another controller, told by %s', (_, facts, message) => {
    expect(owner(facts)).toMatchObject({
      ...{ isOurs: false, reason: 'OtherController', message: expect.stringContaining(message) },
    });
    expect(owner(facts)).toHaveProperty('message', expect.stringContaining('graph.rollout'));
  });

  it('is another controller even where ours began, and what ours made is named as left', () => {
    const facts = { deployments: [ours], graph: graph({ finalizers: ['nvidia.com/finalizer'] }) };
    expect(owner(facts)).toMatchObject({ isOurs: false, message: expect.stringContaining('stay as they are') });
  });

  it.each([
    ['nothing', {}],
    ['our own status', { graph: graph({ managedFields: written('snapshot-operator', 'status') }) }],
    [
      'people',
      {
        graph: graph({
          managedFields: [...written('kubectl-client-side-apply'), ...written('kubectl-edit', 'status')],
        }),
      },
    ],
    ['who applies it', { graph: graph({ managedFields: written('argocd-controller') }) }],
    ['a deletion', { graph: graph({ finalizers: ['foregroundDeletion'] }) }],
    ['our Deployments', { deployments: [ours] }],
    ['Deployments of others', { deployments: [deployment('web')] }],
    ['odd fields', { graph: graph({ managedFields: 'x' }) }],
  ])('is ours where there is %s', (_, facts) => expect(owner(facts)).toEqual({ isOurs: true }));

  it('is not told yet of a new object, unless ours began it before', () => {
    const now = new Date('2026-01-01T00:00:04Z');
    expect(owner({ now })).toMatchObject({ isOurs: false, reason: 'LookingForController', againMs: 6_000 });
    expect(owner({ now, deployments: [ours] })).toEqual({ isOurs: true });
    expect(owner({ now, settleMs: 0 })).toEqual({ isOurs: true });
    expect(owner({ now, graph: graph({ creationTimestamp: undefined }) })).toEqual({ isOurs: true });
  });
});
