import type { ObjectMeta } from '../kube/objects.ts';
import { idProblem } from './ids.ts';
import { ANNOTATIONS, LABELS, SCOPED_ANNOTATIONS } from './keys.ts';
import { checkpointIdProblem } from './names.ts';
import { ShapingError } from './shaping-error.ts';

/** What a checkpoint is called. */
export interface CheckpointName {
  readonly checkpointId: string;
  readonly version: string;
}

/** Labels and annotations, of a pod or to be patched onto one: null takes one away. */
export interface Marks<T = string> {
  readonly labels: Record<string, T>;
  readonly annotations: Record<string, T>;
}

/** Labels of earlier roles of a pod, and those that tie it to the Job it was made by. */
const STALE_LABELS: readonly string[] = [
  LABELS.checkpointSource,
  LABELS.restoreTarget,
  LABELS.checkpointId,
  LABELS.jobName,
  'batch.kubernetes.io/controller-uid',
  'job-name',
  'controller-uid',
];
/** Annotations that say how an earlier role of a pod went; the last two are an older form, without the container's name. */
const STALE_ANNOTATIONS: readonly string[] = [
  ANNOTATIONS.artifactVersion,
  ANNOTATIONS.checkpointStatus,
  'nvidia.com/snapshot-restore-status',
  'nvidia.com/snapshot-restore-container-id',
];
/** What keeps service meshes from adding a container to a Job, which would never end. */
const NO_MESH = { 'linkerd.io/inject': 'disabled', 'sidecar.istio.io/inject': 'false' };

const isStaleLabel = (key: string) => STALE_LABELS.includes(key);
const isStaleAnnotation = (key: string) =>
  STALE_ANNOTATIONS.includes(key) || Object.values(SCOPED_ANNOTATIONS).some((prefix) => key.startsWith(prefix));

/** Labels and annotations of the pod of a checkpoint Job. Throws ShapingError where id or version are none. */
export function sourceMarks(metadata: ObjectMeta | undefined, name: CheckpointName, target: string): Marks {
  const kept = withoutStale(metadata);
  const isMeshLabelled = kept.labels['sidecar.istio.io/inject'] !== undefined;
  return {
    labels: {
      ...kept.labels,
      ...(isMeshLabelled ? { 'sidecar.istio.io/inject': 'false' } : {}),
      [LABELS.checkpointSource]: 'true',
      [LABELS.checkpointId]: checkedName(name).checkpointId,
    },
    annotations: {
      ...kept.annotations,
      ...NO_MESH,
      [ANNOTATIONS.targetContainers]: target,
      [ANNOTATIONS.artifactVersion]: name.version,
    },
  };
}

/** Labels and annotations of a pod that is to be restored into. Throws ShapingError where id or version are none. */
export function targetMarks(metadata: ObjectMeta | undefined, name: CheckpointName, targets: readonly string[]): Marks {
  const kept = withoutStale(metadata);
  const fresh = freshTargetMarks(name, targets);
  return { labels: { ...kept.labels, ...fresh.labels }, annotations: { ...kept.annotations, ...fresh.annotations } };
}

/** The same as a merge patch of a pod that is there: what is stale is taken away, which only a null does. */
export function targetMarksPatch(
  metadata: ObjectMeta | undefined,
  name: CheckpointName,
  targets: readonly string[],
): Marks<string | null> {
  const nulls = (keys: readonly string[]) => Object.fromEntries(keys.map((key) => [key, null]));
  const { labels = {}, annotations = {} } = metadata ?? {};
  const fresh = freshTargetMarks(name, targets);
  // Where the pod belongs to a Job its labels are that Job's; only those of the protocol are taken away.
  const ofProtocol = [LABELS.checkpointSource, LABELS.restoreTarget, LABELS.checkpointId] as readonly string[];
  return {
    labels: { ...nulls(Object.keys(labels).filter((key) => ofProtocol.includes(key))), ...fresh.labels },
    annotations: { ...nulls(Object.keys(annotations).filter(isStaleAnnotation)), ...fresh.annotations },
  };
}

function freshTargetMarks(name: CheckpointName, targets: readonly string[]): Marks {
  return {
    labels: { [LABELS.restoreTarget]: 'true', [LABELS.checkpointId]: checkedName(name).checkpointId },
    annotations: {
      [ANNOTATIONS.targetContainers]: targets.join(','),
      [ANNOTATIONS.artifactVersion]: name.version,
    },
  };
}

function withoutStale({ labels = {}, annotations = {} }: ObjectMeta = {}): Marks {
  const kept = (map: Record<string, string>, isStale: (key: string) => boolean) =>
    Object.fromEntries(Object.entries(map).filter(([key]) => !isStale(key)));
  return { labels: kept(labels, isStaleLabel), annotations: kept(annotations, isStaleAnnotation) };
}

function checkedName(name: CheckpointName): CheckpointName {
  const problem = checkpointIdProblem(name.checkpointId);
  if (problem !== undefined) throw new ShapingError(`checkpoint id "${name.checkpointId}" ${problem}`);
  const versionProblem = idProblem(name.version);
  if (versionProblem !== undefined) throw new ShapingError(`artifact version "${name.version}" ${versionProblem}`);
  return name;
}
