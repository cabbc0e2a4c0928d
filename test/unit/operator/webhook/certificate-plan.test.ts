import { describe, expect, it } from 'vitest';
import {
  type CertificateHolding,
  type CertificateStep,
  planCertificates,
} from '../../../../operator/webhook/certificate-plan.ts';

const DAY = 86_400_000;
const NOW = Date.UTC(2026, 5, 1);
const NAME = 'webhook.system.svc';
const WISH = { name: NAME, certificateDays: 90, authorityDays: 1800, settleMs: 300_000 };

/** Of so many days, made so many days ago. */
const facts = (id: string, agoDays: number, lifeDays: number) => ({
  ...{ id, notBeforeMs: NOW - agoDays * DAY, notAfterMs: NOW + (lifeDays - agoDays) * DAY },
});
const GOOD: CertificateHolding = {
  authority: facts('one', 100, 1800),
  next: undefined,
  previous: [],
  previousUntilMs: 0,
  leaf: { ...facts('leaf', 10, 90), names: [NAME], issuer: 'one' },
};
const leaf = (changes: Partial<CertificateHolding['leaf']>) => ({ leaf: { ...GOOD.leaf, ...changes } });
const next = facts('two', 1, 1800);
const previous = [facts('zero', 1500, 1800)];

describe('what is due of the certificates', () => {
  it.each<[string, Partial<CertificateHolding> | undefined, number | undefined, Partial<CertificateStep> | undefined]>([
    ['nothing', {}, NOW - DAY, undefined],
    ['nothing, while nobody trusts them', {}, undefined, undefined],
    ['all, at first', undefined, undefined, { authority: 'make', issues: true }],
    ['a certificate, of which a third is left', leaf(facts('leaf', 60, 90)), NOW, { authority: 'keep', issues: true }],
    ['nothing, while more is left', leaf(facts('leaf', 59, 90)), NOW, undefined],
    ['a certificate, where it has run out', leaf(facts('leaf', 91, 90)), NOW, { authority: 'keep', issues: true }],
    ['a certificate for the new name', leaf({ names: ['other'] }), NOW, { authority: 'keep', issues: true }],
    ['a certificate of the authority', leaf({ issuer: undefined }), NOW, { authority: 'keep', issues: true }],
    ['a next authority', { authority: facts('one', 1200, 1800) }, NOW, { authority: 'add-next', issues: false }],
    [
      'a next authority and a certificate',
      { authority: facts('one', 1200, 1800), ...leaf(facts('leaf', 80, 90)) },
      NOW,
      { authority: 'add-next', issues: true },
    ],
    ['nothing, while the next one is not trusted', { next }, undefined, undefined],
    ['nothing, while it is not trusted for long', { next }, NOW - 299_999, undefined],
    ['the change to the next one', { next }, NOW - 300_000, { authority: 'promote', issues: true }],
    [
      'another authority, where it has run out',
      { authority: facts('one', 1801, 1800) },
      NOW,
      { authority: 'make', issues: true },
    ],
    [
      'the next one at once, where the present one has run out',
      { authority: facts('one', 1801, 1800), next },
      undefined,
      { authority: 'promote', issues: true },
    ],
    [
      'another authority, where both have run out',
      { authority: facts('one', 1801, 1800), next: facts('two', 1801, 1800) },
      NOW,
      { authority: 'make', issues: true },
    ],
    ['a certificate, where it begins later', leaf(facts('leaf', -30, 90)), NOW, { authority: 'keep', issues: true }],
    [
      'all anew, where both begin later',
      { authority: facts('one', -30, 1800), ...leaf(facts('leaf', -30, 90)) },
      NOW,
      { authority: 'make', issues: true },
    ],
    [
      'the next one at once, where the present one begins later',
      { authority: facts('one', -30, 1800), next },
      undefined,
      { authority: 'promote', issues: true },
    ],
    ['nothing, while a next one begins later', { next: facts('two', -30, 1800) }, NOW - 300_000, undefined],
    [
      'another next authority, where the one that is there begins later',
      { authority: facts('one', 1200, 1800), next: facts('two', -30, 1800) },
      NOW,
      { authority: 'add-next', issues: false },
    ],
    [
      'nothing, where they begin now',
      { authority: facts('one', 0, 1800), ...leaf(facts('leaf', 0, 90)) },
      NOW,
      undefined,
    ],
    ['nothing, while a former one is needed', { previous, previousUntilMs: NOW }, NOW, undefined],
    [
      'the end of a former one',
      { previous, previousUntilMs: NOW - 1 },
      NOW,
      { authority: 'keep', dropsPrevious: true },
    ],
    [
      'the end of a former one with a certificate',
      { previous, previousUntilMs: NOW - 1, ...leaf(facts('leaf', 80, 90)) },
      NOW,
      { authority: 'keep', issues: true, dropsPrevious: true },
    ],
  ])('is %s', (_, changes, trustedSinceMs, step) => {
    const holding = changes && { ...GOOD, ...changes };
    const found = planCertificates(holding, { wish: WISH, trustedSinceMs, nowMs: NOW });
    if (step === undefined) expect(found).toBeUndefined();
    else expect(found).toMatchObject(step);
    expect(found?.why).not.toBe('');
  });
});
