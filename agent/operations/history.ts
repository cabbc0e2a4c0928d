import { LABELS } from '../../contract/keys.ts';
import type { PodView } from '../../contract/pods.ts';
import type { History } from '../plan/decide.ts';
import type { Journal } from './journal.ts';
import { originOf, viewOfEntry } from './operation-journal.ts';

/**
 * What is known of a pod's containers: each has one attempt. But one that was restored may be checkpointed when its pod becomes a
 * source, and what a caller asked for is not the attempt that the pod's own annotations ask for.
 */
export function historyOf(
  pod: PodView,
  known: {
    readonly journal: Journal;
    readonly isRunning: (containerId: string) => boolean;
    readonly isHopeless: (containerId: string) => boolean;
  },
): History {
  const isSource = pod.labels[LABELS.checkpointSource] === 'true';
  return (containerId) => {
    if (known.isRunning(containerId)) return { state: 'running' };
    const isHopeless = known.isHopeless(containerId);
    const open = { state: isHopeless ? 'ended' : 'none' } as const;
    const outcome = known.journal.outcomeOf(containerId);
    if (outcome === undefined || (outcome.details['retry'] === true && !isHopeless)) return open;
    const { kind, state } = outcome;
    if (kind === 'checkpoint') return originOf(outcome) === 'grpc' ? open : { state: 'ended' };
    const succeeded = state === 'succeeded';
    if (isSource) return succeeded ? open : { state: 'ended' };
    const { requestId, traceId, checkpointId, version, failure } = viewOfEntry(outcome).view;
    return { state: 'restored', restore: { requestId, traceId, checkpointId, version, failure } };
  };
}
