import { VERSION } from '../../contract/version.ts';
import { controlDir } from '../container/control.ts';
import type { CudaProcess } from '../cuda/calls.ts';
import type { DeviceUsage } from '../cuda/usage.ts';
import type { CheckpointWanted } from '../plan/decide.ts';
import type { RecordDraft } from '../store/publish.ts';
import type { Subject } from './capture.ts';
import type { AgentContext, OperationRequest } from './context.ts';
import type { CudaSubject } from './cuda-subject.ts';
import type { Target } from './target.ts';

/** The part of the record that is known before the dump; sizes, files and timings come with the publishing. */
type Draft = Omit<RecordDraft, 'sizes' | 'bulk' | 'timings'>;

/** Puts together what an artifact was captured with. */
export function draftRecord(
  context: AgentContext,
  request: OperationRequest<CheckpointWanted>,
  seen: {
    target: Target;
    subject: Subject;
    leaveRunning: boolean;
    /** Device memory when it was locked. */
    usage: readonly DeviceUsage[];
    cudaProcesses: readonly CudaProcess[];
  },
): Draft {
  const { node } = context;
  const { pod, wanted } = request;
  const { target, subject } = seen;
  return {
    operationId: request.operationId,
    traceId: request.traceId,
    createdAt: new Date().toISOString(),
    agent: { version: VERSION },
    source: {
      node: node.name,
      namespace: pod.namespace,
      pod: pod.name,
      podUid: pod.uid,
      container: wanted.container.name,
      containerId: wanted.container.id,
      podIps: [...target.podIps],
      image: target.running.image,
      imageId: target.running.imageId,
    },
    platform: {
      arch: node.arch,
      kernel: node.kernel,
      criu: node.criu,
      cpu: { ...node.cpu, features: [...node.cpu.features] },
      cgroupVersion: node.cgroupVersion,
    },
    process: {
      count: subject.tree.length,
      threads: subject.threads,
      stdio: [...subject.stdio],
      ...(subject.tty === undefined ? {} : { tty: subject.tty }),
      controlDir: controlDir(target.running.env).path,
      rootState: subject.tree[0]?.stat.state ?? '',
    },
    ...(seen.cudaProcesses.length > 0 && subject.cuda !== undefined && { cuda: cudaDraft(subject.cuda, seen) }),
    mounts: subject.mounts.all.map(({ mountPoint, fstype }) => ({ mountPoint, fstype })),
    namespaces: { ipc: subject.privateIpc ? 'private' : 'shared', netInode: subject.root.facts.ns.net },
    memory: { limitBytes: target.running.memoryLimitBytes ?? null, residentBytes: subject.residentBytes },
    criu: {
      args: [seen.leaveRunning ? '--leave-running' : '', `--ghost-limit=${context.config.criu.ghostLimit}`].filter(
        Boolean,
      ),
    },
    // Known once CRIU has ended.
    pauseSeconds: 0,
  };
}

/** What the CUDA state was captured with. Whether it is proven shows later. */
function cudaDraft(
  cuda: CudaSubject,
  { usage, cudaProcesses }: { readonly usage: readonly DeviceUsage[]; readonly cudaProcesses: readonly CudaProcess[] },
): NonNullable<Draft['cuda']> {
  const bytesOf = (isMeant: (one: DeviceUsage) => boolean) =>
    usage.filter(isMeant).reduce((sum, { bytes }) => sum + bytes, 0);
  return {
    driver: cuda.driver?.version ?? '',
    driverApi: cuda.driver?.api ?? 0,
    libraries: [...cuda.libraries],
    gpus: cuda.gpus.map(({ uuid, name, memoryBytes, freeBytes, mig, mps, virtualization }) => ({
      uuid,
      model: name,
      memoryBytes,
      freeBytes,
      usedBytes: bytesOf(({ gpu }) => gpu === uuid),
      mig,
      mps,
      virtualization,
    })),
    given: cuda.given,
    visibleDevices: cuda.environment.visibleDevices ?? null,
    deviceOrder: cuda.environment.deviceOrder ?? null,
    processes: cudaProcesses.map(({ innerPid, id }) => ({
      pid: innerPid,
      deviceBytes: bytesOf(({ pid }) => pid === id.pid),
    })),
    proven: false,
    launchJob: cuda.launchJob,
  };
}
