import { describe, expect, it } from 'vitest';
import type { KubeClient } from '../../../../kube/client.ts';
import { KubeError } from '../../../../kube/error.ts';
import { newLeaseWatch } from '../../../../operator/checkpoint/lease-watch.ts';
import { Looks } from '../../../../operator/checkpoint/looks.ts';
import { creating, facts, job } from './samples.ts';

const signal = new AbortController().signal;
const nothing = {
  request: () => Promise.reject(new KubeError('GET: not found', { status: 404 })),
} as unknown as KubeClient;

/** A server that has nothing. */
const looksAt = (client: KubeClient, now: () => number = () => 0) =>
  new Looks({
    client,
    checkpoints: { get: () => undefined, indexed: () => [] },
    jobs: { get: () => undefined },
    pods: { indexed: () => [] },
    leases: newLeaseWatch(client, now),
    agents: undefined,
    storage: {},
    eventGraceMs: 100,
    clock: now,
  });

describe('the facts about a checkpoint', () => {
  it('has a Job that was looked at before its lease looked at once more', async () => {
    const known = facts({ job: { job: job({ state: 'complete' }), isLive: true } });
    const more = await looksAt(nothing).more(creating(), known, 'lease', signal);
    expect(more).toMatchObject({ lease: { isActive: false }, job: { isLive: false } });
  });

  it('waits for the words of the agent, also where its pod is not known yet, but not for ever', async () => {
    let nowMs = 0;
    const looks = looksAt(nothing, () => nowMs);
    const known = facts({ job: { job: job({ state: 'failed' }), isLive: false } });
    const word = async () => (await looks.more(creating(), known, 'word', signal)).word;
    expect(await word()).toEqual({ text: undefined, isFinal: false });
    nowMs = 99;
    expect(await word()).toEqual({ text: undefined, isFinal: false });
    nowMs = 100;
    expect(await word()).toEqual({ text: undefined, isFinal: true });
  });

  it('asks nobody for the artifact where agents are not called', async () => {
    const known = facts({ job: { job: job(), isLive: false } });
    expect((await looksAt(nothing).more(creating(), known, 'artifact', signal)).artifact).toMatchObject({
      result: 'unknown',
    });
  });
});

describe('the lease of a Job', () => {
  const place = { namespace: 'demo', name: 'j' };
  const lease = (renewTime: string, holderIdentity = 'agent') => ({
    metadata: { uid: 'u' },
    spec: { holderIdentity, leaseDurationSeconds: 30, renewTime, acquireTime: renewTime },
  });

  it('is active until its holder has shown no sign of life for its duration, whatever the clocks say', async () => {
    let nowMs = 0;
    let answer: object = lease('2020-01-01T00:00:00.000000Z');
    const client = { request: () => Promise.resolve(answer) } as unknown as KubeClient;
    const watch = newLeaseWatch(client, () => nowMs);
    expect(await watch.isActive(place, signal)).toBe(true);
    nowMs = 29_999;
    expect(await watch.isActive(place, signal)).toBe(true);
    answer = lease('2020-01-01T00:00:10.000000Z');
    expect(await watch.isActive(place, signal)).toBe(true);
    nowMs += 30_000;
    expect(await watch.isActive(place, signal)).toBe(false);
    answer = lease('2020-01-01T00:00:20.000000Z', '');
    expect(await watch.isActive(place, signal)).toBe(false);
  });
});
