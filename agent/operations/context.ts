import type { Logger } from 'pino';
import type { PodView } from '../../contract/pods.ts';
import type { Config } from '../config.ts';
import type { GpuSources } from '../cuda/container-gpus.ts';
import type { CudaWorkers } from '../cuda/workers.ts';
import type { ErrorCode, SnapshotError } from '../errors.ts';
import type { Native, ProcessId } from '../host/native.ts';
import type { CheckpointWanted, RestoreWanted } from '../plan/decide.ts';
import type { RecordKeys } from '../store/key.ts';
import type { ArtifactName } from '../store/paths.ts';
import type { Runtime } from '../watch/runtime.ts';
import type { Journal } from './journal.ts';
import type { NodeFacts } from './node.ts';
import type { OperationHandle } from './registry.ts';
import type { Over, Reporter } from './reporter.ts';
import type { Retention } from './retention.ts';
import type { StepTiming } from './steps.ts';

/**
 * What every operation works with; made once, by main. Configuration and keys follow their files; an operation works with a copy of
 * what they were when it began: one key derives the keys of its blocks and signs.
 */
export interface AgentContext {
  readonly config: Config;
  readonly runtime: Runtime;
  readonly native: Native;
  readonly cuda: CudaWorkers;
  /** Who is asked for the GPUs of a container. */
  readonly gpuSources: GpuSources;
  readonly keys: RecordKeys;
  readonly journal: Journal;
  readonly node: NodeFacts;
  readonly log: Logger;
  readonly reporter: Reporter;
  readonly retention: Retention;
  /** Ids of the operations that run now, and of those that wait to be finished: their staging is nobody's to sweep. */
  readonly liveOperations: Set<string>;
  /** The main process that an earlier restore put into this container, where there was one. */
  readonly restoredRoot: (containerId: string) => ProcessId | undefined;
}

/** One operation on one container. */
export interface OperationRequest<W extends CheckpointWanted | RestoreWanted> {
  readonly operationId: string;
  readonly traceId: string;
  readonly pod: PodView;
  readonly wanted: W;
  /** No further attempt follows a failure of this one. */
  readonly isLastTry: boolean;
  /** Aborts when the agent stops and cannot wait any longer. */
  readonly signal: AbortSignal;
  /** Tells apart requests of one id with other contents; empty for what an annotation asked for. */
  readonly fingerprint: string;
  /** Begins the operation, for all to see. The same handle each time. */
  readonly begin: () => OperationHandle;
}

/** How an operation ended. */
export interface Outcome {
  readonly result: 'succeeded' | 'adopted' | 'refused' | 'failed';
  readonly failure?: SnapshotError | undefined;
  readonly failedStep?: string | undefined;
  readonly timings: readonly StepTiming[];
  /** Figures worth showing: bytes, pause … */
  readonly figures: Readonly<Record<string, number>>;
}

/** An attempt that found it is too early: nothing was touched, the container is asked again later. */
export interface TooEarly {
  readonly result: 'too-early';
  readonly reason: string;
  /** What it fails with where nobody waits any longer. */
  readonly code: ErrorCode;
  /** A file of the node whose appearance ends the waiting; a hint, not to be believed. */
  readonly file?: string | undefined;
  /** An artifact of the agent's own volume whose appearance ends it; another hint. */
  readonly artifact?: ArtifactName | undefined;
}

/** What became of an attempt. */
export type Attempted = Outcome | TooEarly | Over;

/** A value that an earlier step provides to later ones; reading it before is a defect. */
export function slot<T>(name: string): { get(): T; set(value: T): T; readonly filled: boolean } {
  let held: { readonly value: T } | undefined;
  return {
    get: () => {
      if (held === undefined) throw new Error(`step order: ${name} is not there yet`);
      return held.value;
    },
    set: (value) => {
      held = { value };
      return value;
    },
    get filled() {
      return held !== undefined;
    },
  };
}
