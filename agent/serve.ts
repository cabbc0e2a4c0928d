import { join } from 'node:path';
import type { Logger } from 'pino';
import { VERSION } from '../contract/version.ts';
import { type Agent, newAgent } from './agent.ts';
import { newMetrics, type ScrapeSources } from './api/metrics.ts';
import type { EventMetrics } from './api/metrics-events.ts';
import { type ClusterLink, openCluster, readAgentId } from './cluster/open.ts';
import { type Config, type LiveConfig, socketPath } from './config.ts';
import { openPodResources } from './cuda/pod-resources.ts';
import { type DoorInput, openGrpc, openHttp, openTracing } from './doors.ts';
import { SnapshotError } from './errors.ts';
import { type Native, openNative } from './host/native.ts';
import { newArtifactHints } from './operations/artifact-hints.ts';
import type { AgentContext, TooEarly } from './operations/context.ts';
import { openDriver, watchCuda } from './operations/cuda-driver.ts';
import { newGuards } from './operations/guards.ts';
import { keepSwept } from './operations/housekeeping.ts';
import { openJournal } from './operations/journal.ts';
import { type NodeFacts, onOwnVolume, prepareRunDir, readNode } from './operations/node.ts';
import { nodeInfoOf } from './operations/node-info.ts';
import { lockNode } from './operations/node-lock.ts';
import { recover } from './operations/recovery.ts';
import { newRegistry } from './operations/registry.ts';
import { newRequests, resumeRequests } from './operations/requests.ts';
import { openRetention, type RetentionSetup, runRetention } from './operations/retention.ts';
import type { Capability } from './operations/service.ts';
import { loadRecordKeys } from './store/key.ts';
import { followRecordKeys } from './store/key-following.ts';
import { newFileHints } from './watch/file-hints.ts';
import { openRuntime, type Runtime } from './watch/runtime.ts';
import type { PodSource } from './watch/source.ts';

/** How long a quick verb of the native helper may take. */
const VERB_DEADLINE_MS = 30_000;
const STARTING = ['the agent is starting'] as const;
const STOPPING = ['the agent is being stopped'] as const;

export interface ServeInput {
  /** As it is at the start. */
  readonly config: Config;
  /** From now on follows the file; told of what becomes of each change. */
  readonly follow: (reloaded: EventMetrics['configReloaded']) => LiveConfig;
  readonly log: Logger;
}

/** Starts everything in order, runs until the signal, stops in reverse. */
export async function serve({ config, follow, log }: ServeInput, signal: AbortSignal): Promise<void> {
  const native = openNative({
    helperPath: config.paths.helper,
    procRoot: config.host.procRoot,
    deadlineMs: VERB_DEADLINE_MS,
  });
  const node = await readNode(config, native);
  const runtime = openRuntime(socketPath(config));
  const version = await runtime.version();
  const metrics = newMetrics({ version: VERSION, criu: node.criu, kernel: node.kernel, runtime: version });
  const live = follow(metrics.events.configReloaded);
  let readiness: () => readonly string[] = () => STARTING;
  const ready = (say: () => readonly string[]) => {
    readiness = say;
  };
  const doors = { live, log, metrics, readiness: () => readiness() };
  metrics.readAtScrape({ isReady: () => readiness().length === 0 });
  // Before anything that may take long: kubelet asks whether the agent lives.
  const closeHttp = await openHttp(doors);
  try {
    const lock = await lockNode(native, config.paths.stateDir, { log, signal });
    if (lock === undefined) return;
    const lost = new AbortController();
    void lock.ended.then(() => lost.abort(new SnapshotError('INTERNAL', 'the lock of this node was lost')));
    const parts = { live, log, native, node, runtime, runtimeVersion: version, doors, ready };
    await work(parts, AbortSignal.any([signal, lost.signal]));
    lost.signal.throwIfAborted();
    lock.stop();
  } finally {
    readiness = () => STOPPING;
    runtime.close();
    await closeHttp();
    log.info('stopped');
  }
}

interface Parts {
  readonly live: LiveConfig;
  readonly log: Logger;
  readonly native: Native;
  readonly node: NodeFacts;
  readonly runtime: Runtime;
  readonly runtimeVersion: string;
  readonly doors: DoorInput;
  /** From now on, this says why the agent is not ready. */
  readonly ready: (say: () => readonly string[]) => void;
}

async function work(parts: Parts, signal: AbortSignal): Promise<void> {
  const { live, log, native, runtime, doors } = parts;
  const config = live.current();
  await prepareRunDir(config, native);
  const state = await openState(parts);
  const { registry, journal, recordKeys } = state;
  registry.onChange((change) => doors.metrics.operations.changed(change));
  const closeTracing = await openTracing(doors, registry);
  const cuda = openDriver(config, log);
  try {
    const holderId = await readAgentId(config.paths.stateDir);
    const { events: metrics } = doors.metrics;
    const cluster = await openCluster({ ...{ config, env: process.env, runtime, native, log, holderId, metrics } });
    try {
      await attend(parts, { ...state, cuda }, cluster, signal);
    } finally {
      await cluster.close();
    }
  } finally {
    await cuda.stop();
    await closeTracing();
    recordKeys.stop();
    await journal.close();
  }
}

/** What an earlier run left on this node. */
async function openState({ live, log, native, node, doors }: Parts) {
  const { storage, paths } = live.current();
  const { file: path, create, previousFiles, acceptedDirectory } = storage.key;
  const keyFiles = { path, create, olderPaths: previousFiles, acceptedDirectory };
  const recordKeys = followRecordKeys(keyFiles, { first: await loadRecordKeys(keyFiles), log });
  doors.metrics.readAtScrape({ areRecordKeysStale: recordKeys.isStale });
  const journal = await openJournal({ path: join(paths.stateDir, 'journal.jsonl'), bootId: node.bootId });
  for (const warning of journal.warnings) log.error({ warning }, 'journal');
  const retentionSetup: RetentionSetup = {
    ...{ rules: () => live.current().retention, node, log, metrics: doors.metrics.events },
    get keys() {
      return recordKeys.current();
    },
  };
  return {
    recordKeys,
    journal,
    guards: newGuards({ native, journal, log }),
    registry: newRegistry(),
    retention: openRetention(retentionSetup),
    retentionSetup,
  };
}

type State = Awaited<ReturnType<typeof openState>> & Pick<AgentContext, 'cuda'>;

/** Settles what was left in the middle, then serves pods and callers until the signal. */
async function attend(
  parts: Parts,
  { retentionSetup, registry, guards, recordKeys, ...state }: State,
  { pods, reporter, kube }: ClusterLink,
  signal: AbortSignal,
): Promise<void> {
  const { live, log, native, node, runtime, runtimeVersion, doors } = parts;
  const {
    host,
    cuda: { podResourcesSocket },
  } = live.current();
  const podResources = podResourcesSocket === '' ? undefined : openPodResources(podResourcesSocket);
  const context: AgentContext = {
    ...{ ...state, runtime, native, node, log, reporter },
    gpuSources: { native, log, procRoot: host.procRoot, cgroupRoot: host.cgroupRoot, kube, podResources },
    restoredRoot: guards.rootOf,
    liveOperations: new Set(),
    get config() {
      return live.current();
    },
    get keys() {
      return recordKeys.current();
    },
  };
  const settled = await recover(context);
  registry.load(state.journal.outcomes(), settled);
  await guards.resume();
  await keepSwept(context, signal);
  const { events } = doors.metrics;
  const hints = openHints(context, (key) => agent.lookAgain(key));
  const watched = { onPickedUp: events.eventHandled, onAwaited: hints.awaited };
  const agent: Agent = newAgent(context, { pods, guards, registry, ...watched });
  const seen = { onSeen: (one: Capability) => events.capabilitiesSeen([one]), signal };
  const cuda = await watchCuda(state.cuda, seen);
  const nodeInfo = () => nodeInfoOf(live.current(), node, { runtime: runtimeVersion, cuda: cuda.current() });
  events.capabilitiesSeen(nodeInfo().capabilities);
  doors.metrics.readAtScrape(scrapeSources(live, agent, pods));
  const requests = { context, registry, desk: agent };
  const service = newRequests({ ...requests, nodeInfo });
  await resumeRequests(requests);
  const closeGrpc = await openGrpc(doors, { service, operations: registry });
  // From the signal on no work is taken any more, however long what is under way goes on.
  parts.ready(() => (signal.aborted ? STOPPING : [pods.staleReason() ?? []].flat()));
  log.info({ version: VERSION, runtime: runtimeVersion, criu: node.criu, kernel: node.kernel }, 'started');
  void runRetention(state.retention, retentionSetup, {
    intervalMs: () => live.current().retention.intervalSeconds * 1000,
    onVolume: (volumeWork) => onOwnVolume(context, volumeWork),
    signal,
  });
  try {
    await agent.run(signal);
  } finally {
    hints.close();
    podResources?.close();
    await closeGrpc();
  }
}

/** Who knows when what was too early no longer is. */
function openHints(context: AgentContext, lookAgain: (key: string) => void) {
  const { log } = context;
  const files = newFileHints({ log, lookAgain });
  const artifacts = newArtifactHints({ log, lookAgain, onVolume: (work) => onOwnVolume(context, work) });
  return {
    awaited: (key: string, early: TooEarly | undefined) => {
      files.awaited(key, early?.file);
      artifacts.awaited(key, early?.artifact);
    },
    close: () => {
      files.close();
      artifacts.close();
    },
  };
}

function scrapeSources(live: LiveConfig, agent: Agent, pods: PodSource): ScrapeSources {
  return {
    stepDeadlineSeconds: (kind) => {
      const { checkpoint, restore } = live.current();
      return kind === 'checkpoint' ? checkpoint.timeoutSeconds : restore.restoreTimeoutSeconds;
    },
    quarantinedTargets: () => agent.quarantined(),
    watchContactAgeSeconds: () => pods.contactAgeSeconds?.(),
    watchedPods: () => [...pods.pods()].length,
  };
}
