import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { expect } from 'vitest';
import { adopt, cudaPath, environment, type Subject, scratch, standinPath, start } from './programs.ts';
import { Standin, type StandinGpu, standinGpu } from './standin/standin.ts';

export type Answer = Record<string, unknown>;

/** How long a condition is waited for on a busy machine. */
export const GENEROUS = { timeout: 30_000 };

/** A stand-in with GPUs like these; two of a kind without them. */
export function openStandin(gpus: readonly StandinGpu[] = [standinGpu(0), standinGpu(1)]): Standin {
  return new Standin(scratch(), gpus);
}

export interface SessionOptions {
  readonly libcuda?: readonly string[];
  readonly libnvml?: readonly string[];
  readonly env?: Record<string, string>;
}

/** The command line of snapshot-cuda. */
export function cudaCommand({ libcuda, libnvml }: SessionOptions = {}): [string, ...string[]] {
  return [
    cudaPath,
    ...(libcuda ?? [standinPath('libcuda.so.1')]).flatMap((path) => ['--libcuda', path]),
    ...(libnvml ?? [standinPath('libnvidia-ml.so.1')]).flatMap((path) => ['--libnvml', path]),
  ];
}

/** A snapshot-cuda that runs. */
export interface Session {
  readonly hello: Answer;
  readonly child: ChildProcess;
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** Sends one request; its answer. Rejects when the program ends instead. */
  ask(request: string | Buffer): Promise<Answer>;
  /** Ends its input; its exit status. */
  end(): Promise<number | null>;
}

/** Starts snapshot-cuda over the stand-in and waits for its first line. */
export async function openSession(standin: Standin, options: SessionOptions = {}): Promise<Session> {
  const [program, ...args] = cudaCommand(options);
  const child = spawn(program, args, {
    env: { ...environment, SNAPSHOT_STANDIN_DIR: standin.directory, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  adopt(child);
  let complaints = '';
  child.stderr.on('data', (text) => (complaints += String(text)));
  child.stdin.on('error', () => undefined);
  const lines = createInterface({ input: child.stdout });
  const waiting: { done: (answer: Answer) => void; failed: (reason: Error) => void }[] = [];
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((done) => {
    child.on('close', (code, signal) => {
      done({ code, signal });
      for (const { failed } of waiting.splice(0)) failed(new Error(`it ended: ${code ?? signal} ${complaints}`));
    });
  });
  lines.on('line', (line) => waiting.shift()?.done(JSON.parse(line) as Answer));
  const next = () => new Promise<Answer>((done, failed) => waiting.push({ done, failed }));
  return {
    hello: await next(),
    child,
    ended,
    ask: (request) => {
      const answer = next();
      child.stdin.write(request);
      child.stdin.write('\n');
      return answer;
    },
    end: async () => {
      child.stdin.end();
      return (await ended).code;
    },
  };
}

/** What a worker says of itself. */
export interface Beat {
  readonly beat: number;
  readonly hash: string;
  readonly reported: readonly string[];
  readonly on: readonly string[];
}

export interface Worker extends Subject {
  /** Its last beat. */
  last(): Beat;
  /** The next beat from now on. */
  next(): Promise<Beat>;
}

/** Starts a CUDA process of the stand-in (standin/worker.c) and waits until it works. */
export async function startWorker(standin: Standin, ...args: string[]): Promise<Worker> {
  const report = join(scratch(), 'report');
  const subject = await start([standinPath('standin-worker'), '--every', '10', '--report', report, ...args], {
    ready: true,
    env: { SNAPSHOT_STANDIN_DIR: standin.directory },
  });
  const last = () => JSON.parse(readFileSync(report, 'utf8')) as Beat;
  await expect.poll(last, GENEROUS).toBeDefined();
  const next = async () => {
    const { beat } = last();
    await expect.poll(() => last().beat, GENEROUS).toBeGreaterThan(beat);
    return last();
  };
  return { ...subject, last, next };
}

/** What a call answers that went well. */
export const timed = { ok: true, seconds: expect.any(Number) };
export const stateIs = (state: string) => ({ ok: true, state });
export const illegal = (call: string) => ({
  ok: false,
  error: 401,
  name: 'CUDA_ERROR_ILLEGAL_STATE',
  text: 'the operation cannot be performed in the present state',
  call,
});

/** A CUDA process, and a session to act upon it. */
export async function open(...args: string[]) {
  const standin = openStandin();
  const worker = await startWorker(standin, ...args);
  const session = await openSession(standin);
  return { standin, worker, session, pid: worker.pid };
}

/** Locks and checkpoints a process, which must succeed. */
export async function checkpoint(session: Session, pid: number): Promise<void> {
  expect(await session.ask(`lock ${pid} 10000`)).toEqual(timed);
  expect(await session.ask(`checkpoint ${pid}`)).toEqual(timed);
  expect(await session.ask(`state ${pid}`)).toEqual(stateIs('checkpointed'));
}

/** What the process has open; what it closes meanwhile may be missing. */
export function openFilesOf(pid: number): string[] {
  const linkOf = (name: string) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${name}`)];
    } catch {
      return [];
    }
  };
  return readdirSync(`/proc/${pid}/fd`).flatMap(linkOf);
}

/** What the process has open and mapped of its stand-in's devices and their memory. */
export function devicesOf(pid: number, directory: string): string[] {
  const mapped = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
  return [...openFilesOf(pid), ...mapped].filter(
    (line) => line.includes(`${directory}/dev/`) || line.includes('/memory/GPU-'),
  );
}

export interface Variant {
  /** Functions that the library lacks. */
  readonly without?: readonly string[];
  /** A function that `source` has in the place of the stand-in's. */
  readonly rename?: string;
  /** Further C source. */
  readonly source?: string;
}

/** Builds a stand-in library that differs. Returns its path. */
export function buildVariant(library: 'libcuda' | 'libnvidia-ml', { without = [], rename, source }: Variant): string {
  const directory = scratch();
  const script = join(directory, 'symbols.map');
  const main = join(directory, 'main.c');
  const path = join(directory, `${library}.so.1`);
  const here = resolve('test/native/standin');
  const original = `#include "${join(here, `${library}.c`)}"\n`;
  writeFileSync(script, `{ global: cu*; nvml*; local: ${without.map((name) => `${name}; `).join('')}*; };\n`);
  writeFileSync(
    main,
    (rename ? `#define ${rename} renamed\n${original}#undef ${rename}\n` : original) + (source ?? ''),
  );
  const sources = [main, join(here, 'faults.c'), join(here, 'standin.c')];
  const flags = ['-O1', '-shared', '-fPIC', '-D_GNU_SOURCE', `-I${here}`, `-Wl,--version-script=${script}`];
  execFileSync('gcc', [...flags, '-o', path, ...sources]);
  return path;
}
