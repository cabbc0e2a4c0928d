import { readFile } from 'node:fs/promises';
import type { Reason } from '../errors.ts';
import type { ProcessFacts } from '../host/native.ts';
import { isGpuDevice } from './gpu-users.ts';
import { type MountPlan, upperDir } from './mounts.ts';
import { type NetSocket, parseNetSockets } from './proc.ts';
import { readDescriptors, type TreeProcess } from './tree.ts';

/** What preflight looks at, all of it read beforehand or from procfs. */
export interface PreflightInput {
  readonly procRoot: string;
  readonly facts: ProcessFacts;
  readonly tree: readonly TreeProcess[];
  readonly mounts: MountPlan;
  readonly projectedMountPoints: readonly string[];
  readonly podIps: readonly string[];
  /** User namespace of the agent itself. */
  readonly agentUserNs: number;
  /** Upper directories that the host itself has mounted for the container. */
  readonly hostUpperDirs: readonly string[];
  /** 1 for a container as the runtime started it, 2 for one that was restored: CRIU nests a PID namespace. */
  readonly depth: 1 | 2;
}

/** CRIU takes mounts as `mnt[PATH]:PATH`. */
const PLAIN_PATH = /^[^[\]:,\p{Cc}]+$/u;

const ANONYMOUS = {
  '[io_uring]': {
    code: 'IO_URING',
    what: 'uses io_uring, which CRIU cannot dump',
    advice:
      'Run the source pod under a seccomp profile that answers io_uring_setup with ENOSYS (Node.js 20 uses it whatever it is told).',
  },
  '[userfaultfd]': {
    code: 'USERFAULTFD',
    what: 'holds a userfaultfd, which CRIU cannot dump',
    advice: 'Close it before the checkpoint.',
  },
  '[perf_event]': {
    code: 'PERF_EVENT',
    what: 'holds a perf event, which CRIU cannot dump',
    advice: 'Stop the profiler before the checkpoint.',
  },
  'bpf-map': { code: 'BPF', what: 'holds a BPF map', advice: 'Close it before the checkpoint.' },
  'bpf-prog': { code: 'BPF', what: 'holds a BPF program', advice: 'Close it before the checkpoint.' },
} as const;

/** Every reason, seen in /proc, why a checkpoint of this tree would fail or could not be restored. Empty: none was seen. */
export async function preflightProblems(input: PreflightInput): Promise<Reason[]> {
  const reasons = containerProblems(input);
  // One after the other: a hostile tree may be large, and all of it at once would be the agent's end.
  const sockets = new Set<string>();
  for (const process of input.tree) {
    const descriptors = await readDescriptors(input.procRoot, process.stat.pid);
    for (const target of descriptors.values()) if (target.startsWith('socket:')) sockets.add(target);
    reasons.push(...(await processProblems(input, process, descriptors)));
  }
  return [...reasons, ...(await socketProblems(input, sockets))];
}

const CAP_SYS_ADMIN = 1n << 21n;
const canMount = (tree: readonly TreeProcess[]) =>
  tree.some(({ status }) => (status.boundingCaps & CAP_SYS_ADMIN) !== 0n);

function containerProblems({ facts, tree, mounts, hostUpperDirs, agentUserNs, depth }: PreflightInput): Reason[] {
  const reasons: Reason[] = [];
  if (facts.nspid.at(-1) !== 1)
    reasons.push({
      code: 'SHARED_PID_NAMESPACE',
      message: 'the container shares the PID namespace of its pod, and CRIU needs its first process',
      found: `PID ${facts.nspid.at(-1)} inside`,
      wanted: 'PID 1 inside',
      advice: 'Remove shareProcessNamespace and hostPID from the pod.',
    });
  else if (facts.nspid.length !== depth + 1)
    reasons.push({
      code: 'NESTED_PID_NAMESPACE',
      message: 'the PID namespaces of the container are nested in a way that is not supported',
      found: `${facts.nspid.length - 1} levels`,
      wanted: `${depth} levels`,
      advice: 'Checkpoint the container that the runtime started.',
    });
  if (facts.ns.user !== agentUserNs)
    reasons.push({
      code: 'USER_NAMESPACE',
      message: 'the container runs in a user namespace of its own',
      found: `user namespace ${facts.ns.user}`,
      wanted: `user namespace ${agentUserNs}`,
      advice: 'Remove hostUsers: false from the pod.',
    });
  if (upperDir(mounts.root) === undefined)
    reasons.push({
      code: 'ROOT_NOT_OVERLAY',
      message: 'the changes of the root filesystem can only be told from an overlay',
      found: mounts.root.fstype,
      wanted: 'overlay',
      advice: 'Use the overlayfs snapshotter of the runtime.',
    });
  const upper = upperDir(mounts.root);
  if (upper !== undefined && canMount(tree) && !hostUpperDirs.includes(upper))
    reasons.push({
      code: 'ROOT_UNPROVEN',
      message: 'the container may mount, so its word for where its root filesystem lies on the host cannot be taken',
      found: upper,
      wanted: hostUpperDirs.join(' ') || 'a mount of the runtime in the host to compare with',
      advice: 'Drop SYS_ADMIN from the container.',
    });
  const oddNames = mounts.external.map(({ mountPoint }) => mountPoint).filter((point) => !PLAIN_PATH.test(point));
  if (oddNames.length > 0)
    reasons.push({
      code: 'MOUNT_NAME',
      message: 'a mount point has characters that mean something else on the command line of CRIU',
      found: oddNames.map((name) => JSON.stringify(name)).join(' '),
      wanted: 'no brackets, colons, commas or control characters',
      advice: 'Mount the volume at another path.',
    });
  return reasons;
}

async function processProblems(
  input: PreflightInput,
  { stat, status }: TreeProcess,
  descriptors: ReadonlyMap<number, string>,
): Promise<Reason[]> {
  if (stat.state === 'Z' || stat.state === 'X') return [];
  const reasons: Reason[] = [];
  const who = `process ${status.nspid.at(-1)} (${stat.comm})`;
  if (status.tracerPid !== 0)
    reasons.push({
      code: 'PTRACED',
      message: `${who} is traced by process ${status.tracerPid}`,
      found: `traced by ${status.tracerPid}`,
      wanted: 'not traced',
      advice: 'Detach the debugger or strace.',
    });
  for (const [fd, target] of descriptors) {
    const reason = descriptorProblem(input, `${who}, fd ${fd}`, target);
    if (reason !== undefined && !reasons.some((known) => known.code === reason.code)) reasons.push(reason);
  }
  const device = await deviceMapping(input.procRoot, stat.pid);
  if (device !== undefined)
    reasons.push({
      code: 'DEVICE_MAPPING',
      message: `${who} maps ${device}, whose state no step of this agent can take`,
      found: device,
      wanted: 'no device mapping',
      advice: 'Let the workload close the device before the checkpoint.',
    });
  return reasons;
}

function descriptorProblem(input: PreflightInput, who: string, target: string): Reason | undefined {
  for (const [kind, { code, what, advice }] of Object.entries(ANONYMOUS))
    if (target === `anon_inode:${kind}`)
      return { code, message: `${who} ${what}`, found: target, wanted: 'none', advice };
  const projected = input.projectedMountPoints.find((point) => target.startsWith(`${point}/..`));
  if (projected !== undefined)
    return {
      code: 'PROJECTED_FILE_OPEN',
      message: `${who} keeps a projected file open; the next pod has it under another name`,
      found: target,
      wanted: `nothing open below ${projected}`,
      advice: 'Read the file and close it, before the checkpoint.',
    };
  return undefined;
}

/** The first character device that a process maps, other than those every container has, and those of the GPU: see `agent/cuda`. */
async function deviceMapping(procRoot: string, pid: number): Promise<string | undefined> {
  const maps = await readFile(`${procRoot}/${pid}/maps`, 'utf8').catch(() => '');
  const devices = [...maps.matchAll(/\s(\/dev\/(?!zero\b|shm\/|null\b)\S+)/g)].map(([, path = '']) => path);
  return devices.find((path) => !isGpuDevice(path));
}

async function socketProblems(input: PreflightInput, held: ReadonlySet<string>): Promise<Reason[]> {
  const main = input.facts.pid;
  const tables = await Promise.all(
    ['tcp', 'tcp6', 'udp', 'udp6'].map((name) =>
      readFile(`${input.procRoot}/${main}/net/${name}`, 'utf8').catch(() => ''),
    ),
  );
  return tables
    .flatMap(parseNetSockets)
    .filter((socket) => held.has(`socket:[${socket.inode}]`) && !isLocal(socket, input.podIps))
    .map((socket) => ({
      code: 'FOREIGN_ADDRESS',
      message: `a socket is bound to an address that is not the pod's, and the next pod will not have it`,
      found: `${socket.localAddress}:${socket.localPort}`,
      wanted: `loopback, any, or ${input.podIps.join(', ') || 'no other'}`,
      advice: "Bind to the wildcard address or to the pod's own.",
    }));
}

function isLocal({ localAddress }: NetSocket, podIps: readonly string[]): boolean {
  return (
    localAddress === '0.0.0.0' ||
    localAddress === '::' ||
    localAddress === '::1' ||
    localAddress.startsWith('127.') ||
    localAddress === '' ||
    podIps.includes(localAddress)
  );
}
