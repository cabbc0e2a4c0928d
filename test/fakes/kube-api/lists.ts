import { apiVersionOf, type Json, type KubeObject, keyOf, type Resource } from './resources.ts';
import { parseSelector } from './selectors.ts';
import { ApiError, badRequest, expired, invalidOptions, statusBody, versionTooLarge } from './status.ts';
import type { Store } from './store.ts';
import { nameOf } from './writes.ts';

/** Where a list goes on: at a version (-1: whatever is now) after a key. */
interface Continuation {
  readonly version: number;
  /** As the token has it: without the namespace where the list is of one. */
  readonly start: string;
  readonly key: string;
}

const LIST_TOO_OLD = 'The resourceVersion for the provided list is too old.';
const CONTINUE_TOO_OLD =
  'The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.';

/** GET of a collection: selection, version and page as the query asks. Throws the errors of a real server. */
export function list(store: Store, resource: Resource, asked: string, query: URLSearchParams): Json {
  // A field selector may name the namespace as well; the real server then reads only that one.
  const namespace = asked || (/(?:^|,)metadata\.namespace==?([^,]+)/.exec(query.get('fieldSelector') ?? '')?.[1] ?? '');
  const { selects, isWhole } = parseSelector(resource, namespace, query);
  const limit = parseLimit(query.get('limit'));
  const continuation = parseContinue(query, namespace);
  const version = versionOf(store, resource, query, continuation);
  const all = store.list(nameOf(resource), version) ?? fail(expired(LIST_TOO_OLD));
  const rest = all.filter((object) => selects(object) && keyOf(object.metadata) >= (continuation?.key ?? ''));
  const isLimitIgnored = query.get('resourceVersion') === '0';
  const page = limit === 0 || isLimitIgnored ? rest : rest.slice(0, limit);
  const last = page.at(-1);
  const isCut = page.length < rest.length && last !== undefined;
  const metadata: Json = { resourceVersion: String(version) };
  // Events come straight from etcd, all else from the watch cache; their tokens differ by a slash.
  const slash = resource.kind === 'Event' ? '' : '/';
  const lastKey = namespace === '' ? keyOf(last?.metadata ?? { namespace, name: '' }) : last?.metadata.name;
  if (isCut) metadata['continue'] = encodeToken(version, `${slash}${lastKey}\0`);
  if (isCut && isWhole) metadata['remainingItemCount'] = rest.length - page.length;
  const items = page.map((object) => {
    const { kind: _, apiVersion: __, ...item } = object;
    return item;
  });
  return { kind: `${resource.kind}List`, apiVersion: apiVersionOf(resource), metadata, items };
}

/** The same list with metadata only, as `as=PartialObjectMetadataList` asks for it; there each item has a kind. */
export function asPartialList(whole: Json): Json {
  const items = (whole['items'] as KubeObject[]).map((item) => asPartial(item));
  return { ...whole, kind: 'PartialObjectMetadataList', apiVersion: 'meta.k8s.io/v1', items };
}

/** An object with metadata only. */
export const asPartial = ({ metadata }: Pick<KubeObject, 'metadata'>): Json => ({
  kind: 'PartialObjectMetadata',
  apiVersion: 'meta.k8s.io/v1',
  metadata,
});

function fail(error: Error): never {
  throw error;
}

/** Reads a whole number of a query as Go does. */
export function parseInteger(text: string, parser = 'ParseInt'): number {
  if (!/^\d+$/.test(text)) throw badRequest(`strconv.${parser}: parsing "${text}": invalid syntax`);
  return Number(text);
}

const parseLimit = (text: string | null) => (text === null || text === '' ? 0 : parseInteger(text));

function parseContinue(query: URLSearchParams, namespace: string): Continuation | undefined {
  const token = query.get('continue') ?? '';
  if (token === '') return undefined;
  if (!['', '0'].includes(query.get('resourceVersion') ?? '')) {
    throw badRequest('specifying resource version is not allowed when using continue');
  }
  try {
    const { rv, start } = JSON.parse(Buffer.from(token, 'base64url').toString()) as { rv: number; start: string };
    const bare = start.replace(/^\//, '');
    return { version: rv, start: bare, key: namespace === '' ? bare : `${namespace}/${bare}` };
  } catch {
    throw badRequest(
      "invalid continue token: continue key is not valid: invalid character 'i' looking for beginning of value",
    );
  }
}

/** Names the first key that is still to come: the last one of the page with a zero byte after it. */
const encodeToken = (rv: number, start: string) =>
  Buffer.from(JSON.stringify({ v: 'meta.k8s.io/v1', rv, start })).toString('base64url');

/** The version that a list shows. */
function versionOf(
  store: Store,
  resource: Resource,
  query: URLSearchParams,
  continuation: Continuation | undefined,
): number {
  const oldest = store.oldestVersion(nameOf(resource));
  if (continuation !== undefined) {
    if (continuation.version === -1) return store.version;
    if (continuation.version >= oldest) return continuation.version;
    const body = statusBody(410, CONTINUE_TOO_OLD, { reason: 'Expired' });
    throw new ApiError(410, { ...body, metadata: { continue: encodeToken(-1, continuation.start) } });
  }
  const match = query.get('resourceVersionMatch') ?? '';
  const text = query.get('resourceVersion') ?? '';
  if (match !== '' && text === '') {
    const message = 'Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided';
    throw invalidOptions('ListOptions', { reason: 'FieldValueForbidden', message, field: 'resourceVersionMatch' });
  }
  if (text === '' || text === '0') return store.version;
  if (!/^\d+$/.test(text)) {
    const why = `Invalid value: "${text}": strconv.ParseUint: parsing "${text}": invalid syntax`;
    throw badRequest(`invalid resource version: resourceVersion: ${why}`);
  }
  const asked = Number(text);
  if (asked > store.version) throw versionTooLarge(asked, store.version);
  const isExact = match === 'Exact' || (match === '' && parseLimit(query.get('limit')) > 0);
  return isExact ? asked : store.version;
}
