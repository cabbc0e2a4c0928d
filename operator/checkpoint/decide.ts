import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { LABELS } from '../../contract/keys.ts';
import { attemptOf, wantsRetry } from './attempt.ts';
import { decideCreating } from './creating.ts';
import { type Attempt, type Decision, type Facts, type Failure, phaseOf, type Rival } from './facts.ts';
import { unsupported } from './support.ts';

/**
 * What is to be done next about a checkpoint, from what is known: one thing at a time, and where a fact is missing, which one to look at.
 * Whoever does it and decides again comes to the end. Pure; it throws nothing.
 */
export function decide(checkpoint: DynamoCheckpoint, facts: Facts): Decision {
  if (checkpoint.metadata.deletionTimestamp !== undefined) return { do: 'rest', reason: 'it is being deleted' };
  const attempt = attemptOf(checkpoint);
  const phase = phaseOf(checkpoint);
  if (phase === 'Ready' || phase === 'Failed') return decideEnded(checkpoint, attempt, facts);
  if (wantsRetry(checkpoint)) return { do: 'forget-retry' };
  if ('do' in attempt) return attempt;
  const unclear = unclearOwner(checkpoint, attempt, facts.rivals) ?? unsaid(checkpoint, attempt);
  if (unclear !== undefined) return unclear;
  return phase === 'Creating' ? decideCreating(checkpoint, attempt, facts) : decidePending(checkpoint, attempt, facts);
}

/** Name of the Job that a look is about: the one that was made, else the one that is to be made. */
export function jobNameOf(checkpoint: DynamoCheckpoint): string | undefined {
  const attempt = attemptOf(checkpoint);
  const made = phaseOf(checkpoint) === 'Pending' ? '' : checkpoint.status?.jobName;
  return made || ('do' in attempt ? undefined : attempt.jobName);
}

/** Ready and Failed are for good, but for another version, or for who asks for a try more. */
function decideEnded(checkpoint: DynamoCheckpoint, attempt: Attempt | Failure, { job }: Facts): Decision {
  const phase = phaseOf(checkpoint);
  const made = checkpoint.status?.jobName;
  if (!('do' in attempt) && made && made !== attempt.jobName)
    return { do: 'restart', reason: `the next Job is ${attempt.jobName}` };
  if (phase === 'Failed' && !('do' in attempt) && wasMisnamed(checkpoint))
    return { do: 'restart', reason: 'its ID and version are correct now' };
  if (phase !== 'Failed' || !wantsRetry(checkpoint)) return { do: 'rest', reason: `it is ${phase}` };
  if (!job.isLive) return { do: 'look', at: 'job' };
  // What the last try left says how that one ended.
  if (job.job !== undefined && isOwn(checkpoint, job.job.owners))
    return job.job.isDeleting
      ? { do: 'wait', for: 'deletion', message: `Job ${job.job.name} of the last try is being deleted` }
      : { do: 'delete-job', job: job.job };
  return { do: 'restart', reason: 'somebody asked for a try more' };
}

/** It failed by a label or annotation that somebody can correct, before there was a Job whose name could tell of another try. */
function wasMisnamed({ status }: DynamoCheckpoint): boolean {
  const reason = status?.conditions?.find(({ type }) => type === 'Ready')?.reason ?? '';
  return reason === 'InvalidCheckpointID' || reason === 'InvalidArtifactVersion';
}

const isOwn = ({ metadata }: DynamoCheckpoint, owners: readonly { readonly uid: string }[]) =>
  owners.some(({ uid }) => uid === metadata.uid);

/** An id has one owner in a namespace: who has claimed it, else who is older. */
function unclearOwner(
  checkpoint: DynamoCheckpoint,
  { checkpointId }: Attempt,
  rivals: readonly Rival[],
): Decision | undefined {
  const { name, uid, creationTimestamp = '' } = checkpoint.metadata;
  const self = {
    ...{ name, uid, creationTimestamp, isDeleting: false },
    hasClaimed: checkpoint.status?.checkpointID === checkpointId,
  };
  const owner = [self, ...rivals].reduce((best, one) => (isBefore(one, best) ? one : best));
  if (owner === self) return undefined;
  if (owner.isDeleting)
    return {
      do: 'wait',
      for: 'deletion',
      message: `checkpoint ID ${checkpointId} is still owned by ${owner.name}, which is being deleted`,
    };
  return {
    do: 'fail',
    reason: 'DuplicateCheckpointID',
    message: `checkpoint ID ${checkpointId} is already owned by ${owner.name}`,
  };
}

function isBefore(a: Rival, b: Rival): boolean {
  if (a.hasClaimed !== b.hasClaimed) return a.hasClaimed;
  if (a.creationTimestamp !== b.creationTimestamp) return a.creationTimestamp < b.creationTimestamp;
  return a.name < b.name;
}

/** What status and label do not say yet. */
function unsaid({ metadata, status }: DynamoCheckpoint, { checkpointId }: Attempt): Decision | undefined {
  const isClaimed = status?.checkpointID === checkpointId && status.identityHash === checkpointId;
  if (!isClaimed || !status.phase) return { do: 'claim', checkpointId };
  return metadata.labels?.[LABELS.checkpointId] === checkpointId ? undefined : { do: 'label', checkpointId };
}

function decidePending(checkpoint: DynamoCheckpoint, attempt: Attempt, { storage }: Facts): Decision {
  const refusal = unsupported(checkpoint);
  if (refusal !== undefined) return { do: 'fail', ...refusal };
  if (storage === undefined) return { do: 'look', at: 'storage' };
  if (storage.result === 'not-ready') return { do: 'wait', for: 'storage', message: storage.problem };
  return { do: 'make-job', attempt, storage };
}
