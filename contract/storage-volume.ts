import type { Container, PodSpec, VolumeMount } from '../kube/objects.ts';
import { mapTargets, samePath } from './container-parts.ts';
import { ANNOTATIONS } from './keys.ts';
import { ShapingError } from './shaping-error.ts';

/** The name that the volume with the artifacts has in pods. */
export const STORAGE_VOLUME = 'checkpoint-storage';

/** Where the artifacts of a pod are, and who mounts them. */
export interface StorageSource {
  readonly accessMode: 'agentMount' | 'podMount';
  /** Absolute path, the same for pods and agents. */
  readonly basePath: string;
  /** The claim in the pod's own namespace; undefined where only the agent has it, in a namespace of its own. */
  readonly claim: string | undefined;
}

/** Says why this is no base path of a volume, or undefined. */
export function basePathProblem(path: string): string | undefined {
  if (!path.startsWith('/')) return 'is not absolute';
  if (samePath(path, '/')) return 'is the root of the container';
  const parts = path.replace(/\/+$/, '').split('/').slice(1);
  return parts.some((part) => part === '' || part === '.' || part === '..') ? 'is not clean' : undefined;
}

/** Mounts the claim at the base path into each target container. A volume of the pod that is the claim already is used. Throws ShapingError. */
export function withStorageVolume(
  spec: PodSpec,
  targets: readonly string[],
  { claim, basePath }: { readonly claim: string; readonly basePath: string },
): PodSpec {
  const problem = basePathProblem(basePath);
  if (problem !== undefined) throw new ShapingError(`base path ${basePath} ${problem}`);
  const { volumes = [] } = spec;
  const name = storageVolumeName(spec, claim);
  const added = { name: STORAGE_VOLUME, persistentVolumeClaim: { claimName: claim } };
  const withVolume = name === undefined ? { ...spec, volumes: [...volumes, added] } : spec;
  const mount = { name: name ?? STORAGE_VOLUME, mountPath: basePath };
  return mapTargets(withVolume, targets, (container) => withMount(container, mount));
}

/** The pod's own volume for a claim. Throws ShapingError where it is of no use. */
function storageVolumeName({ volumes = [] }: PodSpec, claim: string): string | undefined {
  const ofClaim = volumes.filter((volume) => volume.persistentVolumeClaim?.claimName === claim);
  const reserved = volumes.find(({ name }) => name === STORAGE_VOLUME);
  if (reserved !== undefined && !ofClaim.includes(reserved))
    throw new ShapingError(
      `volume ${STORAGE_VOLUME} is not claim ${claim}; the name is kept for it: call yours otherwise`,
    );
  const [first, second] = ofClaim;
  if (second !== undefined)
    throw new ShapingError(
      `several volumes for claim ${claim}: ${ofClaim.map(({ name }) => name).join(', ')}; keep one`,
    );
  if (first?.persistentVolumeClaim?.readOnly === true)
    throw new ShapingError(`volume ${first.name} has claim ${claim} read-only; artifacts are written to it`);
  return first?.name;
}

function withMount(container: Container, wanted: VolumeMount): Container {
  const { name, volumeMounts = [] } = container;
  const there = volumeMounts.find(({ mountPath }) => samePath(mountPath, wanted.mountPath));
  if (there === undefined) return { ...container, volumeMounts: [...volumeMounts, wanted] };
  const at = `at ${wanted.mountPath} in container ${name}`;
  if (there.name !== wanted.name)
    throw new ShapingError(`volume ${there.name} is ${at}, where the artifacts belong: mount it elsewhere`);
  if (there.readOnly === true)
    throw new ShapingError(`volume ${there.name} is read-only ${at}; artifacts are written to it`);
  const part = there.subPath ?? there.subPathExpr;
  if (part !== undefined)
    throw new ShapingError(`only ${part} of volume ${there.name} is ${at}; mount it without subPath and subPathExpr`);
  return container;
}

/** What a pod says of its storage: only where it brings the volume itself, as an agent that has its own knows the path better. */
export function storageAnnotations({ accessMode, basePath }: StorageSource): Record<string, string> {
  if (accessMode === 'agentMount') return {};
  return { [ANNOTATIONS.storageType]: 'pvc', [ANNOTATIONS.storageBasePath]: basePath };
}

/** Refuses a pod whose annotations name another base path than the one that is meant. Throws ShapingError. */
export function requireSameStorage(annotations: Readonly<Record<string, string>>, { basePath }: StorageSource): void {
  const said = annotations[ANNOTATIONS.storageBasePath]?.trim() ?? '';
  if (said !== '' && !samePath(said, basePath))
    throw new ShapingError(
      `annotation ${ANNOTATIONS.storageBasePath} "${said}" is not the base path ${basePath}: remove it, or pass it as the base path`,
    );
}
