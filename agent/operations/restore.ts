import { SENTINELS } from '../../contract/keys.ts';
import { controlDir, restoreCompleteText } from '../container/control.ts';
import { type Adoption, adopt, holdTerm, type RestoredContainer } from '../container/life.ts';
import { type PinnedProcess, pinProcess } from '../container/pinned.ts';
import { type Placeholder, readPlaceholder } from '../container/placeholder.ts';
import { confirmRunning, type Revival, restoreAll, unlockAll } from '../cuda/revival.ts';
import { asSnapshotError } from '../errors.ts';
import type { ProcessId } from '../host/native.ts';
import type { RestoreWanted } from '../plan/decide.ts';
import { holdReader, type ReaderHold } from '../store/readers.ts';
import { type Artifact, readArtifact } from '../store/verify.ts';
import { type Attempt, beginAttempt, mayRetry, outcomeOf } from './attempt.ts';
import { type AgentContext, type Attempted, type OperationRequest, type Outcome, slot } from './context.ts';
import { type CudaMatch, deviceBytesOf, graftGpus, matchCuda, revivalOf } from './cuda-target.ts';
import { tidyVolume } from './housekeeping.ts';
import { notReady, requireNotRefusedBefore } from './restore-conditions.ts';
import {
  applyFiles,
  fillMemory,
  type Images,
  type Revived,
  requireHarmless,
  requireMatch,
  revive,
  takeImages,
} from './revive.ts';
import { QUICK_STEP_MS, runSteps, type Step, together } from './steps.ts';
import { reachTarget, type Target } from './target.ts';
import { confirmAlive, endContainer, haltContainer, wakeTasks, wakeTree } from './target-tasks.ts';

type Request = OperationRequest<RestoreWanted>;

/** A container whose restored process is to be guarded from now on. The pins stay held. */
export interface Restored extends RestoredContainer {
  readonly operationId: string;
  readonly adoption: Adoption;
}

/**
 * One attempt to restore an artifact into a placeholder container. Too early where the artifact is not there yet. Whatever is refused
 * is refused before anything is touched; a failure after that ends the container. `onRestored` takes the container over.
 */
export async function restoreContainer(
  context: AgentContext,
  request: Request,
  onRestored: (restored: Restored) => void,
): Promise<Attempted> {
  try {
    return await restoreOnce(context, request, onRestored);
  } catch (error) {
    // Nothing was begun: the container or the volume could not be reached as they must be. The pod must say so all the same.
    const failure = asSnapshotError(error);
    if (request.isLastTry || !failure.retryable) {
      const claim = await context.reporter.claimRestore(request);
      const outcome = outcomeOf({ failure, failedStep: 'reach', timings: [] }, {});
      if (!('result' in claim)) await claim.end(outcome, true);
    }
    throw failure;
  }
}

async function restoreOnce(
  context: AgentContext,
  request: Request,
  onRestored: (restored: Restored) => void,
): Promise<Attempted> {
  const target = await reachTarget(context, request);
  try {
    const early = await notReady(context, request, target);
    if (early !== undefined) return early;
    const claim = await context.reporter.claimRestore(request);
    if ('result' in claim) return claim;
    const attempt = beginAttempt(context, request, target, claim);
    await attempt.note('started');
    const { outcome, restored, details, letGo } = await perform(context, request, target, attempt);
    // First the guard: the container needs it even where the journal cannot be written, or the storage has gone meanwhile.
    if (restored !== undefined) onRestored(restored);
    try {
      await attempt.end(outcome, details);
    } finally {
      await letGo().catch((err: unknown) => context.log.warn({ err }, 'the artifact is still marked as read'));
    }
    await claim.end(outcome, request.isLastTry || !mayRetry(outcome, attempt));
    if (context.config.storage.accessMode === 'podMount') await tidyVolume(context, target.volume, request.signal);
    return outcome;
  } finally {
    await target.release();
  }
}

interface Performed {
  readonly outcome: Outcome;
  readonly restored: Restored | undefined;
  readonly details: Record<string, unknown>;
  /** Ends the hold on the artifact. */
  readonly letGo: () => Promise<void>;
}

/** The restore itself: read it as the list of its steps. */
async function perform(context: AgentContext, request: Request, target: Target, attempt: Attempt): Promise<Performed> {
  const { config, native, log } = context;
  const { checkpointId: id, version } = request.wanted;
  const hold = slot<ReaderHold>('reader');
  const artifact = slot<Artifact>('artifact');
  const placeholder = slot<Placeholder>('placeholder');
  const images = slot<Images>('images');
  const halted = new Map<number, ProcessId>();
  const revived = slot<Revived>('revived tree');
  const root = slot<PinnedProcess>('restored root');
  const restored = slot<Restored>('restored container');
  const cuda = slot<CudaMatch>('GPUs');
  const revival = slot<Revival | undefined>('CUDA processes');
  const deadlineMs = config.restore.restoreTimeoutSeconds * 1000;
  let isTouched = false;
  let isOnGpu = false;
  let filledBytes = 0;
  let isPrefetched = true;
  const prefetch = new AbortController();
  // Ahead of the calls: while CRIU works the driver has time to come up.
  const prepareCuda = () => context.cuda.prepare(artifact.get().record.cuda?.processes.length ?? 0);

  const steps: Step[] = [
    {
      name: 'verify',
      run: async () => {
        const operation = { node: context.node.name, bootId: context.node.bootId, operationId: request.operationId };
        const [{ directory }, seen] = await together([
          // Noted by itself: the hold must end even where the placeholder cannot be read.
          holdReader(target.volume, { id, version, operation }).then(hold.set),
          readPlaceholder(native, target.main.id).then(placeholder.set),
        ]);
        const query = { id, version, keys: context.keys, namespace: request.pod.namespace, directory };
        artifact.set(await readArtifact(target.volume, query));
        requireNotRefusedBefore(context, request, artifact.get());
        cuda.set(await matchCuda(context, target, artifact.get().record));
        requireMatch(context, target, { artifact: artifact.get(), placeholder: seen, cuda: cuda.get() });
        prepareCuda();
      },
    },
    {
      name: 'prefetch',
      run: async () => {
        if (artifact.get().record.bulk === null) return;
        // Runs beside all that follows; the fill reads what is not there yet by itself, so that a failure here means nothing.
        const file = `${hold.get().directory}/memory/bulk.pages`;
        const limits = { deadlineMs, signal: prefetch.signal };
        native.prefetch([file], context.node.threads, limits).catch((err: unknown) => {
          if (prefetch.signal.aborted) return;
          isPrefetched = false;
          log.debug({ err }, 'prefetch failed');
        });
      },
    },
    {
      name: 'images',
      deadlineMs,
      run: async () => {
        images.set(await takeImages(target, artifact.get(), hold.get().directory));
        await requireHarmless(images.get(), artifact.get(), placeholder.get());
      },
    },
    {
      name: 'halt',
      run: async () => {
        // A sentinel of an earlier restore: the emptyDir it lies in outlives containers. A control directory that is not safe ends it here.
        const { path } = controlDir(target.running.env);
        await together([
          native.remove(target.main.id, path, SENTINELS.restored),
          haltContainer(context, target, halted),
        ]);
      },
      undo: async () => {
        if (!isTouched) await wakeTasks(context, [...halted.values()]);
      },
    },
    {
      name: 'rootfs',
      deadlineMs,
      cancel: 'ends-container',
      run: async (signal) => {
        await attempt.note('point-of-no-return');
        isTouched = true;
        const parts = { images: images.get(), artifact: artifact.get(), placeholder: placeholder.get() };
        await together([applyFiles(context, target, parts, { deadlineMs, signal }), holdTerm(native, target.main.id)]);
      },
      undo: async () => {
        if (isTouched) await endContainer(context, target);
      },
    },
    {
      name: 'criu-restore',
      deadlineMs,
      cancel: 'ends-container',
      run: async (signal) => {
        revived.set(await revive(context, target, images.get(), artifact.get(), { deadlineMs, signal }));
        await graftGpus(context, target, placeholder.get(), revived.get());
      },
    },
    {
      name: 'fill',
      deadlineMs,
      cancel: 'ends-container',
      run: async (signal) => {
        const { directory } = hold.get();
        const totalBytes = artifact.get().record.bulk?.bytes ?? 0;
        const onProgress = (bytes: number) => attempt.progress(bytes, totalBytes);
        const parts = { directory, images: images.get(), revived: revived.get(), deadlineMs, signal, onProgress };
        const { root: id } = revived.get();
        const [, bytes] = await together([
          pinProcess(native, id.pid, id.start).then(root.set),
          fillMemory(context, artifact.get(), parts),
        ]);
        filledBytes = bytes;
      },
    },
    {
      name: 'adopt',
      cancel: 'ends-container',
      run: async () => {
        const { innerPid } = revived.get();
        const pins = { placeholder: target.main, root: root.get() };
        const container = { containerId: target.running.id, ...pins, innerPid };
        revival.set(revivalOf(context, artifact.get().record, revived.get()));
        prepareCuda();
        const adoption = await adopt(native, container, [...halted.values()]);
        restored.set({ ...container, operationId: request.operationId, adoption });
      },
    },
    { name: 'continue', cancel: 'too-late', run: () => wakeTree(context, images.get(), revived.get()) },
    {
      name: 'cuda-restore',
      deadlineMs,
      cancel: 'too-late',
      run: async () => {
        const { pairs } = cuda.get();
        await ifCuda(revival.get(), (processes) => restoreAll(processes, pairs));
        isOnGpu = revival.get() !== undefined;
      },
    },
    { name: 'cuda-unlock', deadlineMs, cancel: 'too-late', run: () => ifCuda(revival.get(), unlockAll) },
    {
      name: 'confirm',
      deadlineMs,
      cancel: 'too-late',
      run: async () => {
        await confirmAlive(context, revived.get());
        await ifCuda(revival.get(), confirmRunning);
        await attempt.note('armed', guardDetails(restored.get(), controlDir(target.running.env).path));
      },
    },
    {
      name: 'release',
      cancel: 'too-late',
      run: async () => {
        const { path } = controlDir(target.running.env);
        const isThere =
          placeholder.get().mountPoints.includes(path) ||
          (await native.look(target.main.id, path, SENTINELS.restored)).dir;
        const text = restoreCompleteText(request.operationId, `${id}/${version}`);
        if (isThere) await native.put(target.main.id, path, SENTINELS.restored, text);
      },
    },
  ];
  const result = await runSteps(steps, {
    signal: attempt.signal,
    log,
    defaultDeadlineMs: QUICK_STEP_MS,
    before: target.timings,
    onStep: attempt.step,
    onTiming: attempt.timing,
  });
  prefetch.abort();
  const letGo = async () => {
    if (hold.filled) await hold.get().stop();
  };
  const figures = {
    filledBytes,
    ...(isOnGpu ? { deviceBytes: deviceBytesOf(artifact.get().record) } : {}),
    ...(artifact.filled ? { criuBytes: artifact.get().record.sizes.criuBytes } : {}),
    ...(isPrefetched ? {} : { unprefetchedBytes: filledBytes }),
  };
  const outcome = outcomeOf({ ...result, isTouched }, figures);
  const details = artifact.filled ? { artifact: artifact.get().record.operationId } : {};
  if (result.failure === undefined) {
    target.handOver();
    return { outcome, restored: restored.get(), details, letGo };
  }
  if (root.filled) root.get().release();
  return { outcome, restored: undefined, details, letGo };
}

async function ifCuda(revival: Revival | undefined, work: (revival: Revival) => Promise<void>): Promise<void> {
  if (revival !== undefined) await work(revival);
}

/** What an agent that starts later needs to go on guarding the container. */
function guardDetails({ root, innerPid, adoption }: Restored, directory: string): Record<string, unknown> {
  return { rootPid: root.id.pid, rootStart: root.id.start, innerPid, adoption, controlDir: directory };
}
