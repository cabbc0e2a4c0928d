import { randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { type KubeClient, openKube } from '../../kube/client.ts';
import { newEventWriter } from '../../kube/events.ts';
import { openLeases } from '../../kube/lease.ts';
import type { ReflectorState } from '../../kube/reflector.ts';
import type { EventMetrics } from '../api/metrics-events.ts';
import { type Config, podSource } from '../config.ts';
import type { Native } from '../host/native.ts';
import { noReporter, type Reporter } from '../operations/reporter.ts';
import { killContainer } from '../operations/target.ts';
import { writeDurable } from '../store/files.ts';
import { watchRuntime } from '../watch/cri.ts';
import { watchKubernetes } from '../watch/kubernetes.ts';
import type { Runtime } from '../watch/runtime.ts';
import type { PodSource } from '../watch/source.ts';
import { newKubeReporter } from './reporter.ts';

export interface ClusterInput {
  readonly config: Config;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly runtime: Runtime;
  readonly native: Native;
  readonly log: Logger;
  /** Who holds our leases: unique to this agent, the same after it is started again. */
  readonly holderId: string;
  readonly metrics: EventMetrics;
}

/** Where pods are learned of, and who is told of their operations. */
export interface ClusterLink {
  readonly pods: PodSource;
  readonly reporter: Reporter;
  /** Undefined where pods are learned of from the runtime alone. */
  readonly kube: KubeClient | undefined;
  /** Sends the Events that still wait, and lets go of the connections. */
  close(): Promise<void>;
}

/** By the configuration: the Kubernetes API and the container runtime, or the runtime alone. */
export async function openCluster(input: ClusterInput): Promise<ClusterLink> {
  const { config, env, runtime, log } = input;
  const times = { pollMs: config.watch.pollMilliseconds, resyncMs: config.watch.resyncSeconds * 1000, log };
  if (podSource(config, env) === 'kubernetes') return await openKubernetes(input, times);
  return { pods: watchRuntime(runtime, times), reporter: noReporter, kube: undefined, close: () => Promise.resolve() };
}

async function openKubernetes(
  { config, runtime, native, log, holderId, metrics }: ClusterInput,
  times: { readonly pollMs: number; readonly resyncMs: number; readonly log: Logger },
): Promise<ClusterLink> {
  const { kubeconfig, namespace, staleSeconds, leaseSeconds } = config.kubernetes;
  const client = await openKube({ kubeconfigPath: kubeconfig || undefined, onFailure: metrics.requestFailed });
  const leases = openLeases({
    client,
    holder: `snapshot-agent/${holderId}`,
    timings: { durationSeconds: leaseSeconds, renewMs: (leaseSeconds * 1000) / 3 },
    onEvent: ({ namespace: of, name }, event) => {
      metrics.leaseChanged(event.kind);
      log.info({ lease: `${of}/${name}`, ...event }, 'lease');
    },
  });
  const stop = new AbortController();
  const events = newEventWriter({
    client,
    source: { component: 'snapshot', host: config.nodeName },
    onLost: ({ about, reason }, loss, err) => log.warn({ err, loss, reason, about: about.name }, 'Event is given up'),
  });
  const sending = events.run(stop.signal);
  const reporter = newKubeReporter({
    client,
    leases,
    events,
    log,
    killContainer: (containerId) => killContainer({ runtime, native }, containerId),
    onRedriven: metrics.annotationRedriven,
  });
  const onState = (state: ReflectorState) => {
    if (state.kind !== 'lost') return;
    metrics.watchReconnected('kubernetes', state.reason);
    log.warn({ ...state }, 'the watch on pods was lost');
  };
  const place = { nodeName: config.nodeName, namespace, staleMs: staleSeconds * 1000 };
  const pods = watchKubernetes({ client, runtime, ...place, ...times, onState });
  const close = async () => {
    stop.abort();
    await sending;
    client.close();
  };
  return { pods, reporter, kube: client, close };
}

/** A name that this agent keeps, made when it first starts. */
export async function readAgentId(stateDir: string): Promise<string> {
  const file = join(stateDir, 'agent-id');
  const kept = (await readFile(file, 'utf8').catch(() => '')).trim();
  if (/^[0-9a-f-]{36}$/.test(kept)) return kept;
  const made = randomUUID();
  await writeDurable(file, `${made}\n`);
  return made;
}
