import { open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { SnapshotError } from '../../errors.ts';
import type { BulkPlan } from './bulk.ts';
import { writeNewImage } from './file.ts';

/** Ending of files that are to take the place of the one without it. */
export const KEPT = '.kept';

/** Its presence says that all new files are complete, and only renames are left. */
const MARKER = 'adopting';

async function sync(file: string): Promise<void> {
  const handle = await open(file, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * After the helper has followed the plan: checks the sizes of the kept pages and puts pages and pagemaps in the place of CRIU's. Nothing
 * is replaced before all new files are complete and on disk; an interruption after that is finished by `finishAdoption`.
 */
export async function adoptBulk(dir: string, plan: BulkPlan): Promise<void> {
  for (const { pagesName, pagemapName, pagemap, keptBytes } of plan.rewrites) {
    const kept = path.join(dir, `${pagesName}${KEPT}`);
    const { size } = await stat(kept);
    if (size !== keptBytes)
      throw new SnapshotError('INTERNAL', `bulk-write kept ${size} bytes in ${kept}, planned were ${keptBytes}`);
    await sync(kept);
    const fresh = path.join(dir, `${pagemapName}${KEPT}`);
    await rm(fresh, { force: true });
    await writeNewImage(fresh, pagemap);
  }
  await sync(dir);
  await writeFile(path.join(dir, MARKER), '', { mode: 0o600 });
  await sync(dir);
  await finishAdoption(dir);
}

/**
 * Finishes an adoption that was interrupted: true where there was one, and then the bulk file is complete and must not be made again.
 * False where none had begun: plan anew from CRIU's images.
 */
export async function finishAdoption(dir: string): Promise<boolean> {
  const names = await readdir(dir);
  if (!names.includes(MARKER)) return false;
  for (const name of names.filter((candidate) => candidate.endsWith(KEPT))) {
    await rename(path.join(dir, name), path.join(dir, name.slice(0, -KEPT.length)));
  }
  await sync(dir);
  await rm(path.join(dir, MARKER));
  await sync(dir);
  return true;
}
