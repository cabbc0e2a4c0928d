import type { CudaProcess } from './calls.ts';
import type { NodeGpu } from './gpus.ts';

/** What NVML tells of one process on one GPU. It may not tell how much. */
export interface ToldUsage {
  readonly pid: number;
  readonly gpu: string;
  readonly bytes: number | null;
}

/** Device memory of one process on one GPU, by the UUID of the GPU. */
export interface DeviceUsage extends ToldUsage {
  readonly bytes: number;
}

export interface Usage {
  readonly usage: readonly DeviceUsage[];
  /** False where it is only known that it cannot be more. */
  readonly isMeasured: boolean;
}

/**
 * The device memory of these processes. Where NVML does not tell (inside a PID namespace of its own it has other PIDs, for one), all that
 * is in use on the GPUs of their container is taken for theirs.
 */
export function usageOf(
  told: readonly ToldUsage[],
  processes: readonly CudaProcess[],
  gpus: readonly Pick<NodeGpu, 'uuid' | 'memoryBytes' | 'freeBytes'>[],
): Usage {
  const own = told.filter(({ pid }) => processes.some(({ id }) => id.pid === pid));
  const known = own.filter((one): one is DeviceUsage => one.bytes !== null);
  const [first] = processes;
  if (first === undefined || (known.length > 0 && known.length === own.length))
    return { usage: known, isMeasured: true };
  const usage = gpus.map(({ uuid, memoryBytes, freeBytes }) => ({
    pid: first.id.pid,
    gpu: uuid,
    bytes: Math.max(0, memoryBytes - freeBytes),
  }));
  return { usage, isMeasured: false };
}

export const totalBytes = (usage: readonly DeviceUsage[]) => usage.reduce((sum, { bytes }) => sum + bytes, 0);
