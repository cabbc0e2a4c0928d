import { open } from 'node:fs/promises';
import type { Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { execa, type Options, type ResultPromise } from 'execa';
import { SnapshotError } from '../errors.ts';

/** How long a killed child may take to vanish before it counts as undead (it hangs in the kernel, on hard-mounted storage for one). */
const KILL_GRACE_MS = 10_000;
/** No verb of the native helper answers with more than this. */
const MAX_OUTPUT_BYTES = 16 << 20;

export interface RunRequest {
  /** Program and arguments; never a shell line. */
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** After this many milliseconds the child's process group gets SIGKILL. */
  readonly deadlineMs: number;
  /** Aborting it kills the process group at once. */
  readonly signal?: AbortSignal | undefined;
}

export interface RunResult {
  /** Exit code, or null where a signal ended the child. */
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly timedOut: boolean;
  /** True where the child was still there ten seconds after SIGKILL: its target must not be used again. */
  readonly undead: boolean;
}

/**
 * Runs a program whose descendants may outlive it and keep its output open (CRIU with -d): standard output and error go to files
 * made anew, so that the end of the child is all that is waited for. Resolves for every way the child can end.
 */
export async function runToFiles(request: RunRequest & { stdoutFile: string; stderrFile: string }): Promise<RunResult> {
  const out = await open(request.stdoutFile, 'w', 0o600);
  try {
    const err = await open(request.stderrFile, 'w', 0o600);
    try {
      return await superviseChild(request, (program, args) =>
        execa(program, args, childOptions(request, ['ignore', out.fd, err.fd] as Options['stdio'])),
      );
    } finally {
      await err.close();
    }
  } finally {
    await out.close();
  }
}

export interface CallRequest extends RunRequest {
  readonly input?: string | Uint8Array;
  /** Written to descriptor 3 of the child: how a key reaches it without being an argument or a file. */
  readonly secret?: Uint8Array;
  /** Called with each line of standard output as it comes. */
  readonly onLine?: (line: string) => void;
}

/** Runs a program that leaves no descendants behind, and gives back what it printed. */
export async function call(request: CallRequest): Promise<RunResult & { stdout: string; stderr: string }> {
  let stdout = '';
  let stderr = '';
  const lines = splitLines((line) => request.onLine?.(line));
  const result = await superviseChild(request, (program, args) => {
    const pipes = ['pipe', 'pipe', 'pipe', ...(request.secret === undefined ? [] : ['pipe'])] as Options['stdio'];
    const child = execa(program, args, childOptions(request, pipes));
    feed(child.stdin, request.input ?? '');
    if (request.secret !== undefined) feed(child.stdio[3] as Writable | null, request.secret);
    collect(child.stdout, (text) => {
      if (stdout.length < MAX_OUTPUT_BYTES) stdout += text;
      lines.take(text);
    });
    collect(child.stderr, (text) => {
      if (stderr.length < MAX_OUTPUT_BYTES) stderr += text;
    });
    return child;
  });
  lines.end();
  return { ...result, stdout, stderr };
}

/** Puts text that comes in pieces together to lines. */
function splitLines(onLine: (line: string) => void): { take(text: string): void; end(): void } {
  let rest = '';
  return {
    take: (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      lines.forEach(onLine);
    },
    end: () => {
      if (rest !== '') onLine(rest);
    },
  };
}

/** Writes and closes; a child that ended without reading is no error of ours. */
function feed(stream: Writable | null | undefined, content: string | Uint8Array): void {
  stream?.on('error', () => undefined);
  stream?.end(content);
}

function collect(stream: NodeJS.ReadableStream | null | undefined, take: (text: string) => void): void {
  stream?.setEncoding('utf8');
  stream?.on('data', take);
}

function childOptions(request: RunRequest, stdio: Options['stdio']): Options {
  const env = { ...request.env };
  return { env, extendEnv: false, detached: true, reject: false, cleanup: false, buffer: false, stdio };
}

async function superviseChild(
  request: RunRequest,
  start: (program: string, args: readonly string[]) => ResultPromise<Options>,
): Promise<RunResult> {
  const [program, ...args] = request.argv;
  if (program === undefined) throw new SnapshotError('INTERNAL', 'asked to run an empty command');
  const child = start(program, args);
  let timedOut = false;
  let grace: NodeJS.Timeout | undefined;
  let giveUp: (outcome: 'undead') => void = () => undefined;
  const undead = new Promise<'undead'>((resolve) => {
    giveUp = resolve;
  });
  const kill = () => {
    killGroup(child.pid);
    grace ??= setTimeout(() => giveUp('undead'), KILL_GRACE_MS);
  };
  const deadline = setTimeout(() => {
    timedOut = true;
    kill();
  }, request.deadlineMs);
  request.signal?.addEventListener('abort', kill, { once: true });
  if (request.signal?.aborted) kill();
  try {
    const ended = await Promise.race([child, undead]);
    if (ended === 'undead') return { exitCode: null, signal: 'SIGKILL', timedOut, undead: true };
    if (ended.exitCode === undefined && ended.signal === undefined)
      throw new SnapshotError('INTERNAL', `cannot start ${program}: ${ended.message}`, { cause: ended });
    return { exitCode: ended.exitCode ?? null, signal: ended.signal ?? null, timedOut, undead: false };
  } finally {
    clearTimeout(deadline);
    clearTimeout(grace);
    request.signal?.removeEventListener('abort', kill);
  }
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // The group ended by itself meanwhile.
  }
}

/** How long a child may take to answer a line: one that hangs in the kernel must not hold up who asks. */
const ANSWER_MS = 30_000;

/** A child did not answer in time, and was killed. */
export class NoAnswer extends Error {}

/** A child that answers one line to each line it is sent, and may send lines on its own. */
export interface LineSession {
  readonly pid: number | undefined;
  /** Sends a line and resolves with the next line of the child; rejects where the child ends first, or with NoAnswer where it hangs. */
  ask(line: string, answerMs?: number): Promise<string>;
  /** Resolves with the lines that nobody asked for, the last one before the end of the child; never rejects. */
  readonly ended: Promise<string[]>;
  /** Ends its input: it ends by itself. */
  stop(): void;
  /** Kills it. Resolves with whether it is gone: one that hangs in the kernel is still there ten seconds later. */
  kill(): Promise<boolean>;
}

/**
 * Starts such a child. `first` is its first line, which has to come within `answerMs`. Lines for which `isNotice` holds are no answers
 * but notices.
 */
export async function openSession(
  argv: readonly string[],
  isNotice: (line: string) => boolean,
  {
    answerMs = ANSWER_MS,
    env = {},
  }: { readonly answerMs?: number; readonly env?: Readonly<Record<string, string>> } = {},
): Promise<{ first: string; session: LineSession }> {
  const [program = '', ...args] = argv;
  const child = execa(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    buffer: false,
    env: { ...env },
    extendEnv: false,
    detached: true,
    reject: false,
    cleanup: true,
  });
  child.stdin?.on('error', () => undefined);
  const waiting: { resolve: (line: string) => void; reject: (error: Error) => void }[] = [];
  const notices: string[] = [];
  let stderr = '';
  let over = false;
  collect(child.stderr, (text) => {
    stderr = (stderr + text).slice(-4096);
  });
  const lines = splitLines((line) => {
    if (isNotice(line)) notices.push(line);
    else waiting.shift()?.resolve(line);
  });
  collect(child.stdout, lines.take);
  const ended = child.then(() => {
    over = true;
    for (const { reject } of waiting.splice(0)) reject(new Error(stderr.trim() || `${program} ended`));
    return notices;
  });
  const next = (withinMs: number) =>
    new Promise<string>((resolve, reject) => {
      if (over) {
        reject(new Error(stderr.trim() || `${program} ended`));
        return;
      }
      const late = setTimeout(() => {
        reject(new NoAnswer(`${program} does not answer`));
        killGroup(child.pid);
      }, withinMs);
      const settle =
        <T>(act: (value: T) => void) =>
        (value: T) => {
          clearTimeout(late);
          act(value);
        };
      waiting.push({ resolve: settle(resolve), reject: settle(reject) });
    });
  const first = await next(answerMs);
  return {
    first,
    session: {
      pid: child.pid,
      ask: (line, withinMs = ANSWER_MS) => {
        const answer = next(withinMs);
        child.stdin?.write(`${line}\n`);
        return answer;
      },
      ended,
      stop: () => child.stdin?.end(),
      kill: async () => {
        if (!over) killGroup(child.pid);
        const late = sleep(KILL_GRACE_MS, 'late', { ref: false });
        return (await Promise.race([ended, late])) !== 'late';
      },
    },
  };
}

/** The last `bytes` of a text file, '' where there is none. */
export async function readTail(path: string, bytes: number): Promise<string> {
  const handle = await open(path, 'r').catch(() => undefined);
  if (handle === undefined) return '';
  try {
    const { size } = await handle.stat();
    const length = Math.min(size, bytes);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, size - length);
    return buffer.subarray(0, bytesRead).toString('utf8');
  } catch {
    return '';
  } finally {
    await handle.close();
  }
}
