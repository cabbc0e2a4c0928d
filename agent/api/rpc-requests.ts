import { idProblem } from '../../contract/ids.ts';
import type { OperationKind, OperationState } from '../operations/operation.ts';
import type { StartCheckpoint, StartRequest } from '../operations/service.ts';
import { type ContainerFields, DEFAULT_VERSION, type Fields, readFields, type StorageFields } from './rpc-fields.ts';

/*
 * Requests as proto-loader decodes them (rpc-protocol.ts says how), and as the domain takes them. Each reader throws REQUEST_INVALID
 * with every wrong field.
 */

export interface ContainerMessage {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
  readonly container_id: string;
}

export interface StorageMessage {
  readonly through: ContainerMessage | null;
  readonly base_path: string;
}

export interface StartMessage {
  readonly request_id: string;
  readonly target: ContainerMessage | null;
  readonly checkpoint_id: string;
  readonly version: string;
  readonly base_path: string;
  readonly wait_seconds: number;
  readonly trace_id: string;
}

export interface CheckpointMessage extends StartMessage {
  readonly after: string | number;
  readonly existing: string | number;
}

export interface ListOperationsMessage {
  readonly page_size: number;
  readonly page_token: string;
  readonly states: readonly (string | number)[];
  readonly kinds: readonly (string | number)[];
  readonly namespace: string;
}

export interface CheckMessage {
  readonly target: ContainerMessage | null;
  readonly storage: StorageMessage | null;
  /** Which of the two is set. */
  readonly check?: 'checkpoint' | 'restore';
  readonly restore?: { readonly checkpoint_id: string; readonly version: string } | null;
}

export interface ArtifactMessage {
  readonly storage: StorageMessage | null;
  readonly checkpoint_id: string;
  readonly version: string;
}

const AFTER = {
  AFTER_CHECKPOINT_UNSPECIFIED: undefined,
  AFTER_CHECKPOINT_RESUME: 'resume',
  AFTER_CHECKPOINT_STOP: 'stop',
} as const;
const EXISTING = {
  EXISTING_ARTIFACT_UNSPECIFIED: 'adopt',
  EXISTING_ARTIFACT_ADOPT: 'adopt',
  EXISTING_ARTIFACT_REPLACE: 'replace',
} as const;
export const STATES: Readonly<Record<string, OperationState>> = {
  OPERATION_STATE_QUEUED: 'queued',
  OPERATION_STATE_WAITING: 'waiting',
  OPERATION_STATE_RUNNING: 'running',
  OPERATION_STATE_SUCCEEDED: 'succeeded',
  OPERATION_STATE_FAILED: 'failed',
  OPERATION_STATE_REFUSED: 'refused',
  OPERATION_STATE_UNKNOWN: 'unknown',
};
export const KINDS: Readonly<Record<string, OperationKind>> = {
  OPERATION_KIND_CHECKPOINT: 'checkpoint',
  OPERATION_KIND_RESTORE: 'restore',
};

/** `traceParent`: the metadata of that name, or empty. */
export function checkpointRequest(message: CheckpointMessage, traceParent: string): StartCheckpoint {
  const fields = readFields();
  const start = startFields(fields, message, traceParent);
  const after = fields.choice('after', message.after, AFTER);
  const existing = fields.choice('existing', message.existing, EXISTING) ?? 'adopt';
  fields.done();
  return { ...start, after, existing };
}

export function restoreRequest(message: StartMessage, traceParent: string): StartRequest {
  const fields = readFields();
  const start = startFields(fields, message, traceParent);
  fields.done();
  return start;
}

function startFields(fields: Fields, message: StartMessage, traceParent: string): StartRequest {
  return {
    requestId: fields.requestId('request_id', message.request_id),
    target: fields.container('target', message.target),
    checkpointId: fields.checkpointId('checkpoint_id', message.checkpoint_id),
    version: fields.version('version', message.version, DEFAULT_VERSION),
    basePath: fields.basePath('base_path', message.base_path),
    waitSeconds: fields.waitSeconds('wait_seconds', message.wait_seconds),
    traceId: fields.traceId('trace_id', message.trace_id, traceParent),
  };
}

/** The name of the operation that a request is about. */
export function operationName(message: { readonly name: string }): string {
  const fields = readFields();
  const name = fields.operation('name', message.name);
  fields.done();
  return name;
}

/** The place in the list after which a page begins: a time of creation, and the id that tells apart those of one time. */
export interface Place {
  readonly createdAtMs: number;
  readonly id: string;
}

export interface ListOperations {
  readonly limit: number;
  readonly after: Place | undefined;
  readonly states: ReadonlySet<OperationState>;
  readonly kinds: ReadonlySet<OperationKind>;
  readonly namespace: string;
}

export function listOperationsRequest(message: ListOperationsMessage): ListOperations {
  const fields = readFields();
  const all = <T>(name: string, values: readonly (string | number)[], choices: Readonly<Record<string, T>>) => {
    const found = values.map((value, index) => fields.choice(`${name}[${index}]`, value, choices));
    return new Set(found.filter((value) => value !== undefined));
  };
  const after = message.page_token === '' ? undefined : readPlace(message.page_token);
  if (message.page_token !== '' && after === undefined) fields.wrong('page_token', 'was not given by this agent');
  const request = {
    limit: fields.pageSize(message.page_size),
    after,
    states: all('states', message.states, STATES),
    kinds: all('kinds', message.kinds, KINDS),
    namespace: fields.namespace('namespace', message.namespace),
  };
  fields.done();
  return request;
}

function readPlace(token: string): Place | undefined {
  const [, createdAt = '', id = ''] = /^([0-9]{1,15})\/([A-Za-z0-9_.-]{1,63})$/.exec(token) ?? [];
  return id === '' ? undefined : { createdAtMs: Number(createdAt), id };
}

export function pageToken({ createdAtMs, id }: Place): string {
  return `${createdAtMs}/${id}`;
}

/** `artifact`: a restore that is compared with the node alone. */
export type Check =
  | { readonly kind: 'checkpoint'; readonly target: ContainerFields; readonly storage: StorageFields }
  | {
      readonly kind: 'restore';
      readonly target: ContainerFields;
      readonly storage: StorageFields;
      readonly id: string;
      readonly version: string;
    }
  | { readonly kind: 'artifact'; readonly storage: StorageFields; readonly id: string; readonly version: string };

export function checkRequest(message: CheckMessage): Check {
  const fields = readFields();
  const { check: kind, restore } = message;
  const isOfNode = kind === 'restore' && message.target === null;
  const target = isOfNode ? undefined : fields.container('target', message.target);
  const storage = fields.storage('storage', message.storage, target);
  if (kind === undefined) fields.wrong('check', 'is required: set checkpoint or restore');
  const id = restore ? fields.checkpointId('restore.checkpoint_id', restore.checkpoint_id) : '';
  const version = restore ? fields.version('restore.version', restore.version, DEFAULT_VERSION) : '';
  fields.done();
  if (target === undefined) return { kind: 'artifact', storage, id, version };
  return kind === 'restore' ? { kind, target, storage, id, version } : { kind: 'checkpoint', target, storage };
}

export function artifactRequest(message: ArtifactMessage) {
  const fields = readFields();
  const request = artifactFields(fields, message, DEFAULT_VERSION);
  fields.done();
  return request;
}

/** `madeIn`: the namespace that must have made it; empty where any may. */
export function deleteRequest(
  message: ArtifactMessage & { readonly wait_seconds: number; readonly namespace: string },
) {
  const fields = readFields();
  const artifact = artifactFields(fields, message, undefined);
  const waitSeconds = fields.waitSeconds('wait_seconds', message.wait_seconds);
  const madeIn = fields.namespace('namespace', message.namespace);
  fields.done();
  return { artifact: { ...artifact, waitSeconds }, madeIn };
}

function artifactFields(fields: Fields, message: ArtifactMessage, whenEmpty: string | undefined) {
  return {
    storage: fields.storage('storage', message.storage),
    id: fields.checkpointId('checkpoint_id', message.checkpoint_id),
    version: fields.version('version', message.version, whenEmpty),
  };
}

export function listCheckpointsRequest(message: {
  readonly storage: StorageMessage | null;
  readonly page_size: number;
  readonly page_token: string;
}) {
  const fields = readFields();
  const request = {
    storage: fields.storage('storage', message.storage),
    limit: fields.pageSize(message.page_size),
    after: message.page_token,
  };
  const parts = message.page_token.split('/');
  const isPlace = parts.length === 2 && parts.every((part) => idProblem(part) === undefined);
  if (message.page_token !== '' && !isPlace) fields.wrong('page_token', 'was not given by this agent');
  fields.done();
  return request;
}
