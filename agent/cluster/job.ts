import { z } from 'zod';
import { ANNOTATIONS } from '../../contract/keys.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, isGone, KubeError } from '../../kube/error.ts';
import { kubePath } from '../../kube/paths.ts';
import { CALL_TIMEOUT_MS } from './insist.ts';

export type JobStatus = 'completed' | 'failed';

export interface JobPlace {
  readonly namespace: string;
  readonly name: string;
  /** Of the Job that owns the pod: one of the same name that was made later is another. */
  readonly uid: string;
}

export interface Job {
  readonly resourceVersion: string;
  /** What it was declared, where it was. */
  readonly status: JobStatus | undefined;
}

const jobObject = z.object({
  metadata: z.object({
    uid: z.string(),
    resourceVersion: z.string(),
    annotations: z.record(z.string(), z.string()).default({}),
  }),
});

/** Others write Jobs as well: kubelet's reports reach their status, and each of them makes a new version of the object. */
const MAX_CONFLICTS = 8;
const GONE: Declared = { status: 'gone', isNew: false };

const pathOf = ({ namespace, name }: JobPlace) =>
  kubePath('apis', 'batch', 'v1', 'namespaces', namespace, 'jobs', name);

/** Undefined where it is gone, or another one has its name. Throws KubeError. */
export async function readJob(client: KubeClient, place: JobPlace, signal: AbortSignal): Promise<Job | undefined> {
  try {
    const path = pathOf(place);
    const answer = await client.request({ method: 'GET', path, timeoutMs: CALL_TIMEOUT_MS, signal });
    const parsed = jobObject.safeParse(answer);
    if (!parsed.success) throw new KubeError(`GET ${path}: the answer is no Job`, { reason: 'Malformed' });
    const { uid, resourceVersion, annotations } = parsed.data.metadata;
    if (uid !== place.uid) return undefined;
    const said = annotations[ANNOTATIONS.checkpointStatus];
    return { resourceVersion, status: said === 'completed' || said === 'failed' ? said : undefined };
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

export interface Declared {
  /** What the Job says now, whoever wrote it. */
  readonly status: JobStatus | 'gone';
  /** It did not say so before. */
  readonly isNew: boolean;
}

/** Declares a Job completed or failed. What it was declared before stays. Throws KubeError. */
export async function declareJob(
  client: KubeClient,
  place: JobPlace,
  { status, traceId }: { readonly status: JobStatus; readonly traceId: string | undefined },
  signal: AbortSignal,
): Promise<Declared> {
  const trace = traceId === undefined ? {} : { [ANNOTATIONS.traceId]: traceId };
  const annotations = { [ANNOTATIONS.checkpointStatus]: status, ...trace };
  for (let conflicts = 0; ; conflicts += 1) {
    const job = await readJob(client, place, signal);
    if (job === undefined) return GONE;
    if (job.status !== undefined) return { status: job.status, isNew: false };
    try {
      await client.request({
        method: 'PATCH',
        path: pathOf(place),
        contentType: 'application/merge-patch+json',
        body: { metadata: { uid: place.uid, resourceVersion: job.resourceVersion, annotations } },
        timeoutMs: CALL_TIMEOUT_MS,
        signal,
      });
      return { status, isNew: true };
    } catch (error) {
      if (isGone(error)) return GONE;
      if (!isConflict(error) || conflicts >= MAX_CONFLICTS) throw error;
    }
  }
}
