import type { IncomingMessage } from 'node:http';
import { KubeError } from './error.ts';

/** A Status object is small, but one recorded answer repeats the whole refused object. */
const MAX_REFUSAL_BYTES = 256 << 10;
const MAX_MESSAGE_LENGTH = 1_000;

/** The parts of a Status object that are of use; the server may leave out any of them. */
export interface Status {
  readonly code?: number;
  readonly reason?: string;
  readonly message?: string;
  readonly details?: {
    readonly retryAfterSeconds?: number;
    readonly causes?: readonly { readonly field?: string }[];
  };
}

/** The body as text. Throws KubeError TooLarge beyond the limit; the connection is closed then. */
export async function readBody(response: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > maxBytes) throw new KubeError(`the answer is larger than ${maxBytes} bytes`, { reason: 'TooLarge' });
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** Reads an answer that is no success. `call` is method and path, for the message. */
export async function readRefusal(call: string, response: IncomingMessage): Promise<KubeError> {
  const body = await readBody(response, MAX_REFUSAL_BYTES).catch(() => '');
  const status = parseStatus(response.headers['content-type'], body);
  return refusal(call, { code: response.statusCode ?? 0, ...status }, response);
}

/** A Status as error; one that came as an event of a watch has no headers. */
export function refusal(call: string, status: Status, response?: IncomingMessage): KubeError {
  const code = response?.statusCode ?? status.code ?? 500;
  const reason = status.reason ?? '';
  const said = (status.message ?? '').trim().slice(0, MAX_MESSAGE_LENGTH);
  const headerSeconds = Number(response?.headers['retry-after'] ?? Number.NaN);
  const seconds = Number.isFinite(headerSeconds) ? headerSeconds : status.details?.retryAfterSeconds;
  return new KubeError(`${call}: ${[code, reason].join(' ').trim()}${said && `: ${said}`}`, {
    status: code,
    reason,
    retryAfterMs: seconds === undefined ? undefined : Math.max(0, seconds) * 1_000,
    fields: (status.details?.causes ?? []).flatMap(({ field }) => (field === undefined ? [] : [field])),
  });
}

/** Unknown paths, priority and fairness, and proxies on the way answer in plain text. */
function parseStatus(contentType: string | undefined, body: string): Omit<Status, 'code'> {
  if (!contentType?.includes('json')) return { message: body };
  try {
    const status = JSON.parse(body) as Status | null;
    return typeof status === 'object' && status !== null ? { ...status } : { message: body };
  } catch {
    return { message: body };
  }
}
