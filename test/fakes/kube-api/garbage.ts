import { remove } from './deletion.ts';
import type { KubeObject, Resource } from './resources.ts';
import type { Store } from './store.ts';
import { nameOf } from './writes.ts';

/**
 * What the garbage collector of a real cluster does in the background: an object whose owners are all gone is deleted as `kubectl delete`
 * does it. An owner of a kind that is not served counts as there.
 */
export function collectGarbage(store: Store, served: readonly Resource[]): void {
  let isDue = false;
  const collect = () => {
    isDue = false;
    for (const resource of served)
      for (const object of store.list(nameOf(resource)) ?? [])
        if (isOrphan(object, store, served)) end(store, resource, object);
  };
  for (const resource of served)
    store.subscribe(nameOf(resource), ({ object, isDeleted }) => {
      const isOfInterest = isDeleted || object.metadata.ownerReferences !== undefined;
      if (!isOfInterest || isDue) return;
      isDue = true;
      // In the background: whoever deleted the owner has its answer first.
      setImmediate(collect);
    });
}

function isOrphan({ metadata }: KubeObject, store: Store, served: readonly Resource[]): boolean {
  const owners = (metadata.ownerReferences ?? []) as unknown as readonly Owner[];
  const isThere = ({ apiVersion, kind, uid }: Owner) => {
    const [group] = apiVersion.includes('/') ? apiVersion.split('/') : [''];
    const resource = served.find((candidate) => candidate.kind === kind && candidate.group === group);
    if (resource === undefined) return true;
    return (store.list(nameOf(resource)) ?? []).some((object) => object.metadata.uid === uid);
  };
  return owners.length > 0 && metadata.deletionTimestamp === undefined && !owners.some(isThere);
}

interface Owner {
  readonly apiVersion: string;
  readonly kind: string;
  readonly uid: string;
}

function end(store: Store, resource: Resource, { metadata }: KubeObject): void {
  const place = { namespace: metadata.namespace, name: metadata.name, subresource: '', text: '', mediaType: '' };
  const body = { propagationPolicy: 'Background' };
  remove(store, { resource, ...place, body, isDryRun: false, isEventView: false }, new URLSearchParams());
}
