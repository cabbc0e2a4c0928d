import { type ServiceError, status } from '@grpc/grpc-js';
import type { StatusMessage } from './messages.ts';
import type { DetailType, Protocol } from './protocol.ts';

const DETAILS_TRAILER = 'grpc-status-details-bin';
const ERROR_DOMAIN = 'snapshot-agent';
const TYPE_PREFIX = 'type.googleapis.com/google.rpc.';

/** One reason of a refusal, or one wrong field of a request. */
export interface Violation {
  /** A code of docs/troubleshooting.md; of a wrong field, its path. */
  readonly code: string;
  /** What was found, what is wanted, what to do. */
  readonly description: string;
}

interface AgentErrorParts {
  /** Name of the gRPC status, such as NOT_FOUND. */
  readonly status: string;
  readonly reason: string;
  readonly advice: string;
  readonly mismatches: readonly Violation[];
  readonly fields: readonly Violation[];
  readonly omitted: number;
  readonly retryAfterSeconds: number | undefined;
}

/** What an agent answered instead of a result, or why there is no answer. The message says what failed, with what, and what to do. */
export class AgentError extends Error implements AgentErrorParts {
  override readonly name = 'AgentError';
  readonly status: string;
  /** A code of docs/troubleshooting.md; empty where it was not the agent that answered: no connection, or the deadline passed. */
  readonly reason: string;
  readonly advice: string;
  readonly mismatches: readonly Violation[];
  readonly fields: readonly Violation[];
  /** How many mismatches and fields did not fit into the answer. */
  readonly omitted: number;
  /** When the same request can succeed; undefined where it cannot. */
  readonly retryAfterSeconds: number | undefined;

  constructor(message: string, parts: Partial<AgentErrorParts> & Pick<AgentErrorParts, 'status'>, cause?: unknown) {
    super(message, cause === undefined ? {} : { cause });
    this.status = parts.status;
    this.reason = parts.reason ?? '';
    this.advice = parts.advice ?? '';
    this.mismatches = parts.mismatches ?? [];
    this.fields = parts.fields ?? [];
    this.omitted = parts.omitted ?? 0;
    this.retryAfterSeconds = parts.retryAfterSeconds;
  }
}

/** The connection broke, or there was none: whoever watches may connect again. An agent that stops says so, and is back soon. */
export function isLost(error: unknown): boolean {
  if (!(error instanceof AgentError)) return false;
  if (error.reason !== '') return error.reason === 'SHUTTING_DOWN';
  return ['UNAVAILABLE', 'UNKNOWN', 'INTERNAL', 'CANCELLED'].includes(error.status);
}

type Decoder = Pick<Protocol, 'decode'>;

/** The error of a call. */
export function errorOfCall(error: ServiceError, protocol: Decoder): AgentError {
  const [bytes] = error.metadata?.get(DETAILS_TRAILER) ?? [];
  const decoded = Buffer.isBuffer(bytes) ? decode<StatusMessage>(protocol, 'Status', bytes) : undefined;
  if (decoded !== undefined) return errorOfStatus({ ...decoded, code: error.code }, protocol, error);
  return new AgentError(error.details || error.message, { status: nameOf(error.code) }, error);
}

/** The error that a finished operation or an artifact carries. */
export function errorOfStatus(
  { code, message, details }: StatusMessage,
  protocol: Decoder,
  cause?: unknown,
): AgentError {
  const part = <T>(type: DetailType): T | undefined => {
    const found = details.find(({ type_url: url }) => url === TYPE_PREFIX + type);
    return found === undefined ? undefined : decode<T>(protocol, type, found.value);
  };
  const info = part<ErrorInfo>('ErrorInfo');
  const isOurs = info?.domain === ERROR_DOMAIN;
  const retry = part<{ retry_delay: { seconds: number; nanos: number } | null }>('RetryInfo')?.retry_delay;
  return new AgentError(
    message,
    {
      status: nameOf(code),
      reason: isOurs ? info.reason : '',
      advice: info?.metadata['advice'] ?? '',
      mismatches: (part<Violations>('PreconditionFailure')?.violations ?? []).map(({ type, description }) => ({
        code: type,
        description,
      })),
      fields: (part<WrongFields>('BadRequest')?.field_violations ?? []).map(({ field, description }) => ({
        code: field,
        description,
      })),
      omitted: Number(info?.metadata['reasonsOmitted'] ?? 0),
      retryAfterSeconds: retry ? retry.seconds + retry.nanos / 1e9 : undefined,
    },
    cause,
  );
}

interface ErrorInfo {
  readonly reason: string;
  readonly domain: string;
  readonly metadata: Readonly<Record<string, string>>;
}

interface Violations {
  readonly violations: readonly { readonly type: string; readonly description: string }[];
}

interface WrongFields {
  readonly field_violations: readonly { readonly field: string; readonly description: string }[];
}

/** Details that cannot be read are as good as none: the status still says what kind of error it is. */
function decode<T>(protocol: Decoder, type: DetailType, bytes: Buffer): T | undefined {
  try {
    return protocol.decode(type, bytes) as T;
  } catch {
    return undefined;
  }
}

function nameOf(code: number): string {
  return status[code] ?? 'UNKNOWN';
}
