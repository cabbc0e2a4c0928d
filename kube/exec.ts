import type { IncomingMessage } from 'node:http';
import { WebSocket } from 'ws';
import { readRefusal } from './answer.ts';
import type { Credentials } from './credentials.ts';
import { asKubeError, KubeError } from './error.ts';
import { type ExecSession, streamOverExec } from './exec-stream.ts';
import { kubePath } from './paths.ts';

const OPEN_TIMEOUT_MS = 30_000;
/** v5 can tell the program that its input has ended, v4 cannot; servers before Kubernetes 1.29 know only v4. */
const PROTOCOLS = ['v5.channel.k8s.io', 'v4.channel.k8s.io'];

export interface ExecRequest {
  readonly namespace: string;
  readonly pod: string;
  readonly container: string;
  readonly command: readonly string[];
  readonly signal?: AbortSignal | undefined;
}

/**
 * Starts a program in a running container, over a WebSocket of the API server. Throws KubeError: 403 without the right to it, 404 without the
 * pod, 400 where the container does not run.
 */
export async function execInPod(credentials: Credentials, request: ExecRequest): Promise<ExecSession> {
  const { namespace, pod } = request;
  const call = `GET ${kubePath('api', 'v1', 'namespaces', namespace, 'pods', pod, 'exec')}`;
  try {
    return await connect(credentials, request, call);
  } catch (error) {
    if (!(error instanceof KubeError) || error.status !== 401) throw asFailure(call, error, request.signal);
    // The token may have been rotated since it was read: once more with what is there now.
    credentials.forget();
    return await connect(credentials, request, call).catch((again: unknown) => {
      throw asFailure(call, again, request.signal);
    });
  }
}

/** The library's own errors, such as that of a handshake that takes too long, have no code. */
function asFailure(call: string, error: unknown, signal: AbortSignal | undefined): unknown {
  if (signal?.aborted) return signal.reason;
  const known = asKubeError(call, error);
  if (known instanceof KubeError || !(error instanceof Error)) return known;
  return new KubeError(`${call}: ${error.message}`, { reason: 'Unreachable', cause: error });
}

async function connect(credentials: Credentials, request: ExecRequest, call: string): Promise<ExecSession> {
  const { headers, tls } = await credentials.access();
  const socket = new WebSocket(urlOf(credentials.server, request), PROTOCOLS, {
    headers: { 'user-agent': 'snapshotctl', ...(headers as Record<string, string>) },
    ...tls,
    handshakeTimeout: OPEN_TIMEOUT_MS,
    // Random memory and TLS do not compress.
    perMessageDeflate: false,
  });
  const { signal } = request;
  // What comes together with the server's consent is not missed only where somebody listens by then.
  const session = streamOverExec(socket, signal);
  await new Promise<void>((resolve, reject) => {
    const stop = () => {
      reject(signal?.reason);
      socket.terminate();
    };
    signal?.addEventListener('abort', stop, { once: true });
    socket.once('open', () => {
      signal?.removeEventListener('abort', stop);
      resolve();
    });
    socket.once('unexpected-response', (message, response: IncomingMessage) => {
      void readRefusal(call, response).then((refusal) => {
        message.destroy();
        reject(refusal);
      });
    });
    socket.on('error', reject);
    if (signal?.aborted) stop();
  });
  return session;
}

function urlOf(server: URL, { namespace, pod, container, command }: ExecRequest): URL {
  const base = server.pathname.replace(/\/$/, '');
  const url = new URL(`${base}${kubePath('api', 'v1', 'namespaces', namespace, 'pods', pod, 'exec')}`, server);
  url.protocol = server.protocol === 'https:' ? 'wss:' : 'ws:';
  for (const part of command) url.searchParams.append('command', part);
  url.searchParams.set('container', container);
  for (const stream of ['stdin', 'stdout', 'stderr']) url.searchParams.set(stream, 'true');
  return url;
}
