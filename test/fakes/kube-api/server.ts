/**
 * A Kubernetes API server for tests, in this process, behind a real socket. It answers as exchanges that were recorded of a real one do
 * (test/data/kubernetes; test/flow/kube-api.test.ts replays them). kubelet.ts and job-controller.ts beside it write pod and Job status.
 *
 * ```ts
 * const api = await startKubeApi();
 * const kubeconfigPath = await api.writeKubeconfig(dir);           // its token is in dir/token
 * api.put({ kind: 'Pod', metadata: { name: 'web', namespace: 'demo' }, spec: { nodeName: 'node-1', containers: [{ name: 'main' }] } });
 * api.patch('pods', 'demo/web', { metadata: { annotations: { a: 'b' } } });
 * api.get('jobs', 'demo/train')?.metadata.annotations;
 *
 * api.calls({ verb: 'patch', resource: 'pods' });                  // the log, e.g. for the least RBAC rules
 * const gate = api.gate({ verb: WRITES }, 'answer');               // stored, and the caller does not know
 * const held = await gate.next();  held.release();  gate.open();   // or held.drop(), where the agent was killed
 * api.fault({ verb: 'watch' }, tooManyRequests(2), { times: 3 });
 * api.fault({ verb: 'patch' }, { kind: 'reset', at: 'answer' });   // the answer is lost after the write was stored
 * const frozen = api.fault({}, { kind: 'silent', at: 'request' }); // half-open: accepts, and says nothing
 * frozen.lift();
 * api.watches.reset(); api.watches.mute(); api.watches.tearNextEvent(); api.compact();
 * api.serveExec(() => ({ file: 'cat', args: [] }));                // what an exec into any container starts
 * await api.goAway(); await api.comeBack({ forbiddenCalls: 2 });   // same port, same objects
 * await api.close();
 * ```
 *
 * Served: pods (+exec), jobs, deployments (each with status), leases, events (core and events.k8s.io); secrets, daemonsets,
 * persistentvolumeclaims, services and configmaps as they are sent; mutatingwebhookconfigurations, whose webhooks are called for pods that are created over HTTP (not by
 * `put`); custom resources, with the option `definitions`. get, list, watch, create, update, delete, and patch as JSON patch, merge and
 * strategic merge patch. With the option `collectsGarbage`, what is owned goes after its owner. Not served: server-side apply, collections
 * of deletes, eviction, protobuf.
 */
import type { Role } from './access.ts';
import { type ApiCall, type CallPattern, matches } from './calls.ts';
import { Cluster } from './cluster.ts';
import { customResource, type Definition } from './crds.ts';
import { writeKubeconfig, writeServiceAccount } from './credentials.ts';
import { type ExecProgram, Execs } from './exec.ts';
import { type ActiveFault, type Fault, Faults } from './faults.ts';
import { collectGarbage } from './garbage.ts';
import { type Gate, Gates } from './gates.ts';
import { Listener, type ServerTls } from './listener.ts';
import { BUILT_IN, type Json, type KubeObject } from './resources.ts';
import { type Service, serveCall } from './serve.ts';
import { Store } from './store.ts';
import { Watches } from './watches.ts';
import { createThroughWebhooks } from './webhooks.ts';

export type { Role } from './access.ts';
export { WRITES } from './calls.ts';
export { serverError, tooManyRequests } from './faults.ts';
export type { Json } from './resources.ts';

/** How the server is; all can be left out. */
export interface KubeApiOptions {
  /** User of each bearer token. The first token is the one that kubeconfigs get. */
  readonly tokens?: Readonly<Record<string, string>>;
  /** What the users may do; left out: everything. Roles and ClusterRoles as in their manifests. */
  readonly roles?: readonly Role[];
  /** Serves https. */
  readonly tls?: ServerTls;
  /** Where to listen; the default is a free port of 127.0.0.1. */
  readonly listen?: { readonly host?: string; readonly port?: number };
  /** The namespaces that exist; left out: every one that is named. */
  readonly namespaces?: readonly string[];
  /** How often an open watch gets a BOOKMARK, in ms. */
  readonly bookmarkMs?: number;
  /** How many changes of each kind are kept for watches and pages to go on from. */
  readonly historyLimit?: number;
  /** Custom resources: CustomResourceDefinitions as in their manifests. `readDefinitions()` has those that are shipped. */
  readonly definitions?: readonly Definition[];
  /** Deletes, in the background, what has owners and none of them is there any more. */
  readonly collectsGarbage?: boolean;
  /** So many first calls get 403, as while a real server still loads its roles. */
  readonly forbiddenCalls?: number;
}

const DEFAULT_TOKENS = { 'token-1': 'system:serviceaccount:default:agent' };

/** Starts the server; `close` it at the end of the test. */
export async function startKubeApi(options: KubeApiOptions = {}): Promise<KubeApi> {
  const api = new KubeApi(options);
  await api.comeBack({ forbiddenCalls: options.forbiddenCalls ?? 0 });
  return api;
}

/** See the head of this file. Besides what is here: `put`, `patch`, `delete`, `remove`, `get` and `list` of Cluster. */
export class KubeApi extends Cluster {
  /** The user of each token; add and delete while the server runs. */
  readonly tokens: Map<string, string>;
  /** The open watches. */
  readonly watches: Watches;
  readonly #store: Store;
  readonly #listener: Listener;
  readonly #service: Service;
  readonly #ca: string | undefined;
  /** The ports of this machine behind Services, by `namespace/name`: webhooks that name a Service are called there. */
  readonly services = new Map<string, number>();
  readonly #execs: Execs;

  constructor(options: KubeApiOptions) {
    const { namespaces, historyLimit = 10_000, bookmarkMs = 60_000, listen = {}, tls, definitions = [] } = options;
    const store = new Store(historyLimit);
    const served = [...BUILT_IN, ...definitions.map(customResource)];
    super(store, served);
    if (options.collectsGarbage === true) collectGarbage(store, served);
    this.#store = store;
    this.#ca = tls?.ca;
    this.tokens = new Map(Object.entries(options.tokens ?? DEFAULT_TOKENS));
    this.watches = new Watches(store, bookmarkMs);
    this.#service = {
      world: {
        ...{ store, served, services: this.services },
        namespaces: namespaces === undefined ? undefined : new Set(namespaces),
      },
      tokens: this.tokens,
      roles: options.roles,
      faults: new Faults(),
      gates: new Gates(),
      watches: this.watches,
      calls: [],
      listeners: new Set(),
      reset: (request) => this.#listener.reset(request),
    };
    const execs = new Execs(this.#service);
    this.#execs = execs;
    const { host = '127.0.0.1', port = 0 } = listen;
    this.#listener = new Listener(
      (request, response) => {
        // A request that broke off has nobody to answer.
        serveCall(this.#service, request, response).catch((error: unknown) => response.destroy(error as Error));
      },
      (request, socket, head) => {
        execs.serve(request, socket, head).catch((error: unknown) => socket.destroy(error as Error));
      },
      { host, port, tls },
    );
  }

  get url(): string {
    return `${this.#ca === undefined ? 'http' : 'https'}://127.0.0.1:${this.port}`;
  }

  get port(): number {
    return this.#listener.port;
  }

  /** The token that kubeconfigs get. */
  get token(): string {
    return [...this.tokens.keys()][0] ?? '';
  }

  /** The version of the newest change. */
  get version(): string {
    return String(this.#store.version);
  }

  /** Writes `kubeconfig` and the `token` file that it names; answers the path of the former. The token is the first one without it. */
  writeKubeconfig(dir: string, token: string = this.token): Promise<string> {
    return writeKubeconfig(dir, { url: this.url, token, ca: this.#ca });
  }

  /** Writes the files that every pod finds of its service account. */
  writeServiceAccount(dir: string, namespace = 'default'): Promise<void> {
    return writeServiceAccount(dir, namespace, { url: this.url, token: this.token, ca: this.#ca });
  }

  /** Creates a pod as a controller of the cluster does: the webhooks are asked, but it is no call of the log, and needs no rights. */
  createPod(pod: Json & { readonly metadata: Json & { readonly namespace: string } }): Promise<KubeObject> {
    return createThroughWebhooks(this.#service.world, pod);
  }

  /** The calls so far, oldest first. */
  calls(pattern: CallPattern = {}): ApiCall[] {
    return this.#service.calls.filter((call) => matches(pattern, call));
  }

  /** Forgets the log. */
  forgetCalls(): void {
    this.#service.calls.length = 0;
  }

  /** Tells of each call as it comes, before anything is stored. The answer ends that. */
  onCall(listener: (call: ApiCall) => void): () => void {
    this.#service.listeners.add(listener);
    return () => this.#service.listeners.delete(listener);
  }

  /** Holds the calls of a pattern until the test lets them go. */
  gate(pattern: CallPattern, at: 'request' | 'answer'): Gate {
    return this.#service.gates.add(pattern, at);
  }

  /** Switches a fault on, for so many calls or until it is lifted. */
  fault(pattern: CallPattern, fault: Fault, { times }: { readonly times?: number } = {}): ActiveFault {
    return this.#service.faults.add(pattern, fault, times);
  }

  /** Switches all faults off and opens all gates. */
  heal(): void {
    this.#service.faults.clear();
    this.#service.gates.openAll();
  }

  /** What is started by an exec into a container; `protocols`: the WebSocket subprotocols that the server knows, v5 and v4 by default. */
  serveExec(program: ExecProgram, protocols?: readonly string[]): void {
    this.#execs.program = program;
    if (protocols !== undefined) this.#execs.protocols = protocols;
  }

  /** The process ids of the programs that execs started and that have not ended. */
  get execs(): readonly number[] {
    return this.#execs.running;
  }

  /** What users may do from now on; undefined: everything. */
  setRoles(roles: readonly Role[] | undefined): void {
    this.#service.roles = roles;
  }

  /** All versions so far are too old from now on, for watches, pages and exact lists. */
  compact(): void {
    this.#store.compact();
  }

  /** Resets all connections; the server takes new ones. */
  resetConnections(): void {
    this.#listener.resetAll();
  }

  /** Nobody listens any more: connections are reset, new ones refused. */
  async goAway(): Promise<void> {
    await this.#listener.close();
  }

  /** Listens again on the same port with the same objects. */
  async comeBack({ forbiddenCalls = 0 }: { readonly forbiddenCalls?: number } = {}): Promise<void> {
    if (forbiddenCalls > 0) this.fault({}, { kind: 'forbidden' }, { times: forbiddenCalls });
    await this.#listener.open();
  }

  async close(): Promise<void> {
    this.heal();
    await this.#listener.close();
  }
}
