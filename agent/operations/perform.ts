import type { Logger } from 'pino';
import { asSnapshotError, SnapshotError } from '../errors.ts';
import type { CheckpointWanted, RestoreWanted } from '../plan/decide.ts';
import { checkpoint } from './checkpoint.ts';
import type { AgentContext, Attempted, OperationRequest, Outcome } from './context.ts';
import { type Restored, restoreContainer } from './restore.ts';

/** What the agent does to a container; each call is one attempt. */
export interface Performers {
  readonly checkpoint: typeof checkpoint;
  readonly restore: typeof restoreContainer;
}

export const PERFORMERS: Performers = { checkpoint, restore: restoreContainer };

interface Performed {
  readonly ended: Attempted;
  /** The journal has its last word. */
  readonly isJournalled: boolean;
}

/** The operations of this node that run now. */
export interface Performing {
  /** One attempt, whatever is wanted. Never rejects: what could not be begun has failed. */
  perform(key: string, request: Omit<Request, 'signal'>, log: Logger): Promise<Performed>;
  /** The operation that runs under the key. */
  operationOf(key: string): string | undefined;
  isRunning(containerId: string): boolean;
  /** Cancels whatever runs. */
  cancelAll(): void;
}

type Request = OperationRequest<CheckpointWanted | RestoreWanted>;

export function newPerforming(
  context: AgentContext,
  performers: Performers,
  onRestored: (restored: Restored) => void,
): Performing {
  const running = new Map<string, { readonly operationId: string; readonly containerId: string }>();
  const cancel = new AbortController();
  return {
    perform: async (key, request, log) => {
      const { operationId, wanted } = request;
      running.set(key, { operationId, containerId: wanted.container.id });
      context.liveOperations.add(operationId);
      try {
        return await performOnce({ ...context, log }, { ...request, signal: cancel.signal }, performers, onRestored);
      } finally {
        context.liveOperations.delete(operationId);
        running.delete(key);
      }
    },
    operationOf: (key) => running.get(key)?.operationId,
    isRunning: (containerId) => [...running.values()].some((one) => one.containerId === containerId),
    cancelAll: () => cancel.abort(),
  };
}

async function performOnce(
  context: AgentContext,
  request: Request,
  performers: Performers,
  onRestored: (restored: Restored) => void,
): Promise<Performed> {
  const { wanted } = request;
  try {
    const ended =
      wanted.kind === 'checkpoint'
        ? await performers.checkpoint(context, { ...request, wanted })
        : await performers.restore(context, { ...request, wanted }, onRestored);
    return { ended, isJournalled: ended.result !== 'too-early' && ended.result !== 'over' };
  } catch (error) {
    return { ended: { ...failedOutcome(asSnapshotError(error)), failedStep: 'reach' }, isJournalled: false };
  }
}

export function failedOutcome(failure: SnapshotError): Outcome {
  return { result: 'failed', failure, timings: [], figures: {} };
}

export function cancelledOutcome(): Outcome {
  return failedOutcome(new SnapshotError('CANCELLED', 'it was cancelled before it had begun'));
}

/** What an attempt means where nobody waits any longer. */
export function finalOutcome(ended: Attempted): Outcome {
  if (ended.result === 'over') return failedOutcome(new SnapshotError('CANCELLED', ended.reason));
  if (ended.result !== 'too-early') return ended;
  return failedOutcome(new SnapshotError(ended.code, `the time to wait is over: ${ended.reason}`));
}
