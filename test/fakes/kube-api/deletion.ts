import { type Json, type KubeObject, keyOf, type Resource, textOf } from './resources.ts';
import { notFound, preconditionFailed } from './status.ts';
import type { Store } from './store.ts';
import { nameOf, timestamp, type WriteRequest, type Written } from './writes.ts';

const ORPHAN_WARNING =
  '299 - "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning"';

/** DELETE. A pod on a node only starts to terminate: the test, as the kubelet, ends it with `api.remove`. */
export function remove(store: Store, request: WriteRequest, query: URLSearchParams): Written {
  const { resource, namespace, name, isDryRun } = request;
  const current = store.get(nameOf(resource), keyOf({ namespace, name }));
  if (current === undefined) throw notFound(resource, name);
  const options = (request.body ?? {}) as Json;
  checkPreconditions(resource, current, (options['preconditions'] ?? {}) as Json);
  if (isDryRun) return { code: 200, body: current };
  if (resource.kind === 'Pod') return removePod(store, current, graceOf(current, options, query));
  if (resource.kind === 'Job') {
    const policy = query.get('propagationPolicy') ?? textOf(options['propagationPolicy']);
    if (policy !== 'Background') return holdJob(store, current, policy);
  }
  if (current.metadata.finalizers !== undefined) return hold(store, resource, current);
  const details = {
    name,
    ...(resource.group === '' ? {} : { group: resource.group }),
    kind: resource.plural,
    uid: current.metadata.uid,
  };
  store.remove(nameOf(resource), keyOf(current.metadata));
  return { code: 200, body: { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success', details } };
}

function checkPreconditions(resource: Resource, current: KubeObject, preconditions: Json): void {
  const { name, uid, resourceVersion } = current.metadata;
  const wanted = { uid: preconditions['uid'], version: preconditions['resourceVersion'] };
  if (wanted.uid !== undefined && wanted.uid !== uid) {
    const why = `the UID in the precondition (${textOf(wanted.uid)}) does not match the UID in record (${uid}). The object might have been deleted and then recreated`;
    throw preconditionFailed(resource, name, why);
  }
  if (wanted.version !== undefined && wanted.version !== resourceVersion) {
    const why = `the ResourceVersion in the precondition (${textOf(wanted.version)}) does not match the ResourceVersion in record (${resourceVersion}). The object might have been modified`;
    throw preconditionFailed(resource, name, why);
  }
}

/** Seconds until the pod's end: those asked for, or the pod's own; none without a node or when it has ended. */
function graceOf({ spec, status }: KubeObject, options: Json, query: URLSearchParams): number {
  const hasEnded = status?.['phase'] === 'Succeeded' || status?.['phase'] === 'Failed';
  if (spec?.['nodeName'] === undefined || hasEnded) return 0;
  const asked = query.get('gracePeriodSeconds') ?? options['gracePeriodSeconds'];
  return Number(asked ?? spec['terminationGracePeriodSeconds'] ?? 30);
}

function removePod(store: Store, current: KubeObject, graceSeconds: number): Written {
  const { deletionGracePeriodSeconds: before, generation = 1 } = current.metadata;
  if (before !== undefined && before <= graceSeconds) return { code: 200, body: current };
  const deletionTimestamp = timestamp(new Date(Date.now() + graceSeconds * 1000));
  const terminating = store.write('pods', {
    ...current,
    metadata: {
      ...current.metadata,
      generation: before === undefined ? generation + 1 : generation,
      deletionTimestamp,
      deletionGracePeriodSeconds: graceSeconds,
    },
  });
  const isHeld = graceSeconds > 0 || current.metadata.finalizers !== undefined;
  const gone = isHeld ? undefined : store.remove('pods', keyOf(current.metadata));
  return { code: 200, body: gone ?? terminating };
}

/** What has finalizers is only marked; the write that takes the last one away ends it. */
function hold(store: Store, resource: Resource, current: KubeObject): Written {
  const { metadata } = current;
  if (metadata.deletionTimestamp !== undefined) return { code: 200, body: current };
  const marked = {
    ...metadata,
    ...(metadata.generation === undefined ? {} : { generation: metadata.generation + 1 }),
    ...{ deletionTimestamp: timestamp(), deletionGracePeriodSeconds: 0 },
  };
  return { code: 200, body: store.write(nameOf(resource), { ...current, metadata: marked }) };
}

/** A Job that is not deleted in the background waits for the garbage collector behind a finalizer. */
function holdJob(store: Store, current: KubeObject, policy: string): Written {
  const { metadata } = current;
  const finalizer = policy === 'Foreground' ? 'foregroundDeletion' : 'orphan';
  const held = store.write('jobs', {
    ...current,
    metadata: {
      ...metadata,
      generation: (metadata.generation ?? 1) + 1,
      deletionTimestamp: timestamp(),
      deletionGracePeriodSeconds: 0,
      finalizers: [...new Set([...(metadata.finalizers ?? []), finalizer])],
    },
  });
  return { code: 200, body: held, ...(policy === '' ? { headers: { warning: ORPHAN_WARNING } } : {}) };
}
