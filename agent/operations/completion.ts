import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isEnding, readProcess } from '../container/tree.ts';
import { SnapshotError } from '../errors.ts';
import type { RecordKeys } from '../store/key.ts';
import type { Volume } from '../store/paths.ts';
import { publish } from '../store/publish.ts';
import { reopenStaging, type Staging } from '../store/staging.ts';
import { stagingPaths } from './capture.ts';
import type { AgentContext } from './context.ts';
import { dropRaw, type Finalized, finalize } from './finalize.ts';
import { onOwnVolume } from './node.ts';
import { dropPending, type Pending, readPending, savePending } from './pending.ts';
import type { StepTiming } from './steps.ts';

/** The workload runs on, the images are gone, or nobody can finish them. Anything else may be mended by a person, and the images are all there is. */
const HOPELESS: ReadonlySet<string> = new Set(['CANCELLED', 'DUMP_FAILED', 'MEMORY_FRAGMENTED']);
/** How long the CRIU of an earlier run is waited for. */
const CRIU_GONE_MS = 10_000;

/** Puts a finished artifact in its place. */
export async function publishPending(
  context: AgentContext,
  parts: { volume: Volume; staging: Staging; pending: Pending; finalized: Finalized; timings: readonly StepTiming[] },
): Promise<void> {
  const { pending, finalized } = parts;
  const { displaced } = await publish({
    volume: parts.volume,
    id: pending.id,
    version: pending.version,
    staging: parts.staging,
    record: {
      ...pending.draft,
      sizes: {
        criuBytes: finalized.criuBytes,
        bulkBytes: finalized.bulk?.bytes ?? 0,
        zeroBytes: finalized.zeroBytes,
        rootfsBytes: pending.rootfsBytes,
        shmBytes: pending.shmBytes,
      },
      bulk: finalized.bulk,
      timings: [...parts.timings],
    },
    keys: signedWith(finalized.keyId, context.keys),
    mode: pending.mode,
  });
  if (displaced !== undefined) context.log.info({ displaced }, 'an earlier artifact was displaced');
}

/** The keys, with the one that made the block tags as the one that signs. Throws CONFIG_INVALID where the agent does not have it any more. */
function signedWith(keyId: string | undefined, keys: RecordKeys): RecordKeys {
  if (keyId === undefined || keyId === keys.current.id) return keys;
  const key = keys.accepted.find(({ id }) => id === keyId);
  if (key !== undefined) return { current: key, accepted: keys.accepted };
  throw new SnapshotError(
    'CONFIG_INVALID',
    `the images of the interrupted checkpoint were made with record key ${keyId}, which is not accepted any more: give it back to the agent`,
  );
}

/**
 * Finishes checkpoints whose workload an earlier run stopped and whose images it did not get to publish. Returns the ids of those that
 * are finished now; others stay for the next start. Only where the agent mounts the volume itself: in podMount mode it went with
 * its pod. What an operation is at work on now is that operation's; `left` are those that could not be finished before, and gets those
 * that cannot be now.
 */
export async function finishPending(context: AgentContext, left = new Set<string>()): Promise<ReadonlySet<string>> {
  const { config, log } = context;
  const finished = new Set<string>();
  const unreadable = (file: string, err: unknown) =>
    log.error({ err, file }, 'note of an interrupted checkpoint cannot be read');
  for (const pending of await readPending(config.paths.stateDir, unreadable)) {
    if (context.liveOperations.has(pending.operationId) && !left.has(pending.operationId)) continue;
    try {
      await finishOne(context, pending);
      context.liveOperations.delete(pending.operationId);
      finished.add(pending.operationId);
      log.info({ operationId: pending.operationId, checkpointId: pending.id }, 'interrupted checkpoint was finished');
    } catch (err) {
      log.error(
        { err, operationId: pending.operationId, checkpointId: pending.id },
        'interrupted checkpoint cannot be finished',
      );
      if (err instanceof SnapshotError && HOPELESS.has(err.code)) {
        await dropPending(config.paths.stateDir, pending.operationId);
        context.liveOperations.delete(pending.operationId);
      } else {
        context.liveOperations.add(pending.operationId);
        left.add(pending.operationId);
      }
    }
  }
  return finished;
}

async function finishOne(live: AgentContext, pending: Pending): Promise<void> {
  // One key from the first block to the signature, whatever changes meanwhile.
  const context = { ...live };
  const { config, node } = context;
  await requireStopped(context, pending);
  if (config.storage.accessMode === 'podMount')
    throw new SnapshotError('STORAGE_NOT_ATTACHED', 'the volume was mounted by the pod only, and the pod was stopped');
  await onOwnVolume(context, async (volume) => {
    const path = join(volume.root, pending.staging);
    await stat(path).catch(async (cause: NodeJS.ErrnoException) => {
      if (cause.code !== 'ENOENT' || !(await isMounted(volume, pending))) throw cause;
      throw new SnapshotError('DUMP_FAILED', `the images of the interrupted checkpoint are gone: ${path}`, { cause });
    });
    const operation = { node: node.name, bootId: node.bootId, operationId: pending.operationId };
    const staging = await reopenStaging(path, operation);
    const deadlineMs = config.checkpoint.timeoutSeconds * 1000;
    try {
      const finalized = pending.finalized ?? (await finalizePending(context, pending, path, deadlineMs));
      await dropRaw(stagingPaths(path));
      await publishPending(context, { volume, staging, pending, finalized, timings: [] });
    } catch (error) {
      // The next try marks it anew; a mark that goes on would hold the volume for as long as the agent lives.
      await staging.leave().catch(() => undefined);
      throw error;
    }
    await dropPending(config.paths.stateDir, pending.operationId);
  });
}

/**
 * The agent may have died between the note and the end of the workload. One that lives was let go by CRIU and runs on: nothing is to be
 * finished.
 */
async function requireStopped(context: AgentContext, pending: Pending): Promise<void> {
  await criuGone(context, pending);
  const process = await readProcess(context.config.host.procRoot, pending.root.pid);
  if (process?.stat.start !== pending.root.start || isEnding(process)) return;
  throw new SnapshotError('CANCELLED', 'the workload was not stopped after all: it runs on');
}

/** An empty directory where the volume should be says nothing about the images. */
async function isMounted(volume: Volume, { id }: Pending): Promise<boolean> {
  return await stat(join(volume.root, id)).then(
    () => true,
    () => false,
  );
}

/** The CRIU of an earlier run may outlive it by a moment, and was perhaps told to end the tree: what comes of it shows when it is gone. */
async function criuGone(context: AgentContext, { root }: Pending): Promise<void> {
  for (const began = performance.now(); performance.now() - began < CRIU_GONE_MS; await sleep(50)) {
    const process = await readProcess(context.config.host.procRoot, root.pid);
    if (process?.stat.start !== root.start || process.status.tracerPid === 0 || isEnding(process)) return;
  }
}

/** Brings the images into their final form; for a stopped workload, what came of it is noted before the raw images go. */
async function finalizePending(
  context: AgentContext,
  pending: Pending,
  stagingPath: string,
  deadlineMs: number,
): Promise<Finalized> {
  return await finalize(context, stagingPaths(stagingPath), {
    deadlineMs,
    beforeDrop: (finalized) => savePending(context.config.paths.stateDir, { ...pending, finalized }),
  });
}
