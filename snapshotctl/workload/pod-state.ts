import type { Pod } from '../../kube/objects.ts';
import { oneLine } from '../show/text.ts';

/** Where a pod stands, for people: its phase, and what its containers wait for or ended with. */
export function podSummary(pod: Pod): string {
  const { phase = 'Pending', conditions = [], initContainerStatuses = [], containerStatuses = [] } = pod.status ?? {};
  const unscheduled = conditions.find(({ type, status }) => type === 'PodScheduled' && status === 'False');
  const notes = [
    ...(pod.metadata?.deletionTimestamp === undefined ? [] : ['is being deleted']),
    ...(unscheduled === undefined ? [] : [`not scheduled: ${because(unscheduled)}`]),
    ...[...initContainerStatuses, ...containerStatuses].flatMap((status) => containerNote(status)),
  ];
  return oneLine([`pod ${pod.metadata?.name ?? ''}: ${phase}`, ...notes].join('; '));
}

type ContainerStatus = NonNullable<NonNullable<Pod['status']>['containerStatuses']>[number];

function containerNote({ name, ready, state = {} }: ContainerStatus): string[] {
  const { waiting, terminated, running } = state;
  if (waiting !== undefined) return [`${name} waits (${because(waiting)})`];
  if (terminated !== undefined) return [`${name} ended with status ${terminated.exitCode} (${because(terminated)})`];
  if (running !== undefined) return [`${name} ${ready ? 'is ready' : 'runs, not ready'}`];
  return [];
}

function because({ reason, message }: { readonly reason?: string; readonly message?: string }): string {
  return [reason, message].filter((part) => part !== undefined && part !== '').join(': ') || 'no reason given';
}

/** The runtime's id of the container that has this name now, without its scheme; undefined before the first one. */
export function containerId(pod: Pod, container: string): string | undefined {
  const id = pod.status?.containerStatuses?.find(({ name }) => name === container)?.containerID;
  return id?.replace(/^[a-z-]+:\/\//, '');
}
