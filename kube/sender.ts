import http, { type IncomingMessage, type OutgoingHttpHeaders } from 'node:http';
import https from 'node:https';
import type { Access, Credentials } from './credentials.ts';

export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

export interface KubeRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** From `kubePath`, or a constant. */
  readonly path: string;
  readonly query?: Query;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Of the body; a patch must say which kind it is. */
  readonly contentType?: string;
  /** For the whole exchange, 30 s by default. */
  readonly timeoutMs?: number;
  /** Of the answer's body; more is a KubeError TooLarge. */
  readonly maxBytes?: number;
  readonly signal?: AbortSignal | undefined;
}

/** Sends one request and resolves with the answer's head. */
export function newSender(credentials: Credentials, agent: http.Agent, userAgent: string) {
  const { server } = credentials;
  const { request: open } = server.protocol === 'https:' ? https : http;
  const send = async (request: KubeRequest, signal: AbortSignal): Promise<IncomingMessage> => {
    const body = request.body === undefined ? undefined : Buffer.from(JSON.stringify(request.body));
    const access = await credentials.access();
    const options = {
      agent,
      signal,
      ...access.tls,
      ...target(server, request),
      headers: { 'user-agent': userAgent, ...headersFor(request, access, body) },
    };
    return new Promise((resolve, reject) => {
      let isAnswered = false;
      const message = open(options, (response) => {
        isAnswered = true;
        resolve(response);
      });
      message.on('error', (error: NodeJS.ErrnoException) => {
        // Told here as well as on the answer, whose reader takes care of it.
        if (isAnswered) return;
        // The server closed a kept connection just as we used it. What only reads can simply be sent again.
        const isStale = message.reusedSocket && error.code === 'ECONNRESET' && request.method === 'GET';
        if (isStale && !signal.aborted) send(request, signal).then(resolve, reject);
        else reject(error);
      });
      message.end(body);
    });
  };
  return send;
}

function target(server: URL, { method, path, query }: KubeRequest): https.RequestOptions {
  return {
    method,
    // Without the brackets of an IPv6 address.
    host: server.hostname.replace(/^\[|\]$/g, ''),
    port: server.port || (server.protocol === 'https:' ? 443 : 80),
    path: `${server.pathname.replace(/\/$/, '')}${path}${queryString(query)}`,
  };
}

function headersFor(request: KubeRequest, access: Access, body: Buffer | undefined): OutgoingHttpHeaders {
  const ofBody = { 'content-type': request.contentType ?? 'application/json', 'content-length': body?.length };
  return {
    accept: 'application/json',
    ...access.headers,
    ...(body === undefined ? {} : ofBody),
  };
}

function queryString(query: Query = {}): string {
  const pairs = Object.entries(query).flatMap(([key, value]) =>
    value === undefined ? [] : [[key, String(value)] as const],
  );
  return pairs.length === 0 ? '' : `?${new URLSearchParams(Object.fromEntries(pairs))}`;
}
