import { ANNOTATIONS } from '../../contract/keys.ts';
import { targetMarksPatch } from '../../contract/pod-metadata.ts';
import { restoreProblem } from '../../contract/restore-compatibility.ts';
import { type Placeholder, restorePod } from '../../contract/restore-pod.ts';
import { requireSameStorage, type StorageSource, storageAnnotations } from '../../contract/storage-volume.ts';
import { agreedTargets } from '../../contract/targets.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, isGone } from '../../kube/error.ts';
import type { Pod } from '../../kube/objects.ts';
import { kubePath } from '../../kube/paths.ts';
import { CommandError } from '../failure.ts';
import { oneLine } from '../show/text.ts';
import type { Terminal } from '../terminal.ts';
import { asCommandError, withDoubt } from './asking.ts';
import type { PodManifest } from './manifest.ts';
import { type Attempt, attemptsOf, currentAttempts, podPath } from './restoring.ts';

export interface TargetRequest {
  readonly kube: KubeClient;
  readonly namespace: string;
  readonly terminal: Terminal;
  readonly checkpointId: string;
  readonly version: string;
  readonly storage: StorageSource;
  readonly seccompProfile: string | undefined;
  /** The names of the target containers, as the flag has them. */
  readonly containers: string | undefined;
}

/** A restore that was asked for. */
export interface Requested {
  readonly pod: Pod;
  readonly targets: readonly string[];
  /** Attempts that the pod spoke of before. */
  readonly earlier: readonly Attempt[];
}

/** Others write pods as well: kubelet and the agent do, all the time. */
const MAX_CONFLICTS = 8;

function targetsOf({ containers }: TargetRequest, annotations: Record<string, string> = {}): string[] {
  return agreedTargets({
    flag: containers,
    flagName: '--containers',
    annotation: annotations[ANNOTATIONS.targetContainers],
    limit: Number.POSITIVE_INFINITY,
  });
}

/** Creates the pod of a manifest, to be restored into. Throws CommandError, ShapingError. */
export async function createTarget(
  request: TargetRequest,
  manifest: PodManifest,
  placeholder: Placeholder,
): Promise<Requested> {
  const { kube, namespace, terminal } = request;
  const targets = targetsOf(request, manifest.metadata.annotations);
  const shaped = restorePod(manifest, { ...request, targets, placeholder });
  const body = {
    ...shaped,
    metadata: { ...shaped.metadata, namespace },
    spec: { ...shaped.spec, restartPolicy: 'Never' },
  };
  const path = kubePath('api', 'v1', 'namespaces', namespace, 'pods');
  try {
    const pod = await kube.request<Pod>({ method: 'POST', path, body, signal: terminal.signal });
    return { pod, targets, earlier: [] };
  } catch (error) {
    const { name } = manifest.metadata;
    if (!isConflict(error)) throw withDoubt(error, `pod ${namespace}/${name}`);
    throw new CommandError(
      'failed',
      `restore pod ${namespace}/${name} already exists; delete it, or restore into it with --pod ${name}`,
    );
  }
}

/** Asks for a restore into a pod that is there. Throws CommandError, ShapingError. */
export async function markTarget(request: TargetRequest, name: string): Promise<Requested> {
  const { kube, namespace, terminal } = request;
  const path = podPath(namespace, name);
  for (let conflicts = 0; ; conflicts += 1) {
    const pod = await readTarget(request, name);
    const targets = targetsOf(request, pod.metadata?.annotations);
    requireFit(request, pod, targets);
    const warnings = attemptWarnings(request, pod, targets);
    const body = { metadata: patchOf(request, pod, targets) };
    try {
      const contentType = 'application/merge-patch+json';
      const patched = await kube.request<Pod>({ method: 'PATCH', path, body, contentType, signal: terminal.signal });
      for (const warning of warnings) terminal.err.write(`${oneLine(warning)}\n`);
      return { pod: patched, targets, earlier: attemptsOf(pod, targets) };
    } catch (error) {
      if (!isConflict(error) || conflicts >= MAX_CONFLICTS) throw asCommandError(error);
    }
  }
}

async function readTarget({ kube, namespace, terminal }: TargetRequest, name: string): Promise<Pod> {
  try {
    return await kube.request<Pod>({ method: 'GET', path: podPath(namespace, name), signal: terminal.signal });
  } catch (error) {
    if (isGone(error)) throw new CommandError('usage', `there is no pod ${namespace}/${name}`);
    throw asCommandError(error);
  }
}

/** Refuses a pod that could not be restored into. Nothing was changed. */
function requireFit({ namespace, storage, seccompProfile }: TargetRequest, pod: Pod, targets: string[]): void {
  const called = `${namespace}/${pod.metadata?.name ?? ''}`;
  const { phase = '' } = pod.status ?? {};
  const over = pod.metadata?.deletionTimestamp === undefined ? undefined : 'is being deleted';
  const ended = over ?? (/^(Succeeded|Failed)$/.test(phase) ? `has ended (${phase})` : undefined);
  if (ended !== undefined) throw new CommandError('refused', `restore target pod ${called} ${ended}`);
  const problem = restoreProblem(pod, { targets, storage, seccompProfile });
  if (problem !== undefined)
    throw new CommandError('refused', `restore target pod ${called} is not snapshot-compatible: ${problem}`);
}

/**
 * What a person must know of earlier attempts. The agent restores into each container once, whatever its pod says later: clearing the
 * status of a container that had its attempt gives it no other. Throws CommandError where that makes the request useless.
 */
function attemptWarnings({ namespace }: TargetRequest, pod: Pod, targets: readonly string[]): string[] {
  const called = `of pod ${namespace}/${pod.metadata?.name ?? ''}`;
  return currentAttempts(pod, targets).map(({ container, status }) => {
    if (status === 'in_progress')
      throw new CommandError(
        'refused',
        `container ${container} ${called} is being restored just now: wait for its end`,
      );
    const had = `container ${container} ${called} had its attempt (${status}), and each container has one`;
    if (pod.spec?.restartPolicy === 'Never')
      throw new CommandError('refused', `${had}: it is not restarted (restartPolicy Never), so make a new pod`);
    return `${had}: the restore begins when the container restarts`;
  });
}

/** The uid keeps it from a later pod of the name, the version from what was not looked at. */
function patchOf({ checkpointId, version, storage }: TargetRequest, { metadata }: Pod, targets: readonly string[]) {
  const { labels, annotations } = targetMarksPatch(metadata, { checkpointId, version }, targets);
  requireSameStorage(metadata?.annotations ?? {}, storage);
  const { uid, resourceVersion } = metadata ?? {};
  return { uid, resourceVersion, labels, annotations: { ...annotations, ...storageAnnotations(storage) } };
}
