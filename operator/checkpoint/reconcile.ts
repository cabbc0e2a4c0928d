import type { Logger } from 'pino';
import { DYNAMO_CHECKPOINT, type DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { ANNOTATIONS, LABELS } from '../../contract/keys.ts';
import { resourcePath } from '../../kube/paths.ts';
import type { Again } from '../../kube/queue.ts';
import type { ObjectCache } from '../control/cache.ts';
import { amendObject } from '../control/object-writer.ts';
import type { Recorder } from '../control/recorder.ts';
import type { StatusWriter } from '../control/status-writer.ts';
import type { CheckpointRead } from './caches.ts';
import { decide } from './decide.ts';
import { type Decision, type Failure, phaseOf, type WaitFor } from './facts.ts';
import type { JobDesk } from './job-desk.ts';
import type { Looks } from './looks.ts';
import { STATUS } from './status.ts';

/** When to look again, in ms. */
export interface CheckpointTimings {
  readonly lease: number;
  readonly event: number;
  readonly storage: number;
  readonly deletion: number;
  readonly permission: number;
  /** At a Job that is at work; its progress is not written more often. */
  readonly progress: number;
}

export interface ReconcileParts {
  readonly checkpoints: Pick<ObjectCache<CheckpointRead>, 'get' | 'remember'>;
  readonly looks: Looks;
  readonly jobs: JobDesk;
  readonly statuses: StatusWriter<DynamoCheckpoint>;
  readonly recorder: Recorder;
  readonly log: Logger;
  readonly timings: CheckpointTimings;
  readonly now: () => Date;
  /** Monotonic, in ms. */
  readonly clock: () => number;
}

type Status = DynamoCheckpoint['status'];

/** More than there are facts: a decision that asks for the same again would never end. */
const MAX_LOOKS = 10;
/** What ended longer ago was told of, or nobody waits for it. */
const NEWS_MS = 600_000;
/** What is waited for so shortly that nobody needs to read of it. */
const SHORT: readonly WaitFor[] = ['lease', 'event'];

/** Acts on the decisions about checkpoints. It does one thing at a time: what it wrote is looked at again. */
export class CheckpointReconciler {
  readonly #parts: ReconcileParts;
  /** By key of the checkpoint: when its message was written last. */
  readonly #messageAt = new Map<string, number>();
  /** By key: the end that this process has told of. */
  readonly #told = new Map<string, string>();

  constructor(parts: ReconcileParts) {
    this.#parts = parts;
  }

  /** One look at a checkpoint. Throws KubeError. */
  async reconcile(key: string, signal: AbortSignal): Promise<Again> {
    const { checkpoints, looks, recorder, log } = this.#parts;
    const read = checkpoints.get(key)?.value;
    if (read === undefined) this.#forget(key);
    if (read?.result === 'malformed') {
      log.warn({ checkpoint: key, problem: read.problem }, 'the DynamoCheckpoint cannot be understood');
      if (read.meta !== undefined)
        recorder.warning({ metadata: read.meta }, 'CheckpointFailed', `it cannot be understood: ${read.problem}`);
    }
    if (read?.result !== 'read') return undefined;
    const checkpoint = read.object;
    let facts = looks.first(checkpoint);
    for (let count = 0; count < MAX_LOOKS; count += 1) {
      const decision = decide(checkpoint, facts);
      if (decision.do !== 'look') {
        const again = await this.#act(key, checkpoint, decision, signal);
        if (facts.job.job !== undefined && ['ready', 'fail', 'rest'].includes(decision.do))
          looks.forget(checkpoint.metadata.namespace, facts.job.job);
        return again;
      }
      facts = await looks.more(checkpoint, facts, decision.at, signal);
    }
    throw new Error(`DynamoCheckpoint ${key}: no decision after ${MAX_LOOKS} looks`);
  }

  async #act(
    key: string,
    checkpoint: DynamoCheckpoint,
    decision: Exclude<Decision, { readonly do: 'look' }>,
    signal: AbortSignal,
  ): Promise<Again> {
    const { timings, now, log } = this.#parts;
    if (decision.do !== 'rest' && decision.do !== 'follow') log.debug({ checkpoint: key, decision }, 'decided');
    switch (decision.do) {
      case 'rest':
        this.#tellAgain(checkpoint);
        return undefined;
      case 'wait':
        if (!SHORT.includes(decision.for))
          await this.#write(checkpoint, (one) => STATUS.waiting(one, decision, now()), signal);
        return { afterMs: timings[decision.for] };
      case 'claim':
        await this.#write(checkpoint, (one) => STATUS.claimed(one, decision.checkpointId, now()), signal);
        return undefined;
      case 'label':
        return this.#amend(checkpoint, { labels: withLabel(checkpoint, decision.checkpointId) }, signal);
      case 'forget-retry':
        return this.#amend(checkpoint, { annotations: withoutRetry(checkpoint) }, signal);
      case 'restart':
        await this.#write(checkpoint, (one) => STATUS.restarted(one, decision.reason), signal);
        return undefined;
      case 'delete-job':
        await this.#parts.jobs.deleteFailed(checkpoint, decision.job, signal);
        return { afterMs: timings.deletion };
      case 'make-job':
        return this.#makeJob(key, checkpoint, decision, signal);
      case 'follow':
        return this.#follow(key, checkpoint, decision, signal);
      case 'ready':
      case 'fail':
        return this.#end(checkpoint, decision, signal);
    }
  }

  async #makeJob(
    key: string,
    checkpoint: DynamoCheckpoint,
    decision: Decision & { readonly do: 'make-job' },
    signal: AbortSignal,
  ): Promise<Again> {
    const { jobs, clock, now } = this.#parts;
    const made = await jobs.make(checkpoint, decision, signal);
    if (made !== undefined) return this.#act(key, checkpoint, made, signal);
    await this.#write(checkpoint, (one) => STATUS.created(one, decision.attempt, now()), signal);
    this.#messageAt.set(key, clock());
    return undefined;
  }

  async #follow(
    key: string,
    checkpoint: DynamoCheckpoint,
    { attempt, message }: Decision & { readonly do: 'follow' },
    signal: AbortSignal,
  ): Promise<Again> {
    const { looks, clock, timings } = this.#parts;
    const waitMs = (this.#messageAt.get(key) ?? Number.NEGATIVE_INFINITY) + timings.progress - clock();
    if (waitMs > 0) return { afterMs: Math.ceil(waitMs) };
    const text = (await looks.progress(checkpoint, attempt.jobName, signal)) ?? message;
    if (text !== checkpoint.status?.message) {
      await this.#write(checkpoint, (one) => STATUS.following(one, text), signal);
      this.#messageAt.set(key, clock());
    }
    return { afterMs: timings.progress };
  }

  async #end(
    checkpoint: DynamoCheckpoint,
    decision: Failure | (Decision & { readonly do: 'ready' }),
    signal: AbortSignal,
  ): Promise<Again> {
    const { now, log } = this.#parts;
    const next = (one: DynamoCheckpoint) =>
      decision.do === 'ready' ? STATUS.ready(one, decision, now()) : STATUS.failed(one, decision, now());
    const written = await this.#write(checkpoint, next, signal);
    if (written === undefined) return undefined;
    const { namespace, name } = checkpoint.metadata;
    const { phase, checkpointID, message } = written.status ?? {};
    log.info({ namespace, checkpoint: name, checkpointId: checkpointID, phase, message }, 'the checkpoint has ended');
    this.#tell(written);
    return undefined;
  }

  #forget(key: string): void {
    this.#messageAt.delete(key);
    this.#told.delete(key);
  }

  /** Who wrote the end may have been killed before it told of it. The same words make no second Event. */
  #tellAgain(checkpoint: DynamoCheckpoint): void {
    const phase = phaseOf(checkpoint);
    if (checkpoint.metadata.deletionTimestamp !== undefined || (phase !== 'Ready' && phase !== 'Failed')) return;
    const ready = checkpoint.status?.conditions?.find(({ type }) => type === 'Ready');
    const atMs = Date.parse(ready?.lastTransitionTime ?? '');
    const isNews = this.#parts.now().getTime() - atMs < NEWS_MS;
    if (isNews && this.#told.get(keyOf(checkpoint)) !== endOf(checkpoint)) this.#tell(checkpoint);
  }

  #tell(checkpoint: DynamoCheckpoint): void {
    const { recorder } = this.#parts;
    this.#told.set(keyOf(checkpoint), endOf(checkpoint));
    const { phase, checkpointID = '', message = '' } = checkpoint.status ?? {};
    if (phase === 'Ready') recorder.normal(checkpoint, 'CheckpointReady', `checkpoint ${checkpointID} is ready`);
    else if (phase === 'Failed') recorder.warning(checkpoint, 'CheckpointFailed', message);
  }

  async #amend(
    checkpoint: DynamoCheckpoint,
    metadata: { readonly labels?: Record<string, string>; readonly annotations?: Record<string, string> },
    signal: AbortSignal,
  ): Promise<undefined> {
    const { client } = this.#parts.jobs;
    const path = resourcePath(DYNAMO_CHECKPOINT, checkpoint.metadata.namespace, checkpoint.metadata.name);
    const answer = await amendObject(client, path, { object: checkpoint, amendment: { metadata }, signal });
    if (answer !== undefined) this.#parts.checkpoints.remember(checkpoint.metadata, answer);
    return undefined;
  }

  /**
   * Writes a status, unless what was decided on has changed meanwhile: who wrote it is told of by the watch. Undefined: nothing was written.
   */
  async #write(
    checkpoint: DynamoCheckpoint,
    next: (one: DynamoCheckpoint) => NonNullable<Status>,
    signal: AbortSignal,
  ): Promise<DynamoCheckpoint | undefined> {
    const { statuses } = this.#parts;
    const guarded = (one: DynamoCheckpoint) => (isSameCase(checkpoint, one) ? next(one) : one.status);
    const answer = await statuses.write(checkpoint, guarded, signal);
    return answer.result === 'written' ? answer.object : undefined;
  }
}

const keyOf = ({ metadata: { namespace, name } }: DynamoCheckpoint) => `${namespace}/${name}`;
const endOf = ({ metadata, status }: DynamoCheckpoint) =>
  `${metadata.uid} ${status?.phase} ${status?.createdAt} ${status?.message}`;

function withLabel({ metadata }: DynamoCheckpoint, checkpointId: string): Record<string, string> {
  return { ...metadata.labels, [LABELS.checkpointId]: checkpointId };
}

function withoutRetry({ metadata }: DynamoCheckpoint): Record<string, string> {
  const { [ANNOTATIONS.retry]: _, ...annotations } = metadata.annotations ?? {};
  return annotations;
}

function isSameCase(decided: DynamoCheckpoint, now: DynamoCheckpoint): boolean {
  const caseOf = ({ metadata, status }: DynamoCheckpoint) =>
    JSON.stringify([
      ...[metadata.uid, metadata.generation, metadata.deletionTimestamp, status?.phase, status?.jobName],
      ...[status?.checkpointID, status?.createdAt],
      ...[metadata.annotations?.[ANNOTATIONS.artifactVersion], metadata.annotations?.[ANNOTATIONS.retry]],
    ]);
  return caseOf(decided) === caseOf(now);
}
