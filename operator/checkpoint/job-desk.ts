import { DYNAMO_CHECKPOINT, type DynamoCheckpoint, readDynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { ShapingError } from '../../contract/shaping-error.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, isGone, KubeError } from '../../kube/error.ts';
import { resourcePath } from '../../kube/paths.ts';
import { ensureObject, isOwnedBy, type NewObject } from '../control/object-writer.ts';
import { wantsRetry } from './attempt.ts';
import { JOBS } from './caches.ts';
import { type Decision, type Failure, phaseOf } from './facts.ts';
import { jobOf, type SeccompConfig } from './job.ts';
import { type JobView, readJob } from './job-view.ts';

type Wait = Decision & { readonly do: 'wait' };

/** Makes Jobs, and deletes those of tries that failed. */
export class JobDesk {
  readonly client: KubeClient;
  readonly #seccomp: SeccompConfig;

  constructor(client: KubeClient, seccomp: SeccompConfig) {
    this.client = client;
    this.#seccomp = seccomp;
  }

  /** Makes the Job, or finds it made. What is to be done instead where there is none now. Throws KubeError. */
  async make(
    checkpoint: DynamoCheckpoint,
    { attempt, storage }: Decision & { readonly do: 'make-job' },
    signal: AbortSignal,
  ): Promise<Failure | Wait | undefined> {
    const fail = (reason: Failure['reason'], message: string): Failure => ({
      ...{ do: 'fail', reason, message, jobName: attempt.jobName },
    });
    try {
      const body = jobOf(checkpoint, { attempt, storage: storage.storage, seccomp: this.#seccomp });
      return await this.#ensure(checkpoint, body, signal);
    } catch (error) {
      if (error instanceof ShapingError) return fail('InvalidPodTemplate', error.message);
      if (!(error instanceof KubeError)) throw error;
      if (error.status === 400 || error.status === 422)
        return fail('JobRefused', `checkpoint job ${attempt.jobName} is refused: ${error.message}`);
      // A quota, a right that is missing: it may be mended, and people must see it.
      if (error.status !== 403) throw error;
      const message = `checkpoint job ${attempt.jobName} cannot be created: ${error.message}`;
      return { do: 'wait', for: 'permission', message };
    }
  }

  async #ensure(
    checkpoint: DynamoCheckpoint,
    body: NewObject,
    signal: AbortSignal,
  ): Promise<Failure | Wait | undefined> {
    const { uid, namespace } = checkpoint.metadata;
    const made = await ensureObject(this.client, JOBS, { body, isOurs: isOwnedBy(uid), signal });
    const { name } = body.metadata;
    const job = readJob(made.object);
    if (made.result !== 'foreign') {
      if (job?.isDeleting !== true) return undefined;
      return { do: 'wait', for: 'deletion', message: `an earlier Job ${name} is being deleted` };
    }
    const taken = `checkpoint job ${namespace}/${name} exists and does not belong to this checkpoint`;
    const isLeft = job !== undefined && (await this.#isLeft(namespace, job, signal));
    // Whose checkpoint was deleted is deleted soon, and the name is free.
    if (isLeft)
      return { do: 'wait', for: 'deletion', message: `${taken}; it is left from a deleted one, and waited for` };
    const message = `${taken}: delete it, then annotate the checkpoint to try once more`;
    return { do: 'fail', reason: 'JobNameTaken', message, jobName: name };
  }

  /** Whether the Job is about to go. Its owner is asked for: the cache may lag behind. */
  async #isLeft(namespace: string, job: JobView, signal: AbortSignal): Promise<boolean> {
    if (job.isDeleting) return true;
    if (job.owners.length === 0) return false;
    for (const owner of job.owners) {
      const there = await this.#checkpoint(namespace, owner.name, signal);
      if (there?.metadata.uid === owner.uid) return there.metadata.deletionTimestamp !== undefined;
    }
    return true;
  }

  /** Deletes the Job of a try that failed, with its pod. Somebody else's of the same name stays, and so does one that has a new try. Throws KubeError. */
  async deleteFailed(checkpoint: DynamoCheckpoint, job: JobView, signal: AbortSignal): Promise<void> {
    const { namespace, name, uid } = checkpoint.metadata;
    const there = await this.#checkpoint(namespace, name, signal);
    if (there?.metadata.uid !== uid || phaseOf(there) !== 'Failed' || !wantsRetry(there)) return;
    const path = resourcePath(JOBS, namespace, job.name);
    const body = { propagationPolicy: 'Background', preconditions: { uid: job.uid } };
    await this.client.request({ method: 'DELETE', path, body, signal }).catch((error: unknown) => {
      if (!isGone(error) && !isConflict(error)) throw error;
    });
  }

  async #checkpoint(namespace: string, name: string, signal: AbortSignal): Promise<DynamoCheckpoint | undefined> {
    try {
      const path = resourcePath(DYNAMO_CHECKPOINT, namespace, name);
      const read = readDynamoCheckpoint(await this.client.request({ method: 'GET', path, signal }));
      return read.result === 'read' ? read.object : undefined;
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }
}
