import { ANNOTATIONS } from '../../contract/keys.ts';
import type { FailedContainer, PodView } from '../../contract/pods.ts';
import type { EventNote } from '../../kube/event-object.ts';
import type { OperationRequest, Outcome } from '../operations/context.ts';
import { failureSentence } from '../operations/reporter.ts';
import type { CheckpointWanted, ReportWanted, RestoreWanted } from '../plan/decide.ts';

type Request = OperationRequest<CheckpointWanted | RestoreWanted>;

/** What an Event says of an operation, beside what happened to it. */
interface Subject {
  readonly pod: PodView;
  readonly container: string;
  readonly requestId: string;
  readonly traceId: string;
}

/** Whoever sees that the checkpoint of a Job fails: it fails once. */
const JOB_FAILED = 'the checkpoint of the Job failed';

const TITLES = { checkpoint: 'Checkpoint', restore: 'Restore' } as const;

/** An operation begins. */
export function requestedNote(request: Request): EventNote {
  const { kind } = request.wanted;
  return noteOf(subjectOf(request), 'Normal', `${TITLES[kind]}Requested`, `${whatOf(request.wanted)} begins`);
}

/** It ended. */
export function endedNote(request: Request, { failure, result, timings }: Outcome): EventNote {
  const what = whatOf(request.wanted);
  if (failure !== undefined) return failedNote(request, `${what} failed: ${failureSentence(failure)}`);
  const seconds = timings.reduce((sum, timing) => sum + timing.seconds, 0).toFixed(2);
  const message = result === 'adopted' ? `${what}: the artifact was there already` : `${what} took ${seconds} s`;
  return noteOf(subjectOf(request), 'Normal', `${TITLES[request.wanted.kind]}Succeeded`, message);
}

/** Its Job was declared failed before it began. */
export function jobFailedNote(request: OperationRequest<CheckpointWanted>, why: string): EventNote {
  return failedNote(request, `${whatOf(request.wanted)} is not made: ${why}`);
}

/** A restore ended some time ago, and it is not known whether that was said. */
export function repeatedNote(pod: PodView, { container, restore }: ReportWanted): EventNote {
  const { requestId, traceId, failure } = restore;
  const subject = { pod, container: container.name, requestId, traceId };
  const what = whatOf({ kind: 'restore', container, ...restore });
  if (failure === undefined) return noteOf(subject, 'Normal', 'RestoreSucceeded', `${what} succeeded`);
  return noteOf(subject, 'Warning', 'RestoreFailed', `${what} failed: ${failureSentence(failure)}`);
}

/** Containers of a checkpoint's pod ended with an error. */
export function workerFailedNote(pod: PodView, failed: readonly FailedContainer[]): EventNote {
  const each = failed.map(({ name, exitCode, reason }) => `${name} with status ${exitCode}${reason && ` (${reason})`}`);
  const message = `the checkpoint Job is declared failed: containers ended, ${each.join(', ')}`;
  return { about: aboutPod(pod), type: 'Warning', reason: 'CheckpointFailed', message, once: JOB_FAILED };
}

function whatOf({
  kind,
  checkpointId,
  version,
  container,
}: Pick<CheckpointWanted | RestoreWanted, 'kind' | 'checkpointId' | 'version' | 'container'>): string {
  return `${kind} ${checkpointId} (version ${version}) of container ${container.name}`;
}

function failedNote(request: Request, message: string): EventNote {
  const { wanted } = request;
  const note = noteOf(subjectOf(request), 'Warning', `${TITLES[wanted.kind]}Failed`, message);
  return wanted.kind === 'checkpoint' && wanted.ofJob ? { ...note, once: JOB_FAILED } : note;
}

function subjectOf({ pod, wanted, traceId, begin }: Request): Subject {
  return { pod, container: wanted.container.name, requestId: begin().view.requestId, traceId };
}

/** Further tries at the same request, and an agent that is started again, say nothing new by saying it again. */
function noteOf(
  { pod, container, requestId, traceId }: Subject,
  type: EventNote['type'],
  reason: string,
  message: string,
): EventNote {
  const about = { ...aboutPod(pod), fieldPath: `spec.containers{${container}}` };
  const annotations = { [ANNOTATIONS.traceId]: traceId };
  return { about, type, reason, message, annotations, once: `${requestId} ${reason}` };
}

function aboutPod({ namespace, name, uid }: PodView) {
  return { apiVersion: 'v1', kind: 'Pod', namespace, name, uid };
}
