import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, vi } from 'vitest';
import { type KubernetesSourceOptions, watchKubernetes } from '../../../agent/watch/kubernetes.ts';
import { openRuntime, type Runtime } from '../../../agent/watch/runtime.ts';
import { KUBELET_LABELS, LABELS } from '../../../contract/keys.ts';
import type { PodView } from '../../../contract/pods.ts';
import { type KubeClient, openKube } from '../../../kube/client.ts';
import type { ReflectorState } from '../../../kube/reflector.ts';
import { type FakeContainer, type FakeCri, type FakeSandbox, fakePod, makeCri } from '../../fakes/cri-server.ts';
import { FakeKubelet } from '../../fakes/kube-api/kubelet.ts';
import { type KubeApi, startKubeApi } from '../../fakes/kube-api/server.ts';
import { memoryLog } from '../../fakes/log.ts';

/** Our prefix, of the labels and annotations that the source keeps. */
const OURS = 'nvidia.com/';
export const NOTE = `${OURS}note`;
export const NODE = 'node-1';
/** What a test needs no news of from the runtime: longer than any test. */
const NEVER_MS = 600_000;

interface Stage {
  api: KubeApi;
  kubelet: FakeKubelet;
  cri: FakeCri;
  runtime: Runtime;
  client: KubeClient;
  /** Of the kubeconfig and its token. */
  dir: string;
  stop: AbortController;
  running: Promise<void>;
}

/** For each test an API server, a kubelet, a container runtime, and what a source is made of; at the end all of it stops. */
export function useStage() {
  const stage = {} as Stage;
  beforeEach(async () => {
    const api = await startKubeApi({ historyLimit: 20_000 });
    const dir = await mkdtemp(join(tmpdir(), 'source-'));
    const cri = await makeCri();
    const client = await openKube({ kubeconfigPath: await api.writeKubeconfig(dir) });
    const rest = { stop: new AbortController(), running: Promise.resolve() };
    Object.assign(stage, {
      api,
      kubelet: new FakeKubelet(api),
      cri,
      runtime: openRuntime(cri.socketPath),
      client,
      dir,
    });
    Object.assign(stage, rest);
  });
  afterEach(async () => {
    stage.stop.abort();
    await stage.running;
    stage.runtime.close();
    stage.client.close();
    await stage.cri.remove();
    await stage.api.close();
    await rm(stage.dir, { recursive: true });
  });
  return {
    stage,
    follow: (options: Partial<KubernetesSourceOptions> = {}) => follow(stage, options),
    followed: (options: Partial<KubernetesSourceOptions> = {}) => followed(stage, options),
    ...podMakers(stage),
  };
}

interface PodPlace {
  readonly namespace?: string;
  readonly nodeName?: string;
  readonly labels?: Readonly<Record<string, string>>;
}

function podMakers(stage: Stage) {
  /** A pod that asks for something, as the scheduler has just bound it; answers its uid. */
  const bind = (name: string, { namespace = 'demo', nodeName = NODE, labels = asks }: PodPlace = {}) => {
    const metadata = { name, namespace, labels };
    return stage.api.put({ kind: 'Pod', metadata, spec: { nodeName, containers: [{ name: 'main' }] } }).metadata.uid;
  };
  /** The runtime has its sandbox and container. */
  const start = (uid: string, changes: { sandbox?: Partial<FakeSandbox>; container?: Partial<FakeContainer> } = {}) => {
    const pod = fakePod(uid, changes);
    stage.cri.put(pod);
    return pod.container.id;
  };
  /** A pod that runs and is ready, everywhere. */
  const run = (name: string, place: PodPlace = {}) => {
    const uid = bind(name, place);
    stage.kubelet.run(`${place.namespace ?? 'demo'}/${name}`, { main: start(uid) });
    return uid;
  };
  const note = (name: string, text: string) =>
    stage.api.patch('pods', `demo/${name}`, { metadata: { annotations: { [NOTE]: text } } });
  return { bind, start, run, note };
}

/** Labels of a pod that asks for something. */
export const asks = { [LABELS.checkpointId]: 'ckpt' };

/** Begins to follow the pods. Nothing is looked at without a cause but at the start. */
function follow(stage: Stage, options: Partial<KubernetesSourceOptions>) {
  const changes: string[] = [];
  const told: string[] = [];
  const states: ReflectorState[] = [];
  const watched = watchedRuntime(stage.runtime);
  const logged = memoryLog();
  const { timings, ...others } = options;
  const pods = watchKubernetes({
    ...{ client: stage.client, runtime: watched.runtime, log: logged.log, nodeName: NODE, namespace: '' },
    ...{ pollMs: 50, resyncMs: NEVER_MS, staleMs: NEVER_MS, onState: (state: ReflectorState) => states.push(state) },
    timings: { backoff: { minMs: 2, maxMs: 20 }, graceMs: 200, listTimeoutMs: 500, pageSize: 3, ...timings },
    ...others,
  });
  const changed = (uid: string, toldAtMs?: number) => {
    changes.push(uid);
    if (toldAtMs !== undefined) told.push(uid);
  };
  const following = pods.run(changed, stage.stop.signal);
  // A test that expects it to fail awaits it itself.
  stage.running = following.catch(() => undefined);
  const losses = () => states.flatMap((state) => (state.kind === 'lost' ? [state.reason] : []));
  return { pods, changes, told, states, losses, following, ...watched, ...logged };
}

/** Follows, and waits until nothing but an event can be the cause of a look at the runtime. */
async function followed(stage: Stage, options: Partial<KubernetesSourceOptions>) {
  const following = follow(stage, options);
  await eventually(() => expect(stage.api.watches.count()).toBe(1));
  await eventually(() => expect(following.states.at(-1)?.kind).toBe('watching'));
  const { looks, answers, changes, pods } = following;
  await eventually(() => {
    // The one at the start, and the one after the subscription to the runtime's events.
    expect(looks.filter((look) => look === 'all').length).toBeGreaterThanOrEqual(2);
    expect(answers).toHaveLength(looks.length);
    expect([...pods.pods()].filter(({ uid }) => !changes.includes(uid))).toEqual([]);
    expect(pods.staleReason()).toBeUndefined();
  });
  return following;
}

/** The runtime, with a log of what it was asked and of what it has answered, and a way to tell of events of one pod. */
function watchedRuntime(runtime: Runtime) {
  const looks: string[] = [];
  const answers: string[] = [];
  let listener: ((uid: string) => void) | undefined;
  const watched: Runtime = {
    ...runtime,
    sandboxes: (labels) => {
      looks.push(labels?.[KUBELET_LABELS.podUid] ?? 'all');
      return runtime.sandboxes(labels);
    },
    containers: async (labels) => {
      const answer = await runtime.containers(labels);
      answers.push(labels?.[KUBELET_LABELS.podUid] ?? 'all');
      return answer;
    },
    events: (changed, signal) => {
      listener = changed;
      return runtime.events(changed, signal);
    },
  };
  return { looks, answers, runtime: watched, emit: (uid: string) => listener?.(uid) };
}

/** What the source should know: the pods of the node that ask for something, as the server has them. */
export function onServer({ api }: Pick<Stage, 'api'>) {
  return api
    .list('pods')
    .filter(({ spec, metadata }) => spec?.['nodeName'] === NODE && LABELS.checkpointId in (metadata.labels ?? {}))
    .map(({ metadata, status }) => ({
      uid: metadata.uid,
      key: `${metadata.namespace}/${metadata.name}`,
      labels: ours(metadata.labels),
      annotations: ours(metadata.annotations),
      phase: status?.['phase'],
      isDeleting: metadata.deletionTimestamp !== undefined,
    }))
    .sort(byUid);
}

/** The same of what the source knows. */
export function inSource(pods: { pods(): Iterable<PodView> }) {
  return [...pods.pods()]
    .map(({ uid, namespace, name, labels, annotations, kubernetes }) => {
      const { phase, isDeleting } = kubernetes ?? {};
      return { uid, key: `${namespace}/${name}`, labels, annotations, phase, isDeleting };
    })
    .sort(byUid);
}

const byUid = (a: { uid: string }, b: { uid: string }) => (a.uid < b.uid ? -1 : 1);
const ours = (map: Readonly<Record<string, string>> = {}) =>
  Object.fromEntries(Object.entries(map).filter(([key]) => key.startsWith(OURS)));

/** Checks again and again, until it holds. */
export const eventually = (check: () => void) => vi.waitFor(check, { timeout: 15_000, interval: 5 });
