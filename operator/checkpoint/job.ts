import { type CheckpointJobRequest, checkpointJob } from '../../contract/checkpoint-job.ts';
import { DYNAMO_CHECKPOINT, type DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { ANNOTATIONS } from '../../contract/keys.ts';
import { SECCOMP_PROFILE } from '../../contract/seccomp.ts';
import type { StorageSource } from '../../contract/storage-volume.ts';
import { withWorkerDefaults } from '../../contract/worker-defaults.ts';
import type { PodSpec } from '../../kube/objects.ts';
import type { NewObject } from '../control/object-writer.ts';
import type { Attempt } from './facts.ts';
import { writtenTemplate } from './template.ts';

/** `checkpoint.seccomp` of the configuration. */
export interface SeccompConfig {
  /** The nodes or their policy block io_uring already, or custom profiles are not allowed. */
  readonly disabled: boolean;
  /** Of the node, relative to kubelet's directory of profiles; blank: that of the chart. */
  readonly profile: string;
}

/** A Job that failed or completed is kept for so long for people to look at. */
const TTL_SECONDS = 300;

/** The Job of one try, owned by the checkpoint. Throws ShapingError where the template cannot be made into a source. */
export function jobOf(
  { metadata, spec }: DynamoCheckpoint,
  {
    attempt,
    storage,
    seccomp,
  }: { readonly attempt: Attempt; readonly storage: StorageSource; readonly seccomp: SeccompConfig },
): NewObject {
  const { podTemplateSpec, targetContainerName: target, sharedMemory, activeDeadlineSeconds } = spec.job;
  // The API server checks the rest of it.
  const template = writtenTemplate(podTemplateSpec);
  const request: CheckpointJobRequest = {
    ...{ name: attempt.jobName, namespace: metadata.namespace },
    ...{ checkpointId: attempt.checkpointId, version: attempt.version, target, storage },
    seccompProfile: seccomp.disabled ? undefined : seccomp.profile || SECCOMP_PROFILE,
    wrapLaunchJob: metadata.annotations?.[ANNOTATIONS.wrapLaunchJob] === 'true',
    activeDeadlineSeconds,
    ttlSecondsAfterFinished: TTL_SECONDS,
  };
  const job = checkpointJob(template, request);
  const pod = job.spec?.template;
  const withDefaults = withWorkerDefaults(pod?.spec as PodSpec, [target], sharedMemory);
  const { apiVersion, kind } = DYNAMO_CHECKPOINT;
  const owner = {
    apiVersion,
    kind,
    name: metadata.name,
    uid: metadata.uid,
    controller: true,
    blockOwnerDeletion: true,
  };
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { ...job.metadata, name: attempt.jobName, namespace: metadata.namespace, ownerReferences: [owner] },
    spec: { ...job.spec, template: { ...pod, spec: withDefaults } },
  };
}
