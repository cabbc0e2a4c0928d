import { setTimeout as sleep } from 'node:timers/promises';
import { type CudaCalls, type CudaProcess, type CudaState, describeProcess } from './calls.ts';
import type { GpuPair } from './device-map.ts';
import { CudaError } from './driver-errors.ts';
import type { CudaLimits } from './limits.ts';

/** What a restored tree's CUDA processes are brought back with. All at once, each with a worker of its own. */
export interface Revival {
  readonly calls: CudaCalls;
  readonly limits: CudaLimits;
  readonly processes: readonly CudaProcess[];
}

/** How often a call is made whose worker was killed. */
const MAX_TRIES = 4;
const LOOK_MS = 200;

/** Gives every process its device memory back: they are locked then. What the driver refuses is not tried again. */
export async function restoreAll(revival: Revival, pairs: readonly GpuPair[]): Promise<void> {
  await all(revival, (process) => restoreOne(revival, process, pairs));
}

/** Lets every process go on. */
export async function unlockAll(revival: Revival): Promise<void> {
  await all(revival, (process) => unlockOne(revival, process));
}

/** Throws CUDA_FAILED where a process does not run, as the driver sees it. */
export async function confirmRunning(revival: Revival): Promise<void> {
  await all(revival, async (process) => {
    const state = await revival.calls.state(process, revival.limits.callMs);
    if (state !== 'running')
      throw new CudaError('driver', 'CUDA_FAILED', `${describeProcess(process)} is ${state} after its CUDA restore`);
  });
}

/** Waits for all: nothing of it goes on behind the back of what follows a failure. */
async function all({ processes }: Revival, work: (process: CudaProcess) => Promise<void>): Promise<void> {
  const ended = await Promise.allSettled(processes.map(work));
  const failed = ended.find((one) => one.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

async function restoreOne({ calls, limits }: Revival, process: CudaProcess, pairs: readonly GpuPair[]): Promise<void> {
  let untilMs = 0;
  for (let tries = 1; ; tries += 1) {
    try {
      await calls.restore(process, pairs, limits.moveMs);
      return;
    } catch (error) {
      if (!isDeath(error)) {
        // A call whose worker died may have gone on by itself, and refuses another one beside it.
        if (tries > 1 && (await becomesRestored({ calls, limits }, process, untilMs))) return;
        throw error;
      }
      // From its end on: when the driver began with it only the worker knew.
      untilMs = performance.now() + limits.moveMs;
      if (isRestored(await calls.state(process, limits.callMs))) return;
      if (tries === MAX_TRIES) throw error;
    }
  }
}

async function unlockOne({ calls, limits }: Revival, process: CudaProcess): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    try {
      await calls.unlock(process, limits.callMs);
      return;
    } catch (error) {
      if ((await calls.state(process, limits.callMs)) === 'running') return;
      if (!isDeath(error) || tries === MAX_TRIES) throw error;
    }
  }
}

async function becomesRestored(
  { calls, limits }: Pick<Revival, 'calls' | 'limits'>,
  process: CudaProcess,
  untilMs: number,
): Promise<boolean> {
  while (performance.now() < untilMs) {
    const state = await calls.state(process, limits.callMs);
    if (isRestored(state)) return true;
    if (state === 'failed') return false;
    await sleep(LOOK_MS);
  }
  return false;
}

const isRestored = (state: CudaState) => state === 'locked' || state === 'running';
const isDeath = (error: unknown) => error instanceof CudaError && error.failure === 'died';
