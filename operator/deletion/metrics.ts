import { Counter, Registry } from 'prom-client';
import type { Release } from './decide.ts';

/** What the deletion of artifacts tells. None of these calls throws. */
export interface DeletionMetrics {
  /** An object was let go. */
  released(why: Release): void;
  /** A Job that was to delete artifacts failed, and is made again. */
  cleanupFailed(): void;
}

/** The metrics, in the registry that is given or one of their own. Every metric name of this room is here. */
export function newDeletionMetrics(registry = new Registry()): DeletionMetrics & { readonly registry: Registry } {
  const registers = [registry];
  const released = new Counter({
    name: 'snapshot_operator_checkpoints_released_total',
    help: 'Deleted DynamoCheckpoints that were let go, by what became of their artifacts.',
    ...{ labelNames: ['why'], registers },
  });
  const failed = new Counter({
    name: 'snapshot_operator_cleanup_failures_total',
    help: 'Jobs that were to delete artifacts, and failed.',
    registers,
  });
  return {
    registry,
    released: (why) => released.inc({ why }),
    cleanupFailed: () => failed.inc(),
  };
}
