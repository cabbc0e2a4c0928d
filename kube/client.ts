import http, { type IncomingMessage } from 'node:http';
import https from 'node:https';
import { readBody, readRefusal } from './answer.ts';
import { type AccessOptions, type Credentials, openCredentials } from './credentials.ts';
import { asKubeError, KubeError } from './error.ts';
import { type Guard, guardCall } from './guard.ts';
import { newLineSplitter } from './lines.ts';
import { type Verb, verbOf } from './paths.ts';
import { type KubeRequest, newSender, type Query } from './sender.ts';

const TIMEOUT_MS = 30_000;
/** etcd takes no object above 1.5 MiB, and JSON may need six bytes for one of them. */
const MAX_BODY_BYTES = 128 << 20;
/** One event of a watch: one object, printed as JSON. */
const MAX_LINE_LENGTH = 16 << 20;

interface WatchRequest {
  readonly path: string;
  readonly query: Query;
  /** How long it may be silent, from the request to its first byte, and from one byte to the next. */
  readonly idleMs: number;
  readonly signal: AbortSignal;
  /** The server has accepted the watch. */
  readonly onOpen?: () => void;
  /** Something came, be it half a line. */
  readonly onBytes?: () => void;
  /** One event. What it throws ends the watch, and is thrown on. */
  readonly onLine: (line: string) => void;
}

export interface KubeClient {
  readonly server: string;
  /** As whom it calls: for what is no exchange of requests and answers (exec.ts). */
  readonly credentials: Credentials;
  /** The namespace that the kubeconfig's context or the pod's service account stands for, if any. */
  readonly namespace: string | undefined;
  /** The answer's JSON. Throws KubeError; where the signal ended it, the signal's reason. */
  request<T>(request: KubeRequest): Promise<T>;
  /** Follows one stream of lines until the server ends it cleanly, between two lines. Throws as `request` does. */
  watch(request: WatchRequest): Promise<void>;
  /** Closes the connections that are kept; calls in flight fail. */
  close(): void;
}

export interface KubeOptions extends AccessOptions {
  /** The program, as the server's audit log names it; `snapshot-agent` by default. */
  readonly userAgent?: string;
  /** Each call that failed, retried or not; `status` is undefined where no answer came. For metrics. */
  readonly onFailure?: (verb: Verb | 'watch', status: number | undefined) => void;
}

/** Opens a client on the cluster. Nothing is sent before the first call. Throws KubeError where the configuration is no good. */
export async function openKube(options: KubeOptions = {}): Promise<KubeClient> {
  const credentials = await openCredentials(options);
  // TLS materials go with each request: https keeps connections apart by them, so rotated ones are taken at once.
  const agent = new (credentials.server.protocol === 'https:' ? https : http).Agent({ keepAlive: true });
  const line = { credentials, send: newSender(credentials, agent, options.userAgent ?? 'snapshot-agent') };
  const failed = (verb: Verb | 'watch', error: unknown) => {
    if (error instanceof KubeError) options.onFailure?.(verb, error.status || undefined);
    throw error;
  };
  return {
    server: credentials.server.origin,
    credentials,
    namespace: credentials.namespace,
    request: <T>(request: KubeRequest) => {
      const call = `${request.method} ${request.path}`;
      const guard = guardCall(call, { ms: request.timeoutMs ?? TIMEOUT_MS, reason: 'TimedOut' }, request.signal);
      const { maxBytes = MAX_BODY_BYTES } = request;
      const read = async (response: IncomingMessage) => parseBody<T>(call, await readBody(response, maxBytes));
      return exchange(line, request, guard, read).catch((error) => failed(verbOf(request.method, request.path), error));
    },
    watch: async (watch) => {
      const guard = guardCall(`GET ${watch.path}`, { ms: watch.idleMs, reason: 'Silent' }, watch.signal);
      const request = { method: 'GET', path: watch.path, query: watch.query } as const;
      let thrown: { readonly error: unknown } | undefined;
      const onLine = (text: string) => {
        try {
          watch.onLine(text);
        } catch (error) {
          thrown = { error };
          throw error;
        }
      };
      const read = (response: IncomingMessage) => readLines(response, guard, { ...watch, onLine });
      await exchange(line, request, guard, read).catch((error) => failed('watch', thrown ? thrown.error : error));
    },
    close: () => agent.destroy(),
  };
}

interface Line {
  readonly credentials: Credentials;
  readonly send: ReturnType<typeof newSender>;
}

/** One call, from its request to the end of `read`. */
async function exchange<T>(
  { credentials, send }: Line,
  request: KubeRequest,
  guard: Guard,
  read: (response: IncomingMessage) => Promise<T>,
): Promise<T> {
  const call = `${request.method} ${request.path}`;
  try {
    let response = await send(request, guard.signal);
    if (response.statusCode === 401) {
      // The token may have been rotated since it was read: once more with what is there now.
      await readBody(response, 1 << 20);
      credentials.forget();
      response = await send(request, guard.signal);
    }
    const status = response.statusCode ?? 0;
    if (status < 200 || status >= 300) throw await readRefusal(call, response);
    return await read(response);
  } catch (error) {
    if (guard.signal.aborted) throw guard.signal.reason;
    throw asKubeError(call, error);
  } finally {
    guard.release();
  }
}

function parseBody<T>(call: string, text: string): T {
  try {
    return JSON.parse(text) as T;
  } catch (cause) {
    throw new KubeError(`${call}: the answer is not JSON`, { reason: 'Malformed', cause });
  }
}

async function readLines(response: IncomingMessage, guard: Guard, watch: WatchRequest): Promise<void> {
  const lines = newLineSplitter(MAX_LINE_LENGTH);
  guard.alive();
  watch.onOpen?.();
  // The stream's own decoder keeps characters whole whose bytes come in two pieces.
  response.setEncoding('utf8');
  for await (const text of response as AsyncIterable<string>) {
    guard.alive();
    watch.onBytes?.();
    for (const line of lines.push(text)) watch.onLine(line);
  }
  if (lines.rest.trim() !== '')
    throw new KubeError(`GET ${watch.path}: the stream ended inside an event`, { reason: 'Malformed' });
}
