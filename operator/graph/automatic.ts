import { DYNAMO_CHECKPOINT } from '../../contract/dynamo-checkpoint.ts';
import { DYNAMO_GRAPH_DEPLOYMENT } from '../../contract/dynamo-graph-deployment.ts';
import { automaticId } from '../../contract/identity.ts';
import { ANNOTATIONS, LABELS } from '../../contract/keys.ts';
import { automaticCheckpointName } from '../../contract/operator-names.ts';
import type { NewObject } from '../control/object-writer.ts';
import { type Component, componentTemplate, generationOf, MAIN, selectorLabels, sharedMemoryOf } from './component.ts';
import type { Framework } from './support.ts';

/** What the checkpoint of a worker generation is called. */
export interface AutomaticName {
  readonly id: string;
  /** Of the DynamoCheckpoint. */
  readonly name: string;
}

/** It is the same for as long as the object lives and its worker stays the same, whatever the number of replicas. Throws ShapingError. */
export function automaticName(component: Component): AutomaticName {
  const { namespace, name: dgdName, uid: dgdUID } = component.graph.metadata;
  const workerHash = generationOf(component);
  const id = automaticId({ namespace, dgdName, dgdUID, componentName: component.name, workerHash });
  return { id, name: automaticCheckpointName(id) };
}

export function ownerOf({ graph: { metadata } }: Component) {
  const { apiVersion, kind } = DYNAMO_GRAPH_DEPLOYMENT;
  return { apiVersion, kind, name: metadata.name, uid: metadata.uid, controller: true };
}

/**
 * The DynamoCheckpoint of a worker generation. Its pod is the worker's, which says nothing of restores: checkpoint, GPU memory service,
 * failover and the frontend's sidecar are fields of the service, and enter no pod that is made here. Throws ShapingError.
 */
export function automaticCheckpoint(
  component: Component,
  framework: Framework,
  finalizers: readonly string[] = [],
): NewObject {
  const { graph, name: componentName, service } = component;
  const { namespace, name: graphName, uid } = graph.metadata;
  const { id, name } = automaticName(component);
  const { apiVersion, kind } = DYNAMO_CHECKPOINT;
  const labels = {
    ...selectorLabels(component),
    [LABELS.checkpointId]: id,
    [LABELS.workerHash]: generationOf(component),
    [LABELS.managedBy]: MANAGER,
  };
  return {
    apiVersion,
    kind,
    metadata: {
      ...{ name, namespace, labels, ownerReferences: [ownerOf(component)] },
      annotations: { [ANNOTATIONS.autoCheckpoint]: 'true', ...keptPolicy(service.annotations) },
      ...(finalizers.length === 0 ? {} : { finalizers }),
    },
    spec: {
      identity: {
        model: `${namespace}/${graphName}`,
        backendFramework: framework,
        extraParameters: { dgdUID: uid, component: componentName, checkpointID: id },
      },
      job: jobOf(component),
    },
  };
}

/** The value of `app.kubernetes.io/managed-by` of what is made here, and the name under which this operator writes. */
export const MANAGER = 'snapshot-operator';

/** What becomes of the artifacts can be said at the service. */
function keptPolicy(annotations: Readonly<Record<string, string>> = {}): Record<string, string> {
  const policy = annotations[ANNOTATIONS.deletionPolicy];
  return policy === undefined ? {} : { [ANNOTATIONS.deletionPolicy]: policy };
}

function jobOf(component: Component): object {
  const { service } = component;
  const { activeDeadlineSeconds, targetContainerName = MAIN, podTemplateSpec } = service.checkpoint?.job ?? {};
  const template = componentTemplate(component);
  const { labels = {}, annotations = {} } = podTemplateSpec?.metadata ?? {};
  return {
    podTemplateSpec: {
      metadata: {
        labels: { ...template.metadata.labels, ...labels },
        annotations: { ...withoutSwitches(template.metadata.annotations), ...annotations },
      },
      // One that says its own containers says all of its pod.
      spec: podTemplateSpec?.spec ?? template.spec,
    },
    targetContainerName,
    sharedMemory: sharedMemoryOf(component),
    ...(activeDeadlineSeconds === undefined ? {} : { activeDeadlineSeconds }),
  };
}

/** Annotations of a service that speak to this operator are not for the pod. */
export function withoutSwitches(annotations: Readonly<Record<string, string>> = {}): Record<string, string> {
  const { [ANNOTATIONS.failedFallback]: _, [ANNOTATIONS.deletionPolicy]: __, ...rest } = annotations;
  return rest;
}
