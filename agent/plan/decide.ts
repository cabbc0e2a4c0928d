import { idProblem } from '../../contract/ids.ts';
import { ANNOTATIONS, DEFAULT_ARTIFACT_VERSION, LABELS } from '../../contract/keys.ts';
import type { ContainerView, PodView } from '../../contract/pods.ts';

/** What is known of a container from earlier operations: how far the last one came. */
export type History = (containerId: string) => 'none' | 'running' | 'ended';

/** What a pod asks for, for one of its containers. */
interface Wanted {
  readonly container: ContainerView;
  readonly checkpointId: string;
  readonly version: string;
  /** Base path of the volume, where the pod's annotation names one. */
  readonly basePath: string | undefined;
}

export interface CheckpointWanted extends Wanted {
  readonly kind: 'checkpoint';
  /** A Job exists for this checkpoint: its container always goes on and ends by itself when it is released. */
  readonly ofJob: boolean;
  readonly after: 'resume' | 'stop' | undefined;
  readonly existing: 'adopt' | 'replace';
}

export interface RestoreWanted extends Wanted {
  readonly kind: 'restore';
}

/** Nothing to do, and why: said in the log, so that a person can see why nothing happens. */
interface Nothing {
  readonly kind: 'nothing';
  readonly container: string;
  readonly reason: string;
}

/** The pod asks for something that cannot be: a defect of its labels or annotations. */
interface Malformed {
  readonly kind: 'malformed';
  readonly reason: string;
}

export type Decision = CheckpointWanted | RestoreWanted | Nothing | Malformed;

/** Says for each target container of a pod what is to be done now. Pure: the same pod and history give the same answer. */
export function decide(pod: PodView, history: History): Decision[] {
  const checkpointId = pod.labels[LABELS.checkpointId];
  if (checkpointId === undefined || checkpointId === '') return [];
  const problem = idProblem(checkpointId);
  if (problem !== undefined) return [malformed(`label ${LABELS.checkpointId} "${checkpointId}" ${problem}`)];
  const version = pod.annotations[ANNOTATIONS.artifactVersion]?.trim() || DEFAULT_ARTIFACT_VERSION;
  const versionProblem = idProblem(version);
  if (versionProblem !== undefined)
    return [malformed(`annotation ${ANNOTATIONS.artifactVersion} "${version}" ${versionProblem}`)];
  const storageType = pod.annotations[ANNOTATIONS.storageType]?.trim() || 'pvc';
  if (storageType !== 'pvc') return [malformed(`annotation ${ANNOTATIONS.storageType} "${storageType}" is not "pvc"`)];
  const targets = targetContainers(pod);
  if (typeof targets === 'string') return [malformed(targets)];

  const sourceLabel = pod.labels[LABELS.checkpointSource];
  const isSource = sourceLabel === 'true';
  // A pod with this label is never a restore target: taking "True" for one would overwrite the worker that was to be saved.
  if (sourceLabel !== undefined && !isSource)
    return [malformed(`label ${LABELS.checkpointSource} "${sourceLabel}" is not "true"`)];
  if (isSource && targets.length !== 1)
    return [malformed(`expected exactly 1 target container of a checkpoint source, got ${targets.length}`)];
  const source = isSource ? sourceWishes(pod) : undefined;
  if (typeof source === 'string') return [malformed(source)];

  return targets.map((name): Decision => {
    const container = currentContainer(pod, name);
    const blocked = container === undefined ? 'the container is not created yet' : notNow(container, history);
    if (container === undefined || blocked !== undefined)
      return { kind: 'nothing', container: name, reason: blocked ?? 'the container is not created yet' };
    const wanted = { container, checkpointId, version, basePath: basePath(pod) };
    return source === undefined ? { kind: 'restore', ...wanted } : { kind: 'checkpoint', ...wanted, ...source };
  });
}

const malformed = (reason: string): Malformed => ({ kind: 'malformed', reason });

/** The names in the target annotation, or a sentence saying what is wrong with it. */
function targetContainers(pod: PodView): string[] | string {
  const text = pod.annotations[ANNOTATIONS.targetContainers]?.trim() ?? '';
  if (text === '') return `annotation ${ANNOTATIONS.targetContainers} is missing or blank`;
  const names = text.split(',').map((name) => name.trim());
  if (names.includes('')) return `annotation ${ANNOTATIONS.targetContainers} "${text}" has an empty entry`;
  if (new Set(names).size !== names.length)
    return `annotation ${ANNOTATIONS.targetContainers} "${text}" names a container twice`;
  return names;
}

function sourceWishes(pod: PodView): Pick<CheckpointWanted, 'ofJob' | 'after' | 'existing'> | string {
  const ofJob = (pod.labels[LABELS.jobName] ?? '') !== '';
  const after = pod.annotations[ANNOTATIONS.afterCheckpoint];
  if (after !== undefined && after !== 'resume' && after !== 'stop')
    return `annotation ${ANNOTATIONS.afterCheckpoint} "${after}" is neither "resume" nor "stop"`;
  if (ofJob && after === 'stop')
    return `annotation ${ANNOTATIONS.afterCheckpoint} "stop" is not for the pod of a Job: its container is released and ends by itself`;
  const existing = pod.annotations[ANNOTATIONS.existingArtifact] ?? 'adopt';
  if (existing !== 'adopt' && existing !== 'replace')
    return `annotation ${ANNOTATIONS.existingArtifact} "${existing}" is neither "adopt" nor "replace"`;
  return { ofJob, after, existing };
}

/** After restarts a pod has several containers of one name: the one started last counts. */
function currentContainer(pod: PodView, name: string): ContainerView | undefined {
  return pod.containers
    .filter((container) => container.name === name)
    .reduce<ContainerView | undefined>(
      (latest, container) => (latest === undefined || container.attempt > latest.attempt ? container : latest),
      undefined,
    );
}

function notNow(container: ContainerView, history: History): string | undefined {
  if (container.state !== 'running') return `the container is ${container.state}`;
  const past = history(container.id);
  if (past === 'running') return 'an operation on this container is under way';
  if (past === 'ended') return 'this container had its attempt';
  return undefined;
}

/** The base path a pod asks for; trailing slashes are dropped, as the protocol says. */
function basePath(pod: PodView): string | undefined {
  const text = pod.annotations[ANNOTATIONS.storageBasePath]?.trim();
  if (text === undefined || text === '') return undefined;
  return text.replace(/\/+$/, '') || '/';
}
