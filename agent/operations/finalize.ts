import { randomBytes } from 'node:crypto';
import { link, mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { adoptBulk } from '../criu/images/adoption.ts';
import { planBulk } from '../criu/images/bulk.ts';
import { deriveBulkKey } from '../store/record.ts';
import type { StagingPaths } from './capture.ts';
import type { AgentContext } from './context.ts';

/** What became of the images. */
export interface Finalized {
  /** Bytes of CRIU's images that are left after the large ranges were taken out. */
  readonly criuBytes: number;
  readonly zeroBytes: number;
  readonly bulk: { readonly blocks: number; readonly bytes: number; readonly salt: string } | null;
  /** The record key that the block tags were made with: it must sign the record, also where another has become current since. */
  readonly keyId?: string;
}

export interface FinalizeLimits {
  readonly deadlineMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Called when the final form is there and the raw images are about to go. */
  readonly beforeDrop?: ((finalized: Finalized) => Promise<void>) | undefined;
}

/**
 * Makes the images' final form from what CRIU wrote: large ranges of private memory into the bulk file, zero blocks dropped. The
 * raw images stay until all of it is there, so that it can be done again after a crash; the last thing done is to drop them.
 */
export async function finalize(context: AgentContext, paths: StagingPaths, limits: FinalizeLimits): Promise<Finalized> {
  await rm(paths.criu, { recursive: true, force: true });
  await rm(paths.memory, { recursive: true, force: true });
  await mkdir(paths.criu, { mode: 0o700 });
  await mkdir(paths.memory, { mode: 0o700 });
  const raw = await readdir(paths.raw);
  for (const name of raw) await link(join(paths.raw, name), join(paths.criu, name));

  const plan = await planBulk(paths.criu, { minRangeBytes: context.config.memory.bulkMinimumBytes });
  const bulk = plan.text === '' ? null : await writeBulk(context, paths, plan, limits);
  const finalized = {
    criuBytes: await sizeOf(paths.criu),
    zeroBytes: bulk?.zeroBytes ?? 0,
    bulk: bulk?.summary ?? null,
    keyId: context.keys.current.id,
  };
  await limits.beforeDrop?.(finalized);
  await dropRaw(paths);
  return finalized;
}

/** Also after a crash in the middle of it: the name says that these images are not needed any more. */
export async function dropRaw(paths: StagingPaths): Promise<void> {
  const dropped = `${paths.raw}.dropped`;
  await rename(paths.raw, dropped).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
  });
  await rm(dropped, { recursive: true, force: true });
}

async function writeBulk(
  context: AgentContext,
  paths: StagingPaths,
  plan: Awaited<ReturnType<typeof planBulk>>,
  limits: FinalizeLimits,
) {
  const planFile = join(paths.memory, 'plan');
  await writeFile(planFile, plan.text, { mode: 0o600 });
  const salt = randomBytes(32).toString('hex');
  const written = await context.native.bulkWrite({
    plan: planFile,
    bulk: join(paths.memory, 'bulk.pages'),
    index: join(paths.memory, 'bulk.index'),
    key: Buffer.from(deriveBulkKey(context.keys.current, salt)),
    threads: context.node.threads,
    deadlineMs: limits.deadlineMs,
    signal: limits.signal,
  });
  await rm(planFile);
  await adoptBulk(paths.criu, plan);
  return { zeroBytes: written.zeroBytes, summary: { blocks: written.blocks, bytes: written.bytes, salt } };
}

async function sizeOf(directory: string): Promise<number> {
  const sizes = await Promise.all(
    (await readdir(directory)).map(async (name) => (await stat(join(directory, name))).size),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}
