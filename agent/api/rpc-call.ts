import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  status,
} from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { asSnapshotError, ERRORS, SnapshotError } from '../errors.ts';
import type { Caller } from '../operations/service.ts';
import type { CallKind, Gate } from './limits.ts';
import type { Refusals } from './refusals.ts';
import { callErrorOf } from './rpc-errors.ts';
import type { Protocol } from './rpc-protocol.ts';

type AnyCall = Pick<ServerUnaryCall<unknown, object>, 'getPeer' | 'getDeadline' | 'getAuthContext' | 'metadata'> & {
  on(event: 'cancelled', listener: () => void): unknown;
};

/** What a method knows of its call. */
export interface CallContext {
  readonly caller: Caller;
  /** Aborts when the caller goes away, its deadline passes, or the agent stops. */
  readonly signal: AbortSignal;
  /** The metadata of that name, or empty. */
  readonly traceParent: string;
  /** Says for the audit line what the call is about. Never secrets. */
  aim(target: Readonly<Record<string, string | number>>): void;
}

/** What calls of one listener have in common. */
export interface Desk {
  /** Who calls. Throws FORBIDDEN; not for probes, which learn nothing. */
  identify(call: Pick<AnyCall, 'getAuthContext'>, isProbe: boolean): Caller;
  peerOf(call: Pick<AnyCall, 'getPeer'>): string;
  /** As whom the gate counts a call of somebody that `identify` refuses: they must not be free to ask again and again. */
  strangerOf(call: Pick<AnyCall, 'getAuthContext'>): string;
  readonly gate: Gate;
  readonly refusals: Refusals;
  readonly protocol: Protocol;
  readonly log: Logger;
  readonly maxCallMs: number;
  callEnded(call: { readonly method: string; readonly code: string; readonly seconds: number }): void;
  /** Aborts when calls of a kind are to end, with a SnapshotError that says why. */
  readonly end: Readonly<Record<CallKind, AbortSignal>>;
}

interface Method {
  readonly name: string;
  readonly kind: CallKind;
  /** Open to every certificate, and too frequent for the log: health checks. */
  readonly isProbe?: boolean;
  /** With calls of which kind it is ended when the agent stops; undefined: its own. */
  readonly endsWith?: CallKind;
}

/** A status of gRPC that is not an error of the agent, where a protocol of gRPC's own asks for it. */
export class PlainStatus extends Error {
  readonly code: status;
  constructor(code: status, details: string) {
    super(details);
    this.code = code;
  }
}

/** A request that could not be read; it takes the request's place, so that the answer and the audit line are like all others. */
class Unreadable {
  readonly failure: SnapshotError;
  constructor(failure: SnapshotError) {
    this.failure = failure;
  }
}

/** A service whose requests are bounded, and whose unreadable ones reach the method's handler. */
export function readable(definition: ServiceDefinition, maxBytes: number): ServiceDefinition {
  const entries = Object.entries(definition).map(([name, method]) => {
    const requestDeserialize = (bytes: Buffer): unknown => {
      if (bytes.length > maxBytes)
        return new Unreadable(
          new SnapshotError('LIMIT_EXCEEDED', `the request has ${bytes.length} bytes, at most ${maxBytes} are taken`),
        );
      try {
        return method.requestDeserialize(bytes) as unknown;
      } catch (cause) {
        return new Unreadable(
          new SnapshotError('REQUEST_INVALID', 'the request is no message of this type', { cause }),
        );
      }
    };
    return [name, { ...method, requestDeserialize }] as const;
  });
  return Object.fromEntries(entries);
}

/** A handler of a call with one answer. */
export function unary<Request>(
  desk: Desk,
  method: Omit<Method, 'kind'>,
  answer: (request: Request, context: CallContext) => Promise<object> | object,
): handleUnaryCall<Request, object> {
  return (call, done) => {
    perform(desk, call, { ...method, kind: 'call' }, async (context) =>
      answer(readRequest(call.request), context),
    ).then((value) => done(null, value), done);
  };
}

/** A handler of a call with many answers. `send` waits until the message is on its way: a slow reader holds its own stream up. */
export function stream<Request>(
  desk: Desk,
  method: Omit<Method, 'kind'>,
  answer: (request: Request, context: CallContext, send: (message: object) => Promise<void>) => Promise<void>,
): handleServerStreamingCall<Request, object> {
  return (call) => {
    perform(desk, call, { ...method, kind: 'stream' }, async (context) => {
      await answer(readRequest(call.request), context, (message) => sendMessage(call, message, context.signal));
    }).then(
      () => call.end(),
      (error: unknown) => call.emit('error', error),
    );
  };
}

function readRequest<Request>(request: Request): Request {
  if (request instanceof Unreadable) throw request.failure;
  return request;
}

/** A write that is under way when the stream is destroyed never calls back: hence the signal. */
function sendMessage(call: ServerWritableStream<unknown, object>, message: object, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(asSnapshotError(signal.reason));
    if (signal.aborted) return stop();
    signal.addEventListener('abort', stop, { once: true });
    call.write(message, (error?: Error | null) => {
      signal.removeEventListener('abort', stop);
      if (error) reject(error);
      else resolve();
    });
  });
}

/** Lets a call in, does its work, and writes its one audit line. Throws what grpc-js takes as the error of a call. */
export async function perform<T>(
  desk: Desk,
  call: AnyCall,
  method: Method,
  work: (context: CallContext) => Promise<T>,
): Promise<T> {
  const began = performance.now();
  const audit: Audit = { target: {}, caller: '', failure: undefined };
  let countedAs = '';
  const { signal, release } = signalOf(desk, call, method);
  try {
    const known = identified(desk, call, method);
    countedAs = known.countedAs;
    if (known.caller !== undefined) audit.caller = known.caller.name;
    const leave = desk.gate.enter(countedAs, method.kind);
    if (known.caller === undefined) {
      leave();
      throw known.refusal;
    }
    const { caller } = known;
    const aim = (target: Audit['target']) => {
      audit.target = target;
    };
    const traceParent = String(call.metadata.get('traceparent')[0] ?? '');
    const running = signal.aborted ? Promise.reject(signal.reason) : work({ caller, signal, traceParent, aim });
    // Work that is slow to notice that it is over counts until it has ended.
    running.then(leave, leave);
    return await untilAborted(running, signal);
  } catch (thrown) {
    audit.failure = thrown instanceof PlainStatus ? thrown : asSnapshotError(thrown);
    const subject = Object.values(audit.target).filter((part) => part !== '');
    throw callError(desk, thrown, subject.join('/'));
  } finally {
    release();
    const seconds = (performance.now() - began) / 1000;
    const code = isLate(call, signal) ? 'DEADLINE_EXCEEDED' : codeOf(audit.failure);
    writeAudit(desk, method, { ...audit, peer: desk.peerOf(call), code, seconds });
    if (audit.failure?.code === 'LIMIT_EXCEEDED') desk.refusals.count(countedAs);
    desk.callEnded({ method: method.name, code, seconds });
  }
}

/** Who calls, or why they may not; and as whom they are counted in both cases. */
function identified(desk: Desk, call: AnyCall, { isProbe = false }: Method) {
  try {
    const caller = desk.identify(call, isProbe);
    return { caller, countedAs: caller.name };
  } catch (refusal) {
    return { caller: undefined, refusal, countedAs: desk.strangerOf(call) };
  }
}

interface Audit {
  target: Readonly<Record<string, string | number>>;
  caller: string;
  failure: SnapshotError | PlainStatus | undefined;
}

function codeOf(failure: Audit['failure']): string {
  if (failure === undefined) return 'OK';
  return failure instanceof PlainStatus ? (status[failure.code] ?? 'UNKNOWN') : ERRORS[failure.code].grpc;
}

/** The caller hears of a defect that there is one; the log has the rest. */
function callError({ protocol }: Desk, thrown: unknown, subject: string): object {
  if (thrown instanceof PlainStatus) return { code: thrown.code, details: thrown.message };
  const isKnown = thrown instanceof SnapshotError;
  const failure = isKnown ? thrown : new SnapshotError('INTERNAL', 'the call failed inside the agent');
  return callErrorOf(failure, subject, protocol);
}

function signalOf(desk: Desk, call: AnyCall, { kind, endsWith = kind }: Method) {
  const controller = new AbortController();
  const end = desk.end[endsWith];
  const forward = () => controller.abort(end.reason);
  end.addEventListener('abort', forward, { once: true });
  if (end.aborted) forward();
  call.on('cancelled', () => controller.abort(new SnapshotError('CANCELLED', 'the caller went away')));
  const seconds = desk.maxCallMs / 1000;
  const late = () => controller.abort(new SnapshotError('STEP_TIMEOUT', `the call took longer than ${seconds} s`));
  const timer = kind === 'call' ? setTimeout(late, desk.maxCallMs) : undefined;
  const release = () => {
    clearTimeout(timer);
    end.removeEventListener('abort', forward);
  };
  return { signal: controller.signal, release };
}

async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = new Promise<never>((_, reject) => {
    signal.addEventListener('abort', () => reject(asSnapshotError(signal.reason)), { once: true });
  });
  const value = await Promise.race([work, aborted]);
  // Work that ends because of the signal has no result.
  if (signal.aborted) throw signal.reason;
  return value;
}

function isLate(call: AnyCall, signal: AbortSignal): boolean {
  const deadline = call.getDeadline();
  return signal.aborted && deadline !== Number.POSITIVE_INFINITY && Number(deadline) <= Date.now();
}

function writeAudit(
  { log }: Desk,
  { name: method, isProbe = false }: Method,
  { failure, ...line }: Audit & { readonly peer: string; readonly code: string; readonly seconds: number },
): void {
  const isDefect = failure?.code === 'INTERNAL';
  // Whoever asks too often must not fill the log with it: a line a second says how many those were.
  const isQuiet = isProbe || failure?.code === 'LIMIT_EXCEEDED';
  const level = isDefect ? 'error' : isQuiet ? 'debug' : 'info';
  const why = failure && { reason: String(failure.code), message: failure.message.slice(0, 300) };
  log[level]({ method, ...line, ...why, ...(isDefect && { err: failure }) }, 'grpc call');
}
