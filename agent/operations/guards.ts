import { endOf, guard, type RestoredContainer } from '../container/life.ts';
import { pinProcess } from '../container/pinned.ts';
import { readProcess } from '../container/tree.ts';
import type { ProcessId } from '../host/native.ts';
import type { AgentContext } from './context.ts';
import type { JournalEntry } from './journal.ts';
import type { Restored } from './restore.ts';

/** The restored containers of this node, from the moment their process runs until it ended. */
export interface Guards {
  /** Takes a restored container over. */
  add(restored: Restored): void;
  /** Takes over again what an earlier run of the agent restored; a container that ended meanwhile gets its exit code now. */
  resume(): Promise<void>;
  rootOf(containerId: string): ProcessId | undefined;
}

/** A container that lives but cannot be pinned (no memory for a process, say) is tried again after this. */
const RETRY_MS = 30_000;

type Context = Pick<AgentContext, 'native' | 'journal' | 'log'>;

export function newGuards(context: Context): Guards {
  const { native, journal, log } = context;
  const roots = new Map<string, ProcessId>();

  const follow = async (restored: Restored, note: () => Promise<unknown>) => {
    const { containerId, adoption, root, placeholder } = restored;
    roots.set(containerId, root.id);
    if (adoption === 'standby') {
      await endOf(native, placeholder);
      root.release();
      log.info({ containerId }, 'restored container ended');
    } else {
      const { exitCode, reason } = await guard(native, restored, log);
      log.info({ containerId, exitCode, reason }, 'restored container ended');
    }
    roots.delete(containerId);
    await note();
  };
  const ended = (containerId: string) => async () => {
    const armed = journal.restoredContainers().find(({ containerKey }) => containerKey.containerId === containerId);
    if (armed === undefined) return;
    const { seq: _seq, at: _at, bootId: _bootId, step: _step, ...rest } = armed;
    await journal.append({ ...rest, state: 'ended', details: {} });
  };
  const watch = (restored: Restored) => {
    follow(restored, ended(restored.containerId)).catch((err: unknown) => log.error({ err }, 'guard failed'));
  };

  const takeOver = async (entry: JournalEntry) => {
    const restored = await repin(native, entry);
    if (restored !== undefined) watch(restored);
    else await ended(entry.containerKey.containerId)();
  };

  const tryToTakeOver = async (entry: JournalEntry): Promise<void> => {
    await takeOver(entry).catch((err: unknown) => {
      log.error({ err, containerId: entry.containerKey.containerId }, 'restored container cannot be guarded yet');
      setTimeout(() => void tryToTakeOver(entry), RETRY_MS).unref();
    });
  };

  return {
    add: watch,
    resume: async () => {
      for (const entry of journal.restoredContainers()) await tryToTakeOver(entry);
    },
    rootOf: (containerId) => roots.get(containerId),
  };
}

/** Pins both processes anew; undefined where the container is gone. A root that is a zombie is still there to be asked. */
async function repin(native: AgentContext['native'], entry: JournalEntry): Promise<Restored | undefined> {
  const { rootPid, rootStart, innerPid, adoption } = entry.details as Record<string, unknown>;
  const { containerId, pid, startTime } = entry.containerKey;
  let placeholder: RestoredContainer['placeholder'];
  try {
    placeholder = await pinProcess(native, pid, startTime);
  } catch (error) {
    const there = await readProcess(native.options.procRoot, pid);
    if (there?.stat.start === startTime && there.stat.state !== 'Z') throw error;
    return undefined;
  }
  const root = await pinProcess(native, Number(rootPid), Number(rootStart)).catch(() =>
    endedRoot(Number(rootPid), Number(rootStart), placeholder),
  );
  return {
    containerId,
    placeholder,
    root,
    innerPid: Number(innerPid),
    operationId: entry.operationId,
    adoption: adoption === 'standby' ? 'standby' : 'foreign',
  };
}

/** Stands for a restored process that ended, and was reaped, while no agent ran: its exit code is lost. */
function endedRoot(
  pid: number,
  start: number,
  like: RestoredContainer['placeholder'],
): RestoredContainer['placeholder'] {
  return {
    id: { pid, start },
    facts: like.facts,
    check: () => Promise.reject(new Error('it ended')),
    signal: () => Promise.resolve(),
    exited: Promise.resolve(null),
    release: () => undefined,
  };
}
