import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { KUBELET_LABELS, LABELS } from '../../contract/keys.ts';
import type { ContainerView, PodView } from '../../contract/pods.ts';
import type { Runtime, RuntimeContainer, Sandbox } from './runtime.ts';

/** Where pods come from. Whoever watches only triggers: what is to be done is read from `pod` at the time. */
export interface PodSource {
  /** The pod as last seen; undefined where it is gone. */
  pod(uid: string): PodView | undefined;
  /** Follows the pods until the signal; `changed` is called with the uid of each pod that is new, changed or gone. */
  run(changed: (podUid: string) => void, signal: AbortSignal): Promise<void>;
}

/** Events may come in bursts; the list is read once for all that come within this time. */
const SETTLE_MS = 20;
const MAX_BACKOFF_MS = 10_000;

/**
 * Watches the pods of this node through the container runtime alone: its events where it has them, else a short poll, and a
 * resync now and then in either case. Only pods with a checkpoint id are looked at.
 */
export function watchRuntime(
  runtime: Runtime,
  options: { readonly pollMs: number; readonly resyncMs: number; readonly log: Logger },
): PodSource {
  const pods = new Map<string, PodView>();
  const seen = new Map<string, string>();

  const refresh = async (changed: (uid: string) => void, everything: boolean) => {
    const [sandboxes, containers] = await Promise.all([runtime.sandboxes(), runtime.containers()]);
    const current = new Map(podViews(sandboxes, containers).map((pod) => [pod.uid, pod]));
    for (const [uid, pod] of current) {
      const state = fingerprint(pod);
      const isNews = seen.get(uid) !== state;
      pods.set(uid, pod);
      seen.set(uid, state);
      if (isNews || everything) changed(uid);
    }
    for (const uid of [...pods.keys()].filter((known) => !current.has(known))) {
      pods.delete(uid);
      seen.delete(uid);
      changed(uid);
    }
  };

  const run = async (changed: (uid: string) => void, signal: AbortSignal) => {
    const bell = newBell();
    let hasEvents = true;
    const events = (async () => {
      while (!signal.aborted && hasEvents) {
        // What happens before the runtime has taken the subscription is not told: one look when it must have.
        const afterwards = setTimeout(bell.ring, options.pollMs);
        const why = await runtime.events(bell.ring, signal);
        clearTimeout(afterwards);
        if (why === 'unsupported') {
          hasEvents = false;
          options.log.info({ pollMs: options.pollMs }, 'the runtime has no events, it is polled');
        }
        bell.ring();
        await pause(options.pollMs, signal);
      }
    })();
    let failures = 0;
    let nextResync = 0;
    while (!signal.aborted) {
      const everything = Date.now() >= nextResync;
      try {
        await refresh(changed, everything);
        if (everything) nextResync = Date.now() + options.resyncMs;
        failures = 0;
      } catch (err) {
        failures += 1;
        options.log.warn({ err, failures }, 'the runtime does not answer');
      }
      // A runtime that does not answer has no events either: its broken stream is no reason to ask sooner.
      if (failures > 0) await pause(Math.min(MAX_BACKOFF_MS, options.pollMs * 2 ** failures), signal);
      else await bell.wait(hasEvents ? Math.max(0, nextResync - Date.now()) : options.pollMs, signal);
      await pause(SETTLE_MS, signal);
    }
    await events;
  };

  return { pod: (uid) => pods.get(uid), run };
}

/** Sandboxes that are up, with their containers, as pods. */
function podViews(sandboxes: readonly Sandbox[], containers: readonly RuntimeContainer[]): PodView[] {
  return (
    sandboxes
      .filter(({ state, labels }) => state === 'SANDBOX_READY' && labels[LABELS.checkpointId] !== undefined)
      // Where a pod has two for a moment, the younger one counts: later ones take the place of earlier ones.
      .sort((a, b) => Number(BigInt(a.created_at) - BigInt(b.created_at)))
      .map((sandbox) => ({
        uid: sandbox.metadata.uid,
        namespace: sandbox.metadata.namespace,
        name: sandbox.metadata.name,
        sandboxId: sandbox.id,
        labels: sandbox.labels,
        annotations: sandbox.annotations,
        containers: containers
          .filter((container) => container.pod_sandbox_id === sandbox.id)
          .map(containerView)
          .sort((a, b) => a.attempt - b.attempt),
      }))
  );
}

/** Runtimes list labels in any order; two views with the same content have the same fingerprint. */
function fingerprint(pod: PodView): string {
  const sorted = (map: Readonly<Record<string, string>>) => Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify({ ...pod, labels: sorted(pod.labels), annotations: sorted(pod.annotations) });
}

function containerView(container: RuntimeContainer): ContainerView {
  const states = { CONTAINER_CREATED: 'created', CONTAINER_RUNNING: 'running', CONTAINER_EXITED: 'exited' } as const;
  return {
    name: container.labels[KUBELET_LABELS.containerName] ?? container.metadata.name,
    id: container.id,
    state: states[container.state as keyof typeof states] ?? 'unknown',
    attempt: container.metadata.attempt,
  };
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => undefined);
}

/** Lets one loop sleep until somebody rings, or the time is over. A ring while nobody sleeps is remembered. */
function newBell() {
  let rung = false;
  let wake: (() => void) | undefined;
  return {
    ring: () => {
      rung = true;
      wake?.();
    },
    wait: (ms: number, signal: AbortSignal) =>
      new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer);
          signal.removeEventListener('abort', done);
          wake = undefined;
          rung = false;
          resolve();
        };
        const timer = setTimeout(done, rung || signal.aborted ? 0 : ms);
        signal.addEventListener('abort', done, { once: true });
        wake = done;
      }),
  };
}
