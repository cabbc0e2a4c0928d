import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type { Logger } from 'pino';
import { VERSION } from '../contract/version.ts';
import { openKube } from '../kube/client.ts';
import { newEventWriter } from '../kube/events.ts';
import { startProbeEndpoint } from '../kube/probe-endpoint.ts';
import { newMetrics } from './api/metrics.ts';
import { newCaches } from './caches.ts';
import { type Config, ConfigError } from './config.ts';
import { lead } from './control/leadership.ts';
import { newControllers } from './controllers.ts';

export interface ServeInput {
  readonly config: Config;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  /** Told where metrics and health are served, once they are. */
  readonly onListening?: (port: number) => void;
}

/** A second caller in a row asks for the lease as long as the first one renews it. */
const RENEWALS_IN_A_LEASE = 7;

/**
 * Starts everything in order, runs until the signal, stops in reverse. What it throws must end the process at once: nothing is waited for
 * then, as somebody else may lead already.
 */
export async function serve({ config, env, log, onListening }: ServeInput, signal: AbortSignal): Promise<void> {
  const metrics = newMetrics(VERSION);
  const client = await openKube({
    kubeconfigPath: config.kubernetes.kubeconfig || undefined,
    userAgent: 'snapshot-operator',
    onFailure: metrics.control.requestFailed,
  });
  const namespace = config.kubernetes.namespace || client.namespace;
  if (namespace === undefined)
    throw new ConfigError('kubernetes.namespace: is required, as neither a pod nor a kubeconfig says a namespace');
  const holder = `${hostname()}_${randomUUID()}`;
  const caches = newCaches({ client, namespaces: config.namespaces, log, metrics: metrics.control });
  const events = newEventWriter({
    client,
    source: { component: 'snapshot-operator' },
    onLost: ({ about, reason }, loss, err) => {
      metrics.control.eventLost(loss);
      log.warn({ err, loss, reason, about: about.name }, 'Event is given up');
    },
  });
  const readiness = () =>
    signal.aborted ? ['the operator is being stopped'] : caches.missing().map((name) => `${name} were not read yet`);
  const http = await startProbeEndpoint({
    ...{ address: config.http.address, metrics: metrics.registry, health: { readiness }, log },
  });
  onListening?.(http.port);
  // What goes wrong in one of these stops the others; the process ends anyway.
  const failed = new AbortController();
  const stop = AbortSignal.any([signal, failed.signal]);
  const afterwards = new AbortController();
  const sending = events.run(afterwards.signal);
  log.info({ version: VERSION, holder, namespaces: config.namespaces }, 'started');
  const agents = noAgents;
  const work = { config, client, caches, agents, events, log, metrics, ownImage: env['OPERATOR_IMAGE'] ?? '' };
  const leading = lead(
    {
      client,
      place: { namespace, name: config.leaderElection.leaseName },
      holder,
      log,
      metrics: metrics.control,
      ...timings(config),
    },
    async (leads) => {
      await Promise.all(newControllers(work).map((each) => each.run(leads)));
    },
    stop,
  );
  try {
    await Promise.all([caches.run(stop), leading]);
  } catch (error) {
    failed.abort(error);
    afterwards.abort();
    throw error;
  }
  afterwards.abort();
  await sending;
  await http.stop();
  client.close();
  log.info('stopped');
}

/** A lease is renewed often enough that one lost call, or two, change nothing. */
function timings({ leaderElection: { leaseSeconds } }: Config) {
  const leaseMs = leaseSeconds * 1_000;
  const often = leaseMs / RENEWALS_IN_A_LEASE;
  return {
    timings: {
      ...{ durationSeconds: leaseSeconds, renewMs: often, retryMs: often },
      ...{ timeoutMs: leaseMs / 3, giveUpMs: (leaseMs * 2) / 3, endMs: leaseMs / 5 },
    },
  };
}

const noAgents = {
  deleteArtifact: () => Promise.resolve({ result: 'unknown' as const, why: 'no agent is connected' }),
};
