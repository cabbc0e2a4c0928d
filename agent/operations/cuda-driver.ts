import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Config } from '../config.ts';
import { type CudaWorkers, openCudaWorkers } from '../cuda/workers.ts';
import { asSnapshotError } from '../errors.ts';
import type { Capability } from './service.ts';

/** The CUDA driver of this node, as the configuration says. Nothing is started before the first call. */
export function openDriver({ cuda }: Config, log: Logger): CudaWorkers {
  return openCudaWorkers({
    argv: [
      cuda.worker,
      ...cuda.libcuda.flatMap((path) => ['--libcuda', path]),
      ...cuda.libnvml.flatMap((path) => ['--libnvml', path]),
    ],
    env: cuda.environment,
    startMs: cuda.startSeconds * 1000,
    idleMs: cuda.idleSeconds * 1000,
    max: cuda.maxWorkers,
    log,
  });
}

/** A driver may come later than the agent, and go: it is looked for again this often where it is not there. */
const LOOK_AGAIN_MS = 300_000;

/** A driver that is not well may take long to say so: the agent does not wait for it to start. */
const FIRST_LOOK_MS = 10_000;

const NAME = 'cuda';

interface CudaWatchRequest {
  readonly onSeen: (seen: Capability) => void;
  readonly signal: AbortSignal;
  readonly patienceMs?: number;
}

/** Whether CUDA processes can be checkpointed and restored here, with the driver's version, or why not. */
async function cudaCapability(workers: Pick<CudaWorkers, 'driver'>): Promise<Capability> {
  return await workers.driver().then(
    ({ version, api }) => ({
      name: NAME,
      available: true,
      detail: `driver ${version || 'of unknown version'}, CUDA ${Math.floor(api / 1000)}.${Math.floor((api % 1000) / 10)}`,
    }),
    (error: unknown) => ({ name: NAME, available: false, detail: asSnapshotError(error).message }),
  );
}

/**
 * Looks now, and again and again until the signal as long as there is none. `onSeen` is told of each look. Resolves after the first one,
 * or without its answer where that takes long.
 */
export async function watchCuda(
  workers: Pick<CudaWorkers, 'driver'>,
  { onSeen, signal, patienceMs = FIRST_LOOK_MS }: CudaWatchRequest,
): Promise<{ current(): Capability }> {
  let current: Capability = { name: NAME, available: false, detail: 'the driver is still being looked for' };
  const look = async () => {
    if (current.available) return;
    current = await cudaCapability(workers);
    onSeen(current);
  };
  await Promise.race([look(), sleep(patienceMs, undefined, { ref: false })]);
  const timer = setInterval(() => void look(), LOOK_AGAIN_MS);
  signal.addEventListener('abort', () => clearInterval(timer), { once: true });
  return { current: () => current };
}
