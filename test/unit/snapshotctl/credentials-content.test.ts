import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { recordKeyOf } from '../../../contract/record-key.ts';
import { type Issued, issueCertificate, makeAuthority } from '../../../kube/certificates/issuing.ts';
import { readAuthorities } from '../../../snapshotctl/credentials/authority-secret.ts';
import { readLeaf } from '../../../snapshotctl/credentials/leaf-secret.ts';
import { readRecordKeys } from '../../../snapshotctl/credentials/record-key-secret.ts';
import { NOTES, type SecretObject } from '../../../snapshotctl/credentials/secret.ts';

const DAY = 24 * 3_600_000;
const NOW = Date.now();
const KEY = '07'.repeat(32);
const OTHER = '08'.repeat(32);
const idOf = (hex: string) => {
  const key = recordKeyOf(Buffer.from(hex));
  return typeof key === 'string' ? key : key.id;
};

let authority: Issued;
let other: Issued;
let server: Issued;
let client: Issued;
beforeAll(async () => {
  const form = { nowMs: NOW, notAfterMs: NOW + 1800 * DAY };
  [authority, other] = await Promise.all([makeAuthority(form), makeAuthority(form)]);
  const leaf = { nowMs: NOW, notAfterMs: NOW + 90 * DAY };
  server = await issueCertificate(authority, { ...leaf, name: 'snapshot-agent', side: 'server' });
  client = await issueCertificate(authority, { ...leaf, name: 'snapshot-operator', side: 'client' });
});

function secretOf(data: Readonly<Record<string, string>>, annotations: Record<string, string> = {}): SecretObject {
  const metadata = { name: 's', namespace: 'demo', annotations, creationTimestamp: '2026-01-02T03:04:05Z' };
  const encoded = Object.entries(data).map(([file, text]) => [file, Buffer.from(text).toString('base64')]);
  return { metadata, data: Object.fromEntries(encoded) };
}

describe('the Secret of the record key', () => {
  it('may be anybody’s: keys of others are counted, the order of former ones is what was noted', () => {
    const [one, two] = [idOf(KEY), idOf(OTHER)];
    const data = {
      'record.key': '09'.repeat(32),
      [`previous-${one}.key`]: KEY,
      [`previous-${two}.key`]: OTHER,
      'of-another-cluster.key': '0a'.repeat(40),
    };
    const read = readRecordKeys('s', secretOf(data, { [NOTES.previousKeys]: `${two},gone,${one}` }));
    expect(read).toEqual({
      ...{ signing: { id: idOf('09'.repeat(32)), sinceMs: Date.parse('2026-01-02T03:04:05Z') }, next: undefined },
      ...{ previous: [two, one], count: 4 },
    });
  });

  it.each([undefined, secretOf({})])('counts as missing where it is not there or empty', (secret) => {
    expect(readRecordKeys('s', secret)).toBeUndefined();
  });

  it.each<[Record<string, string>, RegExp]>([
    [{ 'other.key': KEY }, /has no record\.key/],
    [{ 'record.key': KEY, password: 'x' }, /holds password, which is no record key/],
    [{ 'record.key': 'short' }, /holds record\.key, which has 5 bytes/],
    [{ 'record.key': KEY, 'next-0000000000000000.key': OTHER }, /holds key [0-9a-f]{16} under the name next-0000/],
    [{ 'record.key': KEY, [`next-${idOf(KEY)}.key`]: KEY }, /twice/],
    [
      { 'record.key': '0b'.repeat(32), [`next-${idOf(KEY)}.key`]: KEY, [`next-${idOf(OTHER)}.key`]: OTHER },
      /2 next keys/,
    ],
  ])('is left alone where it holds what is not understood %#', (data, why) => {
    expect(() => readRecordKeys('s', secretOf(data))).toThrow(why);
    expect(() => readRecordKeys('s', secretOf(data))).toThrow(/nothing was changed/);
    expect(() => readRecordKeys('s', secretOf(data))).not.toThrow(KEY);
  });
});

describe('the Secret of the authority', () => {
  const ours = { [NOTES.credential]: 'authority' };

  it('is read with what was noted; where nothing was, the authority may have signed to its own end', () => {
    const data = { 'ca.crt': authority.certificate, 'ca.key': authority.key, 'previous.crt': other.certificate };
    const until = { [NOTES.issuedUntil]: '2027-01-01T00:00:00.000Z', [NOTES.previousUntil]: 'nonsense' };
    const { holding } = readAuthorities('s', secretOf(data, { ...ours, ...until })) ?? {};
    expect(holding?.issuedUntilMs).toBe(Date.UTC(2027, 0, 1));
    expect(holding?.previousUntilMs).toBe(holding?.previous[0]?.notAfterMs);
    const bare = readAuthorities('s', secretOf(data, ours));
    expect(bare?.holding.issuedUntilMs).toBe(bare?.holding.current.notAfterMs);
  });

  it.each<[string, () => Record<string, string>, Record<string, string>, RegExp]>([
    [
      'is not marked as ours',
      () => ({ 'ca.crt': authority.certificate, 'ca.key': authority.key }),
      {},
      /was not made by/,
    ],
    ['has another file', () => ({ 'tls.crt': 'x' }), ours, /holds tls\.crt/],
    ['lacks the key', () => ({ 'ca.crt': authority.certificate }), ours, /only one of/],
    [
      'has the key of another',
      () => ({ 'ca.crt': authority.certificate, 'ca.key': other.key }),
      ours,
      /not the key of/,
    ],
    ['has a key that is none', () => ({ 'ca.crt': authority.certificate, 'ca.key': 'x' }), ours, /not the key of/],
    ['has no authority', () => ({ 'ca.crt': server.certificate, 'ca.key': server.key }), ours, /of one authority/],
    [
      'has half of a next one',
      () => ({ 'ca.crt': authority.certificate, 'ca.key': authority.key, 'next.key': other.key }),
      ours,
      /only one of next/,
    ],
    [
      'has garbage among the former ones',
      () => ({ 'ca.crt': authority.certificate, 'ca.key': authority.key, 'previous.crt': 'x' }),
      ours,
      /previous\.crt/,
    ],
  ])('is left alone where it %s', (_, data, annotations, why) => {
    expect(() => readAuthorities('s', secretOf(data(), annotations))).toThrow(why);
    expect(() => readAuthorities('s', secretOf(data(), annotations))).not.toThrow(/PRIVATE/);
  });
});

describe('the Secret of a certificate', () => {
  const ours = { [NOTES.credential]: 'agent-tls' };
  const files = () => ({ 'tls.crt': server.certificate, 'tls.key': server.key, 'ca.crt': authority.certificate });
  const known = () =>
    readAuthorities(
      'ca',
      secretOf({ 'ca.crt': authority.certificate, 'ca.key': authority.key }, { [NOTES.credential]: 'authority' }),
    );

  it('says who signed it, for whom, and whom its holder trusts', () => {
    const read = readLeaf('s', 'agent', secretOf(files(), ours), known());
    const { id } = known()?.holding.current ?? {};
    expect(read).toMatchObject({ issuer: id, trusted: [id], names: ['snapshot-agent'], trustedSinceMs: undefined });
    expect(readLeaf('s', 'agent', secretOf(files(), ours), undefined)?.issuer).toBeUndefined();
  });

  it('counts as missing where it was made empty, as its type demands', () => {
    expect(readLeaf('s', 'agent', secretOf({ 'tls.crt': '', 'tls.key': '' }), known())).toBeUndefined();
  });

  it.each<[string, () => Record<string, string>, Record<string, string>, RegExp]>([
    ['is of cert-manager, say', files, {}, /was not made by/],
    ['is the other side’s', files, { [NOTES.credential]: 'operator-tls' }, /was not made by/],
    ['has a file more', () => ({ ...files(), more: 'x' }), ours, /\(more\)/],
    ['has a file less', () => ({ 'tls.crt': server.certificate, 'tls.key': server.key }), ours, /\(ca\.crt\)/],
    ['has the key of another', () => ({ ...files(), 'tls.key': client.key }), ours, /not the key of/],
    ['has no certificates', () => ({ ...files(), 'ca.crt': 'x' }), ours, /cannot be read/],
  ])('is left alone where it %s', (_, data, annotations, why) => {
    expect(() => readLeaf('s', 'agent', secretOf(data(), annotations), known())).toThrow(why);
  });
});

describe('what is issued', () => {
  let dir: string;
  const openssl = (...args: string[]) =>
    execFileSync('openssl', args, { encoding: 'utf8', cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] });
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'issued-'));
    const files = { 'ca.crt': authority, 'other.crt': other, 'server.crt': server, 'client.crt': client };
    for (const [file, { certificate }] of Object.entries(files)) writeFileSync(join(dir, file), certificate);
    writeFileSync(join(dir, 'both.crt'), other.certificate + authority.certificate);
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('is what openssl takes for its purpose and its name, and for no other', () => {
    const verify = (...args: string[]) => openssl('verify', '-x509_strict', '-CAfile', ...args);
    expect(verify('ca.crt', '-purpose', 'sslserver', '-verify_hostname', 'snapshot-agent', 'server.crt')).toContain(
      'OK',
    );
    expect(verify('both.crt', '-purpose', 'sslclient', 'client.crt')).toContain('OK');
    const wrong = [
      ['ca.crt', '-purpose', 'sslclient', 'server.crt'],
      ['ca.crt', '-purpose', 'sslserver', 'client.crt'],
      ['ca.crt', '-purpose', 'sslserver', '-verify_hostname', 'snapshot-operator', 'server.crt'],
      ['other.crt', '-purpose', 'sslserver', 'server.crt'],
    ];
    for (const args of wrong) expect(() => verify(...args)).toThrow();
  });

  it('says all of that in extensions that must be understood', () => {
    const text = (file: string) => openssl('x509', '-in', file, '-noout', '-text').replace(/\s+/g, ' ');
    expect(text('ca.crt')).toContain('Basic Constraints: critical CA:TRUE, pathlen:0');
    expect(text('ca.crt')).toContain('Key Usage: critical Certificate Sign, CRL Sign X509v3');
    expect(text('server.crt')).toContain('Basic Constraints: critical CA:FALSE');
    expect(text('server.crt')).toContain('Key Usage: critical Digital Signature X509v3');
    expect(text('server.crt')).toContain('Extended Key Usage: TLS Web Server Authentication X509v3');
    expect(text('client.crt')).toContain('Extended Key Usage: TLS Web Client Authentication X509v3');
    expect(text('server.crt')).toContain('NIST CURVE: P-256');
  });

  it('has times that allow for clocks that differ, names of its own, and serials that never repeat', async () => {
    const [ca, leaf] = [new X509Certificate(authority.certificate), new X509Certificate(server.certificate)];
    expect(Date.parse(leaf.validFrom)).toBe(Math.floor((NOW - 300_000) / 1000) * 1000);
    expect(Date.parse(leaf.validTo)).toBe(Math.floor((NOW + 90 * DAY) / 1000) * 1000);
    expect(Date.parse(ca.validFrom)).toBeLessThanOrEqual(Date.parse(leaf.validFrom));
    expect(leaf.subjectAltName).toBe('DNS:snapshot-agent');
    expect(ca.subject).not.toBe(new X509Certificate(other.certificate).subject);
    const form = { nowMs: NOW, notAfterMs: NOW + DAY, name: 'x', side: 'client' } as const;
    const many = await Promise.all(Array.from({ length: 50 }, () => issueCertificate(authority, form)));
    const serials = many.map(({ certificate }) => new X509Certificate(certificate).serialNumber);
    expect(new Set(serials).size).toBe(50);
    for (const serial of serials) expect(serial).toMatch(/^[4-7][0-9A-F]{31}$/);
  });

  it('may be good beyond 2049, where the form of a time changes', async () => {
    const far = await makeAuthority({ nowMs: Date.UTC(2048, 0, 1), notAfterMs: Date.UTC(2052, 0, 1) });
    expect(Date.parse(new X509Certificate(far.certificate).validTo)).toBe(Date.UTC(2052, 0, 1));
    writeFileSync(join(dir, 'far.crt'), far.certificate);
    expect(openssl('x509', '-in', 'far.crt', '-noout', '-enddate')).toContain('2052');
  });
});
