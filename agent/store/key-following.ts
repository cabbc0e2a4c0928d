import type { Logger } from 'pino';
import { type KeyFiles, loadRecordKeys, type RecordKeys } from './key.ts';

/** As often as certificates are looked at: kubelet takes a minute anyway. */
const LOOK_EVERY_MS = 10_000;

/** The record keys as they are now. What begins takes them once and works with those to its end. */
export interface LiveRecordKeys {
  current(): RecordKeys;
  /** The files changed, or are gone, and cannot be used. */
  isStale(): boolean;
  stop(): void;
}

/**
 * Reads the key files again and again: kubelet swaps a link above them, and they are small. Files that are wrong or gone change
 * nothing, as a whole: what was in force stays, and the log says so once. No key is made anew where one is gone.
 */
export function followRecordKeys(
  files: KeyFiles,
  options: { readonly first: RecordKeys; readonly log: Logger; readonly everyMs?: number },
): LiveRecordKeys {
  const { log, everyMs = LOOK_EVERY_MS } = options;
  let keys = options.first;
  let problem = '';
  let isLooking = false;
  const look = async () => {
    try {
      const found = await loadRecordKeys({ ...files, create: false });
      problem = '';
      if (namesOf(found) === namesOf(keys)) return;
      keys = found;
      log.info(shown(found), 'the record keys changed');
    } catch (err) {
      const message = err instanceof Error ? err.message : String(err);
      if (message !== problem) log.error({ err }, 'changed record keys are not used: what was in force stays');
      problem = message;
    }
  };
  log.info(shown(keys), 'record keys');
  const timer = setInterval(() => {
    if (isLooking) return;
    isLooking = true;
    void look().finally(() => {
      isLooking = false;
    });
  }, everyMs);
  timer.unref();
  return { current: () => keys, isStale: () => problem !== '', stop: () => clearInterval(timer) };
}

/** Ids tell which keys they are, and nothing about them. */
function shown({ current, accepted }: RecordKeys) {
  return { signs: current.id, accepted: accepted.map(({ id }) => id) };
}

const namesOf = (keys: RecordKeys) => JSON.stringify(shown(keys));
