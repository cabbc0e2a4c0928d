import { ERRORS, type Reason } from '../errors.ts';
import { FINAL_STATES, type OperationView } from '../operations/operation.ts';
import type { ArtifactView, NodeInfo } from '../operations/service.ts';
import { type Failure, statusOf } from './rpc-errors.ts';
import type { Protocol } from './rpc-protocol.ts';
import { recordMessage, timestamp } from './rpc-record.ts';

/* The domain as messages of proto/agent.proto. What is undefined here is left unset there. */

export type Encoder = Pick<Protocol, 'encode'>;

/** `queued` is OPERATION_STATE_QUEUED: names of enums in proto begin with the enum's. */
export const named = (prefix: string, value: string) => `${prefix}_${value.toUpperCase().replaceAll('-', '_')}`;

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

/** `listed`: without what is long, so that a page of such artifacts stays within what a client takes. */
export function checkpointMessage(view: ArtifactView, protocol: Encoder, detail: 'full' | 'listed' = 'full') {
  const { id, version, location, record, problem, readers } = view;
  return {
    checkpoint_id: id,
    version,
    location,
    complete: record !== undefined && problem === undefined,
    ...(problem && { problem: statusOf(problem, `${id}/${version}`, protocol) }),
    readers,
    ...(record && { record: recordMessage(record, detail) }),
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
