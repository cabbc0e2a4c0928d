import { ANNOTATIONS } from '../../contract/keys.ts';
import type { FailedContainer, PodView } from '../../contract/pods.ts';
import type { EventNote } from '../../kube/event-object.ts';
import type { OperationRequest, Outcome } from '../operations/context.ts';
import { failureSentence } from '../operations/reporter.ts';
import type { CheckpointWanted, RestoreWanted } from '../plan/decide.ts';

type Request = OperationRequest<CheckpointWanted | RestoreWanted>;

const TITLES = { checkpoint: 'Checkpoint', restore: 'Restore' } as const;

/** An operation begins. */
export function requestedNote(request: Request): EventNote {
  const { kind, checkpointId, version, container } = request.wanted;
  const message = `${kind} ${checkpointId} (version ${version}) of container ${container.name} begins`;
  return noteOf(request, { type: 'Normal', reason: `${TITLES[kind]}Requested`, message });
}

/** It ended. */
export function endedNote(request: Request, { failure, result, timings }: Outcome): EventNote {
  const { kind, checkpointId, version, container } = request.wanted;
  const what = `${kind} ${checkpointId} (version ${version}) of container ${container.name}`;
  if (failure !== undefined) {
    const message = `${what} failed: ${failureSentence(failure)}`;
    return noteOf(request, { type: 'Warning', reason: `${TITLES[kind]}Failed`, message });
  }
  const seconds = timings.reduce((sum, timing) => sum + timing.seconds, 0).toFixed(2);
  const message = result === 'adopted' ? `${what}: the artifact was there already` : `${what} took ${seconds} s`;
  return noteOf(request, { type: 'Normal', reason: `${TITLES[kind]}Succeeded`, message });
}

/** Containers of a checkpoint's pod ended with an error. */
export function workerFailedNote(pod: PodView, failed: readonly FailedContainer[]): EventNote {
  const each = failed.map(({ name, exitCode, reason }) => `${name} with status ${exitCode}${reason && ` (${reason})`}`);
  const message = `the checkpoint Job is declared failed: containers ended, ${each.join(', ')}`;
  return { about: aboutPod(pod), type: 'Warning', reason: 'CheckpointFailed', message };
}

function noteOf({ pod, wanted, traceId }: Request, note: Pick<EventNote, 'type' | 'reason' | 'message'>): EventNote {
  const about = { ...aboutPod(pod), fieldPath: `spec.containers{${wanted.container.name}}` };
  return { about, ...note, annotations: { [ANNOTATIONS.traceId]: traceId } };
}

function aboutPod({ namespace, name, uid }: PodView) {
  return { apiVersion: 'v1', kind: 'Pod', namespace, name, uid };
}
