import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { DYNAMO_CHECKPOINT } from '../../contract/dynamo-checkpoint.ts';
import { checkpointIdOf } from '../../contract/identity.ts';
import type { ObjectMeta } from '../../contract/object-meta.ts';
import { backoffMs } from '../../kube/backoff.ts';
import { isGone, KubeError } from '../../kube/error.ts';
import { resourcePath } from '../../kube/paths.ts';
import type { Again } from '../../kube/queue.ts';
import { amendObject, ensureObject } from '../control/object-writer.ts';
import type { Recorder } from '../control/recorder.ts';
import { cleanupJob } from './cleanup-job.ts';
import type { DeletionParts, DeletionTimings } from './controller.ts';
import { type Decision, decide, type Facts, type Volume } from './decide.ts';
import { lookAt, rivalsOf, sourceJobs } from './look.ts';
import { FINALIZER, policyOf } from './policy.ts';

const JOBS = { group: 'batch', version: 'v1', plural: 'jobs' };

export interface ReconcilerParts extends DeletionParts {
  readonly recorder: Recorder;
  readonly timings: DeletionTimings;
}

/** Looks at one DynamoCheckpoint, by its key, and does what is due for its artifacts. */
export function newReconciler(parts: ReconcilerParts): (key: string, signal: AbortSignal) => Promise<Again> {
  const reconciler = new Reconciler(parts);
  return (key, signal) => reconciler.reconcile(key, signal);
}

class Reconciler {
  readonly #parts: ReconcilerParts;
  /** Failed Jobs in a row, by uid of the object. What a new leader does not know costs one early try. */
  readonly #failures = new Map<string, { count: number; untilMs: number }>();

  constructor(parts: ReconcilerParts) {
    this.#parts = parts;
  }

  async reconcile(key: string, signal: AbortSignal): Promise<Again> {
    const read = this.#parts.checkpoints.get(key)?.value;
    if (read === undefined) return undefined;
    if (read.result === 'malformed') return this.#malformed(read.meta, signal);
    const checkpoint = read.object;
    const { deletionTimestamp, finalizers = [] } = checkpoint.metadata;
    const isLeaving = deletionTimestamp !== undefined && finalizers.includes(FINALIZER);
    let facts: Facts = {
      rivals: isLeaving ? rivalsOf(checkpoint, this.#parts.checkpoints) : [],
      jobs: isLeaving ? await sourceJobs(this.#parts.client, checkpoint, signal) : [],
    };
    for (;;) {
      const decision = decide(checkpoint, facts);
      if (decision.do !== 'look') return this.#act(checkpoint, decision, signal);
      facts = { ...facts, ...(await lookAt(this.#parts, decision.at, { checkpoint, signal })) };
    }
  }

  /** Somebody changed the definition, or wrote it before. Its artifacts cannot be named: they stay, and so do no finalizers of ours. */
  async #malformed(meta: ObjectMeta | undefined, signal: AbortSignal): Promise<Again> {
    if (meta?.deletionTimestamp === undefined || !meta.finalizers?.includes(FINALIZER)) return undefined;
    await this.#release(meta, signal);
    this.#parts.metrics.released('nothing');
    this.#parts.log.warn(
      { checkpoint: `${meta.namespace}/${meta.name}` },
      'a malformed object is let go: artifacts stay',
    );
    return undefined;
  }

  async #act(checkpoint: DynamoCheckpoint, decision: Exclude<Decision, { do: 'look' }>, signal: AbortSignal) {
    const { client, timings, recorder, log, metrics } = this.#parts;
    const { metadata } = checkpoint;
    const { namespace, name } = metadata;
    const fields = { checkpoint: `${namespace}/${name}`, checkpointId: checkpointIdOf(checkpoint) };
    switch (decision.do) {
      case 'rest':
        return this.#warnOfPolicy(checkpoint);
      case 'amend': {
        const { finalizers, annotations } = decision;
        const amendment = { metadata: { finalizers: [...finalizers], annotations: { ...annotations } } };
        const path = resourcePath(DYNAMO_CHECKPOINT, namespace, name);
        await amendObject(client, path, { object: { metadata }, amendment, signal });
        return this.#warnOfPolicy(checkpoint);
      }
      case 'release':
        // Said before it is done: an Event about what is gone reaches nobody.
        recorder.normal(
          checkpoint,
          decision.why === 'deleted' ? 'ArtifactsDeleted' : 'ArtifactsKept',
          decision.message,
        );
        await this.#release(metadata, signal);
        this.#failures.delete(metadata.uid);
        metrics.released(decision.why);
        log.info({ ...fields, why: decision.why, detail: decision.message }, 'a deleted checkpoint is let go');
        return undefined;
      case 'delete-job':
        await this.#deleteJob(namespace, { name: decision.name }, signal);
        return { afterMs: timings.pollMs };
      case 'wait':
        // Its agents and their claim may have gone with it: nobody would come back to say where the artifacts were.
        if (decision.for === 'storage' && (await this.#isNamespaceGoing(checkpoint, signal)))
          return this.#leave(metadata, signal);
        if (['reader', 'foreign-job', 'storage'].includes(decision.for))
          recorder.warning(checkpoint, 'ArtifactsNotDeleted', decision.message);
        log.info({ ...fields, waitsFor: decision.for, detail: decision.message }, 'artifacts are to be deleted');
        return { afterMs: timings.pollMs };
      case 'make-cleanup-job':
        return this.#makeJob(checkpoint, decision, signal);
      case 'remove-cleanup-job':
        return this.#removeJob(checkpoint, decision, signal);
    }
  }

  #warnOfPolicy(checkpoint: DynamoCheckpoint): undefined {
    const { problem } = policyOf(checkpoint.metadata);
    if (problem !== undefined) this.#parts.recorder.warning(checkpoint, 'DeletionPolicyInvalid', problem);
  }

  async #makeJob(
    checkpoint: DynamoCheckpoint,
    { checkpointId, volume }: { readonly checkpointId: string; readonly volume: Volume },
    signal: AbortSignal,
  ): Promise<Again> {
    const { client, config, timings } = this.#parts;
    const { metadata } = checkpoint;
    const { namespace, uid } = metadata;
    const waitMs = (this.#failures.get(uid)?.untilMs ?? 0) - performance.now();
    if (waitMs > 0) return { afterMs: waitMs };
    const body = cleanupJob({ namespace, uid, checkpointId }, volume, config);
    try {
      // Whose it is, the next look says.
      await ensureObject(client, JOBS, { body, isOurs: () => true, signal });
    } catch (error) {
      // The namespace goes, and its claims with it: nothing can be made in it, and it would wait for us for ever.
      if (!(error instanceof KubeError && isNamespaceGoing(error))) throw error;
      return this.#leave(metadata, signal);
    }
    return { afterMs: timings.pollMs };
  }

  /** The rights of an operator do not reach to namespaces themselves: whether anything can be made in it is tried, and nothing is made. */
  async #isNamespaceGoing({ metadata }: DynamoCheckpoint, signal: AbortSignal): Promise<boolean> {
    const { client, config } = this.#parts;
    const { namespace, uid, name } = metadata;
    const body = cleanupJob(
      { namespace, uid, checkpointId: name },
      { claim: 'none', basePath: '/checkpoints' },
      config,
    );
    const path = resourcePath(JOBS, namespace);
    try {
      await client.request({ method: 'POST', path, query: { dryRun: 'All' }, body, signal });
    } catch (error) {
      if (!(error instanceof KubeError)) throw error;
      return isNamespaceGoing(error);
    }
    return false;
  }

  /** Nothing can be made in its namespace, which waits for it. */
  async #leave(metadata: ObjectMeta, signal: AbortSignal): Promise<undefined> {
    const { log, metrics } = this.#parts;
    const { namespace, name } = metadata;
    log.warn({ checkpoint: `${namespace}/${name}` }, 'the namespace is being deleted: the checkpoint is let go');
    await this.#release(metadata, signal);
    metrics.released('retained');
  }

  async #removeJob(
    checkpoint: DynamoCheckpoint,
    { name, uid, failure }: { readonly name: string; readonly uid: string; readonly failure: string | undefined },
    signal: AbortSignal,
  ): Promise<Again> {
    const { timings, recorder, metrics, log } = this.#parts;
    const { metadata } = checkpoint;
    await this.#deleteJob(metadata.namespace, { name, uid }, signal);
    if (failure === undefined) return { afterMs: timings.pollMs };
    const count = (this.#failures.get(metadata.uid)?.count ?? 0) + 1;
    const retryInMs = backoffMs(count, { minMs: timings.retryMs, maxMs: timings.maxRetryMs });
    this.#failures.set(metadata.uid, { count, untilMs: performance.now() + retryInMs });
    metrics.cleanupFailed();
    recorder.warning(checkpoint, 'ArtifactsNotDeleted', failure);
    log.warn(
      { checkpoint: `${metadata.namespace}/${metadata.name}`, failures: count, retryInMs, detail: failure },
      'a cleanup Job failed',
    );
    return { afterMs: Math.max(retryInMs, timings.pollMs) };
  }

  /** With its pods: it is gone once they are. */
  async #deleteJob(namespace: string, job: { readonly name: string; readonly uid?: string }, signal: AbortSignal) {
    const { name, uid } = job;
    const body = {
      apiVersion: 'v1',
      kind: 'DeleteOptions',
      propagationPolicy: 'Foreground',
      ...(uid === undefined ? {} : { preconditions: { uid } }),
    };
    try {
      const path = resourcePath(JOBS, namespace, name);
      await this.#parts.client.request({ method: 'DELETE', path, body, signal });
    } catch (error) {
      if (!isGone(error) && !(error instanceof KubeError && error.status === 409)) throw error;
    }
  }

  async #release(metadata: ObjectMeta, signal: AbortSignal): Promise<void> {
    const finalizers = (metadata.finalizers ?? []).filter((one) => one !== FINALIZER);
    const path = resourcePath(DYNAMO_CHECKPOINT, metadata.namespace, metadata.name);
    try {
      await amendObject(this.#parts.client, path, {
        object: { metadata },
        amendment: { metadata: { finalizers } },
        signal,
      });
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }
}

function isNamespaceGoing({ status, message }: KubeError): boolean {
  return status === 404 || (status === 403 && message.includes('because it is being terminated'));
}
