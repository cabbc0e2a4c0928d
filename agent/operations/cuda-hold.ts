import { gpuUsers } from '../container/gpu-users.ts';
import { readTree } from '../container/tree.ts';
import { cudaCalls, describeProcess } from '../cuda/calls.ts';
import { CudaHold, type Release } from '../cuda/hold.ts';
import { cudaLimits } from '../cuda/limits.ts';
import { usageOf } from '../cuda/usage.ts';
import { SnapshotError } from '../errors.ts';
import type { CheckpointWanted } from '../plan/decide.ts';
import type { Attempt } from './attempt.ts';
import type { Subject } from './capture.ts';
import type { AgentContext, OperationRequest } from './context.ts';
import { killContainer } from './target.ts';

/** Takes hold of the CUDA processes of the workload; none is locked yet. */
export function holdCuda(context: AgentContext, attempt: Attempt, { root, cuda }: Subject): CudaHold {
  const { procRoot } = context.config.host;
  const { cuda: rules } = context.config;
  const calls = cudaCalls(context.cuda);
  return new CudaHold({
    calls,
    procRoot,
    measure: async (processes) =>
      usageOf(await calls.usage(rules.callSeconds * 1000), processes, cuda?.gpus ?? []).usage,
    limits: (bytes) => cudaLimits(rules, bytes),
    users: async () => gpuUsers(procRoot, await readTree(procRoot, root.id.pid)),
    beforeLock: (processes) => attempt.note('cuda-held', { processes, deviceBytes: cuda?.deviceBytes ?? 0 }),
  });
}

/** Lets the CUDA processes go on. Throws where one of them does not. */
export async function comeBack(hold: CudaHold): Promise<Release> {
  const release = await hold.release();
  const failure = comebackFailure(release);
  if (failure !== undefined) throw failure;
  return release;
}

/**
 * What a failed comeback is to be told as: a process that is lost comes before one of which nobody knows. Both end the container: whatever
 * nobody can ask about for so long is most likely locked, and would stay so.
 */
function comebackFailure({ comebacks }: Release): SnapshotError | undefined {
  const bad = comebacks.find(({ end }) => end === 'lost') ?? comebacks.find(({ end }) => end === 'unknown');
  if (bad === undefined) return undefined;
  const { process, failure, end } = bad;
  const who = describeProcess(process);
  const options = { cause: failure, reasons: failure?.reasons ?? [] };
  const why = failure?.message ?? 'the driver says that it failed';
  const what =
    end === 'lost'
      ? 'did not come back from its CUDA checkpoint'
      : 'may still be locked, and the driver cannot be asked';
  const code = failure?.code === 'TARGET_QUARANTINED' ? 'TARGET_QUARANTINED' : 'CUDA_LOST';
  return new SnapshotError(code, `${who} ${what}, its container is ended: ${why}`, options);
}

/** The failure of an operation, or the one that counts more: that a process did not come back. */
export function withComeback(
  failure: SnapshotError | undefined,
  hold: CudaHold | undefined,
): SnapshotError | undefined {
  const lost = hold?.released && comebackFailure(hold.released);
  if (failure === undefined || lost === undefined || failure.code === lost.code) return failure;
  const message = `${lost.message}; that was after: ${failure.message}`;
  return new SnapshotError(lost.code, message, { cause: failure, reasons: [...lost.reasons, ...failure.reasons] });
}

/**
 * Takes a hold back after a failure: what can run runs again. A container of which a process does not is ended, since nobody else would: it
 * seems to run, and does not answer.
 */
export async function undoHold(
  context: AgentContext,
  hold: CudaHold,
  { wanted }: OperationRequest<CheckpointWanted>,
): Promise<void> {
  const release = await hold.release();
  const failure = comebackFailure(release);
  if (failure === undefined) return;
  context.log.error({ err: failure, containerId: wanted.container.id }, 'CUDA processes did not come back');
  await killContainer(context, wanted.container.id);
}
