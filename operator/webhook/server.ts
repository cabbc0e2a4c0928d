import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { Logger } from 'pino';
import { type AdmissionRequest, admissionAnswer, readReview } from './admission-review.ts';
import type { Passed, Verdict } from './admit.ts';
import type { AdmissionResult, WebhookMetrics } from './metrics.ts';
import { type BodyBudget, type BodyRead, newBodyBudget, readRequestBody } from './request-body.ts';

/** Where the API server asks. */
export const WEBHOOK_PATH = '/mutate-core-v1-pod-checkpoint-restore';

export interface ServerLimits {
  /** Of one question. The API server takes objects of 3 MiB; the rest is what it wraps around one. */
  readonly maxBodyBytes: number;
  /** Of all questions under way. */
  readonly maxBytesAtOnce: number;
  readonly maxConnections: number;
  /** From the head of a question to its answer. Far less than what a webhook is given, as the pod waits. */
  readonly deadlineMs: number;
  /** For the handshake, and for the head of a request; a connection that is silent for so long in the middle of one is cut off. */
  readonly clientMs: number;
}

const LIMITS: ServerLimits = {
  maxBodyBytes: 4 << 20,
  maxBytesAtOnce: 128 << 20,
  maxConnections: 512,
  deadlineMs: 2_000,
  clientMs: 10_000,
};
/** The API server keeps idle connections for 90 s: where we closed one first, it might just be using it. */
const KEEP_ALIVE_MS = 120_000;
const MAX_HEADER_BYTES = 16_384;
/** How long answers under way may take when the server stops. */
const STOP_MS = 1_000;

export interface WebhookServerOptions {
  /** `host` is an address of this machine; every one by default. Port 0 takes a free one. */
  readonly listen: { readonly host?: string; readonly port: number };
  /** It must not throw, and answer at once. */
  readonly admit: (request: AdmissionRequest) => Verdict;
  /** Told of each pod that is shaped, or stands in its own way. */
  readonly onVerdict?: (request: AdmissionRequest, verdict: Verdict) => void;
  readonly log: Logger;
  readonly metrics: Pick<WebhookMetrics, 'admitted'>;
  readonly limits?: Partial<ServerLimits>;
}

export interface WebhookServer {
  readonly port: number;
  /** Shows this certificate on all connections from now on; before the first one, none can be made. PEM. Throws where they do not fit. */
  serve(identity: { readonly certificate: string; readonly key: string }): void;
  stop(): Promise<void>;
}

/** Listens for questions of the API server. Each gets an answer that lets the pod in, whatever is wrong. Rejects where it cannot listen. */
export async function startWebhookServer(options: WebhookServerOptions): Promise<WebhookServer> {
  const limits = { ...LIMITS, ...options.limits };
  const desk = { ...options, limits, budget: newBodyBudget(limits.maxBytesAtOnce) };
  const server = createServer(
    {
      minVersion: 'TLSv1.2',
      handshakeTimeout: limits.clientMs,
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: limits.clientMs,
      requestTimeout: limits.clientMs,
      keepAliveTimeout: KEEP_ALIVE_MS,
      connectionsCheckingInterval: Math.min(limits.clientMs, 5_000),
    },
    (request, response) => void answer(request, response, desk, () => server.listening),
  );
  server.maxConnections = limits.maxConnections;
  server.setTimeout(limits.clientMs);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.listen, () => {
      server.off('error', reject);
      resolve();
    });
  });
  // A connection that cannot be accepted is no reason to die.
  server.on('error', (err) => options.log.warn({ err }, 'a connection of the webhook failed'));
  return {
    port: (server.address() as AddressInfo).port,
    serve: ({ certificate, key }) => server.setSecureContext({ cert: certificate, key }),
    stop: () => stop(server),
  };
}

interface Desk extends WebhookServerOptions {
  readonly limits: ServerLimits;
  readonly budget: BodyBudget;
}

interface Answer {
  readonly status: number;
  readonly body: object;
  /** Undefined: nobody asked about a pod. */
  readonly result?: AdmissionResult;
}

async function answer(request: IncomingMessage, response: ServerResponse, desk: Desk, mayGoOn: () => boolean) {
  const sinceMs = performance.now();
  const { status, body, result } = await answerTo(request, desk);
  if (result !== undefined) desk.metrics.admitted(result, (performance.now() - sinceMs) / 1_000);
  // The rest of a body that was not read would be taken for the next request.
  if (!request.complete || !mayGoOn()) response.shouldKeepAlive = false;
  const text = JSON.stringify(body);
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
  });
  response.end(text);
}

/** How what is wrong with a body is answered; the API server then goes by the failure policy. */
const UNREAD: Readonly<Record<Exclude<BodyRead['result'], 'read'>, { status: number; result: AdmissionResult }>> = {
  'too-large': { status: 413, result: 'bad-request' },
  busy: { status: 503, result: 'busy' },
  late: { status: 408, result: 'late' },
  broken: { status: 400, result: 'bad-request' },
};

async function answerTo(request: IncomingMessage, desk: Desk): Promise<Answer> {
  const [path] = (request.url ?? '').split('?');
  const body = admissionAnswer('', {});
  if (path === '/healthz') return { status: 200, body: { status: 'ok' } };
  if (path !== WEBHOOK_PATH) return { status: 404, body: { error: 'nothing is here', path: WEBHOOK_PATH } };
  if (request.method !== 'POST') return { status: 405, body, result: 'bad-request' };
  const [type = ''] = (request.headers['content-type'] ?? '').split(';');
  if (type.trim().toLowerCase() !== 'application/json') return { status: 415, body, result: 'bad-request' };
  const { maxBodyBytes: maxBytes, deadlineMs } = desk.limits;
  const read = await readRequestBody(request, { maxBytes, deadlineMs, budget: desk.budget });
  if (read.result === 'read') return judged(read.text, desk);
  const { status, result } = UNREAD[read.result];
  desk.log.warn({ status, reason: read.result }, 'a question about a pod could not be read');
  return { status, body, result };
}

function judged(text: string, { admit, onVerdict, log }: Desk): Answer {
  const read = readReview(text);
  if (read.result === 'malformed') {
    log.warn({ problem: read.problem }, 'a question about a pod could not be understood');
    return { status: 200, body: admissionAnswer(read.uid, {}), result: 'bad-request' };
  }
  const { request } = read;
  const verdict = admit(request);
  try {
    onVerdict?.(request, verdict);
  } catch (err) {
    log.error({ err }, 'what became of a pod could not be told');
  }
  if (verdict.result === 'shaped')
    return { status: 200, body: admissionAnswer(request.uid, { patch: verdict.patch }), result: 'shaped' };
  return { status: 200, body: admissionAnswer(request.uid, { warnings: warningsOf(verdict) }), result: verdict.why };
}

function warningsOf({ why, detail }: Passed): readonly string[] {
  return why === 'conflict' ? [`the pod is not restored from its checkpoint, and starts cold: ${detail}`] : [];
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
