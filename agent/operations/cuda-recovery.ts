import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { readProcess } from '../container/tree.ts';
import { type CudaProcess, cudaCalls } from '../cuda/calls.ts';
import { bringBack, type Comeback } from '../cuda/comeback.ts';
import { cudaLimits } from '../cuda/limits.ts';
import type { AgentContext } from './context.ts';
import type { JournalEntry } from './journal.ts';

/** How long the CRIU of an earlier run, which may hold the processes frozen, is waited for. */
const CRIU_GONE_MS = 10_000;

const heldDetails = z.object({
  processes: z.array(z.object({ id: z.object({ pid: z.int(), start: z.int() }), innerPid: z.int(), comm: z.string() })),
  deviceBytes: z.number(),
});

/**
 * Brings CUDA processes back to running that an earlier run of the agent locked or checkpointed, and died. Its journal names them by PID
 * and start time. Returns how that went; never rejects.
 */
export async function bringBackHeld(context: AgentContext, entry: JournalEntry): Promise<readonly Comeback[]> {
  const noted = context.journal.cudaHeldBy(entry.operationId);
  const held = heldDetails.safeParse(noted?.details);
  if (!held.success) return [];
  const { processes, deviceBytes } = held.data;
  const { procRoot } = context.config.host;
  context.cuda.prepare(processes.length);
  await Promise.all(processes.map((process) => untraced(procRoot, process)));
  const limits = cudaLimits(context.config.cuda, deviceBytes);
  const now = performance.now();
  const cutOff = { lockUntilMs: now + limits.lockTimeoutMs, busyUntilMs: now + limits.moveMs };
  const request = { calls: cudaCalls(context.cuda), limits, procRoot, cutOff };
  const comebacks = await Promise.all(processes.map((process) => bringBack(request, process)));
  for (const { process, end, failure } of comebacks) {
    const fields = { operationId: entry.operationId, process, end };
    if (end === 'running') context.log.info(fields, 'CUDA process of an earlier run runs again');
    else if (end !== 'gone')
      context.log.error({ ...fields, err: failure }, 'CUDA process of an earlier run does not run');
  }
  return comebacks;
}

async function untraced(procRoot: string, { id }: CudaProcess): Promise<void> {
  for (const began = performance.now(); performance.now() - began < CRIU_GONE_MS; await sleep(50)) {
    const process = await readProcess(procRoot, id.pid);
    if (process?.stat.start !== id.start || process.status.tracerPid === 0) return;
  }
}
