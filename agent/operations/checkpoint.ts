import { copyFile, mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { SENTINELS } from '../../contract/keys.ts';
import { readiness } from '../container/control.ts';
import { type DumpStats, readDumpStats } from '../criu/stats.ts';
import type { CudaHold } from '../cuda/hold.ts';
import { patienceMs } from '../cuda/limits.ts';
import { asSnapshotError, SnapshotError } from '../errors.ts';
import type { CheckpointWanted } from '../plan/decide.ts';
import { requireRecordable } from '../store/record.ts';
import { makeStaging, type Staging } from '../store/staging.ts';
import { syncTree } from '../store/sync.ts';
import { adopted, notQuiesced } from './adoption.ts';
import { type Attempt, beginAttempt, outcomeOf } from './attempt.ts';
import {
  dumpTree,
  type FrozenResult,
  inspect,
  requireFit,
  type StagingPaths,
  type Subject,
  stagingPaths,
} from './capture.ts';
import { captureFigures, pendingOf, withOutcome } from './captured.ts';
import { publishPending } from './completion.ts';
import { type AgentContext, type Attempted, type OperationRequest, type Outcome, slot } from './context.ts';
import { comeBack, holdCuda, undoHold, withComeback } from './cuda-hold.ts';
import { type Finalized, finalize } from './finalize.ts';
import { tidyVolume } from './housekeeping.ts';
import { dropPending, type Pending, savePending } from './pending.ts';
import { whileGrowing } from './progress.ts';
import type { Claim } from './reporter.ts';
import { QUICK_STEP_MS, runSteps, type Step, type StepTiming } from './steps.ts';
import { reachTarget, type Target } from './target.ts';
import { confirmRunning, confirmStopped, endJob, endWorkload, isFinal, isRunning, releaseWorker } from './workload.ts';

type Request = OperationRequest<CheckpointWanted>;

/**
 * One attempt to checkpoint a container. Too early where it is not quiesced yet; otherwise the outcome, which is journalled. A
 * failure before the dump is durable leaves the workload running.
 */
export async function checkpoint(context: AgentContext, request: Request): Promise<Attempted> {
  try {
    return await checkpointOnce(context, request);
  } catch (error) {
    // Nothing was begun: the container or the volume could not be reached as they must be. A Job would wait for its deadline.
    const failure = asSnapshotError(error);
    if (isFinal(failure, request)) {
      const claim = await context.reporter.claimCheckpoint(request);
      const outcome = { ...outcomeOf({ failure, failedStep: 'reach', timings: [] }, {}) };
      if (!('result' in claim)) await claim.end(outcome, true);
      await endJob(context, request, failure);
    }
    throw failure;
  }
}

async function checkpointOnce(context: AgentContext, request: Request): Promise<Attempted> {
  const target = await reachTarget(context, request);
  try {
    const early = await notQuiesced(context, request, target);
    if (early !== undefined) return early;
    const claim = await context.reporter.claimCheckpoint(request);
    if ('result' in claim) {
      // A Job that was declared failed is good for nothing any more.
      if (claim.result === 'over' && claim.isFailed)
        await endJob(context, request, new SnapshotError('JOB_FAILED', claim.reason));
      return claim;
    }
    const attempt = beginAttempt(context, request, target, claim);
    await attempt.note('started');
    const outcome =
      (await adopted(context, request, { target, attempt, claim })) ??
      (await capture(context, request, { target, attempt, claim }));
    // Whoever took the Job over says how it ends, whatever happened here at the same time.
    const isOver =
      outcome.failure !== undefined && !claim.lost.aborted && isFinal(outcome.failure, request, attempt.signal);
    // Told before the container is ended: whoever dies in between finds a Job that is declared failed, and ends it.
    if (outcome.failure !== undefined) await claim.end(outcome, isOver);
    if (outcome.failure !== undefined && isOver) await endJob(context, request, outcome.failure);
    await attempt.end(outcome);
    if (outcome.failure === undefined) await claim.end(outcome, true);
    if (context.config.storage.accessMode === 'podMount') await tidyVolume(context, target.volume, request.signal);
    return outcome;
  } finally {
    await target.release();
  }
}

/** The checkpoint itself: read it as the list of its steps. */
async function capture(
  context: AgentContext,
  request: Request,
  { target, attempt, claim }: { target: Target; attempt: Attempt; claim: Claim },
): Promise<Outcome> {
  const { config, log } = context;
  const subject = slot<Subject>('subject');
  const hold = slot<CudaHold>('CUDA processes');
  const staging = slot<Staging>('staging');
  const paths = slot<StagingPaths>('paths');
  const stats = slot<DumpStats>('stats');
  const finalized = slot<Finalized>('finalized');
  const leaveRunning = isLeftRunning(context, request);
  // A workload that is to be stopped goes on after the dump where it is to show first that its CUDA state can be restored.
  const provesFirst = () => !leaveRunning && hold.filled && config.cuda.proveRestore === 'always';
  const deadlineMs = config.checkpoint.timeoutSeconds * 1000;
  const comebackMs = deadlineMs + patienceMs(config.cuda);
  const pending = slot<Pending>('pending');
  const timings: StepTiming[] = [...target.timings];
  let isEnded = false;
  // Before the workload is ended: its images, and the note that says how to finish.
  const makeDurable = async () => {
    await Promise.all([syncTree(paths.get().raw), syncTree(paths.get().rootfs)]);
    await savePending(config.paths.stateDir, pending.get());
  };

  const steps: Step[] = [
    {
      name: 'inspect',
      run: async () => {
        subject.set(await inspect(context, target));
      },
    },
    {
      name: 'preflight',
      run: (signal) => requireFit(context, { target, subject: subject.get() }, { mayCollect: true, signal }),
    },
    {
      name: 'stage',
      run: async () => {
        const operation = { node: context.node.name, bootId: context.node.bootId, operationId: request.operationId };
        const { checkpointId: id, version } = request.wanted;
        staging.set(await makeStaging({ volume: target.volume, id, version, operation }));
        paths.set(stagingPaths(staging.get().path));
        await mkdir(paths.get().raw, { mode: 0o700 });
        await mkdir(paths.get().rootfs, { mode: 0o700 });
      },
      undo: async () => {
        if (!staging.filled) return;
        // A stopped workload's images are all that is left of it: they are kept, to be finished later.
        if (pending.filled && !leaveRunning && (isEnded || !(await isRunning(context, subject.get()))))
          await staging.get().release();
        else await Promise.all([staging.get().discard(), dropPending(config.paths.stateDir, request.operationId)]);
      },
    },
    {
      name: 'quiesced',
      run: async () => {
        if (request.pod.kubernetes !== undefined) return;
        const state = await readiness(context.native, target.main.id, target.running.env);
        if (state === 'not-ready')
          throw new SnapshotError('QUIESCE_TIMEOUT', `${SENTINELS.ready} was there and is not any more`);
      },
    },
    {
      name: 'cuda-lock',
      deadlineMs,
      run: async (signal) => {
        const { cuda } = subject.get();
        if (cuda !== undefined) await hold.set(holdCuda(context, attempt, subject.get())).lock(cuda.processes, signal);
      },
      undoMs: comebackMs,
      undo: async () => (hold.filled && !isEnded ? await undoHold(context, hold.get(), request) : undefined),
    },
    {
      name: 'cuda-checkpoint',
      deadlineMs,
      run: async (signal) => {
        if (hold.filled) await hold.get().checkpoint(signal);
      },
    },
    {
      name: 'criu-dump',
      deadlineMs,
      run: async (signal) => {
        const goesOn = leaveRunning || provesFirst();
        const beforeRelease = async (frozen: FrozenResult) => {
          const seen = { target, subject: subject.get(), hold: hold.filled ? hold.get() : undefined };
          const { path } = staging.get();
          pending.set(pendingOf(context, request, { ...seen, frozen, path, leaveRunning: goesOn }));
          requireRecordable(pending.get().draft, (await readdir(paths.get().raw)).length);
          if (!goesOn) await makeDurable();
        };
        const { raw } = paths.get();
        await whileGrowing(
          raw,
          (bytes) => attempt.progress(bytes, subject.get().ownBytes),
          () =>
            dumpTree(context, target, subject.get(), {
              paths: paths.get(),
              leaveRunning: goesOn,
              deadlineMs,
              signal,
              beforeRelease,
            }),
        );
        // CRIU has killed it, however long it takes to vanish.
        isEnded = !goesOn;
      },
    },
    leaveRunning
      ? {
          name: 'resume',
          deadlineMs: comebackMs,
          run: async () => {
            if (hold.filled) await comeBack(hold.get());
            await confirmRunning(context, subject.get());
          },
        }
      : {
          name: 'stop',
          deadlineMs: comebackMs,
          cancel: 'too-late',
          run: async () => {
            if (provesFirst()) {
              await comeBack(hold.get());
              await makeDurable();
              isEnded = true;
              await endWorkload(subject.get());
            }
            await confirmStopped(subject.get());
          },
        },
    {
      name: 'finalize',
      deadlineMs,
      // A workload that was ended has nothing to go back to: what was captured is all that is left of it.
      cancel: leaveRunning ? 'undone' : 'too-late',
      run: async (untilCancelled) => {
        const signal = AbortSignal.any([untilCancelled, request.signal]);
        stats.set(await readDumpStats(join(target.workDir, 'stats-dump')));
        pending.set(withOutcome(pending.get(), stats.get(), hold.filled ? hold.get() : undefined));
        for (const name of ['dump.log', 'stats-dump'])
          await copyFile(join(target.workDir, name), join(paths.get().raw, name));
        const beforeDrop = leaveRunning
          ? undefined
          : (done: Finalized) => savePending(config.paths.stateDir, { ...pending.get(), finalized: done });
        const { memory } = paths.get();
        finalized.set(
          await whileGrowing(
            memory,
            (bytes) => attempt.progress(bytes, subject.get().ownBytes),
            () => finalize(context, paths.get(), { deadlineMs, signal, beforeDrop }),
          ),
        );
      },
    },
    {
      name: 'publish',
      deadlineMs,
      cancel: 'too-late',
      run: async () => {
        const parts = { staging: staging.get(), pending: pending.get(), finalized: finalized.get(), timings };
        await publishPending(context, { volume: target.volume, ...parts });
        await dropPending(config.paths.stateDir, request.operationId);
      },
    },
    {
      // Before the worker is released: whoever sees its Job end must find out why.
      name: 'announce',
      cancel: 'too-late',
      run: (signal) => claim.declareComplete(AbortSignal.any([signal, request.signal])),
    },
    {
      name: 'release',
      cancel: 'too-late',
      run: () => (leaveRunning ? releaseWorker(context, target) : Promise.resolve()),
    },
  ];
  const result = await runSteps(steps, {
    signal: attempt.signal,
    log,
    defaultDeadlineMs: QUICK_STEP_MS,
    before: target.timings,
    onStep: attempt.step,
    onTiming: (timing) => {
      timings.push(timing);
      attempt.timing(timing);
    },
  });
  if (subject.filled && subject.get().root !== target.main) subject.get().root.release();
  const held = hold.filled ? hold.get() : undefined;
  return outcomeOf(
    { ...result, failure: withComeback(result.failure, held) },
    captureFigures(
      stats.filled ? stats.get() : undefined,
      finalized.filled ? finalized.get() : undefined,
      pending.filled ? pending.get() : undefined,
      held,
    ),
  );
}

/** A Job's worker always goes on: it ends by itself when it is released. Otherwise the pod decides, or the configuration. */
function isLeftRunning(context: AgentContext, { wanted }: Request): boolean {
  if (wanted.ofJob) return true;
  return wanted.after === undefined ? context.config.criu.leaveRunning : wanted.after === 'resume';
}
