import type { PodView } from '../../contract/pods.ts';
import type { EventWriter } from '../../kube/events.ts';
import { SnapshotError } from '../errors.ts';
import type { OperationRequest, TooEarly } from '../operations/context.ts';
import { type Claim, isUndeclared, type Over, type Reporter } from '../operations/reporter.ts';
import type { CheckpointWanted, ReportWanted, RestoreStatus, RestoreWanted, WorkerFailed } from '../plan/decide.ts';
import { claimJob, type JobDesk } from './checkpoint-claim.ts';
import { insist, isLasting } from './insist.ts';
import { type Declared, declareJob, type JobPlace } from './job.ts';
import { endedNote, jobFailedNote, repeatedNote, requestedNote, workerFailedNote } from './pod-events.ts';
import { storeRestoreStatus } from './restore-status.ts';

export interface KubeReporterParts extends JobDesk {
  readonly events: Pick<EventWriter, 'write'>;
  /** Ends a container; one that is gone needs nothing. */
  readonly killContainer: (containerId: string) => Promise<void>;
  /** The outcome of an earlier restore was stored only now. */
  readonly onRedriven: () => void;
}

/** How long the end of a restore is insisted on before the next look at the pod does it. */
const STATUS_MS = 5_000;
const NEVER = new AbortController().signal;

/** For a checkpoint that no Job asks for: nobody else can be at work on it, and nobody waits for what is declared. */
const NO_JOB: Claim = {
  lost: NEVER,
  isCompleted: false,
  declareComplete: () => Promise.resolve(),
  end: () => Promise.resolve(),
};

/** Tells the Kubernetes API of operations: the Job of a checkpoint, annotations of a restore's pod, and Events for people. */
export function newKubeReporter(parts: KubeReporterParts): Reporter {
  return new KubeReporter(parts);
}

class KubeReporter implements Reporter {
  readonly #parts: KubeReporterParts;

  constructor(parts: KubeReporterParts) {
    this.#parts = parts;
  }

  async claimCheckpoint(request: OperationRequest<CheckpointWanted>): Promise<Claim | TooEarly | Over> {
    const { pod, wanted, isLastTry } = request;
    const place = wanted.ofJob ? jobOf(pod) : undefined;
    if (place === undefined && wanted.ofJob)
      return { result: 'over', reason: 'the Job that its label names does not own the pod' };
    const claim = place === undefined ? NO_JOB : await claimJob(this.#parts, place, request);
    if ('result' in claim) {
      if (claim.result === 'over' && claim.isFailed) this.#parts.events.write(jobFailedNote(request, claim.reason));
      return claim;
    }
    this.#parts.events.write(requestedNote(request));
    return {
      ...claim,
      end: async (outcome, isFinal) => {
        const mayFollow = isUndeclared(outcome.failure) || (!isLastTry && outcome.failure?.retryable === true);
        const isLast = isFinal || !mayFollow;
        if (isLast && !claim.lost.aborted) this.#parts.events.write(endedNote(request, outcome));
        await claim.end(outcome, isFinal);
      },
    };
  }

  claimRestore(request: OperationRequest<RestoreWanted>): Promise<Claim> {
    const { events } = this.#parts;
    events.write(requestedNote(request));
    // The restore does not wait for it: an API server that is away must not keep a worker down.
    const isOver = new AbortController();
    const told = this.#tell(request, 'in_progress', isOver.signal);
    return Promise.resolve({
      lost: NEVER,
      isCompleted: false,
      declareComplete: () => Promise.resolve(),
      end: async (outcome, isFinal) => {
        if (!isFinal && outcome.failure !== undefined) return;
        events.write(endedNote(request, outcome));
        // What could not be said yet is no news any more.
        isOver.abort();
        await told;
        await this.#tell(request, outcome.failure === undefined ? 'completed' : 'failed', NEVER);
      },
    });
  }

  async workerFailed(pod: PodView, { failed, running }: WorkerFailed): Promise<void> {
    const { events, log, killContainer } = this.#parts;
    const place = jobOf(pod);
    if (place === undefined) return;
    const { status, isNew } = await this.#declareFailed(place);
    // Its checkpoint is complete: what fails afterwards is its own affair.
    if (status === 'completed') return;
    if (isNew) events.write(workerFailedNote(pod, failed));
    for (const { id } of running) {
      log.warn(
        { containerId: id, pod: pod.name, namespace: pod.namespace },
        'container of the failed checkpoint Job is ended',
      );
      await killContainer(id).catch((error: unknown) => {
        if (!(error instanceof SnapshotError && error.code === 'CONTAINER_GONE')) throw error;
      });
    }
  }

  /** A Job that cannot be annotated must not keep the others of its containers running. */
  async #declareFailed(place: JobPlace): Promise<Declared> {
    const { client, log } = this.#parts;
    try {
      return await declareJob(client, place, { status: 'failed', traceId: undefined }, NEVER);
    } catch (err) {
      if (!isLasting(err)) throw err;
      log.warn({ err, job: place.name, namespace: place.namespace }, 'the failed Job cannot be declared so');
      return { status: 'failed', isNew: true };
    }
  }

  async repeat(pod: PodView, decision: ReportWanted): Promise<void> {
    const { container, status } = decision;
    this.#parts.events.write(repeatedNote(pod, decision));
    await storeRestoreStatus(this.#parts.client, pod, { container, status }, NEVER);
    this.#parts.onRedriven();
  }

  /** Never rejects: the journal knows it as well, and the next look at the pod stores what is missing. */
  async #tell(
    { pod, wanted, fingerprint }: OperationRequest<RestoreWanted>,
    status: RestoreStatus,
    end: AbortSignal,
  ): Promise<void> {
    // A caller watches its own operation: the pod may not even have asked for it.
    if (fingerprint !== '') return;
    const { client, log } = this.#parts;
    const { container } = wanted;
    const signal = AbortSignal.any([end, AbortSignal.timeout(STATUS_MS)]);
    const onFailure = (err: Error) => log.warn({ err, pod: pod.name, status }, 'the pod is not told yet');
    const object = `Pod ${pod.namespace}/${pod.name}`;
    const store = () => storeRestoreStatus(client, pod, { container, status }, signal);
    await insist(store, { object, signal, onFailure }).catch(() => undefined);
  }
}

/** The Job that owns a pod. One that is only named by the pod's label is another, made later or by somebody else. */
function jobOf({ namespace, kubernetes }: PodView): JobPlace | undefined {
  const job = kubernetes?.job;
  return job === undefined || job.uid === '' ? undefined : { namespace, ...job };
}
