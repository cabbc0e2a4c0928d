import { DYNAMO_CHECKPOINT, type DynamoCheckpoint, readDynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { checkpointIdOf } from '../../contract/identity.ts';
import { LABELS } from '../../contract/keys.ts';
import type { ObjectRead } from '../../contract/object-meta.ts';
import { resourcePath } from '../../kube/paths.ts';
import { type CacheOptions, ObjectCache } from '../control/cache.ts';
import { type JobView, readJob } from './job-view.ts';
import { readSourcePod, type SourcePod } from './source-pod.ts';

export type CheckpointRead = ObjectRead<DynamoCheckpoint>;

export const JOBS = { group: 'batch', version: 'v1', plural: 'jobs' } as const;
const PODS = { group: '', version: 'v1', plural: 'pods' } as const;

type Common = Pick<CacheOptions<never>, 'client' | 'log' | 'metrics' | 'timings' | 'resyncMs'> & {
  /** Left out: all. */
  readonly namespace?: string | undefined;
};

/** DynamoCheckpoints, indexed by `id`: `namespace/id`. */
export function newCheckpointCache({ namespace, ...common }: Common): ObjectCache<CheckpointRead> {
  return new ObjectCache<CheckpointRead>({
    ...common,
    path: resourcePath(DYNAMO_CHECKPOINT, namespace),
    resource: DYNAMO_CHECKPOINT.plural,
    read: readDynamoCheckpoint,
    indexes: { id: ({ value, meta }) => (value.result === 'read' ? [idKey(meta.namespace, value.object)] : []) },
  });
}

/** Under which value of the index `id` a checkpoint is. */
export function idKey(namespace: string, checkpoint: DynamoCheckpoint): string {
  return `${namespace}/${checkpointIdOf(checkpoint)}`;
}

/** Jobs of checkpoints. */
export function newJobCache({ namespace, ...common }: Common): ObjectCache<JobView | undefined> {
  return new ObjectCache<JobView | undefined>({
    ...common,
    path: resourcePath(JOBS, namespace),
    labelSelector: LABELS.checkpointId,
    resource: JOBS.plural,
    read: readJob,
  });
}

/** Pods of such Jobs, indexed by `job`: `namespace/name`. */
export function newSourcePodCache({ namespace, ...common }: Common): ObjectCache<SourcePod | undefined> {
  return new ObjectCache<SourcePod | undefined>({
    ...common,
    path: resourcePath(PODS, namespace),
    labelSelector: `${LABELS.checkpointSource}=true`,
    resource: 'source-pods',
    read: readSourcePod,
    indexes: { job: ({ value, meta }) => (value === undefined ? [] : [`${meta.namespace}/${value.jobName}`]) },
  });
}
