import type { IncomingMessage, ServerResponse } from 'node:http';
import { json, status } from '../flow/kube/server.ts';

type Json = Record<string, unknown>;

/** A slice as its driver publishes it; `v1beta1` alone keeps attributes one level deeper. */
export interface FakeSlice {
  readonly driver: string;
  readonly nodeName: string;
  readonly pool: string;
  readonly generation?: number;
  readonly sliceCount?: number;
  readonly devices: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

/** A refusal of the API for paths that end so. */
interface Refusal {
  readonly end: string;
  readonly code: number;
  readonly reason: string;
}

/** Pods, resource claims and resource slices as an API server hands them out, in the versions of resource.k8s.io that it serves. */
export interface FakeDra {
  /** By `namespace/name`; both in the shape of the API. */
  readonly pods: Map<string, Json>;
  readonly claims: Map<string, Json>;
  readonly slices: FakeSlice[];
  versions: readonly string[];
  readonly refusals: Refusal[];
  /** Method and path of each call, with its query. */
  readonly calls: string[];
  answer(request: IncomingMessage, response: ServerResponse): void;
}

export function makeDra(): FakeDra {
  const dra: FakeDra = {
    pods: new Map(),
    claims: new Map(),
    slices: [],
    versions: ['v1', 'v1beta2', 'v1beta1'],
    refusals: [],
    calls: [],
    answer: (request, response) => {
      const url = new URL(request.url ?? '/', 'http://api');
      dra.calls.push(`${request.method} ${decodeURIComponent(url.pathname + url.search)}`);
      const refusal = dra.refusals.find(({ end }) => url.pathname.endsWith(end));
      if (refusal !== undefined) {
        status(response, refusal);
        return;
      }
      const [, root, group, ...rest] = url.pathname.split('/');
      if (root === 'api') one(response, dra.pods, rest, 'pods');
      else if (group !== 'resource.k8s.io' || !dra.versions.includes(rest[0] ?? ''))
        response.writeHead(404, { 'content-type': 'text/plain' }).end('404 page not found\n');
      else if (rest[1] === 'resourceslices') list(response, dra.slices, rest[0] ?? '', url.searchParams);
      else one(response, dra.claims, rest.slice(1), 'resourceclaims.resource.k8s.io');
    },
  };
  return dra;
}

/** `namespaces/NAMESPACE/KIND/NAME` */
function one(
  response: ServerResponse,
  objects: ReadonlyMap<string, Json>,
  rest: readonly string[],
  kind: string,
): void {
  const [, namespace, , name] = rest;
  const found = objects.get(`${namespace}/${name}`);
  if (found !== undefined) json(response, 200, found);
  else status(response, { code: 404, reason: 'NotFound', message: `${kind} "${name}" not found` });
}

function list(response: ServerResponse, slices: readonly FakeSlice[], version: string, query: URLSearchParams): void {
  const terms = (query.get('fieldSelector') ?? '').split(',').map((term) => term.split('='));
  const unknown = terms.find(([field = '']) => !['spec.driver', 'spec.nodeName'].includes(field));
  if (unknown !== undefined) {
    status(response, { code: 400, reason: 'BadRequest', message: `field label not supported: ${unknown[0]}` });
    return;
  }
  const selected = slices.filter((slice) =>
    terms.every(([field, value]) => (field === 'spec.driver' ? slice.driver : slice.nodeName) === value),
  );
  const from = Number(query.get('continue') ?? 0);
  const to = from + Number(query.get('limit') ?? selected.length);
  const metadata = { resourceVersion: '1', ...(to < selected.length ? { continue: `${to}` } : {}) };
  const items = selected.slice(from, to).map((slice) => sliceObject(slice, version));
  json(response, 200, { kind: 'ResourceSliceList', apiVersion: `resource.k8s.io/${version}`, metadata, items });
}

function sliceObject(
  { driver, nodeName, pool, generation = 1, sliceCount = 1, devices }: FakeSlice,
  version: string,
): Json {
  const described = Object.entries(devices).map(([name, said]) => {
    const strings = Object.entries(said).map(([key, value]) => [key, { string: value }] as const);
    // Attributes are of several types; only strings are of use to the agent.
    const attributes = { ...Object.fromEntries(strings), index: { int: 0 }, driverVersion: { version: '580.95.5' } };
    return version === 'v1beta1' ? { name, basic: { attributes } } : { name, attributes };
  });
  return {
    metadata: { name: `${nodeName}-${pool}` },
    spec: { driver, nodeName, pool: { name: pool, generation, resourceSliceCount: sliceCount }, devices: described },
  };
}
