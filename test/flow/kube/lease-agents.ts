import { afterEach, beforeEach } from 'vitest';
import { type KubeClient, openKube } from '../../../kube/client.ts';
import { type LeaseTimings, openLeases } from '../../../kube/lease.ts';
import type { LeasePlace } from '../../../kube/lease-object.ts';
import type { HeldLease, LeaseEvent } from '../../../kube/lease-renewal.ts';
import { serveLeases } from './lease-server.ts';

export const PLACE = { namespace: 'demo', name: 'job-1' };
export const LONG_AGO = '2020-01-01T00:00:00.000000Z';

/** The lease of somebody who may be gone. */
export function foreign(renewTime = LONG_AGO, holderIdentity = 'other') {
  return { holderIdentity, leaseDurationSeconds: 1, acquireTime: renewTime, renewTime, leaseTransitions: 4 };
}

/** For each test a server of leases, and at the end no lease that is still renewed. */
export function useLeases() {
  const stage = {} as { server: Awaited<ReturnType<typeof serveLeases>>; client: KubeClient };
  const held: HeldLease[] = [];
  beforeEach(async () => {
    stage.server = await serveLeases();
    stage.client = await openKube({ kubeconfigPath: stage.server.kubeconfigPath });
  });
  afterEach(async () => {
    await Promise.all(held.splice(0).map((lease) => lease.abandon()));
    stage.client.close();
    await stage.server.close();
  });

  /** An agent. Its leases last a second, and are renewed all the time. */
  const agent = (holder: string, timings: Partial<LeaseTimings> = {}) => {
    const events: LeaseEvent[] = [];
    const leases = openLeases({
      client: stage.client,
      holder,
      onEvent: (_, event) => events.push(event),
      timings: { durationSeconds: 1, renewMs: 20, timeoutMs: 300, ...timings },
    });
    const acquire = async (place: LeasePlace = PLACE) => {
      const answer = await leases.acquire(place, new AbortController().signal);
      if (answer.result === 'held') held.push(answer.lease);
      return answer;
    };
    const hold = async () => {
      const answer = await acquire();
      if (answer.result !== 'held') throw new Error(`held by ${answer.holder}`);
      return answer.lease;
    };
    return { acquire, hold, events, kinds: () => events.map(({ kind }) => kind) };
  };
  return { stage, agent };
}
