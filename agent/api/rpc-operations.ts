import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import { SnapshotError } from '../errors.ts';
import { FINAL_STATES, type Operations, type OperationView } from '../operations/operation.ts';
import { type AgentService, type Caller, maySee, type StartRequest } from '../operations/service.ts';
import { type Desk, stream, unary } from './rpc-call.ts';
import { operationMessage } from './rpc-messages.ts';
import {
  type CheckpointMessage,
  checkpointRequest,
  type ListOperationsMessage,
  listOperationsRequest,
  operationName,
  pageToken,
  restoreRequest,
  type StartMessage,
} from './rpc-requests.ts';

interface Domain {
  readonly service: Pick<AgentService, 'checkpoint' | 'restore'>;
  readonly operations: Pick<Operations, 'get' | 'list' | 'watch' | 'cancel'>;
}

interface Named {
  readonly name: string;
}

/** The calls that start operations and ask for them. */
export function operationCalls(desk: Desk, { service, operations }: Domain): UntypedServiceImplementation {
  const message = (view: OperationView) => operationMessage(view, desk.protocol);
  return {
    Checkpoint: unary<CheckpointMessage>(
      desk,
      { name: 'Checkpoint' },
      async (request, { caller, traceParent, aim }) => {
        const start = checkpointRequest(request, traceParent);
        aim(startTarget(start));
        requireNamespace(caller, start.target.namespace);
        return message(requireOwn(await service.checkpoint(start, caller), caller));
      },
    ),
    Restore: unary<StartMessage>(desk, { name: 'Restore' }, async (request, { caller, traceParent, aim }) => {
      const start = restoreRequest(request, traceParent);
      aim(startTarget(start));
      requireNamespace(caller, start.target.namespace);
      return message(requireOwn(await service.restore(start, caller), caller));
    }),
    GetOperation: unary<Named>(desk, { name: 'GetOperation' }, (request, { caller, aim }) => {
      const operation = operationName(request);
      aim({ operation });
      return message(visible(operations, operation, caller));
    }),
    ListOperations: unary<ListOperationsMessage>(desk, { name: 'ListOperations' }, (request, { caller }) => {
      const { found, next } = listVisible(operations, request, caller);
      return { operations: found.map(message), next_page_token: next };
    }),
    CancelOperation: unary<Named>(desk, { name: 'CancelOperation' }, (request, { caller, aim }) => {
      const operation = operationName(request);
      aim({ operation });
      const view = visible(operations, operation, caller);
      return message(operations.cancel(view.id) ?? view);
    }),
    WatchOperation: stream<Named & { readonly after_revision: number }>(
      desk,
      // A watch ends by itself, once it has told the end of what the agent let end before it stopped.
      { name: 'WatchOperation', endsWith: 'call' },
      async (request, { caller, signal, aim }, send) => {
        const operation = operationName(request);
        aim({ operation });
        const { id, revision } = visible(operations, operation, caller);
        // A higher one is of an earlier run of the agent: it says nothing of this one's.
        const after = request.after_revision > revision ? 0 : request.after_revision;
        await follow(operations, { id, after, signal, stopping: desk.end.stream }, (view) => send(message(view)));
      },
    ),
  };
}

/** Tells of an operation until it is over, or the agent stops. */
async function follow(
  operations: Pick<Operations, 'get' | 'watch'>,
  wanted: {
    readonly id: string;
    readonly after: number;
    readonly signal: AbortSignal;
    readonly stopping: AbortSignal;
  },
  tell: (view: OperationView) => Promise<void>,
): Promise<void> {
  const { id, after, signal, stopping } = wanted;
  const over = new AbortController();
  const end = () => over.abort();
  for (const one of [signal, stopping]) one.addEventListener('abort', end, { once: true });
  if (stopping.aborted) end();
  let last: OperationView | undefined;
  try {
    for await (const view of operations.watch(id, after, over.signal)) {
      await tell(view);
      last = view;
    }
  } finally {
    for (const one of [signal, stopping]) one.removeEventListener('abort', end);
  }
  if (last !== undefined && FINAL_STATES.has(last.state)) return;
  const now = operations.get(id);
  if (now === undefined || !FINAL_STATES.has(now.state)) throw (signal.aborted ? signal : stopping).reason;
  await tell(now);
}

function startTarget({ target, requestId, checkpointId, version }: StartRequest) {
  return { ...target, requestId, checkpointId, version };
}

/** Throws FORBIDDEN where the caller names a namespace that is not open to it: whether anything is there, it does not hear. */
export function requireNamespace(caller: Caller, namespace: string): void {
  if (namespace === '' || maySee(caller, namespace)) return;
  throw new SnapshotError('FORBIDDEN', `${caller.name} may not use the namespace ${namespace}`);
}

/** Somebody else's operation under the same request id must not be shown. */
function requireOwn(view: OperationView, caller: Caller): OperationView {
  if (maySee(caller, view.target.namespace)) return view;
  throw new SnapshotError('REQUEST_CONFLICT', `the request id ${view.requestId} is in use`);
}

function visible(operations: Pick<Operations, 'get'>, id: string, caller: Caller): OperationView {
  const view = operations.get(id);
  if (view !== undefined && maySee(caller, view.target.namespace)) return view;
  throw new SnapshotError('OPERATION_NOT_FOUND', `there is no operation ${id}`);
}

function listVisible(operations: Pick<Operations, 'list'>, request: ListOperationsMessage, caller: Caller) {
  const { limit, after, states, kinds, namespace } = listOperationsRequest(request);
  requireNamespace(caller, namespace);
  const isAfter = ({ createdAtMs, id }: OperationView) =>
    after === undefined || createdAtMs < after.createdAtMs || (createdAtMs === after.createdAtMs && id < after.id);
  const wanted = operations
    .list()
    .filter((view) => maySee(caller, view.target.namespace) && isAfter(view))
    .filter((view) => namespace === '' || view.target.namespace === namespace)
    .filter(({ state }) => states.size === 0 || states.has(state))
    .filter(({ kind }) => kinds.size === 0 || kinds.has(kind))
    .sort((a, b) => b.createdAtMs - a.createdAtMs || (a.id < b.id ? 1 : -1));
  const found = wanted.slice(0, limit);
  const last = found.at(-1);
  return { found, next: wanted.length > limit && last !== undefined ? pageToken(last) : '' };
}
