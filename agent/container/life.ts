import { readFile } from 'node:fs/promises';
import type { Logger } from 'pino';
import { SnapshotError } from '../errors.ts';
import type { Native, ProcessId } from '../host/native.ts';
import { type PinnedProcess, pinProcess } from './pinned.ts';
import { exitCodeOf, parseStat, parseStatus } from './proc.ts';

const SIGKILL = 9;
const SIGTERM = 15;
const SIGCONT = 18;
const SIGSTOP = 19;
/** How often a foreign PID 1 is looked at for a pending SIGTERM: small against the grace period of any pod. */
const TERM_POLL_MS = 200;
/** The exit code where the real one cannot be known any more: that of a killed container. */
const UNKNOWN_EXIT = 137;

/** A restored container: its PID 1, which the runtime watches, and the restored main process below it. */
export interface RestoredContainer {
  readonly containerId: string;
  readonly placeholder: PinnedProcess;
  readonly root: PinnedProcess;
  /** PID of the restored root in the placeholder's PID namespace. */
  readonly innerPid: number;
}

/** How a restored container's end becomes the container's end. */
export type Adoption = 'standby' | 'foreign';

/**
 * Ties the container's life to the restored process, and wakes the tasks that were halted for the restore. snapshot-standby takes the
 * duty over by itself and needs the agent no more. Any other PID 1, whose SIGTERM is held, stays halted: it only waited, and so it
 * neither reaps the restored process, which keeps its exit code readable, nor acts on a SIGTERM, which the agent forwards (see `guard`).
 */
export async function adopt(
  native: Native,
  container: RestoredContainer,
  halted: readonly ProcessId[],
): Promise<Adoption> {
  const main = container.placeholder.id;
  if (await isStandby(native, main)) {
    await native.signal(SIGCONT, halted);
    const { armed } = await native.arm(main, container.innerPid);
    if (armed) return 'standby';
    await native.signal(SIGSTOP, [main]);
    await blockTerm(native, main);
  } else {
    const others = halted.filter(({ pid }) => pid !== main.pid);
    if (others.length > 0) await native.signal(SIGCONT, others);
  }
  return 'foreign';
}

/**
 * From here on a SIGTERM for a halted foreign PID 1 stays visible as pending, even while the restore goes on: without a handler for it the
 * kernel would drop it.
 */
export async function holdTerm(native: Native, placeholder: ProcessId): Promise<void> {
  if (!(await isStandby(native, placeholder))) await blockTerm(native, placeholder);
}

async function blockTerm(native: Native, id: ProcessId): Promise<void> {
  await native.blockSignal(id, SIGTERM).catch((error: unknown) => {
    // It waits for signals that it handles: those stay pending while it is halted.
    if (!(error instanceof SnapshotError && error.code === 'CAPABILITY_MISSING')) throw error;
  });
}

/** snapshot-standby blocks every signal it waits for; its name alone could be anybody's, but then arming it has no answer. */
async function isStandby(native: Native, id: ProcessId): Promise<boolean> {
  const comm = await readFile(`${native.options.procRoot}/${id.pid}/comm`, 'utf8').catch(() => '');
  return /^snapshot-stand|^standby-armed/.test(comm);
}

/**
 * For a foreign PID 1, until the restored process ends: forwards a SIGTERM that the runtime sent to the container, and makes the
 * container end with the restored process's exit code. Resolves with the reason; never rejects.
 */
export async function guard(
  native: Native,
  container: RestoredContainer,
  log: Logger,
): Promise<{ exitCode: number; reason: 'EXITED' | 'EXIT_CODE_UNKNOWN' | 'PLACEHOLDER_ENDED' }> {
  const stopForwarding = forwardTerm(native, container, log);
  const over = new AbortController();
  const placeholderEnded = endOf(native, container.placeholder, over.signal).then(() => 'placeholder' as const);
  const end = await Promise.race([rootEnd(native, container.root, over.signal), placeholderEnded]);
  over.abort();
  stopForwarding();
  container.root.release();
  if (end === 'placeholder') return { exitCode: UNKNOWN_EXIT, reason: 'PLACEHOLDER_ENDED' };
  const exitCode = end ?? UNKNOWN_EXIT;
  try {
    if (end === undefined) await native.signal(SIGKILL, [container.placeholder.id]);
    else await native.injectExit(container.placeholder.id, exitCode);
  } catch (err) {
    log.warn({ err, exitCode }, 'exit code could not be delivered, the container is killed');
    await native.signal(SIGKILL, [container.placeholder.id]).catch(() => undefined);
  }
  container.placeholder.release();
  return { exitCode, reason: end === undefined ? 'EXIT_CODE_UNKNOWN' : 'EXITED' };
}

/**
 * The raw wait status of a process once it ended, or null where the kernel does not tell. What watches it may end before it does, killed
 * for memory for one: then the process is pinned anew, unless nobody waits for it any more.
 */
export async function endOf(native: Native, pinned: PinnedProcess, over?: AbortSignal): Promise<number | null> {
  const status = await pinned.exited;
  if (status !== null || over?.aborted) return status;
  const { pid, start } = pinned.id;
  const text = await readFile(`${native.options.procRoot}/${pid}/stat`, 'utf8').catch(() => undefined);
  const stat = text === undefined ? undefined : parseStat(text);
  if (stat?.start !== start || stat.state === 'Z' || stat.state === 'X') return null;
  const again = await pinProcess(native, pid, start).catch(() => undefined);
  if (again === undefined) return null;
  over?.addEventListener('abort', () => again.release(), { once: true });
  return await endOf(native, again, over);
}

/** The exit code of the restored root once it ended; undefined where nobody can tell (PID 1 reaped it on an old kernel). */
async function rootEnd(native: Native, root: PinnedProcess, over: AbortSignal): Promise<number | undefined> {
  const status = await endOf(native, root, over);
  const { pid, start } = root.id;
  const text = await readFile(`${native.options.procRoot}/${pid}/stat`, 'utf8').catch(() => undefined);
  const stat = text === undefined ? undefined : parseStat(text);
  if (stat?.start === start && stat.state === 'Z') return exitCodeOf(stat.exitStatus);
  return status === null ? undefined : exitCodeOf(status);
}

function forwardTerm(native: Native, container: RestoredContainer, log: Logger): () => void {
  let isForwarded = false;
  const look = async () => {
    const text = await readFile(`${native.options.procRoot}/${container.placeholder.id.pid}/status`, 'utf8').catch(
      () => '',
    );
    // A look that took long may not be the only one to see it.
    if (isForwarded || (parseStatus(text).pendingSignals & (1n << BigInt(SIGTERM - 1))) === 0n) return;
    isForwarded = true;
    clearInterval(timer);
    log.info({ containerId: container.containerId }, 'SIGTERM forwarded to the restored process');
    await native.signal(SIGTERM, [container.root.id]).catch(() => undefined);
  };
  const timer = setInterval(() => void look(), TERM_POLL_MS);
  return () => clearInterval(timer);
}
