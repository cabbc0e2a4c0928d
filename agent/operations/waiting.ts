import { randomBytes, randomUUID } from 'node:crypto';
import { ANNOTATIONS } from '../../contract/keys.ts';
import type { PodView } from '../../contract/pods.ts';
import { SnapshotError } from '../errors.ts';
import type { CheckpointWanted, RestoreWanted } from '../plan/decide.ts';
import { failedOutcome } from './perform.ts';
import { annotationRequestId, type OperationHandle, type Registry } from './registry.ts';
import { targetOf } from './wishes.ts';

/** An operation that an annotation asks for, from the first look at its container on. */
interface Begun {
  readonly operationId: string;
  readonly traceId: string;
  /** Makes it known to all; the same handle each time. */
  readonly begin: () => OperationHandle;
  readonly isBegun: () => boolean;
}

/** Operations that it was too early for, by work key: the next look goes on with the same one. */
export interface Waiting {
  /** The operation that waits for this container, or a new one. One that waits for an earlier container of the name ends. */
  of(key: string, pod: PodView, wanted: CheckpointWanted | RestoreWanted): Begun;
  /** It was too early. */
  keep(key: string, begun: Begun, reason: string): void;
  /** It does not wait any more. */
  remove(key: string): void;
  /** Ends what waits under the key, where something does. */
  end(key: string, failure: SnapshotError): void;
  endOfPod(podUid: string, failure: SnapshotError): void;
}

export function newWaiting(registry: Registry): Waiting {
  const waiting = new Map<string, Begun>();
  const containerOf = (begun: Begun) => begun.begin().view.target.containerId;
  const end = (key: string, failure: SnapshotError) => {
    waiting.get(key)?.begin().ended(failedOutcome(failure));
    waiting.delete(key);
  };
  return {
    of: (key, pod, wanted) => {
      const known = waiting.get(key);
      if (known !== undefined && containerOf(known) === wanted.container.id) return known;
      end(key, new SnapshotError('CONTAINER_GONE', 'its container was restarted'));
      return newOperation(registry, pod, wanted);
    },
    keep: (key, begun, reason) => {
      begun.begin().waiting(reason);
      waiting.set(key, begun);
    },
    remove: (key) => {
      waiting.delete(key);
    },
    end,
    endOfPod: (podUid, failure) => {
      for (const key of [...waiting.keys()]) if (key.startsWith(`${podUid}/`)) end(key, failure);
    },
  };
}

function newOperation(registry: Registry, pod: PodView, wanted: CheckpointWanted | RestoreWanted): Begun {
  const { checkpointId, version, container, kind } = wanted;
  const operationId = randomUUID();
  const traceId = traceOf(pod.annotations[ANNOTATIONS.traceId]) ?? randomBytes(16).toString('hex');
  let handle: OperationHandle | undefined;
  const open = () =>
    registry.open({
      id: operationId,
      requestId: annotationRequestId(pod.uid, container.id, checkpointId),
      fingerprint: '',
      kind,
      origin: 'annotation',
      target: targetOf(pod, wanted),
      checkpointId,
      version,
      traceId,
    });
  const begin = () => {
    handle ??= open();
    return handle;
  };
  return { operationId, traceId, begin, isBegun: () => handle !== undefined };
}

/** The trace that a pod says it belongs to, where what it says is one. */
function traceOf(text: string | undefined): string | undefined {
  return text !== undefined && /^(?!0{32})[0-9a-f]{32}$/.test(text) ? text : undefined;
}
