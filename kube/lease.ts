import type { KubeClient } from './client.ts';
import { isConflict } from './error.ts';
import {
  claimed,
  holderOf,
  type LeaseClaim,
  type LeaseObject,
  type LeasePlace,
  newLease,
  signOfLife,
} from './lease-object.ts';
import { type HeldLease, keepLease, type LeaseEvent, readLease } from './lease-renewal.ts';
import { leasePath } from './paths.ts';

type LeaseAnswer =
  | { readonly result: 'held'; readonly lease: HeldLease }
  /** `freeInMs`: when it can be ours at the earliest, should its holder show no sign of life until then. */
  | { readonly result: 'busy'; readonly holder: string; readonly freeInMs: number };

export interface LeaseOptions {
  readonly client: KubeClient;
  /** Who we are. Two processes must not have the same; one that is started again may, and then has its leases back at once. */
  readonly holder: string;
  readonly onEvent?: (place: LeasePlace, event: LeaseEvent) => void;
  readonly timings?: Partial<LeaseTimings>;
}

export interface LeaseTimings {
  /** How long a lease is good without a renewal. */
  readonly durationSeconds: number;
  /** Between two renewals. */
  readonly renewMs: number;
  /** For one request, and for a release as a whole. */
  readonly timeoutMs: number;
  /**
   * A lease that was not renewed for so long is lost, whoever has it: for what must end before another can begin. Undefined: it is ours
   * until another has it.
   */
  readonly giveUpMs: number | undefined;
}

/** Leases of one holder. It remembers what it saw of those of others, so the same object must be asked again. */
export interface Leases {
  /**
   * Takes a lease that is free, ours, or expired: its holder has shown no sign of life for its whole duration while we looked on. One
   * that is seen for the first time is busy, however old its times look, and so is one that this process has in its hands already.
   * Throws KubeError where the API gives no answer.
   */
  acquire(place: LeasePlace, signal: AbortSignal): Promise<LeaseAnswer>;
}

/** As the agents of the original system have them. */
const TIMINGS: LeaseTimings = { durationSeconds: 30, renewMs: 10_000, timeoutMs: 5_000, giveUpMs: undefined };
/** Somebody else can be first once or twice; more often, somebody writes it all the time. */
const MAX_TRIES = 3;
const CONTENDED_MS = 1_000;
/** What was seen of a lease that nobody asks for any more is forgotten. */
const FORGET_MS = 2 * 3_600_000;

interface Sighting {
  readonly sign: string;
  /** When this sign of life was first seen; both times are of the monotonic clock. */
  readonly sinceMs: number;
  readonly lookedAtMs: number;
}

export function openLeases(options: LeaseOptions): Leases {
  return new LeaseDesk(options);
}

class LeaseDesk implements Leases {
  readonly #options: LeaseOptions;
  readonly #timings: LeaseTimings;
  readonly #claim: LeaseClaim;
  readonly #sightings = new Map<string, Sighting>();
  /** Held, or about to be. */
  readonly #inHand = new Set<string>();

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.#timings = { ...TIMINGS, ...options.timings };
    this.#claim = { holder: options.holder, durationSeconds: this.#timings.durationSeconds };
  }

  async acquire(place: LeasePlace, signal: AbortSignal): Promise<LeaseAnswer> {
    const path = leasePath(place.namespace, place.name);
    // Two pods of one Job on this node, or the end of the earlier one's operation: it passes as any other holder's does.
    if (this.#inHand.has(path)) return this.#busy(place, { holder: this.#claim.holder, freeInMs: CONTENDED_MS });
    this.#inHand.add(path);
    let answer: LeaseAnswer | undefined;
    try {
      answer = await this.#take(place, path, signal);
      return answer;
    } finally {
      if (answer?.result !== 'held') this.#inHand.delete(path);
    }
  }

  async #take(place: LeasePlace, path: string, signal: AbortSignal): Promise<LeaseAnswer> {
    const { timeoutMs } = this.#timings;
    for (let tries = 1; tries <= MAX_TRIES; tries += 1) {
      const lease = await readLease(this.#options.client, { path, timeoutMs, signal });
      const other = lease && this.#otherHolder(lease, path);
      if (other !== undefined) return this.#busy(place, other);
      try {
        const askedAtMs = performance.now();
        const taken = await this.#write(place, lease, signal);
        this.#options.onEvent?.(place, howTaken(lease, this.#claim));
        return { result: 'held', lease: this.#keep(place, path, taken, askedAtMs) };
      } catch (error) {
        // Somebody was first. Who, the next look tells.
        if (!isConflict(error)) throw error;
      }
    }
    return this.#busy(place, { holder: 'several at once', freeInMs: CONTENDED_MS });
  }

  #busy(place: LeasePlace, other: { readonly holder: string; readonly freeInMs: number }): LeaseAnswer {
    this.#options.onEvent?.(place, { kind: 'busy', holder: other.holder });
    return { result: 'busy', ...other };
  }

  /** Undefined: it can be taken. */
  #otherHolder(lease: LeaseObject, path: string): { readonly holder: string; readonly freeInMs: number } | undefined {
    const now = performance.now();
    for (const [other, { lookedAtMs }] of this.#sightings)
      if (now - lookedAtMs > FORGET_MS) this.#sightings.delete(other);
    const current = holderOf(lease);
    if (current === undefined || current.holder === this.#claim.holder) return undefined;
    const sign = signOfLife(lease);
    const known = this.#sightings.get(path);
    const sinceMs = known?.sign === sign ? known.sinceMs : now;
    this.#sightings.set(path, { sign, sinceMs, lookedAtMs: now });
    const freeInMs = Math.ceil(current.durationMs - (now - sinceMs));
    return freeInMs > 0 ? { holder: current.holder, freeInMs } : undefined;
  }

  #write(place: LeasePlace, lease: LeaseObject | undefined, signal: AbortSignal): Promise<LeaseObject> {
    const { namespace, name } = place;
    const call =
      lease === undefined
        ? ({ method: 'POST', path: leasePath(namespace), body: newLease(place, this.#claim, new Date()) } as const)
        : ({ method: 'PUT', path: leasePath(namespace, name), body: claimed(lease, this.#claim, new Date()) } as const);
    return this.#options.client.request<LeaseObject>({ ...call, timeoutMs: this.#timings.timeoutMs, signal });
  }

  #keep(place: LeasePlace, path: string, lease: LeaseObject, askedAtMs: number): HeldLease {
    this.#sightings.delete(path);
    const { client, onEvent } = this.#options;
    const { renewMs, timeoutMs, giveUpMs } = this.#timings;
    return keepLease({
      client,
      place,
      claim: this.#claim,
      lease,
      renewMs,
      timeoutMs,
      giveUpMs,
      askedAtMs,
      onEvent: (event) => onEvent?.(place, event),
      onEnd: () => this.#inHand.delete(path),
    });
  }
}

function howTaken(lease: LeaseObject | undefined, claim: LeaseClaim): LeaseEvent {
  const from = lease?.spec?.holderIdentity;
  if (!from) return { kind: 'acquired' };
  return from === claim.holder ? { kind: 'resumed' } : { kind: 'taken-over', from };
}
