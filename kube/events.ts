import { type BackoffRange, backoffMs, pause } from './backoff.ts';
import type { KubeClient } from './client.ts';
import { KubeError } from './error.ts';
import { type EventNote, eventNamespace, eventObject } from './event-object.ts';
import { type EventQueue, newEventQueue, type QueuedNote } from './event-queue.ts';
import { eventPath } from './paths.ts';

/** Why an Event was given up. Few words: they are fit for a metric's label. */
export type EventLoss =
  /** Too many waited. */
  | 'overflow'
  /** It was tried for too long. */
  | 'too-old'
  /** The server will never take it. */
  | 'refused'
  /** The writer was stopped. */
  | 'stopped';

export interface EventWriterOptions {
  readonly client: KubeClient;
  /** Who writes, e.g. `{ component: 'snapshot', host: 'node-1' }`. */
  readonly source: { readonly component: string; readonly host?: string };
  /** An Event was given up. `error` is what the last try met. */
  readonly onLost?: (note: EventNote, loss: EventLoss, error?: KubeError) => void;
  readonly limits?: Partial<EventLimits>;
}

export interface EventLimits {
  /** So many may wait; the oldest goes when one more comes. */
  readonly queued: number;
  readonly ageMs: number;
  /** So many requests at once, then one in each `spacingMs`. */
  readonly burst: number;
  readonly spacingMs: number;
  readonly timeoutMs: number;
  readonly backoff: BackoffRange;
  /** What waits when the writer is stopped gets so much time. */
  readonly stopMs: number;
}

/** Events are kept by the server for an hour; what could not be said for ten minutes is no news. */
const LIMITS: EventLimits = {
  queued: 256,
  ageMs: 600_000,
  burst: 25,
  spacingMs: 1_000,
  timeoutMs: 10_000,
  backoff: { minMs: 500, maxMs: 30_000 },
  stopMs: 2_000,
};

/** A 403 comes for a moment after the server's start, but also for good: a rule that is missing, a namespace that ends. */
const MAX_FORBIDDEN = 5;

export interface EventWriter {
  /** Takes a note and returns at once. The same note as one that still waits counts with it. Never throws. */
  write(note: EventNote): void;
  /** Sends what is taken, until the signal aborts and what was left then is sent or given up. Never rejects. */
  run(signal: AbortSignal): Promise<void>;
}

/** Events of core/v1, written one after the other in the background: an API that is away neither blocks nor is flooded when it is back. */
export function newEventWriter(options: EventWriterOptions): EventWriter {
  return new Writer(options);
}

class Writer implements EventWriter {
  readonly #options: EventWriterOptions;
  readonly #limits: EventLimits;
  readonly #queue: EventQueue;
  /** In a row. */
  #failures = 0;
  /** Requests that may be sent at once; one more in each `spacingMs`. */
  #tokens: number;
  #countedAtMs = performance.now();

  constructor(options: EventWriterOptions) {
    this.#options = options;
    this.#limits = { ...LIMITS, ...options.limits };
    this.#queue = newEventQueue(this.#limits.queued);
    this.#tokens = this.#limits.burst;
  }

  write(note: EventNote): void {
    const oldest = this.#queue.add(note);
    if (oldest !== undefined) this.#options.onLost?.(oldest.note, 'overflow');
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#queue.filled(signal);
      await pause(this.#untilNextMs(), signal);
      const next = signal.aborted ? undefined : this.#queue.take();
      if (next === undefined) continue;
      this.#tokens -= 1;
      if (performance.now() - next.takenAtMs > this.#limits.ageMs) {
        this.#options.onLost?.(next.note, 'too-old');
        continue;
      }
      const error = await this.#send(next, signal);
      this.#failures = error === undefined ? 0 : this.#failures + 1;
      if (error === undefined) continue;
      this.#keep(next, error);
      await pause(backoffMs(this.#failures, this.#limits.backoff, error), signal);
    }
    await this.#finish();
  }

  /** How long to wait before the next request may be sent. */
  #untilNextMs(): number {
    const { burst, spacingMs } = this.#limits;
    const now = performance.now();
    this.#tokens = Math.min(burst, this.#tokens + (now - this.#countedAtMs) / spacingMs);
    this.#countedAtMs = now;
    return Math.max(0, Math.ceil((1 - this.#tokens) * spacingMs));
  }

  /** Returns what went wrong and may go right later; what never will is given up here. */
  async #send(queued: QueuedNote, signal: AbortSignal): Promise<KubeError | undefined> {
    const { client, source, onLost } = this.#options;
    try {
      const path = eventPath(eventNamespace(queued.note.about));
      const body = eventObject(queued, source);
      await client.request({ method: 'POST', path, body, timeoutMs: this.#limits.timeoutMs, signal });
    } catch (thrown) {
      const error = thrown instanceof KubeError ? thrown : new KubeError(String(thrown), { cause: thrown });
      // It was written by an earlier try whose answer was lost.
      if (error.status === 409 && error.reason === 'AlreadyExists') return undefined;
      const isOurs = thrown !== error && !signal.aborted;
      if (!isOurs && !isHopeless(error)) return error;
      onLost?.(queued.note, 'refused', error);
    }
    return undefined;
  }

  /** Keeps what failed for another try. One that is forbidden waits behind the others: they may be about other namespaces. */
  #keep(queued: QueuedNote, error: KubeError): void {
    const forbidden = queued.forbidden + (error.status === 403 ? 1 : 0);
    if (forbidden >= MAX_FORBIDDEN) this.#options.onLost?.(queued.note, 'refused', error);
    else this.#queue.putBack({ ...queued, forbidden }, error.status === 403 ? 'last' : 'first');
  }

  /** One more try for each that is left, in the time there is: the last Event often is the one that says why we stop. */
  async #finish(): Promise<void> {
    const signal = AbortSignal.timeout(this.#limits.stopMs);
    for (let next = this.#queue.take(); next !== undefined; next = this.#queue.take()) {
      const error = await this.#send(next, signal);
      if (error !== undefined) this.#options.onLost?.(next.note, 'stopped', error);
    }
  }
}

/** The server understood it, and will say the same again. */
function isHopeless({ status }: KubeError): boolean {
  return status >= 400 && status < 500 && ![401, 403, 408, 409, 429].includes(status);
}
