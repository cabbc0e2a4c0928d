import { readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';
import {
  hostUpperDirs,
  type MountPlan,
  planMounts,
  projectedMountPoints,
  readMounts,
  upperDir,
} from '../container/mounts.ts';
import { type PinnedProcess, pinProcess } from '../container/pinned.ts';
import { preflightProblems } from '../container/preflight.ts';
import { countDescriptors, readTree, type TreeProcess } from '../container/tree.ts';
import { watchedDirectories } from '../container/watches.ts';
import type { DumpOptions } from '../criu/options.ts';
import { dump } from '../criu/run.ts';
import { type Reason, SnapshotError } from '../errors.ts';
import type { Captured } from '../host/native.ts';
import type { AgentContext } from './context.ts';
import { type CudaSubject, inspectCuda } from './cuda-subject.ts';
import type { Target } from './target.ts';

/** What was seen of the workload before it was touched. */
export interface Subject {
  /** The process whose tree is dumped: the container's own, or the one an earlier restore put there. */
  readonly root: PinnedProcess;
  readonly tree: readonly TreeProcess[];
  readonly mounts: MountPlan;
  /** What fds 0, 1 and 2 refer to: `pipe:[123]`, `/dev/null` … */
  readonly stdio: [string, string, string];
  /** CRIU's name of the terminal at fd 0, where there is one. */
  readonly tty: string | undefined;
  /** Objects in the IPC namespace go into the images, with a namespace of their own on restore. */
  readonly privateIpc: boolean;
  /** Directories in which something is watched by inotify. */
  readonly watched: readonly string[];
  /** Undefined where nothing uses CUDA or holds a GPU. */
  readonly cuda: CudaSubject | undefined;
  /** Bytes that only the artifact can hold, device memory among them. */
  readonly ownBytes: number;
  readonly residentBytes: number;
  readonly threads: number;
}

/** Looks at the workload. Nothing is changed. Whoever gets the subject lets go of its root, where that is not the target's own. */
export async function inspect(context: AgentContext, target: Target): Promise<Subject> {
  const restored = context.restoredRoot(target.running.id);
  if (restored === undefined) return await inspectTree(context, target, target.main);
  const root = await pinProcess(context.native, restored.pid, restored.start);
  try {
    return await inspectTree(context, target, root);
  } catch (error) {
    root.release();
    throw error;
  }
}

async function inspectTree(context: AgentContext, target: Target, root: PinnedProcess): Promise<Subject> {
  const { native, config } = context;
  const { procRoot } = config.host;
  const { pid } = root.id;
  const tree = await readTree(procRoot, pid);
  await requireCountable(procRoot, tree);
  const stdio = await Promise.all([0, 1, 2].map((fd) => readlink(`${procRoot}/${pid}/fd/${fd}`).catch(() => '')));
  const ipc = await native.ipcUsage(root.id);
  const cuda = await inspectCuda(context, target, tree);
  const total = (of: (status: TreeProcess['status']) => number) =>
    tree.reduce((sum, { status }) => sum + of(status), 0);
  return {
    root,
    tree,
    mounts: planMounts(await readMounts(procRoot, pid)),
    stdio: [stdio[0] ?? '', stdio[1] ?? '', stdio[2] ?? ''],
    tty: target.running.tty ? await terminalKey(procRoot, pid) : undefined,
    privateIpc: ipc.shm + ipc.sem + ipc.msg > 0,
    watched: await watchedDirectories(procRoot, tree),
    cuda,
    ownBytes: total((status) => status.ownBytes) + (cuda?.deviceBytes ?? 0),
    residentBytes: total((status) => status.residentBytes),
    threads: total((status) => status.threads),
  };
}

/** More descriptors than any server has; looking at each of many more could be made to exhaust the agent. */
const MAX_DESCRIPTORS = 200_000;

async function requireCountable(procRoot: string, tree: readonly TreeProcess[]): Promise<void> {
  const count = await countDescriptors(procRoot, tree, MAX_DESCRIPTORS);
  if (count <= MAX_DESCRIPTORS) return;
  const reason = {
    code: 'TOO_MANY_DESCRIPTORS',
    message: 'the processes of the container hold too many open files',
    found: `more than ${MAX_DESCRIPTORS}`,
    wanted: `at most ${MAX_DESCRIPTORS}`,
    advice: 'Close them, or give the container a limit.',
  };
  throw new SnapshotError('CHECKPOINT_REFUSED', `the container cannot be checkpointed: ${reason.message}`, {
    reasons: [reason],
  });
}

/** CRIU knows a terminal by the numbers of its device and of the filesystem it lies on, both in hex. */
async function terminalKey(procRoot: string, pid: number): Promise<string> {
  const { rdev, dev } = await stat(`${procRoot}/${pid}/fd/0`);
  return `${rdev.toString(16)}:${dev.toString(16)}`;
}

/** Throws CHECKPOINT_REFUSED with every reason why the checkpoint would fail or be worthless. */
export async function requireFit(
  context: AgentContext,
  { target, subject }: { readonly target: Target; readonly subject: Subject },
  /** `mayCollect`: room may be made by deleting artifacts, as the configuration says. */
  { mayCollect, signal }: { readonly mayCollect: boolean; readonly signal: AbortSignal },
): Promise<void> {
  const reasons = await preflightProblems({
    procRoot: context.config.host.procRoot,
    facts: subject.root.facts,
    tree: subject.tree,
    mounts: subject.mounts,
    projectedMountPoints: projectedMountPoints(target.running.mounts),
    podIps: target.podIps,
    agentUserNs: context.node.userNs,
    hostUpperDirs: await hostUpperDirs(context.config.host.procRoot, target.running.id),
    depth: subject.root === target.main ? 1 : 2,
  });
  reasons.push(...watchProblems(target, subject), ...(subject.cuda?.reasons ?? []));
  for (const warning of subject.cuda?.warnings ?? []) context.log.warn({ warning }, 'the checkpoint may be of no use');
  // Last: nothing is deleted for what is refused anyway.
  const space = await context.retention.roomProblem(target.volume, {
    peakBytes: subject.ownBytes * 2,
    keptBytes: subject.ownBytes,
    mayCollect: mayCollect && reasons.length === 0,
    signal,
  });
  if (space !== undefined) reasons.push(space);
  if (reasons.length === 0) return;
  throw new SnapshotError(
    'CHECKPOINT_REFUSED',
    `the container cannot be checkpointed: ${reasons.map(({ message }) => message).join('; ')}`,
    { reasons },
  );
}

/** A watch on what kubelet replaces by renaming: the next pod has it under another name, and CRIU could not watch it again. */
function watchProblems(target: Target, subject: Subject): Reason[] {
  const points = projectedMountPoints(target.running.mounts);
  return subject.watched
    .filter((path) => points.some((point) => path.startsWith(`${point}/`)))
    .map((path) => ({
      code: 'PROJECTED_FILE_WATCHED',
      message: 'a process watches projected files; the next pod has them under other names',
      found: path,
      wanted: 'no watch below the mount point of a projected volume',
      advice: 'Watch the directory that the volume is mounted at, or stop watching before the checkpoint.',
    }));
}

/** Where the parts of an artifact in the making lie. */
export interface StagingPaths {
  /** CRIU's images as it wrote them; kept until the final ones are durable. */
  readonly raw: string;
  readonly criu: string;
  readonly memory: string;
  readonly rootfs: string;
}

export function stagingPaths(staging: string): StagingPaths {
  return {
    raw: join(staging, 'raw'),
    criu: join(staging, 'criu'),
    memory: join(staging, 'memory'),
    rootfs: join(staging, 'rootfs'),
  };
}

export interface FrozenResult {
  readonly rootfs: Captured;
  readonly shm: Captured | undefined;
}

export interface DumpPlan {
  readonly paths: StagingPaths;
  readonly leaveRunning: boolean;
  readonly deadlineMs: number;
  readonly signal: AbortSignal;
  /** Called last while the workload is frozen: what must be durable before CRIU may end it. */
  readonly beforeRelease: (frozen: FrozenResult) => Promise<void>;
}

/** Dumps the tree, and, while it is frozen, the changes of its root filesystem and its shared memory files. */
export async function dumpTree(context: AgentContext, target: Target, subject: Subject, plan: DumpPlan): Promise<void> {
  const { config, native } = context;
  let isCaptured = false;
  const options: DumpOptions = {
    binary: config.criu.binaryPath,
    imagesDir: plan.paths.raw,
    workDir: target.workDir,
    logLevel: config.criu.logLevel,
    pid: subject.root.id.pid,
    rootPath: `${config.host.procRoot}/${subject.root.id.pid}/root`,
    netInode: subject.root.facts.ns.net,
    externalMounts: subject.mounts.external.map(({ mountPoint }) => mountPoint),
    skippedMounts: subject.mounts.gpu.map(({ mountPoint }) => mountPoint),
    tty: subject.tty,
    ghostLimit: config.criu.ghostLimit,
    irmapScanPaths: [...config.criu.irmapScanPaths, ...subject.watched],
    actionScript: `${config.paths.runDir}/snapshot-hook`,
    leaveRunning: plan.leaveRunning,
  };
  await subject.root.check();
  await dump(native, {
    target: subject.root.id,
    options,
    environment: config.criu.environment,
    join: subject.privateIpc ? ['uts'] : ['ipc', 'uts'],
    whileFrozen: async (signal) => {
      await plan.beforeRelease(await captureFiles(context, target, subject, { paths: plan.paths, signal }));
      isCaptured = true;
    },
    deadlineMs: plan.deadlineMs,
    signal: plan.signal,
  });
  if (!isCaptured) throw new SnapshotError('DUMP_FAILED', 'CRIU ended without having run its post-dump script');
}

async function captureFiles(
  context: AgentContext,
  target: Target,
  subject: Subject,
  plan: Pick<DumpPlan, 'paths' | 'signal'>,
): Promise<FrozenResult> {
  const limits = { deadlineMs: context.config.checkpoint.frozenTimeoutSeconds * 1000, signal: plan.signal };
  const upper = upperDir(subject.mounts.root);
  if (upper === undefined) throw new SnapshotError('ROOTFS_FAILED', 'the root filesystem is no overlay any more');
  const mountPoints = subject.mounts.all.map(({ mountPoint }) => mountPoint).filter((point) => point !== '/');
  const [rootfs, shm] = await Promise.all([
    context.native.captureUpper({
      upper,
      tar: join(plan.paths.rootfs, 'diff.tar'),
      removed: join(plan.paths.rootfs, 'removed.json'),
      exclude: [...mountPoints, ...context.config.overlay.exclusions],
      ...limits,
    }),
    subject.mounts.hasShm
      ? context.native.captureMount(subject.root.id, {
          mount: '/dev/shm',
          tar: join(plan.paths.rootfs, 'shm.tar'),
          removed: join(target.workDir, 'shm-removed.json'),
          ...limits,
        })
      : undefined,
  ]);
  return { rootfs, shm };
}
