import { readFile } from 'node:fs/promises';
import { SnapshotError } from '../errors.ts';
import { type Mount, parseMountinfo } from './proc.ts';

/** How each mount of a container is treated at checkpoint and restore. */
export interface MountPlan {
  /** All that can be seen, the topmost mount of each mount point, but for those of the GPU. */
  readonly all: readonly Mount[];
  /**
   * Device nodes of the GPU, and what the driver shows of it in /proc, where the runtime mounts them one by one: they bear the number of
   * the GPU, and another container has others. They are left out of the images; a restored tree gets those of its new container.
   */
  readonly gpu: readonly Mount[];
  /** Mount points that come from the placeholder on restore: everything but the root and what lies in /proc. */
  readonly external: readonly Mount[];
  /** The container's root mount. */
  readonly root: Mount;
  /** True where the container has a /dev/shm of its own or its pod's: its files are archived apart. */
  readonly hasShm: boolean;
}

/** Reads a process's mount table. */
export async function readMounts(procRoot: string, pid: number): Promise<Mount[]> {
  try {
    return parseMountinfo(await readFile(`${procRoot}/${pid}/mountinfo`, 'utf8'));
  } catch (cause) {
    throw new SnapshotError('CONTAINER_GONE', `mount table of process ${pid} cannot be read`, { cause });
  }
}

/**
 * Sorts a mount table. /proc stays CRIU's own, so that the restored tree sees its own PIDs there; mounts over it (masked
 * files) are made again with it. Of several mounts on one point only the topmost can be seen, and it is listed once.
 */
export function planMounts(mounts: readonly Mount[]): MountPlan {
  const top = new Map(mounts.map((mount) => [mount.mountPoint, mount]));
  const root = top.get('/');
  if (root === undefined) throw new SnapshotError('INTERNAL', 'the container has no root mount');
  const seen = [...top.values()];
  const all = seen.filter(({ mountPoint }) => !isGpuMount(mountPoint));
  return {
    all,
    gpu: seen.filter(({ mountPoint }) => isGpuMount(mountPoint)),
    external: all.filter(({ mountPoint }) => isExternal(mountPoint)),
    root,
    hasShm: top.get('/dev/shm')?.fstype === 'tmpfs',
  };
}

/** GPUs, control and unified memory, capabilities of MIG, IMEX channels; and what is in /proc for each GPU, by its bus id. */
const GPU_MOUNT =
  /^(\/dev\/nvidia(\d+|ctl|-uvm|-uvm-tools|-modeset|-caps\/.+|-caps-imex-channels\/.+)|\/proc\/driver\/nvidia(\/.*)?)$/;

function isGpuMount(mountPoint: string): boolean {
  return GPU_MOUNT.test(mountPoint);
}

/** Whether a mount is taken from the placeholder rather than made by CRIU. */
export function isExternal(mountPoint: string): boolean {
  return mountPoint !== '/' && mountPoint !== '/proc' && !mountPoint.startsWith('/proc/');
}

/** The overlay's upper directory as the runtime mounted it: a path of the host. Undefined where the root is no overlay. */
export function upperDir(root: Mount): string | undefined {
  if (root.fstype !== 'overlay') return undefined;
  return root.superOptions.find((option) => option.startsWith('upperdir='))?.slice('upperdir='.length);
}

/**
 * Upper directories of the overlays that the host has mounted for a container: what the runtime made, out of the container's reach.
 * Empty where the runtime mounts in a namespace of its own.
 */
export async function hostUpperDirs(procRoot: string, containerId: string): Promise<string[]> {
  const text = await readFile(`${procRoot}/1/mountinfo`, 'utf8').catch(() => '');
  return parseMountinfo(text)
    .filter(({ mountPoint }) => mountPoint.includes(`/${containerId}/`))
    .map(upperDir)
    .filter((path) => path !== undefined);
}

/** Sources of mounts that kubelet fills from the API: their files are replaced by renaming, and have other paths in the next pod. */
const PROJECTED = /\/volumes\/kubernetes\.io~(secret|projected|configmap|downward-api)\//;

/**
 * Mount points of a container that hold projected files, by the runtime specification's mount sources. In most images /var/run is a
 * symlink to /run, and the kernel names open files by where they really are.
 */
export function projectedMountPoints(mounts: readonly { destination: string; source: string }[]): string[] {
  return mounts
    .filter(({ source }) => PROJECTED.test(source))
    .flatMap(({ destination }) =>
      destination.startsWith('/var/run/') ? [destination, destination.slice('/var'.length)] : [destination],
    );
}
