import { LABELS } from '../../contract/keys.ts';
import type { ObjectMeta, ObjectRead } from '../../contract/object-meta.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isGone, KubeError } from '../../kube/error.ts';
import { resourcePath } from '../../kube/paths.ts';
import type { ObjectCache } from '../control/cache.ts';
import { amendObject, ensureObject, isOwnedBy } from '../control/object-writer.ts';
import { MANAGER } from './automatic.ts';
import type { Component } from './component.ts';
import { DEPLOYMENTS, type Deployment, isOfRollout, readDeployment } from './deployment.ts';
import { deploymentObject, serviceName, serviceObject, type Wish, wishMarks } from './rollout.ts';

const SERVICES = { group: '', version: 'v1', plural: 'services' } as const;

export interface RolloutParts {
  readonly client: KubeClient;
  readonly deployments: Pick<ObjectCache<ObjectRead<Deployment>>, 'remember'>;
}

/** How a Deployment stands after it was written. `problem`: why it is not what is wanted. */
export type Applied =
  | { readonly result: 'applied'; readonly deployment: Deployment; readonly isMade: boolean }
  | { readonly result: 'refused'; readonly problem: string };

/** What the server refuses because of the object's own content: trying again at once does not mend it. */
const REFUSALS: readonly number[] = [400, 403, 422];

/** Makes the Deployment of a service what is wished, and sends nothing where it is so already. Throws KubeError. */
export async function applyWish(
  parts: RolloutParts,
  {
    component,
    wish,
    current,
  }: { readonly component: Component; readonly wish: Wish; readonly current: Deployment | undefined },
  signal: AbortSignal,
): Promise<Applied> {
  try {
    return await apply(parts, { component, wish, current }, signal);
  } catch (error) {
    if (!(error instanceof KubeError) || !REFUSALS.includes(error.status)) throw error;
    return refused(`Deployment ${wish.name} is refused: ${error.message}`);
  }
}

const refused = (problem: string): Applied => ({ result: 'refused', problem });

async function apply(
  parts: RolloutParts,
  {
    component,
    wish,
    current,
  }: { readonly component: Component; readonly wish: Wish; readonly current: Deployment | undefined },
  signal: AbortSignal,
): Promise<Applied> {
  const { uid } = component.graph.metadata;
  if (current === undefined) return create(parts, { component, wish }, signal);
  const { name } = current.metadata;
  if (!isOfRollout(current.metadata, uid)) return refused(`Deployment ${name} is there, and is not ours`);
  if (current.metadata.deletionTimestamp !== undefined) return refused(`Deployment ${name} is still being deleted`);
  return amend(parts, { component, wish, current }, signal);
}

async function create(
  parts: RolloutParts,
  { component, wish }: { readonly component: Component; readonly wish: Wish },
  signal: AbortSignal,
): Promise<Applied> {
  if (wish.template === undefined) throw new TypeError(`Deployment ${wish.name}: there is none to be kept`);
  await ensureService(parts, component, signal);
  const { uid } = component.graph.metadata;
  const isOurs = (meta: ObjectMeta) => isOfRollout(meta, uid);
  const body = deploymentObject(component, wish);
  const ensured = await ensureObject(parts.client, DEPLOYMENTS, { body, isOurs, signal });
  if (ensured.result === 'foreign') return refused(ensured.problem);
  const deployment = understood(ensured.object, wish.name);
  if (ensured.result === 'made') return { result: 'applied', deployment, isMade: true };
  // Made by a try whose answer was lost, maybe from an older object.
  return apply(parts, { component, wish, current: deployment }, signal);
}

async function amend(
  parts: RolloutParts,
  { component, wish, current }: { readonly component: Component; readonly wish: Wish; readonly current: Deployment },
  signal: AbortSignal,
): Promise<Applied> {
  const { metadata, spec } = current;
  const marks = wishMarks(wish);
  const isOfWish = Object.entries(marks).every(([key, value]) => metadata.annotations?.[key] === value);
  const unchanged: Applied = { result: 'applied', deployment: current, isMade: false };
  if (isOfWish && spec.replicas === wish.replicas) return unchanged;
  // A template that is the same is not sent: what the server filled in would be taken away and come back.
  const isNewTemplate = wish.template !== undefined && !isOfWish;
  if (isNewTemplate) await ensureService(parts, component, signal);
  const annotations = { ...metadata.annotations, ...marks };
  const labels = isNewTemplate ? { ...metadata.labels, ...wish.labels } : metadata.labels;
  const answer = await amendObject(parts.client, resourcePath(DEPLOYMENTS, metadata.namespace, metadata.name), {
    object: current,
    amendment: {
      metadata: { labels, annotations: annotations as Record<string, string> },
      spec: { ...spec, replicas: wish.replicas, ...(isNewTemplate ? { template: wish.template } : {}) },
    },
    signal,
  });
  if (answer === undefined) return unchanged;
  parts.deployments.remember(metadata, answer);
  return { result: 'applied', deployment: understood(answer, wish.name), isMade: false };
}

/** Before its Deployment, so that a Deployment that is there says that its Service was made, too. */
async function ensureService({ client }: RolloutParts, component: Component, signal: AbortSignal): Promise<void> {
  const body = serviceObject(component);
  if (body === undefined) return;
  const isOurs = isOwnedBy(component.graph.metadata.uid);
  const ensured = await ensureObject(client, SERVICES, { body, isOurs, signal });
  // Somebody else's under this name leads to the same pods, or is meant not to.
  if (ensured.result !== 'found') return;
  const object = ensured.object as { readonly metadata: ObjectMeta; readonly spec?: object };
  const path = resourcePath(SERVICES, object.metadata.namespace, object.metadata.name);
  await amendObject(client, path, { object, amendment: { spec: { ...object.spec, ...body.spec } }, signal });
}

/** Takes away the Deployment of a service that the object does not have any more. Throws KubeError. */
export async function removeDeployment(
  { client }: RolloutParts,
  { metadata }: Deployment,
  signal: AbortSignal,
): Promise<void> {
  const { namespace, name, uid, labels } = metadata;
  const isFrontend = labels?.[LABELS.componentType] === 'frontend';
  if (isFrontend) await removeService(client, metadata, signal);
  const path = resourcePath(DEPLOYMENTS, namespace, name);
  await remove(client, { path, uid }, signal);
}

/** First, while the Deployment still says that there may be one. */
async function removeService(
  client: KubeClient,
  { namespace, name, ownerReferences = [] }: ObjectMeta,
  signal: AbortSignal,
): Promise<void> {
  const path = resourcePath(SERVICES, namespace, serviceName(name));
  try {
    const { metadata } = await client.request<{ readonly metadata: ObjectMeta }>({ method: 'GET', path, signal });
    const isOurs =
      metadata.labels?.[LABELS.managedBy] === MANAGER && ownerReferences.some(({ uid }) => isOwnedBy(uid)(metadata));
    if (isOurs) await remove(client, { path, uid: metadata.uid }, signal);
  } catch (error) {
    if (!isGone(error)) throw error;
  }
}

async function remove(
  client: KubeClient,
  { path, uid }: { readonly path: string; readonly uid: string },
  signal: AbortSignal,
): Promise<void> {
  const body = { preconditions: { uid }, propagationPolicy: 'Background' };
  try {
    await client.request({ method: 'DELETE', path, body, signal });
  } catch (error) {
    if (!isGone(error)) throw error;
  }
}

function understood(object: unknown, name: string): Deployment {
  const read = readDeployment(object);
  if (read.result === 'read') return read.object;
  throw new KubeError(`Deployment ${name}: ${read.problem}`, { reason: 'Malformed' });
}
