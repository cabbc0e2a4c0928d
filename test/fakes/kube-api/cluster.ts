import { remove } from './deletion.ts';
import { applyPatch } from './patch.ts';
import { type Json, type KubeObject, keyOf, type Resource, type ResourceName } from './resources.ts';
import type { Store } from './store.ts';
import { initialStatus, newObject, normalise, storeOrEnd } from './writes.ts';

/** An object as a test writes it: what is missing, the server fills in. */
export interface ObjectInput {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string } & Json;
  readonly [field: string]: unknown;
}

/** What a test does to the cluster past HTTP: nobody refuses it, it is not in the log, and the watches see it. */
export class Cluster {
  readonly #store: Store;
  readonly #served: readonly Resource[];

  constructor(store: Store, served: readonly Resource[]) {
    this.#store = store;
    this.#served = served;
  }

  /** Creates or replaces an object with its status. A uid that is given stays; so does the uid of what it replaces. */
  put(input: ObjectInput): KubeObject {
    const resource = this.#resource(({ kind }) => kind === input.kind, input.kind);
    const { name, uid } = input.metadata;
    const { namespace = resource.isClusterScoped === true ? '' : 'default' } = input.metadata;
    const current = this.#store.get(nameOf(resource), keyOf({ namespace, name }));
    const sent: Json = { ...initialStatus(resource), ...input };
    const kept = { uid: (uid as string | undefined) ?? current?.metadata.uid };
    const fresh = newObject(resource, sent, { namespace, name, ...(kept.uid === undefined ? {} : { uid: kept.uid }) });
    const { creationTimestamp = fresh.metadata.creationTimestamp } = current?.metadata ?? {};
    return this.#store.write(nameOf(resource), { ...fresh, metadata: { ...fresh.metadata, creationTimestamp } });
  }

  /** Merge patch of the whole object, status and all. The key is `namespace/name`. */
  patch(name: ResourceName, key: string, patch: Json): KubeObject {
    const merged = applyPatch(this.#need(name, key), patch, 'application/merge-patch+json');
    return storeOrEnd(this.#store, name, normalise(merged));
  }

  /** As `kubectl delete`: a pod on a node only begins to terminate. */
  delete(name: ResourceName, key: string, options: { readonly gracePeriodSeconds?: number } = {}): void {
    const [namespace = '', objectName = ''] = key.split('/');
    const place = {
      namespace,
      name: objectName,
      subresource: '',
      text: '',
      mediaType: '',
      isDryRun: false,
      isEventView: false,
    };
    const body = { propagationPolicy: 'Background', ...options };
    const resource = this.#resource(({ plural }) => plural === name, name);
    remove(this.#store, { resource, ...place, body }, new URLSearchParams());
  }

  /** Takes an object away at once. */
  remove(name: ResourceName, key: string): KubeObject | undefined {
    return this.#store.remove(name, key);
  }

  get(name: ResourceName, key: string): KubeObject | undefined {
    return this.#store.get(name, key);
  }

  /** Calls back on each change of a kind from now on, whoever made it; the answer ends that. */
  onChange(name: ResourceName, listener: (object: KubeObject, isDeleted: boolean) => void): () => void {
    return this.#store.subscribe(name, ({ object, isDeleted }) => listener(object, isDeleted));
  }

  /** All objects of a kind in the order of a list. */
  list(name: ResourceName): KubeObject[] {
    return this.#store.list(name) ?? [];
  }

  #resource(isWanted: (resource: Resource) => boolean, name: string): Resource {
    const resource = this.#served.find(isWanted);
    if (resource === undefined) throw new Error(`the fake API server serves no ${name}`);
    return resource;
  }

  #need(name: ResourceName, key: string): KubeObject {
    const object = this.#store.get(name, key);
    if (object === undefined) throw new Error(`the fake API server has no ${name} ${key}`);
    return object;
  }
}

const nameOf = (resource: Resource) => resource.plural as ResourceName;
