import { readFileSync, statSync } from 'node:fs';
import { mkdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { isExternal, planMounts, readMounts } from '../agent/container/mounts.ts';
import { dumpArguments, restoreArguments } from '../agent/criu/options.ts';
import { readDumpStats } from '../agent/criu/stats.ts';
import type { Agent } from '../test/real/environment/agent.ts';
import type { Cluster } from '../test/real/environment/cluster.ts';
import type { Container } from '../test/real/environment/container.ts';
import { eventually, host, REPOSITORY } from '../test/real/environment/host.ts';
import { IMAGES } from '../test/real/environment/images.ts';
import { counters, operationEnd, sourceKeys, targetKeys, workerCommand } from './worker.ts';

/** Seconds of one checkpoint and one restore. `parts` says what of it was spent where, as far as the contender can be asked. */
export interface Figures {
  readonly checkpoint: number;
  readonly restore: number;
  /** How long the workload stood still. */
  readonly pause: number;
  readonly parts: Readonly<Record<string, number>>;
}

/** One way to checkpoint and restore: on a new worker of this size, under a name used once. */
export type Contender = (mebibytes: number, name: string) => Promise<Figures>;

/** Everything the contenders share: one cluster, one agent. */
export interface Arena {
  readonly cluster: Cluster;
  readonly agent: Agent;
  /** Same path on this machine and in every agent environment. */
  readonly shared: string;
}

const BENCH = '/opt/snapshot-bench';
export const BENCH_BIND = `${join(REPOSITORY, 'bench')}:${BENCH}`;
export const TIMED_CRIU = `${BENCH}/timed-criu.sh`;
const HELPER = '/opt/snapshot-agent/native/build/snapshot-helper';
const TIMEOUT_MS = 300_000;

/** Where CRIU's wrapper notes its times. */
export function criuTimes(shared: string): string {
  return join(shared, 'criu-times');
}

/** The wall time of CRIU's last run of this kind. */
async function lastCriuSeconds({ shared }: Arena, action: 'dump' | 'restore'): Promise<number> {
  const lines = (await readFile(criuTimes(shared), 'utf8')).split('\n').filter((line) => line.startsWith(action));
  const [, begin = Number.NaN, end = Number.NaN] = (lines.at(-1) ?? '').split(' ').map(Number);
  return (end - begin) / 1e6;
}

/** The agent, from a pod's labels to a restored pod. */
export function agentContender(arena: Arena): Contender {
  const { cluster, agent } = arena;
  return async (mebibytes, name) => {
    const source = await cluster.runPod({ name: `${name}-one`, ...sourceKeys(name, 'resume') });
    const worker = await source.run({ image: IMAGES.placeholder, command: workerCommand(mebibytes) });
    const checkpoint = await operationEnd(agent, worker, TIMEOUT_MS);
    const criuDump = await lastCriuSeconds(arena, 'dump');
    await source.remove();
    await warm(join(cluster.volume.hostPath, name));

    const target = await cluster.runPod({ name: `${name}-two`, ...targetKeys(name) });
    const placeholder = await target.createContainer({
      image: IMAGES.placeholder,
      command: ['/usr/local/bin/snapshot-standby'],
    });
    await placeholder.start();
    const runningAtMs = Date.now();
    const restore = await operationEnd(agent, placeholder, TIMEOUT_MS);
    const criuRestore = await lastCriuSeconds(arena, 'restore');
    await awaitLife(placeholder);
    await target.remove();
    await rm(join(cluster.volume.hostPath, name), { recursive: true });
    const wall = (restore.atMs - runningAtMs) / 1000;
    const fill = restore.steps['fill'] ?? 0;
    return {
      checkpoint: checkpoint.seconds,
      restore: restore.seconds,
      pause: Number(checkpoint.line['pauseSeconds']),
      parts: {
        'checkpoint criu': criuDump,
        ...prefixed('checkpoint step ', checkpoint.steps),
        'restore criu': criuRestore,
        'restore fill': fill,
        'restore agent': restore.seconds - criuRestore - fill,
        'restore noticed': wall - restore.seconds,
        'restore wall': wall,
        ...prefixed('restore step ', restore.steps),
      },
    };
  };
}

function prefixed(prefix: string, values: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [`${prefix}${name}`, value]));
}

/** `criu dump` and `criu restore`, started by hand in the agent's environment with the options that the agent uses. */
export function plainContender(arena: Arena): Contender {
  const { cluster, shared } = arena;
  return async (mebibytes, name) => {
    const imagesDir = join(shared, name);
    await mkdir(imagesDir, { recursive: true });
    const source = await cluster.runPod({ name: `${name}-one` });
    const worker = await source.run({ image: IMAGES.placeholder, command: workerCommand(mebibytes), control: false });
    await awaitLife(worker);
    const pid = await worker.pid();
    const common = { binary: TIMED_CRIU, imagesDir, workDir: imagesDir, logLevel: 2 };
    const externalMounts = planMounts(await readMounts('/proc', pid)).external.map(({ mountPoint }) => mountPoint);
    const dumping = dumpArguments({
      ...common,
      pid,
      rootPath: `/host/proc/${pid}/root`,
      netInode: statSync(`/proc/${pid}/ns/net`).ino,
      externalMounts,
      skippedMounts: [],
      tty: undefined,
      ghostLimit: 512 << 20,
      irmapScanPaths: [],
      actionScript: 'none',
      leaveRunning: true,
    });
    const withoutHook = dumping.filter((one) => one !== '--action-script' && one !== 'none');
    const stdio = await Promise.all([1, 2].map((fd) => readlink(`/proc/${pid}/fd/${fd}`)));
    const checkpoint = await byHand(arena, ['dump', ...pinned(pid), '--join', 'ipc,uts', '--', ...withoutHook]);
    const criuDump = await lastCriuSeconds(arena, 'dump');
    const { freezingSeconds, frozenSeconds } = await readDumpStats(join(imagesDir, 'stats-dump'));
    await source.remove();
    await warm(imagesDir);

    const target = await cluster.runPod({ name: `${name}-two` });
    const placeholder = await target.runPlaceholder({ control: false });
    const restoring = restoreArguments({
      ...common,
      rootPath: '/run/by-hand/root',
      pidfile: '/run/by-hand/pid',
      externalMounts: externalMounts.filter(isExternal),
      netFd: 20,
      inherited: stdio.map((label, index) => ({ fd: 23 + index, label })),
    }).filter((one) => one !== '--leave-stopped');
    const restore = await byHand(arena, [
      'restore',
      ...pinned(await placeholder.pid()),
      ...['--cgroup-root', '/host/cgroup', '--root-at', '/run/by-hand/root', '--pidfile', '/run/by-hand/pid'],
      ...['--fd', '20=net', '--fd', '23=stdout', '--fd', '24=stderr', '--', ...restoring],
    ]);
    const criuRestore = await lastCriuSeconds(arena, 'restore');
    await awaitLife(placeholder);
    await target.remove();
    await rm(imagesDir, { recursive: true });
    const parts = { 'checkpoint criu': criuDump, 'restore criu': criuRestore };
    return { checkpoint, restore, pause: freezingSeconds + frozenSeconds, parts };
  };
}

/** Names a process to the helper: its PID and its start time. */
function pinned(pid: number): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const start = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  return ['--pid', `${pid}`, '--start', start, '--proc', '/host/proc'];
}

async function byHand({ cluster, shared }: Arena, helperArguments: readonly string[]): Promise<number> {
  const { exitCode, stdout, stderr } = await cluster.enter([`${BENCH}/by-hand.sh`, HELPER, ...helperArguments], {
    binds: [BENCH_BIND],
    env: { CRIU_TIMES: criuTimes(shared) },
    timeoutMs: TIMEOUT_MS,
  });
  if (exitCode !== 0) throw new Error(`criu by hand ended with ${exitCode}: ${stderr.slice(-2000)}`);
  return Number(stdout.trim()) / 1e6;
}

/** `runc checkpoint` and `runc restore`, with a bundle of its own: the same root filesystem, the same worker. */
export async function runcContender(arena: Arena): Promise<Contender> {
  const { cluster, shared } = arena;
  const rootfs = join(shared, 'rootfs');
  await mkdir(rootfs);
  await host(['tar', '-C', rootfs, '-xf', join(REPOSITORY, '.cache/workload-base.tar')]);
  return async (mebibytes, name) => {
    const work = join(shared, name);
    const bundle = join(work, 'bundle');
    await mkdir(bundle, { recursive: true });
    await writeFile(join(bundle, 'config.json'), JSON.stringify(await runcConfig(cluster, rootfs, mebibytes, name)));
    const { exitCode, stdout, stderr } = await cluster.enter([`${BENCH}/runc.sh`, bundle, work, name], {
      binds: [BENCH_BIND, '/usr/sbin/runc:/usr/sbin/runc'],
      timeoutMs: TIMEOUT_MS,
    });
    if (exitCode !== 0) throw new Error(`runc ended with ${exitCode}: ${stderr.slice(-3000)}`);
    const seconds = (what: string) => Number(new RegExp(`^${what} (\\d+)$`, 'm').exec(stdout)?.[1]) / 1e6;
    const { freezingSeconds, frozenSeconds } = await readDumpStats(join(work, 'dump', 'stats-dump'));
    await rm(work, { recursive: true });
    const pause = freezingSeconds + frozenSeconds;
    return { checkpoint: seconds('checkpoint'), restore: seconds('restore'), pause, parts: {} };
  };
}

async function runcConfig(cluster: Cluster, rootfs: string, mebibytes: number, name: string): Promise<object> {
  const directory = join(cluster.directory, `spec-${name}`);
  await mkdir(directory);
  await host(['runc', 'spec', '--bundle', directory]);
  const spec = JSON.parse(await readFile(join(directory, 'config.json'), 'utf8'));
  await rm(directory, { recursive: true });
  spec.process.terminal = false;
  spec.process.args = workerCommand(mebibytes);
  spec.root.path = rootfs;
  spec.linux.cgroupsPath = `/${basename(cluster.directory)}/${name}`;
  return spec;
}

/** The worker counts: it has loaded, or is alive again. */
async function awaitLife(container: Container): Promise<void> {
  await eventually(`container ${container.id} to count`, () => (counters(container).length >= 3 ? true : undefined), {
    timeoutMs: TIMEOUT_MS,
    explain: () => JSON.stringify(container.logs().slice(-5)),
  });
}

/** Reads everything once, so that all restores find it in the page cache. */
async function warm(directory: string): Promise<void> {
  await host(['sh', '-c', 'find "$0" -type f -exec cat {} + >/dev/null', directory], { timeoutMs: TIMEOUT_MS });
}
