import { relative } from 'node:path';
import type { DumpStats } from '../criu/stats.ts';
import type { CudaHold } from '../cuda/hold.ts';
import type { CheckpointWanted } from '../plan/decide.ts';
import type { FrozenResult, Subject } from './capture.ts';
import type { AgentContext, OperationRequest } from './context.ts';
import { draftRecord } from './draft.ts';
import type { Finalized } from './finalize.ts';
import type { Pending } from './pending.ts';
import type { Target } from './target.ts';

type Request = OperationRequest<CheckpointWanted>;

/** What it takes to finish this checkpoint once the workload is dumped. */
export function pendingOf(
  context: AgentContext,
  request: Request,
  seen: {
    target: Target;
    subject: Subject;
    hold: CudaHold | undefined;
    frozen: FrozenResult;
    path: string;
    leaveRunning: boolean;
  },
): Pending {
  const { target, subject, frozen, leaveRunning, hold } = seen;
  const { usage = [], processes: cudaProcesses = [] } = hold ?? {};
  return {
    operationId: request.operationId,
    id: request.wanted.checkpointId,
    version: request.wanted.version,
    root: subject.root.id,
    mode: request.wanted.existing === 'replace' ? 'replace' : 'new',
    staging: relative(target.volume.root, seen.path),
    draft: draftRecord(context, request, { target, subject, leaveRunning, usage, cudaProcesses }),
    rootfsBytes: frozen.rootfs.bytes,
    shmBytes: frozen.shm?.bytes ?? 0,
  };
}

/** What is worth showing of a checkpoint, as far as it came. */
export function captureFigures(
  stats: DumpStats | undefined,
  finalized: Finalized | undefined,
  pending: Pending | undefined,
  hold: CudaHold | undefined,
): Record<string, number> {
  return {
    ...(pending && { rootfsBytes: pending.rootfsBytes, shmBytes: pending.shmBytes }),
    ...(hold && hold.usage.length > 0 && { deviceBytes: hold.usage.reduce((sum, { bytes }) => sum + bytes, 0) }),
    ...(stats && { pauseSeconds: pauseSeconds(stats, hold) }),
    ...(hold?.released && {
      cudaRestoreSeconds: hold.released.restoreSeconds,
      cudaUnlockSeconds: hold.released.unlockSeconds,
    }),
    ...(finalized && {
      criuBytes: finalized.criuBytes,
      bulkBytes: finalized.bulk?.bytes ?? 0,
      zeroBytes: finalized.zeroBytes,
    }),
  };
}

/** The same, with what is known only after the dump: how long the workload stood still, and whether its CUDA state came back. */
export function withOutcome(pending: Pending, stats: DumpStats, hold: CudaHold | undefined): Pending {
  const { draft, ...rest } = pending;
  const proven = hold?.released?.comebacks.every(({ end }) => end === 'running') ?? false;
  return {
    ...rest,
    draft: {
      ...draft,
      pauseSeconds: pauseSeconds(stats, hold),
      ...(draft.cuda && { cuda: { ...draft.cuda, proven } }),
    },
  };
}

/** From the first CUDA lock until all ran again; without CUDA, as long as CRIU held it. */
function pauseSeconds({ freezingSeconds, frozenSeconds }: DumpStats, hold: CudaHold | undefined): number {
  return Math.max(freezingSeconds + frozenSeconds, hold?.released?.pauseSeconds ?? 0);
}
