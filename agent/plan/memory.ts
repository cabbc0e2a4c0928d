/** Stands for the pod as a whole where a container's name or id would. */
export const WHOLE_POD = '';

const RETRY_MS = 1_000;
const MAX_RETRY_MS = 60_000;
/** What is waited for is looked for less and less often, up to this: each look costs a few processes. */
const MAX_WAIT_MS = 2_000;
const WAIT_GROWTH = 1.25;
/** Where somebody says when it has come, in case that goes wrong. */
const HINTED_WAIT_MS = 30_000;
/** Pods that come together would otherwise look together for ever, and hold up everything else meanwhile. */
const WAIT_SPREAD = 0.2;

/** What the agent remembers of a container while its pod is there: it only spares work and words, the journal knows what counts. */
export interface ContainerMemory {
  /** Failed attempts so far. */
  tries: number;
  /** Looks that found it too early, so far. */
  waits: number;
  /** Not before this time (ms since the epoch): an event about the pod is no reason to try a failed operation sooner. */
  dueAt: number;
  /** The last reason for waiting that was logged. */
  said: string;
  /** The attempt failed before there was anything to write down, in a way that does not pass. */
  isHopeless: boolean;
}

export interface Memory {
  of(podUid: string, containerId: string): ContainerMemory;
  forget(podUid: string): void;
}

export function newMemory(): Memory {
  const pods = new Map<string, Map<string, ContainerMemory>>();
  const remember = <V>(map: Map<string, V>, key: string, fresh: () => V): V => {
    const known = map.get(key) ?? fresh();
    map.set(key, known);
    return known;
  };
  return {
    of: (podUid, containerId) =>
      remember(
        remember(pods, podUid, () => new Map<string, ContainerMemory>()),
        containerId,
        () => ({ tries: 0, waits: 0, dueAt: 0, said: '', isHopeless: false }),
      ),
    forget: (podUid) => {
      pods.delete(podUid);
    },
  };
}

/** Reasons for waiting are said when they change, not at every look. */
export function sayOnce(known: ContainerMemory, reason: string, say: () => void): void {
  if (known.said === reason) return;
  known.said = reason;
  say();
}

/** Failures that may pass are tried again after a second, doubled each time up to a minute. */
export function backoffMs(failures: number): number {
  return Math.min(MAX_RETRY_MS, RETRY_MS * 2 ** (failures - 1));
}

/** How long until the next look at what it was too early for so many times. */
export function lookAgainMs(
  waits: number,
  { pollMs, isHinted }: { readonly pollMs: number; readonly isHinted: boolean },
): number {
  const ms = isHinted ? HINTED_WAIT_MS : Math.min(MAX_WAIT_MS, pollMs * WAIT_GROWTH ** waits);
  return ms * (1 - WAIT_SPREAD * Math.random());
}
