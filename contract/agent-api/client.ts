import { Client, type ClientReadableStream, Metadata, type MethodDefinition, type ServiceError } from '@grpc/grpc-js';
import { type AgentAddress, channelTo } from './channel.ts';
import { type AgentError, errorOfCall, errorOfStatus } from './failure.ts';
import type {
  ArtifactRequest,
  CheckpointContents,
  CheckpointMessage,
  CheckpointRequest,
  CompatibilityMessage,
  CompatibilityRequest,
  DeleteRequest,
  NodeMessage,
  OperationFilter,
  OperationMessage,
  StartRequest,
  StatusMessage,
  StorageReference,
  VerificationMessage,
} from './messages.ts';
import { loadProtocol, type Protocol } from './protocol.ts';
import { type WatchOptions, watchToTheEnd } from './watching.ts';

/** What most calls take is milliseconds; an agent that is busy may need longer. */
const CALL_MS = 30_000;
/** Verifying reads terabytes; the agent itself ends calls after an hour. */
const LONG_CALL_MS = 3_600_000;
const PAGE_SIZE = 100;

interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** How long to wait for the answer; 30 s where nothing else is said, an hour for what reads or waits. */
  readonly deadlineMs?: number;
}

/** A client of one agent. Each call throws AgentError, or the signal's reason where that ended it. */
export interface AgentClient {
  checkpoint(request: CheckpointRequest, options?: CallOptions): Promise<OperationMessage>;
  restore(request: StartRequest, options?: CallOptions): Promise<OperationMessage>;
  getOperation(name: string, options?: CallOptions): Promise<OperationMessage>;
  /** Newest first, page after page. */
  listOperations(filter?: OperationFilter, options?: CallOptions): AsyncGenerator<OperationMessage, void>;
  /** An operation now and at each change, until it is done; goes on after a lost connection. */
  watchOperation(name: string, options?: WatchOptions): AsyncGenerator<OperationMessage, void>;
  cancelOperation(name: string, options?: CallOptions): Promise<OperationMessage>;
  checkCompatibility(request: CompatibilityRequest, options?: CallOptions): Promise<CompatibilityMessage>;
  /** Page after page. */
  listCheckpoints(storage?: StorageReference, options?: CallOptions): AsyncGenerator<CheckpointMessage, void>;
  getCheckpoint(request: ArtifactRequest, options?: CallOptions): Promise<CheckpointMessage>;
  inspectCheckpoint(request: ArtifactRequest, options?: CallOptions): Promise<CheckpointContents>;
  verifyCheckpoint(request: ArtifactRequest, options?: CallOptions): Promise<VerificationMessage>;
  /** `waitSeconds`: for restores that are reading it. */
  deleteCheckpoint(request: DeleteRequest, options?: CallOptions): Promise<void>;
  getNodeInfo(options?: CallOptions): Promise<NodeMessage>;
  /** The error that an operation ended with, or that an artifact has. */
  errorOf(status: StatusMessage): AgentError;
  /** Closes the connection; calls under way fail. */
  close(): void;
}

/** A client for the address. Nothing is connected before the first call. */
export function openAgentClient(address: AgentAddress): AgentClient {
  const protocol = loadProtocol();
  const { target, credentials, options } = channelTo(address);
  const client = new Client(target, credentials, options);
  const { ask, openStream } = callsOf(client, protocol);
  const long = (options: CallOptions | undefined) => ({ deadlineMs: LONG_CALL_MS, ...options });

  return {
    checkpoint: (request, options) => ask('Checkpoint', request, options),
    restore: (request, options) => ask('Restore', request, options),
    getOperation: (name, options) => ask('GetOperation', { name }, options),
    listOperations: (filter, options) =>
      pages(async (page_token) => {
        const request = { page_size: PAGE_SIZE, page_token, ...filter };
        const { operations, next_page_token } = await ask<OperationsPage>('ListOperations', request, options);
        return { items: operations, next: next_page_token };
      }),
    watchOperation: (name, options) =>
      watchToTheEnd(
        (after_revision) => openStream('WatchOperation', { name, after_revision }),
        (error) => errorOfCall(error, protocol),
        options,
      ),
    cancelOperation: (name, options) => ask('CancelOperation', { name }, options),
    checkCompatibility: (request, options) => ask('CheckCompatibility', request, long(options)),
    listCheckpoints: (storage, options) =>
      pages(async (page_token) => {
        const request = { page_size: PAGE_SIZE, page_token, storage };
        const { checkpoints, next_page_token } = await ask<CheckpointsPage>('ListCheckpoints', request, options);
        return { items: checkpoints, next: next_page_token };
      }),
    getCheckpoint: (request, options) => ask('GetCheckpoint', request, options),
    inspectCheckpoint: (request, options) => ask('InspectCheckpoint', request, long(options)),
    verifyCheckpoint: (request, options) => ask('VerifyCheckpoint', request, long(options)),
    deleteCheckpoint: async (request, options) => {
      await ask('DeleteCheckpoint', request, { deadlineMs: CALL_MS + request.wait_seconds * 1000, ...options });
    },
    getNodeInfo: (options) => ask('GetNodeInfo', {}, options),
    errorOf: (status) => errorOfStatus(status, protocol),
    close: () => client.close(),
  };
}

/** The two kinds of calls, by the name of their method. */
function callsOf(client: Client, protocol: Protocol) {
  const method = (name: string) => protocol.agent[name] as MethodDefinition<object, object>;
  const ask = <T>(name: string, request: object, { signal, deadlineMs = CALL_MS }: CallOptions = {}): Promise<T> =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const { path, requestSerialize, responseDeserialize } = method(name);
      const deadline = Date.now() + deadlineMs;
      const done = (error: ServiceError | null, answer?: object) => {
        signal?.removeEventListener('abort', cancel);
        if (error === null) resolve(answer as T);
        else reject(signal?.aborted ? signal.reason : errorOfCall(error, protocol));
      };
      const call = client.makeUnaryRequest(
        ...([path, requestSerialize, responseDeserialize, request, new Metadata(), { deadline }, done] as const),
      );
      const cancel = () => call.cancel();
      signal?.addEventListener('abort', cancel, { once: true });
    });
  const openStream = (name: string, request: object): ClientReadableStream<OperationMessage> => {
    const { path, requestSerialize, responseDeserialize } = method(name);
    const decode = responseDeserialize as (bytes: Buffer) => OperationMessage;
    return client.makeServerStreamRequest(path, requestSerialize, decode, request);
  };
  return { ask, openStream };
}

interface OperationsPage {
  readonly operations: readonly OperationMessage[];
  readonly next_page_token: string;
}

interface CheckpointsPage {
  readonly checkpoints: readonly CheckpointMessage[];
  readonly next_page_token: string;
}

async function* pages<T>(
  read: (token: string) => Promise<{ readonly items: readonly T[]; readonly next: string }>,
): AsyncGenerator<T, void> {
  let token = '';
  do {
    const { items, next } = await read(token);
    yield* items;
    token = next;
  } while (token !== '');
}
