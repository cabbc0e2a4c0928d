import type { KubeClient } from '../../kube/client.ts';
import type { Pod } from '../../kube/objects.ts';
import { eventPath, kubePath } from '../../kube/paths.ts';
import { oneLine } from '../show/text.ts';

/** What is read of an Event. */
export interface PodEvent {
  readonly metadata: { readonly name: string };
  readonly type?: string;
  readonly reason?: string;
  readonly message?: string;
  readonly source?: { readonly component?: string };
  readonly involvedObject?: { readonly fieldPath?: string };
}

/** As agents sign their Events. */
const AGENT = 'snapshot';

export interface NewsPlace {
  readonly kube: KubeClient;
  readonly namespace: string;
  readonly signal: AbortSignal;
}

/** The pods of a Job. Throws KubeError. */
export async function jobPods({ kube, namespace, signal }: NewsPlace, job: string): Promise<Pod[]> {
  const path = kubePath('api', 'v1', 'namespaces', namespace, 'pods');
  const query = { labelSelector: `batch.kubernetes.io/job-name=${job}` };
  const { items } = await kube.request<{ readonly items?: Pod[] | null }>({ method: 'GET', path, query, signal });
  return items ?? [];
}

/** The Events about a pod. Throws KubeError. */
async function podEvents({ kube, namespace, signal }: NewsPlace, pod: Pod): Promise<PodEvent[]> {
  const { uid = '' } = pod.metadata ?? {};
  const query = { fieldSelector: `involvedObject.uid=${uid}` };
  const { items } = await kube.request<{ readonly items?: PodEvent[] | null }>({
    method: 'GET',
    path: eventPath(namespace),
    query,
    signal,
  });
  return items ?? [];
}

/** The Events that matter here: the agent's, and everybody's warnings. None where they cannot be read: they are only for people. */
export async function notableEvents(place: NewsPlace, pods: readonly Pod[]): Promise<PodEvent[]> {
  const all = await Promise.all(pods.map((pod) => podEvents(place, pod).catch(() => [])));
  return all.flat().filter(({ type, source }) => source?.component === AGENT || type === 'Warning');
}

/** An Event as one line. */
export function eventLine({ reason = '', message = '' }: PodEvent): string {
  return oneLine(`${reason}: ${message}`);
}

/** What the agent said of the end of an operation on one of these pods, if it has. */
export async function agentsWord(
  place: NewsPlace,
  pods: readonly Pod[],
  { reason, container }: { readonly reason: string; readonly container?: string },
): Promise<string | undefined> {
  const events = await notableEvents(place, pods);
  const isMeant = ({ source, involvedObject, ...event }: PodEvent) =>
    source?.component === AGENT &&
    event.reason === reason &&
    (container === undefined || involvedObject?.fieldPath === `spec.containers{${container}}`);
  const message = events.filter(isMeant).at(-1)?.message;
  return message === undefined ? undefined : oneLine(message);
}
