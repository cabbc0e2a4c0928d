import { readFile } from 'node:fs/promises';
import type { ProcessId } from '../host/native.ts';
import { readProcess, readTree } from './tree.ts';

/** Where the host's procfs and cgroups are. */
export interface Roots {
  readonly procRoot: string;
  readonly cgroupRoot: string;
}

/** One line of /proc/PID/cgroup: which hierarchy, and the path in it. */
interface CgroupLine {
  readonly hierarchy: number;
  readonly controllers: string;
  readonly path: string;
}

/** The cgroups of a process, in each hierarchy. */
export async function cgroupsOf(procRoot: string, pid: number): Promise<CgroupLine[]> {
  return (await readFile(`${procRoot}/${pid}/cgroup`, 'utf8').catch(() => ''))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [hierarchy = '', controllers = '', ...path] = line.split(':');
      return { hierarchy: Number(hierarchy), controllers, path: path.join(':') };
    });
}

/** Stopped, being traced, dead, or in the kernel on the way to a stop. */
const AT_REST = 'TtZXD';

/**
 * Every process of a container: the tree of its PID 1 and whatever else is in its cgroup, such as what somebody started in it with
 * exec. Processes that end meanwhile are left out.
 */
export async function containerTasks(roots: Roots, mainPid: number): Promise<ProcessId[]> {
  return (await lookAtTasks(roots, mainPid)).tasks;
}

/** The same, and how many of them run, or came and went while they were looked at. */
export async function lookAtTasks(
  roots: Roots,
  mainPid: number,
): Promise<{ readonly tasks: ProcessId[]; readonly restless: number }> {
  const tree = await readTree(roots.procRoot, mainPid);
  const found = new Map(tree.map(({ stat }) => [stat.pid, stat]));
  let gone = 0;
  for (const pid of await cgroupPids(roots, mainPid)) {
    if (found.has(pid)) continue;
    const process = await readProcess(roots.procRoot, pid);
    if (process === undefined) gone += 1;
    else found.set(pid, process.stat);
  }
  const stats = [...found.values()];
  const awake = stats.filter(({ state }) => !AT_REST.includes(state)).length;
  return { tasks: stats.map(({ pid, start }) => ({ pid, start })), restless: awake + gone };
}

async function cgroupPids({ procRoot, cgroupRoot }: Roots, mainPid: number): Promise<number[]> {
  const lines = await cgroupsOf(procRoot, mainPid);
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
