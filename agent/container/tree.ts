import { opendir, readdir, readFile, readlink } from 'node:fs/promises';
import { type ProcStat, type ProcStatus, parseStat, parseStatus } from './proc.ts';

/** A live process of a container's tree, as procfs shows it. */
export interface TreeProcess {
  readonly stat: ProcStat;
  readonly status: ProcStatus;
}

/** Reads one process; undefined where it is gone. */
export async function readProcess(procRoot: string, pid: number): Promise<TreeProcess | undefined> {
  try {
    const [stat, status] = await Promise.all([
      readFile(`${procRoot}/${pid}/stat`, 'utf8'),
      readFile(`${procRoot}/${pid}/status`, 'utf8'),
    ]);
    return { stat: parseStat(stat), status: parseStatus(status) };
  } catch {
    return undefined;
  }
}

const PF_EXITING = 0x4;
const SIGKILL_BIT = 1n << 8n;

/** Whether it ended, or is on the way: killed, it may take the kernel a long time to give back its memory and devices. */
export function isEnding({ stat, status }: TreeProcess): boolean {
  return 'ZX'.includes(stat.state) || (stat.flags & PF_EXITING) !== 0 || (status.pendingSignals & SIGKILL_BIT) !== 0n;
}

/** Deeper than any tree of a workload. A chain of processes that fork and end at once has no end, and is not followed. */
const MAX_DEPTH = 200;

/** The process and all its descendants, parents before children. Processes that end meanwhile are left out. */
export async function readTree(procRoot: string, rootPid: number): Promise<TreeProcess[]> {
  const found: TreeProcess[] = [];
  let level = [rootPid];
  for (let depth = 0; level.length > 0 && depth < MAX_DEPTH; depth++) {
    const children: number[] = [];
    for (const pid of level) {
      const process = await readProcess(procRoot, pid);
      if (process === undefined) continue;
      found.push(process);
      children.push(...(await childrenOf(procRoot, pid)));
    }
    level = children;
  }
  return found;
}

/** Children are listed with the thread that made them, so every thread is asked. */
async function childrenOf(procRoot: string, pid: number): Promise<number[]> {
  const tasks = await readdir(`${procRoot}/${pid}/task`).catch(() => []);
  const lists = await Promise.all(
    tasks.map((task) => readFile(`${procRoot}/${pid}/task/${task}/children`, 'utf8').catch(() => '')),
  );
  return lists.flatMap((list) => list.split(' ').filter(Boolean).map(Number));
}

/** How many descriptors the processes hold together; counting ends where there are more than `limit`. */
export async function countDescriptors(procRoot: string, tree: readonly TreeProcess[], limit: number): Promise<number> {
  let count = 0;
  for (const { stat } of tree) {
    const directory = await opendir(`${procRoot}/${stat.pid}/fd`).catch(() => undefined);
    if (directory === undefined) continue;
    for await (const _ of directory) {
      count += 1;
      if (count > limit) return count;
    }
  }
  return count;
}

/** Links read at once: a process may hold very many. */
const LINKS_AT_ONCE = 500;

/** Open descriptors of a process as `fd number → what it refers to` (readlink text). */
export async function readDescriptors(procRoot: string, pid: number): Promise<Map<number, string>> {
  const names = await readdir(`${procRoot}/${pid}/fd`).catch(() => []);
  const found = new Map<number, string>();
  for (let at = 0; at < names.length; at += LINKS_AT_ONCE)
    await Promise.all(
      names.slice(at, at + LINKS_AT_ONCE).map(async (name) => {
        const target = await readlink(`${procRoot}/${pid}/fd/${name}`).catch(() => undefined);
        if (target !== undefined) found.set(Number(name), target);
      }),
    );
  return found;
}
