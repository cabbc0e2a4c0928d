import { setTimeout as sleep } from 'node:timers/promises';
import type { ClientReadableStream, ServiceError } from '@grpc/grpc-js';
import { AgentError, isLost } from './failure.ts';
import type { OperationMessage } from './messages.ts';

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5_000;
/** An agent that is upgraded is away for as long as its image is pulled. */
const GIVE_UP_MS = 300_000;

export interface WatchOptions {
  readonly signal?: AbortSignal | undefined;
  /** How long in a row there may be no connection, in milliseconds; five minutes by default. */
  readonly giveUpMs?: number;
  /** The connection was lost, and is tried again after `waitMs`. */
  readonly onLost?: (error: AgentError, waitMs: number) => void;
}

/**
 * Yields an operation at each change until it is done. A stream that breaks is opened again behind the revision that was seen last, with
 * growing waits. Throws AgentError where the agent refuses, or the connection is away for too long; the signal's reason where that ends it.
 */
export async function* watchToTheEnd(
  open: (afterRevision: number) => ClientReadableStream<OperationMessage>,
  asError: (error: ServiceError) => AgentError,
  { signal, giveUpMs = GIVE_UP_MS, onLost }: WatchOptions = {},
): AsyncGenerator<OperationMessage, void> {
  let revision = 0;
  let waitMs = FIRST_WAIT_MS;
  let lostAt: number | undefined;
  for (;;) {
    try {
      for await (const operation of follow(open(revision), signal)) {
        revision = operation.metadata.revision;
        waitMs = FIRST_WAIT_MS;
        lostAt = undefined;
        yield operation;
        if (operation.done) return;
      }
      throw new AgentError('the watch ended before its operation', { status: 'UNAVAILABLE' });
    } catch (thrown) {
      if (signal?.aborted) throw signal.reason;
      const error = thrown instanceof AgentError ? thrown : asError(thrown as ServiceError);
      lostAt ??= performance.now();
      if (!isLost(error) || performance.now() - lostAt + waitMs > giveUpMs) throw error;
      onLost?.(error, waitMs);
      await sleep(waitMs, undefined, { signal });
      waitMs = Math.min(waitMs * 2, LONGEST_WAIT_MS);
    }
  }
}

/** The messages of one stream. Whoever stops reading cancels it. */
async function* follow(
  call: ClientReadableStream<OperationMessage>,
  signal: AbortSignal | undefined,
): AsyncGenerator<OperationMessage, void> {
  const cancel = () => call.cancel();
  // A cancelled call still says that it was cancelled, when nobody reads it any more.
  call.on('error', () => undefined);
  if (signal?.aborted) cancel();
  signal?.addEventListener('abort', cancel, { once: true });
  try {
    yield* call as AsyncIterable<OperationMessage>;
  } finally {
    signal?.removeEventListener('abort', cancel);
    cancel();
  }
}
