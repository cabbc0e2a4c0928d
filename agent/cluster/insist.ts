import { backoffMs, pause } from '../../kube/backoff.ts';
import { KubeError } from '../../kube/error.ts';

/** For one request of a few hundred bytes. */
export const CALL_TIMEOUT_MS = 5_000;

const BACKOFF = { minMs: 200, maxMs: 10_000 };

/** Calls again until the API takes it. Throws the signal's reason, and what is no error of the API. */
export async function insist<T>(
  call: () => Promise<T>,
  { signal, onFailure }: { readonly signal: AbortSignal; readonly onFailure: (error: KubeError) => void },
): Promise<T> {
  for (let failures = 1; ; failures += 1) {
    signal.throwIfAborted();
    try {
      return await call();
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof KubeError)) throw error;
      onFailure(error);
      await pause(backoffMs(failures, BACKOFF, error), signal);
    }
  }
}
