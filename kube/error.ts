/** Why no usable answer came, where the server itself did not say so (`status` is 0, or the answer was cut short). */
export type LocalReason =
  /** The configuration or a credential could not be read. */
  | 'Credentials'
  /** No connection: refused, no route, no such name, or the certificate is not trusted. */
  | 'Unreachable'
  /** The connection broke in the middle. */
  | 'Reset'
  | 'TimedOut'
  /** A watch that should have said something, or ended, did neither. */
  | 'Silent'
  /** A watch that the server ended cleanly, but long before its time. */
  | 'Ended'
  /** Not JSON, or not what the API promises. */
  | 'Malformed'
  | 'TooLarge';

interface KubeErrorOptions {
  /** HTTP status; 0 where there was none. */
  readonly status?: number;
  /** `reason` of the server's Status object, or ours. Empty where the server gave none. */
  readonly reason?: string;
  readonly retryAfterMs?: number | undefined;
  readonly fields?: readonly string[];
  readonly cause?: unknown;
}

/** Every failure of a call to the Kubernetes API. The message says method, path, status and what the server said. */
export class KubeError extends Error {
  readonly status: number;
  readonly reason: string;
  /** How long the server asks to wait, in milliseconds; undefined where it does not say. */
  readonly retryAfterMs: number | undefined;
  /** The fields of the object that the server objects to, e.g. `metadata.uid`. */
  readonly fields: readonly string[];

  constructor(message: string, options: KubeErrorOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = 'KubeError';
    this.status = options.status ?? 0;
    this.reason = options.reason ?? '';
    this.retryAfterMs = options.retryAfterMs;
    this.fields = options.fields ?? [];
  }
}

/** The object is not there, or another one has its name: a patch with the uid of a deleted object is answered 422, not 409. */
export function isGone(error: unknown): boolean {
  if (!(error instanceof KubeError)) return false;
  return error.status === 404 || (error.status === 422 && error.fields.includes('metadata.uid'));
}

/** Somebody else wrote the object first: 409, for a stale resourceVersion as well as for a name that is taken. */
export function isConflict(error: unknown): boolean {
  return error instanceof KubeError && error.status === 409;
}

/** Errors of our own pass; those of sockets become KubeErrors. */
export function asKubeError(call: string, error: unknown): unknown {
  if (error instanceof KubeError) return error.message.startsWith(call) ? error : withCall(call, error);
  const { code = '', message = String(error), syscall } = error as Partial<NodeJS.ErrnoException>;
  if (error instanceof RangeError) return new KubeError(`${call}: ${message}`, { reason: 'TooLarge', cause: error });
  if (code === 'ERR_INVALID_CHAR') return new KubeError(`${call}: ${message}`, { reason: 'Credentials', cause: error });
  const isOfSocket = typeof code === 'string' && code !== '';
  if (!isOfSocket) return error;
  const isBroken = ['ECONNRESET', 'EPIPE', 'ERR_STREAM_PREMATURE_CLOSE'].includes(code) && syscall !== 'connect';
  const isGarbage = code.startsWith('HPE_');
  const reason: LocalReason = isBroken ? 'Reset' : isGarbage ? 'Malformed' : 'Unreachable';
  return new KubeError(`${call}: ${message || code}`, { reason, cause: error });
}

function withCall(call: string, error: KubeError): KubeError {
  const { status, reason, retryAfterMs, fields, cause } = error;
  return new KubeError(`${call}: ${error.message}`, { status, reason, retryAfterMs, fields, cause });
}
