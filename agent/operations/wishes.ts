import type { PodView } from '../../contract/pods.ts';
import { SnapshotError } from '../errors.ts';
import type { CheckpointWanted, RestoreWanted } from '../plan/decide.ts';
import type { OperationTarget } from './operation.ts';
import type { OperationHandle } from './registry.ts';

/** What a caller asked for, by no annotation: one attempt, begun as soon as it can be. */
export interface Wish {
  readonly operationId: string;
  readonly fingerprint: string;
  readonly handle: OperationHandle;
  /** As the runtime has it: what Kubernetes says of the pod is no condition. */
  readonly pod: PodView;
  readonly wanted: CheckpointWanted | RestoreWanted;
  /** Milliseconds since the epoch: from then on nobody waits for what is not there yet. */
  readonly deadlineAtMs: number;
}

/** Wishes that have not ended, at most one for each container of a pod. */
export interface Wishes {
  /** Throws TARGET_BUSY where the container has one already. */
  add(wish: Wish): void;
  of(key: string): Wish | undefined;
  remove(key: string): void;
  readonly size: number;
}

/** The key under which a container of a pod is worked on: one operation at a time. */
export function workKey(podUid: string, container: string): string {
  return `${podUid}/${container}`;
}

export function newWishes(): Wishes {
  const wishes = new Map<string, Wish>();
  return {
    add: (wish) => {
      const key = workKey(wish.pod.uid, wish.wanted.container.name);
      const other = wishes.get(key);
      if (other !== undefined) throw targetBusy(wish.wanted.container.name, other.operationId);
      wishes.set(key, wish);
    },
    of: (key) => wishes.get(key),
    remove: (key) => {
      wishes.delete(key);
    },
    get size() {
      return wishes.size;
    },
  };
}

export function targetBusy(container: string, operationId: string): SnapshotError {
  return new SnapshotError('TARGET_BUSY', `operation ${operationId} is at work on container ${container}`);
}

export function targetOf(pod: PodView, { container }: CheckpointWanted | RestoreWanted): OperationTarget {
  const { namespace, name, uid } = pod;
  return { namespace, pod: name, podUid: uid, container: container.name, containerId: container.id };
}
