import { type ObjectMeta, objectMeta } from '../../contract/object-meta.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, isGone, KubeError } from '../../kube/error.ts';
import { type ResourceKind, resourcePath } from '../../kube/paths.ts';
import { mergePatch } from './merge-patch.ts';

/** An object to make, as it is sent. */
export interface NewObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace: string } & Readonly<Record<string, unknown>>;
  readonly [field: string]: unknown;
}

/** `object`: as the server answered. */
export type Ensured =
  | { readonly result: 'made'; readonly object: unknown }
  /** It was there: made by an earlier try, or before a restart. */
  | { readonly result: 'found'; readonly object: unknown }
  /** Something else has its name. */
  | { readonly result: 'foreign'; readonly object: unknown; readonly problem: string };

/** It can go between our two looks at it; more often, somebody deletes it all the time. */
const MAX_TRIES = 3;

/**
 * Makes an object unless it is there already: as the names are always the same, a try whose answer was lost, or another process before this
 * one, made it. One that `isOurs` does not know is left alone. Throws KubeError.
 */
export async function ensureObject(
  client: KubeClient,
  kind: ResourceKind,
  wanted: {
    readonly body: NewObject;
    readonly isOurs: (meta: ObjectMeta) => boolean;
    readonly signal: AbortSignal;
  },
): Promise<Ensured> {
  const { body, isOurs, signal } = wanted;
  const { name, namespace } = body.metadata;
  const path = resourcePath(kind, namespace, name);
  for (let tries = 1; ; tries += 1) {
    const made = await create(client, resourcePath(kind, namespace), { body, signal });
    if (!(made instanceof KubeError)) return { result: 'made', object: made };
    const object = await find(client, path, signal);
    if (object === undefined && tries < MAX_TRIES) continue;
    if (object === undefined) throw made;
    const { data } = objectMeta.safeParse((object as { metadata?: unknown }).metadata);
    if (data !== undefined && isOurs(data)) return { result: 'found', object };
    return { result: 'foreign', object, problem: `${body.kind} ${namespace}/${name} is there, and is not ours` };
  }
}

/** Whether an object is owned by the one with this uid. */
export function isOwnedBy(uid: string): (meta: ObjectMeta) => boolean {
  return ({ ownerReferences = [] }) => ownerReferences.some((owner) => owner.uid === uid);
}

/** What of an object is to be changed: metadata or spec, but not its status. */
export interface Amendment {
  readonly metadata?: Partial<Pick<ObjectMeta, 'labels' | 'annotations' | 'finalizers'>>;
  readonly spec?: object;
}

/**
 * Changes the named parts of an object from what they are to what they should be, and sends only what differs. Undefined: nothing does, and
 * nothing was sent. Throws KubeError; a conflict where somebody else wrote first, which the next look is for.
 */
export async function amendObject(
  client: KubeClient,
  path: string,
  change: {
    readonly object: { readonly metadata: ObjectMeta; readonly spec?: object };
    readonly amendment: Amendment;
    readonly signal: AbortSignal;
  },
): Promise<unknown> {
  const { object, amendment, signal } = change;
  const { metadata = {}, spec } = amendment;
  const names = Object.keys(metadata) as (keyof typeof metadata)[];
  const [before, after] = [object.metadata, metadata].map((one) =>
    Object.fromEntries(names.map((name) => [name, orAbsent(one[name])])),
  );
  const metaPatch = mergePatch(before ?? {}, after ?? {});
  const specPatch = spec === undefined ? undefined : mergePatch(object.spec ?? {}, spec);
  if (metaPatch === undefined && specPatch === undefined) return undefined;
  const { resourceVersion } = object.metadata;
  const body = {
    metadata: { ...metaPatch, resourceVersion },
    ...(specPatch === undefined ? {} : { spec: specPatch }),
  };
  return client.request({ method: 'PATCH', path, body, contentType: 'application/merge-patch+json', signal });
}

/** The server keeps no empty maps and lists in metadata. */
function orAbsent<T extends object>(value: T | undefined): T | undefined {
  return value === undefined || Object.keys(value).length === 0 ? undefined : value;
}

/** Returns the error where the name is taken. */
async function create(
  client: KubeClient,
  path: string,
  { body, signal }: { readonly body: NewObject; readonly signal: AbortSignal },
): Promise<unknown> {
  try {
    return await client.request({ method: 'POST', path, body, signal });
  } catch (error) {
    if (isConflict(error)) return error;
    throw error;
  }
}

async function find(client: KubeClient, path: string, signal: AbortSignal): Promise<unknown> {
  try {
    return await client.request({ method: 'GET', path, signal });
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}
