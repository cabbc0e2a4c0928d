import type { Logger } from 'pino';
import type { KubeClient } from '../../kube/client.ts';
import { KubeError } from '../../kube/error.ts';
import type { Leases } from '../../kube/lease.ts';
import type { HeldLease } from '../../kube/lease-renewal.ts';
import { SnapshotError } from '../errors.ts';
import type { OperationRequest, TooEarly } from '../operations/context.ts';
import type { Claim, Over } from '../operations/reporter.ts';
import type { CheckpointWanted } from '../plan/decide.ts';
import { insist } from './insist.ts';
import { declareJob, type JobPlace, readJob } from './job.ts';

export interface JobDesk {
  readonly client: KubeClient;
  readonly leases: Leases;
  readonly log: Logger;
  /** How long a declaration is insisted on before its operation ends, and a later look goes on: it holds a place among the parallel ones. */
  readonly declareMs?: number;
}

const DECLARE_MS = 30_000;

/** How long the failure of a Job is insisted on before its worker is ended. After that, its pod says that it failed. */
const FAILURE_MS = 15_000;

/**
 * Takes a checkpoint Job over: its lease first, so that what the Job says afterwards was said by nobody who is still at work. Too early
 * while another agent holds the lease, or this one for another pod of the Job, or the API gives no answer.
 */
export async function claimJob(
  desk: JobDesk,
  place: JobPlace,
  { traceId, signal }: OperationRequest<CheckpointWanted>,
): Promise<Claim | TooEarly | Over> {
  const { namespace, name, uid } = place;
  let lease: HeldLease | undefined;
  try {
    const owner = { apiVersion: 'batch/v1', kind: 'Job', name, uid };
    const answer = await desk.leases.acquire({ namespace, name, owner }, signal);
    if (answer.result === 'busy')
      return {
        result: 'too-early',
        reason: `${answer.holder} holds the lease of Job ${name}`,
        code: 'LEASE_LOST',
      };
    lease = answer.lease;
    const job = await readJob(desk.client, place, signal);
    if (job !== undefined && job.status !== 'failed')
      return claimOf(desk, { place, lease, traceId, isCompleted: job.status === 'completed' });
    await lease.release();
    if (job === undefined) return { result: 'over', reason: `Job ${name} is gone` };
    return { result: 'over', reason: `Job ${name} was declared failed`, isFailed: true };
  } catch (error) {
    await lease?.release();
    if (!(error instanceof KubeError)) throw error;
    return { result: 'too-early', reason: error.message, code: 'KUBERNETES_UNAVAILABLE' };
  }
}

interface JobClaim {
  readonly place: JobPlace;
  readonly lease: HeldLease;
  readonly traceId: string;
  readonly isCompleted: boolean;
}

function claimOf(
  { client, log, declareMs = DECLARE_MS }: JobDesk,
  { place, lease, traceId, isCompleted }: JobClaim,
): Claim {
  let said = 'the time for it was over';
  const declare = (status: 'completed' | 'failed', signal: AbortSignal) =>
    insist(() => declareJob(client, place, { status, traceId }, signal), {
      object: `Job ${place.namespace}/${place.name}`,
      signal,
      onFailure: (err) => {
        said = err.message;
        log.warn({ err, job: place.name, namespace: place.namespace, status }, 'Job is not declared yet');
      },
    });
  const lost = lostSignal(lease);
  return {
    lost,
    isCompleted,
    declareComplete: async (signal) => {
      if (isCompleted) return;
      const until = AbortSignal.any([signal, lost, AbortSignal.timeout(declareMs)]);
      const { status } = await declare('completed', until).catch((error: unknown) => {
        // Who cancelled it, or took it over, says why.
        if (error instanceof SnapshotError || !until.aborted) throw error;
        throw new SnapshotError('JOB_UNDECLARED', `Job ${place.name} could not be declared complete: ${said}`);
      });
      if (status === 'failed') throw new SnapshotError('JOB_FAILED', `Job ${place.name} was declared failed meanwhile`);
      if (status === 'gone') log.info({ job: place.name }, 'the Job is gone: its checkpoint stays');
    },
    end: async ({ failure }, isFinal) => {
      // Who took it over says how it ends.
      const isOurs = !lost.aborted && failure !== undefined && isFinal;
      const isStored =
        !isOurs ||
        (await declare('failed', AbortSignal.timeout(FAILURE_MS)).then(
          () => true,
          () => false,
        ));
      // Whoever comes next must not begin a second checkpoint of a worker that is being ended.
      await (isStored ? lease.release() : lease.abandon());
    },
  };
}

function lostSignal({ lost }: HeldLease): AbortSignal {
  const stop = new AbortController();
  const say = () => stop.abort(new SnapshotError('LEASE_LOST', `${lost.reason}`));
  if (lost.aborted) say();
  else lost.addEventListener('abort', say, { once: true });
  return stop.signal;
}
