import type { ObjectMeta, ObjectRead } from '../../contract/object-meta.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, isGone, KubeError } from '../../kube/error.ts';
import { mergePatch } from './merge-patch.ts';
import type { ControlMetrics } from './metrics.ts';

/** What has a status of its own path. */
interface HasStatus {
  readonly metadata: ObjectMeta;
  readonly status?: unknown;
}

export interface StatusWriterOptions<T extends HasStatus> {
  readonly client: KubeClient;
  /** Of one object. */
  readonly pathOf: (meta: ObjectMeta) => string;
  /** Plural, for metrics. */
  readonly resource: string;
  readonly read: (object: unknown) => ObjectRead<T>;
  /** Told of the answer to each write, with the version that it was made from. */
  readonly onWritten?: (base: ObjectMeta, answer: unknown) => void;
  readonly metrics: Pick<ControlMetrics, 'statusWritten' | 'statusConflicted'>;
}

type StatusWrite<T> =
  /** It says so already: nothing was sent. */
  | { readonly result: 'unchanged'; readonly object: T }
  | { readonly result: 'written'; readonly object: T }
  /** The object is not there any more, or another one has its name. */
  | { readonly result: 'gone' };

/** More conflicts in a row than this are somebody who writes all the time: the key's backoff is for that. */
const MAX_TRIES = 5;

/** Writes statuses. */
export interface StatusWriter<T extends HasStatus> {
  /**
   * Makes the status what `next` says, from the object that the caller has. `next` is a pure function of the object: where somebody else
   * wrote first, the object is read anew and `next` asked again. Only what differs is sent, so that a status is not written twice, and
   * what others keep in it stays. Throws KubeError, a conflict among them after some tries.
   */
  write(object: T, next: (object: T) => T['status'], signal: AbortSignal): Promise<StatusWrite<T>>;
}

export function newStatusWriter<T extends HasStatus>(options: StatusWriterOptions<T>): StatusWriter<T> {
  return {
    write: async (object, next, signal) => {
      let current: T | undefined = object;
      for (let tries = 1; current !== undefined; tries += 1) {
        const patch = mergePatch(current.status ?? {}, next(current) ?? {});
        if (patch === undefined) return { result: 'unchanged', object: current };
        const answer = await send(options, { object: current, patch, signal });
        if (!(answer instanceof KubeError)) return answer;
        options.metrics.statusConflicted(options.resource);
        if (tries === MAX_TRIES) throw answer;
        current = await reread(options, object.metadata, signal);
      }
      return { result: 'gone' };
    },
  };
}

interface Sending<T> {
  readonly object: T;
  readonly patch: object;
  readonly signal: AbortSignal;
}

/** Returns the error where somebody else wrote first. */
async function send<T extends HasStatus>(
  options: StatusWriterOptions<T>,
  { object: { metadata }, patch, signal }: Sending<T>,
): Promise<StatusWrite<T> | KubeError> {
  const { client, pathOf, resource, metrics, onWritten } = options;
  const path = `${pathOf(metadata)}/status`;
  const body = { metadata: { resourceVersion: metadata.resourceVersion }, status: patch };
  const contentType = 'application/merge-patch+json';
  try {
    const answer = await client.request<unknown>({ method: 'PATCH', path, body, contentType, signal });
    metrics.statusWritten(resource);
    onWritten?.(metadata, answer);
    return { result: 'written', object: understood(options, answer, path) };
  } catch (error) {
    if (isGone(error)) return { result: 'gone' };
    if (error instanceof KubeError && isConflict(error)) return error;
    throw error;
  }
}

/** Undefined: it is gone. */
async function reread<T extends HasStatus>(
  options: StatusWriterOptions<T>,
  meta: ObjectMeta,
  signal: AbortSignal,
): Promise<T | undefined> {
  const path = options.pathOf(meta);
  try {
    const fresh = understood(options, await options.client.request({ method: 'GET', path, signal }), path);
    return fresh.metadata.uid === meta.uid ? fresh : undefined;
  } catch (error) {
    if (isGone(error)) return undefined;
    throw error;
  }
}

function understood<T extends HasStatus>({ read }: StatusWriterOptions<T>, answer: unknown, path: string): T {
  const result = read(answer);
  if (result.result === 'read') return result.object;
  throw new KubeError(`${path}: ${result.problem}`, { reason: 'Malformed' });
}
