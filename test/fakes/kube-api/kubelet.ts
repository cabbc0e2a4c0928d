/**
 * A kubelet for tests: writes pod status into the fake API server as a real kubelet was recorded to write it. It starts no containers; the
 * test says what the runtime does.
 *
 * ```ts
 * const kubelet = new FakeKubelet(api);
 * kubelet.run('demo/web', { main: 'abc123' });                     // pending → sandbox → running and ready, three writes
 * kubelet.admit('demo/web');                                       // or step by step
 * kubelet.report('demo/web', [{ name: 'main', state: 'running', id: 'abc123', isReady: false }]);
 * kubelet.exit('demo/web', 'main', 42);                            // terminated, then the phase
 * kubelet.end('demo/web');                                         // the last steps of a graceful deletion
 * const stop = kubelet.follow(async (pod) => ({ main: 0 }));       // the same for every pod that is deleted from now on
 * ```
 */
import type { Cluster } from './cluster.ts';
import { type ContainerFact, podStatus } from './pod-status.ts';
import type { KubeObject } from './resources.ts';

export type { ContainerFact } from './pod-status.ts';

/** Exit code of each container that a test knows one of; the others ended with 0. */
export type ExitCodes = Readonly<Record<string, number>>;

interface Known {
  readonly containers: Map<string, ContainerFact>;
  podIp: string;
  hasSandbox: boolean;
}

export class FakeKubelet {
  readonly #api: Cluster;
  readonly #hostIp: string;
  /** By uid, so that a new pod of an old name begins anew. */
  readonly #known = new Map<string, Known>();

  constructor(api: Cluster, { hostIp = '192.0.2.1' }: { readonly hostIp?: string } = {}) {
    this.#api = api;
    this.#hostIp = hostIp;
  }

  /** The first status: no sandbox yet, all containers wait. The key is `namespace/name`, here and below. */
  admit(key: string): KubeObject {
    return this.#write(key);
  }

  /** The sandbox is there; the containers wait. */
  startSandbox(key: string, { podIp = '192.0.2.101' }: { readonly podIp?: string } = {}): KubeObject {
    const known = this.#knownOf(key);
    known.hasSandbox = true;
    known.podIp = podIp;
    return this.#write(key);
  }

  /** Writes the status for what is new of some containers; what was said of the others still holds. */
  report(key: string, facts: readonly ContainerFact[] = []): KubeObject {
    const known = this.#knownOf(key);
    for (const fact of facts) known.containers.set(fact.name, fact);
    known.hasSandbox ||= facts.some(({ id }) => id !== undefined);
    return this.#write(key);
  }

  /** From the start to running: the ids are those of the runtime, by the name of the container. */
  run(
    key: string,
    ids: Readonly<Record<string, string>>,
    { isReady = true, podIp }: { readonly isReady?: boolean; readonly podIp?: string } = {},
  ): KubeObject {
    this.admit(key);
    this.startSandbox(key, podIp === undefined ? {} : { podIp });
    const facts = Object.entries(ids).map(([name, id]) => ({ name, id, state: 'running', isReady }) as const);
    return this.report(key, facts);
  }

  /** A container ended. As with a real kubelet the phase follows in a second write. */
  exit(key: string, name: string, exitCode: number, reason?: string): KubeObject {
    const known = this.#knownOf(key);
    const { finishedAt: _, ...before } = known.containers.get(name) ?? { name, state: 'running' as const };
    const why = reason === undefined ? {} : { reason };
    known.containers.set(name, { ...before, state: 'terminated', exitCode, ...why });
    const first = this.#write(key, false);
    return first.spec?.['restartPolicy'] === 'Never' ? this.#write(key) : first;
  }

  /** A container runs again: a new id, one restart more. */
  restart(key: string, name: string, id: string): KubeObject {
    const before = this.#knownOf(key).containers.get(name);
    const { restartCount = 0, exitCode = 0, id: lastId = '' } = before ?? {};
    return this.report(key, [
      { name, id, state: 'running', restartCount: restartCount + 1, last: { id: lastId, exitCode } },
    ]);
  }

  /** The last steps of a pod that terminates: seen, containers ended, grace 0, gone unless a finalizer holds it. */
  end(key: string, exitCodes: ExitCodes = {}): void {
    this.report(key);
    const known = this.#knownOf(key);
    for (const [name, fact] of known.containers) {
      if (fact.state !== 'running') continue;
      known.containers.set(name, { ...fact, state: 'terminated', exitCode: exitCodes[name] ?? 0 });
    }
    this.#write(key);
    this.#api.delete('pods', key, { gracePeriodSeconds: 0 });
  }

  /**
   * Ends every pod that begins to terminate. `stop` does what ends its containers, and says how they ended; what it throws goes to
   * `onError`. The answer stops this.
   */
  follow(
    stop: (pod: KubeObject) => ExitCodes | Promise<ExitCodes> = () => ({}),
    onError: (error: unknown) => void = (error) =>
      queueMicrotask(() => {
        throw error;
      }),
  ): () => void {
    const ending = new Set<string>();
    return this.#api.onChange('pods', ({ metadata }, isDeleted) => {
      const { uid, namespace, name, deletionTimestamp } = metadata;
      if (isDeleted || deletionTimestamp === undefined || ending.has(uid)) return;
      ending.add(uid);
      const key = `${namespace}/${name}`;
      const finish = async () => {
        const pod = this.#api.get('pods', key);
        if (pod?.metadata.uid !== uid) return;
        const codes = await stop(pod);
        if (this.#api.get('pods', key)?.metadata.uid === uid) this.end(key, codes);
      };
      setImmediate(() => void finish().catch(onError));
    });
  }

  #write(key: string, isSettled = true): KubeObject {
    const pod = this.#need(key);
    const status = podStatus(pod, { ...this.#knownOf(key), hostIp: this.#hostIp, isSettled });
    return this.#api.patch('pods', key, { status });
  }

  #need(key: string): KubeObject {
    const pod = this.#api.get('pods', key);
    if (pod === undefined) throw new Error(`the fake kubelet knows no pod ${key}`);
    return pod;
  }

  #knownOf(key: string): Known {
    const { uid } = this.#need(key).metadata;
    const known = this.#known.get(uid) ?? { containers: new Map(), podIp: '192.0.2.101', hasSandbox: false };
    this.#known.set(uid, known);
    return known;
  }
}
