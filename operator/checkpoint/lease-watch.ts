import type { KubeClient } from '../../kube/client.ts';
import { isGone } from '../../kube/error.ts';
import { holderOf, type LeaseObject, signOfLife } from '../../kube/lease-object.ts';
import { leasePath } from '../../kube/paths.ts';

/** Looks at the leases under which agents work on Jobs. */
export interface LeaseWatch {
  /**
   * Whether an agent holds the lease of a Job. One without a sign of life for its whole duration while we looked on is nobody's: times of
   * other machines' clocks are compared with nothing. Throws KubeError.
   */
  isActive(place: { readonly namespace: string; readonly name: string }, signal: AbortSignal): Promise<boolean>;
  /** Forgets what was seen of it. */
  forget(place: { readonly namespace: string; readonly name: string }): void;
}

/** `clock`: monotonic, in ms. */
export function newLeaseWatch(client: KubeClient, clock: () => number = () => performance.now()): LeaseWatch {
  const seen = new Map<string, { readonly sign: string; readonly sinceMs: number }>();
  const keyOf = ({ namespace, name }: { readonly namespace: string; readonly name: string }) => `${namespace}/${name}`;
  return {
    isActive: async (place, signal) => {
      const key = keyOf(place);
      const lease = await readLease(client, leasePath(place.namespace, place.name), signal);
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
    },
    forget: (place) => void seen.delete(keyOf(place)),
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
