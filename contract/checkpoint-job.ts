import type { Container, Job, ObjectMeta, PodSpec } from '../kube/objects.ts';
import { mapTargets, requireContainers, requireOwnProcesses } from './container-parts.ts';
import { withControlVolume } from './control-volume.ts';
import { LABELS, STANDBY_ENV } from './keys.ts';
import { jobNameProblem } from './names.ts';
import { type CheckpointName, sourceMarks } from './pod-metadata.ts';
import { readyForSnapshotProbe } from './probes.ts';
import { withSeccomp } from './seccomp.ts';
import { ShapingError } from './shaping-error.ts';
import { requireSameStorage, type StorageSource, storageAnnotations, withStorageVolume } from './storage-volume.ts';

/** A pod, or the template of one, as somebody wrote it. */
export interface PodTemplate {
  readonly metadata?: ObjectMeta;
  readonly spec: PodSpec;
}

export interface CheckpointJobRequest extends CheckpointName {
  /** Of the Job. */
  readonly name: string;
  readonly namespace?: string;
  /** The container to be checkpointed. */
  readonly target: string;
  readonly storage: StorageSource;
  /** Profile of the node that the pod runs under; undefined leaves what the template says. */
  readonly seccompProfile: string | undefined;
  /** Start the workload by `cuda-checkpoint --launch-job`, which must be in its image. */
  readonly wrapLaunchJob?: boolean;
  readonly activeDeadlineSeconds?: number;
  readonly ttlSecondsAfterFinished?: number;
}

/**
 * The Job that starts a pod once to checkpoint one of its containers. All of the template that does not stand in the way is kept; what does
 * is named in a ShapingError.
 */
export function checkpointJob(template: PodTemplate, request: CheckpointJobRequest): Job {
  const { name, namespace, checkpointId, activeDeadlineSeconds, ttlSecondsAfterFinished } = request;
  const problem = jobNameProblem(name);
  if (problem !== undefined) throw new ShapingError(`"${name}" cannot be the name of a Job: it ${problem}`);
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: {
      name,
      ...(namespace === undefined ? {} : { namespace }),
      labels: { [LABELS.checkpointId]: checkpointId },
    },
    spec: {
      // A worker that failed once is looked at by a person; a second one would only hold the GPU.
      backoffLimit: 0,
      ...(activeDeadlineSeconds === undefined ? {} : { activeDeadlineSeconds }),
      ...(ttlSecondsAfterFinished === undefined ? {} : { ttlSecondsAfterFinished }),
      template: sourceTemplate(template, request),
    },
  };
}

/** The pod of a checkpoint Job. Made into one again it stays as it is. Throws ShapingError. */
function sourceTemplate(template: PodTemplate, request: CheckpointJobRequest): { metadata: ObjectMeta; spec: PodSpec } {
  const { target, storage, seccompProfile, wrapLaunchJob = false } = request;
  requireContainers(template.spec, [target]);
  requireOwnProcesses(template.spec);
  const { labels, annotations } = sourceMarks(template.metadata, request, target);
  requireSameStorage(annotations, storage);
  let spec = withControlVolume(template.spec, [target]);
  // Where the agent mounts the volume itself, the worker need not have everybody's artifacts.
  if (storage.accessMode === 'podMount') spec = withStorageVolume(spec, [target], requireClaim(storage));
  if (seccompProfile !== undefined) spec = withSeccomp(spec, [target], seccompProfile);
  spec = mapTargets(spec, [target], (container) => sourceContainer(container, wrapLaunchJob));
  return {
    metadata: { labels, annotations: { ...annotations, ...storageAnnotations(storage) } },
    spec: { ...spec, restartPolicy: 'Never' },
  };
}

function requireClaim({ claim, basePath }: StorageSource): { claim: string; basePath: string } {
  if (claim === undefined)
    throw new ShapingError(`in podMount mode the pod must bring the volume of ${basePath}: name its claim`);
  return { claim, basePath };
}

function sourceContainer(container: Container, wrapLaunchJob: boolean): Container {
  // A frozen worker answers no probe, and must not be ended for it.
  const { livenessProbe: _, startupProbe: __, ...kept } = container;
  const standby = kept.env?.find(({ name }) => name === STANDBY_ENV);
  if (standby !== undefined)
    throw new ShapingError(
      `container ${kept.name} sets ${STANDBY_ENV}, which makes it wait to be restored: a source must work. Remove it`,
    );
  return { ...(wrapLaunchJob ? launchJob(kept) : kept), readinessProbe: readyForSnapshotProbe() };
}

function launchJob(container: Container): Container {
  const { command = [], args = [] } = container;
  if (command.length === 0)
    throw new ShapingError(
      'checkpoint job requires container.command when cuda-checkpoint launch-job wrapping is enabled',
    );
  if (command[0] === 'cuda-checkpoint' && [...command, ...args].includes('--launch-job')) return container;
  return { ...container, command: ['cuda-checkpoint'], args: ['--launch-job', ...command, ...args] };
}
