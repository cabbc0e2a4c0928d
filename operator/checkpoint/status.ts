import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import type { Condition } from '../../contract/object-meta.ts';
import { type ConditionWord, withCondition } from '../control/conditions.ts';
import { type Attempt, type Decision, type Failure, type FailureReason, phaseOf } from './facts.ts';

type Status = NonNullable<DynamoCheckpoint['status']>;

/** What conditions say of a checkpoint. `JobCompleted` is deprecated: the phase is what counts. */
const TYPES = ['Supported', 'StorageReady', 'JobCreated', 'JobCompleted', 'ArtifactVerified', 'Ready'] as const;
type Word = Omit<ConditionWord, 'type' | 'observedGeneration'> & { readonly type: (typeof TYPES)[number] };

const UNSUPPORTED: readonly FailureReason[] = ['GMSSnapshotDisabled', 'BackendNotSupported', 'WorkerKindNotSupported'];
/** Those for which a Job was made. */
const AFTER_JOB: readonly FailureReason[] = [
  'JobDeleted',
  'JobFailed',
  'CheckpointVerificationFailed',
  'CheckpointNotConfirmed',
];

/** The statuses of decisions. Each is a pure function of the object; `now` is said in times that are new. */
export interface StatusOf {
  claimed(checkpoint: DynamoCheckpoint, checkpointId: string, now: Date): Status;
  restarted(checkpoint: DynamoCheckpoint, reason: string): Status;
  waiting(checkpoint: DynamoCheckpoint, wait: Decision & { readonly do: 'wait' }, now: Date): Status;
  created(checkpoint: DynamoCheckpoint, attempt: Attempt, now: Date): Status;
  following(checkpoint: DynamoCheckpoint, message: string): Status;
  ready(checkpoint: DynamoCheckpoint, decision: Decision & { readonly do: 'ready' }, now: Date): Status;
  failed(checkpoint: DynamoCheckpoint, failure: Failure, now: Date): Status;
}

export const STATUS: StatusOf = {
  claimed: (checkpoint, checkpointId, now) => ({
    ...said(checkpoint, [{ ...NOT_READY, reason: 'Pending', message: 'the checkpoint is not begun yet' }], now),
    phase: phaseOf(checkpoint),
    checkpointID: checkpointId,
    identityHash: checkpointId,
  }),
  restarted: ({ status = {} }, reason) => ({
    ...status,
    phase: 'Pending',
    jobName: undefined,
    createdAt: undefined,
    message: `begins anew: ${reason}`,
    // Those of the last try say nothing about the next one.
    conditions: status.conditions?.filter(({ type }) => !(TYPES as readonly string[]).includes(type)),
  }),
  waiting: (checkpoint, { for: what, message }, now) => {
    const storage = { type: 'StorageReady', status: 'False', reason: 'StorageNotReady', message } as const;
    return {
      ...said(checkpoint, what === 'storage' ? [storage] : [], now),
      // A wait before a new try leaves what the last one came to.
      phase: phaseOf(checkpoint),
      message: phaseOf(checkpoint) === 'Failed' ? checkpoint.status?.message : message,
    };
  },
  created: (checkpoint, { jobName }, now) => ({
    ...said(
      checkpoint,
      [
        {
          type: 'Supported',
          status: 'True',
          reason: 'Supported',
          message: 'nothing of it is known not to be supported',
        },
        { type: 'StorageReady', status: 'True', reason: 'StorageReady', message: 'its storage is there' },
        { type: 'JobCreated', status: 'True', reason: 'JobCreated', message: `Job ${jobName}` },
        { type: 'JobCompleted', status: 'False', reason: 'JobRunning', message: `Job ${jobName}` },
        { ...NOT_READY, reason: 'Creating', message: 'the checkpoint is being made' },
      ],
      now,
    ),
    phase: 'Creating',
    jobName,
    message: `Job ${jobName} is made`,
  }),
  following: ({ status }, message) => ({ ...status, message }),
  ready: (checkpoint, { verified }, now) => ({
    ...said(
      checkpoint,
      [
        { type: 'JobCompleted', status: 'True', reason: 'JobCompleted', message: 'the Job is complete' },
        verified.result === 'complete'
          ? { type: 'ArtifactVerified', status: 'True', reason: 'AgentConfirmed', message: 'an agent sees it complete' }
          : { type: 'ArtifactVerified', status: 'Unknown', reason: 'NotAsked', message: verified.why },
        { type: 'Ready', status: 'True', reason: 'CheckpointReady', message: 'the artifact is complete' },
      ],
      now,
    ),
    phase: 'Ready',
    createdAt: now.toISOString().replace(/\.\d+Z$/, 'Z'),
    message: '',
  }),
  failed: (checkpoint, failure, now) => ({
    ...said(checkpoint, failedWords(failure), now),
    phase: 'Failed',
    message: failure.message,
    ...(failure.jobName === undefined ? {} : { jobName: failure.jobName }),
  }),
};

const NOT_READY = { type: 'Ready', status: 'False' } as const;

function failedWords({ reason, message }: Failure): Word[] {
  const no = (type: Word['type']): Word => ({ type, status: 'False', reason, message });
  if (UNSUPPORTED.includes(reason)) return [no('Supported'), no('JobCreated'), no('Ready')];
  if (!AFTER_JOB.includes(reason)) return [no('JobCreated'), no('Ready')];
  const verified = reason === 'CheckpointVerificationFailed' ? [no('ArtifactVerified')] : [];
  return [no('JobCompleted'), ...verified, no('Ready')];
}

/** The status with these conditions said. */
function said({ metadata, status = {} }: DynamoCheckpoint, words: readonly Word[], now: Date): Status {
  const { generation } = metadata;
  const conditions = words.reduce<readonly Condition[]>(
    (list, word) => withCondition(list, { ...word, observedGeneration: generation }, now),
    status.conditions ?? [],
  );
  return conditions.length === 0 ? status : { ...status, conditions: [...conditions] };
}
