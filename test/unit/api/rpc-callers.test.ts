import type { PeerCertificate } from 'node:tls';
import { describe, expect, it } from 'vitest';
import { callerOf, namesOf } from '../../../agent/api/callers.ts';
import { maySee } from '../../../agent/operations/service.ts';

const certificate = (subjectaltname: string, CN?: string | string[], valid_to = 'Jan  1 00:00:00 2030 GMT') =>
  ({ subject: { CN }, subjectaltname, valid_to }) as unknown as PeerCertificate;
const now = Date.parse('2029-01-01T00:00:00Z');

describe('the names of a certificate', () => {
  it.each([
    ['URIs before DNS names before common names', certificate('DNS:b, URI:spiffe://a', 'c'), ['spiffe://a', 'b', 'c']],
    ['several common names', certificate('', ['a', 'b']), ['a', 'b']],
    ['no addresses and mailboxes', certificate('IP Address:10.0.0.1, email:a@b, DNS:c'), ['c']],
    ['none', certificate(''), []],
    // What Node.js makes of a name that has a comma: it must not pass for two names.
    ['one that holds another', certificate('URI:"spiffe://a, DNS:root"'), ['spiffe://a, DNS:root']],
    ['nothing of a text that is not understood', certificate('DNS:"open, DNS:root'), []],
  ])('are %s', (_, from, names) => {
    expect(namesOf(from)).toEqual(names);
  });
});

describe('the caller of a certificate', () => {
  const clients = [
    { name: 'one', namespaces: ['a'] },
    { name: 'one', namespaces: ['b'] },
    { name: 'all', namespaces: ['*'] },
  ];

  it('has the namespaces of all its entries', () => {
    expect(callerOf(certificate('DNS:one'), clients, now)).toEqual({ name: 'one', namespaces: new Set(['a', 'b']) });
    expect(callerOf(certificate('DNS:all'), clients, now)).toEqual({ name: 'all', namespaces: 'all' });
  });

  it.each([
    ['there is none', undefined, 'no verified certificate'],
    ['it has run out on an open connection', certificate('DNS:one', undefined, 'Jan  1 00:00:00 2028 GMT'), 'ran out'],
    ['its end cannot be read', certificate('DNS:one', undefined, ''), 'ran out'],
    ['no name of it is configured', certificate('DNS:other'), 'other'],
  ])('is FORBIDDEN where %s', (_, from, says) => {
    const ask = () => callerOf(from, clients, now);
    expect(ask).toThrow(says);
    expect(ask).toThrow(expect.objectContaining({ code: 'FORBIDDEN' }));
  });

  it('sees its own namespaces and no others', () => {
    const caller = callerOf(certificate('DNS:one'), clients, now);
    expect([maySee(caller, 'a'), maySee(caller, 'c'), maySee(caller, '')]).toEqual([true, false, false]);
    expect(maySee({ name: 'all', namespaces: 'all' }, 'c')).toBe(true);
  });
});
