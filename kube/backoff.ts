import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeError } from './error.ts';

/** Longest pause that a server can ask for; a proxy that says "in a day" must not silence us. */
const MAX_RETRY_AFTER_MS = 60_000;

export interface BackoffRange {
  /** Bound of the first pause; it doubles with each failure. */
  readonly minMs: number;
  /** The pauses grow no further. */
  readonly maxMs: number;
}

/**
 * How long to wait after so many failures in a row (1 or more): any time up to the bound, so that agents which failed together do not
 * come back together. What the server asked for is waited in full, and the random time on top of it.
 */
export function backoffMs(failures: number, range: BackoffRange, error?: KubeError): number {
  const boundMs = Math.min(range.maxMs, range.minMs * 2 ** Math.min(failures - 1, 30));
  return Math.min(error?.retryAfterMs ?? 0, MAX_RETRY_AFTER_MS) + Math.round(Math.random() * boundMs);
}

/** Sleeps; an abort ends it early, and is no error. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined);
}
