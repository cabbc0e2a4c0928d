import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { cgroupsOf, type Roots } from './tasks.ts';

/** How much memory a process may still take, and who says so. */
export interface MemoryRoom {
  readonly bytes: number;
  /** The limit of a cgroup of the container or its pod; or the memory of the node. */
  readonly boundBy: 'cgroup' | 'node';
}

/** What the file of a memory cgroup is called in each version. */
const FILES = {
  unified: { limit: 'memory.max', usage: 'memory.current', cache: ['inactive_file', 'active_file'] },
  legacy: {
    limit: 'memory.limit_in_bytes',
    usage: 'memory.usage_in_bytes',
    cache: ['total_inactive_file', 'total_active_file'],
  },
} as const;

/**
 * The smallest room of the node and of every memory cgroup that the process is in. The page cache counts as room: the kernel takes it back
 * before it kills.
 */
export async function memoryRoom(roots: Roots, pid: number): Promise<MemoryRoom> {
  let room = await nodeRoom(roots);
  for (const { directory, files } of await memoryCgroups(roots, pid)) {
    const bytes = await cgroupRoom(directory, files);
    if (bytes !== undefined && bytes < room.bytes) room = { bytes, boundBy: 'cgroup' };
  }
  return room;
}

/** The room of the node alone: that of a container that does not run yet is not larger. */
export async function nodeRoom({ procRoot }: Pick<Roots, 'procRoot'>): Promise<MemoryRoom> {
  const meminfo = await readFile(`${procRoot}/meminfo`, 'utf8').catch(() => '');
  const available = /^MemAvailable:\s+(\d+) kB/m.exec(meminfo)?.[1];
  return { bytes: Number(available ?? Number.POSITIVE_INFINITY) * 1024, boundBy: 'node' };
}

type Files = (typeof FILES)[keyof typeof FILES];

/** The memory cgroup of a process and all above it. Version 2 may lie below its own directory, beside the hierarchies of version 1. */
async function memoryCgroups({ procRoot, cgroupRoot }: Roots, pid: number) {
  const found: { directory: string; files: Files }[] = [];
  const add = (root: string, path: string, files: Files) => {
    for (let at = path; at !== '/' && at !== '.'; at = dirname(at)) found.push({ directory: join(root, at), files });
  };
  for (const { controllers, path } of await cgroupsOf(procRoot, pid)) {
    if (controllers === 'memory') add(join(cgroupRoot, 'memory'), path, FILES.legacy);
    if (controllers === '')
      for (const root of [cgroupRoot, join(cgroupRoot, 'unified')]) add(root, path, FILES.unified);
  }
  return found;
}

/** Undefined where the cgroup has no limit, or is not to be read. */
async function cgroupRoom(directory: string, files: Files): Promise<number | undefined> {
  const read = (name: string) => readFile(join(directory, name), 'utf8').catch(() => '');
  const [limit, usage, stat] = await Promise.all([read(files.limit), read(files.usage), read('memory.stat')]);
  if (!/^\d+\n?$/.test(limit) || !/^\d+\n?$/.test(usage)) return undefined;
  const cache = files.cache.reduce(
    (sum, name) => sum + Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(stat)?.[1] ?? 0),
    0,
  );
  return Math.max(0, Number(limit) - Math.max(0, Number(usage) - cache));
}
