import { SENTINELS } from '../../contract/keys.ts';
import { hostFile, readiness } from '../container/control.ts';
import { SnapshotError } from '../errors.ts';
import type { CheckpointWanted } from '../plan/decide.ts';
import type { ArtifactName } from '../store/paths.ts';
import { refuseToDisplace } from '../store/publish.ts';
import { noteUse } from '../store/readers.ts';
import { artifactState, requireNamespace } from '../store/verify.ts';
import { type Attempt, outcomeOf } from './attempt.ts';
import type { AgentContext, OperationRequest, Outcome, TooEarly } from './context.ts';
import type { Claim } from './reporter.ts';
import { QUICK_STEP_MS, runSteps, type Step } from './steps.ts';
import type { Target } from './target.ts';
import { releaseWorker } from './workload.ts';

type Request = OperationRequest<CheckpointWanted>;

interface AdoptionParts {
  readonly target: Target;
  readonly attempt: Attempt;
  readonly claim: Claim;
}

/** Why the workload cannot be checkpointed yet. In a cluster the Ready condition has said that it can. */
export async function notQuiesced(
  context: AgentContext,
  request: Request,
  target: Target,
): Promise<TooEarly | undefined> {
  if (request.pod.kubernetes !== undefined) return undefined;
  const state = await readiness(context.native, target.main.id, target.running.env);
  if (state === 'ready') return undefined;
  const code = 'QUIESCE_TIMEOUT';
  if (state === 'not-ready')
    return {
      result: 'too-early',
      reason: `${SENTINELS.ready} is not there yet`,
      code,
      file: hostFile(target.running, SENTINELS.ready),
    };
  const { quiesceDelaySeconds } = context.config.checkpoint;
  const runs = (Date.now() - target.running.startedAtMs) / 1000;
  if (runs >= quiesceDelaySeconds) return undefined;
  return { result: 'too-early', reason: `the container has been running for less than ${quiesceDelaySeconds} s`, code };
}

/** An artifact that is already complete is taken as this checkpoint's, unless the pod asks for a new one. */
export async function adopted(
  context: AgentContext,
  request: Request,
  parts: AdoptionParts,
): Promise<Outcome | undefined> {
  const { target, claim } = parts;
  const { checkpointId: id, version, existing } = request.wanted;
  try {
    const found = await artifactState(target.volume, { id, version, keys: context.keys });
    const mode = existing === 'replace' ? 'replace' : 'new';
    if (found.state !== 'complete') {
      // Known now, before anything is frozen or stopped: publishing would be refused.
      refuseToDisplace(found, { id, version, mode, namespace: request.pod.namespace });
      requireOpenJob(claim, id);
      return undefined;
    }
    requireNamespace(found.artifact.record, request.pod.namespace);
    const isOurs = found.artifact.record.source.containerId === target.running.id;
    if (existing === 'replace' && !isOurs) {
      requireOpenJob(claim, id);
      return undefined;
    }
    return await adopt(context, { id, version }, parts);
  } catch (error) {
    if (!(error instanceof SnapshotError)) throw error;
    return outcomeOf({ failure: error, failedStep: 'adopt', timings: target.timings }, {});
  }
}

async function adopt(context: AgentContext, name: ArtifactName, parts: AdoptionParts): Promise<Outcome> {
  const { target, attempt, claim } = parts;
  const steps: Step[] = [
    {
      name: 'adopt',
      run: async (signal) => {
        // Used: it must not be too old for its restore, which this checkpoint was asked for.
        await noteUse(target.volume, name);
        await claim.declareComplete(signal);
      },
    },
    { name: 'release', cancel: 'too-late', run: () => releaseWorker(context, target) },
  ];
  const result = await runSteps(steps, {
    signal: attempt.signal,
    log: context.log,
    defaultDeadlineMs: QUICK_STEP_MS,
    before: target.timings,
    onStep: attempt.step,
    onTiming: attempt.timing,
  });
  if (result.failure !== undefined) return outcomeOf(result, {});
  return { result: 'adopted', timings: result.timings, figures: {} };
}

/** A Job that was declared complete gets no second checkpoint: what it was declared for was deleted since, or is another's. */
function requireOpenJob(claim: Claim, id: string): void {
  if (!claim.isCompleted) return;
  throw new SnapshotError(
    'JOB_FAILED',
    `the Job says that its checkpoint ${id} is complete, but the artifact is not there`,
  );
}
