import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { SENTINELS } from '../../contract/keys.ts';
import { controlDir, readiness } from '../container/control.ts';
import { readProcess } from '../container/tree.ts';
import type { DumpOptions } from '../criu/options.ts';
import { type DumpStats, readDumpStats } from '../criu/stats.ts';
import { SnapshotError } from '../errors.ts';
import type { CheckpointWanted } from '../plan/decide.ts';
import { publish } from '../store/publish.ts';
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
import { type AgentContext, type OperationRequest, type Outcome, slot, type TooEarly } from './context.ts';
import { completeRecord, draftRecord } from './draft.ts';
import { type Finalized, finalize } from './finalize.ts';
import { runSteps, type Step, type StepTiming } from './steps.ts';
import { reachTarget, type Target } from './target.ts';

type Request = OperationRequest<CheckpointWanted>;

/** How long CRIU's killed tree may take to vanish after a checkpoint that stops the container. */
const STOP_MS = 30_000;
const SIGKILL = 9;

/**
 * One attempt to checkpoint a container. Too early where it is not quiesced yet; otherwise the outcome, which is journalled. A
 * failure before the dump is durable leaves the workload running.
 */
export async function checkpoint(context: AgentContext, request: Request): Promise<Outcome | TooEarly> {
  const target = await reachTarget(context, request);
  try {
    const early = await tooEarly(context, request, target);
    if (early !== undefined) return early;
    const attempt = beginAttempt(context, request, target);
    await attempt.note('started');
    const outcome = (await adopted(context, request, target)) ?? (await capture(context, request, target, attempt));
    if (outcome.failure !== undefined && request.wanted.ofJob) await endJob(context, target, outcome.failure);
    await attempt.end(outcome);
    return outcome;
  } finally {
    await target.release();
  }
}

/** Why the workload cannot be checkpointed yet. */
async function tooEarly(context: AgentContext, request: Request, target: Target): Promise<TooEarly | undefined> {
  const state = await readiness(context.native, target.main.id, target.running.env);
  if (state === 'ready') return undefined;
  if (state === 'not-ready') return { result: 'too-early', reason: `${SENTINELS.ready} is not there yet` };
  const { quiesceDelaySeconds } = context.config.checkpoint;
  const runs = (Date.now() - target.running.startedAtMs) / 1000;
  if (runs >= quiesceDelaySeconds || request.wanted.existing === 'replace') return undefined;
  return { result: 'too-early', reason: `the container has been running for less than ${quiesceDelaySeconds} s` };
}

/** An artifact that is already complete is taken as this checkpoint's, unless the pod asks for a new one. */
async function adopted(context: AgentContext, request: Request, target: Target): Promise<Outcome | undefined> {
  const { checkpointId: id, version, existing } = request.wanted;
  const began = performance.now();
  try {
    const found = await artifactState(target.volume, { id, version, keys: context.keys });
    if (found.state !== 'complete') return undefined;
    requireNamespace(found.artifact.record, request.pod.namespace);
    const isOurs = found.artifact.record.source.containerId === target.running.id;
    if (existing === 'replace' && !isOurs) return undefined;
    await releaseWorker(context, target);
    return {
      result: 'adopted',
      timings: [{ step: 'adopt', seconds: (performance.now() - began) / 1000 }],
      figures: {},
    };
  } catch (error) {
    if (!(error instanceof SnapshotError)) throw error;
    return outcomeOf({ failure: error, failedStep: 'adopt', timings: [] }, {});
  }
}

/** The checkpoint itself: read it as the list of its steps. */
async function capture(context: AgentContext, request: Request, target: Target, attempt: Attempt): Promise<Outcome> {
  const { config, log } = context;
  const subject = slot<Subject>('subject');
  const staging = slot<Staging>('staging');
  const paths = slot<StagingPaths>('paths');
  const dumped = slot<{ frozen: FrozenResult; args: DumpOptions }>('dump');
  const stats = slot<DumpStats>('stats');
  const finalized = slot<Finalized>('finalized');
  const leaveRunning = isLeftRunning(context, request);
  const deadlineMs = config.checkpoint.timeoutSeconds * 1000;
  const timings: StepTiming[] = [];

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
        if (staging.filled) await staging.get().discard();
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
      run: async (signal) => {
        const beforeRelease = async () => {
          if (!leaveRunning) await Promise.all([syncTree(paths.get().raw), syncTree(paths.get().rootfs)]);
        };
        const plan = { paths: paths.get(), leaveRunning, deadlineMs, signal, beforeRelease };
        dumped.set(await dumpTree(context, target, subject.get(), plan));
      },
    },
    leaveRunning
      ? { name: 'resume', run: () => confirmRunning(context, subject.get()) }
      : { name: 'stop', run: () => confirmStopped(subject.get()) },
    {
      name: 'finalize',
      run: async (signal) => {
        for (const name of ['dump.log', 'stats-dump'])
          await copyFile(join(target.workDir, name), join(paths.get().raw, name));
        stats.set(await readDumpStats(join(target.workDir, 'stats-dump')));
        finalized.set(await finalize(context, paths.get(), { deadlineMs, signal }));
      },
    },
    {
      name: 'publish',
      run: async () => {
        const draft = draftRecord(context, request, {
          target,
          subject: subject.get(),
          args: dumped.get().args,
          stats: stats.get(),
        });
        const parts = { finalized: finalized.get(), frozen: dumped.get().frozen, timings };
        await publish({
          volume: target.volume,
          id: request.wanted.checkpointId,
          version: request.wanted.version,
          staging: staging.get(),
          record: completeRecord(draft, parts),
          keys: context.keys,
          mode: request.wanted.existing === 'replace' ? 'replace' : 'new',
        });
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
    defaultDeadlineMs: deadlineMs,
    onStep: attempt.step,
    onTiming: (timing) => timings.push(timing),
  });
  if (subject.filled && subject.get().root !== target.main) subject.get().root.release();
  return outcomeOf(
    result,
    figures(stats.filled ? stats.get() : undefined, finalized.filled ? finalized.get() : undefined),
  );
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

async function confirmRunning(context: AgentContext, subject: Subject): Promise<void> {
  await subject.root.check();
  const process = await readProcess(context.config.host.procRoot, subject.root.id.pid);
  if (process === undefined || 'TtZX'.includes(process.stat.state))
    throw new SnapshotError(
      'DUMP_FAILED',
      `the workload did not go on after the dump: its state is ${process?.stat.state}`,
    );
}

async function confirmStopped(subject: Subject): Promise<void> {
  const timeout = new Promise<'late'>((resolve) => setTimeout(() => resolve('late'), STOP_MS).unref());
  if ((await Promise.race([subject.root.exited, timeout])) === 'late')
    throw new SnapshotError('TARGET_QUARANTINED', `process ${subject.root.id.pid} does not end after CRIU killed it`);
}

/** Tells a worker that follows the contract that its checkpoint is there. A workload without a control directory needs nothing. */
async function releaseWorker(context: AgentContext, target: Target): Promise<void> {
  const { path } = controlDir(target.running.env);
  const { dir } = await context.native.look(target.main.id, path, SENTINELS.complete);
  if (dir) await context.native.put(target.main.id, path, SENTINELS.complete, 'done\n');
}

/** A checkpoint Job exists for nothing else: ending its container makes it fail at once and frees what it holds. */
async function endJob(context: AgentContext, target: Target, failure: SnapshotError): Promise<void> {
  context.log.warn(
    { code: failure.code, containerId: target.running.id },
    'container of the failed checkpoint Job is ended',
  );
  await target.main.signal(SIGKILL).catch(() => undefined);
}
