import type { ErrorCode, Reason } from '../errors.ts';
import type { StepTiming } from './steps.ts';

export type OperationKind = 'checkpoint' | 'restore';

/**
 * `queued`: accepted, not begun. `waiting`: it is too early, `waitingFor` says for what. The last four are final. `unknown`: the agent
 * died in the middle of a restore; the container was ended.
 */
export type OperationState = 'queued' | 'waiting' | 'running' | 'succeeded' | 'failed' | 'refused' | 'unknown';

/** What a cancellation does now: undo everything, end the container (a restore past its point of no return), or nothing any more. */
export type CancelEffect = 'undone' | 'ends-container' | 'too-late';

export interface OperationTarget {
  readonly namespace: string;
  readonly pod: string;
  readonly podUid: string;
  readonly container: string;
  readonly containerId: string;
}

export interface OperationFailure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly advice: string;
  readonly retryable: boolean;
  readonly reasons: readonly Reason[];
}

/** How far the current step is. `totalBytes` is 0 where it is not known. */
export interface Progress {
  readonly bytes: number;
  readonly totalBytes: number;
  readonly bytesPerSecond: number;
}

/** One operation as its callers see it; a new object for each change. Times are milliseconds since the epoch. */
export interface OperationView {
  readonly id: string;
  /** The caller's, or derived from pod UID, container id and checkpoint id where an annotation asked for it. */
  readonly requestId: string;
  /** Who called, by name: request ids are the caller's own. Empty where an annotation asked, and for what agents wrote down before they kept it. */
  readonly caller: string;
  readonly kind: OperationKind;
  readonly origin: 'annotation' | 'grpc';
  readonly target: OperationTarget;
  readonly checkpointId: string;
  readonly version: string;
  readonly traceId: string;
  readonly state: OperationState;
  readonly waitingFor: string;
  /** The step it is in, or failed in; empty before the first and after the last. */
  readonly step: string;
  readonly progress: Progress;
  readonly cancelEffect: CancelEffect;
  readonly createdAtMs: number;
  readonly startedAtMs: number | undefined;
  readonly endedAtMs: number | undefined;
  /** Steps that ended, in order; with `unaccounted` they sum to the wall time. */
  readonly timings: readonly StepTiming[];
  /** Bytes, pause and what else is worth showing; keys as in the log. */
  readonly figures: Readonly<Record<string, number>>;
  /** The artifact was already there, and was taken as this checkpoint's. */
  readonly adopted: boolean;
  readonly failure: OperationFailure | undefined;
  /** Grows with every change of this operation: where a watcher goes on. */
  readonly revision: number;
}

export const FINAL_STATES: ReadonlySet<OperationState> = new Set(['succeeded', 'failed', 'refused', 'unknown']);

/** A change of an operation: a step that ended comes with its timing. */
export interface OperationChange {
  readonly view: OperationView;
  readonly ended: StepTiming | undefined;
}

/** The operations of this node, of this run of the agent and of earlier ones. */
export interface Operations {
  get(id: string): OperationView | undefined;
  /** Newest first. */
  list(): readonly OperationView[];
  /**
   * Yields the operation as it is now where its revision is above `afterRevision`, then at each change, until it is final. Changes that
   * come faster than they are taken are left out, never the last.
   */
  watch(id: string, afterRevision: number, signal: AbortSignal): AsyncIterable<OperationView>;
  /** Asks for the end of an operation. Undefined where there is none; what comes of it shows in the operation itself. */
  cancel(id: string): OperationView | undefined;
  /** Calls `listener` at every change of any operation. */
  onChange(listener: (change: OperationChange) => void): void;
}
