import type { Socket } from 'node:net';
import { type Server, ServerCredentials, type ServerOptions } from '@grpc/grpc-js';
import { type Client, callerOf, LOCAL_CALLER, namesOf } from './callers.ts';
import type { LiveCertificates } from './certificates.ts';
import { Closing, newServer, type ServerInput } from './grpc-server.ts';
import { listenUnix } from './grpc-socket.ts';
import { listenTls, type TlsOptions } from './grpc-tls.ts';
import type { Limits } from './limits.ts';
import type { Desk } from './rpc-call.ts';
import { loadProtocol } from './rpc-protocol.ts';

export interface GrpcOptions {
  /** Path of the unix socket, in a directory of its own; empty: none. */
  readonly socketPath: string;
  /** TCP with mutual TLS; undefined: none. */
  readonly tcp: TlsOptions | undefined;
  /** Who may call over TCP, asked for at each call: a change counts at once. */
  clients(): readonly Client[];
  readonly limits: Limits;
  readonly reflection: boolean;
  /** How long calls under way may go on when the server closes. */
  readonly closeGraceMs: number;
}

export interface GrpcInput extends ServerInput {
  readonly config: GrpcOptions;
}

export interface GrpcEndpoint {
  readonly addresses: { readonly unix: string | undefined; readonly tcp: string | undefined };
  /** Of the TCP listener. */
  readonly certificates: LiveCertificates | undefined;
  /**
   * Takes no more calls, says NOT_SERVING, ends streams with UNAVAILABLE, lets calls under way end within the grace, then ends
   * those too. Operations are not touched.
   */
  close(): Promise<void>;
}

/** What a listener hands its connections to, and how it is stopped. */
interface Listener {
  readonly server: { close(): unknown; maxConnections: number };
  readonly certificates?: LiveCertificates;
}

export const DEFAULT_LIMITS: Limits = {
  maxMessageBytes: 65_536,
  maxConnections: 64,
  maxConcurrentCalls: 64,
  maxConcurrentCallsPerCaller: 32,
  maxStreams: 256,
  maxStreamsPerCaller: 128,
  callsPerSecond: 50,
  burst: 200,
  maxCallMs: 3_600_000,
};

/** Certificates and authorities are looked at when a connection is made: none lives for ever. */
const TLS_AGE_MS = 3_600_000;
const TLS_AGE_GRACE_MS = 600_000;
/** What is left after the grace was told to end, and has this long. */
const LAST_WORD_MS = 1_000;

/** Starts the gRPC API on its listeners. Throws CONFIG_INVALID. */
export async function startGrpc(input: GrpcInput): Promise<GrpcEndpoint> {
  const { config, log } = input;
  const protocol = loadProtocol();
  const closing = new Closing();
  const listeners: Listener[] = [];
  const servers: Server[] = [];
  const open = (identity: Identity, options: ServerOptions) => {
    const server = newServer(input, { identity, options, protocol, closing });
    servers.push(server);
    const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
    return (socket: Socket) => injector.injectConnection(socket);
  };
  const add = <T extends Listener>(listener: T): T => {
    listener.server.maxConnections = config.limits.maxConnections;
    listeners.push(listener);
    return listener;
  };
  const stopListening = () => {
    for (const { server, certificates } of listeners) {
      server.close();
      certificates?.stop();
    }
  };

  try {
    if (config.socketPath !== '')
      add({
        server: await listenUnix(config.socketPath, open(LOCAL, {})),
      });
    const tcp =
      config.tcp === undefined ? undefined : add(await listenTls(config.tcp, log, open(certified(config), TLS_AGE)));
    const addresses = { unix: config.socketPath || undefined, tcp: tcp?.address };
    log.info({ ...addresses, reflection: config.reflection }, 'the gRPC API listens');
    const ending = { stopListening, graceMs: config.closeGraceMs };
    return { addresses, certificates: tcp?.certificates, close: () => close(servers, closing, ending) };
  } catch (error) {
    stopListening();
    throw error;
  }
}

type Identity = Pick<Desk, 'identify' | 'peerOf' | 'strangerOf'>;

const LOCAL: Identity = { identify: () => LOCAL_CALLER, peerOf: () => 'unix', strangerOf: () => LOCAL_CALLER.name };

const TLS_AGE = {
  'grpc.max_connection_age_ms': TLS_AGE_MS,
  'grpc.max_connection_age_grace_ms': TLS_AGE_GRACE_MS,
} as const;

function certified(config: GrpcOptions): Identity {
  return {
    identify: (call, isProbe) => {
      const { sslPeerCertificate: certificate } = call.getAuthContext();
      if (isProbe && certificate !== undefined)
        return { name: `probe ${namesOf(certificate)[0] ?? ''}`.trim(), namespaces: new Set<string>() };
      return callerOf(certificate, config.clients(), Date.now());
    },
    peerOf: (call) => call.getPeer(),
    // By the certificate: a new connection is no new client.
    strangerOf: (call) => `certificate ${call.getAuthContext().sslPeerCertificate?.fingerprint256 ?? 'none'}`,
  };
}

async function close(
  servers: readonly Server[],
  closing: Closing,
  { stopListening, graceMs }: { readonly stopListening: () => void; readonly graceMs: number },
): Promise<void> {
  stopListening();
  closing.endStreams();
  const ended = Promise.all(servers.map((server) => new Promise((resolve) => server.tryShutdown(resolve))));
  if (await isWithin(ended, graceMs)) return;
  closing.endCalls();
  if (await isWithin(ended, LAST_WORD_MS)) return;
  for (const server of servers) server.forceShutdown();
}

async function isWithin(work: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}
