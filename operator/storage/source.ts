import { AGENT_SELECTOR, namespaceStorage } from '../../contract/agent-storage.ts';
import { ShapingError } from '../../contract/shaping-error.ts';
import type { StorageSource } from '../../contract/storage-volume.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { DaemonSet } from '../../kube/objects.ts';
import { resourcePath } from '../../kube/paths.ts';
import { type ClaimConfig, claimProblem, ensureClaim } from './claim.ts';

const DAEMON_SETS = { group: 'apps', version: 'v1', plural: 'daemonsets' } as const;

/** `checkpoint.storage` of the configuration. */
export interface StorageConfig {
  /** Undefined: the agents mount the artifacts, and their DaemonSet in the namespace says from which claim (agentMount). */
  readonly pvc?: ClaimConfig | undefined;
}

/** Where the artifacts of a namespace are. */
export type StorageFound =
  | { readonly result: 'ready'; readonly storage: StorageSource }
  /** There is no storage now; `problem` says to people why. */
  | { readonly result: 'not-ready'; readonly problem: string };

/**
 * Where the pods of a namespace have their artifacts. In podMount mode the claim is there afterwards, made where the configuration says so.
 * Throws KubeError.
 */
export async function findStorage(
  client: KubeClient,
  { namespace, config }: { readonly namespace: string; readonly config: StorageConfig },
  signal: AbortSignal,
): Promise<StorageFound> {
  if (config.pvc === undefined) return discovered(client, namespace, signal);
  const { pvcName: claim, basePath } = config.pvc;
  const problem = claimProblem(config.pvc);
  const missing = problem ?? (await ensureClaim(client, { namespace, config: config.pvc }, signal));
  if (missing !== undefined) return { result: 'not-ready', problem: missing };
  return { result: 'ready', storage: { accessMode: 'podMount', claim, basePath: basePath.replace(/\/+$/, '') } };
}

async function discovered(client: KubeClient, namespace: string, signal: AbortSignal): Promise<StorageFound> {
  const query = { labelSelector: AGENT_SELECTOR };
  const path = resourcePath(DAEMON_SETS, namespace);
  const { items } = await client.request<{ items?: DaemonSet[] | null }>({ method: 'GET', path, query, signal });
  try {
    return { result: 'ready', storage: namespaceStorage(items ?? [], namespace) };
  } catch (error) {
    if (!(error instanceof ShapingError)) throw error;
    return { result: 'not-ready', problem: error.message };
  }
}
