import type { DynamoCheckpoint } from '../../contract/dynamo-checkpoint.ts';
import { checkpointIdOf } from '../../contract/identity.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isGone } from '../../kube/error.ts';
import { resourcePath } from '../../kube/paths.ts';
import type { Agents, ArtifactWord } from '../agents/agents.ts';
import type { ObjectCache } from '../control/cache.ts';
import { findStorage, type StorageConfig } from '../storage/source.ts';
import { agentsWord } from './agent-word.ts';
import { type CheckpointRead, idKey, JOBS } from './caches.ts';
import { jobNameOf } from './decide.ts';
import { type Facts, type Look, phaseOf, type Rival } from './facts.ts';
import { type JobView, readJob } from './job-view.ts';
import type { LeaseWatch } from './lease-watch.ts';
import type { SourcePod, SourcePods } from './source-pod.ts';

export interface LookParts {
  readonly client: KubeClient;
  readonly checkpoints: Pick<ObjectCache<CheckpointRead>, 'get' | 'indexed'>;
  readonly jobs: Pick<ObjectCache<JobView | undefined>, 'get'>;
  readonly pods: SourcePods;
  readonly leases: LeaseWatch;
  /** Undefined: agents are not called, and annotations alone count. */
  readonly agents: Agents | undefined;
  readonly storage: StorageConfig;
  /** How long the agent's Event of a failure is waited for, in ms. */
  readonly eventGraceMs: number;
  /** Monotonic, in ms. */
  readonly clock: () => number;
}

/** Finds the facts that decisions are made of. */
export class Looks {
  readonly #parts: LookParts;
  /** Since when the failure of a Job is known, by its uid. */
  readonly #failedSince = new Map<string, number>();

  constructor(parts: LookParts) {
    this.#parts = parts;
  }

  /** What the caches know. */
  first(checkpoint: DynamoCheckpoint): Facts {
    const { checkpoints, jobs } = this.#parts;
    const { namespace, uid } = checkpoint.metadata;
    const same = checkpoints.indexed('id', idKey(namespace, checkpoint));
    const rivals = same.flatMap(({ value }) => (value.result === 'read' ? rivalOf(value.object) : []));
    const jobName = jobNameOf(checkpoint);
    const job = jobName === undefined ? undefined : jobs.get(`${namespace}/${jobName}`)?.value;
    return { rivals: rivals.filter((rival) => rival.uid !== uid), job: { job, isLive: false } };
  }

  /** The facts with one more. Throws KubeError. */
  async more(checkpoint: DynamoCheckpoint, facts: Facts, at: Look, signal: AbortSignal): Promise<Facts> {
    const { client, leases, storage } = this.#parts;
    const { namespace } = checkpoint.metadata;
    const name = jobNameOf(checkpoint);
    switch (at) {
      case 'job':
        return { ...facts, job: { job: await this.#liveJob(namespace, name, signal), isLive: true } };
      case 'lease': {
        const lease = { isActive: name !== undefined && (await leases.isActive({ namespace, name }, signal)) };
        // What the Job said before the lease was looked at may have changed since.
        return { ...facts, lease, job: { ...facts.job, isLive: false } };
      }
      case 'storage':
        return { ...facts, storage: await findStorage(client, { namespace, config: storage }, signal) };
      case 'artifact':
        return { ...facts, artifact: await this.#artifact(checkpoint, facts.job.job, signal) };
      case 'word':
        return { ...facts, word: await this.#word(namespace, facts.job.job, signal) };
    }
  }

  /** What the worker waits for, else how far the agent is; undefined where nobody says. */
  async progress(checkpoint: DynamoCheckpoint, jobName: string, signal: AbortSignal): Promise<string | undefined> {
    const { namespace } = checkpoint.metadata;
    const pod = this.#podOf(namespace, jobName);
    if (pod === undefined) return `Job ${jobName} has no pod yet: kubectl describe job ${jobName} says why`;
    const { node, trouble } = pod;
    if (trouble !== undefined) return trouble;
    return this.#parts.agents?.progressOf(namespace, checkpointIdOf(checkpoint), { node, signal });
  }

  /** Forgets what was seen of a Job. */
  forget(namespace: string, job: Pick<JobView, 'name' | 'uid'>): void {
    this.#failedSince.delete(job.uid);
    this.#parts.leases.forget({ namespace, name: job.name });
  }

  async #liveJob(namespace: string, name: string | undefined, signal: AbortSignal): Promise<JobView | undefined> {
    if (name === undefined) return undefined;
    const path = resourcePath(JOBS, namespace, name);
    try {
      return readJob(await this.#parts.client.request({ method: 'GET', path, signal }));
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }

  async #artifact(checkpoint: DynamoCheckpoint, job: JobView | undefined, signal: AbortSignal): Promise<ArtifactWord> {
    const { agents } = this.#parts;
    const { namespace } = checkpoint.metadata;
    if (agents === undefined || job === undefined) return { result: 'unknown', why: 'agents are not asked' };
    // Another node may see what was just written a while later.
    const node = this.#podOf(namespace, job.name)?.node;
    if (node === undefined) return { result: 'unknown', why: 'it is not known any more on which node the worker was' };
    const name = { namespace, checkpointId: checkpointIdOf(checkpoint), version: job.version };
    return agents.artifact(name, { node, signal });
  }

  async #word(namespace: string, job: JobView | undefined, signal: AbortSignal): Promise<NonNullable<Facts['word']>> {
    const { client, clock, eventGraceMs } = this.#parts;
    if (job === undefined) return { text: undefined, isFinal: true };
    const since = this.#failedSince.get(job.uid) ?? clock();
    this.#failedSince.set(job.uid, since);
    const pod = this.#podOf(namespace, job.name);
    const text = pod === undefined ? undefined : await agentsWord(client, { namespace, podUid: pod.uid }, signal);
    return { text, isFinal: clock() - since >= eventGraceMs };
  }

  /** A Job has one pod; where a node was lost, the last one counts. */
  #podOf(namespace: string, jobName: string): SourcePod | undefined {
    return this.#parts.pods.indexed('job', `${namespace}/${jobName}`).at(-1)?.value;
  }
}

/** Who failed before it had the id owns nothing. */
function rivalOf(checkpoint: DynamoCheckpoint): Rival[] {
  const { name, uid, creationTimestamp = '', deletionTimestamp } = checkpoint.metadata;
  const hasClaimed = checkpoint.status?.checkpointID === checkpointIdOf(checkpoint);
  if (!hasClaimed && phaseOf(checkpoint) === 'Failed') return [];
  return [{ name, uid, creationTimestamp, hasClaimed, isDeleting: deletionTimestamp !== undefined }];
}
