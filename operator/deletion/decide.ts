import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { checkpointIdOf } from '../../contract/identity.ts';
import { idProblem } from '../../contract/ids.ts';
import { ANNOTATIONS } from '../../contract/keys.ts';
import type { CleanupJob } from './cleanup-job.ts';
import { FINALIZER, policyOf, versionsOf } from './policy.ts';

/** A Job that made, or makes, an artifact of the checkpoint. */
export interface SourceJob {
  readonly name: string;
  readonly isEnded: boolean;
  readonly isDeleting: boolean;
}

/** The claim with the artifacts, in the checkpoint's namespace. */
export interface Volume {
  readonly claim: string;
  readonly basePath: string;
}

/** What is known of the world around a checkpoint that is being deleted. What is undefined was not looked at yet. */
export interface Facts {
  /** Other DynamoCheckpoints of the namespace with the same id that stay. */
  readonly rivals: readonly string[];
  readonly jobs: readonly SourceJob[];
  /** Whether an agent is still at work for one of its Jobs. */
  readonly isLeased?: boolean;
  /** What agents say of all versions together: the worst of it. */
  readonly word?: { readonly result: 'gone' | 'in-use' | 'unknown'; readonly why: string };
  readonly cleanup?: CleanupJob;
  readonly storage?: Volume | { readonly problem: string } | { readonly gone: string };
}

export type Decision =
  | { readonly do: 'rest' }
  /** Put this into the metadata. */
  | {
      readonly do: 'amend';
      readonly finalizers: readonly string[];
      readonly annotations: Readonly<Record<string, string>>;
    }
  /** Let the object go. */
  | { readonly do: 'release'; readonly why: Release; readonly message: string }
  | { readonly do: 'delete-job'; readonly name: string }
  | { readonly do: 'look'; readonly at: 'lease' | 'word' | 'cleanup' | 'storage' }
  | { readonly do: 'wait'; readonly for: Wait; readonly message: string }
  | { readonly do: 'make-cleanup-job'; readonly checkpointId: string; readonly volume: Volume }
  /** Its name is needed for the next one. `failure`: what it failed with; then the next one comes later and later. */
  | {
      readonly do: 'remove-cleanup-job';
      readonly name: string;
      readonly uid: string;
      readonly failure: string | undefined;
    };

export type Release = 'deleted' | 'retained' | 'shared' | 'nothing';
type Wait = 'job' | 'agent' | 'reader' | 'cleanup' | 'foreign-job' | 'storage';

/** What is due for a checkpoint's artifacts. */
export function decide(checkpoint: DynamoCheckpoint, facts: Facts): Decision {
  const { metadata } = checkpoint;
  if (metadata.deletionTimestamp === undefined) return held(checkpoint);
  if (!metadata.finalizers?.includes(FINALIZER)) return { do: 'rest' };
  return leaving(checkpoint, facts);
}

/** A finalizer on what is to go with its artifacts, and on nothing else. */
function held({ metadata }: DynamoCheckpoint): Decision {
  const { finalizers = [], annotations = {} } = metadata;
  const isHeld = finalizers.includes(FINALIZER);
  if (policyOf(metadata).artifacts === 'Retain') {
    if (!isHeld) return { do: 'rest' };
    return { do: 'amend', finalizers: finalizers.filter((one) => one !== FINALIZER), annotations };
  }
  const versions = versionsOf(metadata).join(',');
  if (isHeld && annotations[ANNOTATIONS.artifactVersions] === versions) return { do: 'rest' };
  return {
    do: 'amend',
    finalizers: isHeld ? finalizers : [...finalizers, FINALIZER],
    annotations: { ...annotations, [ANNOTATIONS.artifactVersions]: versions },
  };
}

function leaving(checkpoint: DynamoCheckpoint, facts: Facts): Decision {
  const { metadata, status } = checkpoint;
  const checkpointId = checkpointIdOf(checkpoint);
  const { artifacts, problem } = policyOf(metadata);
  if (artifacts === 'Retain')
    return release('retained', problem ?? `artifacts of checkpoint ${checkpointId} are kept, as its policy is Retain`);
  const wrong = idProblem(checkpointId);
  if (wrong !== undefined)
    return release('nothing', `checkpoint ID "${checkpointId}" ${wrong}: it can have no artifact`);
  const [rival] = facts.rivals;
  if (rival !== undefined)
    return release(
      'shared',
      `artifacts of checkpoint ${checkpointId} are kept: DynamoCheckpoint ${rival} has the same ID`,
    );
  const running = facts.jobs.find(({ isEnded }) => !isEnded);
  if (running !== undefined && !running.isDeleting) return { do: 'delete-job', name: running.name };
  if (running !== undefined) return wait('job', `Job ${running.name} is being deleted`);
  if (!status?.jobName && facts.jobs.length === 0)
    return release('nothing', `checkpoint ${checkpointId} never had a Job: there is no artifact to delete`);
  return emptying(checkpointId, facts);
}

/** Nobody makes an artifact any more: those that are there go. */
function emptying(checkpointId: string, { isLeased, word, cleanup, storage }: Facts): Decision {
  if (isLeased === undefined) return { do: 'look', at: 'lease' };
  if (isLeased) return wait('agent', 'an agent still works on the checkpoint');
  if (word === undefined) return { do: 'look', at: 'word' };
  if (word.result === 'gone') return release('deleted', `artifacts of checkpoint ${checkpointId} are deleted`);
  if (word.result === 'in-use') return wait('reader', `artifacts of checkpoint ${checkpointId}: ${word.why}`);
  if (cleanup === undefined) return { do: 'look', at: 'cleanup' };
  const { name } = cleanup;
  if (cleanup.state === 'foreign')
    return wait('foreign-job', `Job ${name} is there and is not ours: delete it, so that the artifacts can be deleted`);
  if (cleanup.state === 'active') return wait('cleanup', `Job ${name} deletes the artifacts`);
  if (cleanup.state === 'complete')
    return release('deleted', `artifacts of checkpoint ${checkpointId} are deleted, by Job ${name}`);
  if (cleanup.state === 'stale' || cleanup.state === 'failed') {
    const failure =
      cleanup.state === 'failed' ? `Job ${name} could not delete the artifacts: ${cleanup.why}` : undefined;
    return { do: 'remove-cleanup-job', name, uid: cleanup.uid, failure };
  }
  if (storage === undefined) return { do: 'look', at: 'storage' };
  if ('gone' in storage)
    return release('nothing', `${storage.gone} is not there, and the artifacts that were on it neither`);
  if ('problem' in storage) return wait('storage', `${word.why}; and no Job can: ${storage.problem}`);
  return { do: 'make-cleanup-job', checkpointId, volume: storage };
}

const release = (why: Release, message: string): Decision => ({ do: 'release', why, message });
const wait = (what: Wait, message: string): Decision => ({ do: 'wait', for: what, message });
