import { ERRORS, type Reason } from '../errors.ts';
import { FINAL_STATES, type OperationView } from '../operations/operation.ts';
import type { ArtifactView, NodeInfo } from '../operations/service.ts';
import type { ArtifactRecord } from '../store/record.ts';
import { type Failure, statusOf } from './rpc-errors.ts';
import type { Protocol } from './rpc-protocol.ts';

/* The domain as messages of proto/agent.proto. What is undefined here is left unset there. */

type Encoder = Pick<Protocol, 'encode'>;

/** `queued` is OPERATION_STATE_QUEUED: names of enums in proto begin with the enum's. */
const named = (prefix: string, value: string) => `${prefix}_${value.toUpperCase().replaceAll('-', '_')}`;

export function operationMessage(view: OperationView, protocol: Encoder) {
  const { checkpointId, version, adopted } = view;
  const failure = failureOf(view);
  return {
    name: view.id,
    metadata: operationMetadata(view),
    done: FINAL_STATES.has(view.state),
    ...(failure && { error: statusOf(failure, targetText(view.target), protocol) }),
    ...(view.state === 'succeeded' && { response: { checkpoint_id: checkpointId, version, adopted } }),
  };
}

/** Why it failed, also where that was not kept over a restart of the agent. */
function failureOf({ state, failure }: OperationView): Failure | undefined {
  if (!FINAL_STATES.has(state) || state === 'succeeded') return undefined;
  if (failure !== undefined) return failure;
  const code = state === 'unknown' ? 'OUTCOME_UNKNOWN' : 'INTERNAL';
  return { code, message: 'why it failed was not kept', ...ERRORS[code], reasons: [] };
}

function operationMetadata(view: OperationView) {
  const { target, progress } = view;
  return {
    revision: view.revision,
    kind: named('OPERATION_KIND', view.kind),
    state: named('OPERATION_STATE', view.state),
    origin: named('OPERATION_ORIGIN', view.origin),
    request_id: view.requestId,
    trace_id: view.traceId,
    target: {
      namespace: target.namespace,
      pod: target.pod,
      pod_uid: target.podUid,
      container: target.container,
      container_id: target.containerId,
    },
    checkpoint_id: view.checkpointId,
    version: view.version,
    waiting_for: view.waitingFor,
    step: view.step,
    progress: {
      bytes: progress.bytes,
      total_bytes: progress.totalBytes,
      bytes_per_second: progress.bytesPerSecond,
    },
    cancel_effect: named('CANCEL_EFFECT', view.cancelEffect),
    create_time: timestamp(view.createdAtMs),
    start_time: timestamp(view.startedAtMs),
    end_time: timestamp(view.endedAtMs),
    timings: view.timings,
    figures: view.figures,
  };
}

/** What errors say was asked for. */
function targetText(target: {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
  readonly containerId: string;
}): string {
  const { namespace, pod, container, containerId } = target;
  return pod === '' ? containerId : `${namespace}/${pod}/${container}`;
}

export function mismatchMessage({ code, message, found, wanted, advice }: Reason) {
  return { code, message, found, wanted, advice };
}

export function checkpointMessage(view: ArtifactView, protocol: Encoder) {
  const { id, version, location, record, problem, readers } = view;
  return {
    checkpoint_id: id,
    version,
    location,
    complete: record !== undefined && problem === undefined,
    ...(problem && { problem: statusOf(problem, `${id}/${version}`, protocol) }),
    readers,
    ...(record && { record: recordMessage(record) }),
  };
}

function recordMessage(record: ArtifactRecord) {
  const { source, platform, cuda, sizes, process } = record;
  return {
    create_time: timestamp(Date.parse(record.createdAt)),
    operation_id: record.operationId,
    trace_id: record.traceId,
    agent_version: record.agent.version,
    source: {
      node: source.node,
      namespace: source.namespace,
      pod: source.pod,
      pod_uid: source.podUid,
      container: source.container,
      container_id: source.containerId,
      image: source.image,
      image_id: source.imageId,
    },
    platform: {
      arch: platform.arch,
      kernel: platform.kernel,
      criu: platform.criu,
      cpu_vendor: platform.cpu.vendor,
      gpu_driver: cuda?.driver ?? '',
      gpu_models: cuda?.gpus.map(({ model }) => model) ?? [],
      gpu_proven: cuda?.proven ?? false,
    },
    sizes: {
      criu_bytes: sizes.criuBytes,
      bulk_bytes: sizes.bulkBytes,
      zero_bytes: sizes.zeroBytes,
      rootfs_bytes: sizes.rootfsBytes,
      shm_bytes: sizes.shmBytes,
      device_bytes: cuda?.processes.reduce((sum, { deviceBytes }) => sum + deviceBytes, 0) ?? 0,
    },
    processes: process.count,
    threads: process.threads,
    pause_seconds: record.pauseSeconds,
    timings: record.timings,
  };
}

export function nodeMessage(node: NodeInfo) {
  return {
    node: node.node,
    agent_version: node.agentVersion,
    boot_id: node.bootId,
    arch: node.arch,
    kernel: node.kernel,
    criu: node.criu,
    runtime: node.runtime,
    access_mode: node.accessMode === 'agentMount' ? 'ACCESS_MODE_AGENT_MOUNT' : 'ACCESS_MODE_POD_MOUNT',
    base_path: node.basePath,
    capabilities: node.capabilities,
  };
}

function timestamp(ms: number | undefined) {
  if (ms === undefined) return undefined;
  const seconds = Math.floor(ms / 1000);
  return { seconds, nanos: Math.round((ms - seconds * 1000) * 1e6) };
}
