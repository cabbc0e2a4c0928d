import { describe, expect, it } from 'vitest';
import { claimed, holderOf, type LeaseObject, microTime, newLease, signOfLife } from '../../../kube/lease-object.ts';

const NOW = new Date('2026-11-23T07:00:00.123Z');
const CLAIM = { holder: 'a', durationSeconds: 30 };
const SPEC = {
  holderIdentity: 'other',
  leaseDurationSeconds: 15,
  acquireTime: '2026-01-01T00:00:00.000000Z',
  renewTime: '2026-01-01T00:00:10.000000Z',
  leaseTransitions: 2,
};
const lease = (spec: LeaseObject['spec'] = SPEC): LeaseObject => ({
  metadata: { name: 'l', namespace: 'demo', uid: 'u', resourceVersion: '7' },
  ...(spec === undefined ? {} : { spec }),
});

describe('a lease object', () => {
  it('has times of six decimals', () => {
    expect(microTime(NOW)).toBe('2026-11-23T07:00:00.123000Z');
    expect(microTime(new Date(0))).toBe('1970-01-01T00:00:00.000000Z');
  });

  it('is made as held, with its owner where there is one', () => {
    const owner = { apiVersion: 'batch/v1', kind: 'Job', name: 'l', uid: 'j' };
    const time = '2026-11-23T07:00:00.123000Z';
    expect(newLease({ namespace: 'demo', name: 'l', owner }, CLAIM, NOW)).toEqual({
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name: 'l', namespace: 'demo', ownerReferences: [owner] },
      spec: { holderIdentity: 'a', leaseDurationSeconds: 30, acquireTime: time, renewTime: time, leaseTransitions: 0 },
    });
    expect(newLease({ namespace: 'demo', name: 'l' }, CLAIM, NOW).metadata).toEqual({ name: 'l', namespace: 'demo' });
  });

  it('is renewed with only its time and duration changed', () => {
    const mine = lease({ ...SPEC, holderIdentity: 'a' });
    const spec = { ...mine.spec, leaseDurationSeconds: 30, renewTime: '2026-11-23T07:00:00.123000Z' };
    expect(claimed(mine, CLAIM, NOW)).toEqual({ ...mine, spec });
  });

  it.each([
    ['another', SPEC, 3],
    ['nobody', { ...SPEC, holderIdentity: null }, 3],
    ['nobody ever', undefined, 1],
  ])('that %s held is taken over with one more transition', (_, spec, leaseTransitions) => {
    const time = '2026-11-23T07:00:00.123000Z';
    const taken = claimed({ metadata: lease().metadata, spec: spec ?? null }, CLAIM, NOW);
    expect(taken.metadata).toEqual(lease().metadata);
    expect(taken.spec).toEqual({
      holderIdentity: 'a',
      leaseDurationSeconds: 30,
      acquireTime: time,
      renewTime: time,
      leaseTransitions,
    });
  });

  it.each<[string, LeaseObject['spec'], object | undefined]>([
    ['is whole', SPEC, { holder: 'other', durationMs: 15_000 }],
    ['was never renewed', { ...SPEC, renewTime: null }, { holder: 'other', durationMs: 15_000 }],
    ['lasts for years', { ...SPEC, leaseDurationSeconds: 1e9 }, { holder: 'other', durationMs: 3_600_000 }],
    ['has no holder', { ...SPEC, holderIdentity: '' }, undefined],
    ['has no times', { ...SPEC, renewTime: null, acquireTime: null }, undefined],
    ['has no duration', { ...SPEC, leaseDurationSeconds: null }, undefined],
    ['lasts no time', { ...SPEC, leaseDurationSeconds: 0 }, undefined],
    ['has a null spec', null, undefined],
  ])('that %s has this holder', (_, spec, holder) => {
    expect(holderOf(lease(spec))).toEqual(holder);
  });

  it('shows a sign of life when anything about its holding changes, and only then', () => {
    const base = signOfLife(lease());
    const changed: LeaseObject[] = [
      lease({ ...SPEC, renewTime: '2026-01-01T00:00:10.000001Z' }),
      lease({ ...SPEC, acquireTime: '2026-01-01T00:00:00.000001Z' }),
      lease({ ...SPEC, holderIdentity: 'third' }),
      lease({ ...SPEC, leaseTransitions: 3 }),
      { ...lease(), metadata: { ...lease().metadata, uid: 'v' } },
    ];
    expect(new Set([base, ...changed.map(signOfLife)]).size).toBe(6);
    expect(signOfLife({ ...lease(), metadata: { ...lease().metadata, resourceVersion: '8' } })).toBe(base);
  });
});
