import { lookAtTasks } from '../container/tasks.ts';
import { isEnding, readProcess } from '../container/tree.ts';
import { readProcesses } from '../criu/images/processes.ts';
import { SnapshotError } from '../errors.ts';
import type { ProcessId } from '../host/native.ts';
import type { AgentContext } from './context.ts';
import type { Images, Revived } from './revive.ts';
import type { Target } from './target.ts';

/** The tasks of a container that is restored into: halted for the restore, woken after it, or ended. */

/** Signals as the kernel numbers them on x86-64. */
const SIGCONT = 18;
const SIGSTOP = 19;
const SIGKILL = 9;

/** How long the container is looked at until nothing in it runs; what does not come to rest is not restored into. */
const HALT_MS = 5_000;

/**
 * Stops every task of the container, so that none of them can interfere with CRIU in their PID namespace. A task may fork while the
 * others are stopped, so it is looked again until all that is there is at rest. `halted` gets each before it is stopped, whatever
 * comes of it. RESTORE_REFUSED where the container never comes to rest.
 */
export async function haltContainer(
  context: AgentContext,
  target: Target,
  halted: Map<number, ProcessId>,
): Promise<void> {
  const { native, config } = context;
  for (const began = performance.now(); performance.now() - began < HALT_MS; ) {
    const { tasks, restless } = await lookAtTasks(config.host, target.main.id.pid);
    const fresh = tasks.filter(({ pid, start }) => halted.get(pid)?.start !== start);
    if (fresh.length === 0 && restless === 0) return;
    for (const id of fresh) halted.set(id.pid, id);
    if (fresh.length > 0) await native.signal(SIGSTOP, fresh);
  }
  const reason = {
    code: 'TASKS_RESTLESS',
    message: 'processes of the container start others faster than they can be stopped',
    found: `${halted.size} processes, and still more`,
    wanted: 'a placeholder that only waits',
    advice: 'Use snapshot-standby, or another command that waits, as the command of the target container.',
  };
  throw new SnapshotError('RESTORE_REFUSED', `the container cannot be halted: ${reason.message}`, {
    reasons: [reason],
  });
}

/** Lets tasks that were halted run again. */
export async function wakeTasks(context: AgentContext, tasks: readonly ProcessId[]): Promise<void> {
  if (tasks.length === 0) return;
  await context.native.signal(SIGCONT, tasks);
}

/** Wakes the tasks that were running when dumped, leaves first, so that no parent finds its child stopped. */
export async function wakeTree(context: AgentContext, images: Images, revived: Revived): Promise<void> {
  const running = (await readProcesses(images.criu)).filter(({ state }) => state === 'alive').toReversed();
  const ids = running.map(({ pid }) => revived.byInnerPid.get(pid)).filter((id): id is ProcessId => id !== undefined);
  await context.native.signal(SIGCONT, ids);
}

/** Ends the container: its files were changed and its tree may be half restored, so nothing may go on in it. */
export async function endContainer(context: AgentContext, target: Target): Promise<void> {
  const { main } = target;
  // What holds the pin may have died by itself, killed for memory for one.
  await main.signal(SIGKILL).catch(() => context.native.signal(SIGKILL, [main.id]));
}

/** A process that is gone this early counts as not restored, whatever it ended with: it had no time for anything but to fail. */
export async function confirmAlive(context: AgentContext, revived: Revived): Promise<void> {
  const process = await readProcess(context.config.host.procRoot, revived.root.pid);
  const isGone = process === undefined || process.stat.start !== revived.root.start;
  if (isGone || isEnding(process))
    throw new SnapshotError(
      'RESTORE_FAILED',
      'the restored process ended as soon as it was continued: look at its log',
    );
}
