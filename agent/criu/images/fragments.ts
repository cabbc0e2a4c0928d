import { lstat, readdir } from 'node:fs/promises';
import path from 'node:path';
import { SnapshotError } from '../../errors.ts';
import { countEntries } from './file.ts';

/**
 * Memory in many pieces. CRIU writes an entry for each, and one for each mebibyte of a large piece. Whoever plans needs them all at once,
 * at a quarter of a kilobyte each, and as much again for each piece that has a gap before it: so both numbers have a bound, and one at a
 * time plans. With as many as there may be, half of them to be moved, that takes less than 850 MB of heap.
 */

/** Entries of all pagemap images together. As many as two terabytes in large pieces have. */
const MOST_ENTRIES = 2_000_000;
/** Pieces with gaps between them, of all processes together. */
const MOST_PIECES = 600_000;
/** No entry takes more: a length, and four numbers. */
const MAX_ENTRY_BYTES = 40;

/** The names of all pagemap images, of processes and of shared memory. */
export async function pagemapNames(dir: string): Promise<string[]> {
  return (await readdir(dir)).filter((name) => /^pagemap-(shmem-)?\d{1,20}\.img$/.test(name)).sort();
}

/** Throws MEMORY_FRAGMENTED where the memory in the images has more pieces than the agent can hold, before it holds any of them. */
export async function requireBearable(dir: string, most = MOST_ENTRIES): Promise<void> {
  const names = await pagemapNames(dir);
  const sizes = await Promise.all(names.map(async (name) => (await lstat(path.join(dir, name))).size));
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  if (bytes > most * MAX_ENTRY_BYTES) throw fragmented(Math.ceil(bytes / MAX_ENTRY_BYTES), most);
  let entries = 0;
  for (const name of names) entries += await countEntries(path.join(dir, name));
  if (entries > most) throw fragmented(entries, most);
}

/** The same for pieces that have gaps between them: neighbours count as one. */
export function requireFewPieces(pieces: number, most = MOST_PIECES): void {
  if (pieces > most) throw fragmented(pieces, most);
}

function fragmented(entries: number, most: number): SnapshotError {
  return new SnapshotError(
    'MEMORY_FRAGMENTED',
    `the memory lies in ${entries} or more pieces, and the agent takes ${most} at most`,
  );
}

let last: Promise<unknown> = Promise.resolve();

/** Does the work when all that asked before is done, whatever became of it. */
export async function takeTurn<T>(work: () => Promise<T>): Promise<T> {
  const mine = last.then(work);
  last = mine.catch(() => undefined);
  return await mine;
}
