import { type MemoryRoom, memoryRoom, nodeRoom } from '../container/memory-room.ts';
import type { Placeholder } from '../container/placeholder.ts';
import { type CudaProcess, cudaCalls } from '../cuda/calls.ts';
import { type GpuPair, mapDevices } from '../cuda/device-map.ts';
import { mebibytes } from '../cuda/gpus.ts';
import { cudaLimits } from '../cuda/limits.ts';
import { nodeProblems } from '../cuda/node-map.ts';
import type { Revival } from '../cuda/revival.ts';
import { forSameProcess } from '../cuda/same-process.ts';
import { asSnapshotError, type Reason, SnapshotError } from '../errors.ts';
import type { ArtifactRecord } from '../store/record.ts';
import type { AgentContext } from './context.ts';
import { gpusOf, gpusOfNode } from './gpus-of.ts';
import type { Revived } from './revive.ts';
import type { Target } from './target.ts';

/** Whether the CUDA state of an artifact can come to this container, and onto which GPUs. */
export interface CudaMatch {
  /** What the driver is to be told; empty where every GPU is the same one, or there is no CUDA state. */
  readonly pairs: readonly GpuPair[];
  readonly reasons: readonly Reason[];
  readonly warnings: readonly Reason[];
}

const NO_CUDA: CudaMatch = { pairs: [], reasons: [], warnings: [] };

type CudaRecord = NonNullable<ArtifactRecord['cuda']>;

/** Compares what the CUDA state was captured with and what is here. Nothing is changed. */
export async function matchCuda(context: AgentContext, target: Target, record: ArtifactRecord): Promise<CudaMatch> {
  const { cuda } = record;
  if (cuda === undefined) return NO_CUDA;
  const driver = await context.cuda.driver().catch((error: unknown) => asSnapshotError(error).message);
  if (typeof driver === 'string') return { ...NO_CUDA, reasons: [unavailable(cuda, driver)] };
  const container = await gpusOf(context, target);
  const map = mapDevices(sourceOf(cuda), { driver: driver.version, gpus: container.gpus }, context.config.cuda);
  return {
    pairs: map.pairs ?? [],
    reasons: [
      // Where its GPUs are not known there is nothing to compare.
      ...(container.reasons.length > 0 ? container.reasons : map.reasons),
      ...libraryProblems(cuda, driver.version),
      ...memoryProblems(await memoryRoom(context.config.host, target.main.id.pid), record),
    ],
    warnings: map.warnings,
  };
}

/** As `matchCuda`, for the node alone: what there is against a restore into any container of it. */
export async function cudaReasonsOfNode(
  { config, cuda: workers }: Pick<AgentContext, 'config' | 'cuda'>,
  record: ArtifactRecord,
): Promise<readonly Reason[]> {
  const { cuda } = record;
  if (cuda === undefined) return [];
  const driver = await workers.driver().catch((error: unknown) => asSnapshotError(error).message);
  if (typeof driver === 'string') return [unavailable(cuda, driver)];
  const gpus = await gpusOfNode({ config, cuda: workers });
  return [
    ...nodeProblems(sourceOf(cuda), { driver: driver.version, gpus }, config.cuda),
    ...libraryProblems(cuda, driver.version),
    ...memoryProblems(await nodeRoom(config.host), record),
  ];
}

function sourceOf({ driver, gpus }: CudaRecord) {
  return { driver, gpus: gpus.map(({ model, ...gpu }) => ({ ...gpu, name: model })) };
}

function unavailable(cuda: CudaRecord, why: string): Reason {
  return {
    code: 'CUDA_UNAVAILABLE',
    message: 'the workload has CUDA state, and the CUDA driver of this node cannot be used',
    found: why,
    wanted: `driver ${cuda.driver} and ${cuda.gpus.length} of ${[...new Set(cuda.gpus.map(({ model }) => model))].join(', ')}`,
    advice:
      'Schedule the pod on a node with such GPUs; or show the agent where the libraries of the driver are (cuda.libcuda).',
  };
}

/** The processes have libcuda mapped, and go on with it: the file must be there, and be the same. Its name has the driver's version. */
function libraryProblems({ libraries, driver: was }: CudaRecord, is: string): Reason[] {
  const own = libraries.filter((path) => path.endsWith(`/libcuda.so.${was}`));
  if (own.length === 0 || was === is) return [];
  return [
    {
      code: 'GPU_DRIVER_LIBRARY',
      message:
        'the workload has the library of the driver mapped, and goes on with it, but the driver here is another one',
      found: is,
      wanted: `${was}, for ${own.join(' ')}`,
      advice: 'Schedule the pod on a node with the same driver version, or make a new checkpoint.',
    },
  ];
}

/** Until the device memory is back on the GPUs, its copies are memory of the container. */
function memoryProblems({ bytes, boundBy }: MemoryRoom, { sizes }: ArtifactRecord): Reason[] {
  const needed = sizes.bulkBytes + sizes.criuBytes;
  if (bytes >= needed) return [];
  return [
    {
      code: 'HOST_MEMORY',
      message: 'too little host memory is left for the memory of the workload and the copies of its device memory',
      found: `${mebibytes(bytes)} MiB left ${boundBy === 'node' ? 'on the node' : 'below the memory limit'}`,
      wanted: `${mebibytes(needed)} MiB`,
      advice:
        boundBy === 'node' ? 'Use a node with more free memory.' : 'Raise the memory limit of the container or pod.',
    },
  ];
}

/** What brings the CUDA processes of a restored tree back. Undefined where it has none. Throws RESTORE_FAILED where one is missing. */
export function revivalOf(context: AgentContext, record: ArtifactRecord, { byInnerPid }: Revived): Revival | undefined {
  if (record.cuda === undefined) return undefined;
  const processes = record.cuda.processes.map(({ pid: innerPid }): CudaProcess => {
    const id = byInnerPid.get(innerPid);
    if (id === undefined)
      throw new SnapshotError('RESTORE_FAILED', `CUDA process ${innerPid} of the record is not in the restored tree`);
    return { id, innerPid, comm: 'restored' };
  });
  const limits = cudaLimits(context.config.cuda, deviceBytesOf(record));
  const calls = forSameProcess(cudaCalls(context.cuda), context.config.host.procRoot);
  return { calls, limits, processes };
}

/** Device memory that is to come back. */
export function deviceBytesOf({ cuda }: ArtifactRecord): number {
  return cuda?.processes.reduce((sum, one) => sum + one.deviceBytes, 0) ?? 0;
}

/** CRIU gives the tree the mounts that it had, and no others: device nodes of the GPU that are mounted one by one are put in here. */
export async function graftGpus(
  { native }: AgentContext,
  target: Target,
  { gpuDevices }: Placeholder,
  { root }: Revived,
): Promise<void> {
  if (gpuDevices.length > 0) await native.graft(target.main.id, { into: root, paths: gpuDevices });
}
