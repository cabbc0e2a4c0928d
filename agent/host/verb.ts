import { z } from 'zod';
import { type ErrorCode, SnapshotError } from '../errors.ts';
import { call, type RunResult } from './exec.ts';

/** A process named so that a recycled PID cannot be mistaken for it: host PID and start time (clock ticks since boot). */
export interface ProcessId {
  readonly pid: number;
  readonly start: number;
}

/** How the helper is called: where it lies, where the host's procfs is, how long a quick verb may take. */
export interface NativeOptions {
  readonly helperPath: string;
  readonly procRoot: string;
  readonly deadlineMs: number;
}

/** One call of a verb: its arguments, the shape of its answer, and the code of its failure where the helper has no better one. */
export interface VerbCall<T> {
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

/** Limits of a verb whose time depends on how much is to be moved. */
export interface LongVerb {
  readonly deadlineMs: number;
  readonly signal?: AbortSignal | undefined;
}

/** The arguments that name a process. */
export const targetArguments = (options: NativeOptions, id: ProcessId) => [
  '--pid',
  `${id.pid}`,
  '--start',
  `${id.start}`,
  '--proc',
  options.procRoot,
];

/** Runs a verb of snapshot-helper and reads its answer. Throws the SnapshotError that the helper's failure means. */
export async function callVerb<T>(options: NativeOptions, request: VerbCall<T>): Promise<T> {
  const { verb, args, input, secret, onLine } = request;
  const result = await call({
    argv: [options.helperPath, verb, ...args],
    deadlineMs: request.deadlineMs ?? options.deadlineMs,
    signal: request.signal,
    ...(input === undefined ? {} : { input }),
    ...(secret === undefined ? {} : { secret }),
    ...(onLine === undefined ? {} : { onLine }),
  });
  if (result.exitCode !== 0) throw verbFailure(request, result);
  return request.shape.parse(parseLine(result.stdout.trim().split('\n').at(-1) ?? ''));
}

const failure = z.object({
  verb: z.string().default(''),
  step: z.string().default(''),
  target: z.string().default(''),
  errno: z.string().default(''),
  code: z.string().default(''),
  message: z.string().default(''),
});

/** The helper's own codes that mean something else than "the verb failed". */
const CODES: Record<string, ErrorCode> = {
  TARGET_GONE: 'CONTAINER_GONE',
  SYMLINK_REFUSED: 'STORAGE_UNSAFE',
  NOT_A_VOLUME: 'STORAGE_UNSAFE',
  BAD_PLAN: 'INTERNAL',
  BAD_INDEX: 'ARTIFACT_CORRUPT',
  BAD_PATH: 'ARTIFACT_UNSAFE',
  BAD_REMOVED: 'ARTIFACT_CORRUPT',
  BAD_ARCHIVE: 'ARTIFACT_CORRUPT',
  DIGEST_MISMATCH: 'ARTIFACT_CORRUPT',
  SIGNAL_NOT_BLOCKED: 'CAPABILITY_MISSING',
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
  // A symlink in the way of a sentinel is about the control directory, one in the way to device nodes about them: not about storage.
  const isOwn = code === 'SYMLINK_REFUSED' && ['CONTROL_DIR_UNSAFE', 'GPU_IDENTITY'].includes(request.code);
  return new SnapshotError(isOwn ? request.code : mapped, `${what}: ${step} ${target}: ${message || errno || code}`);
}

/** A line of JSON, or undefined where it is none. */
export function parseLine(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
