import { readCertificates } from '../../kube/certificates/certificate.ts';
import { type Issued, issueCertificate } from '../../kube/certificates/issuing.ts';
import type { Authorities, NextAuthorities } from './authority-secret.ts';
import {
  dataOf,
  foreign,
  isEmpty,
  isoTime,
  NOTES,
  noteOf,
  type SecretContent,
  type SecretObject,
  timeOf,
} from './secret.ts';
import type { LeafHolding, LeafRole, LeafStep } from './tls-plan.ts';

const FILES = ['ca.crt', 'tls.crt', 'tls.key'];
const kindOf = (role: LeafRole) => `${role}-tls`;

/** What the Secret holds; undefined where it is not there or empty. Throws CommandError where it is not ours or does not fit together. */
export function readLeaf(
  name: string,
  role: LeafRole,
  secret: SecretObject | undefined,
  authorities: Authorities | undefined,
): LeafHolding | undefined {
  const data = dataOf(secret);
  if (isEmpty(data) || Object.values(data).every((value) => value.length === 0)) return undefined;
  if (noteOf(secret, 'credential') !== kindOf(role)) throw foreign(name, 'was not made by snapshotctl for this');
  const odd = [...Object.keys(data), ...FILES].find((file) => !FILES.includes(file) || data[file] === undefined);
  if (odd !== undefined) throw foreign(name, `does not hold ${FILES.join(', ')} and nothing else (${odd})`);
  const text = (file: string) => data[file]?.toString('latin1') ?? '';
  const [own] = readCertificates(text('tls.crt')) ?? [];
  const trusted = readCertificates(text('ca.crt'));
  if (own === undefined || trusted === undefined) throw foreign(name, 'has certificates that cannot be read');
  if (!own.fitsKey(text('tls.key'))) throw foreign(name, 'has a tls.key that is not the key of tls.crt');
  const known = [authorities?.current.read, authorities?.next?.read, ...(authorities?.previous ?? [])];
  const issuer = known.find((authority) => authority !== undefined && own.isSignedBy(authority));
  return {
    ...{ id: own.id, notBeforeMs: own.notBeforeMs, notAfterMs: own.notAfterMs, names: own.names },
    issuer: issuer?.id,
    trusted: trusted.map(({ id }) => id),
    trustedSinceMs: timeOf(secret, 'trustsSince'),
  };
}

/** The content after a step that changes something. */
export async function nextLeaf(
  secret: SecretObject | undefined,
  step: LeafStep,
  form: {
    readonly role: LeafRole;
    readonly name: string;
    readonly nowMs: number;
    readonly authorities: NextAuthorities;
  },
): Promise<SecretContent> {
  const { role, name, nowMs, authorities } = form;
  const side = role === 'agent' ? 'server' : 'client';
  const issued =
    step.kind === 'issue'
      ? await issueCertificate(authorities.signing, { name, side, nowMs, notAfterMs: step.notAfterMs })
      : present(secret);
  const bundle = step.trusted.map((id) => {
    const pem = authorities.pemOf.get(id);
    if (pem === undefined) throw new Error(`authority ${id} is to be trusted, and nobody has it`);
    return pem;
  });
  return {
    data: {
      'tls.crt': Buffer.from(issued.certificate),
      'tls.key': Buffer.from(issued.key),
      'ca.crt': Buffer.from(bundle.join('')),
    },
    annotations: { [NOTES.credential]: kindOf(role), [NOTES.trustsSince]: isoTime(step.trustedSinceMs) },
    type: 'kubernetes.io/tls',
  };
}

function present(secret: SecretObject | undefined): Issued {
  const data = dataOf(secret);
  return {
    certificate: data['tls.crt']?.toString('latin1') ?? '',
    key: data['tls.key']?.toString('latin1') ?? '',
  };
}
