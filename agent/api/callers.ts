import type { PeerCertificate } from 'node:tls';
import { SnapshotError } from '../errors.ts';
import type { Caller } from '../operations/service.ts';

/** A client that may call over TCP: a name that its certificate has, and the namespaces open to it. `*` is all of them. */
export interface Client {
  readonly name: string;
  readonly namespaces: readonly string[];
}

/** Whoever can open the unix socket is root on the node. */
export const LOCAL_CALLER: Caller = { name: 'local', namespaces: 'all' };

const MAX_NAMES_SHOWN = 8;

/**
 * The caller that a verified client certificate stands for: the first of its names that is among `clients`. Throws FORBIDDEN, naming
 * what was seen, where there is none, and where the certificate has run out since the connection was made.
 */
export function callerOf(certificate: PeerCertificate | undefined, clients: readonly Client[], nowMs: number): Caller {
  if (certificate === undefined) throw new SnapshotError('FORBIDDEN', 'the connection has no verified certificate');
  if (!(Date.parse(certificate.valid_to) > nowMs))
    throw new SnapshotError('FORBIDDEN', `the client certificate ran out at ${certificate.valid_to}`);
  const names = namesOf(certificate);
  const known = names.find((name) => clients.some((client) => client.name === name));
  if (known === undefined) {
    const seen = names.slice(0, MAX_NAMES_SHOWN).join(', ') || 'none';
    throw new SnapshotError('FORBIDDEN', `no client is configured for the names of the certificate: ${seen}`);
  }
  const namespaces = clients.filter((client) => client.name === known).flatMap((client) => client.namespaces);
  return { name: known, namespaces: namespaces.includes('*') ? 'all' : new Set(namespaces) };
}

/** The names of a certificate that can stand for a client: URIs first, then DNS names, then the common name. */
export function namesOf(certificate: PeerCertificate): string[] {
  const alternatives = alternativeNames(certificate.subjectaltname ?? '');
  const ofType = (type: string) => alternatives.filter((each) => each.type === type).map(({ name }) => name);
  // A subject may have several common names, or none.
  const commonNames: unknown[] = [certificate.subject?.CN ?? []].flat();
  const strings = commonNames.filter((name) => typeof name === 'string');
  return [...ofType('URI'), ...ofType('DNS'), ...strings].filter((name) => name !== '');
}

/**
 * Takes apart `DNS:a, URI:"b, c"`. Node.js writes a name that has a comma or quote as a JSON string, so that no name can pretend to be
 * two. Text that is not all of this form gives no names at all.
 */
function alternativeNames(text: string): { type: string; name: string }[] {
  const entry = /([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^",]*)(?:, |$)/y;
  const found: { type: string; name: string }[] = [];
  while (entry.lastIndex < text.length) {
    const match = entry.exec(text);
    if (match === null) return [];
    const [, type = '', value = ''] = match;
    found.push({ type, name: value.startsWith('"') ? (JSON.parse(value) as string) : value });
  }
  return found;
}
