import type { Volume } from '../store/paths.ts';
import { sweep } from '../store/sweep.ts';
import { finishPending } from './completion.ts';
import type { AgentContext } from './context.ts';
import { onOwnVolume } from './node.ts';

const SWEEP_EVERY_MS = 3_600_000;

/** Removes from a volume what operations of this node left behind when they died, and puts back what a replacement moved aside. */
async function sweepVolume(context: AgentContext, volume: Volume): Promise<void> {
  const { node, liveOperations, log } = context;
  try {
    const swept = await sweep(volume, { node: node.name, bootId: node.bootId, liveOperations });
    for (const action of swept.actions) log.info({ ...action }, 'volume swept');
    if (swept.more) log.info('more is to be swept the next time');
  } catch (err) {
    log.warn({ err }, 'volume could not be swept');
  }
}

/** What an operation does for the volume that it has at hand, where no agent mounts it: sweeps it, and looks after retention. */
export async function tidyVolume(context: AgentContext, volume: Volume, signal: AbortSignal): Promise<void> {
  await sweepVolume(context, volume);
  const notWithinMs = (context.config.retention.intervalSeconds * 1000) / 2;
  await context.retention.collect(volume, { notWithinMs, signal }).catch((err: unknown) => {
    context.log.warn({ err }, 'retention could not look at the volume');
  });
}

/**
 * Sweeps the agent's own volume at once, and every hour finishes what could not be finished before and sweeps again, until the
 * signal. In podMount mode there is no volume without a pod: each operation sweeps the one it uses.
 */
export function keepSwept(context: AgentContext, signal: AbortSignal): Promise<void> {
  if (context.config.storage.accessMode === 'podMount') return Promise.resolve();
  // No operation runs yet: what counts as live now is what the recovery could not finish.
  const left = new Set(context.liveOperations);
  const round = async () => {
    await finishPending(context, left).catch((err: unknown) => context.log.warn({ err }, 'nothing can be finished'));
    await sweepOwnVolume(context);
  };
  const timer = setInterval(() => void round(), SWEEP_EVERY_MS);
  signal.addEventListener('abort', () => clearInterval(timer), { once: true });
  return sweepOwnVolume(context);
}

async function sweepOwnVolume(context: AgentContext): Promise<void> {
  await onOwnVolume(context, (volume) => sweepVolume(context, volume)).catch((err: unknown) =>
    context.log.warn({ err }, 'the volume cannot be reached for sweeping'),
  );
}
