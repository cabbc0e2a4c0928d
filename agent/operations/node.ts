import { mkdir, mkdtemp, readFile, rm, stat, symlink } from 'node:fs/promises';
import { arch, availableParallelism, release } from 'node:os';
import { dirname, join } from 'node:path';
import type { Config } from '../config.ts';
import { parseCpu } from '../container/proc.ts';
import { SnapshotError } from '../errors.ts';
import { call } from '../host/exec.ts';
import type { Native } from '../host/native.ts';
import { type AttachedVolume, attachVolume } from '../store/attach.ts';

/** CRIU before this cannot dump internet sockets on kernels from 6.16 on; one rule for all kernels is easier to live with. */
const CRIU_FLOOR = [4, 2] as const;
/** More threads do not make one restore faster, and there may be several. */
const MAX_THREADS = 16;

/** What this node is and can do, read once at start. */
export interface NodeFacts {
  readonly name: string;
  readonly bootId: string;
  readonly arch: string;
  readonly kernel: string;
  readonly criu: string;
  readonly cpu: {
    readonly vendor: string;
    readonly family: number;
    readonly model: number;
    readonly features: readonly string[];
  };
  readonly cgroupVersion: 1 | 2;
  readonly userNs: number;
  /** Threads for copying memory. */
  readonly threads: number;
}

/** Reads the node's facts and refuses, by name, what the agent cannot work without. */
export async function readNode(config: Config, native: Native): Promise<NodeFacts> {
  const { procRoot, cgroupRoot } = config.host;
  const probe = await native.probe().catch((cause: unknown) => {
    throw new SnapshotError(
      'CAPABILITY_MISSING',
      `the native helper cannot be run: ${config.paths.helper} (paths.helper)`,
      {
        cause,
      },
    );
  });
  const missing = Object.entries({
    openat2: probe.openat2,
    pidfd_open: probe.pidfd,
    open_tree: probe.openTree,
    'mount_setattr with nosymfollow (kernel 5.14)': probe.nosymfollow,
  })
    .filter(([, has]) => !has)
    .map(([name]) => name);
  if (missing.length > 0)
    throw new SnapshotError('CAPABILITY_MISSING', `the kernel ${probe.kernel} lacks ${missing.join(', ')}`);
  const [bootId, cpuinfo, userNs, cgroupV2] = await Promise.all([
    readFile('/proc/sys/kernel/random/boot_id', 'utf8'),
    readFile('/proc/cpuinfo', 'utf8'),
    stat('/proc/self/ns/user'),
    stat(join(cgroupRoot, 'cgroup.controllers')).then(
      () => true,
      () => false,
    ),
    stat(join(procRoot, 'self')).catch((cause: unknown) => {
      throw new SnapshotError('CAPABILITY_MISSING', `there is no procfs at ${procRoot} (host.procRoot)`, { cause });
    }),
  ]);
  return {
    name: config.nodeName,
    bootId: bootId.trim(),
    arch: arch(),
    kernel: release(),
    criu: await criuVersion(config),
    cpu: parseCpu(cpuinfo),
    cgroupVersion: cgroupV2 ? 2 : 1,
    userNs: userNs.ino,
    threads: config.memory.threads || Math.min(availableParallelism(), MAX_THREADS),
  };
}

async function criuVersion(config: Config): Promise<string> {
  const binary = config.criu.binaryPath;
  const { stdout, exitCode } = await call({
    argv: [binary, '--version'],
    env: { ...config.criu.environment },
    deadlineMs: 10_000,
  }).catch((cause: unknown) => {
    throw new SnapshotError('CAPABILITY_MISSING', `CRIU cannot be run: ${binary}`, { cause });
  });
  const version = /Version: (\d+)\.(\d+)(\S*)/.exec(stdout);
  if (exitCode !== 0 || version === null)
    throw new SnapshotError(
      'CAPABILITY_MISSING',
      `${binary} --version does not answer with a version: ${stdout.slice(0, 200)}`,
    );
  const [major, minor] = [Number(version[1]), Number(version[2])];
  if (major !== CRIU_FLOOR[0] || minor < CRIU_FLOOR[1])
    throw new SnapshotError('CAPABILITY_MISSING', `CRIU is ${major}.${minor}: 4.2 or a later 4.x is needed`);
  return `${major}.${minor}${version[3] ?? ''}`;
}

/** The run directory is a private tmpfs: what is verified there cannot be changed by anybody else, and nothing mounted there spreads. */
export async function prepareRunDir(config: Config, native: Native): Promise<void> {
  const { runDir, helper } = config.paths;
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  await native.privateTmpfs(runDir, config.memory.workBytes);
  const hook = join(runDir, 'snapshot-hook');
  await rm(hook, { force: true });
  await symlink(join(dirname(helper), 'snapshot-helper'), hook);
}

/** A private directory for one operation below the run directory; removed by `remove`. */
export async function makeWorkDir(config: Config): Promise<{ readonly path: string; remove(): Promise<void> }> {
  const path = await mkdtemp(join(config.paths.runDir, 'op-'));
  return { path, remove: () => rm(path, { recursive: true, force: true }) };
}

/** Attaches the volume that the agent itself mounts (agentMount mode), for as long as `work` takes. */
export async function onOwnVolume<T>(
  { config, native }: { readonly config: Config; readonly native: Native },
  work: (volume: AttachedVolume) => Promise<T>,
): Promise<T> {
  const { path, remove } = await makeWorkDir(config);
  try {
    const { basePath } = config.storage;
    const request = { accessMode: 'agentMount' as const, configured: basePath, asked: undefined, through: undefined };
    const volume = await attachVolume(native, { ...request, below: path });
    try {
      return await work(volume);
    } finally {
      await volume.detach();
    }
  } finally {
    await remove();
  }
}
