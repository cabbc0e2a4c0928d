import { type ReadCertificate, readCertificates } from '../../kube/certificates/certificate.ts';
import { type Issued, makeAuthority } from '../../kube/certificates/issuing.ts';
import { DAY_MS } from './record-key-plan.ts';
import {
  dataOf,
  foreign,
  isEmpty,
  isoTime,
  NOTES,
  noteOf,
  type SecretContent,
  type SecretData,
  type SecretObject,
  timeOf,
} from './secret.ts';
import type { AuthorityHolding, AuthorityStep } from './tls-plan.ts';

const KIND = 'authority';
const FILES = new Set(['ca.crt', 'ca.key', 'next.crt', 'next.key', 'previous.crt']);

/** The authorities of the Secret, with the keys of those that sign. */
export interface Authorities {
  readonly current: Signing;
  readonly next: Signing | undefined;
  readonly previous: readonly ReadCertificate[];
  readonly holding: AuthorityHolding;
}

interface Signing extends Issued {
  readonly read: ReadCertificate;
}

/** What the Secret holds; undefined where it is not there or empty. Throws CommandError where it is not ours or does not fit together. */
export function readAuthorities(name: string, secret: SecretObject | undefined): Authorities | undefined {
  const data = dataOf(secret);
  if (isEmpty(data)) return undefined;
  if (noteOf(secret, 'credential') !== KIND) throw foreign(name, 'was not made by snapshotctl');
  const odd = Object.keys(data).find((file) => !FILES.has(file));
  if (odd !== undefined) throw foreign(name, `holds ${odd}, which is no part of an authority`);
  const current = readSigning(name, data, 'ca');
  if (current === undefined) throw foreign(name, 'has neither ca.crt nor ca.key');
  const next = readSigning(name, data, 'next');
  const previous = readPrevious(name, data);
  const latestMs = Math.max(0, ...previous.map(({ notAfterMs }) => notAfterMs));
  return {
    ...{ current, next, previous },
    holding: {
      current: current.read,
      next: next?.read,
      previous,
      previousUntilMs: timeOf(secret, 'previousUntil') ?? latestMs,
      issuedUntilMs: timeOf(secret, 'issuedUntil') ?? current.read.notAfterMs,
    },
  };
}

function readSigning(name: string, data: SecretData, base: 'ca' | 'next'): Signing | undefined {
  const [certificate, key] = [data[`${base}.crt`]?.toString('latin1'), data[`${base}.key`]?.toString('latin1')];
  if (certificate === undefined && key === undefined) return undefined;
  if (certificate === undefined || key === undefined)
    throw foreign(name, `has only one of ${base}.crt and ${base}.key`);
  const [read, ...more] = readCertificates(certificate) ?? [];
  if (read === undefined || more.length > 0 || !read.isAuthority)
    throw foreign(name, `has a ${base}.crt that is not the certificate of one authority`);
  if (!read.fitsKey(key)) throw foreign(name, `has a ${base}.key that is not the key of ${base}.crt`);
  return { certificate, key, read };
}

function readPrevious(name: string, data: SecretData): ReadCertificate[] {
  const text = data['previous.crt']?.toString('latin1');
  if (text === undefined) return [];
  const previous = readCertificates(text);
  if (previous === undefined) throw foreign(name, 'has a previous.crt that is no list of certificates');
  return previous;
}

/** The authorities after a step, as they are written and as certificates are issued from them. */
export interface NextAuthorities {
  readonly content: SecretContent;
  readonly signing: Issued;
  /** Every authority that is to be trusted, by its id in the plan, as PEM. NEW is there under that name. */
  readonly pemOf: ReadonlyMap<string, string>;
}

/** Makes what the step asks for. `newId`: under which an authority that is made now stands in the plan. */
export async function nextAuthorities(
  before: Authorities | undefined,
  step: AuthorityStep,
  form: { readonly days: number; readonly nowMs: number; readonly newId: string },
): Promise<NextAuthorities> {
  const { days, nowMs, newId } = form;
  const isMade = step.kind === 'make' || step.kind === 'add-next';
  const made = isMade ? await makeAuthority({ nowMs, notAfterMs: nowMs + days * DAY_MS }) : undefined;
  const kept = step.kind === 'make' ? undefined : before;
  const [current, next] = succession(step, kept, made);
  const former = step.kind === 'promote' && kept !== undefined ? [kept.current.certificate] : [];
  const previous = step.dropsPrevious ? [] : (kept?.previous.map(({ pem }) => pem) ?? []);
  const formerText = [...former, ...previous].join('');
  const data: Record<string, Buffer> = {
    'ca.crt': Buffer.from(current.certificate),
    'ca.key': Buffer.from(current.key),
  };
  if (next !== undefined) {
    data['next.crt'] = Buffer.from(next.certificate);
    data['next.key'] = Buffer.from(next.key);
  }
  if (formerText !== '') data['previous.crt'] = Buffer.from(formerText);
  const annotations = {
    [NOTES.credential]: KIND,
    [NOTES.issuedUntil]: isoTime(step.issuedUntilMs),
    [NOTES.previousUntil]: formerText === '' ? undefined : isoTime(step.previousUntilMs),
  };
  const known = [kept?.current.read, kept?.next?.read, ...(kept?.previous ?? [])].filter((one) => one !== undefined);
  const pemOf = new Map(known.map(({ id, pem }) => [id, pem]));
  if (made !== undefined) pemOf.set(newId, made.certificate);
  return { content: { data, annotations, type: 'Opaque' }, signing: current, pemOf };
}

/** Who signs, and who comes after. The key of the one that signs no more is forgotten. */
function succession(
  { kind }: AuthorityStep,
  before: Authorities | undefined,
  made: Issued | undefined,
): [Issued, Issued | undefined] {
  const current = kind === 'promote' ? before?.next : kind === 'make' ? made : before?.current;
  if (current === undefined) throw new Error(`${kind}: there is no authority to go on with`);
  return [current, kind === 'add-next' ? made : kind === 'keep' ? before?.next : undefined];
}
