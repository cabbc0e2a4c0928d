import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach } from 'vitest';
import { readCertificates } from '../../../kube/certificates/certificate.ts';
import { newEventWriter } from '../../../kube/events.ts';
import type { Pod } from '../../../kube/objects.ts';
import type { StorageAnswer } from '../../../operator/webhook/admit.ts';
import {
  type Certificates,
  readCertificateSecret,
  type SecretObject,
  secretWith,
} from '../../../operator/webhook/certificate-secret.ts';
import {
  type CertificatesConfig,
  type CertificatesTimings,
  newWebhookCertificates,
} from '../../../operator/webhook/certificates.ts';
import { newWebhookMetrics } from '../../../operator/webhook/metrics.ts';
import { type PodWebhook, startPodWebhook, type WebhookParts } from '../../../operator/webhook/pod-webhook.ts';
import { WEBHOOK_PATH } from '../../../operator/webhook/server.ts';
import { PODS } from '../../fakes/kube-api/calling.ts';
import type { Json } from '../../fakes/kube-api/server.ts';
import { AGENT_MOUNT } from '../../unit/contract/pods.ts';
import { CHECKPOINT } from '../../unit/crds/samples.ts';
import { candidatePod, OPTIONS } from '../../unit/operator/webhook/pods.ts';
import { eventually } from '../kube/server.ts';
import { useControl } from './stage.ts';

const SERVICE = { namespace: 'system', name: 'snapshot-operator-webhook' };
export const SERVICE_KEY = `${SERVICE.namespace}/${SERVICE.name}`;
export const CONFIG: CertificatesConfig = {
  service: SERVICE,
  secretName: 'snapshot-operator-webhook-tls',
  configurationName: 'snapshot-operator',
  certificateDays: 30,
  authorityDays: 90,
};
const PLACE = { namespace: SERVICE.namespace, name: CONFIG.secretName };
export const SECRET_KEY = `${PLACE.namespace}/${PLACE.name}`;
const CONFIGURATION_KEY = `/${CONFIG.configurationName}`;
/** What somebody else has in the same configuration. */
export const FOREIGN = {
  name: 'pods.example.com',
  clientConfig: { service: { namespace: 'other', name: 'hook' }, caBundle: 'b3RoZXI=' },
  rules: [{ operations: ['CREATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['services'] }],
};
const POD_RULES = [{ operations: ['CREATE'], apiGroups: [''], apiVersions: ['v1'], resources: ['pods'] }];
const TIMINGS: Partial<CertificatesTimings> = { checkMs: 10, backoff: { minMs: 2, maxMs: 20 }, settleMs: 100 };

/** A server that calls our webhook as it is told in its configuration, replicas of ours, and leaders. */
export function useWebhook() {
  const control = useControl();
  const { stage } = control;
  const replicas: PodWebhook[] = [];
  let count = 0;
  let metrics: ReturnType<typeof newWebhookMetrics>;
  beforeEach(() => {
    count = 0;
    metrics = newWebhookMetrics();
  });
  afterEach(async () => {
    await Promise.all(replicas.splice(0).map((one) => one.stop()));
  });

  /** The configuration as the chart would make it. */
  const register = (more: Json = {}) => {
    const clientConfig = { service: { ...SERVICE, path: WEBHOOK_PATH } };
    const own = { name: 'restore.nvidia.com', clientConfig, rules: POD_RULES, failurePolicy: 'Ignore', ...more };
    stage.api.put({
      kind: 'MutatingWebhookConfiguration',
      metadata: { name: CONFIG.configurationName, labels: { app: 'x' } },
      webhooks: [FOREIGN, own],
    });
  };
  const configured = () =>
    (stage.api.get('mutatingwebhookconfigurations', CONFIGURATION_KEY)?.['webhooks'] ?? []) as Json[];
  /** Ids of the authorities that the configuration has the server trust. */
  const trusted = (): readonly string[] => {
    const { caBundle = '' } = (configured()[1]?.['clientConfig'] ?? {}) as { caBundle?: string };
    return (readCertificates(Buffer.from(caBundle, 'base64').toString()) ?? []).map(({ id }) => id);
  };
  const held = (): Certificates | undefined => {
    const read = readCertificateSecret(stage.api.get('secrets', SECRET_KEY) as unknown as SecretObject | undefined);
    return read.result === 'read' ? read.certificates : undefined;
  };
  const hold = (certificates: Certificates) =>
    stage.api.put({
      ...secretWith(PLACE, undefined, certificates),
      kind: 'Secret',
      metadata: secretMeta(certificates),
    });

  const lead = (timings: Partial<CertificatesTimings> = {}): { stop(): Promise<void> } => {
    const stopping = new AbortController();
    const { client, log } = stage;
    const certificates = newWebhookCertificates({
      ...{ config: CONFIG, client, metrics, log: log.log, timings: { ...TIMINGS, ...timings } },
    });
    const running = certificates.run(AbortSignal.any([stage.stop.signal, stopping.signal]));
    control.run(() => running);
    return {
      stop: () => {
        stopping.abort();
        return running;
      },
    };
  };

  const replica = async (more: Partial<WebhookParts> = {}): Promise<PodWebhook> => {
    const { client, log } = stage;
    const events = newEventWriter({ client, source: { component: 'snapshot-operator' } });
    control.run((signal) => events.run(signal));
    const storage = (): StorageAnswer => ({ source: AGENT_MOUNT });
    const started = await startPodWebhook({
      ...{ client, log: log.log, metrics, events, storage, checkpoints: control.cache() },
      config: { ...OPTIONS, ...CONFIG, listen: { host: '127.0.0.1', port: 0 } },
      timings: { everyMs: 10, urgentMs: 5 },
      ...more,
    });
    replicas.push(started);
    send(started);
    return started;
  };
  /** The Service leads here from now on. */
  const send = ({ port }: { readonly port: number }) => void stage.api.services.set(SERVICE_KEY, port);
  const ready = (one: PodWebhook) =>
    eventually(() => {
      if (one.readiness().length > 0) throw new Error(one.readiness().join());
    });

  const putCheckpoint = (changes: Json = {}) =>
    stage.api.put({
      ...{ ...CHECKPOINT, kind: 'DynamoCheckpoint', metadata: { name: 'qwen3-06b-bf16', namespace: 'demo' } },
      status: { phase: 'Ready', checkpointID: 'ckpt' },
      ...changes,
    });

  /** Creates a candidate over HTTP, and answers what was stored. */
  const create = async (changes: Readonly<Record<string, unknown>> = {}): Promise<Pod> => {
    count += 1;
    const name = `worker-${count}`;
    const answered = await fetch(`${stage.api.url}${PODS}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${stage.api.token}`, 'content-type': 'application/json' },
      body: JSON.stringify(candidatePod({ 'metadata.namespace': 'demo', 'metadata.name': name, ...changes })),
    });
    if (answered.status !== 201) throw new Error(`${answered.status} ${await answered.text()}`);
    return stage.api.get('pods', `demo/${name}`) as unknown as Pod;
  };
  /** Creates candidates one after the other while the work lasts, through each replica in turn; answers how many were not shaped. */
  const createDuring = async (work: () => Promise<unknown>, through: readonly PodWebhook[]) => {
    const tally = { made: 0, unshaped: 0 };
    let isOver = false;
    const working = work().finally(() => {
      isOver = true;
    });
    while (!isOver) {
      send(through[tally.made % through.length] as PodWebhook);
      if (!isShaped(await create())) tally.unshaped += 1;
      tally.made += 1;
      await sleep(1);
    }
    await working;
    return tally;
  };
  return {
    ...control,
    ...{ register, configured, trusted, held, hold, lead, replica, send, ready, putCheckpoint, create, createDuring },
    metrics: () => metrics,
  };
}

export const isShaped = ({ metadata }: Pod) => metadata?.labels?.['nvidia.com/snapshot-is-restore-target'] === 'true';

function secretMeta(certificates: Certificates) {
  return (secretWith(PLACE, undefined, certificates) as unknown as SecretObject).metadata;
}
