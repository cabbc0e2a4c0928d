import { readFile } from 'node:fs/promises';
import type { ProcessId } from '../host/native.ts';
import { readProcess, readTree } from './tree.ts';

/** One line of /proc/PID/cgroup: which hierarchy, and the path in it. */
interface CgroupLine {
  readonly hierarchy: number;
  readonly controllers: string;
  readonly path: string;
}

function parseCgroup(text: string): CgroupLine[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [hierarchy = '', controllers = '', ...path] = line.split(':');
      return { hierarchy: Number(hierarchy), controllers, path: path.join(':') };
    });
}

/**
 * Every process of a container: the tree of its PID 1 and whatever else is in its cgroup, such as what somebody started in it with
 * exec. Processes that end meanwhile are left out.
 */
export async function containerTasks(
  roots: { procRoot: string; cgroupRoot: string },
  mainPid: number,
): Promise<ProcessId[]> {
  const tree = await readTree(roots.procRoot, mainPid);
  const ids = new Map(tree.map(({ stat }) => [stat.pid, { pid: stat.pid, start: stat.start }]));
  for (const pid of await cgroupPids(roots, mainPid)) {
    if (ids.has(pid)) continue;
    const process = await readProcess(roots.procRoot, pid);
    if (process !== undefined) ids.set(pid, { pid, start: process.stat.start });
  }
  return [...ids.values()];
}

async function cgroupPids(
  { procRoot, cgroupRoot }: { procRoot: string; cgroupRoot: string },
  mainPid: number,
): Promise<number[]> {
  const lines = parseCgroup(await readFile(`${procRoot}/${mainPid}/cgroup`, 'utf8').catch(() => ''));
  // A process on the root cgroup would make every process of the machine a task of the container.
  const line = lines.find(({ controllers, path }) => path !== '/' && (controllers === '' || controllers === 'pids'));
  if (line === undefined) return [];
  const places =
    line.controllers === '' ? [cgroupRoot, `${cgroupRoot}/unified`] : [`${cgroupRoot}/${line.controllers}`];
  for (const place of places) {
    const text = await readFile(`${place}${line.path}/cgroup.procs`, 'utf8').catch(() => undefined);
    if (text !== undefined) return text.split('\n').filter(Boolean).map(Number);
  }
  return [];
}
