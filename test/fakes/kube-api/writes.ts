import { randomBytes, randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { CustomSchema } from './crds.ts';
import { withDefaults, withProbeTimes } from './defaults.ts';
import { applyPatch, PATCH_TYPES } from './patch.ts';
import {
  apiVersionOf,
  type Json,
  type KubeObject,
  keyOf,
  type Resource,
  type ResourceName,
  textOf,
} from './resources.ts';
import {
  alreadyExists,
  badRequest,
  conflict,
  invalid,
  notFound,
  undecodablePatch,
  unsupportedBodyType,
  unsupportedPatchType,
} from './status.ts';
import type { Store } from './store.ts';
import { causesOf, eventViewCauses, undecodable } from './validation.ts';

/** A write as a client sent it, with what it names. */
export interface WriteRequest {
  readonly resource: Resource;
  readonly namespace: string;
  readonly name: string;
  readonly subresource: string;
  /** The decoded JSON of the request, or its text where it is none. */
  readonly body: unknown;
  readonly text: string;
  readonly mediaType: string;
  /** Answer as if, and store nothing. */
  readonly isDryRun: boolean;
  /** An event that came through events.k8s.io, which checks more. */
  readonly isEventView: boolean;
}

/** What a write answers. */
export interface Written {
  readonly code: number;
  readonly body: Json;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Names of the fields that hold a time of whole seconds: decimals in them are accepted and dropped. */
const WHOLE_SECONDS = new Set(['lastTransitionTime', 'lastProbeTime', 'firstTimestamp', 'lastTimestamp']);
const BROKEN_JSON = 'unexpected end of JSON input';
/** Not for custom resources: their server knows no merge keys. */
const STRATEGIC = 'application/strategic-merge-patch+json';
const EVENT_DEFAULTS: Json = {
  source: {},
  firstTimestamp: null,
  lastTimestamp: null,
  eventTime: null,
  reportingComponent: '',
  reportingInstance: '',
};

/** The time as metadata shows it: whole seconds. */
export const timestamp = (date = new Date()) => `${date.toISOString().slice(0, 19)}Z`;
export const nameOf = (resource: Resource) => resource.plural as ResourceName;

/** POST: a new object with a new uid. Status is dropped where it has a subresource of its own. */
export function create(store: Store, request: WriteRequest): Written {
  const { resource, namespace } = request;
  const sent = decodeBody(request);
  const metadata = sent['metadata'] as Json;
  const prefix = textOf(metadata['generateName']);
  const generated = prefix === '' ? '' : `${prefix}${randomBytes(4).toString('hex').slice(0, 5)}`;
  const name = textOf(metadata['name'] ?? generated);
  const object = newObject(resource, sent, { namespace, name });
  if (store.get(nameOf(resource), keyOf({ namespace, name })) !== undefined) throw alreadyExists(resource, name);
  const { status: _, ...rest } = object;
  return save(store, request, { ...rest, ...initialStatus(resource) } as KubeObject, 201);
}

/** The status that a new object has. */
export function initialStatus({ kind, hasStatus, schema }: Resource): Json {
  if (schema !== undefined) return {};
  if (kind === 'Pod') return { status: { phase: 'Pending', qosClass: 'BestEffort' } };
  return hasStatus ? { status: {} } : {};
}

/** PUT: replaces an object; some kinds it also creates. */
export function replace(store: Store, request: WriteRequest): Written {
  const { resource, namespace, name } = request;
  const sent = decodeBody(request);
  const metadata = sent['metadata'] as Json;
  checkName(metadata['name'], name);
  const current = store.get(nameOf(resource), keyOf({ namespace, name }));
  if (current === undefined) {
    if (!resource.createsOnPut) throw notFound(resource, name);
    return save(store, request, newObject(resource, sent, { namespace, name }), 201);
  }
  const version = metadata['resourceVersion'];
  if (version === undefined && resource.needsVersionOnPut) {
    const message = 'Invalid value: 0: must be specified for an update';
    throw invalid({ ...resource, kind: resource.plural }, name, [
      { reason: 'FieldValueInvalid', message, field: 'metadata.resourceVersion' },
    ]);
  }
  if (version !== undefined && version !== current.metadata.resourceVersion) throw conflict(resource, name);
  const { uid } = current.metadata;
  if (metadata['uid'] !== undefined && metadata['uid'] !== uid) {
    const key = `/registry/${resource.plural}/${keyOf({ namespace, name })}`;
    const pair = `UID in precondition: ${textOf(metadata['uid'])}, UID in object meta: ${uid}`;
    const head = `StorageError: invalid object, Code: 4, Key: ${key}, ResourceVersion: 0`;
    throw conflict(resource, name, `${head}, AdditionalErrorMsg: Precondition failed: ${pair}`);
  }
  return update(store, request, current, { ...sent, metadata: { ...metadata, uid } });
}

/** PATCH of any of the three types. A uid that differs is an immutable field (422), not a conflict. */
export function patch(store: Store, request: WriteRequest): Written {
  const { resource, namespace, name } = request;
  const current = store.get(nameOf(resource), keyOf({ namespace, name }));
  if (current === undefined) throw notFound(resource, name);
  if (typeof request.body === 'string' && PATCH_TYPES.has(request.mediaType)) {
    throw badRequest(`error decoding patch: ${BROKEN_JSON}`);
  }
  if (resource.schema !== undefined && request.mediaType === STRATEGIC) throw unsupportedPatchType();
  const patched = applyPatch(current, request.body, request.mediaType);
  const metadata = patched['metadata'] as Json;
  checkName(metadata['name'], name);
  const problem = undecodable(resource, patched);
  if (problem !== undefined) throw undecodablePatch(patched, problem);
  if (metadata['resourceVersion'] !== current.metadata.resourceVersion) throw conflict(resource, name);
  return update(store, request, current, patched);
}

/** An object with the metadata and defaults that the server gives; used by POST, by PUT and by the test's own `put`. */
export function newObject(
  resource: Resource,
  sent: Json,
  { namespace, name, uid = randomUUID() }: { readonly namespace: string; readonly name: string; readonly uid?: string },
): KubeObject {
  const { resourceVersion: _, managedFields: __, ...metadata } = (sent['metadata'] ?? {}) as Json;
  const object = normalise({
    ...(resource.kind === 'Event' ? EVENT_DEFAULTS : {}),
    ...sent,
    kind: resource.kind,
    apiVersion: apiVersionOf(resource),
    metadata: {
      ...(resource.hasGeneration ? { generation: 1 } : {}),
      ...{ ...metadata, name, uid, creationTimestamp: timestamp() },
      ...(resource.isClusterScoped === true ? {} : { namespace }),
    },
  });
  return (resource.schema?.fill(object) as KubeObject | undefined) ?? withDefaults(object);
}

/** Drops what a real server does not keep: empty maps of metadata, decimals of whole seconds, managedFields. */
export function normalise(object: Json): KubeObject {
  const { managedFields: _, ...kept } = object['metadata'] as Json;
  const metadata: Json = {};
  for (const [key, value] of Object.entries(kept)) {
    const isEmpty = typeof value === 'object' && (value === null || Object.keys(value).length === 0);
    if (!isEmpty) metadata[key] = value;
  }
  const text = JSON.stringify({ ...object, ...(object['kind'] === 'Pod' ? withProbeTimes(object) : {}), metadata });
  const hasDecimals = /"[a-z][A-Za-z]+Time(stamp)?":"[^"]*\.\d/.test(text);
  const dropDecimals = (key: string, value: unknown) =>
    WHOLE_SECONDS.has(key) && typeof value === 'string' ? value.replace(/\.\d+/, '') : value;
  return JSON.parse(text, hasDecimals ? dropDecimals : undefined) as KubeObject;
}

function decodeBody({ resource, namespace, body, text, mediaType }: WriteRequest): Json {
  if (!['', 'application/json'].includes(mediaType)) throw unsupportedBodyType();
  if (typeof body !== 'object' || body === null) {
    const type = `the object provided is unrecognized (must be of type ${resource.kind})`;
    const shown = text.length > 30 ? `${text.slice(0, 30)} ...` : text;
    throw badRequest(`${type}: couldn't get version/kind; json parse error: ${BROKEN_JSON} (${shown})`);
  }
  const sent = body as Json;
  const apiVersion = apiVersionOf(resource);
  const kind = textOf(sent['kind'] ?? resource.kind);
  const cannot = (why: string) => badRequest(`${kind} in version "v1" cannot be handled as a ${resource.kind}: ${why}`);
  if (kind !== resource.kind || (sent['apiVersion'] ?? apiVersion) !== apiVersion) {
    throw cannot(`converting (v1.${kind}) to (core.${resource.kind}): unknown conversion`);
  }
  const problem = undecodable(resource, sent);
  if (problem !== undefined) throw cannot(problem);
  const metadata = (sent['metadata'] ?? {}) as Json;
  if ((metadata['namespace'] ?? namespace) !== namespace) {
    throw badRequest('the namespace of the provided object does not match the namespace sent on the request');
  }
  return { ...sent, metadata };
}

function checkName(sent: unknown, name: string): void {
  if (sent === name) return;
  throw badRequest(`the name of the object (${String(sent)}) does not match the name on the URL (${name})`);
}

/** What PUT and PATCH share: each path changes its own half of the object, and nothing changed is nothing written. */
function update(store: Store, request: WriteRequest, current: KubeObject, proposed: Json): Written {
  const { resource, subresource } = request;
  const { uid, ...sent } = proposed['metadata'] as Json;
  const { resourceVersion, creationTimestamp, generation, deletionTimestamp, deletionGracePeriodSeconds } =
    current.metadata;
  const kept = { creationTimestamp, resourceVersion, generation, deletionTimestamp, deletionGracePeriodSeconds };
  const half = subresource === 'status' ? { spec: current.spec } : resource.hasStatus ? { status: current.status } : {};
  const whole = normalise({ ...proposed, ...half, metadata: { ...sent, ...kept, uid } });
  const next = resource.schema === undefined ? whole : customNext(resource.schema, request, whole, current);
  const isSame = isDeepStrictEqual(next, current);
  if (isSame) return { code: 200, body: current };
  const isSpecChanged = resource.hasGeneration && !isDeepStrictEqual(next.spec, current.spec);
  const metadata = isSpecChanged ? { ...next.metadata, generation: (generation ?? 0) + 1 } : next.metadata;
  return save(store, request, { ...next, metadata }, 200);
}

/** Of a custom resource, the path of the status changes nothing else, and each write is pruned and filled anew. */
function customNext(
  schema: CustomSchema,
  { subresource }: WriteRequest,
  { metadata, ...whole }: KubeObject,
  current: KubeObject,
): KubeObject {
  const { uid, managedFields: _, ...kept } = current.metadata as unknown as Json;
  const meta = subresource === 'status' ? { ...kept, uid } : metadata;
  return schema.fill({ ...whole, metadata: meta }) as KubeObject;
}

function save(store: Store, request: WriteRequest, object: KubeObject, code: number): Written {
  const { resource, isDryRun, isEventView } = request;
  const previous = store.get(nameOf(resource), keyOf(object.metadata));
  const causes = [...causesOf(resource, object, previous), ...(resource.schema?.causes(object, previous) ?? [])];
  if (isEventView && previous === undefined) causes.push(...eventViewCauses(object));
  if (causes.length > 0) throw invalid(resource, object.metadata.name, causes);
  return { code, body: isDryRun ? object : storeOrEnd(store, nameOf(resource), object) };
}

/** Stores an object; one that was only held by a finalizer, and is not any more, is taken away instead. */
export function storeOrEnd(store: Store, name: ResourceName, object: KubeObject): KubeObject {
  const key = keyOf(object.metadata);
  const { deletionTimestamp, deletionGracePeriodSeconds = 0, finalizers } = object.metadata;
  const isReleased = deletionTimestamp !== undefined && deletionGracePeriodSeconds === 0 && finalizers === undefined;
  const wasHeld = store.get(name, key)?.metadata.finalizers !== undefined;
  if (!isReleased || !wasHeld) return store.write(name, object);
  store.remove(name, key);
  return object;
}
