import { readFile } from 'node:fs/promises';
import type { Native, ProcessId } from '../host/native.ts';

/** What a container has of NVIDIA's device nodes. */
export interface DeviceNodes {
  /**
   * Minor numbers of the GPUs whose nodes are there, ascending: the minor names the GPU, whatever the node is called. Those that the container
   * is known not to be allowed to open are left out.
   */
  readonly gpuMinors: readonly number[];
  /** Nodes that were left out for that. The driver's tools make them: they run as root, and containers may make nodes of any device. */
  readonly closed: readonly string[];
  /** Nodes of which it could not be found out whether it may open them, each with its error where there was one. They count. */
  readonly unknown: readonly string[];
  /** Why they were not tried, where they were not. */
  readonly untried: string | undefined;
  /** /dev/nvidiactl, without which no CUDA program runs. */
  readonly hasControl: boolean;
  /** /dev/nvidia-uvm; false as well where the module is not loaded. */
  readonly hasUvm: boolean;
  /** Minors of the capabilities of MIG instances that it was given. */
  readonly migCapabilities: readonly number[];
  /** What bears the name of a device node and is none, in words. CUDA fails on it. */
  readonly impostors: readonly string[];
}

/** The part of a mount that is of use here. */
export interface NodeMount {
  readonly mountPoint: string;
  /** What of the filesystem is mounted; the kernel adds `//deleted` where that is gone. */
  readonly root: string;
  readonly fstype: string;
}

interface FoundNode {
  /** Below /dev. */
  readonly path: string;
  readonly type: string;
  readonly major?: number | undefined;
  readonly minor?: number | undefined;
  /** Whether the container may open it; null: that could not be found out. Undefined where nobody asked. */
  readonly usable?: boolean | null | undefined;
  /** Why it could not be opened. */
  readonly errno?: string | undefined;
}

/** What the helper found, and why it did not find out more. */
interface Found {
  readonly devices: readonly FoundNode[];
  readonly untried?: { readonly message: string } | undefined;
}

/** Majors of NVIDIA's drivers. Only the first is fixed; the others are undefined where nothing has them. */
interface Majors {
  readonly gpu: number;
  readonly uvm: number | undefined;
  readonly caps: number | undefined;
}

const GPU_MAJOR = 195;
/** Minors of the GPUs' major that are no GPUs. */
const MODESET_MINOR = 254;
const CONTROL_MINOR = 255;
/** Capabilities 1 and 2 allow to configure and to monitor MIG; those above are of instances. */
const LAST_GENERAL_CAPABILITY = 2;

/** How the nodes of a container are read. */
export interface NodeSources {
  readonly native: Pick<Native, 'devices'>;
  readonly procRoot: string;
  /** Where the host's cgroups are. */
  readonly cgroupRoot: string;
}

/**
 * Reads which device nodes of NVIDIA a container sees, and which of these GPUs (by their minors) it may open. `mounts` is its mount table, only
 * to say where an impostor comes from. Throws GPU_IDENTITY where its /dev cannot be read, CONTAINER_GONE where it ended.
 */
export async function readDeviceNodes(
  { native, procRoot, cgroupRoot }: NodeSources,
  { id, mounts }: { readonly id: ProcessId; readonly mounts: readonly NodeMount[] },
  gpuMinors: readonly number[],
): Promise<DeviceNodes> {
  const majors = parseMajors(await readFile(`${procRoot}/devices`, 'utf8').catch(() => ''));
  const wanted = Object.values(majors).filter((major) => major !== undefined);
  // A container makes itself nodes of any device: only those of GPUs that the driver knows are opened.
  const opened = gpuMinors.map((minor) => ({ major: majors.gpu, minor }));
  const found = await native.devices(id, '/dev', { prefix: 'nvidia', majors: wanted, opened, cgroupRoot });
  return sortNodes(found, majors, mounts);
}

/** Reads /proc/devices. From driver 550 on the major of the GPUs is called `nvidia`, before that `nvidia-frontend`. */
export function parseMajors(text: string): Majors {
  const [characters = ''] = text.split(/^Block devices:/m);
  const named = new Map(
    [...characters.matchAll(/^\s*(\d+) (\S+)$/gm)].map(([, major, name = '']) => [name, Number(major)] as const),
  );
  return {
    gpu: named.get('nvidia') ?? named.get('nvidia-frontend') ?? GPU_MAJOR,
    uvm: named.get('nvidia-uvm'),
    caps: named.get('nvidia-caps'),
  };
}

/** Tells device nodes by their numbers, and names those that only look like one. */
export function sortNodes(found: Found, majors: Majors, mounts: readonly NodeMount[]): DeviceNodes {
  const { devices, untried } = found;
  const characters = devices.filter(({ type, usable }) => type === 'char' && usable !== false);
  const minorsOf = (major: number | undefined) => {
    const own = characters.filter((node) => major !== undefined && node.major === major);
    return [...new Set(own.map(({ minor = -1 }) => minor))].sort((a, b) => a - b);
  };
  const nodes = minorsOf(majors.gpu);
  const withUsable = (wanted: boolean | null) => devices.filter(({ usable }) => usable === wanted);
  return {
    gpuMinors: nodes.filter((minor) => minor < MODESET_MINOR),
    closed: withUsable(false).map(({ path }) => `/dev/${path}`),
    unknown: withUsable(null).map(({ path, errno }) => `/dev/${path}${errno === undefined ? '' : `: ${errno}`}`),
    untried: untried?.message,
    hasControl: nodes.includes(CONTROL_MINOR),
    hasUvm: minorsOf(majors.uvm).includes(0),
    migCapabilities: minorsOf(majors.caps).filter((minor) => minor > LAST_GENERAL_CAPABILITY),
    impostors: devices.filter((node) => isImpostor(node, majors)).map((node) => describe(node, mounts)),
  };
}

/** A node of a GPU, the control node or that of unified memory by its name, and something else by its number. */
function isImpostor({ path, type, major, minor = -1 }: FoundNode, majors: Majors): boolean {
  if (/^nvidia\d+$/.test(path)) return type !== 'char' || major !== majors.gpu || minor >= MODESET_MINOR;
  if (path === 'nvidiactl') return type !== 'char' || major !== majors.gpu || minor !== CONTROL_MINOR;
  if (path === 'nvidia-uvm') return type !== 'char' || (majors.uvm !== undefined && major !== majors.uvm);
  return false;
}

const KINDS: Readonly<Record<string, string>> = {
  file: 'a regular file',
  char: 'the character device',
  block: 'the block device',
};

function describe({ path, type, major, minor }: FoundNode, mounts: readonly NodeMount[]): string {
  const number = major === undefined ? '' : ` ${major}:${minor}`;
  // Of several mounts on one point the last is the one that is seen.
  const mount = mounts.findLast(({ mountPoint }) => mountPoint === `/dev/${path}`);
  const from = mount === undefined ? '' : `, mounted from ${mount.root} of a ${mount.fstype}`;
  return `/dev/${path} is ${KINDS[type] ?? `a ${type}`}${number}${from}`;
}
