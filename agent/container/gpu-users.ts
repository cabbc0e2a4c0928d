import { readFile } from 'node:fs/promises';
import { readDescriptors, type TreeProcess } from './tree.ts';

/** A process that has to do with the GPU, as procfs shows it. Whether it is a CUDA process only the driver can say. */
export interface GpuUser {
  readonly process: TreeProcess;
  /** Devices of the GPU driver that it maps, and that it holds open: paths inside the container. */
  readonly mapped: readonly string[];
  readonly open: readonly string[];
  /** Files by the name of libcuda that it has mapped. */
  readonly libcuda: readonly string[];
  /** Libraries it has mapped that are known to put themselves between a program and libcuda. */
  readonly interposers: readonly string[];
}

/** Device files of NVIDIA's driver: GPUs, control, unified memory, capabilities, IMEX channels. */
const DEVICE = /^\/dev\/nvidia/;
const LIBCUDA = /\/libcuda\.so(\.[^/]*)?$/;
/** GPU sharing layers (HAMi, GPU Manager, KubeShare, nvshare) and the injection libraries of debuggers and profilers. */
const INTERPOSER =
  /\/(libvgpu\.so|libcuda-control\.so|libgemhook\.so|libnvshare\.so|libcuda_?hook\.so|lib\w*ToolsInjection\w*\.so|libcuinj\d*\.so)[^/]*$/;

/** Whether a mapped or open file is a device of the GPU driver. */
export function isGpuDevice(path: string): boolean {
  return DEVICE.test(path);
}

/** Those processes of a tree that map or hold a device of the GPU driver, or libcuda. Zombies have nothing any more. */
export async function gpuUsers(procRoot: string, tree: readonly TreeProcess[]): Promise<GpuUser[]> {
  const users: GpuUser[] = [];
  // One after the other: a tree may be large, and so may be its tables.
  for (const process of tree) {
    if ('ZX'.includes(process.stat.state)) continue;
    const user = await gpuUser(procRoot, process);
    if (user.mapped.length + user.open.length + user.libcuda.length > 0) users.push(user);
  }
  return users;
}

async function gpuUser(procRoot: string, process: TreeProcess): Promise<GpuUser> {
  const { pid } = process.stat;
  const files = mappedFiles(await readFile(`${procRoot}/${pid}/maps`, 'utf8').catch(() => ''));
  const open = new Set((await readDescriptors(procRoot, pid)).values());
  return {
    process,
    mapped: files.filter(isGpuDevice),
    open: [...open].filter(isGpuDevice).sort(),
    libcuda: files.filter((path) => LIBCUDA.test(path)),
    interposers: files.filter((path) => INTERPOSER.test(path)),
  };
}

/** Each file of a memory map once. Only what has a path is of interest; the path is all behind the inode. */
function mappedFiles(maps: string): string[] {
  const paths = [...maps.matchAll(/^(?:\S+ +){5}(\/.*)$/gm)].map(([, path = '']) => path.replace(/ \(deleted\)$/, ''));
  return [...new Set(paths)].sort();
}
