import { readProcess } from '../container/tree.ts';
import { SnapshotError } from '../errors.ts';
import { type CudaCalls, type CudaProcess, describeProcess } from './calls.ts';
import { CudaError } from './driver-errors.ts';

/**
 * The same calls, for no other process than the one that is meant. The driver knows processes by their PIDs alone, and a PID may be
 * another process's by the time of the call: it is compared right before, when nothing is asked, and right after, when the stranger is
 * let go again. Either throws CONTAINER_GONE.
 */
export function forSameProcess(calls: CudaCalls, procRoot: string): CudaCalls {
  return {
    ...calls,
    state: (process, deadlineMs) => guarded(procRoot, process, () => calls.state(process, deadlineMs)),
    lock: (process, timeoutMs, deadlineMs) =>
      guarded(
        procRoot,
        process,
        () => calls.lock(process, timeoutMs, deadlineMs),
        () => calls.unlock(process, deadlineMs),
      ),
    // Only what is locked can be checkpointed: a stranger stays locked for whoever locked it.
    checkpoint: (process, deadlineMs) =>
      guarded(
        procRoot,
        process,
        () => calls.checkpoint(process, deadlineMs),
        () => calls.restore(process, [], deadlineMs),
      ),
    restore: (process, pairs, deadlineMs) =>
      guarded(procRoot, process, () => calls.restore(process, pairs, deadlineMs)),
    unlock: (process, deadlineMs) => guarded(procRoot, process, () => calls.unlock(process, deadlineMs)),
  };
}

async function guarded<T>(
  procRoot: string,
  process: CudaProcess,
  call: () => Promise<T>,
  takeBack?: () => Promise<unknown>,
): Promise<T> {
  if ((await whoIs(procRoot, process)) !== 'same') throw gone(process);
  const [ended] = await Promise.allSettled([call()]);
  const who = await whoIs(procRoot, process);
  if (who === 'same') {
    if (ended.status === 'fulfilled') return ended.value;
    throw ended.reason;
  }
  // Best effort: the stranger may be none of the driver's.
  if (who === 'other' && (ended.status === 'fulfilled' || mayBeDone(ended.reason)))
    await takeBack?.().catch(() => undefined);
  throw gone(process);
}

/** What the driver refused, or never was asked for, is not done. */
const mayBeDone = (error: unknown) => error instanceof CudaError && error.failure !== 'driver';

async function whoIs(procRoot: string, { id }: CudaProcess): Promise<'same' | 'other' | 'none'> {
  const found = await readProcess(procRoot, id.pid);
  if (found === undefined) return 'none';
  return found.stat.start === id.start ? 'same' : 'other';
}

const gone = (process: CudaProcess) => new SnapshotError('CONTAINER_GONE', `${describeProcess(process)} is gone`);
