import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import type { Attempt, Decision, Facts, FailureReason } from './facts.ts';
import type { JobView } from './job-view.ts';

/** The Job was made. It is Complete, and the agent has said so: only both together are a checkpoint. */
export function decideCreating(checkpoint: DynamoCheckpoint, next: Attempt, facts: Facts): Decision {
  const { job, isLive } = facts.job;
  const attempt = { ...next, jobName: checkpoint.status?.jobName || next.jobName };
  if (job === undefined || !job.owners.some(({ uid }) => uid === checkpoint.metadata.uid))
    return isLive ? gone(job) : { do: 'look', at: 'job' };
  if (job.declared === 'failed' || job.state === 'failed') return failed(job, facts);
  if (job.state === 'active')
    return {
      do: 'follow',
      attempt,
      message:
        job.declared === 'completed'
          ? 'the artifact is complete; the worker ends'
          : `Job ${job.name} runs: its worker loads, and is checkpointed once it is ready`,
    };
  return job.declared === 'completed' ? verified(facts) : unconfirmed(facts);
}

function gone(other: JobView | undefined): Decision {
  const more = other === undefined ? '' : `; Job ${other.name} is another one`;
  return { do: 'fail', reason: 'JobDeleted', message: `checkpoint job was deleted${more}` };
}

/** The agent's own words are in an Event, which may come a moment later. */
function failed(job: JobView, { word }: Facts): Decision {
  if (word === undefined) return { do: 'look', at: 'word' };
  if (word.text === undefined && !word.isFinal)
    return { do: 'wait', for: 'event', message: `Job ${job.name} has failed` };
  const isEnded = job.declared === 'failed' && job.state === 'complete';
  const reason: FailureReason = isEnded ? 'CheckpointVerificationFailed' : 'JobFailed';
  return { do: 'fail', reason, message: word.text ?? failureOf(job) };
}

function failureOf({ name, state, declared, failure }: JobView): string {
  if (state === 'failed') return `checkpoint job ${name} failed${failure === '' ? '' : `: ${failure}`}`;
  if (declared === 'failed' && state === 'complete')
    return `checkpoint job ${name} completed, and the snapshot-agent says that its checkpoint failed`;
  return `the snapshot-agent says that the checkpoint of job ${name} failed`;
}

function verified({ artifact }: Facts): Decision {
  if (artifact === undefined) return { do: 'look', at: 'artifact' };
  if (artifact.result === 'complete' || artifact.result === 'unknown') return { do: 'ready', verified: artifact };
  const what =
    artifact.result === 'broken'
      ? `the artifact cannot be used: ${artifact.problem}`
      : 'the agent of its node sees no artifact, or none that the operator may see (api.clients of the agent)';
  return { do: 'fail', reason: 'CheckpointVerificationFailed', message: what };
}

/** An agent that holds the lease may be about to say so. After that the Job is asked once more: it may have been said in between. */
function unconfirmed({ lease, job }: Facts): Decision {
  if (lease === undefined) return { do: 'look', at: 'lease' };
  if (lease.isActive)
    return { do: 'wait', for: 'lease', message: 'the Job is complete; the agent confirms its artifact' };
  if (!job.isLive) return { do: 'look', at: 'job' };
  return {
    do: 'fail',
    reason: 'CheckpointNotConfirmed',
    message: 'Checkpoint job completed without snapshot-agent completion confirmation',
  };
}
