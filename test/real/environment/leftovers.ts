import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { readFile, rm, rmdir, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { eventually, host } from './host.ts';
import { killAll, type ProcessView, processes } from './processes.ts';

/** Directories of clusters are named so, and so are their cgroups: a cluster that nobody stopped can be found again. */
export const CLUSTER_PREFIX = 'snapc-';

const CGROUPS = '/sys/fs/cgroup';

function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

/** Notes whose cluster this is, and the name of its bridge. */
export async function noteOwner(directory: string, bridge: string): Promise<void> {
  await writeFile(join(directory, 'owner'), `${process.pid} ${startTime(process.pid)} ${bridge}\n`);
}

async function ownerOf(directory: string): Promise<{ alive: boolean; bridge: string } | undefined> {
  const text = await readFile(join(directory, 'owner'), 'utf8').catch(() => undefined);
  const [pid, start, bridge] = text?.trim().split(' ') ?? [];
  return pid && start && bridge ? { alive: startTime(Number(pid)) === start, bridge } : undefined;
}

/** Processes of a cluster: all in its cgroups, its containerd, and the shims of that. */
function clusterProcesses(directory: string): ProcessView[] {
  const group = `/${basename(directory)}`;
  return processes().filter(
    (one) =>
      one.pid !== process.pid &&
      (one.cgroups.includes(`${group}/`) ||
        one.cgroups.includes(`${group}-agent`) ||
        one.command.includes(`-address ${directory}/containerd.sock`) ||
        one.command.startsWith(`containerd --config ${directory}/`)),
  );
}

function mountsBelow(directory: string): string[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path === directory || path.startsWith(`${directory}/`));
}

/** Lets those go on who wait to write into a file system that a test has frozen: nothing ends them as long as they wait. */
async function thaw(directory: string): Promise<void> {
  for (const path of mountsBelow(directory)) await host(['fsfreeze', '--unfreeze', path]).catch(() => undefined);
}

function cgroupsOf(directory: string): string[] {
  const found: string[] = [];
  const hierarchies = existsSync(join(CGROUPS, 'cgroup.procs'))
    ? [CGROUPS]
    : readdirSync(CGROUPS).map((name) => join(CGROUPS, name));
  const visit = (path: string) => {
    for (const entry of readdirSync(path, { withFileTypes: true }))
      if (entry.isDirectory()) visit(join(path, entry.name));
    found.push(path);
  };
  for (const hierarchy of hierarchies) {
    if (!statSync(hierarchy).isDirectory()) continue;
    for (const name of readdirSync(hierarchy))
      if (name === basename(directory) || name.startsWith(`${basename(directory)}-`)) visit(join(hierarchy, name));
  }
  return [...new Set(found)];
}

/** Everything that a cluster left behind on this machine, in words; empty where it left nothing. */
export function leftovers(directory: string, bridge: string): string[] {
  return [
    // A zombie holds nothing any more: this machine's first process collects it sooner or later.
    ...clusterProcesses(directory)
      .filter((one) => one.state !== 'Z')
      .map((one) => `process ${one.pid} ${one.command}`),
    ...mountsBelow(directory).map((path) => `mount ${path}`),
    ...cgroupsOf(directory).map((path) => `cgroup ${path}`),
    ...(existsSync(`/sys/class/net/${bridge}`) ? [`bridge ${bridge}`] : []),
    ...(existsSync(directory) ? [`directory ${directory}`] : []),
  ];
}

/** Removes whatever is left of a cluster, however it ended. */
export async function removeLeftovers(directory: string, bridge: string): Promise<void> {
  await thaw(directory);
  await killAll(`the processes of ${directory}`, () => clusterProcesses(directory));
  for (const path of mountsBelow(directory).reverse()) await host(['umount', '--lazy', path]).catch(() => undefined);
  await eventually(
    `the cgroups of ${directory} to be removable`,
    async () => {
      for (const path of cgroupsOf(directory)) await rmdir(path).catch(() => undefined);
      return cgroupsOf(directory).length === 0 ? true : undefined;
    },
    { explain: () => cgroupsOf(directory).join('\n') },
  );
  if (bridge && existsSync(`/sys/class/net/${bridge}`)) await host(['ip', 'link', 'delete', bridge]);
  if (mountsBelow(directory).length > 0)
    throw new Error(`${directory} still has mounts, so it stays: ${mountsBelow(directory)}`);
  await rm(directory, { recursive: true, force: true });
}

/** Removes clusters whose owner ended without stopping them, such as an interrupted test run. */
export async function removeAbandoned(): Promise<string[]> {
  const removed: string[] = [];
  for (const name of readdirSync(tmpdir()).filter((one) => one.startsWith(CLUSTER_PREFIX))) {
    const directory = join(tmpdir(), name);
    const owner = await ownerOf(directory);
    if (owner === undefined || owner.alive) continue;
    await removeLeftovers(directory, owner.bridge);
    removed.push(directory);
  }
  return removed;
}
