import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { isExternal } from '../container/mounts.ts';
import type { Placeholder } from '../container/placeholder.ts';
import { readTree } from '../container/tree.ts';
import { admissionProblems, readImages } from '../criu/images/admission.ts';
import { cutExternalMasters } from '../criu/images/mount-sharing.ts';
import { rewriteSockets } from '../criu/images/socket-rewrite.ts';
import { rearmTimers } from '../criu/images/timers.ts';
import { NETWORK_KEY } from '../criu/options.ts';
import { restore } from '../criu/run.ts';
import { SnapshotError } from '../errors.ts';
import type { ProcessId, RestoreVerb } from '../host/native.ts';
import { copyVerified } from '../store/copy.ts';
import { deriveBulkKey } from '../store/record.ts';
import type { Artifact } from '../store/verify.ts';
import { mismatches } from './compatibility.ts';
import type { AgentContext } from './context.ts';
import type { CudaMatch } from './cuda-target.ts';
import { together } from './steps.ts';
import type { Target } from './target.ts';

/** The verified copy of an artifact's images, where only the agent reaches it. */
export interface Images {
  readonly criu: string;
  readonly bulkIndex: string;
  readonly rootfsTar: string;
  readonly rootfsRemoved: string;
  readonly shmTar: string;
}

/** What has no place in the private copy: the bulk pages are read, verified and used block by block. */
const BULK_PAGES = 'memory/bulk.pages';

/** Throws RESTORE_REFUSED with every mismatch between the artifact and this container on this node. Nothing is changed. */
export function requireMatch(
  context: AgentContext,
  target: Target,
  { artifact, placeholder, cuda }: { artifact: Artifact; placeholder: Placeholder; cuda: CudaMatch },
): void {
  for (const warning of cuda.warnings) context.log.warn({ warning }, 'the restore may fail');
  const reasons = [
    ...mismatches({
      record: artifact.record,
      node: context.node,
      running: target.running,
      placeholder,
      podIps: target.podIps,
      rules: context.config.restore,
    }),
    ...cuda.reasons,
  ];
  if (reasons.length === 0) return;
  throw new SnapshotError(
    'RESTORE_REFUSED',
    `the artifact does not match: ${reasons.map(({ message, found, wanted }) => `${message} (${found}; wanted ${wanted})`).join('; ')}`,
    { reasons },
  );
}

/** Copies everything but the bulk pages into the agent's tmpfs, verified on the way: from here on only the copy is used. */
export async function takeImages(target: Target, artifact: Artifact, directory: string): Promise<Images> {
  const to = join(target.workDir, 'artifact');
  await mkdir(to, { mode: 0o700 });
  const files = artifact.record.files.filter(({ path }) => path !== BULK_PAGES);
  await copyVerified({ from: directory, to, files });
  return {
    criu: join(to, 'criu'),
    bulkIndex: join(to, 'memory', 'bulk.index'),
    rootfsTar: join(to, 'rootfs', 'diff.tar'),
    rootfsRemoved: join(to, 'rootfs', 'removed.json'),
    shmTar: join(to, 'rootfs', 'shm.tar'),
  };
}

/** Throws ARTIFACT_UNSAFE where the images ask for more than the placeholder has. They are read, not believed. */
export async function requireHarmless(images: Images, artifact: Artifact, placeholder: Placeholder): Promise<void> {
  const { record } = artifact;
  const recordedMountPoints = record.mounts.map(({ mountPoint }) => mountPoint);
  const reasons = admissionProblems(await readImages(images.criu), {
    mountPoints: placeholder.mountPoints,
    recordedMountPoints,
    boundingCaps: placeholder.boundingCaps,
    permittedCaps: placeholder.permittedCaps,
    noNewPrivs: placeholder.noNewPrivs,
    seccompMode: placeholder.seccomp.mode,
    seccompFilters: placeholder.seccomp.filters,
    lsmLabel: placeholder.lsmLabel,
    externalKeys: [
      ...recordedMountPoints.filter(isExternal).map((point) => `mnt[${point}]`),
      NETWORK_KEY,
      ...(record.process.tty === undefined ? [] : [`tty[${record.process.tty}]`]),
    ],
  });
  if (reasons.length === 0) return;
  throw new SnapshotError(
    'ARTIFACT_UNSAFE',
    `the images cannot be admitted: ${reasons.map(({ message }) => message).join('; ')}`,
    {
      reasons,
    },
  );
}

/** Puts the changes of the root filesystem and the shared memory files in place. */
export async function applyFiles(
  context: AgentContext,
  target: Target,
  parts: { images: Images; artifact: Artifact; placeholder: Placeholder },
  limits: { deadlineMs: number; signal: AbortSignal },
): Promise<void> {
  const { native } = context;
  const { images, artifact, placeholder } = parts;
  // The new pod may have mounts that the source had not: what lies under them is left as it is.
  const keep = placeholder.mountPoints.filter((point) => point !== '/');
  await target.main.check();
  const hasShm = artifact.record.files.some(({ path }) => path === 'rootfs/shm.tar');
  await together([
    native.apply(target.main.id, {
      mount: '/',
      tar: images.rootfsTar,
      removed: images.rootfsRemoved,
      keep,
      ...limits,
    }),
    hasShm
      ? native.apply(target.main.id, { mount: '/dev/shm', tar: images.shmTar, keep: [], ...limits })
      : Promise.resolve(),
  ]);
}

/** The restored tree, still stopped. */
export interface Revived {
  readonly root: ProcessId;
  /** PID of the restored root in the placeholder's PID namespace. */
  readonly innerPid: number;
  /** PIDs inside the restored tree to processes of the host. */
  readonly byInnerPid: ReadonlyMap<number, ProcessId>;
}

/** Lets CRIU restore the tree into the placeholder, with everything but large memory, and leaves it stopped. */
export async function revive(
  context: AgentContext,
  target: Target,
  images: Images,
  artifact: Artifact,
  limits: { deadlineMs: number; signal: AbortSignal },
): Promise<Revived> {
  const { record } = artifact;
  const { config, native } = context;
  await rearmTimers(images.criu);
  await cutExternalMasters(images.criu);
  await rewriteSockets(images.criu, { sourceIps: record.source.podIps, targetIps: [...target.podIps] });
  const { fds, inherited } = handedDescriptors(record.process.stdio, record.process.tty);
  const rootPath = join(target.workDir, 'root');
  await mkdir(rootPath, { mode: 0o700 });
  await target.main.check();
  const restored = await restore(native, {
    placeholder: target.main.id,
    options: {
      binary: config.criu.binaryPath,
      imagesDir: images.criu,
      workDir: target.workDir,
      logLevel: config.criu.logLevel,
      rootPath,
      pidfile: join(target.workDir, 'restored.pid'),
      externalMounts: record.mounts.map(({ mountPoint }) => mountPoint).filter(isExternal),
      netFd: NET_FD,
      inherited,
    },
    environment: config.criu.environment,
    cgroupRoot: config.host.cgroupRoot,
    privateIpc: record.namespaces.ipc === 'private',
    fds,
    ...limits,
  });
  const tree = await readTree(config.host.procRoot, restored.pid);
  const byInnerPid = new Map(
    // A zombie has neither memory to fill nor anything to wake.
    tree
      .filter(({ stat }) => stat.state !== 'Z')
      .map(({ stat, status }) => [status.nspid.at(-1) ?? 0, { pid: stat.pid, start: stat.start }] as const),
  );
  return { root: { pid: restored.pid, start: restored.start }, innerPid: restored.inner, byInnerPid };
}

const NET_FD = 20;
const TTY_FD = 21;
const STDIO_FDS = [22, 23, 24] as const;

/** The placeholder's descriptors that take the place of the dumped ones: its terminal, or the pipes its log goes through. */
function handedDescriptors(
  stdio: readonly string[],
  tty: string | undefined,
): { fds: RestoreVerb['fds']; inherited: { fd: number; label: string }[] } {
  const network = { fd: NET_FD, source: 'net' as const };
  if (tty !== undefined)
    return { fds: [network, { fd: TTY_FD, source: 'tty' }], inherited: [{ fd: TTY_FD, label: `tty[${tty}]` }] };
  const sources = ['stdin', 'stdout', 'stderr'] as const;
  const pipes = stdio.flatMap((label, index) => {
    const [fd, source] = [STDIO_FDS[index], sources[index]];
    // Standard output and error may be one pipe: it is handed over once.
    const isFirst = stdio.indexOf(label) === index;
    return fd !== undefined && source !== undefined && isFirst && label.startsWith('pipe:')
      ? [{ fd, source, label }]
      : [];
  });
  return {
    fds: [network, ...pipes.map(({ fd, source }) => ({ fd, source }))],
    inherited: pipes.map(({ fd, label }) => ({ fd, label })),
  };
}

/** Fills the large memory, every block verified before it is written. */
export async function fillMemory(
  context: AgentContext,
  artifact: Artifact,
  request: {
    directory: string;
    images: Images;
    revived: Revived;
    deadlineMs: number;
    signal: AbortSignal;
    onProgress: (bytes: number) => void;
  },
): Promise<number> {
  const { bulk } = artifact.record;
  if (bulk === null) return 0;
  const filled = await context.native.bulkFill({
    bulk: join(request.directory, BULK_PAGES),
    index: request.images.bulkIndex,
    key: Buffer.from(deriveBulkKey(artifact.key, bulk.salt)),
    threads: context.node.threads,
    processes: request.revived.byInnerPid,
    onProgress: request.onProgress,
    deadlineMs: request.deadlineMs,
    signal: request.signal,
  });
  if (filled.blocks !== bulk.blocks)
    throw new SnapshotError(
      'FILL_FAILED',
      `${filled.blocks} blocks of memory were filled, the record says ${bulk.blocks}`,
    );
  request.onProgress(filled.bytes);
  return filled.bytes;
}
