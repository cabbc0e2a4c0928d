import { constants } from 'node:crypto';
import type { AddressInfo, Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import type { Logger } from 'pino';
import { SnapshotError } from '../errors.ts';
import { type CertificateFiles, followCertificates, type LiveCertificates, readCertificates } from './certificates.ts';

const HANDSHAKE_MS = 10_000;
const CERTIFICATES_EVERY_MS = 10_000;

export interface TlsOptions extends CertificateFiles {
  /** `host:port`, `:port` for every address; IPv6 in brackets. Port 0 takes a free one. */
  readonly address: string;
  /** How often the files are looked at. */
  readonly certificatesEveryMs?: number;
}

export interface TlsListener {
  readonly server: Server;
  readonly address: string;
  readonly certificates: LiveCertificates;
}

/**
 * Listens for TLS 1.2 or newer with a client certificate of one of the given authorities; whoever has none is refused when the
 * handshake is over, before anything is read. New connections use the files as they are then. Throws CONFIG_INVALID.
 */
export async function listenTls(
  options: TlsOptions,
  log: Logger,
  connected: (socket: Socket) => void,
): Promise<TlsListener> {
  const { host, port } = parseAddress(options.address);
  const first = await readCertificates(options);
  // No resumption: a certificate is verified on every connection, and by the authorities of that moment.
  const always = { secureOptions: constants.SSL_OP_NO_TICKET } as const;
  const refused = (peer: string | undefined, why: { readonly code?: string | undefined; readonly reason: string }) =>
    log.warn({ peer, ...why }, 'a client was refused at the TLS handshake');
  const server = createServer(
    {
      ...first.options,
      ...always,
      requestCert: true,
      // Refused below: Node.js would close the socket first, and then nobody could say whose it was and what was wrong.
      rejectUnauthorized: false,
      ALPNProtocols: ['h2'],
      handshakeTimeout: HANDSHAKE_MS,
      noDelay: true,
    },
    (socket) => {
      socket.on('error', (err) => log.debug({ err, peer: socket.remoteAddress }, 'a connection failed'));
      if (socket.authorized) {
        connected(socket);
        return;
      }
      refused(socket.remoteAddress, certificateProblem(socket));
      socket.destroy();
    },
  );
  server.on('tlsClientError', (err: NodeJS.ErrnoException, socket) => {
    refused(socket.remoteAddress, { code: err.code, reason: err.message.slice(0, 200) });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new SnapshotError('CONFIG_INVALID', `cannot listen at ${options.address}: ${cause.message}`, { cause })),
    );
    server.listen({ port, ...(host !== undefined && { host }) }, resolve);
  });
  const certificates = followCertificates(options, {
    first,
    everyMs: options.certificatesEveryMs ?? CERTIFICATES_EVERY_MS,
    log,
    changed: (now) => server.setSecureContext({ ...now.options, ...always }),
  });
  return { server, address: addressText(server.address() as AddressInfo), certificates };
}

/** Why the certificate of a client is not taken. */
function certificateProblem(socket: TLSSocket): { readonly code: string; readonly reason: string } {
  const code = String(socket.authorizationError);
  const { subject } = socket.getPeerCertificate();
  if (subject === undefined) return { code, reason: 'it showed no certificate' };
  return { code, reason: `its certificate, of ${JSON.stringify(subject).slice(0, 200)}, is not taken` };
}

function addressText({ address, family, port }: AddressInfo): string {
  return family === 'IPv6' ? `[${address}]:${port}` : `${address}:${port}`;
}

function parseAddress(address: string): { host: string | undefined; port: number } {
  const [, bracketed, plain, port = ''] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):([0-9]{1,5})$/.exec(address) ?? [];
  if (port === '' || Number(port) > 65_535)
    throw new SnapshotError('CONFIG_INVALID', `the gRPC address is not host:port: ${address}`);
  return { host: bracketed ?? (plain === '' ? undefined : plain), port: Number(port) };
}
