import { compareBusIds, type NodeGpu } from './gpus.ts';

/** What of a container's environment has a say in how CUDA counts its GPUs. */
export interface CudaEnvironment {
  /** CUDA_VISIBLE_DEVICES, undefined where it is not set. */
  readonly visibleDevices: string | undefined;
  /** CUDA_DEVICE_ORDER. */
  readonly deviceOrder: string | undefined;
}

export function cudaEnvironment(env: readonly string[]): CudaEnvironment {
  const value = (name: string) => env.findLast((entry) => entry.startsWith(`${name}=`))?.slice(name.length + 1);
  return { visibleDevices: value('CUDA_VISIBLE_DEVICES'), deviceOrder: value('CUDA_DEVICE_ORDER') };
}

/**
 * All GPUs that a container sees, in the order of their CUDA ordinals as far as that can be told from outside: those that
 * CUDA_VISIBLE_DEVICES picks, as it orders them, then the rest in the order of PCI bus ids. CUDA does not use the rest, but the driver
 * sees them.
 *
 * What is not known: a process may set these variables itself, after it was started; and without CUDA_DEVICE_ORDER=PCI_BUS_ID
 * CUDA puts what it takes for the fastest model first. So where models differ, numbers in CUDA_VISIBLE_DEVICES are not followed. It
 * decides only which of several alike GPUs takes whose place at a restore: none is ever given the place of another model.
 */
export function inOrdinalOrder(gpus: readonly NodeGpu[], env: CudaEnvironment): NodeGpu[] {
  const byBus = gpus.toSorted((a, b) => compareBusIds(a.busId, b.busId));
  const picked = env.visibleDevices === undefined ? [] : pick(byBus, env.visibleDevices, isOfBus(byBus, env));
  return [...picked, ...byBus.filter((gpu) => !picked.includes(gpu))];
}

/** Whether CUDA counts these GPUs in the order of the bus. */
function isOfBus(gpus: readonly NodeGpu[], { deviceOrder }: CudaEnvironment): boolean {
  return deviceOrder === 'PCI_BUS_ID' || new Set(gpus.map(({ name }) => name)).size <= 1;
}

/** As CUDA reads the variable: up to the first entry that names no GPU. With one GPU named twice it finds none at all. */
function pick(byBus: readonly NodeGpu[], visibleDevices: string, areNumbersKnown: boolean): NodeGpu[] {
  const picked: NodeGpu[] = [];
  for (const entry of visibleDevices.split(',').map((text) => text.trim())) {
    const gpu = named(byBus, entry, areNumbersKnown);
    if (gpu === undefined) break;
    if (picked.includes(gpu)) return [];
    picked.push(gpu);
  }
  return picked;
}

/** By its number, or by as much of its UUID as only it has. */
function named(byBus: readonly NodeGpu[], entry: string, areNumbersKnown: boolean): NodeGpu | undefined {
  if (/^\d{1,3}$/.test(entry)) return areNumbersKnown ? byBus[Number(entry)] : undefined;
  if (!/^GPU-./i.test(entry)) return undefined;
  const matching = byBus.filter(({ uuid }) => uuid.toLowerCase().startsWith(entry.toLowerCase()));
  return matching.length === 1 ? matching[0] : undefined;
}
