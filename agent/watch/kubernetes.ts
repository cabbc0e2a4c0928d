import { isDeepStrictEqual } from 'node:util';
import type { Logger } from 'pino';
import { LABELS } from '../../contract/keys.ts';
import type { PodView } from '../../contract/pods.ts';
import type { KubeClient } from '../../kube/client.ts';
import { type ReflectorState, type ReflectorTimings, reflect } from '../../kube/reflector.ts';
import { type ApiPod, apiPod } from './api-pod.ts';
import type { Runtime } from './runtime.ts';
import { RuntimeLooks } from './runtime-looks.ts';
import { agrees, isAwaited, readyNow } from './runtime-view.ts';
import type { PodSource } from './source.ts';

export interface KubernetesSourceOptions {
  readonly client: KubeClient;
  readonly runtime: Runtime;
  readonly nodeName: string;
  /** Only pods of this namespace; empty: of all. */
  readonly namespace: string;
  readonly pollMs: number;
  readonly resyncMs: number;
  /** Without a word from the API server for this long, what is known counts as stale. An idle watch is silent for a minute. */
  readonly staleMs: number;
  readonly log: Logger;
  readonly onState: (state: ReflectorState) => void;
  readonly timings?: Partial<ReflectorTimings>;
}

/** Pods as the Kubernetes API tells of them. */
export interface KubernetesSource extends PodSource {
  contactAgeSeconds(): number | undefined;
}

/**
 * Pods of this node from the Kubernetes API, their containers from the runtime, which knows them seconds before kubelet has published
 * them. The runtime is asked only about pods that ask for something, and only while what it said and what the API says differ, besides
 * its own events and a look at all now and then.
 */
export function watchKubernetes(options: KubernetesSourceOptions): KubernetesSource {
  const source = new ApiSource(options);
  return {
    pod: (uid) => source.pod(uid),
    pods: () => source.pods(),
    run: (changed, signal) => source.run(changed, signal),
    staleReason: () => source.staleReason(),
    contactAgeSeconds: () => source.contactAgeSeconds(),
  };
}

class ApiSource {
  readonly #options: KubernetesSourceOptions;
  readonly #pods = new Map<string, ApiPod>();
  readonly #looks: RuntimeLooks;
  #contactAtMs: number | undefined;
  #changed: (podUid: string, toldAtMs?: number) => void = () => undefined;

  constructor(options: KubernetesSourceOptions) {
    this.#options = options;
    const { runtime, pollMs, resyncMs, log } = options;
    const pods = {
      uids: () => this.#pods.keys(),
      has: (uid: string) => this.#pods.has(uid),
      awaited: () => [...this.#pods.values()].filter((pod) => this.#isAwaited(pod)).map(({ uid }) => uid),
    };
    const seen = (uid: string, toldAtMs?: number) => this.#changed(uid, toldAtMs);
    this.#looks = new RuntimeLooks({ runtime, pollMs, resyncMs, log, pods, seen });
  }

  pod(uid: string): PodView | undefined {
    const pod = this.#pods.get(uid);
    if (pod === undefined) return undefined;
    const { namespace, name, labels, annotations } = pod;
    const view = this.#looks.view(uid);
    const kubernetes = { ...pod.kubernetes, ready: readyNow(pod, view) };
    return { uid, namespace, name, labels, annotations, kubernetes, ...view };
  }

  *pods(): Iterable<PodView> {
    for (const uid of this.#pods.keys()) {
      const pod = this.pod(uid);
      if (pod !== undefined) yield pod;
    }
  }

  contactAgeSeconds(): number | undefined {
    return this.#contactAtMs === undefined ? undefined : (performance.now() - this.#contactAtMs) / 1000;
  }

  staleReason(): string | undefined {
    const ageSeconds = this.contactAgeSeconds();
    if (ageSeconds === undefined) return 'the Kubernetes API has not listed the pods of this node yet';
    if (ageSeconds * 1000 > this.#options.staleMs) return 'the Kubernetes API has not been heard of for too long';
    return this.#looks.problem();
  }

  async run(changed: (podUid: string, toldAtMs?: number) => void, signal: AbortSignal): Promise<void> {
    this.#changed = changed;
    const stop = new AbortController();
    const stopped = AbortSignal.any([signal, stop.signal]);
    const loops = [this.#follow(stopped), this.#looks.run(stopped)];
    try {
      await Promise.all(loops);
    } finally {
      // Where one of them failed, the other ends as well.
      stop.abort();
      await Promise.allSettled(loops);
    }
  }

  #follow(signal: AbortSignal): Promise<void> {
    const { client, nodeName, namespace, onState, timings } = this.#options;
    const place = namespace === '' ? '' : `/namespaces/${encodeURIComponent(namespace)}`;
    const selectors = { labelSelector: LABELS.checkpointId, fieldSelector: `spec.nodeName=${nodeName}` };
    return reflect<ApiPod | undefined>(
      {
        client,
        path: `/api/v1${place}/pods`,
        ...selectors,
        project: apiPod,
        onSync: (pods) => this.#synced(pods),
        onEvent: (type, pod) => this.#told(type, pod),
        onState: (state) => {
          if (state.kind !== 'lost') this.#contactAtMs = performance.now();
          onState(state);
        },
        ...(timings === undefined ? {} : { timings }),
      },
      signal,
    );
  }

  #synced(pods: readonly (ApiPod | undefined)[]): void {
    const current = new Map(pods.filter((pod) => pod !== undefined).map((pod) => [pod.uid, pod]));
    const odd = pods.filter((pod) => pod === undefined).length;
    if (odd > 0) this.#options.log.warn({ pods: odd }, NOT_UNDERSTOOD);
    for (const uid of [...this.#pods.keys()]) if (!current.has(uid)) this.#gone(uid);
    for (const pod of current.values()) this.#seen(pod);
  }

  #told(type: 'ADDED' | 'MODIFIED' | 'DELETED', pod: ApiPod | undefined): void {
    if (pod === undefined) this.#options.log.warn({ type }, NOT_UNDERSTOOD);
    else if (type === 'DELETED') this.#gone(pod.uid);
    else this.#seen(pod, performance.now());
  }

  #gone(uid: string): void {
    if (!this.#pods.delete(uid)) return;
    this.#looks.forget(uid);
    this.#changed(uid);
  }

  /** A pod whose containers may be others than those known is told of after a look at them: nobody acts on half the news. */
  #seen(pod: ApiPod, toldAtMs?: number): void {
    if (pod.nodeName !== this.#options.nodeName) return;
    // Most updates are about what nobody here reads. The pod is not kept anew for them: that would fill the memory with garbage that is
    // collected late.
    const isNews = !isDeepStrictEqual(pod, this.#pods.get(pod.uid));
    if (isNews) this.#pods.set(pod.uid, pod);
    if (!agrees(pod, this.#looks.view(pod.uid)) || this.#isAwaited(pod)) this.#looks.want(pod.uid, toldAtMs);
    else if (isNews) this.#changed(pod.uid, toldAtMs);
  }

  #isAwaited(pod: ApiPod): boolean {
    return isAwaited(pod, this.#looks.view(pod.uid));
  }
}

const NOT_UNDERSTOOD = 'what the Kubernetes API sent for a pod is none, and is left out';
