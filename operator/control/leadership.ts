import type { Logger } from 'pino';
import { backoffMs, pause } from '../../kube/backoff.ts';
import type { KubeClient } from '../../kube/client.ts';
import { KubeError } from '../../kube/error.ts';
import { type LeaseTimings, openLeases } from '../../kube/lease.ts';
import type { HeldLease } from '../../kube/lease-renewal.ts';
import type { ControlMetrics } from './metrics.ts';

export interface LeadershipOptions {
  readonly client: KubeClient;
  /** The Lease that all processes of this operator ask for. */
  readonly place: { readonly namespace: string; readonly name: string };
  /** This process: no other one may ever have the same name, not even after a restart. */
  readonly holder: string;
  readonly log: Logger;
  readonly metrics: Pick<ControlMetrics, 'leading' | 'leaseChanged'>;
  readonly timings?: Partial<LeadershipTimings>;
}

export interface LeadershipTimings extends Pick<LeaseTimings, 'durationSeconds' | 'renewMs' | 'timeoutMs'> {
  /** Without a renewal for so long, we lead no more. Less than the duration by what the work may take to end. */
  readonly giveUpMs: number;
  /** Between two looks at the lease of another. */
  readonly retryMs: number;
  /** So long the end of the work is waited for after the leadership was lost. */
  readonly endMs: number;
}

/** As client-go has them. */
const TIMINGS: LeadershipTimings = {
  durationSeconds: 15,
  renewMs: 2_000,
  timeoutMs: 5_000,
  giveUpMs: 10_000,
  retryMs: 2_000,
  endMs: 3_000,
};
const BACKOFF = { minMs: 200, maxMs: 5_000 };

/** This process leads no more, and must end: what it knows may be old, and somebody else may be at work. */
class LeadershipLostError extends Error {
  constructor(cause: unknown) {
    super(`leadership is lost: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    this.name = 'LeadershipLostError';
  }
}

/**
 * Waits for the leadership, and works while it lasts. The work's signal aborts when ours does, or the leadership is lost. Resolves when the
 * signal aborts, after the work has ended and the lease is free for others. Throws LeadershipLostError, and what the work throws.
 */
export async function lead(
  options: LeadershipOptions,
  work: (signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const { log, metrics } = options;
  const timings = { ...TIMINGS, ...options.timings };
  const lease = await waitForLease(options, timings, signal);
  if (lease === undefined) return;
  metrics.leading(true);
  log.info({ lease: options.place, holder: options.holder }, 'this process leads');
  const ended = new AbortController();
  const working = work(AbortSignal.any([signal, lease.lost])).finally(() => ended.abort());
  try {
    await Promise.race([working, lostFor(lease.lost, timings.endMs, ended.signal)]);
  } catch (error) {
    // Work that is cut off may fail in any way: why it was cut off is what counts.
    if (!lease.lost.aborted) throw error;
  } finally {
    metrics.leading(false);
    // Where it was lost, it is another's, or will be: nothing is deleted then.
    await lease.release();
  }
  if (lease.lost.aborted) {
    const error = new LeadershipLostError(lease.lost.reason);
    log.error({ err: error }, 'this process leads no more, and ends');
    throw error;
  }
}

/** Undefined: the signal came first. */
async function waitForLease(
  { client, place, holder, log, metrics }: LeadershipOptions,
  { retryMs, ...timings }: LeadershipTimings,
  signal: AbortSignal,
): Promise<HeldLease | undefined> {
  const onEvent = (_: unknown, event: { readonly kind: string }) => metrics.leaseChanged(event.kind);
  const leases = openLeases({ client, holder, timings, onEvent });
  let leader: string | undefined;
  for (let failures = 0; !signal.aborted; ) {
    try {
      const answer = await leases.acquire(place, signal);
      if (answer.result === 'held') return answer.lease;
      failures = 0;
      if (answer.holder !== leader) log.info({ lease: place, leader: answer.holder }, 'another process leads');
      leader = answer.holder;
      await pause(Math.min(retryMs, answer.freeInMs), signal);
    } catch (err) {
      if (signal.aborted) return undefined;
      if (!(err instanceof KubeError)) throw err;
      failures += 1;
      log.warn({ err, lease: place, failures }, 'the lease of the leader cannot be asked for');
      await pause(backoffMs(failures, BACKOFF, err), signal);
    }
  }
  return undefined;
}

/** Resolves some time after the lease was lost; never where it is not. */
function lostFor(lost: AbortSignal, ms: number, ended: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const wait = () => void pause(ms, ended).then(resolve);
    if (lost.aborted) wait();
    else lost.addEventListener('abort', wait, { once: true });
  });
}
