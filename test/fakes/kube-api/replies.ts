import type { ApiCall, Exchange } from './calls.ts';
import { remove } from './deletion.ts';
import { EVENTS_GROUP, toCoreEvent, toEventView } from './event-views.ts';
import { asPartial, asPartialList, list } from './lists.ts';
import { apiVersionOf, type Json, type KubeObject, keyOf, RESOURCES, type Resource } from './resources.ts';
import {
  type ApiError,
  methodNotAllowed,
  namespaceNotFound,
  notAcceptable,
  notFound,
  unknownPath,
  unknownResource,
} from './status.ts';
import type { Store } from './store.ts';
import { parseWatch, type View, type WatchRequest } from './watches.ts';
import { create, nameOf, patch, replace, type WriteRequest } from './writes.ts';

/** What goes out for a call: an answer, or the stream of a watch. */
export type Reply =
  | {
      readonly kind: 'answer';
      readonly code: number;
      readonly body: Json | string;
      readonly headers: Readonly<Record<string, string>>;
    }
  | { readonly kind: 'watch'; readonly request: WatchRequest };

/** What the server knows besides its objects. */
export interface World {
  readonly store: Store;
  /** Undefined: every namespace exists. */
  readonly namespaces: ReadonlySet<string> | undefined;
  /** The kinds that there are. */
  readonly served: readonly Resource[];
  /** The ports of this machine behind Services, by `namespace/name`: where webhooks are called. */
  readonly services: ReadonlyMap<string, number>;
}

type Known = Extract<Exchange['target'], { known: true }>;

export const answer = (code: number, body: Json | string, headers: Readonly<Record<string, string>> = {}): Reply => ({
  kind: 'answer',
  code,
  body,
  headers,
});

export const errorReply = ({ code, body, headers }: ApiError): Reply => answer(code, body, headers);

/** Does what the call asks for. Throws ApiError as a real server refuses. */
export function replyTo(world: World, exchange: Exchange): Reply {
  const { target, call } = exchange;
  if (call.path.startsWith('/readyz') || call.path.startsWith('/livez')) return answer(200, 'ok');
  if (!target.known) throw target.isGroupKnown ? unknownResource() : unknownPath();
  const view = viewOf(target.resource, exchange.accept);
  const isRead = ['get', 'list', 'watch'].includes(call.verb);
  return isRead ? read(world, call, target, view) : write(world, exchange, target, view);
}

/** How the caller wants to see objects: whole or metadata only, and events as its group has them. */
function viewOf(resource: Resource, accept: string): View {
  if (!/application\/json|\*\/\*|application\/\*/.test(accept)) throw notAcceptable();
  if (/as=PartialObjectMetadata\b|as=PartialObjectMetadataList/.test(accept)) {
    return { name: 'partial', show: (object) => asPartial(object as KubeObject) };
  }
  if (resource.group === EVENTS_GROUP) return { name: EVENTS_GROUP, show: toEventView };
  return { name: 'whole', show: (object) => object };
}

function read({ store }: World, call: ApiCall, target: Known, view: View): Reply {
  const { resource, namespace, name } = target;
  if (call.verb === 'watch') return { kind: 'watch', request: parseWatch(call, resource, view) };
  if (call.verb === 'get') {
    const object = store.get(nameOf(resource), keyOf({ namespace, name }));
    if (object === undefined) throw notFound(resource, name);
    return answer(200, view.show(object));
  }
  const whole = list(store, resource, namespace, call.query);
  if (view.name === 'partial') return answer(200, asPartialList(whole));
  if (view.name !== EVENTS_GROUP) return answer(200, whole);
  const items = (whole['items'] as Json[]).map((item) => {
    const { apiVersion: _, ...shown } = toEventView(item);
    return shown;
  });
  return answer(200, { ...whole, apiVersion: apiVersionOf(resource), items });
}

function write({ store, namespaces }: World, { call, text }: Exchange, target: Known, view: View): Reply {
  const { query, body, contentType: mediaType } = call;
  const isDryRun = query.get('dryRun') === 'All';
  const isEventView = target.resource.group === EVENTS_GROUP;
  const request: WriteRequest = {
    ...{ ...target, body, text, mediaType, isDryRun, isEventView },
    ...(isEventView ? { resource: RESOURCES.events, body: toCoreEvent(body) } : {}),
  };
  const act = {
    create: () => create(store, request),
    update: () => replace(store, request),
    patch: () => patch(store, request),
    delete: () => remove(store, request, query),
  }[call.verb as string];
  const isPlaced = target.namespace !== '' || target.resource.isClusterScoped === true;
  const isFit = call.verb === 'create' ? target.name === '' && isPlaced : target.name !== '';
  if (act === undefined || !isFit) throw methodNotAllowed();
  const isNowhere = target.namespace !== '' && namespaces?.has(target.namespace) === false;
  if (call.verb === 'create' && isNowhere) throw namespaceNotFound(target.namespace);
  const { code, body: written, headers = {} } = act();
  return answer(code, written['kind'] === 'Status' ? written : view.show(written), headers);
}
