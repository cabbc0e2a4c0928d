import { z } from 'zod';
import { DYNAMO_CHECKPOINT } from '../../contract/dynamo-checkpoint.ts';
import { ANNOTATIONS, DEFAULT_ARTIFACT_VERSION } from '../../contract/keys.ts';
import { objectMeta } from '../../contract/object-meta.ts';
import { endOfJob, jobStatus } from '../control/job-status.ts';

/** What is used of a checkpoint's Job. */
export interface JobView {
  readonly name: string;
  readonly uid: string;
  /** The DynamoCheckpoints that own it, by name and uid. */
  readonly owners: readonly { readonly name: string; readonly uid: string }[];
  readonly isDeleting: boolean;
  /** Of the artifact that it is to make. */
  readonly version: string;
  /** What the agent said of its checkpoint. */
  readonly declared: 'completed' | 'failed' | undefined;
  readonly state: 'active' | 'complete' | 'failed';
  /** Why it failed, as Kubernetes says it. */
  readonly failure: string;
}

const job = z.looseObject({
  metadata: objectMeta,
  spec: z
    .looseObject({
      template: z
        .looseObject({
          metadata: z.looseObject({ annotations: z.record(z.string(), z.string()).nullish() }).nullish(),
        })
        .optional(),
    })
    .optional(),
  status: jobStatus.optional(),
});

/** Reads a Job. Undefined: what the server sent is none. */
export function readJob(object: unknown): JobView | undefined {
  const { data } = job.safeParse(object);
  if (data === undefined) return undefined;
  const { name, uid, annotations = {}, ownerReferences = [], deletionTimestamp } = data.metadata;
  const said = annotations[ANNOTATIONS.checkpointStatus];
  const ended = endOfJob(data.status);
  return {
    name,
    uid,
    owners: ownerReferences.filter(({ kind }) => kind === DYNAMO_CHECKPOINT.kind),
    isDeleting: deletionTimestamp !== undefined,
    version: data.spec?.template?.metadata?.annotations?.[ANNOTATIONS.artifactVersion] ?? DEFAULT_ARTIFACT_VERSION,
    declared: said === 'completed' || said === 'failed' ? said : undefined,
    state: ended === undefined ? 'active' : ended.type === 'Complete' ? 'complete' : 'failed',
    failure: ended?.type === 'Failed' ? [ended.reason, ended.message].filter(Boolean).join(': ') : '',
  };
}
