import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { BindMount, DeviceNode } from './spec.ts';

/** What a container runtime for GPUs puts into containers of this machine, and what the agent gets of it. */
export interface MachineGpus {
  readonly devices: readonly DeviceNode[];
  readonly binds: readonly BindMount[];
  /** HOSTPATH:PATH, as an agent environment takes them. */
  readonly agentBinds: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** A driver folder of its own, as some machines mount it. */
const DRIVER_FOLDER = '/usr/local/nvidia';
const LIBRARY_FOLDERS = [
  ...['lib64', 'lib', 'lib/x86_64-linux-gnu', 'lib64/x86_64-linux-gnu'].map((name) => join(DRIVER_FOLDER, name)),
  '/usr/lib/x86_64-linux-gnu',
  '/lib/x86_64-linux-gnu',
  '/usr/lib64',
];
/** Where the agent's root has its libraries. An NVIDIA container runtime puts the driver's into the same place. */
const AGENT_LIBRARIES = '/usr/lib/x86_64-linux-gnu';
/** The driver's libraries that a process needs which computes nothing: CUDA's driver API, NVML, and what these load. */
const DRIVER_LIBRARY = /^lib(cuda|nvidia-ml|nvidia-ptxjitcompiler|nvidia-gpucomp|nvidia-nvvm|cudadebugger)\.so/;
/** The variables that say where libraries and programs lie, and what must be left off on a machine that others share. */
const PASSED_ON = ['LD_LIBRARY_PATH', 'NCCL_NVLS_ENABLE', 'TORCH_SYMM_MEM_DISABLE_MULTICAST', 'NVSHMEM_DISABLE_NVLS'];

/** Undefined on a machine without a GPU. */
export function machineGpus(): MachineGpus | undefined {
  const devices = deviceNodes();
  if (devices.length === 0) return undefined;
  const folder = existsSync(DRIVER_FOLDER) ? [DRIVER_FOLDER] : [];
  const { PATH = '' } = process.env;
  return {
    devices,
    binds: folder.map((path) => ({ source: path, destination: path, readonly: true })),
    agentBinds: [
      ...folder.map((path) => `${path}:${path}`),
      ...driverLibraries().map(({ path, name }) => `${path}:${join(AGENT_LIBRARIES, name)}`),
    ],
    env: {
      ...(PATH === '' ? {} : { PATH }),
      ...Object.fromEntries(
        PASSED_ON.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
      ),
    },
  };
}

/** Every NVIDIA character device below /dev. */
function deviceNodes(directory = '/dev', wanted = /^nvidia/): DeviceNode[] {
  return readdirSync(directory, { withFileTypes: true })
    .filter(({ name }) => wanted.test(name))
    .flatMap((entry) => {
      const path = join(directory, entry.name);
      if (entry.isDirectory()) return deviceNodes(path, /./);
      if (!entry.isCharacterDevice()) return [];
      const { rdev } = statSync(path);
      return [{ path, major: majorOf(rdev), minor: minorOf(rdev) }];
    });
}

/** The numbers of a device as Linux packs them into one. */
const majorOf = (device: number) => (device >>> 8) & 0xfff;
const minorOf = (device: number) => (device & 0xff) | ((device >>> 12) & 0xfff00);

/** One path for each library name; folders that come first win. */
export function driverLibraries(): { readonly path: string; readonly name: string }[] {
  const found = new Map<string, string>();
  for (const folder of LIBRARY_FOLDERS.filter((path) => existsSync(path)))
    for (const name of readdirSync(folder).filter((one) => DRIVER_LIBRARY.test(one)))
      if (!found.has(name)) found.set(name, join(folder, name));
  return [...found].map(([name, path]) => ({ name, path }));
}
