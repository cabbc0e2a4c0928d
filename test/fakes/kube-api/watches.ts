import type { ServerResponse } from 'node:http';
import { type ApiCall, type CallPattern, matches } from './calls.ts';
import { parseInteger } from './lists.ts';
import { apiVersionOf, type Json, type KubeObject, type Resource } from './resources.ts';
import { parseSelector, type Selector } from './selectors.ts';
import { ApiError, expired, invalidOptions, statusBody } from './status.ts';
import type { Change, Store } from './store.ts';
import { nameOf } from './writes.ts';

const WATCH_TOO_OLD = 'The resourceVersion for the provided watch is too old.';
/** A moment for the client to read what came before its connection is reset. */
const TEAR_MS = 20;

/** What a watch shows of an object, and a name for it, so that equal lines are made once. */
export interface View {
  readonly name: string;
  readonly show: (object: Json) => Json;
}

/** What a watch asks for, checked. */
export interface WatchRequest {
  readonly call: ApiCall;
  readonly resource: Resource;
  readonly view: View;
  readonly selects: Selector;
  /** Undefined: begins with an ADDED for each object. */
  readonly fromVersion: number | undefined;
  readonly hasBookmarks: boolean;
  /** 0: no end. */
  readonly timeoutSeconds: number;
}

/** Checks what a real server checks before the stream begins; throws its plain HTTP errors. */
export function parseWatch(call: ApiCall, resource: Resource, view: View): WatchRequest {
  const { query } = call;
  const isInitial = query.get('sendInitialEvents') === 'true';
  const { selects } = parseSelector(resource, call.namespace, query);
  if (isInitial && query.get('resourceVersionMatch') !== 'NotOlderThan') {
    const message = 'Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan';
    throw invalidOptions('ListOptions', { reason: 'FieldValueForbidden', message, field: 'resourceVersionMatch' });
  }
  const version = query.get('resourceVersion') ?? '';
  const timeoutSeconds = parseInteger(query.get('timeoutSeconds') ?? '0');
  if (!/^\d*$/.test(version)) {
    const why = `strconv.ParseUint: parsing "${version}": invalid syntax`;
    throw new ApiError(500, statusBody(500, `resourceVersion: Invalid value: "${version}": ${why}`));
  }
  const fromVersion = isInitial || version === '' || version === '0' ? undefined : Number(version);
  const hasBookmarks = query.get('allowWatchBookmarks') === 'true';
  return { call, resource, view, selects, fromVersion, hasBookmarks, timeoutSeconds };
}

/** One open stream. */
class Watch {
  readonly request: WatchRequest;
  /** Hears nothing any more, but stays open. */
  isMute = false;
  /** Its next event goes out half, and then the connection is reset. */
  tears: (() => void) | undefined;
  readonly #response: ServerResponse;

  constructor(request: WatchRequest, response: ServerResponse) {
    this.request = request;
    this.#response = response;
  }

  send(line: string): void {
    if (this.isMute) return;
    if (this.tears === undefined) {
      this.#response.write(line);
      return;
    }
    this.isMute = true;
    this.#response.write(line.slice(0, line.length / 2));
    setTimeout(this.tears, TEAR_MS);
  }

  tell(change: Change): void {
    const { selects, view, fromVersion = 0 } = this.request;
    if (this.isMute || change.version <= fromVersion) return;
    const wasIn = change.previous !== undefined && selects(change.previous);
    const isIn = !change.isDeleted && selects(change.object);
    if (!wasIn && !isIn) return;
    const type = isIn ? (wasIn ? 'MODIFIED' : 'ADDED') : 'DELETED';
    const key = `${type} ${view.name}`;
    const known = change.lines.get(key) ?? lineOf(type, view.show(isIn ? change.object : lastShown(change)));
    change.lines.set(key, known);
    this.send(known);
  }

  bookmark(version: number, annotations?: Json): void {
    const { resource, view, fromVersion = 0 } = this.request;
    if (version < fromVersion) return;
    const metadata = { resourceVersion: String(version), ...(annotations === undefined ? {} : { annotations }) };
    const empty = { kind: resource.kind, apiVersion: apiVersionOf(resource), metadata, ...resource.bookmark };
    this.send(lineOf('BOOKMARK', view.show(empty)));
  }

  end(): void {
    // What comes before the connection is closed is for the next watch.
    this.isMute = true;
    this.#response.end();
  }
}

const lineOf = (type: string, object: unknown) => `${JSON.stringify({ type, object })}\n`;

/** An object that leaves a selection is shown as it was before, with the version of the change. */
function lastShown({ object, previous = object, version }: Change): KubeObject {
  return { ...previous, metadata: { ...previous.metadata, resourceVersion: String(version) } };
}

/** All open watches. A test reaches into the streams here. */
export class Watches {
  readonly #store: Store;
  readonly #bookmarkMs: number;
  readonly #open = new Map<Watch, () => void>();

  constructor(store: Store, bookmarkMs: number) {
    this.#store = store;
    this.#bookmarkMs = bookmarkMs;
  }

  /** How many are open now. */
  count(pattern: CallPattern = {}): number {
    return this.#chosen(pattern).length;
  }

  /** Begins a stream; the head must have gone out. `reset` breaks its connection. */
  begin(request: WatchRequest, response: ServerResponse, reset: () => void): { mute(): void; tear(): void } {
    const watch = new Watch(request, response);
    const { hasBookmarks, timeoutSeconds } = request;
    const timers: NodeJS.Timeout[] = [];
    let unsubscribe = (): unknown => undefined;
    const stop = () => {
      for (const timer of timers) clearInterval(timer);
      this.#open.delete(watch);
      unsubscribe();
    };
    const later = (seconds: number, act: () => void) => seconds > 0 && timers.push(setTimeout(act, seconds * 1000));
    response.on('close', stop);
    this.#open.set(watch, reset);
    // The first events go out a turn later: the caller may still mute or tear the stream.
    setImmediate(() => {
      if (!this.#start(watch)) return;
      unsubscribe = this.#store.subscribe(nameOf(request.resource), (change) => watch.tell(change));
      if (response.destroyed) stop();
    });
    if (hasBookmarks) {
      const bookmark = () => watch.bookmark(this.#store.version);
      timers.push(setInterval(bookmark, this.#bookmarkMs));
      if (timeoutSeconds > 1) for (const before of [2, 1]) later(timeoutSeconds - before, bookmark);
    }
    later(timeoutSeconds, () => !watch.isMute && watch.end());
    return { mute: () => (watch.isMute = true), tear: () => (watch.tears = reset) };
  }

  /** Sends what a watch begins with; false: it is over already. */
  #start(watch: Watch): boolean {
    const { resource, fromVersion, selects, view, hasBookmarks } = watch.request;
    const name = nameOf(resource);
    if (fromVersion === undefined) {
      const objects = this.#store.list(name) ?? [];
      for (const object of objects.filter(selects)) watch.send(lineOf('ADDED', view.show(object)));
      if (hasBookmarks) watch.bookmark(this.#store.version, { 'k8s.io/initial-events-end': 'true' });
      return true;
    }
    const changes = this.#store.changesSince(name, fromVersion);
    if (changes === undefined) {
      const fromCache = `too old resource version: ${fromVersion} (${this.#store.oldestVersion(name) - 1})`;
      watch.send(lineOf('ERROR', expired(name === 'events' ? WATCH_TOO_OLD : fromCache).body));
      watch.end();
      return false;
    }
    for (const change of changes) watch.tell(change);
    return true;
  }

  /** Ends the streams cleanly, as at the end of their time. */
  end(pattern: CallPattern = {}): void {
    for (const watch of this.#chosen(pattern)) watch.end();
  }

  /** Resets the connections of the streams. */
  reset(pattern: CallPattern = {}): void {
    for (const watch of this.#chosen(pattern)) this.#open.get(watch)?.();
  }

  /** The streams stay open, but hear nothing any more: half-open links. */
  mute(pattern: CallPattern = {}): void {
    for (const watch of this.#chosen(pattern)) watch.isMute = true;
  }

  /** The next event of each stream goes out half, and then its connection is reset. */
  tearNextEvent(pattern: CallPattern = {}): void {
    for (const watch of this.#chosen(pattern)) watch.tears = this.#open.get(watch);
  }

  /** Sends a BOOKMARK now to the streams that asked for them. */
  bookmark(pattern: CallPattern = {}): void {
    const chosen = this.#chosen(pattern).filter(({ request }) => request.hasBookmarks);
    for (const watch of chosen) watch.bookmark(this.#store.version);
  }

  /** Sends an ERROR event and ends the streams; the default is what a watch gets that is too far behind. */
  fail(status: Json = expired(WATCH_TOO_OLD).body as Json, pattern: CallPattern = {}): void {
    for (const watch of this.#chosen(pattern)) {
      watch.send(lineOf('ERROR', status));
      watch.end();
    }
  }

  #chosen(pattern: CallPattern): Watch[] {
    return [...this.#open.keys()].filter(({ request }) => matches(pattern, request.call));
  }
}
