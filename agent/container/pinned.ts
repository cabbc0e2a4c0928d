import { SnapshotError } from '../errors.ts';
import type { Native, ProcessFacts, ProcessId } from '../host/native.ts';

/**
 * A process that is held by a pidfd: it cannot be mistaken for another one that gets its PID later. `check` before each use.
 */
export interface PinnedProcess {
  readonly id: ProcessId;
  readonly facts: ProcessFacts;
  /** Throws CONTAINER_GONE where the process ended, or is not in the namespaces it was pinned in. */
  check(): Promise<void>;
  /** Sends a signal through the pidfd; CONTAINER_GONE where the process ended. */
  signal(signal: number): Promise<void>;
  /** Resolves when the process ends: its raw wait status, or null where the kernel does not tell. Also when it is released (null). */
  readonly exited: Promise<number | null>;
  /** Lets go of the process. */
  release(): void;
}

/** Pins a process by its host PID; with `start` only the process that started then. */
export async function pinProcess(native: Native, pid: number, start?: number): Promise<PinnedProcess> {
  const { facts, session } = await native.pin(pid, start);
  const id = { pid: facts.pid, start: facts.start };
  let gone = false;
  const exited = session.ended.then((notices) => {
    gone = true;
    const last = notices.at(-1);
    if (last === undefined) return null;
    const { status } = JSON.parse(last) as { status?: number | null };
    return status ?? null;
  });
  const ask = async (command: string, wanted: string) => {
    const answer = gone ? '' : await session.ask(command).catch(() => '');
    if (!answer.startsWith(`{"${wanted}"`))
      throw new SnapshotError(
        'CONTAINER_GONE',
        `process ${id.pid} (start ${id.start}) is gone: ${answer || 'it ended'}`,
      );
  };
  return {
    id,
    facts,
    check: () => ask('check', 'alive'),
    signal: (signal) => ask(`signal ${signal}`, 'signalled'),
    exited,
    release: () => session.stop(),
  };
}
