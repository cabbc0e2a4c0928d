import type { Logger } from 'pino';
import { asSnapshotError, SnapshotError } from '../errors.ts';
import type { CancelEffect } from './operation.ts';

/** One named step of an operation. The name is the log field, the metric label and the key in the record. */
export interface Step {
  readonly name: string;
  /** Rejecting ends the operation. The signal aborts when the operation is cancelled or the step passes its deadline. */
  readonly run: (signal: AbortSignal) => Promise<void>;
  /** Takes back what `run` did or began, when this step or a later one fails. */
  readonly undo?: () => Promise<void>;
  readonly deadlineMs?: number;
  /** How long `undo` may hold up the others; where it has more to do than most. */
  readonly undoMs?: number;
  /** What a cancellation that comes in this step does; `too-late` steps are not told of it. Default `undone`. */
  readonly cancel?: CancelEffect;
}

export interface StepTiming {
  readonly step: string;
  readonly seconds: number;
}

export interface StepsResult {
  /** One entry for each step that ran, and `unaccounted`: together they are the wall time. */
  readonly timings: readonly StepTiming[];
  readonly failure: SnapshotError | undefined;
  readonly failedStep: string | undefined;
}

/** Measures consecutive stretches of time, each from the end of the one before. */
export function stopwatch(): { readonly laps: StepTiming[]; lap(step: string): void } {
  const laps: StepTiming[] = [];
  let last = performance.now();
  return {
    laps,
    lap: (step) => {
      const now = performance.now();
      laps.push({ step, seconds: (now - last) / 1000 });
      last = now;
    },
  };
}

/**
 * Waits for all of them, and throws the first failure only when all have ended: nothing goes on behind the back of an undo.
 */
export async function together<T extends readonly unknown[]>(
  work: {
    readonly [K in keyof T]: Promise<T[K]>;
  },
): Promise<T> {
  const ended = await Promise.allSettled(work);
  const failed = ended.find((one) => one.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
  return ended.map((one) => (one as PromiseFulfilledResult<unknown>).value) as unknown as T;
}

/** Deadline of steps that do not depend on how much is to be moved. */
export const QUICK_STEP_MS = 60_000;

const NEVER = new AbortController().signal;
/** How long taking back one step may hold up the others, where the step does not say. */
const UNDO_MS = 60_000;
/** How long an abandoned step may take to notice that it was aborted. */
const SETTLE_MS = 15_000;

/**
 * Runs the steps in order. At the first failure, or when `signal` aborts, the steps begun so far are undone in reverse order. Undo
 * failures are logged and do not stop the others. `onStep` is told before each step; its failure counts as the step's.
 */
export async function runSteps(
  steps: readonly Step[],
  context: {
    readonly signal: AbortSignal;
    readonly log: Logger;
    readonly defaultDeadlineMs: number;
    /** What was done before the first step, as part of the same operation. */
    readonly before?: readonly StepTiming[];
    readonly onStep: (name: string, cancel: CancelEffect) => Promise<void> | void;
    readonly onTiming?: (timing: StepTiming) => void;
  },
): Promise<StepsResult> {
  const began = performance.now();
  const timings: StepTiming[] = [];
  const begun: Step[] = [];
  let failure: SnapshotError | undefined;
  // What the step before promised holds until this one is announced.
  let promised: CancelEffect = 'undone';
  for (const step of steps) {
    const started = performance.now();
    begun.push(step);
    const cancel = step.cancel ?? 'undone';
    const signal = cancel === 'too-late' ? NEVER : context.signal;
    try {
      if (context.signal.aborted && (promised !== 'too-late' || cancel !== 'too-late'))
        throw cancellation(context.signal, `cancelled before ${step.name}`);
      promised = cancel;
      await context.onStep(step.name, cancel);
      await withDeadline(step, signal, step.deadlineMs ?? context.defaultDeadlineMs);
    } catch (error) {
      failure = asSnapshotError(error);
    }
    const seconds = (performance.now() - started) / 1000;
    timings.push({ step: step.name, seconds });
    context.onTiming?.({ step: step.name, seconds });
    context.log.debug({ step: step.name, seconds, code: failure?.code }, 'step ended');
    if (failure !== undefined) break;
  }
  if (failure !== undefined) await undo(begun, context.log);
  const wall = (performance.now() - began) / 1000;
  const accounted = timings.reduce((sum, { seconds }) => sum + seconds, 0);
  return {
    timings: [...(context.before ?? []), ...timings, { step: 'unaccounted', seconds: Math.max(0, wall - accounted) }],
    failure,
    failedStep: failure === undefined ? undefined : begun.at(-1)?.name,
  };
}

/** Who aborts may say why; otherwise somebody cancelled. */
function cancellation(signal: AbortSignal, message: string): SnapshotError {
  return signal.reason instanceof SnapshotError ? signal.reason : new SnapshotError('CANCELLED', message);
}

async function withDeadline(step: Step, outer: AbortSignal, deadlineMs: number): Promise<void> {
  const inner = new AbortController();
  let cancelled: SnapshotError | undefined;
  const forward = () => {
    cancelled = cancellation(outer, `cancelled during ${step.name}`);
    inner.abort(cancelled);
  };
  outer.addEventListener('abort', forward, { once: true });
  // The announcement of the step took its time: an abort that came meanwhile is not told again.
  if (outer.aborted) forward();
  let timer: NodeJS.Timeout | undefined;
  const passed = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const error = new SnapshotError('STEP_TIMEOUT', `${step.name} took longer than ${deadlineMs / 1000} s`);
      inner.abort(error);
      // The step sees the abort and ends by itself; one that does not is left behind.
      timer = setTimeout(() => reject(error), SETTLE_MS);
    }, deadlineMs);
  });
  try {
    await Promise.race([step.run(inner.signal), passed]);
    if (inner.signal.aborted && inner.signal.reason !== cancelled) throw inner.signal.reason;
  } catch (error) {
    if (!inner.signal.aborted) throw error;
    // A step that was cancelled may say more of its end than that. Where it does not, who cancelled it says why.
    const saysMore = error instanceof SnapshotError && (error.code !== 'CANCELLED' || cancelled?.code === 'CANCELLED');
    throw inner.signal.reason === cancelled && saysMore ? error : inner.signal.reason;
  } finally {
    clearTimeout(timer);
    outer.removeEventListener('abort', forward);
  }
}

async function withinTime(work: Promise<void> | undefined, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it is not done after ${ms / 1000} s`)), ms);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function undo(begun: readonly Step[], log: Logger): Promise<void> {
  for (const step of begun.toReversed()) {
    try {
      await withinTime(step.undo?.(), step.undoMs ?? UNDO_MS);
    } catch (err) {
      log.error({ err, step: step.name }, 'undo failed');
    }
  }
}
