import type { Logger } from 'pino';
import { DYNAMO_CHECKPOINT, type DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import type { ObjectRead } from '../../contract/object-meta.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { EventWriter } from '../../kube/events.ts';
import type { ObjectCache } from '../control/cache.ts';
import { newRecorder } from '../control/recorder.ts';
import type { AdmissionRequest } from './admission-review.ts';
import { type AdmissionOptions, admit, type StorageAnswer, type Verdict } from './admit.ts';
import type { CertificatesConfig } from './certificates.ts';
import { newIdentity } from './identity.ts';
import type { WebhookMetrics } from './metrics.ts';
import { type ServerLimits, startWebhookServer } from './server.ts';

/** The part of the configuration that the webhook needs on every replica. */
interface WebhookConfig extends AdmissionOptions, Pick<CertificatesConfig, 'service' | 'secretName'> {
  readonly listen: { readonly host?: string; readonly port: number };
}

export interface WebhookParts {
  readonly config: WebhookConfig;
  readonly client: KubeClient;
  /** Runs already, or soon. */
  readonly checkpoints: Pick<ObjectCache<ObjectRead<DynamoCheckpoint>>, 'get' | 'synced'>;
  /** From caches alone: a pod waits for the answer. */
  readonly storage: (namespace: string) => StorageAnswer;
  readonly events: Pick<EventWriter, 'write'>;
  readonly log: Logger;
  readonly metrics: WebhookMetrics;
  readonly nowMs?: () => number;
  readonly limits?: Partial<ServerLimits>;
  readonly timings?: { readonly everyMs?: number; readonly urgentMs?: number };
}

/** The webhook of one replica. */
export interface PodWebhook {
  readonly port: number;
  /** Why the API server should not be sent here; empty where it can be. */
  readiness(): readonly string[];
  stop(): Promise<void>;
}

const EVERY_MS = 10_000;
const URGENT_MS = 1_000;

/**
 * Listens for the API server's questions about pods, and shows the certificate that the leader keeps. On every replica, whether it leads or
 * not. Rejects where it cannot listen.
 */
export async function startPodWebhook(parts: WebhookParts): Promise<PodWebhook> {
  const { config, client, checkpoints, storage, log, metrics, nowMs = Date.now } = parts;
  const { service, secretName, listen } = config;
  const stopping = new AbortController();
  const { signal } = stopping;
  let isSynced = false;
  const syncing = checkpoints.synced(signal).then(() => {
    isSynced = !signal.aborted;
  });
  const server = await startWebhookServer({
    ...{ listen, log, metrics, onVerdict: teller(parts), limits: parts.limits ?? {} },
    admit: (request) => admit(request, { isSynced, storage, checkpoint: (key) => checkpoints.get(key)?.value }, config),
  });
  const identity = newIdentity({
    ...{ client, log, metrics, nowMs, serve: server.serve },
    place: { namespace: service.namespace, name: secretName },
    everyMs: parts.timings?.everyMs ?? EVERY_MS,
    urgentMs: parts.timings?.urgentMs ?? URGENT_MS,
  });
  const following = identity.run(signal);
  return {
    port: server.port,
    readiness: () => [
      ...(isSynced ? [] : ['the DynamoCheckpoints were not read yet']),
      ...[identity.problem()].filter((problem) => problem !== undefined),
    ],
    stop: async () => {
      stopping.abort();
      await Promise.all([server.stop(), following, syncing]);
    },
  };
}

/** What happens to candidates is logged; what a person must change is said beside the checkpoint, too. */
function teller({ events, log }: WebhookParts): (request: AdmissionRequest, verdict: Verdict) => void {
  const recorder = newRecorder(events, DYNAMO_CHECKPOINT);
  const silent: ReadonlySet<string> = new Set([
    'not-a-pod-creation',
    'disabled',
    'namespace-excluded',
    'not-a-candidate',
  ]);
  return (request, verdict) => {
    const fields = { namespace: request.namespace, pod: podName(request.object) };
    if (verdict.result === 'shaped') {
      const { checkpoint, checkpointId } = verdict;
      log.info({ ...fields, checkpoint, checkpointId }, 'a pod is to be restored');
      return;
    }
    const { why, detail, about } = verdict;
    if (silent.has(why)) return;
    const level = why === 'error' ? 'error' : why === 'conflict' || why === 'malformed' ? 'warn' : 'info';
    log[level]({ ...fields, reason: why, detail }, 'a pod is let through as it is, and starts cold');
    if (about !== undefined) recorder.warning(about, 'RestoreNotPossible', `A pod starts cold: ${detail}`);
  };
}

/** Pods of controllers get their name after admission. */
function podName(pod: unknown): string {
  const { metadata } = (pod ?? {}) as { metadata?: { name?: string; generateName?: string } };
  return metadata?.name ?? metadata?.generateName ?? '';
}
