import { type BackoffRange, backoffMs, pause } from './backoff.ts';
import type { KubeClient } from './client.ts';
import { KubeError } from './error.ts';
import { isListNeeded, type LossReason, lossReason } from './loss.ts';
import { type ChangeType, parseWatchEvent, resourceVersionOf } from './watch-event.ts';

/** How the watch of a resource fares; the latest word counts. */
export type ReflectorState =
  /** The whole state was read. */
  | { readonly kind: 'listed'; readonly count: number }
  /** The server has accepted a watch. */
  | { readonly kind: 'watching' }
  /** Something came on it: what is known is as fresh as this. */
  | { readonly kind: 'contact' }
  /**
   * It failed, and is tried again; a list whose pages were too large at once, with smaller ones, and that is said once until it fits
   * again. A watch that the server ends when its time is over is none.
   */
  | { readonly kind: 'lost'; readonly reason: LossReason; readonly message: string; readonly retryInMs: number };

export interface ReflectorOptions<T> {
  readonly client: KubeClient;
  /** Of the collection, e.g. `/api/v1/pods`. */
  readonly path: string;
  readonly labelSelector?: string | undefined;
  readonly fieldSelector?: string | undefined;
  /** What is wanted of an object; nothing else of it is kept. It must not throw. */
  readonly project: (object: unknown) => T;
  /** Everything that is there now. What is not among it is gone, without a DELETED. */
  readonly onSync: (items: readonly T[]) => void;
  /** In the server's order. DELETED also tells that an object no longer matches the selectors. */
  readonly onEvent: (type: ChangeType, item: T) => void;
  readonly onState?: (state: ReflectorState) => void;
  readonly timings?: Partial<ReflectorTimings>;
}

export interface ReflectorTimings {
  /** How long a watch is asked to last, at least; up to a third is added, so that agents do not come at the same time. */
  readonly watchSeconds: number;
  /** How long after its end a watch may still be silent. A half-open link is noticed after both times. */
  readonly graceMs: number;
  /** For one page of the list. */
  readonly listTimeoutMs: number;
  /** A watch that lasted this long was good: the next failure counts as the first. */
  readonly stableMs: number;
  readonly backoff: BackoffRange;
  /** So many objects are asked for at once. */
  readonly pageSize: number;
  /** A page that has more is asked for again with half as many objects. */
  readonly pageBytes: number;
}

/**
 * An idle server sends nothing between the events, bookmarks only every one to two minutes (recorded: 121 s). Watches that end after
 * a minute make silence beyond it a sure sign of a dead link, for one small request a minute.
 */
const TIMINGS: ReflectorTimings = {
  watchSeconds: 45,
  graceMs: 15_000,
  listTimeoutMs: 60_000,
  stableMs: 10_000,
  backoff: { minMs: 200, maxMs: 15_000 },
  pageSize: 500,
  // Usual pods have some 10 KiB. One object, whose 1.5 MiB JSON can make 9 MiB of, always fits.
  pageBytes: 32 << 20,
};

/** Watches of at least this length get a bookmark about 2 s before their end. */
const BOOKMARKED_FROM_SECONDS = 5;
/** A watch ended in time when it lasted this part of what was asked for. */
const DUE_PART = 0.9;

interface Page {
  readonly items?: readonly unknown[] | null;
  readonly metadata?: { readonly continue?: string };
}

/**
 * Follows a collection: lists it, then watches from there, for ever. Whatever fails is tried again, and no event is lost: the watch
 * resumes where it was, or everything is listed anew. Resolves when the signal aborts; rejects only with what a callback threw.
 */
export async function reflect<T>(options: ReflectorOptions<T>, signal: AbortSignal): Promise<void> {
  const reflector = new Reflector(options, signal);
  while (!signal.aborted) {
    try {
      await reflector.follow();
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof KubeError)) throw error;
      await pause(reflector.lost(error), signal);
    }
  }
}

class Reflector<T> {
  readonly #options: ReflectorOptions<T>;
  readonly #timings: ReflectorTimings;
  readonly #signal: AbortSignal;
  readonly #selectors: { readonly labelSelector?: string | undefined; readonly fieldSelector?: string | undefined };
  /** Where the watch goes on; undefined: a list is needed. */
  #position: string | undefined;
  /** In a row. */
  #failures = 0;
  /** Of the next list: half of it where a page was too large, and back again from list to list. */
  #pageSize: number;
  /** That was said, and no list with the full size of page has succeeded since. */
  #isSaidTooLarge = false;

  constructor(options: ReflectorOptions<T>, signal: AbortSignal) {
    this.#options = options;
    this.#timings = { ...TIMINGS, ...options.timings };
    this.#signal = signal;
    this.#pageSize = this.#timings.pageSize;
    this.#selectors = { labelSelector: options.labelSelector, fieldSelector: options.fieldSelector };
  }

  /** One watch, after a list where one is needed. Throws KubeError for anything but an end in time. */
  async follow(): Promise<void> {
    this.#position ??= await this.#list();
    await this.#watch(this.#position);
  }

  /** Takes note of a failure. Returns how long to wait before the next try, in milliseconds. */
  lost(error: KubeError): number {
    this.#failures += 1;
    const reason = lossReason(error);
    if (isListNeeded(reason, this.#failures)) this.#position = undefined;
    const retryInMs = backoffMs(this.#failures, this.#timings.backoff, error);
    this.#tell({ kind: 'lost', reason, message: error.message, retryInMs });
    return retryInMs;
  }

  /** All objects, in pages that are small enough, however large somebody made the objects. */
  async #list(): Promise<string> {
    for (;;) {
      const size = this.#pageSize;
      try {
        const version = await this.#listPages(size);
        const { pageSize } = this.#timings;
        if (size === pageSize) this.#isSaidTooLarge = false;
        this.#pageSize = Math.min(pageSize, size * 2);
        return version;
      } catch (error) {
        if (!(error instanceof KubeError && error.reason === 'TooLarge') || size === 1) throw error;
        this.#pageSize = Math.floor(size / 2);
        if (this.#isSaidTooLarge) continue;
        this.#isSaidTooLarge = true;
        this.#tell({ kind: 'lost', reason: lossReason(error), message: error.message, retryInMs: 0 });
      }
    }
  }

  /** All pages, as of one resourceVersion, which it returns. Nothing is told before the last page has come. */
  async #listPages(limit: number): Promise<string> {
    const { client, path, project, onSync } = this.#options;
    const { listTimeoutMs: timeoutMs, pageBytes: maxBytes } = this.#timings;
    const items: T[] = [];
    let next: string | undefined;
    let version: string | undefined;
    do {
      // A token that expired is a 410, after which it begins again with page one: what the server offers instead would leave gaps.
      const query = { ...this.#selectors, limit, continue: next };
      const request = { method: 'GET', path, query, timeoutMs, maxBytes, signal: this.#signal } as const;
      const page: Page = await client.request<Page>(request);
      version = resourceVersionOf(page);
      if (!Array.isArray(page?.items) || version === undefined)
        throw new KubeError(`GET ${path}: the answer is no list`, { reason: 'Malformed' });
      for (const object of page.items) items.push(project(object));
      next = page.metadata?.continue || undefined;
    } while (next !== undefined);
    onSync(items);
    this.#tell({ kind: 'listed', count: items.length });
    return version;
  }

  async #watch(resourceVersion: string): Promise<void> {
    const { client, path } = this.#options;
    const { watchSeconds, graceMs, stableMs } = this.#timings;
    const timeoutSeconds = Math.round(watchSeconds * (1 + Math.random() / 3));
    const query = { ...this.#selectors, watch: true, resourceVersion, allowWatchBookmarks: true, timeoutSeconds };
    let openedAtMs: number | undefined;
    const lastedMs = () => (openedAtMs === undefined ? 0 : performance.now() - openedAtMs);
    let isHeard = false;
    const onOpen = () => {
      openedAtMs = performance.now();
      this.#tell({ kind: 'watching' });
    };
    const onBytes = () => this.#tell({ kind: 'contact' });
    const onLine = (line: string) => {
      isHeard = true;
      this.#take(line);
    };
    const idleMs = timeoutSeconds * 1_000 + graceMs;
    try {
      await client.watch({ path, query, idleMs, signal: this.#signal, onOpen, onBytes, onLine });
    } finally {
      if (lastedMs() >= stableMs) this.#failures = 0;
    }
    const isDue = lastedMs() >= timeoutSeconds * 1_000 * DUE_PART;
    if (!isDue) throw new KubeError(`watch of ${path}: ended after ${Math.round(lastedMs())} ms`, { reason: 'Ended' });
    this.#failures = 0;
    // A server whose etcd was put back to an older state withholds, without an error, all events up to our resourceVersion.
    if (!isHeard && timeoutSeconds >= BOOKMARKED_FROM_SECONDS) this.#position = undefined;
  }

  #take(line: string): void {
    const { path, project, onEvent } = this.#options;
    const event = parseWatchEvent(path, line);
    if (event.type === 'ERROR') {
      // Other than a refused request, it may be about what comes next in the stream: resuming there could fail for ever.
      if (event.error.status !== 429) this.#position = undefined;
      throw event.error;
    }
    if (event.type !== 'BOOKMARK') onEvent(event.type, project(event.object));
    this.#position = event.resourceVersion;
  }

  #tell(state: ReflectorState): void {
    this.#options.onState?.(state);
  }
}
