import { SENTINELS } from '../../contract/keys.ts';
import { restoreCompleteText } from '../container/control.ts';
import { containerTasks } from '../container/tasks.ts';
import { readProcess } from '../container/tree.ts';
import { finishPending } from './completion.ts';
import type { AgentContext } from './context.ts';
import { bringBackHeld } from './cuda-recovery.ts';
import type { JournalEntry } from './journal.ts';

const SUCCEEDED = { state: 'succeeded' as const, details: { result: 'succeeded', code: '' } };
const INTERRUPTED = 'the agent ended in the middle of it';

const MAX_INTERRUPTIONS = 5;
const SIGKILL = 9;
const SIGCONT = 18;

/**
 * Brings to an end what an earlier run of the agent left in the middle, by what its journal says. A checkpoint: CRIU died with the
 * agent and the workload runs on, once its CUDA processes are back, so it may be tried again. A restore before its point of no return: nothing was changed, its
 * halted container is woken. After it: the outcome is unknown, the container is ended and never used again.
 * An operation that the agent keeps dying in is given up. Returns the ids of those that it settled.
 */
export async function recover(context: AgentContext): Promise<readonly string[]> {
  // First of all: as long as they are locked their workloads stand still.
  await Promise.all(context.journal.openOperations().map((entry) => release(context, entry)));
  const finished = await finishPending(context);
  const settled: string[] = [];
  for (const entry of context.journal.openOperations()) {
    // Not begun: it waits for its turn again.
    if (entry.state === 'accepted') continue;
    const how = finished.has(entry.operationId) ? SUCCEEDED : await settle(context, entry);
    const { seq: _seq, at: _at, bootId: _bootId, step = '', ...rest } = entry;
    const details = { operation: context.journal.noteOf(entry.operationId), step, ...how.details };
    await context.journal.append({ ...rest, state: how.state, details });
    context.log.warn(
      {
        operationId: entry.operationId,
        kind: entry.kind,
        container: entry.container,
        step: entry.step,
        state: how.state,
      },
      'operation of an earlier run was settled',
    );
    settled.push(entry.operationId);
  }
  return settled;
}

async function settle(
  context: AgentContext,
  entry: JournalEntry,
): Promise<{ state: JournalEntry['state']; details: Record<string, unknown> }> {
  const interrupted = interruption(context, entry);
  if (entry.kind === 'checkpoint') return interrupted;
  if (!context.journal.passedNoReturn(entry.operationId)) {
    await tried(context, entry, wake(context, entry));
    return interrupted;
  }
  const armed = context.journal.restoredContainers().find(({ operationId }) => operationId === entry.operationId);
  if (armed !== undefined && (await isSame(context, entry)) && (await tried(context, entry, announce(context, armed))))
    return SUCCEEDED;
  await tried(context, entry, end(context, entry));
  return { state: 'unknown', details: { result: 'failed', code: 'OUTCOME_UNKNOWN', message: INTERRUPTED } };
}

/** An operation during which the agent died may be what it died of: after a few times it is not tried again. */
function interruption(context: AgentContext, { containerKey }: JournalEntry) {
  const before = Number(context.journal.outcomeOf(containerKey.containerId)?.details['interruptions'] ?? 0);
  const interruptions = before + 1;
  const retry = interruptions < MAX_INTERRUPTIONS;
  return {
    state: 'failed' as const,
    details: { result: 'failed', code: 'CANCELLED', message: INTERRUPTED, retry, interruptions },
  };
}

/** A container that ends meanwhile, or whose control directory leads astray, must not keep the agent from starting. */
async function tried(context: AgentContext, { operationId }: JournalEntry, work: Promise<void>): Promise<boolean> {
  return await work.then(
    () => true,
    (err: unknown) => {
      context.log.error({ err, operationId }, 'operation of an earlier run cannot be settled as it should');
      return false;
    },
  );
}

/** The tree runs and is the container's; all that may be missing is the sentinel. */
async function announce(context: AgentContext, armed: JournalEntry): Promise<void> {
  const { pid, startTime } = armed.containerKey;
  const id = { pid, start: startTime };
  const directory = armed.details['controlDir'];
  if (typeof directory !== 'string' || !(await context.native.look(id, directory, SENTINELS.restored)).dir) return;
  const text = restoreCompleteText(armed.operationId, `${armed.checkpointId}/${armed.version}`);
  await context.native.put(id, directory, SENTINELS.restored, text);
}

async function isSame(context: AgentContext, { containerKey }: JournalEntry): Promise<boolean> {
  const process = await readProcess(context.config.host.procRoot, containerKey.pid);
  return process?.stat.start === containerKey.startTime;
}

async function wake(context: AgentContext, entry: JournalEntry): Promise<void> {
  if (!(await isSame(context, entry))) return;
  await context.native.signal(SIGCONT, await containerTasks(context.config.host, entry.containerKey.pid));
}

/** A container of which a CUDA process is lost is ended: it seems to run, and does not answer. So is one of which nobody can tell. */
async function release(context: AgentContext, entry: JournalEntry): Promise<void> {
  const comebacks = await bringBackHeld(context, entry);
  if (comebacks.some(({ end }) => end === 'lost' || end === 'unknown'))
    await tried(context, entry, end(context, entry));
}

async function end(context: AgentContext, entry: JournalEntry): Promise<void> {
  if (!(await isSame(context, entry))) return;
  const { pid, startTime } = entry.containerKey;
  await context.native.signal(SIGKILL, [{ pid, start: startTime }]);
}
