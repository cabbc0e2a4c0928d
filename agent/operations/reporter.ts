import type { PodView } from '../../contract/pods.ts';
import type { Again } from '../../kube/queue.ts';
import type { SnapshotError } from '../errors.ts';
import type { CheckpointWanted, ReportWanted, RestoreWanted, WorkerFailed } from '../plan/decide.ts';
import { backoffMs, type Memory, WHOLE_POD } from '../plan/memory.ts';
import type { AgentContext, OperationRequest, Outcome, TooEarly } from './context.ts';

/** An operation that the cluster was told of. */
export interface Claim {
  /** Aborts with a SnapshotError where the operation must not go on: another agent took it over. */
  readonly lost: AbortSignal;
  /** The artifact is declared complete already: all that may be left is to release its worker. */
  readonly isCompleted: boolean;
  /**
   * Declares the checkpoint complete, before its worker is released. Returns when that is stored. JOB_UNDECLARED where it could not be in
   * time: a later look at the artifact does it. KUBERNETES_REFUSED where it can never be.
   */
  declareComplete(signal: AbortSignal): Promise<void>;
  /** Tells how it ended, and lets go. `isFinal`: it is not tried again. Never rejects: what could not be told is told later. */
  end(outcome: Outcome, isFinal: boolean): Promise<void>;
}

/** Nothing is to be done any more, and why. */
export interface Over {
  readonly result: 'over';
  readonly reason: string;
  /** The Job of the checkpoint is declared failed. */
  readonly isFailed?: boolean;
}

/**
 * What the rest of the cluster is told of operations, and asked before they begin. The record on the volume and the journal are the truth;
 * what is told is a copy, told again until it is stored.
 */
export interface Reporter {
  claimCheckpoint(request: OperationRequest<CheckpointWanted>): Promise<Claim | TooEarly | Over>;
  claimRestore(request: OperationRequest<RestoreWanted>): Promise<Claim | Over>;
  /** A container of a checkpoint's pod failed: its Job is declared failed. */
  workerFailed(pod: PodView, decision: WorkerFailed): Promise<void>;
  /** Stores the outcome of a restore that ended earlier, where the pod does not say so yet. */
  repeat(pod: PodView, decision: ReportWanted): Promise<void>;
}

const never = new AbortController().signal;
const nobody: Claim = {
  lost: never,
  isCompleted: false,
  declareComplete: () => Promise.resolve(),
  end: () => Promise.resolve(),
};

/** For an agent that takes its pods from the runtime alone: there is nobody to tell. */
export const noReporter: Reporter = {
  claimCheckpoint: () => Promise.resolve(nobody),
  claimRestore: () => Promise.resolve(nobody),
  workerFailed: () => Promise.resolve(),
  repeat: () => Promise.resolve(),
};

/** Tells the cluster what it does not know yet. Says when to try again where that failed. */
export async function tellCluster(
  { reporter, log }: Pick<AgentContext, 'reporter' | 'log'>,
  pod: PodView,
  decision: ReportWanted | WorkerFailed,
  memory: Memory,
): Promise<Again> {
  const known = memory.of(pod.uid, decision.kind === 'report' ? decision.container.id : WHOLE_POD);
  // Such a pod stays for as long as its Job does.
  if (decision.kind === 'worker-failed' && known.isHopeless && decision.running.length === 0) return undefined;
  try {
    await (decision.kind === 'report' ? reporter.repeat(pod, decision) : reporter.workerFailed(pod, decision));
    known.waits = 0;
    if (decision.kind === 'worker-failed') known.isHopeless = true;
    return undefined;
  } catch (err) {
    known.waits += 1;
    const afterMs = backoffMs(known.waits);
    log.warn({ err, pod: pod.name, namespace: pod.namespace, afterMs }, 'the cluster could not be told');
    return { afterMs };
  }
}

/**
 * The artifact is complete, and all that is left is to say so and to release the worker. It is looked at again for as long as it takes:
 * neither is it the failure of an attempt, nor the end of what the pod asks for.
 */
export function isUndeclared(failure: SnapshotError | undefined): boolean {
  return failure?.code === 'JOB_UNDECLARED';
}

/** One sentence for people: what failed, and what to do. */
export function failureSentence({ code, message, advice }: Record<'code' | 'message' | 'advice', string>): string {
  return `${code}: ${message}. ${advice}`;
}
