import type { GpuUser } from '../container/gpu-users.ts';
import type { Reason } from '../errors.ts';
import { type CudaCalls, type CudaProcess, describeProcess } from './calls.ts';
import { CudaError } from './driver-errors.ts';

/** What the driver and procfs tell of a container's processes. */
export interface CudaFindings {
  /** Those that have a CUDA restore thread. */
  readonly processes: readonly CudaProcess[];
  /** How many others hold the GPU. */
  readonly foreign: number;
  /** What would make a checkpoint fail, or worthless. */
  readonly reasons: readonly Reason[];
  readonly warnings: readonly Reason[];
}

interface Asked {
  readonly user: GpuUser;
  readonly process: CudaProcess;
  readonly isCuda: boolean;
}

/**
 * Asks the driver which of these processes are its own: those that have a restore thread. The state of a process is no answer, since the
 * coordinator that `cuda-checkpoint --launch-job` leaves behind has one, and nothing to checkpoint.
 */
export async function findCudaProcesses(
  calls: Pick<CudaCalls, 'restoreThread' | 'state'>,
  users: readonly GpuUser[],
  { driver, callMs }: { readonly driver: string; readonly callMs: number },
): Promise<CudaFindings> {
  const { asked, own } = await ask(calls, users, callMs);
  const foreign = asked.filter(({ isCuda, user }) => !isCuda && holdings(user).length > 0);
  return {
    processes: own.map(({ process }) => process),
    foreign: foreign.length,
    reasons: [
      ...foreignHolders(foreign),
      ...own.flatMap(stoppedProblem),
      ...(await stateProblems(calls, own, callMs)),
      ...own.flatMap((one) => interpositionProblem(one, driver)),
    ],
    warnings: own.flatMap((one) => libraryWarning(one, driver)),
  };
}

/** What is seen when a tree is looked at again. */
export interface SecondLook {
  /** CUDA processes that were not there before. */
  readonly newcomers: readonly CudaProcess[];
  /** Who else holds the GPU. */
  readonly reasons: readonly Reason[];
}

/** Looks for CUDA processes that began after `known`, and for others that hold the GPU. */
export async function lookAgain(
  calls: Pick<CudaCalls, 'restoreThread'>,
  users: readonly GpuUser[],
  { known, callMs }: { readonly known: readonly CudaProcess[]; readonly callMs: number },
): Promise<SecondLook> {
  const isKnown = ({ process: { stat } }: GpuUser) =>
    known.some(({ id }) => id.pid === stat.pid && id.start === stat.start);
  const { asked, own } = await ask(
    calls,
    users.filter((user) => !isKnown(user)),
    callMs,
  );
  const foreign = asked.filter(({ isCuda, user }) => !isCuda && holdings(user).length > 0);
  return { newcomers: own.map(({ process }) => process), reasons: foreignHolders(foreign) };
}

/** Devices that a CUDA process still holds when its CUDA state is checkpointed. CRIU could not dump them. */
export function leftoverProblems(users: readonly GpuUser[]): Reason[] {
  return users.flatMap((user) => {
    const left = holdings(user);
    if (left.length === 0) return [];
    return [
      {
        code: 'GPU_HELD_BESIDE_CUDA',
        message: `${describeProcess(processOf(user))} still holds the GPU when its CUDA state is checkpointed`,
        found: left.join(' '),
        wanted: 'no device of the GPU',
        advice:
          'It uses the GPU in other ways too. NVML: nvmlShutdown() (pynvml.nvmlShutdown()) before the checkpoint.',
      },
    ];
  });
}

/** Quick questions about many processes: no reason to start a worker for each. */
export const LOOKS_AT_ONCE = 4;

async function ask(calls: Pick<CudaCalls, 'restoreThread'>, users: readonly GpuUser[], callMs: number) {
  const asked: Asked[] = [];
  for (let at = 0; at < users.length; at += LOOKS_AT_ONCE)
    asked.push(
      ...(await Promise.all(
        users.slice(at, at + LOOKS_AT_ONCE).map(async (user): Promise<Asked> => {
          const process = processOf(user);
          return { user, process, isCuda: await hasRestoreThread(calls, process, callMs) };
        }),
      )),
    );
  return { asked, own: asked.filter(({ isCuda }) => isCuda) };
}

function processOf({ process: { stat, status } }: GpuUser): CudaProcess {
  return { id: { pid: stat.pid, start: stat.start }, innerPid: status.nspid.at(-1) ?? stat.pid, comm: stat.comm };
}

async function hasRestoreThread(
  calls: Pick<CudaCalls, 'restoreThread'>,
  process: CudaProcess,
  callMs: number,
): Promise<boolean> {
  try {
    await calls.restoreThread(process, callMs);
    return true;
  } catch (error) {
    if (error instanceof CudaError && error.failure === 'driver') return false;
    throw error;
  }
}

const holdings = ({ mapped, open }: GpuUser) => [...new Set([...mapped, ...open])];

/** Processes that hold the device without being CUDA processes. The driver cannot take it from them, and CRIU cannot dump it. */
function foreignHolders(holders: readonly Asked[]): Reason[] {
  if (holders.length === 0) return [];
  const found = holders.map(({ process, user }) => `${describeProcess(process)}: ${holdings(user).join(' ')}`);
  return [
    {
      code: 'GPU_HELD_WITHOUT_CUDA',
      message: `processes hold the GPU and are no CUDA processes, such as children that a CUDA process forked: ${list(holders)}`,
      found: found.join('; '),
      wanted: 'no such process',
      advice:
        "End them before the checkpoint. torch.compile's workers: torch._inductor.async_compile.shutdown_compile_workers(). " +
        'Processes that only watch the GPU (NVML): nvmlShutdown().',
    },
  ];
}

const MAX_NAMED = 20;

function list(asked: readonly Asked[]): string {
  const named = asked.slice(0, MAX_NAMED).map(({ process }) => `${process.innerPid} (${process.comm})`);
  return [...named, ...(asked.length > MAX_NAMED ? [`and ${asked.length - MAX_NAMED} more`] : [])].join(', ');
}

/** The driver works through a thread of the process, which must be able to run. */
function stoppedProblem({ process, user }: Asked): Reason[] {
  const { state } = user.process.stat;
  if (!'Tt'.includes(state)) return [];
  return [
    {
      code: 'CUDA_STOPPED',
      message: `${describeProcess(process)} is stopped, and cannot be checkpointed by the driver`,
      found: `state ${state}`,
      wanted: 'a process that runs',
      advice: 'Let it go on (SIGCONT), or detach the debugger.',
    },
  ];
}

async function stateProblems(
  calls: Pick<CudaCalls, 'state'>,
  own: readonly Asked[],
  callMs: number,
): Promise<Reason[]> {
  const states = await Promise.all(own.map(({ process }) => calls.state(process, callMs)));
  return own.flatMap(({ process }, at) => {
    const state = states[at] ?? 'failed';
    if (state === 'running') return [];
    return [
      {
        code: 'CUDA_STATE',
        message: `${describeProcess(process)} is not running for the driver: something else checkpoints it, or left it so`,
        found: state,
        wanted: 'running',
        advice: 'Find out who uses the checkpoint calls of the driver on it; one that failed can only be ended.',
      },
    ];
  });
}

/** The driver's own library has its version in its name. */
const isOfDriver = (path: string, driver: string) => path.endsWith(`/libcuda.so.${driver}`);

/** Evidence of something between the process and libcuda: a second libcuda that is another one, or a library that is known for it. */
function interpositionProblem({ process, user: { libcuda, interposers } }: Asked, driver: string): Reason[] {
  const isOdd = libcuda.length > 1 && !libcuda.every((path) => isOfDriver(path, driver));
  const between = [...(isOdd ? libcuda : []), ...interposers];
  if (between.length === 0) return [];
  return [
    {
      code: 'CUDA_INTERPOSED',
      message: `${describeProcess(process)} calls the driver through another library, whose state no checkpoint of the driver covers`,
      found: between.join(' '),
      wanted: 'libcuda alone',
      advice:
        'Run the workload without GPU sharing layers, debuggers and profilers (LD_PRELOAD, CUDA_INJECTION64_PATH).',
    },
  ];
}

function libraryWarning({ process, user: { libcuda } }: Asked, driver: string): Reason[] {
  const path = libcuda[0];
  if (path === undefined || driver === '' || isOfDriver(path, driver)) return [];
  return [
    {
      code: 'CUDA_LIBRARY_FOREIGN',
      message: `${describeProcess(process)} uses a libcuda that is not that of the driver; whether such a process comes back is not proven`,
      found: path,
      wanted: `libcuda.so.${driver}`,
      advice: 'Leave out the compatibility package (cuda-compat) where the driver is new enough.',
    },
  ];
}
