import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { DYNAMO_CHECKPOINT } from '../../contract/dynamo-checkpoint.ts';
import type { DynamoGraphDeployment } from '../../contract/dynamo-graph-deployment.ts';
import type { ObjectRead } from '../../contract/object-meta.ts';
import { ShapingError } from '../../contract/shaping-error.ts';
import { isGone, KubeError } from '../../kube/error.ts';
import { resourcePath } from '../../kube/paths.ts';
import type { Again } from '../../kube/queue.ts';
import type { ObjectCache } from '../control/cache.ts';
import { ensureObject, isOwnedBy } from '../control/object-writer.ts';
import type { StatusWriter } from '../control/status-writer.ts';
import { type Component, componentsOf, generationOf } from './component.ts';
import type { GraphParts } from './controller.ts';
import { decide, type Facts, type ServiceDecision, withObstacle } from './decide.ts';
import { type Deployment, isOfRollout, isRolledOut, startedOf } from './deployment.ts';
import { isInUse, pastCheckpoints } from './generations.ts';
import { rolloutOwner } from './ownership.ts';
import { deploymentName, type GraphState } from './rollout.ts';
import { removeDeployment } from './rollout-writer.ts';
import { CONDITIONS, nextStatus, type Outlook } from './statuses.ts';
import { type RolledOut, rollOut } from './workers.ts';

/** What nobody tells of when it changes is looked at again so often. */
const AGAIN_MS = 30_000;

interface Subject {
  readonly graph: DynamoGraphDeployment;
  readonly statuses: StatusWriter<DynamoGraphDeployment>;
}

/** One service on its way through a look. */
interface Step {
  readonly facts: Facts;
  readonly decision: ServiceDecision;
}

/**
 * Brings what is made for a DynamoGraphDeployment to where it wants it: checkpoints first, then Deployments, then its status. Each write can
 * be repeated, and what is as it should be is not written. Last goes what is not needed any more. Throws KubeError.
 */
export async function reconcileGraph(parts: GraphParts, subject: Subject, signal: AbortSignal): Promise<Again> {
  const { graph } = subject;
  if (graph.metadata.deletionTimestamp !== undefined) return undefined;
  const { now, owner, deployments } = ownership(parts, graph);
  const made: Step[] = [];
  for (const step of stepsOf(parts, graph, owner.isOurs ? deployments : undefined))
    made.push(await ensureCheckpoint(parts, step, signal));
  const rolled = owner.isOurs ? await rollOutAll(parts, { graph, steps: made, deployments }, signal) : undefined;
  const decisions = (rolled ?? made).map(({ decision }) => decision);
  const outlook: Outlook = {
    ...{ decisions, owner, now, generation: graph.metadata.generation },
    problems: rolled?.flatMap(({ applied }) => (applied.result === 'refused' ? [applied.problem] : [])) ?? [],
    state: rolled && stateOf(rolled),
  };
  tell(parts, graph, outlook);
  await subject.statuses.write(graph, (object) => nextStatus(object, outlook), signal);
  const isRetired = owner.isOurs ? await retire(parts, graph, decisions, signal) : true;
  if (!owner.isOurs && owner.againMs !== undefined) return { afterMs: owner.againMs };
  const isOpen = !isRetired || outlook.problems.length > 0 || decisions.some(({ word }) => word?.isTrouble === true);
  return isOpen ? { afterMs: AGAIN_MS } : undefined;
}

function ownership(
  { graphs, deployments, config, clock = () => new Date() }: GraphParts,
  graph: DynamoGraphDeployment,
) {
  const { namespace } = graph.metadata;
  const ofNamespace = readable(deployments).filter(({ metadata }) => metadata.namespace === namespace);
  const neighbours = readable(graphs).filter(({ metadata }) => metadata.namespace === namespace);
  const now = clock();
  const { rollout: mode, settleMs } = config;
  const owner = rolloutOwner({ graph, neighbours, deployments: ofNamespace, mode, settleMs, now });
  return { now, owner, deployments: ofNamespace };
}

function readable<T>(cache: ObjectCache<ObjectRead<T>>): readonly T[] {
  return [...cache.all()].flatMap(({ value }) => (value.result === 'read' ? [value.object] : []));
}

function stepsOf(
  parts: GraphParts,
  graph: DynamoGraphDeployment,
  deployments: readonly Deployment[] | undefined,
): readonly Step[] {
  const { checkpoints, config, finalizers = [] } = parts;
  const { namespace } = graph.metadata;
  return componentsOf(graph).map((component) => {
    const facts: Facts = {
      ...{ component, finalizers, isEnabled: config.checkpointsEnabled, failedFallback: config.failedFallback },
      checkpoint: (name) => checkpoints.get(`${namespace}/${name}`)?.value,
      isRolledOutHere: deployments !== undefined,
      started: startOfDeployment(component, ofComponent(component, deployments ?? [])),
    };
    return { facts, decision: decide(facts) };
  });
}

const ofComponent = (component: Component, deployments: readonly Deployment[]) =>
  deployments.find(({ metadata }) => metadata.name === deploymentName(component));

function startOfDeployment(component: Component, deployment: Deployment | undefined): Facts['started'] {
  const isOurs = deployment !== undefined && isOfRollout(deployment.metadata, component.graph.metadata.uid);
  if (!isOurs) return undefined;
  try {
    return startedOf(deployment, generationOf(component));
  } catch (error) {
    if (error instanceof ShapingError) return undefined;
    throw error;
  }
}

/** Makes the DynamoCheckpoint that is wanted. What the server refuses of it is said, and does not hold up the other services. */
async function ensureCheckpoint(
  { client, log }: GraphParts,
  { facts, decision }: Step,
  signal: AbortSignal,
): Promise<Step> {
  const { make: body, component } = decision;
  if (body === undefined) return { facts, decision };
  const { name } = body.metadata;
  const obstacle = (reason: string, message: string): Step => ({
    facts,
    decision: withObstacle(facts, decision, { reason, message, isFinal: true }),
  });
  try {
    const isOurs = isOwnedBy(component.graph.metadata.uid);
    const { result } = await ensureObject(client, DYNAMO_CHECKPOINT, { body, isOurs, signal });
    if (result === 'foreign')
      return obstacle('CheckpointForeign', `DynamoCheckpoint ${name} is there and is not of this object`);
    if (result === 'made') log.info({ checkpoint: name, service: component.name }, 'made a DynamoCheckpoint');
    return { facts, decision };
  } catch (error) {
    if (!(error instanceof KubeError) || ![400, 403, 422].includes(error.status)) throw error;
    return obstacle(
      'CheckpointRefused',
      `DynamoCheckpoint ${name} of service ${component.name} is refused: ${error.message}`,
    );
  }
}

async function rollOutAll(
  parts: GraphParts,
  {
    graph,
    steps,
    deployments,
  }: {
    readonly graph: DynamoGraphDeployment;
    readonly steps: readonly Step[];
    readonly deployments: readonly Deployment[];
  },
  signal: AbortSignal,
): Promise<readonly RolledOut[]> {
  const { client, shaping } = parts;
  const { namespace, uid } = graph.metadata;
  const workers = { client, shaping, deployments: parts.deployments, storage: () => parts.storage(namespace, signal) };
  const rolled: RolledOut[] = [];
  for (const { facts, decision } of steps)
    rolled.push(
      await rollOut(workers, { facts, decision, current: ofComponent(facts.component, deployments) }, signal),
    );
  const names = new Set(steps.map(({ facts }) => deploymentName(facts.component)));
  for (const deployment of deployments) {
    const { metadata } = deployment;
    const isLeft = isOfRollout(metadata, uid) && !names.has(metadata.name) && metadata.deletionTimestamp === undefined;
    if (isLeft) await removeDeployment(workers, deployment, signal);
  }
  return rolled;
}

/** Deletes checkpoints of past generations; false where some are still in use. */
async function retire(
  { client, checkpoints, config, log }: GraphParts,
  graph: DynamoGraphDeployment,
  decisions: readonly ServiceDecision[],
  signal: AbortSignal,
): Promise<boolean> {
  const all: readonly DynamoCheckpoint[] = readable(checkpoints);
  let isDone = true;
  for (const checkpoint of pastCheckpoints(graph, { checkpoints: all, decisions, kept: config.keptGenerations })) {
    const { namespace, name, uid, resourceVersion } = checkpoint.metadata;
    if (await isInUse(client, checkpoint, signal)) {
      isDone = false;
      continue;
    }
    const body = { preconditions: { uid, resourceVersion } };
    const path = resourcePath(DYNAMO_CHECKPOINT, namespace, name);
    await client.request({ method: 'DELETE', path, body, signal }).catch((error: unknown) => {
      if (!isGone(error)) throw error;
    });
    log.info({ checkpoint: name, graph: graph.metadata.name }, 'deleted the DynamoCheckpoint of a past generation');
  }
  return isDone;
}

function stateOf(rolled: readonly RolledOut[]): GraphState {
  if (rolled.some(({ applied }) => applied.result === 'refused')) return 'failed';
  const isDone = rolled.every(
    ({ decision, applied }) =>
      decision.start.kind !== 'held' && applied.result === 'applied' && isRolledOut(applied.deployment),
  );
  return isDone ? 'successful' : 'pending';
}

/** Says beside the object what its conditions did not say before. */
function tell({ events }: GraphParts, graph: DynamoGraphDeployment, { decisions, owner, problems }: Outlook): void {
  const said = (type: string) => graph.status?.conditions?.find((one) => one.type === type)?.message ?? '';
  for (const { word, make } of decisions) {
    if (word === undefined || said(CONDITIONS.checkpoints).includes(word.message)) continue;
    if (word.isTrouble) events.warning(graph, word.reason, word.message);
    else if (word.isReady || make !== undefined) events.normal(graph, word.reason, word.message);
  }
  for (const problem of problems)
    if (!said(CONDITIONS.rollout).includes(problem)) events.warning(graph, 'RolloutProblem', problem);
  if (!owner.isOurs && owner.reason === 'OtherController' && said(CONDITIONS.rollout) !== owner.message)
    events.normal(graph, owner.reason, owner.message);
}
