import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import type { DynamoGraphDeployment } from '../../contract/dynamo-graph-deployment.ts';
import { ANNOTATIONS, LABELS } from '../../contract/keys.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { Pod } from '../../kube/objects.ts';
import { resourcePath } from '../../kube/paths.ts';
import { isOwnedBy } from '../control/object-writer.ts';
import { selectorLabels } from './component.ts';
import type { ServiceDecision } from './decide.ts';

/** By which the workers of its generation are found. */
const WORKERS = [LABELS.graph, LABELS.component, LABELS.workerHash];
const KEYS = [...WORKERS, LABELS.checkpointId];
const PODS = { group: '', version: 'v1', plural: 'pods' } as const;

/**
 * The automatic checkpoints of generations that are past, and that may go once no pod of theirs is left: beyond the newest `kept` ones of
 * each service, and all of services that are gone. Pure.
 */
export function pastCheckpoints(
  graph: DynamoGraphDeployment,
  {
    checkpoints,
    decisions,
    kept,
  }: {
    readonly checkpoints: Iterable<DynamoCheckpoint>;
    readonly decisions: readonly ServiceDecision[];
    readonly kept: number;
  },
): readonly DynamoCheckpoint[] {
  const isOurs = isOwnedBy(graph.metadata.uid);
  const current = new Set(decisions.map(({ checkpoint }) => checkpoint?.name));
  const past = [...checkpoints].filter(
    ({ metadata }) =>
      metadata.namespace === graph.metadata.namespace &&
      metadata.annotations?.[ANNOTATIONS.autoCheckpoint] === 'true' &&
      metadata.deletionTimestamp === undefined &&
      isOurs(metadata) &&
      !current.has(metadata.name),
  );
  const counts = new Map<string | undefined, number>();
  const services = new Map(
    decisions.map((decision) => [selectorLabels(decision.component)[LABELS.component], decision]),
  );
  return past.sort(newestFirst).filter(({ metadata }) => {
    const service = metadata.labels?.[LABELS.component];
    const decision = services.get(service);
    const count = (counts.get(service) ?? 0) + 1;
    counts.set(service, count);
    // One whose present generation cannot be told may be of it.
    const isUntold = decision?.word !== undefined && decision.checkpoint === undefined;
    return decision === undefined || (!isUntold && count > kept);
  });
}

function newestFirst(a: DynamoCheckpoint, b: DynamoCheckpoint): number {
  const [timeA = '', timeB = ''] = [a.metadata.creationTimestamp, b.metadata.creationTimestamp];
  return timeB.localeCompare(timeA) || a.metadata.name.localeCompare(b.metadata.name);
}

/** Whether a worker of a checkpoint's generation is still there, or a pod that is restored from it. Throws KubeError. */
export async function isInUse(
  client: KubeClient,
  { metadata }: DynamoCheckpoint,
  signal: AbortSignal,
): Promise<boolean> {
  const { labels = {}, namespace } = metadata;
  // Without its labels nobody can tell.
  if (KEYS.some((key) => !labels[key])) return true;
  const same = (keys: readonly string[]) => keys.map((key) => `${key}=${labels[key] ?? ''}`).join(',');
  const selectors = [same(WORKERS), same([LABELS.checkpointId])];
  for (const labelSelector of selectors) {
    const request = { method: 'GET', path: resourcePath(PODS, namespace), query: { labelSelector }, signal } as const;
    const { items } = await client.request<{ items?: readonly Pod[] | null }>(request);
    if (items?.some(isAlive) === true) return true;
  }
  return false;
}

/** The pod of its own checkpoint Job goes with it. */
function isAlive({ metadata, status }: Pod): boolean {
  const isSource = metadata?.labels?.[LABELS.checkpointSource] === 'true';
  return !isSource && status?.phase !== 'Succeeded' && status?.phase !== 'Failed';
}
