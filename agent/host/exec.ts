import { open } from 'node:fs/promises';
import { execa } from 'execa';
import { SnapshotError } from '../errors.ts';

/** A descriptor number of this process, given to the child under its place in the array, or nothing. */
export type ChildFd = number | 'ignore';

export interface RunRequest {
  /** Program and arguments; never a shell line. */
  readonly argv: readonly [string, ...string[]];
  readonly env?: Readonly<Record<string, string>>;
  /** Standard output and error of the child go to these files (made anew), never to pipes: a grandchild may keep them open. */
  readonly stdoutFile: string;
  readonly stderrFile: string;
  /** Descriptors from number 3 on. */
  readonly extraFds?: readonly ChildFd[];
  /** After this many milliseconds the child's process group gets SIGKILL. */
  readonly deadlineMs: number;
  readonly signal?: AbortSignal;
}

export interface RunResult {
  /** Exit code, or null where a signal ended the child. */
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly timedOut: boolean;
  /** True where the child was still there ten seconds after SIGKILL (it hangs in the kernel): its target must not be used again. */
  readonly undead: boolean;
  readonly seconds: number;
}

/** How long a killed child may take to vanish before it counts as undead. */
const KILL_GRACE_MS = 10_000;

/**
 * Runs a program in a process group of its own, output to files, with a deadline. Resolves for every way the child can end;
 * throws INTERNAL only where it cannot be started.
 */
export async function run(request: RunRequest): Promise<RunResult> {
  const [program, ...args] = request.argv;
  const out = await open(request.stdoutFile, 'w', 0o600);
  const err = await open(request.stderrFile, 'w', 0o600);
  const started = performance.now();
  let timedOut = false;
  try {
    const child = execa(program, args, {
      stdio: ['ignore', out.fd, err.fd, ...(request.extraFds ?? [])],
      env: { ...request.env },
      extendEnv: false,
      detached: true,
      reject: false,
      cleanup: true,
    });
    const pid = child.pid;
    if (pid === undefined) throw (await child).cause ?? new Error('no process was made');
    const killGroup = () => {
      try {
        process.kill(-pid, 'SIGKILL');
      } catch {
        // It ended by itself meanwhile.
      }
    };
    let graceTimer: NodeJS.Timeout | undefined;
    let giveUp: (outcome: 'undead') => void = () => undefined;
    const undead = new Promise<'undead'>((resolve) => {
      giveUp = resolve;
    });
    const kill = () => {
      killGroup();
      graceTimer ??= setTimeout(() => giveUp('undead'), KILL_GRACE_MS);
    };
    const deadline = setTimeout(() => {
      timedOut = true;
      kill();
    }, request.deadlineMs);
    if (request.signal?.aborted) kill();
    request.signal?.addEventListener('abort', kill, { once: true });
    try {
      const ended = await Promise.race([child, undead]);
      const seconds = (performance.now() - started) / 1000;
      if (ended === 'undead') return { exitCode: null, signal: 'SIGKILL', timedOut, undead: true, seconds };
      return { exitCode: ended.exitCode ?? null, signal: ended.signal ?? null, timedOut, undead: false, seconds };
    } finally {
      clearTimeout(deadline);
      clearTimeout(graceTimer);
      request.signal?.removeEventListener('abort', kill);
    }
  } catch (cause) {
    throw new SnapshotError('INTERNAL', `cannot start ${program}: ${String(cause)}`, { cause });
  } finally {
    await out.close();
    await err.close();
  }
}
