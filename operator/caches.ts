import type { Logger } from 'pino';
import { DYNAMO_CHECKPOINT, type DynamoCheckpoint, readDynamoCheckpoint } from '../contract/dynamo-checkpoint.ts';
import type { ObjectRead } from '../contract/object-meta.ts';
import type { KubeClient } from '../kube/client.ts';
import { type ResourceKind, resourcePath } from '../kube/paths.ts';
import type { Metrics } from './api/metrics.ts';
import { ObjectCache } from './control/cache.ts';

/** What every replica knows of the cluster: the webhook answers from it, and a new leader begins with it. */
export interface Caches {
  readonly checkpoints: ObjectCache<ObjectRead<DynamoCheckpoint>>;
  /** Which of them were not read yet. */
  missing(): readonly string[];
  /** Follows all of them until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

export interface CacheParts {
  readonly client: KubeClient;
  /** Empty: all. */
  readonly namespaces: readonly string[];
  readonly log: Logger;
  readonly metrics: Metrics['control'];
}

/** The caches. They are empty until they run. */
export function newCaches({ client, namespaces, log, metrics }: CacheParts): Caches {
  // With one namespace, the rights for one are enough.
  const pathOf = (kind: ResourceKind) => resourcePath(kind, namespaces.length === 1 ? namespaces[0] : undefined);
  const common = { client, namespaces, log, metrics };
  const checkpoints = new ObjectCache<ObjectRead<DynamoCheckpoint>>({
    ...{ ...common, path: pathOf(DYNAMO_CHECKPOINT), resource: 'dynamocheckpoints', read: readDynamoCheckpoint },
  });
  const all = { dynamocheckpoints: checkpoints };
  const unread = new Set(Object.keys(all));
  return {
    checkpoints,
    missing: () => [...unread],
    run: async (signal) => {
      const synced = Object.entries(all).map(async ([name, cache]) => {
        await cache.synced(signal);
        if (!signal.aborted) unread.delete(name);
      });
      await Promise.all([...synced, ...Object.values(all).map((cache) => cache.run(signal))]);
    },
  };
}
