import type { SnapshotError } from '../errors.ts';
import type { CheckpointWanted, RestoreWanted } from '../plan/decide.ts';
import type { AgentContext, OperationRequest, Outcome } from './context.ts';
import type { JournalEntry, Transition } from './journal.ts';
import type { Target } from './target.ts';

/** Writes an operation's transitions into the journal. */
export interface Attempt {
  note(state: JournalEntry['state'], details?: Record<string, unknown>): Promise<void>;
  step(name: string): Promise<void>;
  /** The last word. A failure that may pass, and left the container as it was, does not count as the container's attempt. */
  end(outcome: Outcome, details?: Record<string, unknown>): Promise<void>;
}

/** The journal's view of one operation on one container. */
export function beginAttempt(
  context: AgentContext,
  request: OperationRequest<CheckpointWanted | RestoreWanted>,
  target: Target,
): Attempt {
  const entry = {
    operationId: request.operationId,
    kind: request.wanted.kind,
    containerKey: { containerId: target.running.id, pid: target.main.id.pid, startTime: target.main.id.start },
    pod: { namespace: request.pod.namespace, name: request.pod.name, uid: request.pod.uid },
    container: request.wanted.container.name,
    checkpointId: request.wanted.checkpointId,
    version: request.wanted.version,
  } satisfies Omit<Transition, 'state' | 'details'>;
  let isTouched = false;
  const attempt: Attempt = {
    note: async (state, details = {}) => {
      if (state === 'point-of-no-return') isTouched = true;
      await context.journal.append({ ...entry, state, details });
    },
    step: async (name) => {
      await context.journal.append({ ...entry, state: 'step', step: name, details: {} });
    },
    end: (outcome, details = {}) =>
      attempt.note(finalState(outcome), {
        ...details,
        result: outcome.result,
        code: outcome.failure?.code ?? '',
        retry: !isTouched && (outcome.failure?.retryable ?? false),
      }),
  };
  return attempt;
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

/** The outcome of steps that ended this way. */
export function outcomeOf(
  result: { failure: SnapshotError | undefined; failedStep: string | undefined; timings: Outcome['timings'] },
  figures: Readonly<Record<string, number>>,
): Outcome {
  const { failure, failedStep, timings } = result;
  if (failure === undefined) return { result: 'succeeded', timings, figures };
  return { result: isRefusal(failure) ? 'refused' : 'failed', failure, failedStep, timings, figures };
}

/** The journal's last word on an operation. */
function finalState(outcome: Outcome): 'succeeded' | 'refused' | 'failed' {
  if (outcome.result === 'refused') return 'refused';
  return outcome.failure === undefined ? 'succeeded' : 'failed';
}
