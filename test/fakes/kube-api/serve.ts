import type { IncomingMessage, ServerResponse } from 'node:http';
import { authenticate, type Role, refusal } from './access.ts';
import { type ApiCall, type Exchange, readExchange } from './calls.ts';
import type { Fault, Faults } from './faults.ts';
import type { Gates } from './gates.ts';
import { answer, errorReply, type Reply, replyTo, type World } from './replies.ts';
import { ApiError, forbidden, statusBody, tooLarge } from './status.ts';
import type { Watches } from './watches.ts';
import { admitted, hasWebhooks } from './webhooks.ts';

const BODY_LIMIT_BYTES = 3_145_728;
/** A moment for the client to read the first half of an answer before its connection is reset. */
const TEAR_MS = 20;

/** What answering takes; the parts are the test's to change while the server runs. */
export interface Service {
  readonly world: World;
  readonly tokens: ReadonlyMap<string, string>;
  roles: readonly Role[] | undefined;
  readonly faults: Faults;
  readonly gates: Gates;
  readonly watches: Watches;
  readonly calls: ApiCall[];
  readonly listeners: Set<(call: ApiCall) => void>;
  /** Resets the connection of a request. */
  reset(request: IncomingMessage): void;
}

/** Answers one request: log, faults and gates around what the API does. */
export async function serveCall(service: Service, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const text = await readBody(request);
  const { user, error: refused } = identify(service, request.headers.authorization);
  const exchange = readExchange(request, text ?? '', user, service.world.served);
  const { call } = exchange;
  service.calls.push(call);
  for (const listener of service.listeners) listener(call);
  const reset = () => service.reset(request);

  if (!(await service.gates.pass(call, 'request'))) return reset();
  const early = service.faults.take(call, 'request');
  if (early !== undefined && !(await survives(early, reset)) && !isReply(early)) return;
  const reply =
    faultReply(early, call) ??
    (await replyOrError(service, exchange, text === undefined ? tooLarge(BODY_LIMIT_BYTES) : refused));

  if (!(await service.gates.pass(call, 'answer'))) return reset();
  const late = service.faults.take(call, 'answer');
  if (late !== undefined && !(await survives(late, reset))) return;
  if (response.destroyed) return;
  const broken = service.faults.take(call, 'body');
  call.status = reply.kind === 'watch' ? 200 : reply.code;
  if (reply.kind === 'watch') stream(service, reply.request, { response, reset, broken });
  else send(reply, { response, reset, broken });
}

interface Line {
  readonly response: ServerResponse;
  readonly reset: () => void;
  readonly broken: Fault | undefined;
}

/** Undefined: more bytes than the server takes. */
async function readBody(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  const bytes = Buffer.concat(chunks);
  return bytes.length > BODY_LIMIT_BYTES ? undefined : bytes.toString();
}

export function identify({ tokens }: Service, authorization: string | undefined): { user: string; error?: ApiError } {
  try {
    return { user: authenticate(authorization, tokens) };
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    return { user: '', error };
  }
}

const isReply = (fault: Fault) => fault.kind === 'refuse' || fault.kind === 'forbidden';

/** Does what a fault does to the connection; true: the call goes on. */
async function survives(fault: Fault, reset: () => void): Promise<boolean> {
  if (fault.kind === 'reset') reset();
  if (fault.kind !== 'delay') return false;
  await new Promise((resolve) => setTimeout(resolve, fault.ms));
  return true;
}

export function faultReply(fault: Fault | undefined, call: ApiCall): Reply | undefined {
  if (fault?.kind === 'forbidden') return errorReply(forbidden(call));
  if (fault?.kind !== 'refuse') return undefined;
  const { code, message = '', reason, retryAfterSeconds, asText = false } = fault;
  const retry: Record<string, string> =
    retryAfterSeconds === undefined ? {} : { 'retry-after': `${retryAfterSeconds}` };
  const details = retryAfterSeconds === undefined ? {} : { details: { retryAfterSeconds } };
  const body = statusBody(code, message, { ...(reason === undefined ? {} : { reason }), ...details });
  return answer(code, asText ? message : body, retry);
}

async function replyOrError(
  { world, roles }: Service,
  exchange: Exchange,
  refused: ApiError | undefined,
): Promise<Reply> {
  try {
    const error = refused ?? refusal(exchange.call, roles);
    if (error !== undefined) throw error;
    return replyTo(world, hasWebhooks(world, exchange) ? await admitted(world, exchange) : exchange);
  } catch (error) {
    if (error instanceof ApiError) return errorReply(error);
    throw error;
  }
}

function send(reply: Extract<Reply, { kind: 'answer' }>, { response, reset, broken }: Line): void {
  const { code, body, headers } = reply;
  const isText = typeof body === 'string';
  const text = isText ? body : JSON.stringify(body);
  const contentType = isText ? 'text/plain; charset=utf-8' : 'application/json';
  const length = String(Buffer.byteLength(text));
  response.writeHead(code, { 'content-type': contentType, 'content-length': length, ...headers });
  if (broken === undefined) {
    response.end(text);
    return;
  }
  response.write(text.slice(0, text.length / 2));
  if (broken.kind === 'reset') setTimeout(reset, TEAR_MS);
}

function stream(
  { watches }: Service,
  request: Parameters<Watches['begin']>[0],
  { response, reset, broken }: Line,
): void {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.flushHeaders();
  const watch = watches.begin(request, response, reset);
  if (broken?.kind === 'reset') watch.tear();
  if (broken?.kind === 'silent') watch.mute();
}
