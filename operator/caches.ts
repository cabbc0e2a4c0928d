import type { Logger } from 'pino';
import { AGENT_SELECTOR } from '../contract/agent-storage.ts';
import {
  DYNAMO_GRAPH_DEPLOYMENT,
  type DynamoGraphDeployment,
  readDynamoGraphDeployment,
} from '../contract/dynamo-graph-deployment.ts';
import type { ObjectRead } from '../contract/object-meta.ts';
import type { KubeClient } from '../kube/client.ts';
import type { DaemonSet } from '../kube/objects.ts';
import { type ResourceKind, resourcePath } from '../kube/paths.ts';
import { newAgentPodCache } from './agents/agent-pod.ts';
import type { Metrics } from './api/metrics.ts';
import { newCheckpointCache, newJobCache, newSourcePodCache } from './checkpoint/caches.ts';
import { ObjectCache } from './control/cache.ts';
import { DEPLOYMENTS, type Deployment, readDeployment } from './graph/deployment.ts';

const DAEMON_SETS = { group: 'apps', version: 'v1', plural: 'daemonsets' };
const PODS = { group: '', version: 'v1', plural: 'pods' };

export interface CacheParts {
  readonly client: KubeClient;
  /** The namespaces that are worked in; empty: all. */
  readonly namespaces: readonly string[];
  /** That of the operator. */
  readonly ownNamespace: string;
  readonly log: Logger;
  readonly metrics: Metrics['control'];
}

/** What a replica knows of the cluster. They are empty until they run. */
export function newCaches({ client, namespaces, ownNamespace, log, metrics }: CacheParts) {
  const common = { client, log, metrics };
  // Who works in its own namespace alone needs no rights beyond it.
  const isRestricted = namespaces.length === 1 && namespaces[0] === ownNamespace;
  const namespace = isRestricted ? ownNamespace : undefined;
  const place = { ...common, namespace, namespaces };
  const pathOf = (kind: ResourceKind) => resourcePath(kind, namespace);
  return {
    checkpoints: newCheckpointCache(place),
    jobs: newJobCache(place),
    sourcePods: newSourcePodCache(place),
    agentPods: newAgentPodCache({ ...common, path: pathOf(PODS) }),
    agentSets: new ObjectCache<DaemonSet>({
      ...{ ...common, path: pathOf(DAEMON_SETS), labelSelector: AGENT_SELECTOR, resource: 'daemonsets' },
      // Only read where it has what is looked for.
      read: (object) => object as DaemonSet,
      indexes: { namespace: ({ meta }) => [meta.namespace] },
    }),
    graphs: new ObjectCache<ObjectRead<DynamoGraphDeployment>>({
      ...{ ...common, namespaces, path: pathOf(DYNAMO_GRAPH_DEPLOYMENT), resource: DYNAMO_GRAPH_DEPLOYMENT.plural },
      read: readDynamoGraphDeployment,
    }),
    deployments: new ObjectCache<ObjectRead<Deployment>>({
      ...{ ...common, namespaces, path: pathOf(DEPLOYMENTS), resource: DEPLOYMENTS.plural, read: readDeployment },
    }),
  };
}

export type Caches = ReturnType<typeof newCaches>;

/** Caches that run. */
export interface Following {
  /** Which of them were not read yet. */
  missing(): readonly string[];
  /** Ends when the signal has aborted. Rejects only with what a listener threw. */
  readonly ended: Promise<void>;
}

/** Follows all of them until the signal aborts. */
export function follow(caches: Partial<Caches>, signal: AbortSignal): Following {
  const unread = new Set(Object.keys(caches));
  const all: [string, Pick<ObjectCache<unknown>, 'run' | 'synced'>][] = Object.entries(caches);
  const running = all.map(async ([name, cache]) => {
    const synced = cache.synced(signal).then(() => {
      if (!signal.aborted) unread.delete(name);
    });
    await Promise.all([cache.run(signal), synced]);
  });
  return { missing: () => [...unread], ended: Promise.all(running).then(() => undefined) };
}
