import type { Logger } from 'pino';
import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { DYNAMO_CHECKPOINT } from '../../contract/dynamo-checkpoint.ts';
import type { ObjectRead } from '../../contract/object-meta.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { EventWriter } from '../../kube/events.ts';
import type { ObjectCache } from '../control/cache.ts';
import { runController, sourceOf } from '../control/controller.ts';
import type { ControlMetrics } from '../control/metrics.ts';
import { newRecorder } from '../control/recorder.ts';
import type { CleanupConfig } from './cleanup-job.ts';
import type { DeletionMetrics } from './metrics.ts';
import { newReconciler } from './reconcile.ts';

/** What agents say of the deletion of one artifact. */
export type DeletionWord =
  | { readonly result: 'deleted' | 'absent' }
  | { readonly result: 'in-use' | 'unknown'; readonly why: string };

/** Who deletes an artifact where agents reach the volume. What it throws is only the signal's reason. */
export interface ArtifactDeleter {
  /** The versions of a checkpoint that are there, as far as somebody says. */
  versions(
    namespace: string,
    checkpointId: string,
    asking: { readonly signal: AbortSignal },
  ): Promise<
    | { readonly result: 'listed'; readonly versions: readonly string[] }
    | { readonly result: 'unknown'; readonly why: string }
  >;
  deleteArtifact(
    name: { readonly namespace: string; readonly checkpointId: string; readonly version: string },
    asking: { readonly waitSeconds: number; readonly signal: AbortSignal },
  ): Promise<DeletionWord>;
}

export interface DeletionParts {
  readonly config: CleanupConfig & {
    /** The claim that pods bring, and where; empty: the agents have it. */
    readonly pvcName: string;
    readonly basePath: string;
    readonly parallel: number;
  };
  readonly client: KubeClient;
  /** They run already, or soon. */
  readonly checkpoints: ObjectCache<ObjectRead<DynamoCheckpoint>>;
  readonly agents: ArtifactDeleter;
  /** Whether an agent holds the lease of a Job. Throws KubeError. */
  readonly isLeased: (
    place: { readonly namespace: string; readonly name: string },
    signal: AbortSignal,
  ) => Promise<boolean>;
  readonly events: Pick<EventWriter, 'write'>;
  readonly log: Logger;
  readonly metrics: Pick<ControlMetrics, 'reconciled' | 'queued'> & DeletionMetrics;
  readonly timings?: Partial<DeletionTimings>;
}

export interface DeletionTimings {
  /** Between two looks at what is waited for. */
  readonly pollMs: number;
  /** After the first failed Job; later ones come later and later. */
  readonly retryMs: number;
  readonly maxRetryMs: number;
}

const TIMINGS: DeletionTimings = { pollMs: 5_000, retryMs: 10_000, maxRetryMs: 600_000 };

/** Files of terabytes take an agent its time. */
const DEADLINE_MS = 120_000;

/** Finalizers of DynamoCheckpoints, and the deletion of their artifacts. Runs until the signal aborts. */
export function newDeletionController(parts: DeletionParts): { run(signal: AbortSignal): Promise<void> } {
  const { config, checkpoints, log, metrics } = parts;
  const recorder = newRecorder(parts.events, DYNAMO_CHECKPOINT);
  const reconcile = newReconciler({ ...parts, recorder, timings: { ...TIMINGS, ...parts.timings } });
  return {
    run: (signal) =>
      runController(
        {
          ...{ name: 'deletion', parallel: config.parallel, deadlineMs: DEADLINE_MS, log, metrics, reconcile },
          sources: [sourceOf(checkpoints)],
        },
        signal,
      ),
  };
}
