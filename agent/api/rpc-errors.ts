import { Metadata, status } from '@grpc/grpc-js';
import { ERRORS, type ErrorCode, type Reason, SnapshotError } from '../errors.ts';
import type { Protocol } from './rpc-protocol.ts';

/** Who defines the reasons in ErrorInfo: fixed, so that clients can tell them from those of proxies between. */
const ERROR_DOMAIN = 'snapshot-agent';
const DETAILS_TRAILER = 'grpc-status-details-bin';

/**
 * Many gRPC clients refuse trailers above 8 KiB in all, base64 makes details a third longer, and the message goes twice. What does not
 * fit is counted; CheckCompatibility answers with all of it in a message, where there is room.
 */
const MAX_VIOLATIONS_BYTES = 3_500;
const MAX_MESSAGE_BYTES = 700;
const MAX_DESCRIPTION_BYTES = 1_000;

/** When a client may ask again. What waits for a person or for storage is not helped by hurry. */
const RETRY_SECONDS: Partial<Record<ErrorCode, number>> = { LIMIT_EXCEEDED: 1 };
const DEFAULT_RETRY_SECONDS = 5;

/** A field of a request that is wrong; `field` is its path, `problem` continues it to a sentence. */
export interface WrongField {
  readonly field: string;
  readonly problem: string;
}

/** A request that is wrong in itself: all its wrong fields at once. */
export class InvalidRequest extends SnapshotError {
  readonly fields: readonly WrongField[];

  constructor(fields: readonly WrongField[]) {
    super('REQUEST_INVALID', fields.map(({ field, problem }) => `${field} ${problem}`).join('; '));
    this.fields = fields;
  }
}

/** What a SnapshotError and the failure of an operation have in common. */
export interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly advice: string;
  readonly retryable: boolean;
  readonly reasons: readonly Reason[];
  readonly fields?: readonly WrongField[];
}

/** A google.rpc.Status as proto-loader takes it. */
export interface StatusMessage {
  readonly code: number;
  readonly message: string;
  readonly details: readonly { readonly type_url: string; readonly value: Buffer }[];
}

type Encoder = Pick<Protocol, 'encode'>;
type ViolationsType = 'PreconditionFailure' | 'BadRequest';

/**
 * The status of a failure with its details: ErrorInfo, one violation for each reason or wrong field, RetryInfo where it may pass.
 * `subject` says what was asked for. Its size is bounded; see MAX_VIOLATIONS_BYTES.
 */
export function statusOf(failure: Failure, subject: string, protocol: Encoder): StatusMessage {
  const { code, message, advice, retryable, reasons, fields = [] } = failure;
  const detail = (type: ViolationsType | 'ErrorInfo' | 'RetryInfo', value: object) => ({
    type_url: `type.googleapis.com/google.rpc.${type}`,
    value: protocol.encode(type, value),
  });
  const preconditions = reasons.map((reason) => violationOf(reason, subject));
  const wrong = fields.map(({ field, problem }) => ({ field, description: cut(problem, MAX_DESCRIPTION_BYTES) }));
  const shownReasons = fitting(preconditions, (one) => protocol.encode('PreconditionFailure', { violations: [one] }));
  const shownFields = fitting(wrong, (one) => protocol.encode('BadRequest', { field_violations: [one] }));
  const omitted = preconditions.length - shownReasons.length + wrong.length - shownFields.length;
  const metadata = { advice, retryable: String(retryable), ...(omitted > 0 && { reasonsOmitted: String(omitted) }) };
  const seconds = RETRY_SECONDS[code] ?? DEFAULT_RETRY_SECONDS;
  return {
    code: status[ERRORS[code].grpc],
    message: `${cut(message, MAX_MESSAGE_BYTES)}. ${advice}`,
    details: [
      detail('ErrorInfo', { reason: code, domain: ERROR_DOMAIN, metadata }),
      ...(shownReasons.length > 0 ? [detail('PreconditionFailure', { violations: shownReasons })] : []),
      ...(shownFields.length > 0 ? [detail('BadRequest', { field_violations: shownFields })] : []),
      ...(retryable ? [detail('RetryInfo', { retry_delay: { seconds, nanos: 0 } })] : []),
    ],
  };
}

/** The same as the end of a call. */
export function callErrorOf(failure: Failure, subject: string, protocol: Encoder) {
  const { code, message, details } = statusOf(failure, subject, protocol);
  const metadata = new Metadata();
  metadata.set(DETAILS_TRAILER, protocol.encode('Status', { code, message, details }));
  return { code, details: message, metadata };
}

function violationOf(reason: Reason, subject: string) {
  const found = reason.found === '' ? '' : `; found ${reason.found}`;
  const wanted = reason.wanted === '' ? '' : `; wanted ${reason.wanted}`;
  // What to do stays whole, however long the list of what was found.
  const advice = cut(reason.advice, MAX_DESCRIPTION_BYTES / 2);
  const room = MAX_DESCRIPTION_BYTES - encodeURI(`. ${advice}`).length;
  const description = `${cut(`${reason.message}${found}${wanted}`, room)}. ${advice}`;
  return { type: reason.code, subject, description };
}

function fitting<T>(items: readonly T[], encoded: (item: T) => Buffer): readonly T[] {
  let left = MAX_VIOLATIONS_BYTES;
  const end = items.findIndex((item) => {
    left -= encoded(item).length;
    return left < 0;
  });
  return end < 0 ? items : items.slice(0, end);
}

/**
 * Shortened to so many bytes of a percent-encoded header, and without what such a header cannot carry: lone surrogates make grpc-js
 * throw, and control characters are of no use to a reader.
 */
function cut(text: string, bytes: number): string {
  const clean = Buffer.from(text.slice(0, bytes + 1))
    .toString()
    .replace(/\p{Cc}/gu, (control) => (control === '\n' ? control : ' '));
  if (encodeURI(clean).length <= bytes) return clean;
  let short = '';
  let used = 0;
  for (const character of clean) {
    used += encodeURI(character).length;
    if (used > bytes - ELLIPSIS_BYTES) break;
    short += character;
  }
  return `${short}…`;
}

const ELLIPSIS_BYTES = encodeURI('…').length;
