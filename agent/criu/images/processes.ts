import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { type Credentials, readCredentials } from './credentials.ts';
import { readImage, readOnlyEntry } from './file.ts';
import { bytesOf, corrupt, inner, inners, type Message, parseMessage, required, text, uint, uints } from './wire.ts';

type ProcessState = 'alive' | 'dead' | 'stopped' | 'zombie';

/** CRIU's task states. Others (helpers, undefined) CRIU makes itself and never writes. */
const STATES: ReadonlyMap<number, ProcessState> = new Map([
  [1, 'alive'],
  [2, 'dead'],
  [3, 'stopped'],
  [6, 'zombie'],
]);

/** A process of the images. PIDs are those of the container's own PID namespace; `ppid` 0 is the root process. */
export interface Process {
  readonly pid: number;
  readonly ppid: number;
  readonly pgid: number;
  readonly sid: number;
  readonly threads: readonly number[];
  readonly state: ProcessState;
  readonly comm: string;
  /** One of each thread, the main thread's first; empty for the dead. */
  readonly credentials: readonly Credentials[];
}

const PID_MAX = 1 << 22;
const MAX_THREADS = 1 << 18;

function pidOf(value: number | undefined, message: Message, field: string): number {
  const pid = required(value, message, field);
  if (pid > PID_MAX) throw corrupt(`${message.name}: ${field} ${pid} is not a PID`);
  return pid;
}

async function readCore(dir: string, tid: number): Promise<Message> {
  const name = `core-${tid}.img`;
  return parseMessage(await readOnlyEntry(path.join(dir, name), 'core'), name);
}

async function readProcess(dir: string, entry: Message): Promise<Process> {
  const pid = pidOf(uint(entry, 1), entry, 'pid');
  const threads = uints(entry, 5);
  const core = await readCore(dir, pid);
  const task = required(inner(core, 3, `${core.name} task`), core, 'the task state');
  if (uint(task, 11) !== undefined) throw corrupt(`${core.name}: seccomp mode in the place of CRIU before 4`);
  const state = STATES.get(required(uint(task, 1), task, 'the state'));
  if (state === undefined) throw corrupt(`${core.name}: task state ${uint(task, 1)} is not known`);
  const credentials: Credentials[] = [];
  if (state === 'alive' || state === 'stopped') {
    if (!threads.includes(pid)) throw corrupt(`${core.name}: the main thread is not among the threads`);
    credentials.push(readCredentials(core, pid));
    for (const tid of threads) if (tid !== pid) credentials.push(readCredentials(await readCore(dir, tid), tid));
  }
  return {
    pid,
    ppid: pidOf(uint(entry, 2), entry, 'ppid'),
    pgid: pidOf(uint(entry, 3), entry, 'pgid'),
    sid: pidOf(uint(entry, 4), entry, 'sid'),
    threads,
    state,
    comm: text(task, 6) ?? '',
    credentials,
  };
}

/** Each process once, each parent there, every way up ends at a root. */
function checkTree(processes: readonly Process[]): void {
  const byPid = new Map(processes.map((process) => [process.pid, process]));
  if (byPid.size !== processes.length) throw corrupt('pstree.img names a process twice');
  const rooted = new Set<number>([0]);
  for (const process of processes) {
    const way: number[] = [];
    for (let at = process.pid; !rooted.has(at); at = byPid.get(at)?.ppid ?? -1) {
      if (at === -1) throw corrupt(`pstree.img: the parent of process ${way.at(-1)} is missing`);
      if (way.length > processes.length) throw corrupt(`pstree.img: process ${process.pid} is its own ancestor`);
      way.push(at);
    }
    for (const pid of way) rooted.add(pid);
  }
}

/** All processes of the images in the order of pstree.img (parents come before their children). */
export async function readProcesses(dir: string): Promise<Process[]> {
  const { entries } = await readImage(path.join(dir, 'pstree.img'), 'pstree');
  const messages = entries.map((entry, index) => parseMessage(entry, `pstree.img entry ${index}`));
  // Before the images of threads are read: one that is named again and again would be read as often.
  const threads = messages.flatMap((message) => uints(message, 5));
  if (threads.length > MAX_THREADS) throw corrupt(`pstree.img names ${threads.length} threads`);
  if (new Set(threads).size !== threads.length) throw corrupt('pstree.img names a thread twice');
  const processes: Process[] = [];
  for (const message of messages) processes.push(await readProcess(dir, message));
  checkTree(processes);
  return processes;
}

export interface SeccompFilter {
  /** In hex. */
  readonly code: string;
  /** The main thread installs it for every thread (TSYNC): so CRIU writes filters that all threads of a process have. */
  readonly ofAllThreads: boolean;
}

/** A thread's `seccompFilter` → its filters, oldest first. Throws ARTIFACT_CORRUPT for an index that leads nowhere. */
export type SeccompChains = (index: number) => readonly SeccompFilter[];

const TSYNC = 1;

/**
 * seccomp.img as a function from a thread's index to its whole chain. The index is that of the oldest filter and the field called
 * `prev` leads to the next newer one: so CRIU writes them, and in this order it installs them. Loops are refused.
 */
export async function readSeccompFilters(dir: string): Promise<SeccompChains> {
  const present = (await readdir(dir)).includes('seccomp.img');
  const message = present
    ? parseMessage(await readOnlyEntry(path.join(dir, 'seccomp.img'), 'seccomp'), 'seccomp.img')
    : undefined;
  const filters = message === undefined ? [] : inners(message, 1, 'seccomp filter');
  return (index) => {
    const chain: SeccompFilter[] = [];
    for (let at: number | undefined = index; at !== undefined; ) {
      const filter: Message | undefined = filters[at];
      if (filter === undefined) throw corrupt(`seccomp.img: there is no filter ${at}`);
      if (chain.length >= filters.length) throw corrupt(`seccomp.img: the chain of filter ${index} is a loop`);
      const code = required(bytesOf(filter, 1), filter, 'the code');
      if (code.length % 8 !== 0) throw corrupt(`seccomp.img: filter ${at} has ${code.length} bytes`);
      const ofAllThreads = ((uint(filter, 3) ?? 0) & TSYNC) !== 0;
      chain.push({ code: Buffer.from(code).toString('hex'), ofAllThreads });
      at = uint(filter, 2);
    }
    return chain;
  };
}

/** Facts of inventory.img. `lsm` is the security module of the dump; `plugins` the CRIU plugins that took part. */
export interface Inventory {
  readonly imageVersion: number;
  readonly lsm: 'none' | 'selinux' | 'apparmor';
  readonly plugins: readonly string[];
}

/** Reads inventory.img. Only image version 2 is taken: in older ones other files carry the credentials. */
export async function readInventory(dir: string): Promise<Inventory> {
  const message = parseMessage(await readOnlyEntry(path.join(dir, 'inventory.img'), 'inventory'), 'inventory.img');
  const imageVersion = required(uint(message, 1), message, 'the version');
  if (imageVersion !== 2) throw corrupt(`inventory.img has version ${imageVersion} instead of 2`);
  const lsm = (['none', 'selinux', 'apparmor'] as const)[uint(message, 6) ?? 0];
  const plugins = inner(message, 12, 'inventory plugins')?.fields.filter((field) => field.number === 12) ?? [];
  return {
    imageVersion,
    lsm: required(lsm, message, 'a known security module'),
    plugins: plugins.map((field) => Buffer.from(field.payload).toString()),
  };
}
