import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { z } from 'zod';
import { idProblem } from '../../contract/ids.ts';
import type { PodView } from '../../contract/pods.ts';
import { asSnapshotError, SnapshotError } from '../errors.ts';
import type { CheckpointWanted, RestoreWanted } from '../plan/decide.ts';
import type { AttachedVolume } from '../store/attach.ts';
import {
  type ArtifactCalls,
  deleteVisible,
  getVisible,
  listVisible,
  recordVisible,
  verifyVisible,
} from './artifacts.ts';
import { atMostAtOnce } from './at-once.ts';
import { endUnbegun, noteAccepted } from './attempt.ts';
import { checkpointReasons, nodeReasons, restoreReasons } from './checks.ts';
import type { AgentContext } from './context.ts';
import { type Found, findContainer } from './find.ts';
import { inspectVisible } from './inspection.ts';
import { makeWorkDir, onOwnVolume } from './node.ts';
import type { OperationView } from './operation.ts';
import { viewOfEntry } from './operation-journal.ts';
import { failedOutcome } from './perform.ts';
import type { OperationHandle, Registry } from './registry.ts';
import {
  type AgentService,
  type Caller,
  maySee,
  type NodeInfo,
  type StartCheckpoint,
  type StartRequest,
  type StorageReference,
} from './service.ts';
import { reachTarget } from './target.ts';
import { targetOf, type Wish } from './wishes.ts';

/** Where wishes are worked on. */
interface Desk {
  /** Throws TARGET_BUSY, SHUTTING_DOWN. */
  ask(wish: Wish): void;
  requireIdle(podUid: string, container: string): void;
}

/** Verifications at once: each reads as fast as the storage lets it, with all threads, beside the operations. */
export const MAX_VERIFICATIONS = 2;
/** Inspections at once: each takes room in the agent's tmpfs, and the agent's own time. */
export const MAX_INSPECTIONS = 2;

export interface RequestsSetup {
  readonly context: AgentContext;
  readonly registry: Registry;
  readonly desk: Desk;
  readonly nodeInfo: () => NodeInfo;
}

/** Answers callers of this node's agent. */
export function newRequests(setup: RequestsSetup): AgentService {
  const { context } = setup;
  const { native, node, log } = context;
  // Made for each call: the keys are what they are by then.
  const calls = (): ArtifactCalls => ({ keys: context.keys, native, node, log });
  const inspection = () => ({ ...calls(), makeWorkDir: () => makeWorkDir(context.config) });
  const oneInspection = atMostAtOnce(MAX_INSPECTIONS, 'inspections');
  const oneVerification = atMostAtOnce(MAX_VERIFICATIONS, 'verifications');
  return {
    checkpoint: (request, caller) =>
      start(setup, { kind: 'checkpoint', request, caller }, (found) => checkpointWanted(request, found)),
    restore: (request, caller) =>
      start(setup, { kind: 'restore', request, caller }, (found) => restoreWanted(request, found)),
    checkCheckpoint: async ({ target, storage }, caller, signal) => {
      const found = await findContainer(context.runtime, target, caller);
      return await checkpointReasons(context, found, { basePath: storage.basePath, signal });
    },
    checkRestore: async ({ target, storage, id, version }, caller, signal) => {
      const found = await findContainer(context.runtime, target, caller);
      return await restoreReasons(context, found, { id, version, basePath: storage.basePath, signal });
    },
    checkArtifact: async ({ storage, ...request }, caller, signal) => {
      const record = await withVolume(context, storage, caller, (volume) =>
        recordVisible(calls(), volume, request, caller),
      );
      signal.throwIfAborted();
      return await nodeReasons(context, record);
    },
    listArtifacts: ({ storage, ...request }, caller) =>
      withVolume(context, storage, caller, (volume) => listVisible(calls(), volume, request, caller)),
    getArtifact: ({ storage, ...request }, caller) =>
      withVolume(context, storage, caller, (volume) => getVisible(calls(), volume, request, caller)),
    inspectArtifact: ({ storage, ...request }, caller, signal) =>
      oneInspection(() =>
        withVolume(context, storage, caller, (volume) =>
          inspectVisible(inspection(), volume, { ...request, signal }, caller),
        ),
      ),
    verifyArtifact: ({ storage, ...request }, caller, signal) =>
      oneVerification(() =>
        withVolume(context, storage, caller, (volume) =>
          verifyVisible(calls(), volume, { ...request, signal }, caller),
        ),
      ),
    deleteArtifact: ({ storage, ...request }, caller, signal) =>
      withVolume(context, storage, caller, (volume) => deleteVisible(calls(), volume, { ...request, signal }, caller)),
    nodeInfo: setup.nodeInfo,
  };
}

async function start(
  setup: RequestsSetup,
  { kind, request, caller }: { kind: 'checkpoint' | 'restore'; request: StartRequest; caller: Caller },
  wantedOf: (found: Found) => CheckpointWanted | RestoreWanted,
): Promise<OperationView> {
  const { context, registry, desk } = setup;
  requireIds(request);
  const fingerprint = fingerprintOf(kind, request);
  const repeated = repeatedRequest(setup, request, { fingerprint, caller });
  if (repeated !== undefined) return repeated;
  const found = await findContainer(context.runtime, request.target, caller);
  // Asked twice at once: the runtime's answer took its time.
  const meanwhile = repeatedRequest(setup, request, { fingerprint, caller });
  if (meanwhile !== undefined) return meanwhile;
  const wanted = wantedOf(found);
  desk.requireIdle(found.pod.uid, found.container.name);
  const traceId = request.traceId || randomBytes(16).toString('hex');
  const handle = openOperation(registry, { request, caller, found, wanted, fingerprint, traceId });
  const wish: Wish = {
    operationId: handle.view.id,
    fingerprint,
    handle,
    pod: found.pod,
    wanted,
    deadlineAtMs: Date.now() + request.waitSeconds * 1000,
  };
  // At once: whoever asks for the same container while this is written down finds it busy.
  desk.ask(wish);
  await noteAccepted(context.journal, wish);
  return handle.view;
}

function openOperation(
  registry: Registry,
  parts: {
    readonly request: StartRequest;
    readonly caller: Caller;
    readonly found: Found;
    readonly wanted: CheckpointWanted | RestoreWanted;
    readonly fingerprint: string;
    readonly traceId: string;
  },
): OperationHandle {
  const { request, caller, found, wanted, fingerprint, traceId } = parts;
  return registry.open({
    id: randomUUID(),
    requestId: request.requestId,
    caller: caller.name,
    fingerprint,
    kind: wanted.kind,
    origin: 'grpc',
    target: targetOf(found.pod, wanted),
    checkpointId: wanted.checkpointId,
    version: wanted.version,
    traceId,
  });
}

/** Attaches the volume for one call: the agent's own, or the one that a pod mounts. */
async function withVolume<T>(
  context: AgentContext,
  storage: StorageReference,
  caller: Caller,
  work: (volume: AttachedVolume) => Promise<T>,
): Promise<T> {
  if (context.config.storage.accessMode === 'agentMount') return await onOwnVolume(context, work);
  const { pod, container } = await findContainer(context.runtime, storage.through, caller);
  const target = await reachTarget(context, { pod, wanted: { container, basePath: storage.basePath || undefined } });
  try {
    return await work(target.volume);
  } finally {
    await target.release();
  }
}

/** The recorded operation where the caller made this request before. Throws REQUEST_CONFLICT where its id was another's of theirs. */
function repeatedRequest(
  { registry }: RequestsSetup,
  request: StartRequest,
  { fingerprint, caller }: { readonly fingerprint: string; readonly caller: Caller },
): OperationView | undefined {
  const known = registry.ofRequest(request.requestId, caller);
  if (known === undefined) return undefined;
  if (maySee(caller, known.view.target.namespace) && known.fingerprint === fingerprint) return known.view;
  throw new SnapshotError('REQUEST_CONFLICT', `request id ${request.requestId} was used for another request`);
}

/** What the request is about. Its trace is not: a caller that repeats a request may have begun another. */
function fingerprintOf(kind: 'checkpoint' | 'restore', request: StartRequest): string {
  const sorted = JSON.stringify([kind, { ...request, traceId: '' }], (_key, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value,
  );
  return createHash('sha256').update(sorted).digest('hex');
}

function requireIds({ checkpointId, version }: StartRequest): void {
  for (const [what, id] of Object.entries({ 'checkpoint id': checkpointId, version })) {
    const problem = idProblem(id);
    if (problem !== undefined) throw new SnapshotError('ID_INVALID', `${what} "${id}" ${problem}`);
  }
}

function checkpointWanted(request: StartCheckpoint, { container }: Found): CheckpointWanted {
  const { checkpointId, version, after, existing } = request;
  const basePath = request.basePath || undefined;
  return { kind: 'checkpoint', container, checkpointId, version, basePath, ofJob: false, after, existing };
}

function restoreWanted(request: StartRequest, { container }: Found): RestoreWanted {
  const { checkpointId, version } = request;
  return { kind: 'restore', container, checkpointId, version, basePath: request.basePath || undefined };
}

const keptWish = z.object({
  pod: z.custom<PodView>((value) => typeof value === 'object' && value !== null),
  wanted: z.custom<CheckpointWanted | RestoreWanted>((value) => typeof value === 'object' && value !== null),
  deadlineAtMs: z.number(),
});

/** Goes on with what callers were promised by an earlier run of the agent. The journal is the agent's own: its shape is believed. */
export async function resumeRequests({ context, registry, desk }: Omit<RequestsSetup, 'nodeInfo'>): Promise<void> {
  for (const entry of context.journal.openOperations()) {
    const kept = keptWish.safeParse(entry.details['wish']).data;
    if (entry.state !== 'accepted' || kept === undefined) continue;
    const { view, fingerprint } = viewOfEntry(entry);
    const { id, requestId, caller, kind, target, checkpointId, version, traceId, createdAtMs } = view;
    const parts = { id, requestId, caller, kind, target, checkpointId, version, traceId, createdAtMs };
    const handle = registry.open({ ...parts, fingerprint, origin: 'grpc' });
    await hand({ context, desk }, { operationId: id, fingerprint, handle, ...kept }).catch((err: unknown) =>
      context.log.warn({ err, operationId: id }, 'an accepted operation cannot be gone on with'),
    );
  }
}

/** Gives a wish to those who work; where they do not take it, that is its end. */
async function hand({ context, desk }: Pick<RequestsSetup, 'context' | 'desk'>, wish: Wish): Promise<void> {
  try {
    desk.ask(wish);
  } catch (error) {
    const outcome = failedOutcome(asSnapshotError(error));
    await endUnbegun(context.journal, wish, outcome);
    wish.handle.ended(outcome);
    throw error;
  }
}
