import { createPrivateKey, X509Certificate } from 'node:crypto';

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** What counts of a certificate where its renewal is planned. */
export interface CertificateFacts {
  /** SHA-256 of the certificate, in hexadecimal. */
  readonly id: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/** When a third of a certificate's life is left. */
export const renewalMs = ({ notBeforeMs, notAfterMs }: Omit<CertificateFacts, 'id'>): number =>
  notAfterMs - Math.floor((notAfterMs - notBeforeMs) / 3);

/** A certificate as it was read. */
export interface ReadCertificate extends CertificateFacts {
  readonly pem: string;
  /** Its DNS names; a name of another kind with its kind before it. */
  readonly names: readonly string[];
  readonly isAuthority: boolean;
  isSignedBy(authority: ReadCertificate): boolean;
  fitsKey(pem: string): boolean;
  readonly parsed: X509Certificate;
}

/** All certificates of a PEM file. Undefined where there is none, or one of them cannot be read. */
export function readCertificates(text: string): ReadCertificate[] | undefined {
  const blocks = text.match(PEM_CERTIFICATE) ?? [];
  try {
    return blocks.length === 0 ? undefined : blocks.map((block) => read(`${block}\n`));
  } catch {
    return undefined;
  }
}

function read(pem: string): ReadCertificate {
  const parsed = new X509Certificate(pem);
  return {
    ...{ pem, parsed },
    id: parsed.fingerprint256.replaceAll(':', '').toLowerCase(),
    notBeforeMs: Date.parse(parsed.validFrom),
    notAfterMs: Date.parse(parsed.validTo),
    names: (parsed.subjectAltName ?? '')
      .split(', ')
      .filter(Boolean)
      .map((name) => name.replace(/^DNS:/, '')),
    isAuthority: parsed.ca,
    isSignedBy: (authority) => parsed.checkIssued(authority.parsed) && parsed.verify(authority.parsed.publicKey),
    fitsKey: (key) => fits(parsed, key),
  };
}

/** What is wrong with the key is of no interest, and nothing of it may be shown. */
function fits(certificate: X509Certificate, key: string): boolean {
  try {
    return certificate.checkPrivateKey(createPrivateKey(key));
  } catch {
    return false;
  }
}
