import { z } from 'zod';
import { type ErrorCode, SnapshotError } from '../errors.ts';
import { call, type LineSession, openSession, type RunResult, runToFiles } from './exec.ts';

/** A process named so that a recycled PID cannot be mistaken for it: host PID and start time (clock ticks since boot). */
export interface ProcessId {
  readonly pid: number;
  readonly start: number;
}

/** What `pin` sees of a process: its PIDs from the host's namespace inwards, and the inodes of its namespaces. */
export interface ProcessFacts extends ProcessId {
  readonly nspid: readonly number[];
  readonly ns: Readonly<Record<'mnt' | 'pid' | 'net' | 'ipc' | 'uts' | 'cgroup' | 'user', number>>;
}

const facts = z.object({
  pid: z.number(),
  start: z.number(),
  nspid: z.array(z.number()),
  ns: z.object({
    mnt: z.number(),
    pid: z.number(),
    net: z.number(),
    ipc: z.number(),
    uts: z.number(),
    cgroup: z.number(),
    user: z.number(),
  }),
});
const failure = z.object({
  verb: z.string().default(''),
  step: z.string().default(''),
  target: z.string().default(''),
  errno: z.string().default(''),
  code: z.string().default(''),
  message: z.string().default(''),
});

/** How the helper is called: where it lies, where the host's procfs is, how long a quick verb may take. */
export interface NativeOptions {
  readonly helperPath: string;
  readonly procRoot: string;
  readonly deadlineMs: number;
}

interface VerbCall<T> {
  readonly verb: string;
  readonly args: readonly string[];
  readonly shape: z.ZodType<T>;
  readonly code: ErrorCode;
  readonly deadlineMs?: number | undefined;
  readonly input?: string;
  readonly secret?: Uint8Array;
  readonly signal?: AbortSignal | undefined;
  readonly onLine?: (line: string) => void;
}

export interface LongVerb {
  readonly deadlineMs: number;
  readonly signal?: AbortSignal | undefined;
}

const captured = z.object({
  entries: z.number(),
  bytes: z.number(),
  removed: z.number().default(0),
  opaque: z.number().default(0),
  skipped: z.number(),
});
const looked = z.object({
  dir: z.boolean(),
  exists: z.boolean(),
  type: z.string().default(''),
  content: z.string().default(''),
});
const attached = z.object({ mountId: z.number(), fstype: z.string(), device: z.string(), readOnly: z.boolean() });
const probed = z.object({
  openat2: z.boolean(),
  pidfd: z.boolean(),
  openTree: z.boolean(),
  nosymfollow: z.boolean(),
  pidfdExitCode: z.boolean(),
  kernel: z.string(),
  capSysResource: z.boolean(),
});
const ipcUsage = z.object({ shm: z.number(), sem: z.number(), msg: z.number() });
const seccomp = z.object({ mode: z.number(), filters: z.array(z.string()) });
const restored = z.object({ pid: z.number(), start: z.number(), inner: z.number() });
const written = z.object({ blocks: z.number(), bytes: z.number(), zeroBytes: z.number(), keptBytes: z.number() });
const filled = z.object({ blocks: z.number(), bytes: z.number() });

export type NativeProbe = z.infer<typeof probed>;
export type Captured = z.infer<typeof captured>;
export type Seccomp = z.infer<typeof seccomp>;
export type Native = ReturnType<typeof openNative>;

/** The verbs of snapshot-helper (docs/native.md), typed. Nothing is started before the first call. */
export function openNative(options: NativeOptions) {
  const at = (id: ProcessId) => ['--pid', `${id.pid}`, '--start', `${id.start}`, '--proc', options.procRoot];

  const verb = async <T>(request: VerbCall<T>): Promise<T> => {
    const result = await call({
      argv: [options.helperPath, request.verb, ...request.args],
      deadlineMs: request.deadlineMs ?? options.deadlineMs,
      signal: request.signal,
      ...(request.input === undefined ? {} : { input: request.input }),
      ...(request.secret === undefined ? {} : { secret: request.secret }),
      ...(request.onLine === undefined ? {} : { onLine: request.onLine }),
    });
    if (result.exitCode !== 0) throw verbFailure(request, result);
    const last = result.stdout.trim().split('\n').at(-1) ?? '';
    return request.shape.parse(parseLine(last));
  };

  return {
    options,
    probe: () => verb({ verb: 'probe', args: [], shape: probed, code: 'CAPABILITY_MISSING' }),

    /** Opens a session that holds a pidfd on the process until it is stopped. */
    pin: async (pid: number, start?: number): Promise<{ facts: ProcessFacts; session: LineSession }> => {
      const argv = [options.helperPath, 'pin', '--pid', `${pid}`, '--proc', options.procRoot];
      if (start !== undefined) argv.push('--start', `${start}`);
      try {
        const { first, session } = await openSession(argv, (line) => line.startsWith('{"exited"'));
        return { facts: facts.parse(parseLine(first)), session };
      } catch (cause) {
        throw new SnapshotError('CONTAINER_GONE', `process ${pid} cannot be pinned: ${String(cause)}`, { cause });
      }
    },

    signal: (signal: number, processes: readonly ProcessId[]) =>
      verb({
        verb: 'signal',
        args: ['--sig', `${signal}`, ...processes.map((id) => `${id.pid}:${id.start}`)],
        shape: z.object({ sent: z.number(), gone: z.array(z.number()) }),
        code: 'INTERNAL',
      }),

    privateTmpfs: (dir: string, bytes: number) =>
      verb({ verb: 'private-tmpfs', args: ['--at', dir, '--size', `${bytes}`], shape: z.unknown(), code: 'INTERNAL' }),

    attach: (request: { path: string; at: string; inside?: ProcessId | undefined; create?: boolean }) =>
      verb({
        verb: 'attach',
        args: [
          '--path',
          request.path,
          '--at',
          request.at,
          ...(request.inside ? at(request.inside) : []),
          ...(request.create ? ['--create', '1'] : []),
        ],
        shape: attached,
        code: 'STORAGE_NOT_ATTACHED',
      }),
    detach: (dir: string) => verb({ verb: 'detach', args: ['--at', dir], shape: z.unknown(), code: 'INTERNAL' }),

    put: (id: ProcessId, dir: string, name: string, content: string) =>
      verb({
        verb: 'put',
        args: [...at(id), '--dir', dir, '--name', name],
        shape: z.unknown(),
        code: 'CONTROL_DIR_UNSAFE',
        input: content,
      }),
    look: (id: ProcessId, dir: string, name: string) =>
      verb({
        verb: 'look',
        args: [...at(id), '--dir', dir, '--name', name],
        shape: looked,
        code: 'CONTROL_DIR_UNSAFE',
      }),
    remove: (id: ProcessId, dir: string, name: string) =>
      verb({
        verb: 'remove',
        args: [...at(id), '--dir', dir, '--name', name],
        shape: z.object({ removed: z.boolean() }),
        code: 'CONTROL_DIR_UNSAFE',
      }),

    ipcUsage: (id: ProcessId) => verb({ verb: 'ipc-usage', args: at(id), shape: ipcUsage, code: 'INTERNAL' }),
    seccomp: (id: ProcessId) => verb({ verb: 'seccomp', args: at(id), shape: seccomp, code: 'INTERNAL' }),
    blockSignal: (id: ProcessId, signal: number) =>
      verb({ verb: 'block-signal', args: [...at(id), '--sig', `${signal}`], shape: z.unknown(), code: 'INTERNAL' }),
    injectExit: (id: ProcessId, code: number) =>
      verb({ verb: 'inject-exit', args: [...at(id), '--code', `${code}`], shape: z.unknown(), code: 'INTERNAL' }),
    arm: (id: ProcessId, innerPid: number) =>
      verb({
        verb: 'arm',
        args: [...at(id), '--inner', `${innerPid}`],
        shape: z.object({ armed: z.boolean() }),
        code: 'INTERNAL',
      }),

    captureUpper: (request: { upper: string; tar: string; removed: string; exclude: readonly string[] } & LongVerb) =>
      verb({
        verb: 'capture',
        args: [
          '--upper',
          request.upper,
          '--tar',
          request.tar,
          '--removed',
          request.removed,
          ...excludes(request.exclude),
        ],
        shape: captured,
        code: 'ROOTFS_FAILED',
        deadlineMs: request.deadlineMs,
        signal: request.signal,
      }),
    captureMount: (id: ProcessId, request: { mount: string; tar: string; removed: string } & LongVerb) =>
      verb({
        verb: 'capture',
        args: [...at(id), '--mount', request.mount, '--tar', request.tar, '--removed', request.removed],
        shape: captured,
        code: 'ROOTFS_FAILED',
        deadlineMs: request.deadlineMs,
        signal: request.signal,
      }),
    apply: (id: ProcessId, request: { mount: string; tar: string; removed?: string } & LongVerb) =>
      verb({
        verb: 'apply',
        args: [
          ...at(id),
          '--mount',
          request.mount,
          '--tar',
          request.tar,
          ...(request.removed === undefined ? [] : ['--removed', request.removed]),
        ],
        shape: z.object({ entries: z.number(), removed: z.number(), skipped: z.number() }),
        code: 'ROOTFS_FAILED',
        deadlineMs: request.deadlineMs,
        signal: request.signal,
      }),

    bulkWrite: (request: { plan: string; bulk: string; index: string; key: Uint8Array; threads: number } & LongVerb) =>
      verb({
        verb: 'bulk-write',
        args: [
          '--plan',
          request.plan,
          '--bulk',
          request.bulk,
          '--index',
          request.index,
          '--key-fd',
          '3',
          '--threads',
          `${request.threads}`,
        ],
        shape: written,
        code: 'STORAGE_FAILED',
        secret: request.key,
        deadlineMs: request.deadlineMs,
        signal: request.signal,
      }),
    bulkFill: (
      request: {
        bulk: string;
        index: string;
        key: Uint8Array;
        threads: number;
        processes: ReadonlyMap<number, ProcessId> | 'verify-only';
        onProgress?: (bytes: number) => void;
      } & LongVerb,
    ) =>
      verb({
        verb: 'bulk-fill',
        args: [
          '--bulk',
          request.bulk,
          '--index',
          request.index,
          '--key-fd',
          '3',
          '--threads',
          `${request.threads}`,
          ...(request.processes === 'verify-only'
            ? ['--verify-only', '1']
            : [...request.processes].map(([inner, id]) => `${inner}=${id.pid}:${id.start}`)),
        ],
        shape: filled,
        code: 'FILL_FAILED',
        secret: request.key,
        deadlineMs: request.deadlineMs,
        signal: request.signal,
        onLine: (text) => {
          const done = /"done":(\d+)/.exec(text)?.[1];
          if (done !== undefined) request.onProgress?.(Number(done));
        },
      }),
    prefetch: (files: readonly string[], threads: number, limits: LongVerb) =>
      verb({
        verb: 'prefetch',
        args: ['--threads', `${threads}`, ...files],
        shape: z.object({ bytes: z.number() }),
        code: 'STORAGE_FAILED',
        ...limits,
      }),

    /** Joins namespaces of the process and executes a program there; output to files. */
    dump: (
      id: ProcessId,
      request: {
        join: readonly string[];
        argv: readonly string[];
        env: Record<string, string>;
        logPrefix: string;
      } & LongVerb,
    ): Promise<RunResult> =>
      runToFiles({
        argv: [
          options.helperPath,
          'dump',
          ...at(id),
          ...(request.join.length > 0 ? ['--join', request.join.join(',')] : []),
          '--',
          ...request.argv,
        ],
        env: request.env,
        deadlineMs: request.deadlineMs,
        signal: request.signal,
        stdoutFile: `${request.logPrefix}.out`,
        stderrFile: `${request.logPrefix}.err`,
      }),

    /** Runs CRIU's restore from inside the placeholder's namespaces; `stdout` of the result holds the restored root. */
    restore: (id: ProcessId, request: RestoreVerb & LongVerb): Promise<RunResult> =>
      runToFiles({
        argv: [
          options.helperPath,
          'restore',
          ...at(id),
          '--cgroup-root',
          request.cgroupRoot,
          '--root-at',
          request.rootAt,
          '--pidfile',
          request.pidfile,
          ...(request.privateIpc ? ['--private-ipc', '1'] : []),
          ...request.fds.flatMap(({ fd, source }) => ['--fd', `${fd}=${source}`]),
          '--',
          ...request.argv,
        ],
        env: request.env,
        deadlineMs: request.deadlineMs,
        signal: request.signal,
        stdoutFile: `${request.logPrefix}.out`,
        stderrFile: `${request.logPrefix}.err`,
      }),
    parseRestored: (line: string) => restored.parse(parseLine(line.trim().split('\n').at(-1) ?? '')),
  };
}

export interface RestoreVerb {
  readonly cgroupRoot: string;
  readonly rootAt: string;
  readonly pidfile: string;
  readonly privateIpc: boolean;
  readonly fds: readonly { readonly fd: number; readonly source: 'net' | 'stdin' | 'stdout' | 'stderr' | 'tty' }[];
  readonly argv: readonly string[];
  readonly env: Record<string, string>;
  readonly logPrefix: string;
}

const excludes = (patterns: readonly string[]) => patterns.flatMap((pattern) => ['--exclude', pattern]);

/** The helper's own codes that mean something else than "the verb failed". */
const CODES: Record<string, ErrorCode> = {
  TARGET_GONE: 'CONTAINER_GONE',
  SYMLINK_REFUSED: 'STORAGE_UNSAFE',
  NOT_A_VOLUME: 'STORAGE_UNSAFE',
  BAD_PLAN: 'INTERNAL',
  BAD_INDEX: 'ARTIFACT_CORRUPT',
  BAD_PATH: 'ARTIFACT_UNSAFE',
  DIGEST_MISMATCH: 'ARTIFACT_CORRUPT',
};

function verbFailure(request: VerbCall<unknown>, result: RunResult & { stderr: string }): SnapshotError {
  const what = `snapshot-helper ${request.verb}`;
  if (request.signal?.aborted && result.signal !== null) return new SnapshotError('CANCELLED', `${what} was cancelled`);
  if (result.undead) return new SnapshotError('TARGET_QUARANTINED', `${what} does not die after SIGKILL`);
  if (result.timedOut) return new SnapshotError('STEP_TIMEOUT', `${what} passed its deadline`);
  const parsed = failure.safeParse(parseLine(result.stderr.trim().split('\n').at(-1) ?? ''));
  if (!parsed.success)
    return new SnapshotError(
      request.code,
      `${what} ended with ${result.signal ?? result.exitCode}: ${result.stderr.slice(-2000)}`,
    );
  const { step, target, errno, code, message } = parsed.data;
  const mapped = errno === 'ENOSPC' || errno === 'EDQUOT' ? 'STORAGE_FULL' : (CODES[code] ?? request.code);
  // A symlink in the way of a sentinel is about the control directory, not about storage.
  const symlink = code === 'SYMLINK_REFUSED' && request.code === 'CONTROL_DIR_UNSAFE';
  return new SnapshotError(
    symlink ? 'CONTROL_DIR_UNSAFE' : mapped,
    `${what}: ${step} ${target}: ${message || errno || code}`,
  );
}

function parseLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
