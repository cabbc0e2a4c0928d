/** The parts of a coordination.k8s.io/v1 Lease that are used; whatever else it has is kept as it is. */
export interface LeaseObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly uid?: string;
    readonly resourceVersion?: string;
    readonly ownerReferences?: readonly OwnerReference[];
  };
  readonly spec?: LeaseSpec | null;
}

interface LeaseSpec {
  readonly holderIdentity?: string | null;
  readonly leaseDurationSeconds?: number | null;
  readonly acquireTime?: string | null;
  readonly renewTime?: string | null;
  readonly leaseTransitions?: number | null;
}

/** With it, the server deletes the Lease when its owner is gone. */
interface OwnerReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
}

export interface LeasePlace {
  readonly namespace: string;
  readonly name: string;
  /** Given to a lease that we create. */
  readonly owner?: OwnerReference | undefined;
}

/** Who claims a lease, and for how long without a renewal. */
export interface LeaseClaim {
  readonly holder: string;
  readonly durationSeconds: number;
}

/** Durations beyond this are taken for it: a foreign writer must not keep a Job for ever. */
const MAX_DURATION_SECONDS = 3_600;

/** MicroTime takes exactly six decimals; what `toISOString` gives is refused (recorded). */
export function microTime(date: Date): string {
  return date.toISOString().replace('Z', '000Z');
}

/** Undefined: nobody holds it. What lacks a time or a duration has expired: no holder that keeps to the protocol wrote it. */
export function holderOf({ spec }: LeaseObject): { readonly holder: string; readonly durationMs: number } | undefined {
  const seconds = spec?.leaseDurationSeconds ?? 0;
  if (!spec?.holderIdentity || !(seconds > 0) || !(spec.renewTime ?? spec.acquireTime)) return undefined;
  return { holder: spec.holderIdentity, durationMs: Math.min(seconds, MAX_DURATION_SECONDS) * 1_000 };
}

/** Changes with each sign of life of the holder. Its times are compared with nothing but themselves: clocks differ between nodes. */
export function signOfLife({ metadata, spec }: LeaseObject): string {
  return JSON.stringify([
    metadata.uid,
    spec?.holderIdentity,
    spec?.acquireTime,
    spec?.renewTime,
    spec?.leaseTransitions,
  ]);
}

/** A lease that is not there yet, held by `claim`. */
export function newLease(
  place: LeasePlace,
  claim: LeaseClaim,
  now: Date,
): LeaseObject & { readonly apiVersion: string; readonly kind: string } {
  const { namespace, name, owner } = place;
  const time = microTime(now);
  const { holder: holderIdentity, durationSeconds: leaseDurationSeconds } = claim;
  return {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name, namespace, ...(owner === undefined ? {} : { ownerReferences: [owner] }) },
    spec: { holderIdentity, leaseDurationSeconds, acquireTime: time, renewTime: time, leaseTransitions: 0 },
  };
}

/** The same lease, held by `claim`: renewed where it was held by the same before, else taken over. */
export function claimed(lease: LeaseObject, claim: LeaseClaim, now: Date): LeaseObject {
  const { holder: holderIdentity, durationSeconds: leaseDurationSeconds } = claim;
  const renewTime = microTime(now);
  const spec = { ...lease.spec, holderIdentity, leaseDurationSeconds, renewTime };
  if (lease.spec?.holderIdentity === holderIdentity) return { ...lease, spec };
  const leaseTransitions = (lease.spec?.leaseTransitions ?? 0) + 1;
  return { ...lease, spec: { ...spec, acquireTime: renewTime, leaseTransitions } };
}
