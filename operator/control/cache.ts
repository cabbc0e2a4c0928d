import type { Logger } from 'pino';
import { type ObjectMeta, objectMeta } from '../../contract/object-meta.ts';
import type { KubeClient } from '../../kube/client.ts';
import { type ReflectorState, type ReflectorTimings, reflect } from '../../kube/reflector.ts';
import type { ControlMetrics } from './metrics.ts';

/** An object as the cache has it. `value` is what `read` made of it. */
export interface Cached<T> {
  /** `namespace/name`. */
  readonly key: string;
  readonly meta: ObjectMeta;
  readonly value: T;
}

/** An object came, changed, or went (`now` is undefined). At a resync, `now` and `before` are the same. */
export interface CacheChange<T> {
  readonly key: string;
  readonly now: Cached<T> | undefined;
  readonly before: Cached<T> | undefined;
}

export interface CacheOptions<T> {
  readonly client: KubeClient;
  /** Of the collection, e.g. `/apis/batch/v1/jobs`. */
  readonly path: string;
  readonly labelSelector?: string;
  /** Objects of others are left out; empty, or left out: all are kept. */
  readonly namespaces?: readonly string[];
  /** Plural, for log and metrics. */
  readonly resource: string;
  /** What is kept of an object. It must not throw: a malformed object is a value too, and somebody must be told of it. */
  readonly read: (object: unknown) => T;
  /** By name: under which values an object is found. */
  readonly indexes?: Readonly<Record<string, (object: Cached<T>) => readonly string[]>>;
  /** All objects are told of again this often, as if they had changed: what was missed, for whatever reason, is not missed for ever. */
  readonly resyncMs?: number;
  readonly log: Logger;
  readonly metrics: Pick<ControlMetrics, 'watchLost'>;
  readonly timings?: Partial<ReflectorTimings>;
}

const RESYNC_MS = 600_000;

/**
 * The objects of one kind, as a watch tells of them. It may be late, never wrong about the order: who writes names the version that it
 * read, and is refused where there is a newer one.
 */
export class ObjectCache<T> {
  readonly #options: CacheOptions<T>;
  readonly #objects = new Map<string, Cached<T>>();
  readonly #indexes: ReadonlyMap<string, Map<string, Set<string>>>;
  readonly #listeners = new Set<(change: CacheChange<T>) => void>();
  readonly #waiting = new Set<() => void>();
  #isSynced = false;
  /** The watch was lost: once it is back, all objects are told of again. */
  #isResyncDue = false;

  constructor(options: CacheOptions<T>) {
    this.#options = options;
    this.#indexes = new Map(Object.keys(options.indexes ?? {}).map((name) => [name, new Map()]));
  }

  get(key: string): Cached<T> | undefined {
    return this.#objects.get(key);
  }

  all(): Iterable<Cached<T>> {
    return this.#objects.values();
  }

  /** The objects that an index has under a value. Throws RangeError where there is no such index. */
  indexed(index: string, value: string): readonly Cached<T>[] {
    const values = this.#indexes.get(index);
    if (values === undefined) throw new RangeError(`${this.#options.resource} have no index ${index}`);
    return [...(values.get(value) ?? [])].flatMap((key) => this.#objects.get(key) ?? []);
  }

  /** Resolves once everything was listed, or the signal aborts. */
  synced(signal: AbortSignal): Promise<void> {
    if (this.#isSynced || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        signal.removeEventListener('abort', done);
        this.#waiting.delete(done);
        resolve();
      };
      this.#waiting.add(done);
      signal.addEventListener('abort', done);
    });
  }

  /** Tells of each change from now on; the answer ends that. */
  subscribe(listener: (change: CacheChange<T>) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Takes the server's answer to a write from the version `base`, which the watch will tell of later. Where the cache has another version,
   * it waits for the watch.
   */
  remember(base: Pick<ObjectMeta, 'uid' | 'resourceVersion'>, answer: unknown): void {
    const now = this.#project(answer);
    const before = now && this.#objects.get(now.key);
    const isSuccessor = now?.meta.uid === base.uid && before?.meta.resourceVersion === base.resourceVersion;
    if (isSuccessor) this.#set(now);
  }

  /** Follows the collection until the signal aborts. Rejects only with what a listener threw. */
  async run(signal: AbortSignal): Promise<void> {
    const { client, path, labelSelector, timings, resyncMs = RESYNC_MS } = this.#options;
    const resync = setInterval(() => this.#tellAll(), resyncMs);
    try {
      await reflect<Cached<T> | undefined>(
        {
          ...{ client, path, labelSelector },
          project: (object) => this.#project(object),
          onSync: (objects) => this.#synced(objects),
          onEvent: (type, object) => {
            if (object === undefined) return;
            if (type === 'DELETED') this.#gone(object.key);
            else this.#set(object);
          },
          onState: (state) => this.#fares(state),
          ...(timings === undefined ? {} : { timings }),
        },
        signal,
      );
    } finally {
      clearInterval(resync);
    }
  }

  #project(object: unknown): Cached<T> | undefined {
    const { resource, read, log, namespaces = [] } = this.#options;
    const { success, data } = objectMeta.safeParse((object as { metadata?: unknown } | null)?.metadata);
    if (success && namespaces.length > 0 && !namespaces.includes(data.namespace)) return undefined;
    if (success) return { key: `${data.namespace}/${data.name}`, meta: data, value: read(object) };
    log.warn({ resource }, 'what the Kubernetes API sent is no object, and is left out');
    return undefined;
  }

  #fares(state: ReflectorState): void {
    const { resource, log, metrics } = this.#options;
    if (state.kind === 'lost') {
      this.#isResyncDue = true;
      metrics.watchLost(resource, state.reason);
      log.warn({ resource, ...state }, 'the watch was lost');
    } else if (state.kind === 'watching' && this.#isResyncDue) {
      this.#isResyncDue = false;
      this.#tellAll();
    }
  }

  #synced(objects: readonly (Cached<T> | undefined)[]): void {
    const current = new Map(objects.flatMap((object) => (object === undefined ? [] : [[object.key, object] as const])));
    for (const key of [...this.#objects.keys()]) if (!current.has(key)) this.#gone(key);
    for (const object of current.values()) this.#set(object);
    this.#isSynced = true;
    for (const done of [...this.#waiting]) done();
  }

  #set(now: Cached<T>): void {
    const before = this.#objects.get(now.key);
    if (before?.meta.uid === now.meta.uid && before.meta.resourceVersion === now.meta.resourceVersion) return;
    this.#index(before, now);
    this.#objects.set(now.key, now);
    this.#tell({ key: now.key, now, before });
  }

  #gone(key: string): void {
    const before = this.#objects.get(key);
    if (before === undefined) return;
    this.#index(before, undefined);
    this.#objects.delete(key);
    this.#tell({ key, now: undefined, before });
  }

  #index(before: Cached<T> | undefined, now: Cached<T> | undefined): void {
    for (const [name, valuesOf] of Object.entries(this.#options.indexes ?? {})) {
      const index = this.#indexes.get(name) ?? new Map<string, Set<string>>();
      for (const value of before === undefined ? [] : valuesOf(before)) {
        const keys = index.get(value);
        keys?.delete(before?.key ?? '');
        if (keys?.size === 0) index.delete(value);
      }
      for (const value of now === undefined ? [] : valuesOf(now))
        index.set(value, (index.get(value) ?? new Set()).add(now?.key ?? ''));
    }
  }

  #tellAll(): void {
    for (const object of [...this.#objects.values()]) this.#tell({ key: object.key, now: object, before: object });
  }

  #tell(change: CacheChange<T>): void {
    for (const listener of this.#listeners) listener(change);
  }
}
