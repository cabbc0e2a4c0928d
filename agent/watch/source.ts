import type { PodView } from '../../contract/pods.ts';

/** Where pods come from. Whoever watches only triggers: what is to be done is read from `pod` at the time. */
export interface PodSource {
  /** The pod as last seen; undefined where it is gone. */
  pod(uid: string): PodView | undefined;
  pods(): Iterable<PodView>;
  /**
   * Follows the pods until the signal; `changed` is called with the uid of each pod that is new, changed or gone, and, where it was the
   * Kubernetes API that told, with when (`performance.now()`). What `changed` throws ends it, and is thrown.
   */
  run(changed: (podUid: string, toldAtMs?: number) => void, signal: AbortSignal): Promise<void>;
  /** Why what is known may be out of date; undefined where it is fresh. */
  staleReason(): string | undefined;
  /**
   * Seconds since the Kubernetes API was last heard of; undefined before the first list. Absent where pods come from the runtime alone.
   */
  contactAgeSeconds?(): number | undefined;
}
