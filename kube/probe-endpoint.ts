import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Logger } from 'pino';

const MAX_HEADER_BYTES = 8_192;
const MAX_URL_LENGTH = 1_024;
const MAX_CONNECTIONS = 64;
/** A client that has not sent its request by then, or takes none of the answer for so long, is cut off. */
const CLIENT_MS = 10_000;
const KEEP_ALIVE_MS = 5_000;
/** How long answers under way may take when the endpoint stops. */
const STOP_MS = 1_000;

const PATHS = ['/metrics', '/healthz', '/readyz'];

/** The address cannot be listened at, or is none. */
export class ListenError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, cause === undefined ? {} : { cause });
    this.name = 'ListenError';
  }
}

export interface EndpointOptions {
  /** `host:port`; `:port` is every address, IPv6 in brackets. Port 0 takes a free one. */
  readonly address: string;
  readonly metrics: { metrics(): Promise<string>; readonly contentType: string };
  readonly health: {
    /** Why the program is not ready; empty where it is. */
    readiness(): readonly string[];
  };
  readonly log: Logger;
  readonly clientTimeoutMs?: number;
}

export interface ProbeEndpoint {
  /** Where it listens. */
  readonly port: number;
  stop(): Promise<void>;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/**
 * Serves `/metrics`, `/healthz` and `/readyz` over plain HTTP, for Prometheus and kubelet. Nothing secret is behind it, nothing can be
 * changed through it, and bodies are not read. Throws ListenError where it cannot listen at the address.
 */
export async function startProbeEndpoint(options: EndpointOptions): Promise<ProbeEndpoint> {
  const { host, port } = parseAddress(options.address);
  const clientMs = options.clientTimeoutMs ?? CLIENT_MS;
  const render = shared(() => options.metrics.metrics());
  const server = createServer(
    {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: clientMs,
      requestTimeout: clientMs,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: Math.min(clientMs, 5_000),
    },
    (request, response) => {
      answer(request, { ...options, render }).then(
        (found) => send(request, response, found, server.listening),
        (err: unknown) => {
          options.log.error({ err, path: request.url }, 'http request failed');
          send(
            request,
            response,
            json(500, { error: 'the answer could not be made: see the log of this program' }),
            false,
          );
        },
      );
    },
  );
  server.maxConnections = MAX_CONNECTIONS;
  server.setTimeout(clientMs);
  await listen(server, host, port, options.address);
  // A connection that cannot be accepted is no reason to die.
  server.on('error', (err) => options.log.warn({ err }, 'http connection failed'));
  return { port: (server.address() as AddressInfo).port, stop: () => stop(server) };
}

function parseAddress(address: string): { host: string | undefined; port: number } {
  const [, bracketed, plain, port = ''] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):([0-9]{1,5})$/.exec(address) ?? [];
  if (port === '' || Number(port) > 65_535) throw new ListenError(`the HTTP address is not host:port: ${address}`);
  return { host: bracketed ?? (plain === '' ? undefined : plain), port: Number(port) };
}

function listen(server: Server, host: string | undefined, port: number, address: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (cause: Error) => reject(new ListenError(`cannot listen at ${address}: ${cause.message}`, cause));
    server.once('error', refuse);
    server.listen({ port, ...(host !== undefined && { host }) }, () => {
      server.off('error', refuse);
      resolve();
    });
  });
}

async function answer(
  request: IncomingMessage,
  { health, metrics, render }: EndpointOptions & { render: () => Promise<string> },
): Promise<Answer> {
  const { method = '', url = '' } = request;
  if (url.length > MAX_URL_LENGTH) return json(414, { error: `the path is longer than ${MAX_URL_LENGTH} characters` });
  const [path = ''] = url.split('?');
  if (!PATHS.includes(path)) return json(404, { error: 'nothing is here', paths: PATHS });
  if (method !== 'GET' && method !== 'HEAD')
    return { ...json(405, { error: 'only GET and HEAD' }), headers: { Allow: 'GET, HEAD' } };
  if (path === '/metrics') return { status: 200, type: metrics.contentType, body: await render() };
  // That this is answered is all there is to say: the event loop turns.
  if (path === '/healthz') return json(200, { status: 'ok' });
  const reasons = health.readiness();
  return json(reasons.length === 0 ? 200 : 503, { ready: reasons.length === 0, reasons });
}

function json(status: number, value: unknown): Answer {
  return { status, type: 'application/json; charset=utf-8', body: `${JSON.stringify(value)}\n` };
}

function send(
  request: IncomingMessage,
  response: ServerResponse,
  { status, type, body, headers }: Answer,
  mayGoOn: boolean,
): void {
  // A body that nobody reads would be taken for the next request.
  const hasBody = request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined;
  const isRefused = status >= 400 && status !== 503;
  if (hasBody || isRefused || !mayGoOn) response.shouldKeepAlive = false;
  response.writeHead(status, {
    'Content-Type': type,
    'Content-Length': Buffer.byteLength(body),
    'Cache-Control': 'no-store',
    'X-Content-Type-Options': 'nosniff',
    ...headers,
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

/** Callers that come while one is being served share its answer: many scrapes at once cost as much as one. */
function shared<T>(make: () => Promise<T>): () => Promise<T> {
  let running: Promise<T> | undefined;
  return () => {
    running ??= make().finally(() => {
      running = undefined;
    });
    return running;
  };
}

function stop(server: Server): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => server.closeAllConnections(), STOP_MS);
    server.close(() => {
      clearTimeout(timer);
      resolve();
    });
    server.closeIdleConnections();
  });
}
