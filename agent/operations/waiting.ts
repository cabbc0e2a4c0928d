import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { ANNOTATIONS } from '../../contract/keys.ts';
import type { PodView } from '../../contract/pods.ts';
import { SnapshotError } from '../errors.ts';
import type { CheckpointWanted, RestoreWanted } from '../plan/decide.ts';
import { failedOutcome } from './perform.ts';
import { annotationRequestId, type OperationHandle, type Registry } from './registry.ts';
import { targetOf } from './wishes.ts';

type Wanted = CheckpointWanted | RestoreWanted;

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
  /** The operation that waits for just this, or a new one. One that waits for something else under the key ends. */
  of(key: string, pod: PodView, wanted: Wanted): Begun;
  /** The keys of a pod under which something waits. */
  keysOf(podUid: string): string[];
  /** Whether something waits for just this. */
  isFor(key: string, wanted: Wanted): boolean;
  /** It was too early. */
  keep(key: string, begun: Begun, wanted: Wanted, reason: string): void;
  /** It does not wait any more. */
  remove(key: string): void;
  /** Ends what waits under the key, where something does. */
  end(key: string, failure: SnapshotError): void;
  endOfPod(podUid: string, failure: SnapshotError): void;
}

/** `onCancelled`: somebody cancelled what waits under the key. */
export function newWaiting(registry: Registry, onCancelled: (key: string) => void): Waiting {
  const waiting = new Map<string, { readonly begun: Begun; readonly wanted: Wanted }>();
  const end = (key: string, failure: SnapshotError) => {
    waiting.get(key)?.begun.begin().ended(failedOutcome(failure));
    waiting.delete(key);
  };
  const keysOf = (podUid: string) => [...waiting.keys()].filter((key) => key.startsWith(`${podUid}/`));
  const isFor = (key: string, wanted: Wanted) => {
    const known = waiting.get(key)?.wanted;
    return known !== undefined && isSame(known, wanted);
  };
  return {
    of: (key, pod, wanted) => {
      const known = waiting.get(key);
      if (known !== undefined && isSame(known.wanted, wanted)) return known.begun;
      const isRestarted = known?.wanted.container.id !== wanted.container.id;
      end(
        key,
        isRestarted
          ? new SnapshotError('CONTAINER_GONE', 'its container was restarted')
          : new SnapshotError('CANCELLED', 'the pod asks for something else now'),
      );
      return newOperation(registry, pod, wanted);
    },
    keysOf,
    isFor,
    keep: (key, begun, wanted, reason) => {
      const handle = begun.begin();
      handle.waiting(reason);
      if (waiting.get(key)?.begun !== begun)
        handle.cancelled.addEventListener('abort', () => onCancelled(key), { once: true });
      waiting.set(key, { begun, wanted });
    },
    remove: (key) => {
      waiting.delete(key);
    },
    end,
    endOfPod: (podUid, failure) => {
      for (const key of keysOf(podUid)) end(key, failure);
    },
  };
}

/** The same operation on the same container; how the runtime describes the container besides does not matter. */
function isSame({ container: a, ...one }: Wanted, { container: b, ...other }: Wanted): boolean {
  return a.id === b.id && isDeepStrictEqual(one, other);
}

function newOperation(registry: Registry, pod: PodView, wanted: Wanted): Begun {
  const { checkpointId, version, container, kind } = wanted;
  const operationId = randomUUID();
  const requestId = annotationRequestId(pod.uid, container.id, checkpointId);
  // Further tries, of an agent that was started again too, belong to the same trace: the Job, its record and Events name one.
  const traceId = traceOf(pod.annotations[ANNOTATIONS.traceId]) ?? requestId;
  let handle: OperationHandle | undefined;
  const open = () =>
    registry.open({
      id: operationId,
      requestId,
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
