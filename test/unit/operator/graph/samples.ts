import { type DynamoCheckpoint, readDynamoCheckpoint } from '../../../../contract/dynamo-checkpoint.ts';
import { type DynamoGraphDeployment, readDynamoGraphDeployment } from '../../../../contract/dynamo-graph-deployment.ts';
import type { ObjectRead } from '../../../../contract/object-meta.ts';
import { automaticName } from '../../../../operator/graph/automatic.ts';
import { type Component, componentsOf } from '../../../../operator/graph/component.ts';
import type { Facts } from '../../../../operator/graph/decide.ts';
import { type Deployment, readDeployment } from '../../../../operator/graph/deployment.ts';
import type { Json } from '../../../fakes/kube-api/resources.ts';
import { AUTO, altered, CHECKPOINT, CHECKPOINT_REF, served } from '../../crds/samples.ts';

export const WORKER = 'VllmDecodeWorker';
const AT = `spec.services.${WORKER}`;

/** What the API server sends, read. Throws where it is none of its kind. */
function reading<T>(read: (object: unknown) => ObjectRead<T>, object: unknown): T {
  const found = read(object);
  if (found.result === 'read') return found.object;
  throw new Error(found.problem);
}

/** A copy of a manifest with other values at some paths. */
const changed = (object: Json, changes: Readonly<Record<string, unknown>>) =>
  Object.entries(changes).reduce((copy, [path, value]) => altered(copy, path, value), object);

/** The example of automatic checkpoints with other values at paths below its worker. */
export function autoGraph(
  worker: Readonly<Record<string, unknown>> = {},
  more: Readonly<Record<string, unknown>> = {},
) {
  const below = Object.fromEntries(Object.entries(worker).map(([path, value]) => [`${AT}.${path}`, value]));
  return reading<DynamoGraphDeployment>(readDynamoGraphDeployment, served(changed(AUTO, { ...below, ...more })));
}

export const refGraph = () => reading<DynamoGraphDeployment>(readDynamoGraphDeployment, served(CHECKPOINT_REF));

/** A service of it by its name. */
export function componentOf(graph: DynamoGraphDeployment, name = WORKER): Component {
  const component = componentsOf(graph).find((one) => one.name === name);
  if (component === undefined) throw new Error(`no service ${name}`);
  return component;
}

/** The DynamoCheckpoint of a worker's present generation, in this phase. */
export function automaticOf(component: Component, status: Json = {}, more: Readonly<Record<string, unknown>> = {}) {
  const { name, id } = automaticName(component);
  const { uid } = component.graph.metadata;
  return checkpoint({
    ...{ 'metadata.name': name, 'metadata.labels': { 'nvidia.com/snapshot-checkpoint-id': id } },
    'metadata.ownerReferences': [{ apiVersion: 'v', kind: 'DynamoGraphDeployment', name: 'x', uid }],
    ...{ status, ...more },
  });
}

export const checkpoint = (changes: Readonly<Record<string, unknown>> = {}) =>
  reading<DynamoCheckpoint>(readDynamoCheckpoint, changed(served(CHECKPOINT), changes));

/** What decides, with these DynamoCheckpoints. */
export function factsOf(
  component: Component,
  checkpoints: readonly DynamoCheckpoint[] = [],
  more: Partial<Facts> = {},
) {
  const facts: Facts = {
    ...{ component, isEnabled: true, failedFallback: 'Wait', isRolledOutHere: true, started: undefined, ...more },
    checkpoint: (name) => {
      const object = checkpoints.find(({ metadata }) => metadata.name === name);
      return object === undefined ? undefined : { result: 'read', object };
    },
  };
  return more.checkpoint === undefined ? facts : { ...facts, checkpoint: more.checkpoint };
}

export function deployment(name: string, metadata: Json = {}, more: Json = {}): Deployment {
  return reading<Deployment>(readDeployment, {
    metadata: { name, namespace: 'team', uid: `uid-${name}`, resourceVersion: '1', ...metadata },
    ...{ spec: { replicas: 1, template: {} }, ...more },
  });
}
