import { controlDir } from '../container/control.ts';
import type { CheckpointWanted } from '../plan/decide.ts';
import type { RecordDraft } from '../store/publish.ts';
import { AGENT_VERSION } from '../version.ts';
import type { Subject } from './capture.ts';
import type { AgentContext, OperationRequest } from './context.ts';
import type { Target } from './target.ts';

/** The part of the record that is known before the dump; sizes, files and timings come with the publishing. */
type Draft = Omit<RecordDraft, 'sizes' | 'bulk' | 'timings'>;

/** Puts together what an artifact was captured with. */
export function draftRecord(
  context: AgentContext,
  request: OperationRequest<CheckpointWanted>,
  seen: { target: Target; subject: Subject; leaveRunning: boolean },
): Draft {
  const { node } = context;
  const { pod, wanted } = request;
  const { target, subject } = seen;
  return {
    operationId: request.operationId,
    traceId: request.traceId,
    createdAt: new Date().toISOString(),
    agent: { version: AGENT_VERSION },
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
