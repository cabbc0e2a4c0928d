import { afterEach, expect, vi } from 'vitest';
import { DYNAMO_CHECKPOINT, readDynamoCheckpoint } from '../../../../contract/dynamo-checkpoint.ts';
import { DYNAMO_GRAPH_DEPLOYMENT, readDynamoGraphDeployment } from '../../../../contract/dynamo-graph-deployment.ts';
import type { ObjectRead } from '../../../../contract/object-meta.ts';
import { newEventWriter } from '../../../../kube/events.ts';
import { type ResourceKind, resourcePath } from '../../../../kube/paths.ts';
import { ObjectCache } from '../../../../operator/control/cache.ts';
import { newRecorder } from '../../../../operator/control/recorder.ts';
import { type GraphConfig, newGraphController } from '../../../../operator/graph/controller.ts';
import { DEPLOYMENTS, readDeployment } from '../../../../operator/graph/deployment.ts';
import type { StorageFound } from '../../../../operator/graph/workers.ts';
import { runDeployments } from '../../../fakes/kube-api/deployment-controller.ts';
import type { Json, KubeObject } from '../../../fakes/kube-api/resources.ts';
import { SHAPING } from '../../../unit/operator/graph/shaping.ts';
import { eventually } from '../../kube/server.ts';
import { useControl } from '../stage.ts';

const BACKOFF = { minMs: 2, maxMs: 20 };
const CONFIG: GraphConfig = {
  ...{ checkpointsEnabled: true, failedFallback: 'Wait', namespaces: [] },
  ...{ rollout: 'auto', settleMs: 0, keptGenerations: 1 },
};
const STORAGE: StorageFound = {
  result: 'ready',
  storage: { accessMode: 'podMount', basePath: '/checkpoints', claim: 'snapshot-pvc' },
};

export interface Operating {
  readonly config?: Partial<GraphConfig>;
  readonly storage?: () => StorageFound;
  readonly clock?: () => Date;
}

/** The controller of DynamoGraphDeployments before a server, and what tests ask of that. */
export function useGraphs() {
  const { stage, run } = useControl();
  let stopDeployments = () => {};
  afterEach(() => stopDeployments());

  /** Runs an operator; the answer kills it: what it has sent is cut off. */
  const operate = ({ config = {}, storage = () => STORAGE, clock = () => new Date() }: Operating = {}) => {
    const { client, log, metrics } = stage;
    const killed = new AbortController();
    const cacheOf = <T>(kind: ResourceKind, read: (object: unknown) => ObjectRead<T>) => {
      const path = resourcePath(kind);
      const timings = { backoff: BACKOFF };
      const cache = new ObjectCache({ client, metrics, log: log.log, timings, path, read, resource: kind.plural });
      run((signal) => cache.run(AbortSignal.any([signal, killed.signal])));
      return cache;
    };
    const writer = newEventWriter({ client, source: { component: 'snapshot-operator' } });
    run((signal) => writer.run(AbortSignal.any([signal, killed.signal])));
    const controller = newGraphController({
      ...{ client, metrics, log: log.log, shaping: SHAPING, backoff: BACKOFF, clock },
      graphs: cacheOf(DYNAMO_GRAPH_DEPLOYMENT, readDynamoGraphDeployment),
      checkpoints: cacheOf(DYNAMO_CHECKPOINT, readDynamoCheckpoint),
      deployments: cacheOf(DEPLOYMENTS, readDeployment),
      ...{ config: { ...CONFIG, ...config }, storage: async () => storage() },
      events: newRecorder(writer, DYNAMO_GRAPH_DEPLOYMENT),
    });
    run((signal) => controller.run(AbortSignal.any([signal, killed.signal])));
    return () => killed.abort();
  };

  /** Applies a manifest of a DynamoGraphDeployment, as kubectl does. */
  const apply = (manifest: Json) => {
    const metadata = { ...(manifest['metadata'] as Json & { name: string }), namespace: 'team' };
    return stage.api.put({ ...manifest, kind: 'DynamoGraphDeployment', metadata });
  };
  const patchGraph = (name: string, patch: Json) => stage.api.patch('dynamographdeployments', `team/${name}`, patch);
  const graph = (name: string) => stage.api.get('dynamographdeployments', `team/${name}`);
  const condition = (name: string, type: string) => {
    const conditions = (graph(name)?.status?.['conditions'] ?? []) as readonly Json[];
    return conditions.find((one) => one['type'] === type);
  };
  const deployment = (name: string) => stage.api.get('deployments', `team/${name}`);
  const template = (name: string) => (deployment(name)?.spec?.['template'] ?? {}) as KubeObject;
  const checkpoints = () => stage.api.list('dynamocheckpoints');
  /** What the controller of checkpoints would write. */
  const setPhase = (name: string, phase: string, more: Json = {}) =>
    stage.api.patch('dynamocheckpoints', `team/${name}`, { status: { phase, ...more } });
  /** The only one, once it is there. */
  const oneCheckpoint = async () => {
    await eventually(() => expect(checkpoints()).toHaveLength(1));
    return checkpoints()[0]?.metadata.name ?? '';
  };
  const events = () =>
    stage.api
      .list('events')
      .map((event) => [(event['involvedObject'] as Json)['name'], event['type'], event['reason']]);
  /** Deployments get pods from now on. */
  const runPods = () => {
    stopDeployments = runDeployments(stage.api);
  };
  const pods = (component: string) =>
    stage.api.list('pods').filter(({ metadata }) => metadata.labels?.['nvidia.com/dynamo-component'] === component);
  const makeReady = () => {
    const ready = { type: 'Ready', status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z' };
    for (const { metadata } of stage.api.list('pods')) {
      const key = `${metadata.namespace}/${metadata.name}`;
      // One that is ready may end another at once.
      if (stage.api.get('pods', key))
        stage.api.patch('pods', key, { status: { phase: 'Running', conditions: [ready] } });
    }
  };
  const looks = async () => {
    const metric = await stage.metrics.registry.getSingleMetric('snapshot_operator_reconciles_total')?.get();
    return (metric?.values ?? []).reduce((sum, { value }) => sum + value, 0);
  };
  /** Does something, and waits until it was looked at. */
  const lookedAt = async (act: () => unknown) => {
    const before = await looks();
    act();
    await vi.waitFor(async () => expect(await looks()).toBeGreaterThan(before), { timeout: 15_000, interval: 5 });
  };
  return {
    ...{ lookedAt, stage, operate, apply, patchGraph, graph, condition, deployment, template, checkpoints, setPhase },
    ...{ oneCheckpoint, events, runPods, pods, makeReady },
  };
}
