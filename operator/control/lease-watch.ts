import type { KubeClient } from '../../kube/client.ts';
import { isGone } from '../../kube/error.ts';
import { holderOf, type LeaseObject, signOfLife } from '../../kube/lease-object.ts';
import { leasePath } from '../../kube/paths.ts';

interface Place {
  readonly namespace: string;
  readonly name: string;
}

/**
 * Whether an agent holds the lease of a Job. One without a sign of life for its whole duration while we looked on is nobody's: times of
 * other machines' clocks are compared with nothing. What it answers throws KubeError. `clock`: monotonic, in ms.
 */
export function watchLeases(
  client: KubeClient,
  clock: () => number = () => performance.now(),
): (place: Place, signal: AbortSignal) => Promise<boolean> {
  const seen = new Map<string, { readonly sign: string; readonly sinceMs: number }>();
  return async ({ namespace, name }, signal) => {
    const key = `${namespace}/${name}`;
    const lease = await readLease(client, leasePath(namespace, name), signal);
    const held = lease === undefined ? undefined : holderOf(lease);
    if (lease === undefined || held === undefined) {
      seen.delete(key);
      return false;
    }
    const sign = signOfLife(lease);
    const before = seen.get(key);
    if (before?.sign !== sign) {
      seen.set(key, { sign, sinceMs: clock() });
      return true;
    }
    return clock() - before.sinceMs < held.durationMs;
  };
}

async function readLease(client: KubeClient, path: string, signal: AbortSignal): Promise<LeaseObject | undefined> {
  try {
    return await client.request<LeaseObject>({ method: 'GET', path, signal });
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}
