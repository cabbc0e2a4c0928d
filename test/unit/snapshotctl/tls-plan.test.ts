import { describe, expect, it } from 'vitest';
import type { CertificateFacts } from '../../../kube/certificates/certificate.ts';
import {
  type AuthorityHolding,
  type AuthorityStep,
  type LeafHolding,
  NEW,
  planTls,
  type TlsHolding,
  type TlsWish,
} from '../../../snapshotctl/credentials/tls-plan.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const NOW = Date.UTC(2026, 5, 1);
const WISH: TlsWish = {
  names: { agent: 'snapshot-agent', operator: 'snapshot-operator' },
  certificateDays: 90,
  authorityDays: 1800,
  rotateAuthority: false,
  renew: new Set(),
};

/** A certificate of so many days, made so many days ago. */
function facts(id: string, agoDays: number, lifeDays: number): CertificateFacts {
  return { id, notBeforeMs: NOW - agoDays * DAY, notAfterMs: NOW + (lifeDays - agoDays) * DAY };
}
function authority(changes: Partial<AuthorityHolding> = {}): AuthorityHolding {
  return {
    current: facts('one', 100, 1800),
    previous: [],
    previousUntilMs: 0,
    issuedUntilMs: NOW + 80 * DAY,
    ...changes,
  };
}
function leaf(changes: Partial<LeafHolding> = {}): LeafHolding {
  return {
    ...facts('leaf', 10, 90),
    names: ['snapshot-agent'],
    issuer: 'one',
    trusted: ['one'],
    trustedSinceMs: NOW - 10 * DAY,
    ...changes,
  };
}
function holding(ofAuthority: Partial<AuthorityHolding> = {}, ofLeaves: Partial<LeafHolding> = {}): TlsHolding {
  const agent = leaf(ofLeaves);
  return { authority: authority(ofAuthority), leaves: { agent, operator: { ...agent, names: ['snapshot-operator'] } } };
}
const next = facts('two', 0, 1800);
const plan = (held: TlsHolding, wish: Partial<TlsWish> = {}) => planTls(held, { ...WISH, ...wish }, NOW);
const kinds = ({ authority: first, leaves }: ReturnType<typeof planTls>) => [
  first.kind,
  leaves.agent.kind,
  leaves.operator.kind,
];

describe('the certificates', () => {
  it('are all made at first, by one authority', () => {
    const { authority: made, leaves } = plan({ leaves: {} });
    expect(made).toMatchObject({ kind: 'make', issuedUntilMs: NOW + 90 * DAY, due: { atMs: NOW + 1200 * DAY } });
    for (const one of [leaves.agent, leaves.operator])
      expect(one).toMatchObject({
        ...{ kind: 'issue', notAfterMs: NOW + 90 * DAY, trusted: [NEW], trustedSinceMs: NOW },
        due: { atMs: NOW + 60 * DAY },
      });
  });

  it('are left alone when nothing is due', () => {
    const { authority: kept, leaves } = plan(holding());
    expect(kept).toMatchObject({ kind: 'keep', dropsPrevious: false, issuedUntilMs: NOW + 80 * DAY });
    expect([leaves.agent.kind, leaves.operator.kind]).toEqual(['keep', 'keep']);
    expect(leaves.agent.due.atMs).toBe(NOW + 50 * DAY);
  });

  it.each<[string, Partial<LeafHolding>, Partial<TlsWish>, RegExp | undefined]>([
    ['a moment before a third of its life is left', facts('leaf', 59.99, 90), {}, undefined],
    ['when a third of its life is left', facts('leaf', 60, 90), {}, /third of its life/],
    ['after it has run out', facts('leaf', 100, 90), {}, /third of its life/],
    [
      'when its name is another',
      {},
      { names: { agent: 'other', operator: 'snapshot-operator' } },
      /was for snapshot-agent/,
    ],
    ['when it has a name too many', { names: ['snapshot-agent', 'more'] }, {}, /was for snapshot-agent, more/],
    ['when nobody knows who signed it', { issuer: undefined }, {}, /signs no more/],
    ['when asked', {}, { renew: new Set(['agent'] as const) }, /asked for/],
  ])('are renewed, or not: %s', (_, changes, wish, why) => {
    const { leaves, authority: noted } = plan(holding({}, changes), wish);
    expect(leaves.agent.kind).toBe(why === undefined ? 'keep' : 'issue');
    if (why !== undefined) expect(leaves.agent.why).toMatch(why);
    expect(noted.kind).toBe('keep');
    // Noted before it is issued: the authority stays trusted until then, whatever comes.
    if (why !== undefined) expect(noted.issuedUntilMs).toBe(NOW + 90 * DAY);
  });

  it('never outlive their authority', () => {
    const held = holding({ current: facts('one', 1760, 1800), next }, { ...facts('leaf', 60, 90) });
    expect(plan(held).leaves.agent).toMatchObject({ kind: 'issue', notAfterMs: NOW + 40 * DAY });
  });
});

describe('the authority', () => {
  it.each<[string, Partial<AuthorityHolding>, Partial<TlsWish>]>([
    ['asked', {}, { rotateAuthority: true }],
    ['a third of its life is left', { current: facts('one', 1200, 1800) }, {}],
  ])('gets a next one when %s, which everybody trusts and which signs nothing', (_, changes, wish) => {
    const planned = plan(holding(changes), wish);
    expect(kinds(planned)).toEqual(['add-next', 'trust', 'trust']);
    expect(planned.leaves.agent).toMatchObject({ trusted: ['one', NEW], trustedSinceMs: NOW });
    expect(planned.authority.due).toEqual({ step: 'the next authority signs', atMs: NOW + HOUR });
  });

  const trusting = (sinceMs: number | undefined) => ({ trusted: ['one', 'two'], trustedSinceMs: sinceMs });

  it.each<[string, TlsHolding, readonly string[], number]>([
    ['less than an hour', holding({ next }, trusting(NOW - HOUR + 1)), ['keep', 'keep', 'keep'], NOW + 1],
    ['nobody knows how long', holding({ next }, trusting(undefined)), ['keep', 'trust', 'trust'], NOW + HOUR],
    ['no time: the run that added it died', holding({ next }), ['keep', 'trust', 'trust'], NOW + HOUR],
    [
      'less than an hour on one side',
      {
        ...holding({ next }),
        leaves: {
          ...holding({ next }, trusting(NOW - 5)).leaves,
          operator: leaf({ ...trusting(NOW - DAY), names: ['snapshot-operator'] }),
        },
      },
      ['keep', 'keep', 'keep'],
      NOW - 5 + HOUR,
    ],
    [
      'an hour on one side, and the other side is gone',
      { authority: authority({ next }), leaves: { agent: leaf(trusting(NOW - DAY)) } },
      ['keep', 'keep', 'issue'],
      NOW + HOUR,
    ],
  ])('waits where the next one has been trusted for %s', (_, held, expected, dueMs) => {
    const planned = plan(held, { rotateAuthority: true });
    expect(kinds(planned)).toEqual(expected);
    expect(planned.authority.due).toEqual({ step: 'the next authority signs', atMs: dueMs });
  });

  it('gives way an hour after everybody trusts the next one, and stays trusted for what it signed', () => {
    const planned = plan(holding({ next }, trusting(NOW - HOUR)));
    expect(kinds(planned)).toEqual(['promote', 'issue', 'issue']);
    expect(planned.authority).toMatchObject({ previousUntilMs: NOW + 80 * DAY, issuedUntilMs: NOW + 90 * DAY });
    expect(planned.leaves.agent).toMatchObject({ trusted: ['two', 'one'], why: 'its authority signs no more' });
    // Nothing was added: the hour of a later change does not begin here.
    expect(planned.leaves.agent.trustedSinceMs).toBe(NOW - HOUR);
  });

  const former = { current: next, previous: [facts('one', 100, 1800)] };
  const shown = { issuer: 'two', trusted: ['two', 'one'] };

  it.each<[string, number, readonly string[], readonly string[]]>([
    ['is trusted to the last moment of what it signed', NOW, ['keep', 'keep', 'keep'], ['two', 'one']],
    ['is trusted no more after that', NOW - 1, ['keep', 'trust', 'trust'], ['two']],
  ])('that is a former one %s', (_, previousUntilMs, expected, trusted) => {
    const planned = plan(holding({ ...former, previousUntilMs }, shown));
    expect(kinds(planned)).toEqual(expected);
    expect(planned.authority.dropsPrevious).toBe(trusted.length === 1);
    expect(planned.leaves.operator.trusted).toEqual(trusted);
  });

  it('may change again while a former one is still trusted: both are, until the later time', () => {
    const held = holding(
      { ...former, next: facts('three', 0, 1800), previousUntilMs: NOW + 85 * DAY },
      {
        ...{ issuer: 'two', trusted: ['two', 'three', 'one'], trustedSinceMs: NOW - HOUR },
      },
    );
    const planned = plan(held);
    expect(planned.authority).toMatchObject({ kind: 'promote', previousUntilMs: NOW + 85 * DAY });
    expect(planned.leaves.agent.trusted).toEqual(['three', 'two', 'one']);
  });

  it.each<[string, TlsHolding]>([
    ['has run out', holding({ current: facts('one', 1800, 1800), next })],
    ['is gone', { leaves: holding({}, { issuer: undefined }).leaves }],
  ])('is made anew at once where it %s: nothing it signed is good for anything', (_, held) => {
    const planned = plan(held);
    expect(kinds(planned)).toEqual(['make', 'issue', 'issue']);
    expect(planned.leaves.agent.trusted).toEqual([NEW]);
    expect(planned.authority).toMatchObject<Partial<AuthorityStep>>({
      previousUntilMs: 0,
      issuedUntilMs: NOW + 90 * DAY,
    });
  });
});
