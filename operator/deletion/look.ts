import { DYNAMO_CHECKPOINT, type DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { checkpointIdOf } from '../../contract/identity.ts';
import { idCheckpointJobName } from '../../contract/names.ts';
import { cleanupJobName } from '../../contract/operator-names.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isGone } from '../../kube/error.ts';
import { resourcePath } from '../../kube/paths.ts';
import { readCleanupJob } from './cleanup-job.ts';
import type { DeletionParts } from './controller.ts';
import type { Facts, SourceJob } from './decide.ts';
import { versionsOf } from './policy.ts';
import { findVolume } from './volume.ts';

const JOBS = { group: 'batch', version: 'v1', plural: 'jobs' };
/** What restores need at most is waited for by looking again, not by holding a call. */
const WAIT_SECONDS = 0;

/** Names of DynamoCheckpoints beside this one that have its id and stay. */
export function rivalsOf(checkpoint: DynamoCheckpoint, checkpoints: DeletionParts['checkpoints']): string[] {
  const { namespace, uid } = checkpoint.metadata;
  const checkpointId = checkpointIdOf(checkpoint);
  return [...checkpoints.all()].flatMap(({ meta, value }) => {
    const isOther = meta.namespace === namespace && meta.uid !== uid && meta.deletionTimestamp === undefined;
    if (!isOther || value.result === 'malformed') return [];
    // Who failed before it had the id, as its duplicate, owns nothing: nobody would ever delete the artifacts.
    const { phase, checkpointID } = value.object.status ?? {};
    if (phase === 'Failed' && !checkpointID) return [];
    return checkpointIdOf(value.object) === checkpointId ? [meta.name] : [];
  });
}

/** The Jobs of all versions that are there and belong to the checkpoint, asked for just now. Throws KubeError. */
export async function sourceJobs(
  client: KubeClient,
  checkpoint: DynamoCheckpoint,
  signal: AbortSignal,
): Promise<readonly SourceJob[]> {
  const { namespace, uid } = checkpoint.metadata;
  const found = await Promise.all(
    jobNames(checkpoint).map((name) => find(client, resourcePath(JOBS, namespace, name), signal)),
  );
  return (found as (Job | undefined)[]).flatMap((job) => {
    const { name = '', ownerReferences = [], deletionTimestamp } = job?.metadata ?? {};
    if (!ownerReferences.some((owner) => owner.kind === DYNAMO_CHECKPOINT.kind && owner.uid === uid)) return [];
    const conditions = job?.status?.conditions ?? [];
    const isEnded = conditions.some(
      ({ type, status }) => status === 'True' && (type === 'Complete' || type === 'Failed'),
    );
    // One that is being deleted may have pods still.
    return [{ name, isEnded: isEnded && deletionTimestamp === undefined, isDeleting: deletionTimestamp !== undefined }];
  });
}

interface Job {
  readonly metadata?: {
    readonly name?: string;
    readonly deletionTimestamp?: string;
    readonly ownerReferences?: readonly { readonly kind: string; readonly uid: string }[];
  };
  readonly status?: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

function jobNames(checkpoint: DynamoCheckpoint): readonly string[] {
  const id = checkpointIdOf(checkpoint);
  const named = checkpoint.status?.jobName;
  const names = versionsOf(checkpoint.metadata).map((version) => idCheckpointJobName(id, version));
  return [...new Set([...names, ...(named ? [named] : [])])];
}

/** What is found out about a checkpoint at this place. Throws KubeError. */
export async function lookAt(
  parts: DeletionParts,
  at: 'lease' | 'word' | 'cleanup' | 'storage',
  { checkpoint, signal }: { readonly checkpoint: DynamoCheckpoint; readonly signal: AbortSignal },
): Promise<Partial<Facts>> {
  const { namespace, uid } = checkpoint.metadata;
  const checkpointId = checkpointIdOf(checkpoint);
  switch (at) {
    case 'lease': {
      const leased = jobNames(checkpoint).map((name) => parts.isLeased({ namespace, name }, signal));
      return { isLeased: (await Promise.all(leased)).includes(true) };
    }
    case 'word':
      return { word: await wordOf(parts, checkpoint, signal) };
    case 'cleanup': {
      const path = resourcePath(JOBS, namespace, cleanupJobName(checkpointId));
      return { cleanup: readCleanupJob(await find(parts.client, path, signal), { checkpointId, uid }) };
    }
    case 'storage':
      if (parts.config.cleanupImage === '')
        return { storage: { problem: 'checkpoint.cleanupImage is empty, and so is the variable OPERATOR_IMAGE' } };
      return { storage: await findVolume(parts.client, { namespace, ...parts.config }, signal) };
  }
}

/** One version after the other; what cannot be deleted ends it. */
async function wordOf({ agents }: DeletionParts, checkpoint: DynamoCheckpoint, signal: AbortSignal) {
  const { namespace } = checkpoint.metadata;
  const checkpointId = checkpointIdOf(checkpoint);
  // Those that it is known to have had, and those that were made before its policy was to delete them.
  const found = await agents.versions(namespace, checkpointId, { signal });
  const versions = [...(found.result === 'listed' ? found.versions : []), ...versionsOf(checkpoint.metadata)];
  for (const version of new Set(versions)) {
    const name = { namespace, checkpointId, version };
    const word = await agents.deleteArtifact(name, { waitSeconds: WAIT_SECONDS, signal });
    if (word.result === 'in-use' || word.result === 'unknown')
      return { result: word.result, why: `version ${version}: ${word.why}` };
  }
  return { result: 'gone' as const, why: '' };
}

async function find(client: KubeClient, path: string, signal: AbortSignal): Promise<unknown> {
  try {
    return await client.request({ method: 'GET', path, signal });
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}
