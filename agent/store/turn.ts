import { randomUUID } from 'node:crypto';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { hasErrno, storageWork } from './failure.ts';
import { namesIn, readBounded, writeDurable } from './files.ts';
import { markOwner, type Operation, type OwnerMark, readOwner, removeFile, storageNow } from './owner.ts';
import { hasDirectory, houseDir, makeDirectory, type Volume } from './paths.ts';

/** A holder whose heartbeat is older than this has died: its turn goes to whoever asks next. */
const HOLDER_SILENT_MS = 60_000;
const MAX_LITTER = 1_000;
const MAX_ROUND_BYTES = 1024;

/** Who collects on this volume now. */
const holderPath = (volume: Volume) => join(houseDir(volume), 'collecting.owner');
/** What the last round saw; its time is when that was. */
const roundPath = (volume: Volume) => join(houseDir(volume), 'collected.json');

/**
 * The turn to collect on this volume, for one agent at a time; undefined where another one has it. It spares work and is no lock: two that
 * take a dead one's turn at the same moment may both go on, and must do no harm. On a full volume, which needs collecting
 * most, the turn is had without a mark.
 */
export async function takeTurn(
  volume: Volume,
  operation: Operation,
  limits: { readonly silentAfterMs?: number; readonly heartbeatMs?: number } = {},
): Promise<Pick<OwnerMark, 'remove'> | undefined> {
  const path = holderPath(volume);
  return await storageWork(`take the turn ${path}`, async () => {
    try {
      await makeDirectory(volume.root, houseDir(volume));
      await removeLitter(volume);
      if (!(await isFree(volume, limits.silentAfterMs ?? HOLDER_SILENT_MS))) return undefined;
      return await markOwner(path, operation, limits.heartbeatMs);
    } catch (thrown) {
      if (hasErrno(thrown, 'EEXIST')) return undefined;
      if (!hasErrno(thrown, 'ENOSPC', 'EDQUOT')) throw thrown;
      return { remove: () => removeFile(path) };
    }
  });
}

/** Whether nobody has the turn; a dead one's mark is taken away. */
async function isFree(volume: Volume, silentAfterMs: number): Promise<boolean> {
  const path = holderPath(volume);
  const holder = await readOwner(path);
  if (holder === undefined) return true;
  if ((await storageNow(houseDir(volume))) - holder.mtimeMs < silentAfterMs) return false;
  const gone = join(houseDir(volume), `${randomUUID()}.trash`);
  try {
    await rename(path, gone);
  } catch (thrown) {
    // Another agent took it away, and is about to take the turn.
    if (hasErrno(thrown, 'ENOENT')) return false;
    throw thrown;
  }
  await removeFile(gone);
  return true;
}

/** What an agent left that died within an instant. */
async function removeLitter(volume: Volume): Promise<void> {
  const { names } = await namesIn(houseDir(volume), MAX_LITTER);
  for (const name of names.filter((each) => each.endsWith('.trash'))) await removeFile(join(houseDir(volume), name));
}

const roundSchema = z.strictObject({ count: z.int().nonnegative(), bytes: z.int().nonnegative() });

/** What was left on the volume after a round. */
export type Round = z.infer<typeof roundSchema>;

/** Notes a round, so that agents of other nodes need not do it again at once. Where that fails, they do. */
export async function noteRound(volume: Volume, round: Round): Promise<void> {
  await writeDurable(roundPath(volume), `${JSON.stringify(round)}\n`).catch(() => undefined);
}

/** The last round on this volume, whichever node made it, if that was less than `withinMs` ago. */
export async function lastRound(volume: Volume, withinMs: number): Promise<Round | undefined> {
  const path = roundPath(volume);
  return await storageWork(`look at ${path}`, async () => {
    if (!(await hasDirectory(volume.root, houseDir(volume)))) return undefined;
    const [file, content] = await Promise.all([
      readOwner(path),
      readBounded(path, MAX_ROUND_BYTES, 'STORAGE_UNSAFE').catch(() => undefined),
    ]);
    if (file === undefined || content === undefined) return undefined;
    const ageMs = (await storageNow(houseDir(volume))) - file.mtimeMs;
    const round = roundSchema.safeParse(parsed(content));
    return round.success && ageMs >= 0 && ageMs < withinMs ? round.data : undefined;
  });
}

function parsed(content: Buffer): unknown {
  try {
    return JSON.parse(content.toString('utf8'));
  } catch {
    return undefined;
  }
}
