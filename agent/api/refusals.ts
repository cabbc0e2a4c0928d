import type { Logger } from 'pino';

const EVERY_MS = 1_000;

/** Says how many calls were refused for a limit: for each caller at most once in a second, however many there are. */
export interface Refusals {
  count(caller: string): void;
}

export function newRefusals(log: Logger, everyMs = EVERY_MS): Refusals {
  /** Those refused since the last line, of callers that had one a moment ago. */
  const waiting = new Map<string, number>();
  const say = (caller: string, refused: number) => {
    log.info({ caller, refused }, 'grpc calls were refused for a limit');
    waiting.set(caller, 0);
    setTimeout(() => {
      const more = waiting.get(caller) ?? 0;
      if (more > 0) say(caller, more);
      else waiting.delete(caller);
    }, everyMs).unref();
  };
  return {
    count: (caller) => {
      const before = waiting.get(caller);
      if (before === undefined) say(caller, 1);
      else waiting.set(caller, before + 1);
    },
  };
}
