import { copyFile, mkdir, readdir } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { SENTINELS } from '../../contract/keys.ts';
import { readiness } from '../container/control.ts';
import { type DumpStats, readDumpStats } from '../criu/stats.ts';
import { asSnapshotError, SnapshotError } from '../errors.ts';
import type { CheckpointWanted } from '../plan/decide.ts';
import { refuseToDisplace } from '../store/publish.ts';
import { requireRecordable } from '../store/record.ts';
import { makeStaging, type Staging } from '../store/staging.ts';
import { syncTree } from '../store/sync.ts';
import { artifactState, requireNamespace } from '../store/verify.ts';
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
import { publishPending } from './completion.ts';
import { type AgentContext, type OperationRequest, type Outcome, slot, type TooEarly } from './context.ts';
import { draftRecord } from './draft.ts';
import { type Finalized, finalize } from './finalize.ts';
import { sweepVolume } from './housekeeping.ts';
import { dropPending, type Pending, savePending } from './pending.ts';
import { QUICK_STEP_MS, runSteps, type Step, type StepTiming } from './steps.ts';
import { reachTarget, type Target } from './target.ts';
import { confirmRunning, confirmStopped, endJob, isFinal, isRunning, releaseWorker } from './workload.ts';

type Request = OperationRequest<CheckpointWanted>;

/**
 * One attempt to checkpoint a container. Too early where it is not quiesced yet; otherwise the outcome, which is journalled. A
 * failure before the dump is durable leaves the workload running.
 */
export async function checkpoint(context: AgentContext, request: Request): Promise<Outcome | TooEarly> {
  try {
    return await checkpointOnce(context, request);
  } catch (error) {
    // Nothing was begun: the container or the volume could not be reached as they must be. A Job would wait for its deadline.
    const failure = asSnapshotError(error);
    if (isFinal(failure, request)) await endJob(context, request, failure);
    throw failure;
  }
}

async function checkpointOnce(context: AgentContext, request: Request): Promise<Outcome | TooEarly> {
  const target = await reachTarget(context, request);
  try {
    const early = await tooEarly(context, target);
    if (early !== undefined) return early;
    const attempt = beginAttempt(context, request, target);
    await attempt.note('started');
    const outcome = (await adopted(context, request, target)) ?? (await capture(context, request, target, attempt));
    if (outcome.failure !== undefined && isFinal(outcome.failure, request))
      await endJob(context, request, outcome.failure);
    await attempt.end(outcome);
    if (context.config.storage.accessMode === 'podMount') await sweepVolume(context, target.volume);
    return outcome;
  } finally {
    await target.release();
  }
}

/** Why the workload cannot be checkpointed yet. */
async function tooEarly(context: AgentContext, target: Target): Promise<TooEarly | undefined> {
  const state = await readiness(context.native, target.main.id, target.running.env);
  if (state === 'ready') return undefined;
  if (state === 'not-ready') return { result: 'too-early', reason: `${SENTINELS.ready} is not there yet` };
  const { quiesceDelaySeconds } = context.config.checkpoint;
  const runs = (Date.now() - target.running.startedAtMs) / 1000;
  if (runs >= quiesceDelaySeconds) return undefined;
  return { result: 'too-early', reason: `the container has been running for less than ${quiesceDelaySeconds} s` };
}

/** An artifact that is already complete is taken as this checkpoint's, unless the pod asks for a new one. */
async function adopted(context: AgentContext, request: Request, target: Target): Promise<Outcome | undefined> {
  const { checkpointId: id, version, existing } = request.wanted;
  const began = performance.now();
  try {
    const found = await artifactState(target.volume, { id, version, keys: context.keys });
    const mode = existing === 'replace' ? 'replace' : 'new';
    if (found.state !== 'complete') {
      // Known now, before anything is frozen or stopped: publishing would be refused.
      refuseToDisplace(found, { id, version, mode, namespace: request.pod.namespace });
      return undefined;
    }
    requireNamespace(found.artifact.record, request.pod.namespace);
    const isOurs = found.artifact.record.source.containerId === target.running.id;
    if (existing === 'replace' && !isOurs) return undefined;
    await releaseWorker(context, target);
    return {
      result: 'adopted',
      timings: [...target.timings, { step: 'adopt', seconds: (performance.now() - began) / 1000 }],
      figures: {},
    };
  } catch (error) {
    if (!(error instanceof SnapshotError)) throw error;
    return outcomeOf({ failure: error, failedStep: 'adopt', timings: target.timings }, {});
  }
}

/** The checkpoint itself: read it as the list of its steps. */
async function capture(context: AgentContext, request: Request, target: Target, attempt: Attempt): Promise<Outcome> {
  const { config, log } = context;
  const subject = slot<Subject>('subject');
  const staging = slot<Staging>('staging');
  const paths = slot<StagingPaths>('paths');
  const stats = slot<DumpStats>('stats');
  const finalized = slot<Finalized>('finalized');
  const leaveRunning = isLeftRunning(context, request);
  const deadlineMs = config.checkpoint.timeoutSeconds * 1000;
  const pending = slot<Pending>('pending');
  const timings: StepTiming[] = [...target.timings];
  let isEnded = false;

  const steps: Step[] = [
    {
      name: 'inspect',
      run: async () => {
        subject.set(await inspect(context, target));
      },
    },
    { name: 'preflight', run: () => requireFit(context, target, subject.get()) },
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
        const state = await readiness(context.native, target.main.id, target.running.env);
        if (state === 'not-ready')
          throw new SnapshotError('QUIESCE_TIMEOUT', `${SENTINELS.ready} was there and is not any more`);
      },
    },
    {
      name: 'criu-dump',
      deadlineMs,
      run: async (signal) => {
        const beforeRelease = async (frozen: FrozenResult) => {
          const { path } = staging.get();
          pending.set(pendingOf(context, request, { target, subject: subject.get(), frozen, path, leaveRunning }));
          requireRecordable(pending.get().draft, (await readdir(paths.get().raw)).length);
          if (leaveRunning) return;
          // CRIU ends the workload next: by then its images are durable, and so is the note that says how to finish.
          await Promise.all([syncTree(paths.get().raw), syncTree(paths.get().rootfs)]);
          await savePending(config.paths.stateDir, pending.get());
        };
        await dumpTree(context, target, subject.get(), {
          paths: paths.get(),
          leaveRunning,
          deadlineMs,
          signal,
          beforeRelease,
        });
        // CRIU has killed it, however long it takes to vanish.
        isEnded = !leaveRunning;
      },
    },
    leaveRunning
      ? { name: 'resume', run: () => confirmRunning(context, subject.get()) }
      : { name: 'stop', run: () => confirmStopped(subject.get()) },
    {
      name: 'finalize',
      deadlineMs,
      run: async (signal) => {
        stats.set(await readDumpStats(join(target.workDir, 'stats-dump')));
        const { freezingSeconds, frozenSeconds } = stats.get();
        const { draft, ...rest } = pending.get();
        pending.set({ ...rest, draft: { ...draft, pauseSeconds: freezingSeconds + frozenSeconds } });
        for (const name of ['dump.log', 'stats-dump'])
          await copyFile(join(target.workDir, name), join(paths.get().raw, name));
        const beforeDrop = leaveRunning
          ? undefined
          : (done: Finalized) => savePending(config.paths.stateDir, { ...pending.get(), finalized: done });
        finalized.set(await finalize(context, paths.get(), { deadlineMs, signal, beforeDrop }));
      },
    },
    {
      name: 'publish',
      deadlineMs,
      run: async () => {
        const parts = { staging: staging.get(), pending: pending.get(), finalized: finalized.get(), timings };
        await publishPending(context, { volume: target.volume, ...parts });
        await dropPending(config.paths.stateDir, request.operationId);
      },
    },
    {
      name: 'release',
      run: async () => {
        if (leaveRunning) await releaseWorker(context, target);
      },
    },
  ];
  const result = await runSteps(steps, {
    signal: request.signal,
    log,
    defaultDeadlineMs: QUICK_STEP_MS,
    before: target.timings,
    onStep: attempt.step,
    onTiming: (timing) => timings.push(timing),
  });
  if (subject.filled && subject.get().root !== target.main) subject.get().root.release();
  return outcomeOf(
    result,
    figures(stats.filled ? stats.get() : undefined, finalized.filled ? finalized.get() : undefined),
  );
}

/** What it takes to finish this checkpoint once the workload is dumped. */
function pendingOf(
  context: AgentContext,
  request: Request,
  seen: { target: Target; subject: Subject; frozen: FrozenResult; path: string; leaveRunning: boolean },
): Pending {
  const { target, subject, frozen, leaveRunning } = seen;
  return {
    operationId: request.operationId,
    id: request.wanted.checkpointId,
    version: request.wanted.version,
    root: subject.root.id,
    mode: request.wanted.existing === 'replace' ? 'replace' : 'new',
    staging: relative(target.volume.root, seen.path),
    draft: draftRecord(context, request, { target, subject, leaveRunning }),
    rootfsBytes: frozen.rootfs.bytes,
    shmBytes: frozen.shm?.bytes ?? 0,
  };
}

function figures(stats: DumpStats | undefined, finalized: Finalized | undefined): Record<string, number> {
  return {
    ...(stats && { pauseSeconds: stats.freezingSeconds + stats.frozenSeconds }),
    ...(finalized && {
      criuBytes: finalized.criuBytes,
      bulkBytes: finalized.bulk?.bytes ?? 0,
      zeroBytes: finalized.zeroBytes,
    }),
  };
}

/** A Job's worker always goes on: it ends by itself when it is released. Otherwise the pod decides, or the configuration. */
function isLeftRunning(context: AgentContext, { wanted }: Request): boolean {
  if (wanted.ofJob) return true;
  return wanted.after === undefined ? context.config.criu.leaveRunning : wanted.after === 'resume';
}
