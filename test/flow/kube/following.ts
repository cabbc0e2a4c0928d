import { afterEach, beforeEach, expect } from 'vitest';
import { type KubeClient, openKube } from '../../../kube/client.ts';
import { type ReflectorState, type ReflectorTimings, reflect } from '../../../kube/reflector.ts';
import { KIND, serveCollection, type Thing } from './collection.ts';
import { eventually } from './server.ts';

const TIMINGS: ReflectorTimings = {
  watchSeconds: 20,
  graceMs: 200,
  listTimeoutMs: 500,
  stableMs: 10_000,
  backoff: { minMs: 2, maxMs: 20 },
  pageSize: 2,
  pageBytes: 1 << 20,
};

type Server = Awaited<ReturnType<typeof serveCollection>>;

/** For each test a collection, a client, and at the end the stop of all that follows the collection. */
export function useCollection() {
  const stage = {} as { server: Server; client: KubeClient; stop: AbortController; running: Promise<void> | undefined };
  beforeEach(async () => {
    stage.server = await serveCollection();
    stage.client = await openKube({ kubeconfigPath: stage.server.kubeconfigPath });
    stage.stop = new AbortController();
    stage.running = undefined;
  });
  afterEach(async () => {
    stage.stop.abort();
    await stage.running;
    stage.client.close();
    await stage.server.close();
  });

  /** Follows the collection. `view` is what a consumer knows; `told` every event, `synced` every list. */
  const follow = (timings: Partial<ReflectorTimings> = {}) => {
    const view = new Map<string, string>();
    const told: string[] = [];
    const synced: string[][] = [];
    const states: ReflectorState[] = [];
    const following = reflect<Thing>(
      {
        client: stage.client,
        path: KIND,
        labelSelector: 'app',
        fieldSelector: 'spec.nodeName=node-1',
        project: (object) => object as Thing,
        onSync: (things) => {
          view.clear();
          for (const { metadata, value } of things) view.set(metadata.name, value);
          synced.push(things.map(({ metadata }) => metadata.name));
        },
        onEvent: (type, { metadata, value }) => {
          told.push(`${type} ${metadata.name} ${value}`);
          if (type === 'DELETED') view.delete(metadata.name);
          else view.set(metadata.name, value);
        },
        onState: (state) => states.push(state),
        timings: { ...TIMINGS, ...timings },
      },
      stage.stop.signal,
    );
    stage.running = following;
    const lost = () => states.flatMap((state) => (state.kind === 'lost' ? [state.reason] : []));
    const waits = () => states.flatMap((state) => (state.kind === 'lost' ? [state.retryInMs] : []));
    return { view, told, synced, states, lost, waits };
  };
  /** Follows, and waits until the first watch is open. */
  const followed = async (timings: Partial<ReflectorTimings> = {}) => {
    const following = follow(timings);
    await eventually(() => expect(stage.server.collection.watchCount).toBe(1));
    await eventually(() => expect(following.states.some(({ kind }) => kind === 'watching')).toBe(true));
    return following;
  };
  /** What a consumer should know. */
  const current = () =>
    Object.fromEntries([...stage.server.collection.things].map(([name, { value }]) => [name, value]));
  return { stage, follow, followed, current };
}
