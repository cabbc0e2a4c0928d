import type { Logger } from 'pino';

/** So many in a row are nothing to speak of: two who write at once. */
const QUIET = 4;
const EVERY_MS = 60_000;

/** Notes the write conflicts of the objects of a controller. */
export interface Conflicts {
  /** One more. `fields` are for the log. */
  lost(key: string, fields: object): void;
  /** A look at it ended otherwise. */
  ended(key: string): void;
}

/** Says of each object that loses against other writers again and again, at most once a minute; else it is a matter of debugging. */
export function newConflicts(log: Logger): Conflicts {
  const counts = new Map<string, number>();
  /** By key: when it was said last. */
  const saidAt = new Map<string, number>();
  return {
    lost: (key, fields) => {
      const conflicts = (counts.get(key) ?? 0) + 1;
      counts.set(key, conflicts);
      const isDue = performance.now() - (saidAt.get(key) ?? Number.NEGATIVE_INFINITY) >= EVERY_MS;
      if (conflicts <= QUIET || !isDue) {
        log.debug({ ...fields, conflicts }, 'somebody else wrote first');
        return;
      }
      saidAt.set(key, performance.now());
      log.warn(
        { ...fields, conflicts },
        'somebody else writes the object again and again: look for another controller',
      );
    },
    ended: (key) => {
      counts.delete(key);
      if (performance.now() - (saidAt.get(key) ?? Number.NEGATIVE_INFINITY) >= EVERY_MS) saidAt.delete(key);
    },
  };
}
