import type { Container, Pod, PodSpec } from '../kube/objects.ts';
import { samePath, sharingProblem } from './container-parts.ts';
import { CONTROL_VOLUME } from './control-volume.ts';
import { ANNOTATIONS, CONTROL_DIR_ENV, DEFAULT_CONTROL_DIR, STANDBY_ENV } from './keys.ts';
import { STORAGE_VOLUME, type StorageSource } from './storage-volume.ts';
import { reportingProblem } from './targets.ts';

export interface CompatibilityQuestion {
  readonly targets: readonly string[];
  readonly storage: StorageSource;
  /** Profile that the pod must run under; undefined: any. */
  readonly seccompProfile: string | undefined;
}

/** Why a pod that is there cannot be restored into in place, the first reason; undefined where it can. */
export function restoreProblem({ spec }: Pod, question: CompatibilityQuestion): string | undefined {
  if (spec === undefined) return 'it has no spec';
  const { targets, seccompProfile } = question;
  const ofTargets = () =>
    targets.reduce<string | undefined>((found, target) => found ?? targetProblem(spec, target, question), undefined);
  return sharingProblem(spec) ?? volumeProblem(spec, question) ?? ofTargets() ?? seccompProblem(spec, seccompProfile);
}

/** The pod's volume for the claim, whatever it is called; needed only where the agent reaches artifacts through the pod. */
function storageVolume({ volumes = [] }: PodSpec, { claim }: StorageSource): string | undefined {
  return volumes.find(({ persistentVolumeClaim }) => persistentVolumeClaim?.claimName === claim)?.name;
}

function volumeProblem(spec: PodSpec, { storage }: CompatibilityQuestion): string | undefined {
  if (storage.accessMode === 'podMount' && storageVolume(spec, storage) === undefined)
    return `missing ${STORAGE_VOLUME} volume for PVC ${storage.claim ?? ''}`;
  const control = spec.volumes?.find(({ name }) => name === CONTROL_VOLUME);
  if (control?.emptyDir === undefined)
    return `missing ${CONTROL_VOLUME} emptyDir volume; a pod that snapshotctl restore --manifest makes has it`;
  return undefined;
}

function targetProblem(spec: PodSpec, target: string, { storage }: CompatibilityQuestion): string | undefined {
  const container = spec.containers.find(({ name }) => name === target);
  if (container === undefined)
    return `restore target container "${target}" not found in pod spec (from ${ANNOTATIONS.targetContainers} annotation)`;
  return (
    storageMountProblem(spec, container, storage) ??
    controlMountProblem(container) ??
    waitingProblem(container) ??
    reportingProblem(target)
  );
}

function storageMountProblem(spec: PodSpec, container: Container, storage: StorageSource): string | undefined {
  if (storage.accessMode === 'agentMount') return undefined;
  const volume = storageVolume(spec, storage);
  const mount = container.volumeMounts?.find(
    ({ name, mountPath }) => name === volume && samePath(mountPath, storage.basePath),
  );
  if (mount === undefined)
    return `missing ${STORAGE_VOLUME} mount at ${storage.basePath} on container "${container.name}"`;
  if (mount.readOnly === true || mount.subPath !== undefined || mount.subPathExpr !== undefined)
    return `${STORAGE_VOLUME} mount at ${storage.basePath} on container "${container.name}" must be writable and without subPath`;
  return undefined;
}

function controlMountProblem({ name: container, volumeMounts = [], env = [] }: Container): string | undefined {
  const mount = volumeMounts.find(
    ({ name, mountPath }) => name === CONTROL_VOLUME && samePath(mountPath, DEFAULT_CONTROL_DIR),
  );
  if (mount === undefined)
    return `missing ${CONTROL_VOLUME} mount at ${DEFAULT_CONTROL_DIR} on container "${container}"`;
  if (mount.subPath !== container)
    return `expected SubPath "${container}" for ${CONTROL_VOLUME} at ${DEFAULT_CONTROL_DIR} on container "${container}", got "${mount.subPath ?? ''}"`;
  const directory = env.find(({ name }) => name === CONTROL_DIR_ENV)?.value;
  if (directory === undefined) return `missing ${CONTROL_DIR_ENV} env var on container "${container}"`;
  if (!samePath(directory, DEFAULT_CONTROL_DIR))
    return `expected ${CONTROL_DIR_ENV} to be ${DEFAULT_CONTROL_DIR} on container "${container}", got "${directory}"`;
  return undefined;
}

/** A container that works would be overwritten by what is restored beside it. */
function waitingProblem(container: Container): string | undefined {
  const { name, env = [], startupProbe } = container;
  if (startupProbe === undefined) return `missing restore-complete startup probe on container "${name}"`;
  const isToldToWait = env.some((one) => one.name === STANDBY_ENV && one.value === '1');
  if (isToldToWait || isWaitingCommand(container)) return undefined;
  return `container "${name}" does not wait to be restored: it has neither ${STANDBY_ENV}=1 nor snapshot-standby or "sleep infinity" as its command`;
}

function isWaitingCommand({ command = [], args = [] }: Container): boolean {
  const [program = '', ...rest] = [...command, ...args];
  const name = program.slice(program.lastIndexOf('/') + 1);
  return name === 'snapshot-standby' || (name === 'sleep' && rest.join(' ') === 'infinity');
}

function seccompProblem({ securityContext }: PodSpec, profile: string | undefined): string | undefined {
  if (profile === undefined) return undefined;
  const found = securityContext?.seccompProfile;
  if (found?.type !== 'Localhost') return 'missing localhost seccomp profile';
  return found.localhostProfile === profile ? undefined : `expected localhost seccomp profile "${profile}"`;
}
