import type { IncomingMessage, ServerResponse } from 'node:http';
import { json, serve, status } from './server.ts';

export interface Thing {
  readonly metadata: { readonly name: string; readonly resourceVersion: string };
  readonly value: string;
}

interface Call {
  readonly kind: 'list' | 'watch' | 'other';
  readonly query: URLSearchParams;
  readonly authorization: string | undefined;
}

interface Change {
  readonly version: number;
  readonly type: string;
  readonly object: Thing;
}

/** Answers in place of the collection. Where it returns `pass`, the collection answers too. */
export type Fault = (response: ServerResponse, request: IncomingMessage) => unknown;

export const KIND = '/api/v1/things';

/**
 * One collection behind a real socket, of which every answer can be spoilt. It keeps to what was recorded of a real server for lists,
 * pages and watches, and no more: it is the stand for the failures of the connection.
 */
export async function serveCollection() {
  const collection = new Collection();
  return { collection, ...(await serve((request, response) => collection.answer(request, response))) };
}

class Collection {
  readonly things = new Map<string, Thing>();
  readonly calls: Call[] = [];
  /** For the next call of each kind, one after the other. */
  readonly faults: Record<Call['kind'], Fault[]> = { list: [], watch: [], other: [] };
  version = 1_000;
  #oldest = 1_000;
  readonly #changes: Change[] = [];
  readonly #watches = new Set<ServerResponse>();

  put(name: string, value: string): void {
    this.version += 1;
    const type = this.things.has(name) ? 'MODIFIED' : 'ADDED';
    const object = { metadata: { name, resourceVersion: `${this.version}` }, value };
    this.things.set(name, object);
    this.#tell({ version: this.version, type, object });
  }

  remove(name: string): void {
    const { value } = this.things.get(name) as Thing;
    this.version += 1;
    this.things.delete(name);
    const object = { metadata: { name, resourceVersion: `${this.version}` }, value };
    this.#tell({ version: this.version, type: 'DELETED', object });
  }

  /** What happened is forgotten: watches from before now are too old. */
  forget(): void {
    this.#oldest = this.version;
    this.#changes.length = 0;
  }

  /** Something else changed, and the watches are told how far they are. */
  bookmark(): void {
    this.version += 1;
    this.send(
      `${JSON.stringify({ type: 'BOOKMARK', object: { metadata: { resourceVersion: `${this.version}` } } })}\n`,
    );
  }

  /** Sends anything to the open watches. */
  send(text: string | Buffer): void {
    for (const watch of this.#watches) watch.write(text);
  }

  end(): void {
    for (const watch of this.#watches) watch.end();
    this.#watches.clear();
  }

  reset(): void {
    for (const watch of this.#watches) watch.socket?.resetAndDestroy();
    this.#watches.clear();
  }

  /** The watches stay open, but hear nothing any more. */
  mute(): void {
    this.#watches.clear();
  }

  count(kind: Call['kind']): number {
    return this.calls.filter((call) => call.kind === kind).length;
  }

  get watchCount(): number {
    return this.#watches.size;
  }

  answer(request: IncomingMessage, response: ServerResponse): void {
    const { pathname, searchParams: query } = new URL(request.url ?? '', 'http://server');
    const kind = pathname !== KIND ? 'other' : query.get('watch') === 'true' ? 'watch' : 'list';
    this.calls.push({ kind, query, authorization: request.headers.authorization });
    const fault = this.faults[kind].shift();
    if (fault !== undefined && fault(response, request) !== 'pass') return;
    if (kind === 'list') this.#list(query, response);
    else if (kind === 'watch') this.#watch(query, response);
    else response.writeHead(404).end('404 page not found');
  }

  #list(query: URLSearchParams, response: ServerResponse): void {
    const limit = Number(query.get('limit') ?? 0) || Number.POSITIVE_INFINITY;
    const [version, from] = (query.get('continue') ?? `${this.version}:0`).split(':').map(Number) as [number, number];
    if (version < this.#oldest) {
      status(response, { code: 410, reason: 'Expired', message: 'The provided continue parameter is too old' });
      return;
    }
    const all = this.#at(version);
    const end = from + limit;
    const metadata = { resourceVersion: `${version}`, ...(end < all.length ? { continue: `${version}:${end}` } : {}) };
    json(response, 200, { kind: 'ThingList', metadata, items: all.slice(from, end) });
  }

  /** The things as they were at a version. */
  #at(version: number): Thing[] {
    const things = new Map(this.things);
    for (const { object } of this.#changes.filter((change) => change.version > version))
      things.delete(object.metadata.name);
    for (const { object, type } of this.#changes.filter((change) => change.version <= version))
      if (type === 'DELETED') things.delete(object.metadata.name);
      else things.set(object.metadata.name, object);
    return [...things.values()].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
  }

  #watch(query: URLSearchParams, response: ServerResponse): void {
    const from = Number(query.get('resourceVersion'));
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    if (from < this.#oldest) {
      response.end(errorEvent(410, 'Expired', `too old resource version: ${from} (${this.#oldest})`));
      return;
    }
    for (const change of this.#changes) if (change.version > from) response.write(eventLine(change));
    this.#watches.add(response);
    const timer = setTimeout(
      () => this.#watches.delete(response) && response.end(),
      Number(query.get('timeoutSeconds')) * 1_000,
    );
    response.on('close', () => {
      clearTimeout(timer);
      this.#watches.delete(response);
    });
  }

  #tell(change: Change): void {
    this.#changes.push(change);
    this.send(eventLine(change));
  }
}

export function eventLine({ type, object }: { readonly type: string; readonly object: unknown }): string {
  return `${JSON.stringify({ type, object })}\n`;
}

export function errorEvent(code: number, reason: string, message: string): string {
  return eventLine({ type: 'ERROR', object: { kind: 'Status', status: 'Failure', code, reason, message } });
}
