import { beforeAll, describe, expect, it } from 'vitest';
import { firstCertificates, nextCertificates } from '../../../../operator/webhook/certificate-making.ts';
import type { CertificateStep } from '../../../../operator/webhook/certificate-plan.ts';
import {
  type Certificates,
  holdingOf,
  readCertificateSecret,
  type SecretObject,
  secretWith,
  servedIdentity,
  trustedBundle,
} from '../../../../operator/webhook/certificate-secret.ts';

const PLACE = { namespace: 'system', name: 'tls' };
const DAY = 86_400_000;
const nowMs = Date.now();
const form = { name: 'webhook.system.svc', certificateDays: 30, authorityDays: 90, nowMs };
const step = (authority: CertificateStep['authority'], issues: boolean, dropsPrevious = false): CertificateStep => ({
  ...{ authority, issues, dropsPrevious, why: 'test' },
});

let first: Certificates;
let secret: SecretObject;
beforeAll(async () => {
  first = await firstCertificates(form, { former: [], formerUntilMs: 0 });
  secret = secretWith(PLACE, undefined, first) as SecretObject;
});
const ids = (certificates: Certificates) => trustedBundle(certificates).map(({ id }) => id);
const altered = (changes: Record<string, string>) => ({ ...secret, data: { ...secret.data, ...changes } });

describe('the Secret', () => {
  it('is read as it was written', async () => {
    const added = await nextCertificates(first, step('add-next', false), form);
    const changed = await nextCertificates(added, step('promote', true), form);
    for (const certificates of [first, added, changed]) {
      const read = readCertificateSecret(secretWith(PLACE, secret, certificates) as SecretObject);
      expect(read.result).toBe('read');
      const found = (read as { certificates: Certificates }).certificates;
      expect(ids(found)).toEqual(ids(certificates));
      expect(holdingOf(found).leaf).toMatchObject({ names: [form.name], issuer: found.authority.read.id });
      expect(found.leaf).toMatchObject({ key: certificates.leaf.key });
      const untilMs = certificates.previous.length > 0 ? certificates.previousUntilMs : 0;
      expect(found.previousUntilMs).toBe(untilMs);
    }
    expect(JSON.stringify(secretWith(PLACE, undefined, changed))).not.toContain(
      Buffer.from(first.authority.key).toString('base64'),
    );
  });

  it('can be for a Service whose name is longer than a common name may be', async () => {
    const name = `snapshot-operator-webhook.${'n'.repeat(63)}.svc`;
    const { leaf, authority } = await firstCertificates({ ...form, name }, { former: [], formerUntilMs: 0 });
    expect(leaf.read.names).toEqual([name]);
    expect(leaf.read.parsed.subject).toBe(`CN=${name.slice(0, 64)}`);
    expect(leaf.read.parsed.checkHost(name)).toBe(name);
    expect(leaf.read.isSignedBy(authority.read)).toBe(true);
  });

  it('keeps what others wrote about it', () => {
    const metadata = { ...PLACE, uid: 'u', resourceVersion: '7', labels: { team: 'a' }, annotations: { note: 'b' } };
    expect(secretWith(PLACE, { metadata, type: 'Opaque' }, first)).toMatchObject({
      metadata: { uid: 'u', resourceVersion: '7', labels: { team: 'a' }, annotations: { note: 'b' } },
      type: 'Opaque',
    });
  });

  it.each<[string, (given: SecretObject) => SecretObject | undefined, string, boolean]>([
    ['is not there', () => undefined, 'none', false],
    ['is empty', ({ metadata }) => ({ metadata }), 'none', false],
    ['was made empty', ({ metadata }) => ({ metadata, data: { 'tls.crt': '', 'tls.key': '' } }), 'none', false],
    ["is somebody else's", ({ data }) => ({ metadata: PLACE, data: data ?? {} }), 'foreign', true],
    ['has a key of another', () => altered({ 'ca.key': secret.data?.['tls.key'] ?? '' }), 'broken', true],
    ['has no certificate', () => altered({ 'tls.crt': 'AAAA' }), 'broken', false],
    [
      'has a leaf for an authority',
      () => altered({ 'ca.crt': secret.data?.['tls.crt'] ?? '', 'ca.key': secret.data?.['tls.key'] ?? '' }),
      'broken',
      true,
    ],
  ])('that %s', (_, change, result, isShown) => {
    const changed = change(secret);
    expect(readCertificateSecret(changed).result).toBe(result);
    expect(servedIdentity(changed) !== undefined).toBe(isShown);
  });
});

describe('a change of the authority', () => {
  it('trusts the next before it signs, and the former until what it signed has run out', async () => {
    const added = await nextCertificates(first, step('add-next', false), form);
    expect(ids(added)).toEqual([first.authority.read.id, added.next?.read.id]);
    expect(added.leaf).toBe(first.leaf);
    const changed = await nextCertificates(added, step('promote', true), form);
    expect(ids(changed)).toEqual([added.next?.read.id, first.authority.read.id]);
    expect(changed.leaf.read.isSignedBy(changed.authority.read)).toBe(true);
    expect(changed.previousUntilMs).toBe(first.leaf.read.notAfterMs);
    const ended = await nextCertificates(changed, step('keep', false, true), form);
    expect(ids(ended)).toEqual([changed.authority.read.id]);
    expect(ended.leaf).toBe(changed.leaf);
  });

  it('forgets one that has run out', async () => {
    const after = await nextCertificates(first, step('make', true), { ...form, nowMs: nowMs + 91 * DAY });
    expect(ids(after)).toEqual([after.authority.read.id]);
    expect(after.authority.read.id).not.toBe(first.authority.read.id);
  });

  it('keeps no more than some of those that nobody knows of', async () => {
    const many = await Promise.all(
      [1, 2, 3, 4, 5, 6].map((days) =>
        firstCertificates({ ...form, nowMs: nowMs - days * DAY }, { former: [], formerUntilMs: 0 }),
      ),
    );
    const former = [...many.map(({ authority }) => authority.read), first.leaf.read].reverse();
    const made = await firstCertificates(form, { former, formerUntilMs: nowMs + 5 });
    expect(made.previous).toEqual(many.slice(0, 4).map(({ authority }) => authority.read));
    expect(made.previousUntilMs).toBe(nowMs + 5);
  });

  it('never gives a certificate that outlives its authority', async () => {
    const late = { ...form, nowMs: nowMs + 80 * DAY };
    const { leaf } = await nextCertificates(first, step('keep', true), late);
    expect(leaf.read.notAfterMs).toBe(first.authority.read.notAfterMs);
  });
});
