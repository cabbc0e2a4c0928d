import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { checkpointIdOf } from '../../contract/identity.ts';
import { ANNOTATIONS, DEFAULT_ARTIFACT_VERSION } from '../../contract/keys.ts';
import { idCheckpointJobName } from '../../contract/names.ts';
import type { ObjectRead } from '../../contract/object-meta.ts';
import { ShapingError } from '../../contract/shaping-error.ts';
import { isOwnedBy, type NewObject } from '../control/object-writer.ts';
import { automaticCheckpoint, automaticName } from './automatic.ts';
import { type Component, generationOf } from './component.ts';
import { type Failure, type Start, type Started, startOf } from './start.ts';
import { frameworkOf, type Refusal, serviceRefusal } from './support.ts';

/** What the workers of a checkpoint that failed do while their policy is WaitForCheckpoint. */
export type FailedFallback = 'Wait' | 'ColdStart';

/** All that decides about a service. */
export interface Facts {
  /** `checkpoint.enabled` of the configuration. */
  readonly isEnabled: boolean;
  readonly component: Component;
  /** The DynamoCheckpoint of this name in the service's namespace, if there is one. */
  readonly checkpoint: (name: string) => ObjectRead<DynamoCheckpoint> | undefined;
  /** `checkpoint.failedFallback` of the configuration. */
  readonly failedFallback: FailedFallback;
  /** What new automatic checkpoints are held by; see operator/deletion. */
  readonly finalizers?: readonly string[];
  /** Whether this operator makes the Deployment; only then is it known whether workers wait. */
  readonly isRolledOutHere: boolean;
  /** How the workers of the present generation were started; undefined where they were not. */
  readonly started: Started | undefined;
}

/** How the checkpoint of a service stands, in one word of CamelCase and a sentence. */
interface Word {
  readonly isReady: boolean;
  readonly reason: string;
  readonly message: string;
  /** Somebody must do something. */
  readonly isTrouble: boolean;
}

export interface ServiceDecision {
  readonly component: Component;
  /** For `status.checkpoints`; undefined where the service has none. */
  readonly checkpoint: { readonly name: string; readonly id: string | undefined } | undefined;
  /** The DynamoCheckpoint to be made. */
  readonly make: NewObject | undefined;
  /** Undefined: the service wants no checkpoint. */
  readonly word: Word | undefined;
  /** What its workers do, where this operator rolls them out. */
  readonly start: Start;
}

/** What a checkpoint came to, for those who wait for it. */
interface Outcome extends Pick<ServiceDecision, 'checkpoint' | 'make'> {
  readonly word: Word;
  /** Can be restored now. */
  readonly ready?: { readonly id: string; readonly version: string; readonly targets: readonly string[] } | undefined;
  /** It will not become ready by itself. */
  readonly failure?: Failure | undefined;
}

/** What the checkpoint part of a service wants, from what there is. Pure; it never throws. */
export function decide(facts: Facts): ServiceDecision {
  const { component } = facts;
  if (component.service.checkpoint?.enabled !== true) return { ...NONE, component };
  return decided(
    facts,
    guarded(component, () => outcomeOf(facts)),
  );
}

/**
 * The same once something stands in the way of it that only showed when it was tried. `isFinal`: it will not go away by itself.
 */
export function withObstacle(
  facts: Facts,
  { checkpoint }: ServiceDecision,
  { isFinal, ...obstacle }: Failure & { readonly isFinal: boolean },
): ServiceDecision {
  return decided(facts, {
    ...trouble(obstacle.reason, obstacle.message, checkpoint),
    failure: isFinal ? obstacle : undefined,
  });
}

const NONE = { checkpoint: undefined, make: undefined, word: undefined, start: { kind: 'cold' } } as const;

function decided(facts: Facts, outcome: Outcome): ServiceDecision {
  const { component, started } = facts;
  const { ready, failure, ...result } = outcome;
  const policy = component.service.checkpoint?.startupPolicy ?? 'Immediate';
  const fallback = fallbackOf(facts);
  const start = startOf({ policy, name: result.checkpoint?.name, ready, failure, started, fallback });
  const message = result.word.message + waysOn(facts, start, outcome);
  return { ...result, component, start, word: { ...result.word, message } };
}

function outcomeOf(facts: Facts): Outcome {
  const { component, isEnabled } = facts;
  if (!isEnabled)
    return trouble(
      'CheckpointsDisabled',
      `service ${component.name} wants a checkpoint, and the operator's checkpoint.enabled is false`,
    );
  const refusal = serviceRefusal(component);
  if (refusal !== undefined) return refused(refusal);
  // Says early what is wrong with the pod.
  generationOf(component);
  const { checkpointRef = '', mode } = component.service.checkpoint ?? {};
  if (checkpointRef !== '') return referred(facts, checkpointRef);
  if (mode === 'Auto') return automatic(facts);
  const message = `service ${component.name} has checkpoint mode Manual and no checkpointRef: nothing is made. Name a DynamoCheckpoint`;
  return trouble('CheckpointRefMissing', message);
}

function referred({ component, checkpoint }: Facts, name: string): Outcome {
  const read = checkpoint(name);
  if (read !== undefined) return standing(read, { component, name, id: undefined });
  const message = `service ${component.name} refers to DynamoCheckpoint ${name}, which is not in namespace ${component.graph.metadata.namespace}. Make it, or correct checkpointRef`;
  // It may come yet: until then it is neither failed nor under way.
  return { ...trouble('CheckpointNotFound', message), checkpoint: { name, id: undefined }, failure: undefined };
}

function automatic({ component, checkpoint, finalizers }: Facts): Outcome {
  const framework = frameworkOf(component);
  if ('reason' in framework) return refused(framework);
  const { name, id } = automaticName(component);
  const read = checkpoint(name);
  if (read === undefined) {
    const make = automaticCheckpoint(component, framework.framework, finalizers);
    const word = waiting('CheckpointCreating', `DynamoCheckpoint ${name} of service ${component.name} is being made`);
    return { checkpoint: { name, id }, make, word };
  }
  const meta = read.result === 'read' ? read.object.metadata : read.meta;
  if (meta !== undefined && isOwnedBy(component.graph.metadata.uid)(meta))
    return standing(read, { component, name, id });
  const message = `DynamoCheckpoint ${name} is there and is not of this object: service ${component.name} has none. Delete it, or name it as checkpointRef`;
  return { ...trouble('CheckpointForeign', message), checkpoint: { name, id } };
}

/** How a DynamoCheckpoint that is there stands. `id`: what it must have; undefined: whatever it has. */
function standing(
  read: ObjectRead<DynamoCheckpoint>,
  { component, name, id }: { readonly component: Component; readonly name: string; readonly id: string | undefined },
): Outcome {
  const of = `DynamoCheckpoint ${name} of service ${component.name}`;
  if (read.result === 'malformed')
    return { ...trouble('CheckpointMalformed', `${of}: ${read.problem}`), checkpoint: { name, id } };
  const { metadata, spec, status } = read.object;
  const there = { checkpoint: { name, id: id ?? checkpointIdOf(read.object) }, make: undefined };
  const said = status?.message ? `: ${status.message}` : '';
  const unsupported = status?.conditions?.find(({ type, status: is }) => type === 'Supported' && is === 'False');
  if (metadata.deletionTimestamp !== undefined)
    return { ...there, word: waiting('CheckpointDeleted', `${of} is being deleted`) };
  if (id !== undefined && checkpointIdOf(read.object) !== id)
    return {
      ...there,
      ...trouble(
        'CheckpointForeign',
        `${of} has id ${checkpointIdOf(read.object)} in place of ${id}`,
        there.checkpoint,
      ),
    };
  if (status?.phase === 'Failed')
    return { ...there, ...trouble(unsupported?.reason || 'CheckpointFailed', `${of} failed${said}`, there.checkpoint) };
  if (unsupported !== undefined && status?.phase !== 'Ready')
    return {
      ...there,
      ...trouble(
        unsupported.reason || 'NotSupported',
        `${of} is not supported: ${unsupported.message}`,
        there.checkpoint,
      ),
    };
  const version = metadata.annotations?.[ANNOTATIONS.artifactVersion]?.trim() || DEFAULT_ARTIFACT_VERSION;
  const isOfVersion = !status?.jobName || status.jobName === idCheckpointJobName(there.checkpoint.id, version);
  if (status?.phase !== 'Ready' || !isOfVersion)
    return { ...there, word: waiting('CheckpointNotReady', `${of} is ${phaseOf(status?.phase, isOfVersion)}`) };
  const word = { isReady: true, isTrouble: false, reason: 'CheckpointReady', message: `${of} is ready` };
  return { ...there, word, ready: { id: there.checkpoint.id, version, targets: [spec.job.targetContainerName] } };
}

/** Its progress stays with it: this object would be written each second. */
function phaseOf(phase: string | undefined, isOfVersion: boolean): string {
  if (phase === 'Ready') return isOfVersion ? phase : 'ready in another version';
  return phase || 'Pending';
}

const waiting = (reason: string, message: string): Word => ({ isReady: false, isTrouble: false, reason, message });

function trouble(
  reason: string,
  message: string,
  checkpoint?: Outcome['checkpoint'],
): Outcome & { readonly failure: Failure } {
  const word = { isReady: false, isTrouble: true, reason, message };
  return { checkpoint, make: undefined, word, failure: { reason, message } };
}

const refused = ({ reason, message }: Refusal): Outcome => trouble(reason, message);

function guarded(component: Component, outcome: () => Outcome): Outcome {
  try {
    return outcome();
  } catch (error) {
    if (!(error instanceof ShapingError)) throw error;
    return refused({ reason: 'InvalidService', message: `service ${component.name}: ${error.message}` });
  }
}

/** The service's own word, else the object's, else the configuration's. Other words mean nothing. */
function fallbackOf({
  component: { graph, service },
  failedFallback,
}: Pick<Facts, 'component' | 'failedFallback'>): FailedFallback {
  const said = [service.annotations, graph.metadata.annotations].map((one) => one?.[ANNOTATIONS.failedFallback]);
  return said.find((word): word is FailedFallback => word === 'Wait' || word === 'ColdStart') ?? failedFallback;
}

/** Nobody may have to guess why there are no workers, or what to do about a checkpoint. */
function waysOn({ isRolledOutHere }: Facts, start: Start, { checkpoint, failure }: Outcome): string {
  if (failure === undefined) return '';
  const retry = checkpoint === undefined ? '' : `annotate it with ${ANNOTATIONS.retry}: "1" to try again`;
  const isStuck = isRolledOutHere && start.kind === 'held';
  if (!isStuck) return retry === '' ? '' : `; ${retry}`;
  const fallback = `annotate the service with ${ANNOTATIONS.failedFallback}: ColdStart to start without it`;
  return `; its workers stay at zero. ${[retry, fallback].filter((way) => way !== '').join(', or ')}`;
}
