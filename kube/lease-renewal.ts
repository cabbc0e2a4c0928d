import { backoffMs, pause } from './backoff.ts';
import type { KubeClient } from './client.ts';
import { isConflict, KubeError } from './error.ts';
import { claimed, holderOf, type LeaseClaim, type LeaseObject, type LeasePlace, newLease } from './lease-object.ts';
import { leasePath } from './paths.ts';

/** What became of a lease. The kinds are few words: they are the values of a metric's label. */
export type LeaseEvent =
  | { readonly kind: 'acquired' }
  /** It was ours before: the process was started again. */
  | { readonly kind: 'resumed' }
  /** Its holder had let it expire. */
  | { readonly kind: 'taken-over'; readonly from: string }
  | { readonly kind: 'busy'; readonly holder: string }
  | { readonly kind: 'renew-failed'; readonly message: string }
  /** Not renewed for its whole duration: others may take it. It stays ours until one does. */
  | { readonly kind: 'overdue' }
  /** Somebody had deleted it. */
  | { readonly kind: 'recreated' }
  | { readonly kind: 'lost'; readonly holder: string }
  | { readonly kind: 'released' }
  | { readonly kind: 'release-failed'; readonly message: string };

export interface HeldLease {
  /** Aborts with a LeaseLostError when the object has another holder. For want of an answer only where it is to be given up then. */
  readonly lost: AbortSignal;
  /** Ends the renewals and deletes the lease, if it is still ours. Takes 5 s at most by default. Never rejects. */
  release(): Promise<void>;
  /** Ends the renewals and leaves the lease, so that others get it only once it has expired. */
  abandon(): Promise<void>;
}

class LeaseLostError extends Error {
  readonly holder: string;

  /** `holder`: empty where nobody has it yet, but it was not renewed in time. */
  constructor({ namespace, name }: LeasePlace, holder: string) {
    const how = holder === '' ? 'could not be renewed in time' : `was taken over by ${holder}`;
    super(`the lease ${namespace}/${name} ${how}`);
    this.name = 'LeaseLostError';
    this.holder = holder;
  }
}

interface LeaseKeeping {
  readonly client: KubeClient;
  readonly place: LeasePlace;
  readonly claim: LeaseClaim;
  /** As the server answered when it became ours. */
  readonly lease: LeaseObject;
  readonly renewMs: number;
  /** For one request, and for a release as a whole. */
  readonly timeoutMs: number;
  readonly giveUpMs: number | undefined;
  /** When it was asked for, by the monotonic clock: others may count from there. */
  readonly askedAtMs: number;
  readonly onEvent: (event: LeaseEvent) => void;
  /** It is out of our hands; called once. */
  readonly onEnd: () => void;
}

/** Begins to renew a lease. */
export function keepLease(keeping: LeaseKeeping): HeldLease {
  const keeper = new Keeper(keeping);
  let hasEnded = false;
  const end = () => {
    if (!hasEnded) keeping.onEnd();
    hasEnded = true;
  };
  const running = keeper.run().then(() => {
    if (keeper.lost.signal.aborted) end();
  });
  const stop = async () => {
    keeper.stop.abort();
    await running;
  };
  return {
    lost: keeper.lost.signal,
    release: async () => {
      await stop();
      await keeper.release();
      end();
    },
    abandon: async () => {
      await stop();
      end();
    },
  };
}

class Keeper {
  readonly lost = new AbortController();
  readonly stop = new AbortController();
  readonly #keeping: LeaseKeeping;
  readonly #path: string;
  #lease: LeaseObject;
  #isOver = false;
  #givingUp: NodeJS.Timeout | undefined;

  constructor(keeping: LeaseKeeping) {
    this.#keeping = keeping;
    this.#lease = keeping.lease;
    this.#path = leasePath(keeping.place.namespace, keeping.place.name);
    this.#renewedAt(keeping.askedAtMs);
    this.stop.signal.addEventListener('abort', () => clearTimeout(this.#givingUp));
  }

  /** Renews until it is stopped, or the lease is another's. Never rejects. */
  async run(): Promise<void> {
    const { renewMs, claim, onEvent } = this.#keeping;
    let renewedAtMs = performance.now();
    let failures = 0;
    let isOverdue = false;
    let waitMs = renewMs;
    while (!this.#isOver) {
      await pause(waitMs, this.stop.signal);
      if (this.stop.signal.aborted) return;
      try {
        const askedAtMs = performance.now();
        await this.#renew(this.stop.signal);
        this.#renewedAt(askedAtMs);
        [renewedAtMs, failures, isOverdue, waitMs] = [performance.now(), 0, false, renewMs];
      } catch (error) {
        if (this.stop.signal.aborted) return;
        failures += 1;
        onEvent({ kind: 'renew-failed', message: messageOf(error) });
        const isLate = performance.now() - renewedAtMs > claim.durationSeconds * 1_000;
        if (isLate && !isOverdue) onEvent({ kind: 'overdue' });
        isOverdue ||= isLate;
        waitMs = backoffMs(failures, { minMs: renewMs / 10, maxMs: renewMs }, asKube(error));
      }
    }
  }

  /** Winds the clock up that ends it. What was renewed too late to count has ended it already. */
  #renewedAt(askedAtMs: number): void {
    const { giveUpMs, place, onEvent } = this.#keeping;
    clearTimeout(this.#givingUp);
    if (giveUpMs === undefined || this.#isOver) return;
    const giveUp = () => {
      this.#isOver = true;
      onEvent({ kind: 'overdue' });
      this.lost.abort(new LeaseLostError(place, ''));
      this.stop.abort();
    };
    this.#givingUp = setTimeout(giveUp, Math.max(0, giveUpMs - (performance.now() - askedAtMs)));
  }

  /** Deletes the lease as we know it; where it has changed since, it is read first. Never rejects. */
  async release(): Promise<void> {
    if (this.#isOver) return;
    this.#isOver = true;
    const { timeoutMs, onEvent } = this.#keeping;
    const signal = AbortSignal.timeout(timeoutMs);
    try {
      while (!(await this.#delete(signal))) {
        const lease = await this.#read(signal);
        if (lease === undefined || lease.spec?.holderIdentity !== this.#keeping.claim.holder) break;
        this.#lease = lease;
      }
      onEvent({ kind: 'released' });
    } catch (error) {
      onEvent({ kind: 'release-failed', message: messageOf(error) });
    }
  }

  async #renew(signal: AbortSignal): Promise<void> {
    try {
      await this.#put(signal);
    } catch (error) {
      if (!isConflict(error)) throw error;
      await this.#reclaim(signal);
    }
  }

  /** Somebody else wrote the lease, or deleted it. */
  async #reclaim(signal: AbortSignal): Promise<void> {
    const { client, place, claim, timeoutMs, onEvent } = this.#keeping;
    const lease = await this.#read(signal);
    if (lease === undefined) {
      const body = newLease(place, claim, new Date());
      const path = leasePath(place.namespace);
      this.#lease = await client.request<LeaseObject>({ method: 'POST', path, body, timeoutMs, signal });
      onEvent({ kind: 'recreated' });
      return;
    }
    const holder = holderOf(lease)?.holder ?? claim.holder;
    if (holder !== claim.holder) {
      this.#isOver = true;
      clearTimeout(this.#givingUp);
      onEvent({ kind: 'lost', holder });
      this.lost.abort(new LeaseLostError(place, holder));
      return;
    }
    this.#lease = lease;
    await this.#put(signal);
  }

  async #put(signal: AbortSignal): Promise<void> {
    const { client, claim, timeoutMs } = this.#keeping;
    const body = claimed(this.#lease, claim, new Date());
    this.#lease = await client.request<LeaseObject>({ method: 'PUT', path: this.#path, body, timeoutMs, signal });
  }

  #read(signal: AbortSignal): Promise<LeaseObject | undefined> {
    const { client, timeoutMs } = this.#keeping;
    return readLease(client, { path: this.#path, timeoutMs, signal });
  }

  /** False: it is no longer as we know it. */
  async #delete(signal: AbortSignal): Promise<boolean> {
    const { client, timeoutMs } = this.#keeping;
    const { uid, resourceVersion } = this.#lease.metadata;
    const body = { apiVersion: 'v1', kind: 'DeleteOptions', preconditions: { uid, resourceVersion } };
    try {
      await client.request({ method: 'DELETE', path: this.#path, body, timeoutMs, signal });
      return true;
    } catch (error) {
      if (asKube(error)?.status === 404) return true;
      if (isConflict(error)) return false;
      throw error;
    }
  }
}

/** Undefined: there is none. */
export async function readLease(
  client: KubeClient,
  call: { readonly path: string; readonly timeoutMs: number; readonly signal: AbortSignal },
): Promise<LeaseObject | undefined> {
  try {
    return await client.request<LeaseObject>({ method: 'GET', ...call });
  } catch (error) {
    if (asKube(error)?.status === 404) return undefined;
    throw error;
  }
}

function asKube(error: unknown): KubeError | undefined {
  return error instanceof KubeError ? error : undefined;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
