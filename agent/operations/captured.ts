import { relative } from 'node:path';
import type { DumpStats } from '../criu/stats.ts';
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
  seen: { target: Target; subject: Subject; frozen: FrozenResult; path: string; leaveRunning: boolean },
): Pending {
  const { target, subject, frozen, leaveRunning } = seen;
  return {
    operationId: request.operationId,
    id: request.wanted.checkpointId,
    version: request.wanted.version,
    root: subject.root.id,
    mode: request.wanted.existing === 'replace' ? 'replace' : 'new',
    staging: relative(target.volume.root, seen.path),
    draft: draftRecord(context, request, { target, subject, leaveRunning }),
    rootfsBytes: frozen.rootfs.bytes,
    shmBytes: frozen.shm?.bytes ?? 0,
  };
}

/** What is worth showing of a checkpoint, as far as it came. */
export function captureFigures(
  stats: DumpStats | undefined,
  finalized: Finalized | undefined,
  pending: Pending | undefined,
): Record<string, number> {
  return {
    ...(pending && { rootfsBytes: pending.rootfsBytes, shmBytes: pending.shmBytes }),
    ...(stats && { pauseSeconds: stats.freezingSeconds + stats.frozenSeconds }),
    ...(finalized && {
      criuBytes: finalized.criuBytes,
      bulkBytes: finalized.bulk?.bytes ?? 0,
      zeroBytes: finalized.zeroBytes,
    }),
  };
}
