import type { Transition } from '../../../agent/operations/journal.ts';

/** A transition of an operation on a container of its own. */
export const transition = (operationId: string, state: Transition['state']): Transition => ({
  operationId,
  kind: 'checkpoint',
  containerKey: { containerId: `c-${operationId}`, pid: 10, startTime: 20 },
  pod: { namespace: 'team', name: 'worker', uid: 'u' },
  container: 'main',
  checkpointId: 'ckpt',
  version: '1',
  state,
});
