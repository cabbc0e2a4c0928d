import { describe, expect, it } from 'vitest';
import { decide, type Facts } from '../../../../operator/graph/decide.ts';
import { pastCheckpoints } from '../../../../operator/graph/generations.ts';
import { autoGraph, automaticOf, checkpoint, componentOf, factsOf, WORKER } from './samples.ts';

const AUTO = { 'metadata.annotations': { 'nvidia.com/dynamo-auto-checkpoint': 'true' } };
const labels = (component: string) => ({ 'nvidia.com/dynamo-component': component });
const old = (name: string, hour: number, more: object = {}) =>
  checkpoint({
    ...{ 'metadata.name': name, 'metadata.creationTimestamp': `2026-01-01T0${hour}:00:00Z` },
    'metadata.ownerReferences': [{ apiVersion: 'v', kind: 'DynamoGraphDeployment', name: 'x', uid: 'u' }],
    ...{ 'metadata.labels': labels(WORKER), ...AUTO, ...more },
  });
const component = componentOf(autoGraph());
const current = automaticOf(component, { phase: 'Ready' }, { ...AUTO, 'metadata.labels': labels(WORKER) });
function past(
  all: readonly ReturnType<typeof checkpoint>[],
  kept = 1,
  worker: object = {},
  facts: Partial<Facts> = {},
) {
  const graph = autoGraph(worker as Record<string, unknown>);
  const decisions = [decide(factsOf(componentOf(graph), all, facts))];
  return pastCheckpoints(graph, { checkpoints: all, decisions, kept }).map(({ metadata }) => metadata.name);
}

describe('checkpoints of past generations', () => {
  it.each([
    [0, ['c', 'b', 'a']],
    [1, ['b', 'a']],
    [2, ['a']],
    [3, []],
  ])('go but for the newest %i', (kept, names) => {
    expect(past([old('a', 1), current, old('c', 3), old('b', 2)], kept)).toEqual(names);
  });

  it.each([
    ['was not made here', { 'metadata.annotations': undefined }],
    ['is of another object', { 'metadata.ownerReferences': undefined }],
    ['is being deleted', { 'metadata.deletionTimestamp': '2026-01-01T00:00:00Z' }],
    ['is in another namespace', { 'metadata.namespace': 'other' }],
  ])('stay where one %s', (_, more) => expect(past([old('a', 1, more)], 0)).toEqual([]));

  it('go with a service that is gone', () => {
    expect(past([old('a', 1, { 'metadata.labels': labels('Gone') }), old('b', 1)], 1)).toEqual(['a']);
  });

  it('are kept as ever where the service wants none any more, and all where its generation cannot be told', () => {
    expect(past([old('a', 1), old('b', 2)], 1, { checkpoint: undefined })).toEqual(['a']);
    expect(past([old('a', 1), old('b', 2)], 0, {}, { isEnabled: false })).toEqual([]);
    expect(past([old('a', 1), old('b', 2)], 0, { 'extraPodSpec.mainContainer.image': '' })).toEqual([]);
  });

  it('are not the one that is referred to', () => {
    expect(past([old('a', 1)], 0, { 'checkpoint.checkpointRef': 'a' })).toEqual([]);
  });
});
