import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { type GpuUser, gpuUsers } from '../container/gpu-users.ts';
import { type MemoryRoom, memoryRoom } from '../container/memory-room.ts';
import type { TreeProcess } from '../container/tree.ts';
import { type CudaCalls, type CudaProcess, cudaCalls, describeProcess } from '../cuda/calls.ts';
import { describeClosed } from '../cuda/container-gpus.ts';
import { sourceProblems } from '../cuda/gpu-rules.ts';
import { mebibytes, type NodeGpu } from '../cuda/gpus.ts';
import { findCudaProcesses, LOOKS_AT_ONCE } from '../cuda/processes.ts';
import { type DeviceUsage, totalBytes, usageOf } from '../cuda/usage.ts';
import type { CudaDriver } from '../cuda/workers.ts';
import { asSnapshotError, type Reason } from '../errors.ts';
import type { AgentContext } from './context.ts';
import { gpusOf, type SeenGpus } from './gpus-of.ts';
import type { Target } from './target.ts';

/** What a workload has to do with CUDA, seen before it is touched. */
export interface CudaSubject {
  /** Undefined where there is none that answers; `reasons` says why. */
  readonly driver: CudaDriver | undefined;
  readonly processes: readonly CudaProcess[];
  /** All that the container sees, in the order of their ordinals inside it. */
  readonly gpus: readonly NodeGpu[];
  readonly given: SeenGpus['source'];
  readonly environment: SeenGpus['environment'];
  readonly usage: readonly DeviceUsage[];
  readonly deviceBytes: number;
  /** Files by the name of libcuda that the processes have mapped. */
  readonly libraries: readonly string[];
  /** Whether the tree was started by `cuda-checkpoint --launch-job`. */
  readonly launchJob: boolean;
  /** What would make a checkpoint fail, or worthless. */
  readonly reasons: readonly Reason[];
  readonly warnings: readonly Reason[];
}

/** How long the driver may take to initialise in a process of the workload. */
const BECOMING_MS = 2_000;
const LOOK_MS = 200;

/** Undefined where nothing in the tree uses CUDA or holds a GPU. */
export async function inspectCuda(
  context: AgentContext,
  target: Target,
  tree: readonly TreeProcess[],
): Promise<CudaSubject | undefined> {
  const { procRoot } = context.config.host;
  let users = await gpuUsers(procRoot, tree);
  const isHeld = users.some(({ mapped, open }) => mapped.length + open.length > 0);
  if (users.length === 0) return undefined;
  let driver: CudaDriver;
  try {
    driver = await context.cuda.driver();
  } catch (error) {
    // Libraries alone are files like others.
    return isHeld ? withoutDriver(users, asSnapshotError(error).message) : undefined;
  }
  const calls = cudaCalls(context.cuda);
  const callMs = context.config.cuda.callSeconds * 1000;
  context.cuda.prepare(Math.min(users.length, LOOKS_AT_ONCE));
  const find = () => findCudaProcesses(calls, users, { driver: driver.version, callMs });
  let found = await find();
  // A process that is becoming a CUDA process holds the GPU before the driver knows it.
  for (const began = performance.now(); found.foreign > 0 && performance.now() - began < BECOMING_MS; ) {
    await sleep(LOOK_MS);
    users = await gpuUsers(procRoot, tree);
    found = await find();
  }
  if (found.processes.length === 0 && !isHeld) return undefined;
  // Each of them is locked by a worker of its own, which starts meanwhile.
  context.cuda.prepare(found.processes.length);
  return {
    ...(await lookAtGpus(context, target, { driver, calls, callMs, found })),
    libraries: [...new Set(users.flatMap(({ libcuda }) => libcuda))].sort(),
    launchJob: await isLaunchJob(procRoot, tree[0]),
  };
}

function withoutDriver(users: readonly GpuUser[], why: string): CudaSubject {
  const found = users.flatMap(({ mapped, open }) => [...mapped, ...open]);
  const reason = {
    code: 'CUDA_UNAVAILABLE',
    message: 'the workload holds a GPU, and the CUDA driver of this node cannot be used',
    found: why,
    wanted: `a driver, for ${[...new Set(found)].join(' ')}`,
    advice: 'Mend the driver of the node, or show the agent where its libraries are (cuda.libcuda).',
  };
  const nothing = { processes: [], gpus: [], usage: [], deviceBytes: 0, libraries: [], launchJob: false };
  const environment = { visibleDevices: undefined, deviceOrder: undefined };
  return { driver: undefined, ...nothing, given: 'visible', environment, reasons: [reason], warnings: [] };
}

async function lookAtGpus(
  context: AgentContext,
  target: Target,
  seen: {
    readonly driver: CudaDriver;
    readonly calls: CudaCalls;
    readonly callMs: number;
    readonly found: Pick<CudaSubject, 'processes' | 'reasons' | 'warnings'>;
  },
) {
  const { driver, calls, callMs, found } = seen;
  const { processes } = found;
  const container = await gpusOf(context, target);
  const { gpus } = container;
  const { usage, isMeasured } = usageOf(await calls.usage(callMs), processes, gpus);
  const deviceBytes = totalBytes(usage);
  const rules = sourceProblems(gpus, driver.version, context.config.cuda);
  const room = await memoryRoom(context.config.host, target.main.id.pid);
  return {
    ...{ driver, processes, gpus, usage, deviceBytes },
    ...{ given: container.source, environment: container.environment },
    reasons: [
      ...found.reasons,
      ...container.reasons,
      ...(gpus.length + container.reasons.length === 0 && processes.length > 0
        ? [noGpuSeen(processes, container.closed)]
        : []),
      ...rules.reasons,
      ...(isMeasured ? copiesProblem(deviceBytes, room) : []),
    ],
    warnings: [...found.warnings, ...rules.warnings, ...(isMeasured ? [] : [unmeasured(processes, deviceBytes)])],
  };
}

function noGpuSeen(processes: readonly CudaProcess[], closed: readonly string[]): Reason {
  return {
    code: 'GPU_COUNT',
    message: `the workload uses CUDA, and not one GPU is seen in /dev of its container${describeClosed(closed)}`,
    found: processes.map(describeProcess).join('; '),
    wanted: 'the device nodes of its GPUs',
    advice: 'Give the container its GPUs by a device plugin, DRA or CDI.',
  };
}

function unmeasured(processes: readonly CudaProcess[], deviceBytes: number): Reason {
  return {
    code: 'CUDA_MEMORY_UNKNOWN',
    message:
      'NVML does not tell how much device memory the processes have: all that is in use on their GPUs is taken for theirs',
    found: `${mebibytes(deviceBytes)} MiB in use`,
    wanted: `the memory of ${processes.map(({ id }) => id.pid).join(', ')}`,
    advice: 'Run the agent in the PID namespace of the host (hostPID).',
  };
}

/** The driver copies device memory into the memory of the process itself, which is the pod's. */
function copiesProblem(deviceBytes: number, { bytes, boundBy }: MemoryRoom): Reason[] {
  if (bytes >= deviceBytes) return [];
  const found = `${mebibytes(bytes)} MiB left ${boundBy === 'node' ? 'on the node' : 'below the memory limit'}`;
  const wanted = `${mebibytes(deviceBytes)} MiB of device memory`;
  return [
    {
      code: 'HOST_COPIES',
      message: 'too little host memory is left for the copies of device memory that a checkpoint makes',
      found,
      wanted,
      advice:
        boundBy === 'node'
          ? 'Free memory on the node, or let the workload free device memory (KV cache) before it is ready.'
          : 'Raise the memory limit of the container or pod by its device memory, or let the workload free some before it is ready.',
    },
  ];
}

/** The coordinator of several CUDA processes stays the parent of what it started. */
async function isLaunchJob(procRoot: string, root: TreeProcess | undefined): Promise<boolean> {
  if (root === undefined) return false;
  const text = await readFile(`${procRoot}/${root.stat.pid}/cmdline`, 'utf8').catch(() => '');
  const [program = '', ...args] = text.split('\0');
  return /(^|\/)cuda-checkpoint$/.test(program) && args.includes('--launch-job');
}
