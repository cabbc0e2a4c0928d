import { KubeError } from './error.ts';

/**
 * Ends one call: on its caller's signal, or when its time is over. Every call has an AbortController and a timer of its own. What is put
 * on the caller's signal is taken off again, and no timeout is set on sockets: on connections that are kept, both would pile up.
 */
export interface Guard {
  readonly signal: AbortSignal;
  /** Starts the time anew. */
  alive(): void;
  /** Takes everything down; the call is over. */
  release(): void;
}

export function guardCall(
  call: string,
  limit: { ms: number; reason: 'TimedOut' | 'Silent' },
  caller?: AbortSignal,
): Guard {
  const ended = new AbortController();
  const stop = () => ended.abort(caller?.reason);
  const timer = setTimeout(() => {
    const what = limit.reason === 'Silent' ? 'nothing came' : 'no complete answer';
    ended.abort(new KubeError(`${call}: ${what} for ${limit.ms} ms`, { reason: limit.reason }));
  }, limit.ms);
  if (caller?.aborted) stop();
  caller?.addEventListener('abort', stop, { once: true });
  return {
    signal: ended.signal,
    alive: () => {
      timer.refresh();
    },
    release: () => {
      clearTimeout(timer);
      caller?.removeEventListener('abort', stop);
    },
  };
}
