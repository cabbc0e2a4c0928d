import type { Logger } from 'pino';
import { DYNAMO_GRAPH_DEPLOYMENT } from '../contract/dynamo-graph-deployment.ts';
import type { KubeClient } from '../kube/client.ts';
import type { EventWriter } from '../kube/events.ts';
import type { Agents } from './agents/agents.ts';
import type { Metrics } from './api/metrics.ts';
import type { Caches } from './caches.ts';
import { runCheckpoints } from './checkpoint/controller.ts';
import { newLeaseWatch } from './checkpoint/lease-watch.ts';
import type { Config } from './config.ts';
import { newRecorder } from './control/recorder.ts';
import { newDeletionController } from './deletion/controller.ts';
import { FINALIZER } from './deletion/policy.ts';
import { newGraphController } from './graph/controller.ts';
import { seccompProfile, storageConfig } from './slices.ts';
import { findStorage } from './storage/source.ts';
import { newWebhookCertificates } from './webhook/certificates.ts';

/** Something that works while this process leads. */
interface Work {
  run(signal: AbortSignal): Promise<void>;
}

export interface ControllerParts {
  readonly config: Config;
  /** Where the operator's own objects are. */
  readonly namespace: string;
  readonly client: KubeClient;
  readonly caches: Caches;
  readonly agents: Agents;
  /** The image of the operator itself, where it is known. */
  readonly ownImage: string;
  readonly events: EventWriter;
  readonly log: Logger;
  readonly metrics: Metrics;
}

/** What the leader does. */
export function newControllers(parts: ControllerParts): readonly Work[] {
  const { checkpoint, webhook } = parts.config;
  return [
    deletion(parts),
    graphs(parts),
    ...(checkpoint.enabled ? [checkpoints(parts)] : []),
    ...(webhook.enabled ? [certificates(parts)] : []),
  ];
}

/** It goes on where checkpoints are disabled: nothing may wait for a finalizer that nobody takes away. */
function deletion({ config, client, caches, agents, ownImage, events, log, metrics }: ControllerParts): Work {
  const { cleanupImage, cleanupImagePullSecrets, cleanupUser, storage } = config.checkpoint;
  const leases = newLeaseWatch(client);
  return newDeletionController({
    config: {
      ...{ ...storage.pvc, cleanupImage: cleanupImage || ownImage, cleanupImagePullSecrets, cleanupUser },
      parallel: config.limits.parallel,
    },
    ...{ client, agents, events, log, checkpoints: caches.checkpoints },
    isLeased: (place, signal) => leases.isActive(place, signal),
    metrics: { ...metrics.control, ...metrics.deletion },
  });
}

function checkpoints({ config, client, caches, agents, events, log, metrics }: ControllerParts): Work {
  const slice = { storage: storageConfig(config), seccomp: config.checkpoint.seccomp };
  const { checkpoints: objects, jobs, sourcePods: pods } = caches;
  const parts = { client, checkpoints: objects, jobs, pods, agents, config: slice, events, log };
  const { parallel } = config.limits;
  return { run: (signal) => runCheckpoints({ ...parts, parallel, metrics: metrics.control }, signal) };
}

function graphs({ config, client, caches, events, log, metrics }: ControllerParts): Work {
  const { checkpoint, graph, namespaces } = config;
  const storage = storageConfig(config);
  return newGraphController({
    ...{ client, log, metrics: metrics.control },
    ...{ graphs: caches.graphs, checkpoints: caches.checkpoints, deployments: caches.deployments },
    config: {
      ...{ checkpointsEnabled: checkpoint.enabled, failedFallback: checkpoint.failedFallback, namespaces },
      ...{ rollout: graph.rollout, settleMs: graph.settleSeconds * 1_000, keptGenerations: graph.keptGenerations },
    },
    shaping: { seccompProfile: seccompProfile(config), placeholder: checkpoint.placeholder },
    storage: (namespace, signal) => findStorage(client, { namespace, config: storage }, signal),
    finalizers: [FINALIZER],
    events: newRecorder(events, DYNAMO_GRAPH_DEPLOYMENT),
  });
}

function certificates({ config: { webhook }, namespace, client, log, metrics }: ControllerParts): Work {
  const { serviceName, secretName, configurationName, certificateDays, authorityDays } = webhook;
  const service = { namespace, name: serviceName };
  const config = { service, secretName, configurationName, certificateDays, authorityDays };
  return newWebhookCertificates({ config, client, log, metrics: metrics.webhook });
}
