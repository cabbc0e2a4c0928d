import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { hostname } from 'node:os';
import type { Logger } from 'pino';
import { VERSION } from '../contract/version.ts';
import { openKube } from '../kube/client.ts';
import { newEventWriter } from '../kube/events.ts';
import { startProbeEndpoint } from '../kube/probe-endpoint.ts';
import { newAgents } from './agents/agents.ts';
import { type Connections, newConnections } from './agents/connections.ts';
import { type Metrics, newMetrics } from './api/metrics.ts';
import { follow, newCaches } from './caches.ts';
import { type Config, ConfigError } from './config.ts';
import { lead } from './control/leadership.ts';
import { type ControllerParts, newControllers } from './controllers.ts';
import { knownStorage, seccompProfile } from './slices.ts';
import { type PodWebhook, startPodWebhook } from './webhook/pod-webhook.ts';

export interface ServeInput {
  readonly config: Config;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  /** Told where it listens, once it does. */
  readonly onListening?: (ports: { readonly http: number; readonly webhook: number | undefined }) => void;
}

/** Renewals in the life of a lease: one that is lost, or two, change nothing. */
const RENEWALS = 7;
/** Each cache and controller listens for the end a few times: so many are no leak. */
const MAX_LISTENERS = 200;

/**
 * Starts everything in order, runs until the signal, stops in reverse. What it throws must end the process at once: nothing is waited for
 * then, as somebody else may lead already.
 */
export async function serve(input: ServeInput, signal: AbortSignal): Promise<void> {
  const { config, log } = input;
  const { connections, ...parts } = await openParts(input);
  const { client, caches, events, metrics } = parts;
  let readiness: () => readonly string[] = () => ['the operator is starting'];
  const http = await startProbeEndpoint({
    ...{ address: config.http.address, metrics: metrics.registry, log },
    health: { readiness: () => (signal.aborted ? ['the operator is being stopped'] : readiness()) },
  });
  const webhook = config.webhook.enabled ? await openWebhook(parts) : undefined;
  input.onListening?.({ http: http.port, webhook: webhook?.port });
  // What fails stops everything else, though nobody waits for the end of that.
  const failed = new AbortController();
  const stop = AbortSignal.any([signal, failed.signal]);
  setMaxListeners(MAX_LISTENERS, stop);
  const afterwards = new AbortController();
  const sending = events.run(afterwards.signal);
  const following = follow(caches, stop);
  readiness = () => [
    ...following.missing().map((name) => `${name} were not read yet`),
    ...(webhook?.readiness() ?? []),
  ];
  try {
    await Promise.all([following.ended, leadWith(parts, stop)]);
  } catch (error) {
    failed.abort(error);
    afterwards.abort();
    throw error;
  }
  await webhook?.stop();
  afterwards.abort();
  await sending;
  connections.close();
  await http.stop();
  client.close();
  log.info('stopped');
}

/** What everything is made of. Nothing of it does anything yet. */
async function openParts({ config, env, log }: ServeInput): Promise<ControllerParts & { connections: Connections }> {
  const metrics = newMetrics(VERSION);
  const client = await openKube({
    kubeconfigPath: config.kubernetes.kubeconfig || undefined,
    userAgent: 'snapshot-operator',
    onFailure: metrics.control.requestFailed,
  });
  const namespace = config.kubernetes.namespace || client.namespace;
  if (namespace === undefined)
    throw new ConfigError('kubernetes.namespace: is required, as neither a pod nor a kubeconfig says a namespace');
  const events = newEventWriter({
    client,
    source: { component: 'snapshot-operator' },
    onLost: ({ about, reason }, loss, err) => {
      metrics.control.eventLost(loss);
      log.warn({ err, loss, reason, about: about.name }, 'Event is given up');
    },
  });
  const { namespaces } = config;
  const caches = newCaches({ client, namespaces, ownNamespace: namespace, log, metrics: metrics.control });
  const connections = newConnections({ config: config.agents, pods: caches.agentPods });
  const agents = newAgents({ pods: caches.agentPods, connections, log, home: namespace });
  const ownImage = env['OPERATOR_IMAGE'] ?? '';
  return { config, namespace, client, caches, agents, connections, events, log, metrics, ownImage };
}

/** Waits for the leadership, and does the leader's work. Throws where it is lost. */
async function leadWith(parts: ControllerParts, signal: AbortSignal): Promise<void> {
  const { config, namespace, client, log, metrics } = parts;
  const { leaseName, leaseSeconds } = config.leaderElection;
  const holder = `${hostname()}_${randomUUID()}`;
  const place = { namespace, name: leaseName };
  log.info({ version: VERSION, holder, namespaces: config.namespaces }, 'started');
  const leaseMs = leaseSeconds * 1_000;
  const often = Math.round(leaseMs / RENEWALS);
  const timings = {
    ...{ durationSeconds: leaseSeconds, renewMs: often, retryMs: often },
    ...{ timeoutMs: Math.round(leaseMs / 3), giveUpMs: Math.round((leaseMs * 2) / 3), endMs: leaseMs / 5 },
  };
  await lead(
    { client, place, holder, log, metrics: metrics.control, timings },
    async (leads) => {
      setMaxListeners(MAX_LISTENERS, leads);
      await Promise.all(newControllers(parts).map((each) => each.run(leads)));
    },
    signal,
  );
}

function openWebhook({
  config,
  namespace,
  client,
  caches,
  events,
  log,
  metrics,
}: ControllerParts): Promise<PodWebhook> {
  const { checkpoint, webhook, namespaces } = config;
  return startPodWebhook({
    config: {
      ...{ enabled: checkpoint.enabled, namespaces, placeholder: checkpoint.placeholder },
      ...{ seccompProfile: seccompProfile(config), listen: { port: webhook.port } },
      ...{ service: { namespace, name: webhook.serviceName }, secretName: webhook.secretName },
    },
    ...{ client, checkpoints: caches.checkpoints, storage: knownStorage(config, caches.agentSets) },
    ...{ events, log, metrics: metrics.webhook satisfies Metrics['webhook'] },
  });
}
