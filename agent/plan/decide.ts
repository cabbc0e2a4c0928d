import { idProblem } from '../../contract/ids.ts';
import { ANNOTATIONS, DEFAULT_ARTIFACT_VERSION, LABELS, SCOPED_ANNOTATIONS } from '../../contract/keys.ts';
import type { ContainerView, FailedContainer, PodView } from '../../contract/pods.ts';
import { reportingProblem, targetNames } from '../../contract/targets.ts';

/** What is known of a container from earlier operations: how far the last one came, and how a restore of it ended. */
export type History = (containerId: string) => Past;
type Past =
  | { readonly state: 'none' | 'running' | 'ended' }
  | { readonly state: 'restored'; readonly restore: EndedRestore };

/** What is known of a restore that ended. */
interface EndedRestore {
  readonly requestId: string;
  readonly traceId: string;
  readonly checkpointId: string;
  readonly version: string;
  /** Absent where it succeeded. */
  readonly failure?: { readonly code: string; readonly message: string; readonly advice: string } | undefined;
}

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
  /** Where only one container is left alone for it: its id. */
  readonly containerId?: string;
}

/** The pod does not say yet how the restore of a container ended: it is told again. */
export interface ReportWanted {
  readonly kind: 'report';
  readonly container: ContainerView;
  readonly status: RestoreStatus;
  readonly restore: EndedRestore;
}

export type RestoreStatus = 'in_progress' | 'completed' | 'failed';

/** A container of a checkpoint Job's pod ended with an error: there will be no checkpoint. */
export interface WorkerFailed {
  readonly kind: 'worker-failed';
  readonly failed: readonly FailedContainer[];
  /** Containers that still run: they are ended. */
  readonly running: readonly ContainerView[];
}

export type Decision = CheckpointWanted | RestoreWanted | ReportWanted | WorkerFailed | Nothing | Malformed;

/** How the agent reaches volumes, by its configuration. */
export interface StorageRules {
  readonly accessMode: 'agentMount' | 'podMount';
  readonly basePath: string;
}

/** Says for each target container of a pod what is to be done now. Pure: the same pod, history and rules give the same answer. */
export function decide(pod: PodView, history: History, storage: StorageRules): Decision[] {
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

  if (source?.ofJob === true) {
    const failure = workerFailure(pod);
    if (failure !== undefined) return [failure];
  }
  const illegal = source === undefined ? unreportable(pod, targets) : undefined;
  if (illegal !== undefined) return [malformed(illegal)];
  const blocked = podNotNow(pod, source !== undefined);

  return targets.map((name): Decision => {
    const container = currentContainer(pod, name);
    if (container === undefined) return nothing(name, 'the container is not created yet');
    const past = history(container.id);
    const told = past.state === 'restored' && source === undefined ? untold(pod, container, past.restore) : undefined;
    if (told !== undefined) return told;
    const misplaced = claimProblem(pod, name, storage);
    if (misplaced !== undefined) return { ...malformed(misplaced), containerId: container.id };
    const reason =
      blocked ??
      notNow(container, past) ??
      (source === undefined ? endedBefore(pod, container) : notReady(pod, container));
    if (reason !== undefined) return nothing(name, reason);
    const wanted = { container, checkpointId, version, basePath: basePath(pod) };
    return source === undefined ? { kind: 'restore', ...wanted } : { kind: 'checkpoint', ...wanted, ...source };
  });
}

const nothing = (container: string, reason: string): Nothing => ({ kind: 'nothing', container, reason });

const malformed = (reason: string): Malformed => ({ kind: 'malformed', reason });

/** The names in the target annotation, or a sentence saying what is wrong with it. */
function targetContainers(pod: PodView): string[] | string {
  const key = ANNOTATIONS.targetContainers;
  return targetNames(pod.annotations[key] ?? '', `annotation ${key}`);
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

function notNow(container: ContainerView, past: Past): string | undefined {
  if (container.state !== 'running') return `the container is ${container.state}`;
  if (past.state === 'running') return 'an operation on this container is under way';
  if (past.state !== 'none') return 'this container had its attempt';
  return undefined;
}

/** In a cluster the readiness probe says when a source may be checkpointed. */
function notReady({ kubernetes }: PodView, { name }: ContainerView): string | undefined {
  return kubernetes?.ready.includes(name) === false ? 'the container is not ready' : undefined;
}

/** What the pod says of a restore counts where nothing else is known of it: no container is restored into twice, though the journal was lost. */
function endedBefore(pod: PodView, container: ContainerView): string | undefined {
  const { status, containerId } = saidOf(pod, container);
  if (containerId !== container.id || (status !== 'completed' && status !== 'failed')) return undefined;
  return `this container had its attempt: its pod says "${status}"`;
}

function saidOf({ annotations }: PodView, { name }: ContainerView) {
  return {
    status: annotations[SCOPED_ANNOTATIONS.restoreStatus + name],
    containerId: annotations[SCOPED_ANNOTATIONS.restoreContainerId + name],
  };
}

/** Why nothing is done for any container of the pod, by what Kubernetes says of it. */
function podNotNow({ kubernetes }: PodView, isSource: boolean): string | undefined {
  if (kubernetes === undefined) return undefined;
  const { phase, isDeleting } = kubernetes;
  if (isDeleting) return 'the pod is being deleted';
  if (phase === 'Running' || (phase === 'Pending' && !isSource)) return undefined;
  return `the pod is ${phase}`;
}

/**
 * In podMount mode the base path must lie in a claim that the pod mounts, wherever Kubernetes tells: an emptyDir that looks like the
 * volume would hold the artifact only as long as the pod lives.
 */
function claimProblem(pod: PodView, container: string, storage: StorageRules): string | undefined {
  if (pod.kubernetes === undefined || storage.accessMode === 'agentMount') return undefined;
  const path = basePath(pod) ?? storage.basePath;
  const isBelow = (mount: string) => path === mount || path.startsWith(`${mount.replace(/\/+$/, '')}/`);
  const mounts = pod.kubernetes.claimMounts.filter((mount) => mount.container === container);
  if (mounts.some(({ mountPath }) => isBelow(mountPath))) return undefined;
  return `container ${container} mounts no persistent volume claim at ${path}`;
}

/** A container of a Job's pod that failed ends the checkpoint for all of them. */
function workerFailure({ kubernetes, containers }: PodView): WorkerFailed | undefined {
  if (kubernetes === undefined || kubernetes.failed.length === 0) return undefined;
  const running = containers.filter(({ state }) => state === 'running');
  return { kind: 'worker-failed', failed: kubernetes.failed, running };
}

/** What the pod's annotations do not say yet of a restore that ended. */
function untold(pod: PodView, container: ContainerView, restore: EndedRestore): ReportWanted | undefined {
  if (pod.kubernetes === undefined || pod.kubernetes.isDeleting) return undefined;
  const status = restore.failure === undefined ? 'completed' : 'failed';
  const said = saidOf(pod, container);
  if (said.status === status && said.containerId === container.id) return undefined;
  return { kind: 'report', container, status, restore };
}

/** Why the outcome of a restore could not be written to the pod. */
function unreportable(pod: PodView, targets: readonly string[]): string | undefined {
  return pod.kubernetes && targets.map(reportingProblem).find((each) => each !== undefined);
}

/** The base path a pod asks for; trailing slashes are dropped, as the protocol says. */
function basePath(pod: PodView): string | undefined {
  const text = pod.annotations[ANNOTATIONS.storageBasePath]?.trim();
  if (text === undefined || text === '') return undefined;
  return text.replace(/\/+$/, '') || '/';
}
