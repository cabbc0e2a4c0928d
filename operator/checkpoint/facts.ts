import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import type { ArtifactWord } from '../agents/agents.ts';
import type { StorageFound } from '../storage/source.ts';
import type { JobView } from './job-view.ts';

/** Another DynamoCheckpoint of the namespace that has the same id. */
export interface Rival {
  readonly name: string;
  readonly uid: string;
  readonly creationTimestamp: string;
  /** Its status says the id, and it is no one's duplicate. */
  readonly hasClaimed: boolean;
  readonly isDeleting: boolean;
}

/** The Job of the name that counts. */
interface JobLook {
  readonly job: JobView | undefined;
  /** It was asked for just now; else it is what the cache has, which may lag behind. */
  readonly isLive: boolean;
}

/** What is known of the world around a checkpoint. What is undefined was not looked at yet. */
export interface Facts {
  readonly rivals: readonly Rival[];
  readonly job: JobLook;
  /** Whether an agent holds the Job's lease. */
  readonly lease?: { readonly isActive: boolean };
  readonly storage?: StorageFound;
  readonly artifact?: ArtifactWord;
  /** What the agent's Event says of the failure. `isFinal`: what did not come yet is not waited for. */
  readonly word?: { readonly text: string | undefined; readonly isFinal: boolean };
}

/** What can be looked at. */
export type Look = 'job' | 'lease' | 'storage' | 'artifact' | 'word';

export type Decision =
  /** A fact is missing. */
  | { readonly do: 'look'; readonly at: Look }
  /** Nothing, until something changes. */
  | { readonly do: 'rest'; readonly reason: string }
  /** Nothing now. `message`: what is waited for, for people. */
  | { readonly do: 'wait'; readonly for: WaitFor; readonly message: string }
  /** Take the id. */
  | { readonly do: 'claim'; readonly checkpointId: string }
  | { readonly do: 'label'; readonly checkpointId: string }
  /** Back to Pending. */
  | { readonly do: 'restart'; readonly reason: string }
  /** The annotation that asks for a try more has done its work. */
  | { readonly do: 'forget-retry' }
  | { readonly do: 'delete-job'; readonly job: JobView }
  | {
      readonly do: 'make-job';
      readonly attempt: Attempt;
      readonly storage: StorageFound & { readonly result: 'ready' };
    }
  /** The Job is at work. `message`: where no agent says more. */
  | { readonly do: 'follow'; readonly attempt: Attempt; readonly message: string }
  | { readonly do: 'ready'; readonly verified: ArtifactWord & { readonly result: 'complete' | 'unknown' } }
  | Failure;

export type WaitFor = 'lease' | 'event' | 'storage' | 'deletion' | 'permission';

/** Why a checkpoint is Failed. docs/checkpoints.md says what to do about each. */
export const FAILURE_REASONS = [
  'InvalidCheckpointID',
  'InvalidArtifactVersion',
  'DuplicateCheckpointID',
  'GMSSnapshotDisabled',
  'BackendNotSupported',
  'WorkerKindNotSupported',
  'InvalidPodTemplate',
  'JobNameTaken',
  'JobRefused',
  'JobDeleted',
  'JobFailed',
  'CheckpointVerificationFailed',
  'CheckpointNotConfirmed',
] as const;

export type FailureReason = (typeof FAILURE_REASONS)[number];

export interface Failure {
  readonly do: 'fail';
  readonly reason: FailureReason;
  readonly message: string;
  /** The Job that could not be made; with another version there is another one. */
  readonly jobName?: string;
}

/** One try at a checkpoint: what its artifact and its Job are called. */
export interface Attempt {
  readonly checkpointId: string;
  readonly version: string;
  readonly jobName: string;
}

export type Phase = 'Pending' | 'Creating' | 'Ready' | 'Failed';

/** Who never had a phase is Pending. */
export function phaseOf({ status }: Pick<DynamoCheckpoint, 'status'>): Phase {
  return status?.phase || 'Pending';
}
