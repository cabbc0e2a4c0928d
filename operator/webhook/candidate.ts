import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { checkpointIdOf } from '../../contract/identity.ts';
import { ANNOTATIONS, DEFAULT_ARTIFACT_VERSION, LABELS } from '../../contract/keys.ts';
import { idCheckpointJobName } from '../../contract/names.ts';
import { targetNames } from '../../contract/targets.ts';
import type { ObjectMeta } from '../../kube/objects.ts';

/** The checkpoint that a pod is a candidate for; undefined where it is none. */
export function candidateFor({ annotations = {} }: ObjectMeta): string | undefined {
  if (annotations[ANNOTATIONS.restoreCandidate] !== 'true') return undefined;
  return annotations[ANNOTATIONS.checkpointName]?.trim() || undefined;
}

/**
 * Why a pod should not have the annotations of a candidate, or undefined. Whoever may create pods here may write them, and may as well write
 * all that shaping would add: this does not keep anybody from anything. It finds pods that got the annotations by a copied template.
 */
export function stampProblem({ labels = {}, ownerReferences = [] }: ObjectMeta): string | undefined {
  if (labels[LABELS.checkpointSource] !== undefined) return 'it is the source of a checkpoint';
  const controller = ownerReferences.find((owner) => owner.controller === true);
  if (controller === undefined)
    return 'no controller made it: candidates are the pods of a worker that is kept running';
  if (controller.kind === 'Job')
    return `Job ${controller.name} made it: candidates are the pods of a worker that is kept running`;
  return undefined;
}

/** Why a pod is none of the workers that the checkpoint is of, or undefined. A checkpoint without the label is of any. */
export function generationProblem({ labels = {} }: ObjectMeta, { metadata }: DynamoCheckpoint): string | undefined {
  const generation = metadata.labels?.[LABELS.workerHash];
  const own = labels[LABELS.workerHash];
  if (generation === undefined || generation === own) return undefined;
  return `it is of worker generation ${own ?? 'unknown'}, DynamoCheckpoint ${metadata.name} of ${generation}`;
}

/** What a checkpoint that can be restored is called, or why it cannot be. */
export function readyCheckpoint(
  checkpoint: DynamoCheckpoint,
): { readonly checkpointId: string; readonly version: string } | string {
  const { metadata, status } = checkpoint;
  const { name, annotations = {} } = metadata;
  if (metadata.deletionTimestamp !== undefined) return `DynamoCheckpoint ${name} is being deleted`;
  if (status?.phase !== 'Ready') return `DynamoCheckpoint ${name} is ${status?.phase || 'Pending'}`;
  const checkpointId = checkpointIdOf(checkpoint);
  const version = annotations[ANNOTATIONS.artifactVersion]?.trim() || DEFAULT_ARTIFACT_VERSION;
  // Somebody has just asked for another version: what is ready is the one before.
  const isOfVersion = !status.jobName || status.jobName === idCheckpointJobName(checkpointId, version);
  return isOfVersion ? { checkpointId, version } : `DynamoCheckpoint ${name} is not ready in version ${version}`;
}

/** The containers to restore into: those that the pod names, else the one that was checkpointed. The second result: why there are none. */
export function targetsOf({ annotations = {} }: ObjectMeta, { spec }: DynamoCheckpoint): string[] | string {
  const said = annotations[ANNOTATIONS.targetContainers] ?? '';
  if (said.trim() === '') return [spec.job.targetContainerName];
  return targetNames(said, `annotation ${ANNOTATIONS.targetContainers}`);
}
