import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { host } from '../../real/environment/host.ts';
import type { BindMount, DeviceNode } from './spec.ts';

/** A GPU as the report shows it. */
export interface Gpu {
  readonly uuid: string;
  readonly model: string;
  readonly memoryMib: number;
  readonly driver: string;
}

/** The GPUs of a machine: what containers and the agent get of them, as a container runtime for GPUs would give it. */
export interface GpuMachine {
  readonly gpus: readonly Gpu[];
  readonly devices: readonly DeviceNode[];
  /** Mounts of a container that is to see the GPUs with these minor numbers, or all. */
  bindsFor(minors: readonly number[] | undefined): readonly BindMount[];
  /** Of containers. */
  readonly env: Readonly<Record<string, string>>;
  readonly agent: {
    /** HOSTPATH:PATH, as an agent environment takes them. */
    readonly binds: readonly string[];
    readonly config: { readonly [key: string]: unknown };
  };
  /** How a snapshot-cuda beside the agent is started. */
  readonly tool: { readonly args: readonly string[]; readonly env: Readonly<Record<string, string>> };
  /** The command line of a worker, by the name of its script in the directory of workers. */
  command(directory: string, script: string, args: readonly string[]): readonly string[];
  /** At the end of the tests. */
  close(): void;
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
export async function machineGpus(): Promise<GpuMachine | undefined> {
  const devices = deviceNodes();
  if (devices.length === 0) return undefined;
  const folder = existsSync(DRIVER_FOLDER) ? [DRIVER_FOLDER] : [];
  const { PATH = '' } = process.env;
  const pathOf = (wanted: string) => driverLibraries().find(({ name }) => name === wanted)?.path;
  const library = (option: string, path: string | undefined) => (path === undefined ? [] : [option, path]);
  return {
    gpus: await askNvidiaSmi(),
    devices,
    bindsFor: () => folder.map((path) => ({ source: path, destination: path, readonly: true })),
    env: {
      ...(PATH === '' ? {} : { PATH }),
      ...Object.fromEntries(
        PASSED_ON.flatMap((name) => (process.env[name] === undefined ? [] : [[name, process.env[name]]])),
      ),
    },
    agent: {
      binds: [
        ...folder.map((path) => `${path}:${path}`),
        ...driverLibraries().map(({ path, name }) => `${path}:${join(AGENT_LIBRARIES, name)}`),
      ],
      config: {},
    },
    tool: {
      args: [...library('--libcuda', pathOf('libcuda.so.1')), ...library('--libnvml', pathOf('libnvidia-ml.so.1'))],
      env: {},
    },
    command: pythonCommand,
    close: () => undefined,
  };
}

/** A worker is a Python program; which Python, the environment says. */
export const pythonCommand = (directory: string, script: string, args: readonly string[]) => [
  '/usr/bin/env',
  'python3',
  '-u',
  join(directory, `${script}.py`),
  ...args,
];

/** Empty where the driver does not answer. */
async function askNvidiaSmi(): Promise<Gpu[]> {
  const query = '--query-gpu=uuid,name,memory.total,driver_version';
  const text = await host(['nvidia-smi', query, '--format=csv,noheader,nounits']).catch(() => '');
  return text
    .split('\n')
    .map((line) => line.split(',').map((cell) => cell.trim()))
    .filter((cells) => cells.length === 4)
    .map(([uuid = '', model = '', memory = '', driver = '']) => ({ uuid, model, memoryMib: Number(memory), driver }));
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
function driverLibraries(): { readonly path: string; readonly name: string }[] {
  const found = new Map<string, string>();
  for (const folder of LIBRARY_FOLDERS.filter((path) => existsSync(path)))
    for (const name of readdirSync(folder).filter((one) => DRIVER_LIBRARY.test(one)))
      if (!found.has(name)) found.set(name, join(folder, name));
  return [...found].map(([name, path]) => ({ name, path }));
}
