import { readFile } from 'node:fs/promises';
import { SnapshotError } from '../errors.ts';
import type { Native, ProcessId, Seccomp } from '../host/native.ts';
import { planMounts, readMounts } from './mounts.ts';
import { readDescriptors, readProcess } from './tree.ts';

/** What a placeholder container offers and allows; a restored tree must keep within it. */
export interface Placeholder {
  /** Mount points that a restored tree may use. */
  readonly mountPoints: readonly string[];
  /** Device nodes of the GPU that are mounted one by one. */
  readonly gpuDevices: readonly string[];
  readonly boundingCaps: bigint;
  readonly permittedCaps: bigint;
  /** True where its processes hold CAP_SYS_PTRACE and could interfere with CRIU in their PID namespace. */
  readonly canTrace: boolean;
  readonly noNewPrivs: boolean;
  readonly seccomp: Seccomp;
  /** Label of its security module, where it has one. */
  readonly lsmLabel: string | undefined;
  /** What its fds 0, 1 and 2 refer to. */
  readonly stdio: readonly string[];
}

const CAP_SYS_PTRACE = 19n;

/** Reads all of it from the container's PID 1. */
export async function readPlaceholder(native: Native, id: ProcessId): Promise<Placeholder> {
  const { procRoot } = native.options;
  const process = await readProcess(procRoot, id.pid);
  if (process === undefined) throw new SnapshotError('CONTAINER_GONE', `the placeholder's process ${id.pid} is gone`);
  const [mounts, descriptors, label, seccomp] = await Promise.all([
    readMounts(procRoot, id.pid),
    readDescriptors(procRoot, id.pid),
    readFile(`${procRoot}/${id.pid}/attr/current`, 'utf8').catch(() => ''),
    process.status.seccompMode === 0 ? { mode: 0, filters: [] } : native.seccomp(id),
  ]);
  const lsmLabel = label.replace(/[\0\n]+$/, '');
  const { all, gpu } = planMounts(mounts);
  return {
    mountPoints: all.map(({ mountPoint }) => mountPoint),
    gpuDevices: gpu.map(({ mountPoint }) => mountPoint).filter((point) => point.startsWith('/dev/')),
    boundingCaps: process.status.boundingCaps,
    permittedCaps: process.status.permittedCaps,
    canTrace: (process.status.permittedCaps & (1n << CAP_SYS_PTRACE)) !== 0n,
    noNewPrivs: process.status.noNewPrivs,
    seccomp,
    lsmLabel: lsmLabel === '' || lsmLabel === 'unconfined' ? undefined : lsmLabel,
    stdio: [0, 1, 2].map((fd) => descriptors.get(fd) ?? ''),
  };
}
