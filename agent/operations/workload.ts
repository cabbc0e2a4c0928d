import { SENTINELS } from '../../contract/keys.ts';
import { controlDir } from '../container/control.ts';
import { isEnding, readProcess } from '../container/tree.ts';
import { SnapshotError } from '../errors.ts';
import type { CheckpointWanted } from '../plan/decide.ts';
import type { Subject } from './capture.ts';
import type { AgentContext, OperationRequest } from './context.ts';
import { isUndeclared } from './reporter.ts';
import { killContainer, type Target } from './target.ts';

/** What becomes of the workload around and after its dump. */

const SIGKILL = 9;
/** How long CRIU's killed tree may take to vanish after a checkpoint that stops the container. */
const STOP_MS = 30_000;

/** Whether the dumped process lives and is not halted. */
export async function isRunning(context: AgentContext, { root }: Subject): Promise<boolean> {
  const process = await readProcess(context.config.host.procRoot, root.id.pid);
  return process?.stat.start === root.id.start && !isEnding(process) && !'Tt'.includes(process.stat.state);
}

/** Throws DUMP_FAILED where it does not go on. */
export async function confirmRunning(context: AgentContext, subject: Subject): Promise<void> {
  await subject.root.check();
  if (!(await isRunning(context, subject)))
    throw new SnapshotError('DUMP_FAILED', 'the workload did not go on after the dump');
}

/** Ends a workload whose images are durable. */
export async function endWorkload({ root }: Subject): Promise<void> {
  await root.signal(SIGKILL);
}

/** Waits until it has ended; TARGET_QUARANTINED where it does not. */
export async function confirmStopped(subject: Subject): Promise<void> {
  const timeout = new Promise<'late'>((resolve) => setTimeout(() => resolve('late'), STOP_MS).unref());
  if ((await Promise.race([subject.root.exited, timeout])) === 'late')
    throw new SnapshotError('TARGET_QUARANTINED', `process ${subject.root.id.pid} does not end after CRIU killed it`);
}

/** Tells a worker that follows the contract that its checkpoint is there. A workload without a control directory needs nothing. */
export async function releaseWorker(context: AgentContext, target: Target): Promise<void> {
  const { path } = controlDir(target.running.env);
  const { dir } = await context.native.look(target.main.id, path, SENTINELS.complete);
  if (dir) await context.native.put(target.main.id, path, SENTINELS.complete, 'done\n');
}

/** Whether a Job's checkpoint has failed for good: what may pass is tried again first. */
export function isFinal(
  failure: SnapshotError,
  { wanted, isLastTry, signal }: OperationRequest<CheckpointWanted>,
  cancelled: AbortSignal = signal,
): boolean {
  // Whoever holds its lease says how the Job ends.
  if (failure.code === 'LEASE_LOST') return false;
  if (isUndeclared(failure)) return false;
  // The agent ends: its next run tries again.
  if (failure.code === 'CANCELLED' && signal.aborted) return false;
  // Cancelled by a caller: they do not want it any more.
  const isUnwanted = failure.code === 'CANCELLED' && cancelled.aborted;
  return wanted.ofJob && (isLastTry || isUnwanted || !failure.retryable);
}

/** A checkpoint Job exists for nothing else: ending its container makes it fail at once and frees what it holds. */
export async function endJob(
  context: AgentContext,
  { wanted }: OperationRequest<CheckpointWanted>,
  failure: SnapshotError,
): Promise<void> {
  const containerId = wanted.container.id;
  context.log.warn({ code: failure.code, containerId }, 'container of the failed checkpoint Job is ended');
  await killContainer(context, containerId).catch((err: unknown) =>
    context.log.warn({ err, containerId }, 'container of the failed checkpoint Job could not be ended'),
  );
}
