import { type ReadCertificate, readCertificates } from '../../kube/certificates/certificate.ts';
import type { Issued } from '../../kube/certificates/issuing.ts';
import type { CertificateHolding } from './certificate-plan.ts';

/** The parts of a v1 Secret that are used; whatever else its metadata has is kept as it is. */
export interface SecretObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly resourceVersion?: string;
    readonly labels?: Readonly<Record<string, string>> | null;
    readonly annotations?: Readonly<Record<string, string>> | null;
  };
  readonly type?: string;
  /** Values in base64. */
  readonly data?: Readonly<Record<string, string>> | null;
}

/** What the Secret says about itself. Without the first one, a Secret that holds something is somebody else's. */
const NOTES = {
  credential: 'nvidia.com/snapshot-credential',
  previousUntil: 'nvidia.com/snapshot-previous-until',
} as const;
const KIND = 'webhook-tls';

interface Signing extends Issued {
  readonly read: ReadCertificate;
}

/** The certificates of the webhook, with their keys. */
export interface Certificates {
  readonly authority: Signing;
  /** Trusted already, or about to be; it signs nothing yet. */
  readonly next: Signing | undefined;
  /** Still trusted for what they signed. */
  readonly previous: readonly ReadCertificate[];
  readonly previousUntilMs: number;
  /** What is shown to the API server. */
  readonly leaf: Signing;
}

export type SecretRead =
  /** It is not there, or has nothing in it. */
  | { readonly result: 'none' }
  | { readonly result: 'read'; readonly certificates: Certificates }
  /** Ours, and of no use any more. */
  | { readonly result: 'broken'; readonly problem: string }
  /** Somebody else's: it is left as it is. */
  | { readonly result: 'foreign' };

/** What the Secret holds. */
export function readCertificateSecret(secret: SecretObject | undefined): SecretRead {
  const files = filesOf(secret);
  if (Object.values(files).every((text) => text === '')) return { result: 'none' };
  const annotations = secret?.metadata.annotations ?? {};
  if (annotations[NOTES.credential] !== KIND) return { result: 'foreign' };
  const authority = signing(files, 'ca');
  const leaf = signing(files, 'tls');
  if (authority === undefined || !authority.read.isAuthority || leaf === undefined)
    return { result: 'broken', problem: 'ca.crt, ca.key, tls.crt and tls.key are not two certificates and their keys' };
  const next = signing(files, 'next');
  const untilMs = Date.parse(annotations[NOTES.previousUntil] ?? '');
  const previous = readCertificates(files['previous.crt'] ?? '') ?? [];
  const previousUntilMs = Number.isNaN(untilMs) ? 0 : untilMs;
  return { result: 'read', certificates: { authority, next, previous, previousUntilMs, leaf } };
}

/** What a replica shows: of whichever Secret has it, ours or one that somebody keeps in its place. Undefined: nothing of use. */
export function servedIdentity(
  secret: SecretObject | undefined,
): { readonly certificate: string; readonly key: string; readonly read: ReadCertificate } | undefined {
  return signing(filesOf(secret), 'tls');
}

/** The certificates without their keys, as the plan wants them. */
export function holdingOf({ authority, next, previous, previousUntilMs, leaf }: Certificates): CertificateHolding {
  const signers = [authority, next].filter((one) => one !== undefined);
  const issuer = signers.find((one) => leaf.read.isSignedBy(one.read))?.read.id;
  return {
    authority: authority.read,
    next: next?.read,
    previous,
    previousUntilMs,
    leaf: { ...leaf.read, issuer },
  };
}

/** All authorities that are to be trusted, as PEM. */
export function trustedBundle({ authority, next, previous }: Certificates): readonly ReadCertificate[] {
  return [authority.read, ...(next === undefined ? [] : [next.read]), ...previous];
}

/** The Secret as it is to be. What others wrote into its metadata stays. */
export function secretWith(
  place: { readonly namespace: string; readonly name: string },
  before: SecretObject | undefined,
  certificates: Certificates,
): object {
  const { authority, next, previous, previousUntilMs, leaf } = certificates;
  const { [NOTES.previousUntil]: _, ...annotations } = before?.metadata.annotations ?? {};
  const former = previous.map(({ pem }) => pem).join('');
  const files = {
    'ca.crt': authority.certificate,
    'ca.key': authority.key,
    ...(next === undefined ? {} : { 'next.crt': next.certificate, 'next.key': next.key }),
    ...(former === '' ? {} : { 'previous.crt': former }),
    'tls.crt': leaf.certificate,
    'tls.key': leaf.key,
  };
  return {
    ...before,
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      ...before?.metadata,
      ...place,
      annotations: {
        ...annotations,
        [NOTES.credential]: KIND,
        ...(former === '' ? {} : { [NOTES.previousUntil]: new Date(previousUntilMs).toISOString() }),
      },
      labels: { ...before?.metadata.labels, 'app.kubernetes.io/managed-by': 'snapshot-operator' },
    },
    type: before?.type ?? 'kubernetes.io/tls',
    data: Object.fromEntries(Object.entries(files).map(([file, text]) => [file, Buffer.from(text).toString('base64')])),
  };
}

/** A certificate and its key as they were issued. Throws where they cannot be read: they were made here. */
export function asSigning(issued: Issued): Signing {
  const [read] = readCertificates(issued.certificate) ?? [];
  if (read === undefined) throw new Error('a certificate that was just issued cannot be read');
  return { ...issued, read };
}

function filesOf(secret: SecretObject | undefined): Readonly<Record<string, string>> {
  const entries = Object.entries(secret?.data ?? {});
  return Object.fromEntries(entries.map(([file, value]) => [file, Buffer.from(value, 'base64').toString('latin1')]));
}

function signing(files: Readonly<Record<string, string>>, base: 'ca' | 'next' | 'tls'): Signing | undefined {
  const [certificate = '', key = ''] = [files[`${base}.crt`], files[`${base}.key`]];
  const [read] = readCertificates(certificate) ?? [];
  return read?.fitsKey(key) ? { certificate, key, read } : undefined;
}
