import type { IncomingMessage } from 'node:http';
import { BUILT_IN, parsePath, type Resource, type Target } from './resources.ts';

/** What a call asks for, in the words of an RBAC rule. */
type Verb = 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete' | 'deletecollection' | 'other';

/** The verbs that change something. */
export const WRITES = ['create', 'update', 'patch', 'delete'] as const;

/** One request as the log keeps it. Strings are empty where the path has no such part. */
export interface ApiCall {
  readonly verb: Verb;
  readonly apiGroup: string;
  readonly resource: string;
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
  readonly userAgent: string;
  /** Who the token says it is. */
  readonly user: string;
  /** The path with its query. */
  readonly path: string;
  readonly query: URLSearchParams;
  readonly contentType: string;
  readonly authorization: string;
  /** The decoded JSON of the request, or its text where it is none. */
  readonly body: unknown;
  /** When it came, in ms since the epoch. */
  readonly atMs: number;
  /** The HTTP status that went out; 0 while there is none, and for ever where none was sent. */
  readonly status: number;
}

/** Chooses calls: all that is named must be the same. An empty pattern chooses every call. */
export interface CallPattern
  extends Partial<Pick<ApiCall, 'apiGroup' | 'resource' | 'subresource' | 'namespace' | 'name'>> {
  readonly verb?: Verb | readonly Verb[];
  readonly where?: (call: ApiCall) => boolean;
}

/** Says whether the pattern chooses the call. */
export function matches({ verb, where, ...parts }: CallPattern, call: ApiCall): boolean {
  const isVerb = verb === undefined || [verb].flat().includes(call.verb);
  const isPlace = Object.entries(parts).every(([part, wanted]) => call[part as keyof ApiCall] === wanted);
  return isVerb && isPlace && (where?.(call) ?? true);
}

/** A call with what answering it needs. `status` is the one field that changes. */
export interface Exchange {
  readonly call: ApiCall & { status: number };
  readonly target: Target;
  readonly accept: string;
  /** The body as it was sent. */
  readonly text: string;
}

const VERB_OF_METHOD: Readonly<Record<string, readonly [ofOne: Verb, ofAll: Verb]>> = {
  GET: ['get', 'list'],
  POST: ['other', 'create'],
  PUT: ['update', 'other'],
  PATCH: ['patch', 'other'],
  DELETE: ['delete', 'deletecollection'],
};

/** Reads from a request what the log, the rules and the faults look at. */
export function readExchange(
  request: IncomingMessage,
  text: string,
  user: string,
  served: readonly Resource[] = BUILT_IN,
): Exchange {
  const path = request.url ?? '/';
  const { pathname, searchParams: query } = new URL(path, 'http://api');
  const target = parsePath(pathname, served);
  const { headers } = request;
  const place: Partial<Resource & { namespace: string; name: string; subresource: string }> = target.known
    ? { ...target.resource, ...target }
    : {};
  const { group = '', plural = '', namespace = '', name = '', subresource = '' } = place;
  const [ofOne, ofAll] = VERB_OF_METHOD[request.method ?? ''] ?? ['other', 'other'];
  const isWatch = ['true', '1'].includes(query.get('watch') ?? '');
  const verb = name !== '' ? ofOne : ofAll === 'list' && isWatch ? 'watch' : ofAll;
  const call = {
    ...{ verb, apiGroup: group, resource: plural, subresource, namespace, name, user, path, query },
    userAgent: headers['user-agent'] ?? '',
    contentType: (headers['content-type'] ?? '').split(';')[0]?.trim() ?? '',
    authorization: headers.authorization ?? '',
    body: decoded(text),
    atMs: Date.now(),
    status: 0,
  };
  return { call, target, accept: headers.accept ?? '*/*', text };
}

function decoded(text: string): unknown {
  try {
    return text === '' ? undefined : (JSON.parse(text) as unknown);
  } catch {
    return text;
  }
}
