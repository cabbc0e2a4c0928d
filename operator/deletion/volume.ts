import { AGENT_SELECTOR, namespaceStorage } from '../../contract/agent-storage.ts';
import { ShapingError } from '../../contract/shaping-error.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isGone } from '../../kube/error.ts';
import type { DaemonSet } from '../../kube/objects.ts';
import { resourcePath } from '../../kube/paths.ts';
import type { Volume } from './decide.ts';

const CLAIMS = { group: '', version: 'v1', plural: 'persistentvolumeclaims' };
const DAEMON_SETS = { group: 'apps', version: 'v1', plural: 'daemonsets' };

/** `problem`: it cannot be told where artifacts are. `gone`: the claim is not there, and what was on it neither. */
export type VolumeFound = Volume | { readonly problem: string } | { readonly gone: string };

/**
 * The claim with the artifacts of a namespace: the configured one (`pvcName` is not empty), else that of the agents there. It is never
 * made: what is not there has no artifacts. Throws KubeError.
 */
export async function findVolume(
  client: KubeClient,
  { namespace, pvcName, basePath }: { readonly namespace: string; readonly pvcName: string; readonly basePath: string },
  signal: AbortSignal,
): Promise<VolumeFound> {
  const volume = pvcName === '' ? await discovered(client, namespace, signal) : { claim: pvcName, basePath };
  if ('problem' in volume) return volume;
  try {
    await client.request({ method: 'GET', path: resourcePath(CLAIMS, namespace, volume.claim), signal });
    return volume;
  } catch (error) {
    if (isGone(error)) return { gone: `claim ${namespace}/${volume.claim}` };
    throw error;
  }
}

async function discovered(
  client: KubeClient,
  namespace: string,
  signal: AbortSignal,
): Promise<Volume | { readonly problem: string }> {
  const query = { labelSelector: AGENT_SELECTOR };
  const path = resourcePath(DAEMON_SETS, namespace);
  const { items } = await client.request<{ items?: DaemonSet[] | null }>({ method: 'GET', path, query, signal });
  try {
    const { claim, basePath } = namespaceStorage(items ?? [], namespace);
    return claim === undefined ? { problem: `the agents of ${namespace} name no claim` } : { claim, basePath };
  } catch (error) {
    if (error instanceof ShapingError) return { problem: error.message };
    throw error;
  }
}
