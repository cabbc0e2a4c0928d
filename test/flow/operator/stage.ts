import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'vitest';
import { DYNAMO_CHECKPOINT, type DynamoCheckpoint, readDynamoCheckpoint } from '../../../contract/dynamo-checkpoint.ts';
import type { ObjectRead } from '../../../contract/object-meta.ts';
import { type KubeClient, openKube } from '../../../kube/client.ts';
import { resourcePath } from '../../../kube/paths.ts';
import type { ReflectorTimings } from '../../../kube/reflector.ts';
import { type CacheOptions, ObjectCache } from '../../../operator/control/cache.ts';
import { newControlMetrics } from '../../../operator/control/metrics.ts';
import { readDefinitions } from '../../fakes/kube-api/crds.ts';
import { type KubeApi, type KubeApiOptions, startKubeApi } from '../../fakes/kube-api/server.ts';
import { memoryLog } from '../../fakes/log.ts';
import { CHECKPOINT } from '../../unit/crds/samples.ts';

const TIMINGS: Partial<ReflectorTimings> = { backoff: { minMs: 2, maxMs: 20 } };
export type CheckpointRead = ObjectRead<DynamoCheckpoint>;
export const pathOf = ({ namespace, name }: { readonly namespace: string; readonly name: string }) =>
  resourcePath(DYNAMO_CHECKPOINT, namespace, name);

interface Stage {
  api: KubeApi;
  client: KubeClient;
  log: ReturnType<typeof memoryLog>;
  metrics: ReturnType<typeof newControlMetrics>;
  stop: AbortController;
  running: Promise<unknown>[];
}

/** For each test a server with the shipped definitions, a client of it, and at the end the stop of all that runs. */
export function useControl(options: KubeApiOptions = {}) {
  const stage = {} as Stage;
  let dir: string;
  beforeEach(async () => {
    stage.api = await startKubeApi({ definitions: readDefinitions(), ...options });
    dir = await mkdtemp(join(tmpdir(), 'control-'));
    stage.metrics = newControlMetrics();
    stage.client = await openKube({
      kubeconfigPath: await stage.api.writeKubeconfig(dir),
      userAgent: 'snapshot-operator',
      onFailure: stage.metrics.requestFailed,
    });
    stage.log = memoryLog();
    stage.stop = new AbortController();
    stage.running = [];
  });
  afterEach(async () => {
    stage.stop.abort();
    stage.api.heal();
    await Promise.all(stage.running);
    stage.client.close();
    await stage.api.close();
    await rm(dir, { recursive: true });
  });

  /** Something that runs until the test ends. */
  const run = (work: (signal: AbortSignal) => Promise<unknown>) => void stage.running.push(work(stage.stop.signal));
  /** A cache of DynamoCheckpoints that runs. */
  const cache = (more: Partial<CacheOptions<CheckpointRead>> = {}) => {
    const { client, metrics, log } = stage;
    const made = new ObjectCache<CheckpointRead>({
      ...{ client, metrics, log: log.log, timings: TIMINGS },
      ...{ path: resourcePath(DYNAMO_CHECKPOINT), resource: 'dynamocheckpoints', read: readDynamoCheckpoint, ...more },
    });
    run((signal) => made.run(signal));
    return made;
  };
  const put = (name: string, labels: Record<string, string> = {}) =>
    stage.api.put({ ...CHECKPOINT, kind: 'DynamoCheckpoint', metadata: { name, namespace: 'demo', labels } });
  /** The value of a metric with these labels; 0 where there is none. */
  const metric = async (name: string, labels: Record<string, string> = {}) => {
    const { values = [] } = (await stage.metrics.registry.getSingleMetric(`snapshot_operator_${name}`)?.get()) ?? {};
    const chosen = values.filter((one) =>
      Object.entries(labels).every(([label, value]) => one.labels[label as never] === value),
    );
    return chosen.reduce((sum, { value }) => sum + value, 0);
  };
  return { stage, run, cache, put, metric };
}
