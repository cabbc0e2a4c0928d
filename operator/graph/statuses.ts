import type { DynamoGraphDeployment } from '../../contract/dynamo-graph-deployment.ts';
import { type ConditionWord, withCondition } from '../control/conditions.ts';
import type { ServiceDecision } from './decide.ts';
import type { RolloutOwner } from './ownership.ts';
import type { GraphState } from './rollout.ts';

type Status = DynamoGraphDeployment['status'];

/** What there is to be said of an object after a look at it. */
export interface Outlook {
  readonly decisions: readonly ServiceDecision[];
  readonly owner: RolloutOwner;
  /** What stood in the way of Deployments, in sentences. */
  readonly problems: readonly string[];
  /** Of its Deployments; undefined where they are not ours. */
  readonly state: GraphState | undefined;
  /** Of the object that was looked at. */
  readonly generation: number | undefined;
  readonly now: Date;
}

/** Condition types of a DynamoGraphDeployment. */
export const CONDITIONS = {
  /** All services that want a checkpoint have one that can be restored. */
  checkpoints: 'CheckpointsReady',
  /** A service has no workers because of its checkpoint. */
  held: 'WorkersHeld',
  /** This operator makes the Deployments. */
  rollout: 'PlainRollout',
} as const;

/** The status with what was found. What others keep in it stays. Pure. */
export function nextStatus({ status = {} }: DynamoGraphDeployment, outlook: Outlook): Status {
  const { decisions, state, generation, now } = outlook;
  const said = [checkpointsWord(outlook), heldWord(outlook), rolloutWord(outlook)].filter((word) => word !== undefined);
  let conditions = status.conditions ?? [];
  for (const word of said)
    conditions = [...withCondition(conditions, { ...word, observedGeneration: generation }, now)];
  // A word about something that is wanted no more would stay for ever.
  const isStale = (type: string) => OF_CHECKPOINTS.includes(type) && !said.some((word) => word.type === type);
  const kept = conditions.filter(({ type }) => !isStale(type));
  const checkpoints = checkpointsOf(decisions);
  return {
    ...status,
    ...(state === undefined ? {} : { state }),
    checkpoints,
    conditions: kept,
  };
}

const OF_CHECKPOINTS: readonly string[] = [CONDITIONS.checkpoints, CONDITIONS.held];

function checkpointsOf(decisions: readonly ServiceDecision[]): NonNullable<Status>['checkpoints'] {
  const entries = decisions.flatMap(({ component, checkpoint, word }) => {
    if (checkpoint === undefined) return [];
    const { name: checkpointName, id } = checkpoint;
    const ids = id === undefined ? {} : { checkpointID: id, identityHash: id };
    return [[component.name, { checkpointName, ...ids, ready: word?.isReady === true }] as const];
  });
  return entries.length === 0 ? undefined : Object.fromEntries(entries);
}

function checkpointsWord({ decisions }: Outlook): ConditionWord | undefined {
  const words = decisions.flatMap(({ word }) => word ?? []);
  const worst = words.find((word) => word.isTrouble) ?? words.find((word) => !word.isReady);
  if (words.length === 0) return undefined;
  return {
    type: CONDITIONS.checkpoints,
    status: worst === undefined ? 'True' : 'False',
    reason: worst?.reason ?? 'CheckpointsReady',
    message: words.map(({ message }) => message).join('; '),
  };
}

function heldWord({ decisions, owner }: Outlook): ConditionWord | undefined {
  if (!owner.isOurs || !decisions.some(({ word }) => word !== undefined)) return undefined;
  const held = decisions.flatMap(({ start, component, word }) =>
    start.kind === 'held' ? [{ start, name: component.name, word }] : [],
  );
  const names = held.map(({ name }) => name).join(', ');
  const stuck = held.find(({ start, word }) => start.failure !== undefined || word?.isTrouble === true);
  if (held.length === 0)
    return { type: CONDITIONS.held, status: 'False', reason: 'NoneHeld', message: 'no workers wait for a checkpoint' };
  const message = stuck?.word?.message ?? `workers of ${names} wait for their checkpoint`;
  return { type: CONDITIONS.held, status: 'True', reason: stuck?.word?.reason ?? 'WaitingForCheckpoint', message };
}

function rolloutWord({ owner, problems }: Outlook): ConditionWord {
  const type = CONDITIONS.rollout;
  if (!owner.isOurs) return { type, status: 'False', reason: owner.reason, message: owner.message };
  const message = problems.length === 0 ? 'each service has a Deployment of this operator' : problems.join('; ');
  return { type, status: 'True', reason: problems.length === 0 ? 'RolledOut' : 'RolloutProblem', message };
}
