import { constants } from 'node:crypto';
import type { AddressInfo, Socket } from 'node:net';
import { createServer, type Server } from 'node:tls';
import type { Logger } from 'pino';
import { SnapshotError } from '../errors.ts';
import { type CertificateFiles, followCertificates, readCertificates } from './certificates.ts';

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
  /** Stops reading the files. */
  stop(): void;
}

/**
 * Listens for TLS 1.2 or newer with a client certificate of one of the given authorities; whoever has none is refused at the
 * handshake. New connections use the files as they are then. Throws CONFIG_INVALID.
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
  const server = createServer(
    {
      ...first.options,
      ...always,
      requestCert: true,
      rejectUnauthorized: true,
      ALPNProtocols: ['h2'],
      handshakeTimeout: HANDSHAKE_MS,
      noDelay: true,
    },
    (socket) => {
      socket.on('error', (err) => log.debug({ err, peer: socket.remoteAddress }, 'a connection failed'));
      if (socket.authorized) connected(socket);
      else socket.destroy();
    },
  );
  server.on('tlsClientError', (err: NodeJS.ErrnoException, socket) => {
    const { remoteAddress: peer } = socket;
    log.warn({ peer, code: err.code, reason: err.message.slice(0, 200) }, 'a client was refused at the TLS handshake');
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(new SnapshotError('CONFIG_INVALID', `cannot listen at ${options.address}: ${cause.message}`, { cause })),
    );
    server.listen({ port, ...(host !== undefined && { host }) }, resolve);
  });
  const stop = followCertificates(options, {
    first,
    everyMs: options.certificatesEveryMs ?? CERTIFICATES_EVERY_MS,
    log,
    changed: (now) => server.setSecureContext({ ...now.options, ...always }),
  });
  return { server, address: addressText(server.address() as AddressInfo), stop };
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
