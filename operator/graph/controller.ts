import type { Logger } from 'pino';
import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import {
  DYNAMO_GRAPH_DEPLOYMENT,
  type DynamoGraphDeployment,
  readDynamoGraphDeployment,
} from '../../contract/dynamo-graph-deployment.ts';
import { LABELS } from '../../contract/keys.ts';
import type { ObjectMeta, ObjectRead } from '../../contract/object-meta.ts';
import type { KubeClient } from '../../kube/client.ts';
import { resourcePath } from '../../kube/paths.ts';
import type { Again } from '../../kube/queue.ts';
import type { Cached, ObjectCache } from '../control/cache.ts';
import { type ControllerOptions, runController, sourceOf } from '../control/controller.ts';
import type { ControlMetrics } from '../control/metrics.ts';
import type { Recorder } from '../control/recorder.ts';
import { newStatusWriter } from '../control/status-writer.ts';
import type { FailedFallback } from './decide.ts';
import type { Deployment } from './deployment.ts';
import { reconcileGraph } from './reconcile.ts';
import type { Shaping } from './rollout.ts';
import type { StorageFound } from './workers.ts';

/** What this room needs of the configuration. */
export interface GraphConfig {
  /** `checkpoint.enabled` */
  readonly checkpointsEnabled: boolean;
  /** `checkpoint.failedFallback` */
  readonly failedFallback: FailedFallback;
  /** `namespaces`; empty: all. */
  readonly namespaces: readonly string[];
  /** `graph.rollout` */
  readonly rollout: 'auto' | 'on' | 'off';
  /** `graph.settleSeconds`, in ms: how long another controller has to show itself at a new object. */
  readonly settleMs: number;
  /** `graph.keptGenerations`: how many checkpoints of past generations each service keeps. */
  readonly keptGenerations: number;
}

export interface GraphParts {
  readonly client: KubeClient;
  readonly graphs: ObjectCache<ObjectRead<DynamoGraphDeployment>>;
  readonly checkpoints: ObjectCache<ObjectRead<DynamoCheckpoint>>;
  readonly deployments: ObjectCache<ObjectRead<Deployment>>;
  readonly config: GraphConfig;
  readonly shaping: Shaping;
  /** Where the artifacts of a namespace are. Throws KubeError. */
  readonly storage: (namespace: string, signal: AbortSignal) => Promise<StorageFound>;
  /** What new automatic checkpoints are held by until their artifacts are deleted. */
  readonly finalizers?: readonly string[];
  /** Of DynamoGraphDeployments. */
  readonly events: Recorder;
  readonly log: Logger;
  readonly metrics: ControlMetrics;
  readonly clock?: () => Date;
  readonly backoff?: ControllerOptions['backoff'];
}

/** A control loop; nothing happens before it runs. */
interface Controller {
  /** Runs until the signal aborts, and resolves when what runs has ended. */
  run(signal: AbortSignal): Promise<void>;
}

const PARALLEL = 4;

/** The controller of DynamoGraphDeployments: the checkpoints of their services, and the plain rollout where it is ours. */
export function newGraphController(parts: GraphParts): Controller {
  const { client, graphs, checkpoints, deployments, log, metrics, backoff } = parts;
  const statuses = newStatusWriter<DynamoGraphDeployment>({
    ...{ client, metrics, resource: DYNAMO_GRAPH_DEPLOYMENT.plural, read: readDynamoGraphDeployment },
    pathOf: ({ namespace, name }) => resourcePath(DYNAMO_GRAPH_DEPLOYMENT, namespace, name),
    onWritten: (base, answer) => graphs.remember(base, answer),
  });
  const reconcile = async (key: string, signal: AbortSignal): Promise<Again> => {
    const cached = graphs.get(key);
    const { namespaces } = parts.config;
    if (cached === undefined || (namespaces.length > 0 && !namespaces.includes(cached.meta.namespace)))
      return undefined;
    const { value: read, meta } = cached;
    if (read.result === 'read') return reconcileGraph(parts, { graph: read.object, statuses }, signal);
    log.warn({ key, problem: read.problem }, 'the DynamoGraphDeployment cannot be read');
    parts.events.warning({ metadata: meta }, 'Malformed', `it cannot be read: ${read.problem}`);
    return undefined;
  };
  const sources = [sourceOf(graphs), sourceOf(checkpoints, graphsOf(graphs)), sourceOf(deployments, ownersOf)];
  const more = backoff === undefined ? {} : { backoff };
  return {
    run: (signal) =>
      runController({ name: 'graphs', parallel: PARALLEL, sources, reconcile, log, metrics, ...more }, signal),
  };
}

/** The DynamoGraphDeployments that a DynamoCheckpoint was made for, or is named by. */
function graphsOf(graphs: GraphParts['graphs']): (checkpoint: Cached<unknown>) => readonly string[] {
  return (checkpoint) => {
    const { namespace, name } = checkpoint.meta;
    const referring = [...graphs.all()].flatMap(({ key, meta, value }) => {
      if (meta.namespace !== namespace || value.result !== 'read') return [];
      const services = Object.values(value.object.spec.services);
      return services.some((service) => service.checkpoint?.checkpointRef === name) ? [key] : [];
    });
    return [...ownersOf(checkpoint), ...referring];
  };
}

/** The DynamoGraphDeployments that something is owned by, or says that it is of. */
function ownersOf({ meta }: { readonly meta: ObjectMeta }): readonly string[] {
  const { namespace, ownerReferences = [], labels = {} } = meta;
  const owners = ownerReferences.filter(({ kind }) => kind === DYNAMO_GRAPH_DEPLOYMENT.kind).map(({ name }) => name);
  const said = labels[LABELS.graph];
  return [...owners, ...(said === undefined ? [] : [said])].map((name) => `${namespace}/${name}`);
}
