import type { Container, ObjectMeta, PodSpec } from '../kube/objects.ts';
import type { PodTemplate } from './checkpoint-job.ts';
import { mapTargets, requireContainers, requireOwnProcesses, withEnv } from './container-parts.ts';
import { withControlVolume } from './control-volume.ts';
import { STANDBY_ENV } from './keys.ts';
import { type CheckpointName, targetMarks } from './pod-metadata.ts';
import { restoredStartupProbe, STARTUP_SECONDS } from './probes.ts';
import { withSeccomp } from './seccomp.ts';
import { ShapingError } from './shaping-error.ts';
import { requireSameStorage, type StorageSource, storageAnnotations, withStorageVolume } from './storage-volume.ts';
import { reportingProblem } from './targets.ts';

/**
 * What a target container runs while it waits. `standby`: snapshot-standby, which a placeholder image has; `sleep`: `sleep infinity`, for any
 * image that has it; `entrypoint`: what the pod says, for images that know by DYN_SNAPSHOT_RESTORE_STANDBY that they are to wait.
 */
export type Placeholder = 'standby' | 'sleep' | 'entrypoint';

export interface RestorePodRequest extends CheckpointName {
  /** The containers to be restored into. */
  readonly targets: readonly string[];
  readonly storage: StorageSource;
  /** Profile of the node that the pod runs under: the one that the source had. undefined leaves what the pod says. */
  readonly seccompProfile: string | undefined;
  readonly placeholder?: Placeholder;
  /** How long kubelet waits for the restored process before it gives the container up. */
  readonly startupSeconds?: number;
}

/** What shaping gives a pod in any case. */
interface ShapedPod {
  readonly metadata: ObjectMeta;
  readonly spec: PodSpec;
}

const COMMANDS: Readonly<Record<Exclude<Placeholder, 'entrypoint'>, readonly string[]>> = {
  // With its path: the base of a placeholder image may search no directory at all.
  standby: ['/usr/local/bin/snapshot-standby'],
  sleep: ['sleep', 'infinity'],
};

/**
 * A pod that waits to be restored into. All of it that does not stand in the way is kept, other fields than metadata and spec too; what
 * does is named in a ShapingError. Made into one again it stays as it is.
 */
export function restorePod<T extends PodTemplate>(pod: T, request: RestorePodRequest): T & ShapedPod {
  const { targets, storage, seccompProfile, placeholder = 'standby', startupSeconds = STARTUP_SECONDS } = request;
  requireContainers(pod.spec, targets);
  requireOwnProcesses(pod.spec);
  requireReportable(targets);
  const { labels, annotations } = targetMarks(pod.metadata, request, targets);
  requireSameStorage(annotations, storage);
  const { claim, basePath, accessMode } = storage;
  if (claim === undefined && accessMode === 'podMount')
    throw new ShapingError(`in podMount mode the pod must bring the volume of ${basePath}: name its claim`);
  let spec: PodSpec = withControlVolume(pod.spec, targets);
  // In agentMount mode the agent reads the artifact itself: a worker that mounts the volume could read everybody's memory on it.
  if (claim !== undefined && accessMode === 'podMount') spec = withStorageVolume(spec, targets, { claim, basePath });
  if (seccompProfile !== undefined) spec = withSeccomp(spec, targets, seccompProfile);
  spec = mapTargets(spec, targets, (container) => targetContainer(container, placeholder, startupSeconds));
  const metadata = { ...pod.metadata, labels, annotations: { ...annotations, ...storageAnnotations(storage) } };
  return { ...pod, metadata, spec };
}

function requireReportable(targets: readonly string[]): void {
  for (const target of targets) {
    const problem = reportingProblem(target);
    if (problem !== undefined)
      throw new ShapingError(`container ${target} cannot be restored into: ${problem}. Give it a shorter name`);
  }
}

/**
 * A postStart hook is for a worker that starts: in a placeholder it finds none, and where it fails, kubelet ends the container. An entry point
 * of the pod's own may count on it. preStop acts on the restored worker, and stays.
 */
function targetContainer(container: Container, placeholder: Placeholder, startupSeconds: number): Container {
  const waiting = withEnv(container, STANDBY_ENV, '1');
  const startupProbe = restoredStartupProbe(container, startupSeconds);
  if (placeholder === 'entrypoint') return { ...waiting, startupProbe };
  const { args: _, lifecycle, ...kept } = waiting;
  const { postStart: __, ...hooks } = lifecycle ?? {};
  const left = Object.keys(hooks).length === 0 ? {} : { lifecycle: hooks };
  return { ...kept, ...left, command: [...COMMANDS[placeholder]], startupProbe };
}
