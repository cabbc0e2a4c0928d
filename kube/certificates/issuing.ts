// The library below asks for it.
import 'reflect-metadata';
import { randomBytes, webcrypto } from 'node:crypto';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

/** A certificate and its key, both as PEM. */
export interface Issued {
  readonly certificate: string;
  readonly key: string;
}

const KEY = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const SIGNATURE = { name: 'ECDSA', hash: 'SHA-256' } as const;
/** Clocks of nodes differ a little: what is shown the moment it was made must be valid there. */
const BACKDATED_MS = 300_000;
const MAX_COMMON_NAME = 64;

/** An authority that signs certificates, and no authority below it. */
export async function makeAuthority({ nowMs, notAfterMs }: { nowMs: number; notAfterMs: number }): Promise<Issued> {
  const keys = await newKeys();
  const serialNumber = newSerial();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    keys,
    serialNumber,
    // Each has a name of its own, so that two in one file are never mistaken for one another.
    name: `CN=snapshot authority ${serialNumber.slice(0, 16)}`,
    notBefore: new Date(nowMs - BACKDATED_MS),
    notAfter: new Date(notAfterMs),
    signingAlgorithm: SIGNATURE,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: pemOf(certificate), key: await pemOfKey(keys.privateKey) };
}

/** What a certificate is for: its one name, and which side of a connection shows it. */
export interface LeafForm {
  readonly name: string;
  readonly side: 'server' | 'client';
  readonly nowMs: number;
  readonly notAfterMs: number;
}

/** A new key, and a certificate for it that the authority signed. */
export async function issueCertificate(authority: Issued, form: LeafForm): Promise<Issued> {
  const issuer = new X509Certificate(authority.certificate);
  const [keys, signingKey] = await Promise.all([newKeys(), readKey(authority.key)]);
  const usage = form.side === 'server' ? ExtendedKeyUsage.serverAuth : ExtendedKeyUsage.clientAuth;
  const certificate = await X509CertificateGenerator.create({
    publicKey: keys.publicKey,
    signingKey,
    serialNumber: newSerial(),
    // A common name has 64 characters at most; who checks a certificate looks at the DNS name below.
    subject: `CN=${form.name.slice(0, MAX_COMMON_NAME)}`,
    issuer: issuer.subject,
    notBefore: new Date(form.nowMs - BACKDATED_MS),
    notAfter: new Date(form.notAfterMs),
    signingAlgorithm: SIGNATURE,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([usage]),
      new SubjectAlternativeNameExtension([{ type: 'dns', value: form.name }]),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
      await AuthorityKeyIdentifierExtension.create(issuer.publicKey),
    ],
  });
  return { certificate: pemOf(certificate), key: await pemOfKey(keys.privateKey) };
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(KEY, true, ['sign', 'verify']);
}

/** 127 random bits: positive, and never twice. */
function newSerial(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40;
  return bytes.toString('hex');
}

function readKey(pem: string): Promise<webcrypto.CryptoKey> {
  return webcrypto.subtle.importKey('pkcs8', PemConverter.decodeFirst(pem), KEY, false, ['sign']);
}

async function pemOfKey(key: webcrypto.CryptoKey): Promise<string> {
  return `${PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`;
}

const pemOf = (certificate: X509Certificate) => `${certificate.toString('pem')}\n`;
