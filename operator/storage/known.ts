import { AGENT_SELECTOR, namespaceStorage } from '../../contract/agent-storage.ts';
import { ShapingError } from '../../contract/shaping-error.ts';
import type { StorageSource } from '../../contract/storage-volume.ts';
import type { DaemonSet } from '../../kube/objects.ts';
import { resourcePath } from '../../kube/paths.ts';
import { type CacheOptions, ObjectCache } from '../control/cache.ts';
import { claimProblem } from './claim.ts';
import { DAEMON_SETS, type StorageConfig } from './source.ts';

/** The DaemonSets of agents, indexed by `namespace`. */
export function newAgentDaemonSetCache(
  options: Pick<CacheOptions<DaemonSet>, 'client' | 'log' | 'metrics' | 'timings'> & {
    /** Left out: all. */
    readonly namespace?: string | undefined;
  },
): ObjectCache<DaemonSet> {
  const { namespace, ...common } = options;
  return new ObjectCache<DaemonSet>({
    ...common,
    path: resourcePath(DAEMON_SETS, namespace),
    labelSelector: AGENT_SELECTOR,
    resource: DAEMON_SETS.plural,
    read: (object) => object as DaemonSet,
    indexes: { namespace: ({ meta }) => [meta.namespace] },
  });
}

/**
 * Where the artifacts of a namespace are, for whoever cannot wait for an answer of the API: in podMount as configured, as the claim of a
 * checkpoint that is Ready was there; else as the cache has the agents. It throws nothing.
 */
export function knownStorage(
  { pvc }: StorageConfig,
  daemonSets: Pick<ObjectCache<DaemonSet>, 'indexed'>,
  namespace: string,
): { readonly source: StorageSource } | { readonly problem: string } {
  if (pvc !== undefined) {
    const problem = claimProblem(pvc);
    if (problem !== undefined) return { problem };
    return { source: { accessMode: 'podMount', claim: pvc.pvcName, basePath: pvc.basePath.replace(/\/+$/, '') } };
  }
  try {
    const sets = daemonSets.indexed('namespace', namespace).map(({ value }) => value);
    return { source: namespaceStorage(sets, namespace) };
  } catch (error) {
    if (error instanceof ShapingError) return { problem: error.message };
    // A DaemonSet that lacks what every one has.
    return { problem: `the snapshot-agent daemonset in ${namespace} cannot be understood: ${String(error)}` };
  }
}
