import { type CountedNote, type EventNote, eventName } from './event-object.ts';

export interface QueuedNote extends CountedNote {
  /** Equal for notes that say the same about the same object. */
  readonly key: string;
  /** Of the monotonic clock. */
  readonly takenAtMs: number;
  /** How often the server answered 403. */
  readonly forbidden: number;
}

/** Notes that wait, oldest first, each said once: one that says the same as another that still waits is counted with it. */
export interface EventQueue {
  /** Returns the oldest note where there are too many now. */
  add(note: EventNote): QueuedNote | undefined;
  /** One that was taken, and could not be sent. It keeps its name: perhaps it was sent. */
  putBack(queued: QueuedNote, where: 'first' | 'last'): void;
  take(): QueuedNote | undefined;
  /** Resolves when there is one, or the signal aborts. */
  filled(signal: AbortSignal): Promise<void>;
}

export function newEventQueue(limit: number): EventQueue {
  const queue: QueuedNote[] = [];
  let wake: () => void = () => undefined;
  return {
    add: (note) => {
      const key = keyOf(note);
      const nowMs = Date.now();
      const index = queue.findIndex((queued) => queued.key === key);
      const same = queue[index];
      if (same !== undefined) {
        queue[index] = { ...same, count: same.count + 1, lastMs: nowMs };
        return undefined;
      }
      const name = eventName(note);
      const takenAtMs = performance.now();
      queue.push({ key, name, note, count: 1, firstMs: nowMs, lastMs: nowMs, takenAtMs, forbidden: 0 });
      wake();
      return queue.length > limit ? queue.shift() : undefined;
    },
    putBack: (queued, where) => {
      if (where === 'first') queue.unshift(queued);
      else queue.push(queued);
    },
    take: () => queue.shift(),
    filled: (signal) =>
      new Promise((resolve) => {
        const done = () => {
          signal.removeEventListener('abort', done);
          wake = () => undefined;
          resolve();
        };
        wake = done;
        signal.addEventListener('abort', done, { once: true });
        if (queue.length > 0 || signal.aborted) done();
      }),
  };
}

function keyOf({ about, type, reason, message }: EventNote): string {
  const { namespace, kind, name, uid, fieldPath } = about;
  return JSON.stringify([namespace, kind, name, uid, fieldPath, type, reason, message]);
}
