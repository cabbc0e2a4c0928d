import type { Logger } from 'pino';
import { LABELS } from '../../contract/keys.ts';
import type { PodView } from '../../contract/pods.ts';
import { newBell, pause } from './bell.ts';
import type { Runtime, RuntimeContainer, Sandbox } from './runtime.ts';
import { containersBySandbox, readySandboxes } from './runtime-view.ts';
import type { PodSource } from './source.ts';

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
  let problem: string | undefined = 'the runtime was not asked yet';

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
        problem = undefined;
      } catch (err) {
        failures += 1;
        problem = 'the runtime does not answer';
        options.log.warn({ err, failures }, problem);
      }
      // A runtime that does not answer has no events either: its broken stream is no reason to ask sooner.
      if (failures > 0) await pause(Math.min(MAX_BACKOFF_MS, options.pollMs * 2 ** failures), signal);
      else await bell.wait(hasEvents ? Math.max(0, nextResync - Date.now()) : options.pollMs, signal);
      await pause(SETTLE_MS, signal);
    }
    await events;
  };

  return { pod: (uid) => pods.get(uid), pods: () => pods.values(), run, staleReason: () => problem };
}

/** Pods that ask for something, with their containers. */
function podViews(sandboxes: readonly Sandbox[], containers: readonly RuntimeContainer[]): PodView[] {
  const containersIn = containersBySandbox(containers);
  return [...readySandboxes(sandboxes).values()]
    .filter(({ labels }) => labels[LABELS.checkpointId] !== undefined)
    .map((sandbox) => ({
      uid: sandbox.metadata.uid,
      namespace: sandbox.metadata.namespace,
      name: sandbox.metadata.name,
      sandboxId: sandbox.id,
      labels: sandbox.labels,
      annotations: sandbox.annotations,
      containers: containersIn(sandbox.id),
    }));
}

/** Runtimes list labels in any order; two views with the same content have the same fingerprint. */
function fingerprint(pod: PodView): string {
  const sorted = (map: Readonly<Record<string, string>>) => Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify({ ...pod, labels: sorted(pod.labels), annotations: sorted(pod.annotations) });
}
