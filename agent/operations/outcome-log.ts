import type { Logger } from 'pino';
import type { PodView } from '../../contract/pods.ts';
import type { CheckpointWanted, RestoreWanted } from '../plan/decide.ts';
import type { Outcome } from './context.ts';

/** What every line about an operation carries. */
export function operationFields(
  pod: PodView,
  wanted: CheckpointWanted | RestoreWanted,
  ids: { readonly operationId: string; readonly traceId: string },
) {
  return {
    operation: wanted.kind,
    operationId: ids.operationId,
    traceId: ids.traceId,
    namespace: pod.namespace,
    pod: pod.name,
    container: wanted.container.name,
    containerId: wanted.container.id,
    checkpointId: wanted.checkpointId,
    version: wanted.version,
  };
}

/** Says how an operation ended: its steps with their times, its figures, and what failed. */
export function logOutcome(log: Logger, outcome: Outcome): void {
  const seconds = outcome.timings.reduce((sum, timing) => sum + timing.seconds, 0);
  const steps = Object.fromEntries(outcome.timings.map(({ step, seconds: taken }) => [step, Number(taken.toFixed(4))]));
  const fields = { result: outcome.result, seconds: Number(seconds.toFixed(4)), steps, ...outcome.figures };
  if (outcome.failure === undefined) {
    log.info(fields, 'operation succeeded');
    return;
  }
  const { code, message, advice, reasons, cause } = outcome.failure;
  const why = { code, step: outcome.failedStep, problem: message, advice, reasons };
  log.error({ ...fields, ...why, cause: cause instanceof Error ? cause.message : undefined }, 'operation failed');
}
