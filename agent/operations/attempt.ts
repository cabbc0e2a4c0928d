import type { PodView } from '../../contract/pods.ts';
import type { SnapshotError } from '../errors.ts';
import type { ProcessId } from '../host/native.ts';
import type { CheckpointWanted, RestoreWanted } from '../plan/decide.ts';
import type { AgentContext, OperationRequest, Outcome } from './context.ts';
import type { Journal, JournalEntry, Transition } from './journal.ts';
import type { CancelEffect } from './operation.ts';
import { endDetails, noteDetails } from './operation-journal.ts';
import type { OperationHandle } from './registry.ts';
import { type Claim, isUndeclared } from './reporter.ts';
import type { StepTiming } from './steps.ts';
import type { Target } from './target.ts';
import type { Wish } from './wishes.ts';

/** Writes an operation's transitions into the journal, and tells those who watch it. */
export interface Attempt {
  /** Aborts when the operation is cancelled, the agent stops, or another agent took the operation over. */
  readonly signal: AbortSignal;
  /** Aborts only when a caller cancels it. */
  readonly cancelled: AbortSignal;
  note(state: JournalEntry['state'], details?: Record<string, unknown>): Promise<void>;
  step(name: string, cancel: CancelEffect): Promise<void>;
  timing(timing: StepTiming): void;
  progress(bytes: number, totalBytes: number): void;
  /** The last word. A failure that may pass, and left the container as it was, does not count as the container's attempt. */
  end(outcome: Outcome, details?: Record<string, unknown>): Promise<void>;
}

/** The journal's view of one operation on one container. */
export function beginAttempt(
  context: AgentContext,
  request: OperationRequest<CheckpointWanted | RestoreWanted>,
  target: Target,
  claim: Claim,
): Attempt {
  const handle = request.begin();
  handle.started();
  for (const timing of target.timings) handle.stepEnded(timing);
  const entry = entryOf(request.operationId, request, target.main.id);
  let isTouched = false;
  let current = '';
  const kept = () => noteDetails(handle.view, request.fingerprint);
  const attempt: Attempt = {
    cancelled: handle.cancelled,
    signal: AbortSignal.any([request.signal, handle.cancelled, claim.lost]),
    note: async (state, details = {}) => {
      if (state === 'point-of-no-return') isTouched = true;
      const noted = state === 'step' || state === 'point-of-no-return' ? details : { ...details, ...kept() };
      // In which step that was: it may be the last that is heard of the operation.
      await context.journal.append({ ...entry, state, ...(current !== '' && { step: current }), details: noted });
    },
    step: async (name, cancel) => {
      current = name;
      handle.step(name, cancel);
      await context.journal.append({ ...entry, state: 'step', step: name, details: {} });
    },
    timing: (timing) => handle.stepEnded(timing),
    progress: (bytes, totalBytes) => handle.progress(bytes, totalBytes),
    end: (outcome, details = {}) =>
      attempt.note(finalState(outcome), {
        ...details,
        ...endDetails(outcome),
        retry: !isTouched && mayRetry(outcome, handle),
      }),
  };
  return attempt;
}

/** What the journal says of the operation at each of its transitions. */
function entryOf(
  operationId: string,
  { pod, wanted }: { readonly pod: PodView; readonly wanted: CheckpointWanted | RestoreWanted },
  { pid, start }: ProcessId,
) {
  return {
    operationId,
    kind: wanted.kind,
    containerKey: { containerId: wanted.container.id, pid, startTime: start },
    pod: { namespace: pod.namespace, name: pod.name, uid: pod.uid },
    container: wanted.container.name,
    checkpointId: wanted.checkpointId,
    version: wanted.version,
  } satisfies Omit<Transition, 'state' | 'details'>;
}

/** No process was looked at yet. */
const NO_PROCESS: ProcessId = { pid: 0, start: 0 };

/** Writes down that a caller's operation was accepted: an agent that starts later goes on with it. */
export async function noteAccepted(journal: Journal, wish: Wish): Promise<void> {
  const { wanted, pod, deadlineAtMs, handle, fingerprint } = wish;
  const details = { ...noteDetails(handle.view, fingerprint), wish: { wanted, pod, deadlineAtMs } };
  await journal.append({ ...entryOf(wish.operationId, wish, NO_PROCESS), state: 'accepted', details });
}

/**
 * The last word on an operation that never came to its first step, so that an agent that starts later does not begin it. What a caller
 * asked for is no attempt of the pod's own.
 */
export async function endUnbegun(
  journal: Journal,
  unbegun: Pick<Wish, 'operationId' | 'fingerprint' | 'handle' | 'pod' | 'wanted'>,
  outcome: Outcome,
): Promise<void> {
  const { handle, fingerprint } = unbegun;
  const retry = handle.view.origin === 'grpc' || mayRetry(outcome, handle);
  const details = { ...noteDetails(handle.view, fingerprint), ...endDetails(outcome), retry };
  await journal.append({ ...entryOf(unbegun.operationId, unbegun, NO_PROCESS), state: finalState(outcome), details });
}

/** What somebody cancelled on purpose is not tried again; one that came too late has cancelled nothing. */
export function mayRetry(outcome: Outcome, { cancelled }: Pick<OperationHandle, 'cancelled'>): boolean {
  return isUndeclared(outcome.failure) || ((outcome.failure?.retryable ?? false) && !cancelled.aborted);
}

/** Whether a failure was seen before anything was touched, and would be seen again: the agent does not try again by itself. */
function isRefusal(failure: SnapshotError): boolean {
  return !failure.retryable && REFUSALS.has(failure.code);
}

const REFUSALS: ReadonlySet<string> = new Set([
  'CHECKPOINT_REFUSED',
  'RESTORE_REFUSED',
  'ARTIFACT_UNSIGNED',
  'ARTIFACT_FORMAT',
  'ARTIFACT_FOREIGN',
  'ARTIFACT_UNSAFE',
  'ARTIFACT_CORRUPT',
  'STORAGE_UNSAFE',
  'CONTROL_DIR_UNSAFE',
  'POD_INVALID',
]);

/** The outcome of steps that ended this way. `isTouched`: past what could be undone, where nothing is refused any more. */
export function outcomeOf(
  result: {
    failure: SnapshotError | undefined;
    failedStep: string | undefined;
    timings: Outcome['timings'];
    isTouched?: boolean;
  },
  figures: Readonly<Record<string, number>>,
): Outcome {
  const { failure, failedStep, timings, isTouched = false } = result;
  if (failure === undefined) return { result: 'succeeded', timings, figures };
  return { result: !isTouched && isRefusal(failure) ? 'refused' : 'failed', failure, failedStep, timings, figures };
}

/** The journal's last word on an operation. */
function finalState(outcome: Outcome): 'succeeded' | 'refused' | 'failed' {
  if (outcome.result === 'refused') return 'refused';
  return outcome.failure === undefined ? 'succeeded' : 'failed';
}
