import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import type { Logger } from 'pino';
import { SnapshotError } from '../errors.ts';

export interface CertificateFiles {
  /** The server's certificate and, after it, those between it and the root, as PEM. */
  readonly certificateFile: string;
  readonly keyFile: string;
  /** The authorities whose client certificates are taken, as PEM. Nothing else is: not those of the system. */
  readonly clientCaFile: string;
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
const MAX_FILE_BYTES = 1 << 20;

export interface Certificates {
  readonly options: SecureContextOptions;
  /** Changes when one of the files does. */
  readonly text: string;
  readonly validTo: string;
  readonly expiriesMs: CertificateExpiries;
}

/** When no new connection comes about any more, in milliseconds since 1970: of the server's own certificate, and of the last client authority. */
export type CertificateExpiries = Readonly<Record<'server' | 'client_ca', number>>;

/** The certificates that new connections use now. */
export interface LiveCertificates {
  expiriesMs(): CertificateExpiries;
  /** The files changed, or are gone, and cannot be used: what was in force stays. */
  isStale(): boolean;
  stop(): void;
}

/** Reads the files and sees that they fit together. Throws CONFIG_INVALID. */
export async function readCertificates(files: CertificateFiles): Promise<Certificates> {
  const [cert, key, ca] = await Promise.all([
    readText(files.certificateFile),
    readText(files.keyFile),
    readText(files.clientCaFile),
  ]);
  const [own] = parseCertificates(cert, files.certificateFile);
  const authorities = parseCertificates(ca, files.clientCaFile);
  const wrong = authorities.find((authority) => !authority.ca);
  if (wrong !== undefined)
    throw new SnapshotError('CONFIG_INVALID', `${files.clientCaFile}: ${wrong.subject} is no certificate authority`);
  const options: SecureContextOptions = { cert, key, ca, minVersion: 'TLSv1.2' };
  try {
    createSecureContext(options);
    // Without any key OpenSSL makes a context too, and then refuses every client.
    if (own?.checkPrivateKey(createPrivateKey(key)) !== true) throw new Error('the key is that of another certificate');
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new SnapshotError('CONFIG_INVALID', `${files.keyFile} and ${files.certificateFile}: ${message}`, { cause });
  }
  const validTo = own?.validTo ?? '';
  const lastMs = Math.max(...authorities.map((authority) => Date.parse(authority.validTo)));
  const expiriesMs = { server: Date.parse(validTo), client_ca: lastMs };
  return { options, text: [cert, key, ca].join('\n'), validTo, expiriesMs };
}

/** At least one: with an empty list of authorities Node.js would take those of the system. */
function parseCertificates(text: string, file: string): X509Certificate[] {
  const blocks = text.match(PEM_CERTIFICATE) ?? [];
  if (blocks.length === 0) throw new SnapshotError('CONFIG_INVALID', `${file} has no certificate in PEM form`);
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch (cause) {
    throw new SnapshotError('CONFIG_INVALID', `${file} has a certificate that cannot be read`, { cause });
  }
}

async function readText(file: string): Promise<string> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw new SnapshotError('CONFIG_INVALID', `${file} cannot be read: ${String(cause)}`, { cause });
  }
  if (text.length > MAX_FILE_BYTES) throw new SnapshotError('CONFIG_INVALID', `${file} is larger than a mebibyte`);
  return text;
}

/**
 * Tells when the files have changed. They are read again and again, not watched: kubelet swaps a link above them, and they are small.
 * Files that do not fit together, as in the middle of a change, are not told; the log says so once.
 */
export function followCertificates(
  files: CertificateFiles,
  options: {
    readonly first: Certificates;
    readonly everyMs: number;
    readonly log: Logger;
    readonly changed: (certificates: Certificates) => void;
  },
): LiveCertificates {
  const { log } = options;
  let current = options.first;
  let problem = '';
  let isLooking = false;
  const look = async () => {
    try {
      const found = await readCertificates(files);
      problem = '';
      if (found.text === current.text) return;
      options.changed(found);
      current = found;
      log.info({ validTo: found.validTo }, 'the server certificate or the client authorities changed');
    } catch (err) {
      const message = err instanceof Error ? err.message : String(err);
      if (message !== problem) log.warn({ err }, 'changed certificate files are not used');
      problem = message;
    }
  };
  const timer = setInterval(() => {
    if (isLooking) return;
    isLooking = true;
    void look().finally(() => {
      isLooking = false;
    });
  }, options.everyMs);
  timer.unref();
  return {
    expiriesMs: () => current.expiriesMs,
    isStale: () => problem !== '',
    stop: () => clearInterval(timer),
  };
}
