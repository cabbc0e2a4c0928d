import type { Logger } from 'pino';
import { type BackoffRange, backoffMs } from '../../kube/backoff.ts';
import { isConflict, KubeError } from '../../kube/error.ts';
import { type Again, keyedQueue } from '../../kube/queue.ts';
import type { Cached, ObjectCache } from './cache.ts';
import { newConflicts } from './conflicts.ts';
import type { ControlMetrics } from './metrics.ts';

/** Where a controller learns which keys to look at. */
export interface Source {
  /** Resolves once its present objects are known, or the signal aborts. */
  synced(signal: AbortSignal): Promise<void>;
  /** Gives the keys of all present objects now, and of changed ones from now on; the answer ends that. */
  follow(look: (key: string) => void): () => void;
}

export interface ControllerOptions {
  /** For log and metrics. */
  readonly name: string;
  /** How many keys are worked on at once. */
  readonly parallel: number;
  readonly sources: readonly Source[];
  /**
   * Brings the world to where the object of this key wants it, from the state that is there now: it is not told what happened, and it
   * must do nothing where nothing is to be done. Returns when to look again if nothing happens. What it throws is tried again.
   */
  readonly reconcile: (key: string, signal: AbortSignal) => Promise<Again>;
  readonly backoff?: BackoffRange;
  /** For one look. */
  readonly deadlineMs?: number;
  readonly log: Logger;
  readonly metrics: Pick<ControlMetrics, 'reconciled' | 'queued'>;
}

const BACKOFF: BackoffRange = { minMs: 200, maxMs: 300_000 };
const DEADLINE_MS = 60_000;

/** The objects of a cache, or whichever keys they lead to (the owner of a Job). A changed object is asked what it was, too. */
export function sourceOf<T>(
  cache: ObjectCache<T>,
  keysOf: (object: Cached<T>) => readonly string[] = ({ key }) => [key],
): Source {
  return {
    synced: (signal) => cache.synced(signal),
    follow: (look) => {
      const unsubscribe = cache.subscribe(({ now, before }) => {
        const objects = [now, before].filter((object) => object !== undefined);
        for (const key of new Set(objects.flatMap(keysOf))) look(key);
      });
      for (const object of cache.all()) for (const key of keysOf(object)) look(key);
      return unsubscribe;
    },
  };
}

/**
 * Looks at every object once, and then at what changes: one look at a time for each key, and what changes meanwhile is looked at once more
 * after it. Failed looks come back later and later. Runs until the signal aborts, and resolves when the looks that run have ended.
 */
export async function runController(options: ControllerOptions, signal: AbortSignal): Promise<void> {
  const { name, parallel, sources, backoff = BACKOFF, log, metrics } = options;
  await Promise.all(sources.map((source) => source.synced(signal)));
  if (signal.aborted) return;
  /** In a row, by key. */
  const failures = new Map<string, number>();
  const conflicts = newConflicts(log);

  const look = async (key: string): Promise<Again> => {
    const sinceMs = performance.now();
    const ended = (result: Parameters<ControlMetrics['reconciled']>[1]) =>
      metrics.reconciled(name, result, (performance.now() - sinceMs) / 1_000);
    try {
      const again = await reconcileInTime(options, key, signal);
      failures.delete(key);
      conflicts.ended(key);
      ended(again === undefined ? 'done' : 'again');
      return again;
    } catch (err) {
      if (signal.aborted) return undefined;
      const count = (failures.get(key) ?? 0) + 1;
      failures.set(key, count);
      const afterMs = backoffMs(count, backoff, err instanceof KubeError ? err : undefined);
      ended(isConflict(err) ? 'conflict' : 'failed');
      const fields = { err, controller: name, key, failures: count, retryInMs: afterMs };
      if (isConflict(err)) conflicts.lost(key, fields);
      else {
        conflicts.ended(key);
        log.warn(fields, 'the object could not be reconciled');
      }
      return { afterMs };
    } finally {
      metrics.queued(name, queue.depth - 1);
    }
  };
  const queue = keyedQueue(parallel, look, (key, err) => log.error({ err, controller: name, key }, 'a look failed'));
  const stops = sources.map((source) =>
    source.follow((key) => {
      queue.add(key);
      metrics.queued(name, queue.depth);
    }),
  );
  await aborted(signal);
  for (const stop of stops) stop();
  await queue.drain();
  metrics.queued(name, 0);
}

/** A look that ignores its signal is waited for all the same: two at once on one key would be worse. */
async function reconcileInTime(
  { name, reconcile, deadlineMs = DEADLINE_MS }: ControllerOptions,
  key: string,
  signal: AbortSignal,
): Promise<Again> {
  const stop = new AbortController();
  const end = () => stop.abort(signal.reason);
  const timer = setTimeout(() => stop.abort(new Error(`${name} ${key}: not done after ${deadlineMs} ms`)), deadlineMs);
  // Not by AbortSignal.any: what it leaves at a signal that lives as long as the process is never collected by some versions of Node.js.
  signal.addEventListener('abort', end);
  if (signal.aborted) end();
  try {
    return await reconcile(key, stop.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', end);
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
