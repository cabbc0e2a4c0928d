import type { Logger } from 'pino';
import { DYNAMO_CHECKPOINT, type DynamoCheckpoint, readDynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { EventWriter } from '../../kube/events.ts';
import { resourcePath } from '../../kube/paths.ts';
import type { Agents } from '../agents/agents.ts';
import type { Cached, ObjectCache } from '../control/cache.ts';
import { type ControllerOptions, runController, sourceOf } from '../control/controller.ts';
import type { ControlMetrics } from '../control/metrics.ts';
import { newRecorder } from '../control/recorder.ts';
import { newStatusWriter } from '../control/status-writer.ts';
import type { StorageConfig } from '../storage/source.ts';
import { type CheckpointRead, idKey } from './caches.ts';
import type { SeccompConfig } from './job.ts';
import { JobDesk } from './job-desk.ts';
import type { JobView } from './job-view.ts';
import { newLeaseWatch } from './lease-watch.ts';
import { Looks } from './looks.ts';
import { CheckpointReconciler, type CheckpointTimings } from './reconcile.ts';
import type { SourcePod } from './source-pod.ts';

/** `checkpoint` of the configuration, as far as checkpoints are made by it. */
export interface CheckpointConfig {
  readonly storage: StorageConfig;
  readonly seccomp: SeccompConfig;
}

export interface CheckpointParts {
  readonly client: KubeClient;
  /** The caches run on their own. */
  readonly checkpoints: ObjectCache<CheckpointRead>;
  readonly jobs: ObjectCache<JobView | undefined>;
  readonly pods: ObjectCache<SourcePod | undefined>;
  /** Undefined: agents are not called, and annotations alone count. */
  readonly agents: Agents | undefined;
  readonly config: CheckpointConfig;
  readonly events: Pick<EventWriter, 'write'>;
  readonly metrics: ControlMetrics;
  readonly log: Logger;
  /** How many checkpoints are looked at at once. */
  readonly parallel?: number;
  readonly timings?: Partial<CheckpointTimings & { readonly eventGrace: number }>;
  readonly backoff?: ControllerOptions['backoff'];
}

const TIMINGS = {
  lease: 1_000,
  event: 500,
  storage: 10_000,
  deletion: 1_000,
  permission: 10_000,
  progress: 5_000,
  eventGrace: 3_000,
};
/** Most of a look is waiting, for an agent that does not answer two seconds. */
const PARALLEL = 16;

/** Brings DynamoCheckpoints from their Jobs to Ready or Failed, until the signal aborts. */
export function runCheckpoints(parts: CheckpointParts, signal: AbortSignal): Promise<void> {
  const { client, checkpoints, jobs, pods, agents, config, events, metrics, log, backoff } = parts;
  const timings = { ...TIMINGS, ...parts.timings };
  const clock = () => performance.now();
  const looks = new Looks({
    ...{ client, checkpoints, jobs, pods, agents, clock },
    storage: config.storage,
    leases: newLeaseWatch(client, clock),
    eventGraceMs: timings.eventGrace,
  });
  const statuses = newStatusWriter<DynamoCheckpoint>({
    ...{ client, metrics, resource: DYNAMO_CHECKPOINT.plural, read: readDynamoCheckpoint },
    pathOf: ({ namespace, name }) => resourcePath(DYNAMO_CHECKPOINT, namespace, name),
    onWritten: (base, answer) => checkpoints.remember(base, answer),
  });
  const reconciler = new CheckpointReconciler({
    ...{ checkpoints, looks, statuses, log, timings, clock, now: () => new Date() },
    jobs: new JobDesk(client, config.seccomp),
    recorder: newRecorder(events, DYNAMO_CHECKPOINT),
  });
  return runController(
    {
      ...{ name: 'checkpoints', parallel: parts.parallel ?? PARALLEL, log, metrics },
      ...(backoff === undefined ? {} : { backoff }),
      sources: [
        sourceOf(checkpoints, (one) => withSiblings(checkpoints, one)),
        sourceOf(jobs, ownersOf),
        sourceOf(pods, ({ meta, value }) => {
          const job = jobs.get(`${meta.namespace}/${value?.jobName ?? ''}`);
          return job === undefined ? [] : ownersOf(job);
        }),
      ],
      reconcile: (key, until) => reconciler.reconcile(key, until),
    },
    signal,
  );
}

/** Those with the same id too: who waits for it, or has it no more. */
function withSiblings(
  checkpoints: ObjectCache<CheckpointRead>,
  { key, meta, value }: Cached<CheckpointRead>,
): string[] {
  if (value.result !== 'read') return [key];
  return [key, ...checkpoints.indexed('id', idKey(meta.namespace, value.object)).map((one) => one.key)];
}

function ownersOf({ meta, value }: Cached<JobView | undefined>): string[] {
  return (value?.owners ?? []).map(({ name }) => `${meta.namespace}/${name}`);
}
