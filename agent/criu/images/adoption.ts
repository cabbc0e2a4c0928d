import { open, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { SnapshotError } from '../../errors.ts';
import { type BulkPlan, KEPT } from './bulk.ts';
import { writeNewImage } from './file.ts';

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
 * is replaced before all new files are complete and on disk. An interruption between the renames leaves sizes that contradict each
 * other, which `checkPages` and `planBulk` refuse: the directory must then be made again from CRIU's raw images.
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
  for (const { pagesName, pagemapName } of plan.rewrites) {
    for (const name of [pagesName, pagemapName]) await rename(path.join(dir, `${name}${KEPT}`), path.join(dir, name));
  }
  await sync(dir);
}
