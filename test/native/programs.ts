import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect } from 'vitest';

/** Where the programs under test lie; another build (sanitizers) is named by SNAPSHOT_NATIVE_DIR. */
const builtAt = resolve(process.env['SNAPSHOT_NATIVE_DIR'] ?? 'native/build');
export const helperPath = join(builtAt, 'snapshot-helper');
export const standbyPath = join(builtAt, 'snapshot-standby');
export const cudaPath = join(builtAt, 'snapshot-cuda');
/** What stands for a GPU: see standin/standin.h. */
export const standinPath = (name: 'libcuda.so.1' | 'libnvidia-ml.so.1' | 'standin-worker') =>
  join(builtAt, 'standin', name);
export const environment = { PATH: process.env['PATH'], ASAN_OPTIONS: 'detect_leaks=0' };

const children: ChildProcess[] = [];
const directories: string[] = [];

/** Ends every process and removes every directory that the tests of a file made. */
export async function tidyUp(): Promise<void> {
  const running = children.splice(0).filter((child) => child.exitCode === null && child.signalCode === null);
  const ends = running.map((child) => new Promise((done) => child.once('exit', done)));
  for (const child of running) {
    killBelow(child.pid ?? 0);
    child.kill('SIGKILL');
  }
  await Promise.all(ends);
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true, force: true });
}

/** Kills what a process has started, children first: they would outlive it. */
function killBelow(pid: number): void {
  for (const child of childrenOf(pid)) {
    killBelow(child);
    process.kill(child, 'SIGKILL');
  }
}

/** Has tidyUp end a process that a test file started on its own. */
export function adopt(child: ChildProcess): void {
  children.push(child);
}

/** A new directory, readable for everybody, removed by tidyUp. */
export function scratch(): string {
  const directory = mkdtempSync(join(tmpdir(), 'native-'));
  execFileSync('chmod', ['755', directory]);
  directories.push(directory);
  return directory;
}

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. */
export function run(argv: readonly string[], input: string | Buffer = ''): Promise<Finished> {
  const [program = '', ...args] = argv;
  const child = spawn(program, args, { env: environment });
  children.push(child);
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (text) => (stdout += String(text)));
  child.stderr.on('data', (text) => (stderr += String(text)));
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  return new Promise((done, failed) => {
    child.on('error', failed);
    child.on('close', (code, signal) => done({ code, signal, stdout, stderr }));
  });
}

/** Runs a verb that must succeed and returns its one line, parsed. `prefix` is a command that it is run by. */
export async function verb(args: readonly string[], options: { input?: string | Buffer; prefix?: string[] } = {}) {
  const result = await run([...(options.prefix ?? []), helperPath, ...args], options.input);
  expect(result, result.stderr).toMatchObject({ code: 0, stderr: '' });
  expect(result.stdout.trimEnd().split('\n')).toHaveLength(1);
  return JSON.parse(result.stdout) as Record<string, unknown>;
}

/** Runs a verb that must fail and returns its error line, parsed. */
export async function failure(args: readonly string[], options: { input?: string | Buffer; prefix?: string[] } = {}) {
  const result = await run([...(options.prefix ?? []), helperPath, ...args], options.input);
  expect(result).toMatchObject({ code: 1, stdout: '' });
  expect(result.stderr.trimEnd().split('\n')).toHaveLength(1);
  const line = JSON.parse(result.stderr) as Record<string, string>;
  expect(Object.keys(line)).toEqual(expect.arrayContaining(['verb', 'step', 'target', 'errno', 'message']));
  expect(line['verb']).toBe(args[0]);
  return line;
}

export interface Subject {
  readonly pid: number;
  readonly start: number;
  /** `--pid N --start T` */
  readonly target: string[];
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  readonly child: ChildProcess;
}

export interface StartOptions {
  /** The process meant is a descendant of what is started: the only child of the only child, this many times. */
  readonly generation?: number;
  readonly env?: Record<string, string>;
  readonly uid?: number;
  /** Wait for the line "ready" instead of for the exec. */
  readonly ready?: boolean;
  /** The name the process has when it is what was meant. */
  readonly comm?: string;
}

/** Starts a process and waits until it is what was meant to be started. */
export async function start(argv: readonly string[], options: StartOptions = {}): Promise<Subject> {
  const [program = '', ...args] = argv;
  const child = spawn(program, args, {
    env: { ...environment, ...options.env },
    stdio: ['ignore', 'pipe', 'ignore'],
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
  });
  children.push(child);
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((done) => {
    child.on('exit', (code, signal) => done({ code, signal }));
  });
  if (options.ready) await new Promise((done) => child.stdout.once('data', done));
  const comm = options.comm ?? program.slice(program.lastIndexOf('/') + 1).slice(0, 15);
  const pid = await until(() => {
    let found = child.pid ?? 0;
    for (let i = 0; i < (options.generation ?? 0); i++) found = childrenOf(found)[0] ?? 0;
    return found > 0 && existsSync(`/proc/${found}/comm`) && commOf(found) === comm ? found : undefined;
  });
  return { ...subjectOf(pid), ended, child };
}

/** The target options of a process that runs. */
export function subjectOf(pid: number): { pid: number; start: number; target: string[] } {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const started = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]);
  return { pid, start: started, target: ['--pid', `${pid}`, '--start', `${started}`] };
}

/** Polls until there is an answer. */
export async function until<T>(ask: () => T | undefined | false, limitMs = 4000): Promise<T> {
  const deadline = Date.now() + limitMs;
  for (;;) {
    const answer = ask();
    if (answer !== undefined && answer !== false) return answer;
    if (Date.now() > deadline) throw new Error(`nothing after ${limitMs} ms: ${ask.toString()}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}

export function childrenOf(pid: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

export function commOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trimEnd();
  } catch {
    return '';
  }
}

/** One field of /proc/PID/status; empty when the process has gone. */
export function statusOf(pid: number, field: string): string {
  try {
    return new RegExp(`^${field}:\\s*(.*)$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? '';
  } catch {
    return '';
  }
}

let subjectProgram: string | undefined;

/** Starts subject.c (see there) in a mode; it is compiled once for each test file. */
export function startSubject(mode: string, ...args: string[]): Promise<Subject> {
  return start([subjectPath(), mode, ...args], { ready: true });
}

export function subjectPath(): string {
  if (subjectProgram === undefined || !existsSync(subjectProgram)) {
    subjectProgram = join(scratch(), 'subject');
    execFileSync('gcc', ['-O1', '-static', '-pthread', '-o', subjectProgram, 'test/native/subject.c']);
  }
  return subjectProgram;
}

/**
 * A container in miniature: own mount namespace and root; its root filesystem is `host/root` outside, and /volume in it is a mount
 * whose content is `host/volume` outside.
 */
export async function startContainer(): Promise<Subject & { root: string; volume: string }> {
  const host = scratch();
  const script = `
    cd "${host}" && mkdir root volume && mount --bind root root && cd root
    mkdir usr proc old control volume plain tmp && ln -s usr/bin bin && ln -s usr/lib lib && ln -s usr/lib64 lib64
    mount --bind /usr usr && mount --bind ../volume volume && mount -t proc proc proc
    pivot_root . old && umount -l old && rmdir old && exec sleep infinity`;
  const subject = await start(['unshare', '-m', '--propagation', 'private', 'sh', '-ec', script], { comm: 'sleep' });
  return { ...subject, root: join(host, 'root'), volume: join(host, 'volume') };
}
