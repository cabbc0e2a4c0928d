import type { IncomingMessage, ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import type { LeaseObject } from '../../../kube/lease-object.ts';
import { json, serve, status } from './server.ts';

type Body = LeaseObject & { readonly preconditions?: Partial<Stored['metadata']> };
type Stored = LeaseObject & { readonly metadata: { readonly uid: string; readonly resourceVersion: string } };

const LEASES = '/apis/coordination.k8s.io/v1/namespaces/demo/leases';
const MICRO_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/;

/** The leases of one namespace, as recorded of a real server: versions, preconditions, six decimals. */
export async function serveLeases() {
  const desk = new LeaseShelf();
  return { desk, ...(await serve((request, response) => void desk.answer(request, response))) };
}

class LeaseShelf {
  readonly leases = new Map<string, Stored>();
  /** `METHOD name`, in their order. */
  readonly calls: string[] = [];
  /** Answers in place of the server while it is set; where it returns `pass`, the server answers too. */
  fault: ((call: string, response: ServerResponse) => unknown) | undefined;
  #version = 100;

  /** Another client writes. */
  set(name: string, spec: NonNullable<LeaseObject['spec']>, metadata: object = {}): void {
    const known = this.leases.get(name);
    this.#version += 1;
    const uid = known?.metadata.uid ?? `uid-${this.#version}`;
    const kept = { ...known?.metadata, ...metadata, name, namespace: 'demo', uid, resourceVersion: `${this.#version}` };
    this.leases.set(name, { metadata: kept, spec });
  }

  holder(name: string): string | null | undefined {
    return this.leases.get(name)?.spec?.holderIdentity;
  }

  count(call: string): number {
    return this.calls.filter((one) => one === call).length;
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method, url = '' } = request;
    const sent = await text(request);
    const body = (sent === '' ? {} : JSON.parse(sent)) as Body;
    const name = url === LEASES ? body.metadata.name : decodeURIComponent(url.slice(LEASES.length + 1));
    const call = `${method} ${name}`;
    this.calls.push(call);
    if (this.fault !== undefined && this.fault(call, response) !== 'pass') return;
    const known = this.leases.get(name);
    const refusal = refusalOf(method, body, known);
    if (refusal !== undefined) return status(response, refusal);
    if (method === 'DELETE') this.leases.delete(name);
    else if (method !== 'GET') this.set(name, body.spec ?? {}, body.metadata);
    return json(
      response,
      method === 'POST' ? 201 : 200,
      this.leases.get(name) ?? { kind: 'Status', status: 'Success' },
    );
  }
}

/** Why a request cannot be done, as recorded. */
function refusalOf(method: string | undefined, body: Body, known: Stored | undefined) {
  const times = [body.spec?.acquireTime, body.spec?.renewTime].filter((time) => typeof time === 'string');
  if (times.some((time) => !MICRO_TIME.test(time))) return { code: 400, reason: 'BadRequest' };
  if (method === 'POST') return known && { code: 409, reason: 'AlreadyExists' };
  if (method === 'GET' || method === 'DELETE') {
    if (known === undefined) return { code: 404, reason: 'NotFound' };
    if (method === 'GET') return undefined;
  }
  const { uid, resourceVersion } = (method === 'DELETE' ? body.preconditions : body.metadata) ?? {};
  const isOther = uid !== undefined && uid !== known?.metadata.uid;
  const isStale = known !== undefined && (resourceVersion ?? '') !== known.metadata.resourceVersion;
  return isOther || isStale ? { code: 409, reason: 'Conflict' } : undefined;
}
