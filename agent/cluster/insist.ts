import { backoffMs, pause } from '../../kube/backoff.ts';
import { KubeError } from '../../kube/error.ts';
import { SnapshotError } from '../errors.ts';

/** For one request of a few hundred bytes. */
export const CALL_TIMEOUT_MS = 5_000;

const BACKOFF = { minMs: 200, maxMs: 10_000 };
/** The same request gets the same answer: it is not understood, or the object must not become what is asked for. */
const LASTING: ReadonlySet<number> = new Set([400, 405, 413, 415, 422]);

interface Insistence {
  /** What is written to, for people: `Job team/train`. */
  readonly object: string;
  readonly signal: AbortSignal;
  readonly onFailure: (error: KubeError) => void;
}

/**
 * Calls again until the API takes it. Throws the signal's reason, KUBERNETES_REFUSED where the API would never take it, and what is no
 * error of the API.
 */
export async function insist<T>(call: () => Promise<T>, { object, signal, onFailure }: Insistence): Promise<T> {
  for (let failures = 1; ; failures += 1) {
    signal.throwIfAborted();
    try {
      return await call();
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof KubeError)) throw error;
      onFailure(error);
      if (isLasting(error))
        throw new SnapshotError('KUBERNETES_REFUSED', `${object} cannot be annotated: ${error.message}`, {
          cause: error,
        });
      await pause(backoffMs(failures, BACKOFF, error), signal);
    }
  }
}

/** Whether the API would answer the same again, whenever it is asked. */
export function isLasting(error: unknown): boolean {
  return error instanceof KubeError && LASTING.has(error.status);
}
