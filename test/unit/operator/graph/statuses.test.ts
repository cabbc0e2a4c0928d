import { describe, expect, it } from 'vitest';
import type { DynamoGraphDeployment } from '../../../../contract/dynamo-graph-deployment.ts';
import { decide } from '../../../../operator/graph/decide.ts';
import { nextStatus, type Outlook } from '../../../../operator/graph/statuses.ts';
import { autoGraph, automaticOf, componentOf, factsOf, WORKER } from './samples.ts';

const NOW = new Date('2026-01-01T00:00:00Z');
const WAIT = { 'checkpoint.startupPolicy': 'WaitForCheckpoint' };
function statusOf(phase: string | undefined, worker: object = {}, more: Partial<Outlook> = {}, before?: object) {
  const graph = autoGraph(worker as Record<string, unknown>);
  const component = componentOf(graph);
  const checkpoints = phase === undefined ? [] : [automaticOf(component, { phase })];
  const decisions = [decide(factsOf(component, checkpoints)), decide(factsOf(componentOf(graph, 'Frontend')))];
  const outlook: Outlook = {
    ...{ decisions, owner: { isOurs: true }, problems: [], state: 'pending', generation: 3, now: NOW, ...more },
  };
  return nextStatus({ ...graph, ...(before && { status: before }) } as DynamoGraphDeployment, outlook);
}
const said = (status: DynamoGraphDeployment['status'], type: string) =>
  status?.conditions?.filter((one) => one.type === type).map((one) => [one.status, one.reason]);

describe('the status of a DynamoGraphDeployment', () => {
  it('has the checkpoints of its services under the names that people ask for', () => {
    const { checkpoints = {} } = statusOf('Ready') ?? {};
    const { checkpointName, checkpointID } = checkpoints[WORKER] ?? {};
    expect(checkpoints).toEqual({
      [WORKER]: { checkpointName, checkpointID, identityHash: checkpointID, ready: true },
    });
    expect(checkpointName).toBe(`checkpoint-${checkpointID}`);
    expect(statusOf('Creating')?.checkpoints?.[WORKER]).toMatchObject({ checkpointName, ready: false });
    expect(
      statusOf('Ready', { checkpoint: undefined }, {}, { checkpoints: { gone: {} } })?.checkpoints,
    ).toBeUndefined();
  });

  it.each([
    ['Ready', {}, ['True', 'CheckpointsReady'], ['False', 'NoneHeld']],
    ['Creating', {}, ['False', 'CheckpointNotReady'], ['False', 'NoneHeld']],
    ['Failed', {}, ['False', 'CheckpointFailed'], ['False', 'NoneHeld']],
    ['Ready', WAIT, ['True', 'CheckpointsReady'], ['False', 'NoneHeld']],
    ['Creating', WAIT, ['False', 'CheckpointNotReady'], ['True', 'WaitingForCheckpoint']],
    ['Failed', WAIT, ['False', 'CheckpointFailed'], ['True', 'CheckpointFailed']],
    [undefined, WAIT, ['False', 'CheckpointCreating'], ['True', 'WaitingForCheckpoint']],
  ])('says of a checkpoint that is %s with %j', (phase, worker, ready, held) => {
    const status = statusOf(phase, worker);
    expect(said(status, 'CheckpointsReady')).toEqual([ready]);
    expect(said(status, 'WorkersHeld')).toEqual([held]);
    expect(status?.conditions?.every((one) => one.observedGeneration === 3)).toBe(true);
  });

  it('says who rolls out, and what stands in the way', () => {
    expect(said(statusOf('Ready'), 'PlainRollout')).toEqual([['True', 'RolledOut']]);
    expect(said(statusOf('Ready', {}, { problems: ['p', 'q'] }), 'PlainRollout')).toEqual([['True', 'RolloutProblem']]);
    const owner = { isOurs: false, reason: 'OtherController', message: 'm' } as const;
    const theirs = statusOf('Failed', WAIT, { owner, state: undefined }, { state: 'theirs', more: 1 });
    expect(said(theirs, 'PlainRollout')).toEqual([['False', 'OtherController']]);
    // Whether workers wait is theirs to say, and so is the state.
    expect(said(theirs, 'WorkersHeld')).toEqual([]);
    expect(theirs).toMatchObject({ state: 'theirs', more: 1 });
  });

  it('forgets what it said of checkpoints that are wanted no more, and keeps what others say', () => {
    const theirs = { type: 'Available', status: 'True', reason: 'R', message: '', lastTransitionTime: 't' };
    const before = { ...statusOf('Ready'), conditions: [theirs, ...(statusOf('Ready')?.conditions ?? [])] };
    const after = statusOf('Ready', { checkpoint: undefined }, {}, before);
    expect(after?.conditions?.map(({ type }) => type)).toEqual(['Available', 'PlainRollout']);
  });

  it('is the same when it is said again', () => {
    const once = statusOf('Failed', WAIT);
    expect(statusOf('Failed', WAIT, { now: new Date('2027-01-01T00:00:00Z') }, once)).toEqual(once);
  });
});
