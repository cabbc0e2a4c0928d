import { type CertificateFacts, renewalMs } from '../../kube/certificates/certificate.ts';
import { DAY_MS, type Due, SETTLED_MS } from './record-key-plan.ts';

/** The two certificates, after who shows them. */
export type LeafRole = 'agent' | 'operator';
export const LEAF_ROLES: readonly LeafRole[] = ['agent', 'operator'];

/** What the Secret of the authority holds, without keys. */
export interface AuthorityHolding {
  readonly current: CertificateFacts;
  /** Trusted already, or about to be; it signs nothing yet. */
  readonly next?: CertificateFacts | undefined;
  /** Still trusted for what they signed. */
  readonly previous: readonly CertificateFacts[];
  /** No certificate that they signed is good for longer. */
  readonly previousUntilMs: number;
  /** No certificate that `current` signed is good for longer. */
  readonly issuedUntilMs: number;
}

/** What the Secret of a certificate holds, without its key. */
export interface LeafHolding extends CertificateFacts {
  readonly names: readonly string[];
  /** The authority that signed it, where the Secret of the authorities still has it. */
  readonly issuer: string | undefined;
  /** The authorities in its `ca.crt`. */
  readonly trusted: readonly string[];
  /** When one was last added there. */
  readonly trustedSinceMs: number | undefined;
}

export interface TlsHolding {
  readonly authority?: AuthorityHolding | undefined;
  readonly leaves: Readonly<Partial<Record<LeafRole, LeafHolding>>>;
}

export interface TlsWish {
  readonly names: Readonly<Record<LeafRole, string>>;
  readonly certificateDays: number;
  readonly authorityDays: number;
  /** Asked for now. */
  readonly rotateAuthority: boolean;
  readonly renew: ReadonlySet<LeafRole>;
}

/** Stands for an authority that is made in this run: it has no id before. */
export const NEW = 'new';

export interface AuthorityStep {
  /** `make`: the first one, or another one at once. `add-next`: made, and trusted from now on. `promote`: the next one signs from now on. */
  readonly kind: 'make' | 'keep' | 'add-next' | 'promote';
  readonly why: string;
  /** What the former ones signed has run out: nobody needs to trust them. */
  readonly dropsPrevious: boolean;
  readonly issuedUntilMs: number;
  readonly previousUntilMs: number;
  readonly due: Due;
}

export interface LeafStep {
  /** `issue`: a new certificate and key. `trust`: only `ca.crt` changes. */
  readonly kind: 'issue' | 'trust' | 'keep';
  readonly why: string;
  readonly notAfterMs: number;
  /** The authorities for its `ca.crt`; NEW is the one that is made in this run. */
  readonly trusted: readonly string[];
  readonly trustedSinceMs: number;
  readonly due: Due;
}

export interface TlsPlan {
  readonly authority: AuthorityStep;
  readonly leaves: Readonly<Record<LeafRole, LeafStep>>;
}

/**
 * What to write now: first the authority's Secret, then those of the certificates. A next authority is trusted an hour before it signs,
 * and a former one for as long as anything that it signed is good: at no moment does one side show what the other does not trust.
 */
export function planTls(holding: TlsHolding, wish: TlsWish, nowMs: number): TlsPlan {
  const change = planChange(holding, wish, nowMs);
  const after = authoritiesAfter(holding.authority, change, wish, nowMs);
  const agent = planLeaf('agent', holding, { wish, after, nowMs });
  const operator = planLeaf('operator', holding, { wish, after, nowMs });
  const issued = [agent, operator].filter(({ kind }) => kind === 'issue').map(({ notAfterMs }) => notAfterMs);
  const isSame = change.kind === 'keep' || change.kind === 'add-next';
  const issuedBefore = isSame ? (holding.authority?.issuedUntilMs ?? 0) : 0;
  return {
    authority: {
      ...change,
      dropsPrevious: after.dropsPrevious,
      issuedUntilMs: Math.max(issuedBefore, ...issued),
      previousUntilMs: after.previousUntilMs,
      due: dueOfAuthority(after, [agent, operator]),
    },
    leaves: { agent, operator },
  };
}

type Change = Pick<AuthorityStep, 'kind' | 'why'>;

function planChange({ authority, leaves }: TlsHolding, wish: TlsWish, nowMs: number): Change {
  if (authority === undefined) return { kind: 'make', why: 'there was none' };
  const { current, next } = authority;
  if (nowMs >= current.notAfterMs) return { kind: 'make', why: 'the former one had run out' };
  if (next !== undefined) {
    const readyMs = trustedByAllMs(leaves, next.id) + SETTLED_MS;
    if (nowMs >= readyMs) return { kind: 'promote', why: 'everybody trusts it' };
    return { kind: 'keep', why: 'the next one waits until everybody trusts it' };
  }
  if (wish.rotateAuthority) return { kind: 'add-next', why: 'asked for' };
  if (nowMs >= renewalMs(current)) return { kind: 'add-next', why: 'a third of its life is left' };
  return { kind: 'keep', why: '' };
}

/** Since when all certificates come with the authority among those they trust; infinity: not all do. */
function trustedByAllMs(leaves: TlsHolding['leaves'], id: string): number {
  const since = LEAF_ROLES.map((role) => {
    const leaf = leaves[role];
    return leaf?.trusted.includes(id) ? (leaf.trustedSinceMs ?? Number.POSITIVE_INFINITY) : Number.POSITIVE_INFINITY;
  });
  return Math.max(...since);
}

/** The authorities as they are after the step. */
interface After {
  readonly current: CertificateFacts;
  readonly next: string | undefined;
  readonly previous: readonly string[];
  readonly dropsPrevious: boolean;
  readonly previousUntilMs: number;
}

function authoritiesAfter(
  authority: AuthorityHolding | undefined,
  { kind }: Change,
  { authorityDays }: TlsWish,
  nowMs: number,
): After {
  const made = { id: NEW, notBeforeMs: nowMs, notAfterMs: nowMs + authorityDays * DAY_MS };
  if (authority === undefined || kind === 'make')
    return { current: made, next: undefined, previous: [], dropsPrevious: true, previousUntilMs: 0 };
  const { current, next, previous, previousUntilMs, issuedUntilMs } = authority;
  const dropsPrevious = previous.length > 0 && nowMs > previousUntilMs;
  const kept = dropsPrevious ? [] : previous.map(({ id }) => id);
  const untilMs = kept.length > 0 ? previousUntilMs : 0;
  if (kind === 'promote' && next !== undefined) {
    const laterMs = Math.max(untilMs, issuedUntilMs);
    return { current: next, next: undefined, previous: [current.id, ...kept], dropsPrevious, previousUntilMs: laterMs };
  }
  const nextId = kind === 'add-next' ? NEW : next?.id;
  return { current, next: nextId, previous: kept, dropsPrevious, previousUntilMs: untilMs };
}

interface LeafInput {
  readonly wish: TlsWish;
  readonly after: After;
  readonly nowMs: number;
}

function planLeaf(role: LeafRole, { leaves }: TlsHolding, { wish, after, nowMs }: LeafInput): LeafStep {
  const leaf = leaves[role];
  const trusted = [after.current.id, ...(after.next === undefined ? [] : [after.next]), ...after.previous];
  const isAdded = leaf === undefined || trusted.some((id) => !leaf.trusted.includes(id));
  const trustedSinceMs = isAdded ? nowMs : (leaf.trustedSinceMs ?? nowMs);
  const why = reasonToIssue(leaf, { wish, after, nowMs }, role);
  if (why !== undefined) {
    const notAfterMs = Math.min(nowMs + wish.certificateDays * DAY_MS, after.current.notAfterMs);
    const dueMs = renewalMs({ notBeforeMs: nowMs, notAfterMs });
    return { kind: 'issue', why, notAfterMs, trusted, trustedSinceMs, due: { step: 'it is renewed', atMs: dueMs } };
  }
  const { notAfterMs = 0, trusted: before = [] } = leaf ?? {};
  const isChanged = isAdded || before.length !== trusted.length || leaf.trustedSinceMs === undefined;
  const due = { step: 'it is renewed', atMs: leaf === undefined ? nowMs : renewalMs(leaf) };
  const said = isAdded ? 'the authorities that it comes with grew' : 'a former authority is trusted no more';
  return { kind: isChanged ? 'trust' : 'keep', why: isChanged ? said : '', notAfterMs, trusted, trustedSinceMs, due };
}

function reasonToIssue(
  leaf: LeafHolding | undefined,
  { wish, after, nowMs }: LeafInput,
  role: LeafRole,
): string | undefined {
  if (leaf === undefined) return 'there was none';
  if (wish.renew.has(role)) return 'asked for';
  if (leaf.issuer !== after.current.id) return 'its authority signs no more';
  if (leaf.names.join() !== wish.names[role]) return `it was for ${leaf.names.join(', ') || 'no name'}`;
  return nowMs >= renewalMs(leaf) ? 'a third of its life was left' : undefined;
}

function dueOfAuthority(after: After, leaves: readonly LeafStep[]): Due {
  if (after.next !== undefined) {
    const sinceMs = Math.max(...leaves.map(({ trustedSinceMs }) => trustedSinceMs));
    return { step: 'the next authority signs', atMs: sinceMs + SETTLED_MS };
  }
  const change = { step: 'a next authority is added', atMs: renewalMs(after.current) };
  if (after.previous.length === 0 || after.previousUntilMs > change.atMs) return change;
  return { step: 'the former authority is trusted no more', atMs: after.previousUntilMs };
}
