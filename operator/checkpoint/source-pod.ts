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
  /** Why its worker does not run, as Kubernetes says it; undefined where nothing is known to stand in the way. */
  readonly trouble: string | undefined;
}

/** Indexed by `job`: `namespace/name`. */
export type SourcePods = Pick<ObjectCache<SourcePod | undefined>, 'indexed'>;

const words = { reason: z.string().optional(), message: z.string().nullish() };
const containers = z
  .array(
    z.looseObject({ name: z.string(), state: z.looseObject({ waiting: z.looseObject(words).nullish() }).nullish() }),
  )
  .nullish();

const pod = z.looseObject({
  metadata: objectMeta,
  spec: z.looseObject({ nodeName: z.string().optional() }).optional(),
  // What is not as expected here says nothing, and takes nothing of the rest away.
  status: z
    .looseObject({
      conditions: z.array(z.looseObject({ type: z.string(), status: z.string(), ...words })).nullish(),
      initContainerStatuses: containers,
      containerStatuses: containers,
    })
    .optional()
    .catch(undefined),
});

/** What waits for these is not to be told of: it is the way of every pod. */
const ON_ITS_WAY: readonly string[] = ['ContainerCreating', 'PodInitializing'];
const MAX_TROUBLE = 400;

/** Reads a pod. Undefined: what the server sent is none, or belongs to no Job. */
export function readSourcePod(object: unknown): SourcePod | undefined {
  const { data } = pod.safeParse(object);
  const jobName = data?.metadata.labels?.[LABELS.jobName];
  if (data === undefined || jobName === undefined) return undefined;
  const { name, uid } = data.metadata;
  return { name, uid, jobName, node: data.spec?.nodeName || undefined, trouble: troubleOf(name, data.status) };
}

function troubleOf(name: string, status: z.infer<typeof pod>['status']): string | undefined {
  const unscheduled = status?.conditions?.find((one) => one.type === 'PodScheduled' && one.status === 'False');
  if (unscheduled !== undefined) return said(`pod ${name} has no node yet`, unscheduled);
  const all = [...(status?.initContainerStatuses ?? []), ...(status?.containerStatuses ?? [])];
  const stuck = all.find(({ state }) => !ON_ITS_WAY.includes(state?.waiting?.reason ?? 'ContainerCreating'));
  return stuck && said(`container ${stuck.name} of pod ${name} does not start`, stuck.state?.waiting ?? {});
}

function said(
  what: string,
  { reason, message }: { readonly reason?: string | undefined; readonly message?: string | null | undefined },
) {
  return [what, reason, message].filter(Boolean).join(': ').slice(0, MAX_TROUBLE);
}
