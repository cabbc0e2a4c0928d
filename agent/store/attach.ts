import { mkdir, rmdir } from 'node:fs/promises';
import { SnapshotError } from '../errors.ts';
import type { Native, ProcessId } from '../host/native.ts';
import type { Volume } from './paths.ts';

/** Which volume, and through whom it is reached. */
export interface VolumeRequest {
  readonly accessMode: 'agentMount' | 'podMount';
  /** Base path of the agent's configuration. */
  readonly configured: string;
  /** Base path of the pod's annotation, where it has one. */
  readonly asked: string | undefined;
  /** The container's process, through whose mounts the volume is reached in podMount mode. */
  readonly through: ProcessId | undefined;
  /** An existing directory of the agent's own below which the volume is attached. */
  readonly below: string;
}

export interface AttachedVolume extends Volume {
  /** The path by which users know it. */
  readonly basePath: string;
  detach(): Promise<void>;
}

/** Mounted by the runtime into every container: memory or the kernel's own, never a volume. */
const RUNTIMES_OWN = /^\/(proc|sys|dev)(\/|$)/;

/** Refuses a base path that no volume of the pod can have. Everything else is seen by the helper, on the way. */
function requireVolumePath(path: string): void {
  const parts = path.slice(1).split('/');
  if (!path.startsWith('/') || path.length >= 1024 || parts.some((part) => ['', '.', '..'].includes(part)))
    throw new SnapshotError('POD_INVALID', `the base path "${path.slice(0, 80)}" is not an absolute, clean path`);
  if (RUNTIMES_OWN.test(path))
    throw new SnapshotError('STORAGE_UNSAFE', `the base path "${path}" is the container runtime's own, not a volume`);
}

/**
 * The one door to storage: attaches the volume's base directory to a private place for one operation. A container that dies
 * does not take it away, and nothing outside the volume can be reached through it.
 */
export async function attachVolume(native: Native, request: VolumeRequest): Promise<AttachedVolume> {
  const { accessMode, configured, asked } = request;
  if (accessMode === 'agentMount' && asked !== undefined && asked !== configured)
    throw new SnapshotError(
      'POD_INVALID',
      `the pod's base path "${asked}" is not the one the agent mounts ("${configured}"): in agentMount mode they must be equal`,
    );
  const path = asked ?? configured;
  if (accessMode === 'podMount') {
    if (request.through === undefined) throw new SnapshotError('INTERNAL', "a pod's volume is reached through its pod");
    requireVolumePath(path);
  }
  const at = `${request.below}/volume`;
  await mkdir(at, { mode: 0o700, recursive: true });
  await native.attach({ path, at, ...(accessMode === 'podMount' ? { inside: request.through } : {}) });
  return {
    root: at,
    basePath: path,
    detach: async () => {
      await native.detach(at);
      await rmdir(at);
    },
  };
}
