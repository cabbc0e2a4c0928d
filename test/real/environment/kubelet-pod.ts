import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ContainerFact, FakeKubelet } from '../../fakes/kube-api/kubelet.ts';
import type { KubeObject } from '../../fakes/kube-api/resources.ts';
import type { Cluster } from './cluster.ts';
import type { Container } from './container.ts';
import type { Pod } from './pod.ts';
import {
  type ContainerSpec,
  containerRequest,
  type PodSpec,
  type Probe,
  specOf,
  type VolumePlaces,
} from './pod-object.ts';

/** What the stand-in for kubelet works with. */
export interface KubeletParts {
  readonly cluster: Cluster;
  readonly kubelet: FakeKubelet;
  /** Where claims are on this machine. */
  readonly claims: ReadonlyMap<string, string>;
  /** Where the node's seccomp profiles are. */
  readonly profiles: ReadonlyMap<string, string>;
  /** A real kubelet lags behind the runtime by seconds: while this is false it writes no status. */
  readonly mayReport: () => boolean;
}

/** How often containers are looked at and probed; a real kubelet probes once a second. */
const SYNC_MS = 200;

/** One container of a pod over its restarts. */
interface Slot {
  readonly spec: ContainerSpec;
  current: Container;
  restarts: number;
  startedAt: string;
  isStarted: boolean;
  isReady: boolean;
  last: ContainerFact['last'];
  /** How it ended for good. */
  exitCode: number | undefined;
  isEndReported: boolean;
}

/** A pod object that really runs: its containers are made, probed, started again and ended as its specification says. */
export class KubeletPod {
  readonly #parts: KubeletParts;
  readonly #key: string;
  readonly #spec: PodSpec;
  readonly #slots: Slot[] = [];
  readonly #stop = new AbortController();
  #pod: Pod | undefined;
  #running: Promise<void> = Promise.resolve();
  #reported = '';

  constructor(parts: KubeletParts, object: KubeObject) {
    this.#parts = parts;
    this.#key = `${object.metadata.namespace}/${object.metadata.name}`;
    this.#spec = specOf(object);
    this.#running = this.#run(object);
  }

  /** What goes wrong in here; resolves when the pod is over. */
  get running(): Promise<void> {
    return this.#running;
  }

  /** The pod in the runtime, once its sandbox is up. */
  get pod(): Pod | undefined {
    return this.#pod;
  }

  /** The container that has this name now. */
  container(name: string): Container | undefined {
    return this.#slots.find(({ spec }) => spec.name === name)?.current;
  }

  /** Looks no more, and leaves everything as it is. */
  async halt(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  /** Ends its containers as the deletion of a pod does. Says how each of them ended. */
  async end(): Promise<Record<string, number>> {
    await this.halt();
    const { terminationGracePeriodSeconds = 30 } = this.#spec;
    const codes = await Promise.all(
      this.#slots.map(async ({ spec, current, exitCode }) => {
        if (exitCode !== undefined) return [spec.name, exitCode] as const;
        await current.stop(terminationGracePeriodSeconds);
        return [spec.name, (await current.ended()).exit_code] as const;
      }),
    );
    await this.#pod?.remove();
    return Object.fromEntries(codes);
  }

  async #run({ metadata: { uid, name, namespace, labels = {}, annotations = {} } }: KubeObject): Promise<void> {
    const { cluster, kubelet, mayReport } = this.#parts;
    if (mayReport()) kubelet.admit(this.#key);
    const sharePid = this.#spec.shareProcessNamespace ?? false;
    const pod = await cluster.runPod({ name, uid, namespace, labels, annotations, sharePid });
    this.#pod = pod;
    const running = { exitCode: undefined, isEndReported: false };
    for (const spec of this.#spec.containers) {
      const current = await this.#start(pod, spec, 0);
      this.#slots.push({ spec, current, ...fresh(), restarts: 0, last: undefined, ...running });
    }
    while (!this.#stop.signal.aborted) {
      for (const slot of this.#slots) await this.#look(pod, slot);
      if (this.#stop.signal.aborted) return;
      if (mayReport()) this.#report(pod);
      if (this.#slots.every(({ isEndReported }) => isEndReported)) return;
      await sleep(SYNC_MS, undefined, { signal: this.#stop.signal }).catch(() => undefined);
    }
  }

  #start(pod: Pod, spec: ContainerSpec, attempt: number): Promise<Container> {
    return pod.run({ ...containerRequest(this.#spec, spec, this.#placesOf(pod)), attempt });
  }

  #placesOf(pod: Pod): VolumePlaces {
    return {
      claim: (name) => {
        const path = this.#parts.claims.get(name);
        if (path === undefined) throw new Error(`the test has no claim ${name}`);
        return path;
      },
      emptyDir: (name) => {
        const path = join(pod.directory.path, 'volumes/kubernetes.io~empty-dir', name);
        mkdirSync(path, { recursive: true });
        return path;
      },
      profile: (name) => {
        const path = this.#parts.profiles.get(name);
        if (path === undefined) throw new Error(`the test has no seccomp profile ${name}`);
        return path;
      },
    };
  }

  async #look(pod: Pod, slot: Slot): Promise<void> {
    if (slot.exitCode !== undefined) return;
    const { state, exit_code: exitCode, reason } = await slot.current.status();
    if (state === 'CONTAINER_RUNNING') {
      await probe(slot, pod.ip);
      return;
    }
    if (state !== 'CONTAINER_EXITED') return;
    const { restartPolicy = 'Always' } = this.#spec;
    if (restartPolicy === 'Never' || (restartPolicy === 'OnFailure' && exitCode === 0)) {
      slot.exitCode = exitCode;
      return;
    }
    const { restarts, spec, current } = slot;
    const next = await this.#start(pod, spec, restarts + 1);
    const last = { id: current.id, exitCode, reason };
    Object.assign(slot, { current: next, ...fresh(), restarts: restarts + 1, last });
  }

  /** Nothing is written where nothing is new: each write is an event for everybody who watches. */
  #report(pod: Pod): void {
    const { kubelet } = this.#parts;
    if (this.#reported === '') kubelet.startSandbox(this.#key, { podIp: pod.ip });
    const facts = this.#slots.filter(({ exitCode }) => exitCode === undefined).map(factOf);
    const text = JSON.stringify(facts);
    if (text !== this.#reported) kubelet.report(this.#key, facts);
    this.#reported = text;
    for (const slot of this.#slots) {
      if (slot.exitCode === undefined || slot.isEndReported) continue;
      slot.isEndReported = true;
      kubelet.report(this.#key, [{ ...factOf(slot), state: 'running' }]);
      kubelet.exit(this.#key, slot.spec.name, slot.exitCode);
    }
  }
}

/** A container that was started just now. */
const fresh = () => ({ isStarted: false, isReady: false, startedAt: `${new Date().toISOString().slice(0, 19)}Z` });

function factOf({
  spec: { name },
  current: { id },
  restarts,
  isStarted,
  isReady,
  startedAt,
  last,
}: Slot): ContainerFact {
  const before = last === undefined ? {} : { last };
  return { name, id, state: 'running', startedAt, restartCount: restarts, isStarted, isReady, ...before };
}

/** The startup probe until it has passed once, from then on the readiness probe. A container without one is as if it passed. */
async function probe(slot: Slot, ip: string): Promise<void> {
  const { startupProbe, readinessProbe } = slot.spec;
  slot.isStarted ||= await passes(slot, ip, startupProbe);
  slot.isReady = slot.isStarted && (await passes(slot, ip, readinessProbe));
}

async function passes({ current, spec }: Slot, ip: string, probeSpec: Probe | undefined): Promise<boolean> {
  if (probeSpec === undefined) return true;
  const { exec, httpGet, timeoutSeconds = 1 } = probeSpec;
  // The container may end, or be halted for a restore, just now.
  if (exec !== undefined)
    return await current.probe(exec.command, timeoutSeconds).then(
      ({ exitCode }) => exitCode === 0,
      () => false,
    );
  if (httpGet === undefined) throw new Error(`a probe of ${spec.name} is of a kind that is not known here`);
  const port = spec.ports?.find(({ name }) => name === httpGet.port)?.containerPort ?? httpGet.port;
  const signal = AbortSignal.timeout(timeoutSeconds * 1000);
  return await fetch(`http://${ip}:${port}${httpGet.path}`, { signal }).then(
    ({ ok }) => ok,
    () => false,
  );
}
