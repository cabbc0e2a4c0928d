/** A path of the API; segments are encoded. Throws where one is empty or would change the path (`.`, `..`). */
export function kubePath(...segments: readonly string[]): string {
  const odd = segments.find((segment) => segment === '' || segment === '.' || segment === '..');
  if (odd !== undefined)
    throw new RangeError(`${JSON.stringify(odd)} cannot be part of the path ${segments.join('/')}`);
  return `/${segments.map(encodeURIComponent).join('/')}`;
}

/** How paths name a kind; the group of core/v1 is empty. */
export interface ResourceKind {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
}

/** The objects of a kind: all, those of a namespace, or one of them. */
export function resourcePath({ group, version, plural }: ResourceKind, namespace?: string, name?: string): string {
  const root = group === '' ? ['api', version] : ['apis', group, version];
  const place = namespace === undefined ? [] : ['namespaces', namespace];
  return kubePath(...root, ...place, plural, ...(name === undefined ? [] : [name]));
}

/** The Leases of a namespace, or one of them. */
export function leasePath(namespace: string, name?: string): string {
  const all = kubePath('apis', 'coordination.k8s.io', 'v1', 'namespaces', namespace, 'leases');
  return name === undefined ? all : `${all}${kubePath(name)}`;
}

/** The Events of a namespace. Of core/v1, which is what the RBAC rules of the original system cover. */
export function eventPath(namespace: string): string {
  return kubePath('api', 'v1', 'namespaces', namespace, 'events');
}

/** The Secrets of a namespace, or one of them. */
export function secretPath(namespace: string, name?: string): string {
  const all = kubePath('api', 'v1', 'namespaces', namespace, 'secrets');
  return name === undefined ? all : `${all}${kubePath(name)}`;
}

export type Verb = 'get' | 'list' | 'create' | 'update' | 'patch' | 'delete';

const VERBS: Readonly<Record<string, Verb>> = { POST: 'create', PUT: 'update', PATCH: 'patch', DELETE: 'delete' };

/** The verb that an RBAC rule must allow for a request; a watch is told from a list by its query alone. */
export function verbOf(method: string, path: string): Verb {
  const verb = VERBS[method];
  if (verb !== undefined) return verb;
  const [root, ...rest] = path.split('/').filter((segment) => segment !== '');
  const inVersion = rest.slice(root === 'api' ? 1 : 2);
  const inNamespace = inVersion[0] === 'namespaces' && inVersion.length > 2 ? inVersion.slice(2) : inVersion;
  return (root === 'api' || root === 'apis') && inNamespace.length === 1 ? 'list' : 'get';
}
