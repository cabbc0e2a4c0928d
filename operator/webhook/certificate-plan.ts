import { type CertificateFacts, renewalMs } from '../../kube/certificates/certificate.ts';

/** What the Secret holds, without keys. */
export interface CertificateHolding {
  readonly authority: CertificateFacts;
  readonly next: CertificateFacts | undefined;
  readonly previous: readonly CertificateFacts[];
  /** Nothing that they signed is good for longer. */
  readonly previousUntilMs: number;
  /** `issuer`: the id of the authority that signed it, where that is still there with its key. */
  readonly leaf: CertificateFacts & { readonly names: readonly string[]; readonly issuer: string | undefined };
}

export interface CertificateWish {
  /** The DNS name that the API server calls. */
  readonly name: string;
  readonly certificateDays: number;
  readonly authorityDays: number;
  /** So long a further authority is in the configuration before it signs: every API server must have seen it. */
  readonly settleMs: number;
}

export interface CertificateStep {
  /** `make`: another one at once. `add-next`: made, and trusted from now on. `promote`: the next one signs from now on. */
  readonly authority: 'make' | 'keep' | 'add-next' | 'promote';
  /** A new certificate and key for the server. */
  readonly issues: boolean;
  readonly dropsPrevious: boolean;
  /** Of all that is done. */
  readonly why: string;
}

const DAY_MS = 86_400_000;
/** When an authority or certificate that is made now runs out. */
export const daysFrom = (nowMs: number, days: number): number => nowMs + days * DAY_MS;

/**
 * What to write now; undefined where nothing is due. `trustedSinceMs`: since when the configuration has all authorities that the Secret
 * names; undefined where it has not. At no moment is something shown that is not trusted: a further authority is trusted before it
 * signs, and a former one as long as anything that it signed is good.
 */
export function planCertificates(
  holding: CertificateHolding | undefined,
  {
    wish,
    trustedSinceMs,
    nowMs,
  }: { readonly wish: CertificateWish; readonly trustedSinceMs: number | undefined; readonly nowMs: number },
): CertificateStep | undefined {
  if (holding === undefined) return { authority: 'make', issues: true, dropsPrevious: false, why: 'there was none' };
  const { authority, next, previous, previousUntilMs } = holding;
  const dropsPrevious = previous.length > 0 && nowMs > previousUntilMs;
  const step = (kind: CertificateStep['authority'], why: string): CertificateStep => ({
    ...{ authority: kind, issues: kind === 'make' || kind === 'promote', dropsPrevious, why },
  });
  const isNextGood = next !== undefined && nowMs < next.notAfterMs && !isEarly(next, nowMs);
  const useless = isEarly(authority, nowMs) ? EARLY : nowMs >= authority.notAfterMs ? 'had run out' : undefined;
  if (useless !== undefined)
    return isNextGood ? step('promote', `the former authority ${useless}`) : step('make', `the authority ${useless}`);
  if (isNextGood && trustedSinceMs !== undefined && nowMs >= trustedSinceMs + wish.settleMs)
    return step('promote', 'the next authority is trusted everywhere');
  const why = reasonToIssue(holding, wish, nowMs);
  if (!isNextGood && nowMs >= renewalMs(authority))
    return { ...step('add-next', "a third of the authority's life is left"), issues: why !== undefined };
  if (why !== undefined) return { ...step('keep', why), issues: true };
  return dropsPrevious ? step('keep', 'what a former authority signed has run out') : undefined;
}

/**
 * Made by a clock that ran ahead: the API server refuses it until then. Certificates begin five minutes before they are made, so that
 * clocks which differ by less make none. Where it is the clock here that is wrong, what it makes is replaced by the next right one.
 */
const isEarly = ({ notBeforeMs }: CertificateFacts, nowMs: number): boolean => notBeforeMs > nowMs;
const EARLY = 'begins later than now: a clock ran ahead';

function reasonToIssue(
  { authority, leaf }: CertificateHolding,
  { name }: CertificateWish,
  nowMs: number,
): string | undefined {
  if (leaf.issuer !== authority.id) return 'the certificate was not of the authority';
  if (leaf.names.join() !== name) return `the certificate was for ${leaf.names.join(', ') || 'no name'}`;
  if (isEarly(leaf, nowMs)) return `the certificate ${EARLY}`;
  return nowMs >= renewalMs(leaf) ? "a third of the certificate's life was left" : undefined;
}
