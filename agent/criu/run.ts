import { createServer, type Server, type Socket } from 'node:net';
import { type ErrorCode, SnapshotError } from '../errors.ts';
import { type RunResult, readTail } from '../host/exec.ts';
import type { Native, ProcessId, RestoreVerb } from '../host/native.ts';
import { diagnose, logTail } from './diagnosis.ts';
import { type DumpOptions, dumpArguments, type RestoreOptions, restoreArguments } from './options.ts';

/** How much of CRIU's log is read for a diagnosis; at verbosity 2 a whole log is smaller. */
const LOG_BYTES = 256 << 10;

interface Limits {
  readonly deadlineMs: number;
  readonly signal?: AbortSignal | undefined;
}

export interface DumpRequest extends Limits {
  readonly target: ProcessId;
  readonly options: DumpOptions;
  readonly environment: Readonly<Record<string, string>>;
  /** Namespaces that are joined rather than dumped. */
  readonly join: readonly ('ipc' | 'uts')[];
  /** Runs while every task is frozen, and is told where CRIU ends before it has; if it rejects, CRIU lets the workload run on and the dump fails. */
  readonly whileFrozen: (signal: AbortSignal) => Promise<void>;
}

/**
 * Dumps the target. The frozen part is bound to a socket: where this agent dies in it, the hook fails and CRIU resumes the
 * workload. Throws what `whileFrozen` threw, or DUMP_FAILED with a diagnosis.
 */
export async function dump(native: Native, request: DumpRequest): Promise<void> {
  const { options } = request;
  const socketPath = `${options.workDir}/hook.sock`;
  let frozenFailure: unknown;
  let frozen: Promise<boolean> | undefined;
  const over = new AbortController();
  const hook = await serveHook(socketPath, () => {
    frozen ??= request.whileFrozen(over.signal).then(
      () => true,
      (error: unknown) => {
        frozenFailure = error;
        return false;
      },
    );
    return frozen;
  });
  try {
    const result = await native.dump(request.target, {
      join: request.join,
      argv: dumpArguments(options),
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', SNAPSHOT_HOOK_SOCKET: socketPath, ...request.environment },
      logPrefix: `${options.workDir}/dump`,
      deadlineMs: request.deadlineMs,
      signal: request.signal,
    });
    // Where CRIU died in the middle nobody is frozen any more, and nothing may go on writing into what is given up now.
    const cause = frozenFailure;
    over.abort();
    await frozen;
    if (cause !== undefined) throw cause;
    if (result.exitCode !== 0) throw await criuFailure('DUMP_FAILED', result, options.workDir, 'dump', request.signal);
  } finally {
    over.abort();
    hook.close();
  }
}

/** Answers each connection's line with `ok` or `failed`. */
async function serveHook(socketPath: string, onFrozen: () => Promise<boolean>): Promise<Server> {
  const server = createServer((socket: Socket) => {
    socket.on('error', () => undefined);
    socket.once('data', () => {
      void onFrozen().then((isGood) => socket.end(isGood ? 'ok\n' : 'failed\n'));
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(socketPath, resolve);
  });
  return server;
}

export interface RestoreRequest extends Limits {
  readonly placeholder: ProcessId;
  readonly options: RestoreOptions;
  readonly environment: Readonly<Record<string, string>>;
  readonly cgroupRoot: string;
  readonly privateIpc: boolean;
  readonly fds: RestoreVerb['fds'];
}

/** Restores the images into the placeholder's namespaces, left stopped. Returns the restored root. RESTORE_FAILED with a diagnosis. */
export async function restore(native: Native, request: RestoreRequest): Promise<ProcessId & { inner: number }> {
  const { options } = request;
  const logPrefix = `${options.workDir}/restore`;
  const result = await native.restore(request.placeholder, {
    cgroupRoot: request.cgroupRoot,
    rootAt: options.rootPath,
    pidfile: options.pidfile,
    privateIpc: request.privateIpc,
    fds: request.fds,
    argv: restoreArguments(options),
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...request.environment },
    logPrefix,
    deadlineMs: request.deadlineMs,
    signal: request.signal,
  });
  if (result.exitCode !== 0)
    throw await criuFailure('RESTORE_FAILED', result, options.workDir, 'restore', request.signal);
  return native.parseRestored(await readTail(`${logPrefix}.out`, LOG_BYTES));
}

async function criuFailure(
  code: ErrorCode,
  result: RunResult,
  workDir: string,
  name: 'dump' | 'restore',
  signal: AbortSignal | undefined,
): Promise<SnapshotError> {
  if (result.undead) return new SnapshotError('TARGET_QUARANTINED', `criu ${name} does not die after SIGKILL`);
  if (result.timedOut) return new SnapshotError('STEP_TIMEOUT', `criu ${name} passed its deadline`);
  if (signal?.aborted) return new SnapshotError('CANCELLED', `criu ${name} was cancelled`);
  const log = await readTail(`${workDir}/${name}.log`, LOG_BYTES);
  const stderr = await readTail(`${workDir}/${name}.err`, 4096);
  const found = diagnose(log);
  const first = found[0];
  const ended = result.signal ?? `status ${result.exitCode}`;
  const tail = logTail(log, 20).trim() || stderr.trim() || 'no log was written';
  return new SnapshotError(
    code,
    first === undefined
      ? `criu ${name} ended with ${ended}; the end of its log: ${tail}`
      : `criu ${name} ended with ${ended}: ${first.explanation} (${first.line})`,
    {
      reasons: found.map(({ code: reason, line, explanation, advice }) => ({
        code: reason,
        message: explanation,
        found: line,
        wanted: '',
        advice,
      })),
    },
  );
}
