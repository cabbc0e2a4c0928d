import type { Logger } from 'pino';
import { AgentError } from '../../contract/agent-api/failure.ts';
import type { ContainerReference, StorageReference } from '../../contract/agent-api/messages.ts';
import type { Cached } from '../control/cache.ts';
import type { AgentPod, AgentPods } from './agent-pod.ts';
import type { CalledClient, Callee, Connections } from './connections.ts';
import { progressText } from './progress.ts';

/** What agents say of an artifact. */
export type ArtifactWord =
  | { readonly result: 'complete' }
  /** It is there, and not to be used. */
  | { readonly result: 'broken'; readonly problem: string }
  | { readonly result: 'absent' }
  /** Nobody can be asked, or who was asked does not reach the volume. */
  | { readonly result: 'unknown'; readonly why: string };

type DeletionWord =
  | { readonly result: 'deleted' }
  | { readonly result: 'absent' }
  /** Restores are reading it: it is to be asked again. */
  | { readonly result: 'in-use'; readonly why: string }
  | { readonly result: 'unknown'; readonly why: string };

type VersionsWord =
  | { readonly result: 'listed'; readonly versions: readonly string[] }
  | { readonly result: 'unknown'; readonly why: string };

interface ArtifactName {
  readonly namespace: string;
  readonly checkpointId: string;
  readonly version: string;
}

/** Where to ask. */
interface Asking {
  /** The node whose agent knows best. Left out: any. */
  readonly node?: string | undefined;
  /** A container that mounts the volume (podMount), on that node. */
  readonly through?: ContainerReference | undefined;
  readonly signal: AbortSignal;
}

/** The agents of the cluster. An agent that is absent is no error; what these calls throw is only the signal's reason. */
export interface Agents {
  /** How far the checkpoint is, for people; undefined where nobody says. */
  progressOf(namespace: string, checkpointId: string, asking: Asking): Promise<string | undefined>;
  artifact(name: ArtifactName, asking: Asking): Promise<ArtifactWord>;
  /** The versions of a checkpoint's artifacts, complete or not. All artifacts of the volume are gone through for it. */
  versions(namespace: string, checkpointId: string, asking: Asking): Promise<VersionsWord>;
  /** Deletes an artifact that was made in the namespace. `waitSeconds`: how long restores that read it are waited for. */
  deleteArtifact(name: ArtifactName, asking: Asking & { readonly waitSeconds: number }): Promise<DeletionWord>;
}

export interface AgentsParts {
  readonly pods: AgentPods;
  readonly connections: Connections;
  readonly log: Logger;
  /** The operator's own namespace. */
  readonly home?: string;
  readonly deadlineMs?: number;
}

const DEADLINE_MS = 2_000;
/** Those of a whole cluster are not asked one after the other. */
const MAX_ASKED = 3;

export function newAgents(parts: AgentsParts): Agents {
  const { deadlineMs = DEADLINE_MS } = parts;
  return {
    progressOf: async (namespace, checkpointId, { node, signal }) => {
      // An operation runs where its container does: without a node nobody needs to be asked.
      const callee = node === undefined ? undefined : calleesFor(parts, namespace, node)[0];
      if (callee === undefined) return undefined;
      const answer = await ask(parts, callee, signal, (client) =>
        findOperation(client, { namespace, checkpointId, deadlineMs, signal }),
      );
      return answer.result === 'answered' ? answer.value : undefined;
    },
    artifact: async (name, asking) => {
      const word = await firstWord<ArtifactWord>(parts, name.namespace, asking, async (client) => {
        const request = requestOf(name, asking);
        const { complete, problem } = await client.getCheckpoint(request, { deadlineMs, signal: asking.signal });
        return complete
          ? { result: 'complete' }
          : { result: 'broken', problem: problem?.message || 'it is not complete' };
      });
      return word.result === 'in-use' ? { result: 'unknown', why: word.why } : word;
    },
    versions: async (namespace, checkpointId, asking) => {
      const word = await firstWord<VersionsWord>(parts, namespace, asking, async (client) => {
        const versions: string[] = [];
        const listed = client.listCheckpoints(storageOf(asking), { deadlineMs, signal: asking.signal });
        for await (const one of listed) if (one.checkpoint_id === checkpointId) versions.push(one.version);
        return { result: 'listed', versions };
      });
      if (word.result === 'listed' || word.result === 'unknown') return word;
      return { result: 'unknown', why: 'the agent does not list its artifacts' };
    },
    deleteArtifact: (name, { waitSeconds, ...asking }) =>
      firstWord<DeletionWord>(parts, name.namespace, asking, async (client) => {
        // Ids are shared by all namespaces, and this caller may use all of them: who asks for the deletion may not.
        const request = { ...requestOf(name, asking), namespace: name.namespace, wait_seconds: waitSeconds };
        // Files of terabytes take their time, beyond what readers take.
        await client.deleteCheckpoint(request, { deadlineMs: DELETE_MS + waitSeconds * 1_000, signal: asking.signal });
        return { result: 'deleted' };
      }),
  };
}

const DELETE_MS = 30_000;

function requestOf({ checkpointId, version }: ArtifactName, asking: Asking) {
  return { checkpoint_id: checkpointId, version, storage: storageOf(asking) };
}

/** Undefined: the volume that the agent mounts itself. */
function storageOf({ through }: Asking): StorageReference | undefined {
  return through === undefined ? undefined : { through };
}

/** The newest operation on the checkpoint that has not ended. */
async function findOperation(
  client: CalledClient,
  {
    namespace,
    checkpointId,
    deadlineMs,
    signal,
  }: { namespace: string; checkpointId: string; deadlineMs: number; signal: AbortSignal },
): Promise<string | undefined> {
  const filter = {
    kinds: ['OPERATION_KIND_CHECKPOINT'],
    states: ['OPERATION_STATE_QUEUED', 'OPERATION_STATE_WAITING', 'OPERATION_STATE_RUNNING'],
    namespace,
  };
  for await (const { metadata } of client.listOperations(filter, { deadlineMs, signal }))
    if (metadata.checkpoint_id === checkpointId) return progressText(metadata);
  return undefined;
}

/**
 * Those of the namespace: where each has agents of its own, others do not have its volume. Else those beside the operator; else all, which
 * may be anybody's pods with the label: they cannot answer, but take the time of those that can. Of them, first those that are ready.
 */
function calleesFor({ pods, home }: AgentsParts, namespace: string, node: string | undefined): Callee[] {
  const all = node === undefined ? [...pods.all()] : pods.indexed('node', node);
  const near = [namespace, home].map((place) => all.filter(({ meta }) => meta.namespace === place));
  const rank = ({ value }: Cached<AgentPod>) => (value.isReady ? 0 : 1);
  return [...(near.find((some) => some.length > 0) ?? all)]
    .sort((a, b) => rank(a) - rank(b))
    .flatMap(({ key, meta, value }) => (value.ip === undefined ? [] : [{ key, uid: meta.uid, ip: value.ip }]));
}

type Answer<T> =
  | { readonly result: 'answered'; readonly value: T }
  | { readonly result: 'failed'; readonly error: Error };

async function ask<T>(
  { connections, log }: AgentsParts,
  callee: Callee,
  signal: AbortSignal,
  call: (client: CalledClient) => Promise<T>,
): Promise<Answer<T>> {
  try {
    return { result: 'answered', value: await call(await connections.open(callee)) };
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof Error)) throw error;
    log.debug({ err: error, agent: callee.key }, 'the agent gives no answer');
    return { result: 'failed', error };
  } finally {
    connections.sweep();
  }
}

/** The first answer that says something about the artifact. */
async function firstWord<T>(
  parts: AgentsParts,
  namespace: string,
  { node, signal }: Asking,
  call: (client: CalledClient) => Promise<T>,
): Promise<T | Refusal> {
  // Right after a start it is not known yet which agents there are; who may not list them never knows.
  await parts.pods.synced(AbortSignal.any([signal, AbortSignal.timeout(parts.deadlineMs ?? DEADLINE_MS)]));
  signal.throwIfAborted();
  let why = node === undefined ? 'there is no agent' : `there is no agent on node ${node}`;
  for (const callee of calleesFor(parts, namespace, node).slice(0, MAX_ASKED)) {
    const answer = await ask(parts, callee, signal, call);
    if (answer.result === 'answered') return answer.value;
    const word = refusalOf(answer.error);
    if (word.result !== 'unknown') return word;
    why = `agent ${callee.key}: ${word.why}`;
  }
  return { result: 'unknown', why };
}

type Refusal =
  | { readonly result: 'absent' }
  | { readonly result: 'in-use'; readonly why: string }
  | { readonly result: 'unknown'; readonly why: string };

function refusalOf(error: Error): Refusal {
  if (error instanceof AgentError && error.reason === 'ARTIFACT_NOT_FOUND') return { result: 'absent' };
  if (error instanceof AgentError && error.reason === 'ARTIFACT_BUSY') return { result: 'in-use', why: error.message };
  return { result: 'unknown', why: steadyWords(error) };
}

/** The times of gRPC are left out: statuses and Events say it, and would be written anew at each try. */
function steadyWords(error: Error): string {
  const isLate = error instanceof AgentError && error.reason === '' && error.status === 'DEADLINE_EXCEEDED';
  return isLate ? 'it gave no answer in time' : error.message.replace(/ \(\d{4}-\d\d-\d\dT[\d:.]+Z\)/g, '');
}
