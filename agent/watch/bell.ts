import { setTimeout as sleep } from 'node:timers/promises';

/** Sleeps; an abort ends it early, and is no error. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined);
}

/** Lets one loop sleep until somebody rings, or the time is over. A ring while nobody sleeps is remembered. */
export function newBell() {
  let rung = false;
  let wake: (() => void) | undefined;
  return {
    ring: () => {
      rung = true;
      wake?.();
    },
    wait: (ms: number, signal: AbortSignal) =>
      new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer);
          signal.removeEventListener('abort', done);
          wake = undefined;
          rung = false;
          resolve();
        };
        const timer = setTimeout(done, rung || signal.aborted ? 0 : ms);
        signal.addEventListener('abort', done, { once: true });
        wake = done;
      }),
  };
}
