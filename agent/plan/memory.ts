/** Stands for the pod as a whole where a container's name or id would. */
export const WHOLE_POD = '';

const RETRY_MS = 1_000;
const MAX_RETRY_MS = 60_000;

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
