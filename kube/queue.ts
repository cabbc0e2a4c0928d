/** Runs work by key: one at a time for each key, at most `parallel` at once, and what is asked for meanwhile is done once after. */
export interface KeyedQueue {
  /** Asks for the key to be worked on, now or, where it is being worked on, once more afterwards. */
  add(key: string): void;
  /** Asks for it after a delay; an earlier request wins. */
  addLater(key: string, delayMs: number): void;
  /** Takes no more work and resolves when what runs has ended. */
  drain(): Promise<void>;
  readonly depth: number;
}

/** What the work says about when to come back: never on its own, or after a delay. */
export type Again = { readonly afterMs: number } | undefined;

/** Waiting work takes no place among the `parallel`: only `work` that runs does. Failures of `work` are given to `onFailure`. */
export function keyedQueue(
  parallel: number,
  work: (key: string) => Promise<Again>,
  onFailure: (key: string, error: unknown) => void,
): KeyedQueue {
  const waiting = new Set<string>();
  const running = new Map<string, Promise<void>>();
  const timers = new Map<string, { readonly timer: NodeJS.Timeout; readonly at: number }>();
  let draining = false;

  const pump = () => {
    for (const key of waiting) {
      if (running.size >= parallel) return;
      if (running.has(key)) continue;
      waiting.delete(key);
      running.set(key, runOne(key));
    }
  };
  const runOne = async (key: string) => {
    try {
      const again = await work(key);
      if (again !== undefined) queue.addLater(key, again.afterMs);
    } catch (error) {
      onFailure(key, error);
    } finally {
      running.delete(key);
      pump();
    }
  };
  const cancelTimer = (key: string) => {
    clearTimeout(timers.get(key)?.timer);
    timers.delete(key);
  };
  const queue: KeyedQueue = {
    add: (key) => {
      if (draining) return;
      cancelTimer(key);
      waiting.add(key);
      // Not at once: the caller may hold a place among the running ones that it is about to give up.
      queueMicrotask(pump);
    },
    addLater: (key, delayMs) => {
      const at = Date.now() + delayMs;
      const known = timers.get(key);
      if (draining || waiting.has(key) || (known !== undefined && known.at <= at)) return;
      cancelTimer(key);
      timers.set(key, { at, timer: setTimeout(() => queue.add(key), delayMs) });
    },
    drain: async () => {
      draining = true;
      waiting.clear();
      for (const key of [...timers.keys()]) cancelTimer(key);
      await Promise.all(running.values());
    },
    get depth() {
      return waiting.size + running.size;
    },
  };
  return queue;
}
