import { z } from 'zod';
import { LABELS } from '../../contract/keys.ts';
import { objectMeta } from '../../contract/object-meta.ts';
import type { ObjectCache } from '../control/cache.ts';

/** What is used of the pod of a checkpoint Job. */
export interface SourcePod {
  readonly name: string;
  readonly uid: string;
  readonly jobName: string;
  /** Undefined: it has no node yet. */
  readonly node: string | undefined;
}

/** Indexed by `job`: `namespace/name`. */
export type SourcePods = Pick<ObjectCache<SourcePod | undefined>, 'indexed'>;

const pod = z.looseObject({
  metadata: objectMeta,
  spec: z.looseObject({ nodeName: z.string().optional() }).optional(),
});

/** Reads a pod. Undefined: what the server sent is none, or belongs to no Job. */
export function readSourcePod(object: unknown): SourcePod | undefined {
  const { data } = pod.safeParse(object);
  const jobName = data?.metadata.labels?.[LABELS.jobName];
  if (data === undefined || jobName === undefined) return undefined;
  const { name, uid } = data.metadata;
  return { name, uid, jobName, node: data.spec?.nodeName || undefined };
}
