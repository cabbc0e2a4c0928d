import { constants } from 'node:fs';
import { dirname, join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { storageWork } from './failure.ts';
import { safeOpen, syncDirectory } from './files.ts';
import { forEachOf } from './pool.ts';
import { BULK_PAGES, type FileEntry, filePathProblem } from './schema.ts';
import { listTree, readThrough } from './tree.ts';

/** How many files are synced or hashed at once: the storage's latencies overlap. */
const AT_ONCE = 8;

/** Makes all files and directories from `root` down durable, and the name of `root` itself. */
export async function syncTree(root: string): Promise<void> {
  await storageWork(`sync ${root}`, async () => {
    const { files, directories } = await listTree(root);
    await forEachOf([...files.keys()], AT_ONCE, async (path) => {
      const handle = await safeOpen(join(root, path), constants.O_RDONLY);
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    });
    await syncDirectories(root, directories);
    await syncDirectory(dirname(root));
  });
}

/** Innermost first, so that a directory is durable before the entry that names it. */
async function syncDirectories(root: string, directories: readonly string[]): Promise<void> {
  for (const directory of directories) await syncDirectory(join(root, directory));
}

/** Makes a staging directory durable, and says what the record must list: each file with its size and digest. */
export async function sealTree(root: string): Promise<FileEntry[]> {
  const { files, directories } = await listTree(root);
  const entries: FileEntry[] = [];
  const paths = [...files.keys()].sort();
  await forEachOf([...paths.entries()], AT_ONCE, async ([place, path]) => {
    const problem = filePathProblem(path);
    if (problem !== undefined)
      throw new SnapshotError('INTERNAL', `${join(root, path)} cannot be published: it ${problem}`);
    entries[place] = await sealFile(root, path);
  });
  await syncDirectories(root, directories);
  return entries;
}

async function sealFile(root: string, path: string): Promise<FileEntry> {
  const handle = await safeOpen(join(root, path), constants.O_RDONLY);
  try {
    await handle.sync();
    const { size } = await handle.stat();
    if (path === BULK_PAGES) return { path, size, sha256: '' };
    const read = await readThrough(handle, size);
    return { path, size: read.size, sha256: read.sha256 };
  } finally {
    await handle.close();
  }
}
