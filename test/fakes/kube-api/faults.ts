import { type ApiCall, type CallPattern, matches } from './calls.ts';

/**
 * Where in a call something goes wrong. `request`: nothing is stored yet. `answer`: it is stored, and nothing is answered yet.
 * `body`: half of the answer has gone out; of a watch, half of its next event.
 */
export type Moment = 'request' | 'answer' | 'body';

/**
 * What goes wrong.
 * - `reset`: the connection is reset.
 * - `silent`: the connection stays open, and nothing more comes: a half-open link.
 * - `delay`: the call goes on after so many ms.
 * - `refuse`: an error of HTTP in place of the answer, nothing is stored; as text where a real server sends text.
 * - `forbidden`: 403 with the words of RBAC, as a server gives it for a moment after its start.
 */
export type Fault =
  | { readonly kind: 'reset'; readonly at: Moment }
  | { readonly kind: 'silent'; readonly at: Moment }
  | { readonly kind: 'delay'; readonly at: 'request' | 'answer'; readonly ms: number }
  | {
      readonly kind: 'refuse';
      readonly code: number;
      readonly message?: string;
      readonly reason?: string;
      readonly retryAfterSeconds?: number;
      readonly asText?: boolean;
    }
  | { readonly kind: 'forbidden' };

/** 429 as priority and fairness words it. */
export const tooManyRequests = (retryAfterSeconds = 1): Fault => ({
  kind: 'refuse',
  code: 429,
  message: 'Too many requests, please try again later.\n',
  retryAfterSeconds,
  asText: true,
});

/** 5xx as a Status object. */
export const serverError = (code = 500, message = 'Internal error occurred: the fake was told so'): Fault => ({
  kind: 'refuse',
  code,
  message,
  reason: code === 503 ? 'ServiceUnavailable' : 'InternalError',
});

/** A fault that is switched on. */
export interface ActiveFault {
  /** How many calls it has met. */
  readonly hits: number;
  /** Switches it off. Calls that it met stay as they are. */
  lift(): void;
}

interface Entry {
  readonly pattern: CallPattern;
  readonly fault: Fault;
  left: number;
  hits: number;
}

/** The faults that are switched on, oldest first. Each call meets at most one of each moment. */
export class Faults {
  #entries: Entry[] = [];

  add(pattern: CallPattern, fault: Fault, times = Number.POSITIVE_INFINITY): ActiveFault {
    const entry: Entry = { pattern, fault, left: times, hits: 0 };
    this.#entries.push(entry);
    return {
      get hits() {
        return entry.hits;
      },
      lift: () => {
        this.#entries = this.#entries.filter((other) => other !== entry);
      },
    };
  }

  /** The fault that this call meets at this moment; counts it. */
  take(call: ApiCall, moment: Moment): Fault | undefined {
    const entry = this.#entries.find(
      ({ pattern, fault, left }) => left > 0 && momentOf(fault) === moment && matches(pattern, call),
    );
    if (entry === undefined) return undefined;
    entry.left -= 1;
    entry.hits += 1;
    return entry.fault;
  }

  clear(): void {
    this.#entries = [];
  }
}

const momentOf = (fault: Fault): Moment => ('at' in fault ? fault.at : 'request');
