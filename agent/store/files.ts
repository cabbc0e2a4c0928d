import { randomUUID } from 'node:crypto';
import { constants, type Stats } from 'node:fs';
import { type FileHandle, lstat, open, opendir, rename, rmdir, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { hasErrno } from './failure.ts';

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** The code with which an unsafe file is refused: as part of an artifact, or as part of the volume's own bookkeeping. */
export type UnsafeCode = 'ARTIFACT_UNSAFE' | 'STORAGE_UNSAFE';

/** Why a file with these properties is not opened, or undefined. A second link may lie where its owner can still write. */
export function unsafeFile(found: Stats): string | undefined {
  if (!found.isFile()) return 'is not a regular file';
  if (found.nlink !== 1) return `has ${found.nlink} links, exactly one is allowed`;
  return undefined;
}

/** Opens a file without following a link at its end and without blocking; only a regular file with a single link is handed out. */
export async function safeOpen(path: string, flags: number, code: UnsafeCode = 'ARTIFACT_UNSAFE'): Promise<FileHandle> {
  let handle: FileHandle;
  try {
    handle = await open(path, flags | O_NOFOLLOW | O_NONBLOCK, 0o600);
  } catch (thrown) {
    // ENXIO: a socket, or a FIFO without a reader. EISDIR: a directory opened for writing.
    if (!hasErrno(thrown, 'ELOOP', 'ENXIO', 'EISDIR')) throw thrown;
    throw new SnapshotError(code, `${path} is not a regular file`, { cause: thrown });
  }
  const problem = unsafeFile(await handle.stat());
  if (problem === undefined) return handle;
  await handle.close();
  throw new SnapshotError(code, `${path} ${problem}`);
}

/** Reads a whole file of at most `limit` bytes, opened safely; undefined where it is larger. */
export async function readBounded(path: string, limit: number, code: UnsafeCode): Promise<Buffer | undefined> {
  const handle = await safeOpen(path, O_RDONLY, code);
  try {
    const buffer = Buffer.alloc(Math.min((await handle.stat()).size, limit) + 1);
    let length = 0;
    while (length < buffer.length) {
      const { bytesRead } = await handle.read(buffer, length, buffer.length - length, length);
      if (bytesRead === 0) return buffer.subarray(0, length);
      length += bytesRead;
    }
    return undefined;
  } finally {
    await handle.close();
  }
}

/** Makes a new file, mode 0600, durable with its content; the handle stays open. Its name is durable once the directory is synced. */
export async function createFile(path: string, content: string | Buffer): Promise<FileHandle> {
  const handle = await open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    await handle.writeFile(content);
    await handle.sync();
    return handle;
  } catch (thrown) {
    await handle.close();
    throw thrown;
  }
}

/** Puts `content` at `path` whole or not at all: temporary file in the same directory, fsync, rename, fsync of the directory. */
export async function writeDurable(path: string, content: string): Promise<void> {
  const temporary = join(dirname(path), `.${randomUUID()}`);
  await (await createFile(temporary, content)).close();
  await rename(temporary, path);
  await syncDirectory(dirname(path));
}

/** Makes the entries of a directory durable. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** The names in a directory, at most `limit` of them; `more` says that there are others. A missing directory has none. */
export async function namesIn(path: string, limit: number): Promise<{ names: string[]; more: boolean }> {
  const names: string[] = [];
  try {
    for await (const entry of await opendir(path)) {
      if (names.length === limit) return { names, more: true };
      names.push(entry.name);
    }
  } catch (thrown) {
    if (!hasErrno(thrown, 'ENOENT')) throw thrown;
  }
  return { names, more: false };
}

/**
 * Removes what lies at `path`, links as links, and counts every entry down in `budget`; false where the budget ran out first.
 * What is already gone is as good as removed: two sweeps may meet.
 */
export async function removeTree(path: string, budget: { left: number }): Promise<boolean> {
  try {
    if (budget.left <= 0) return false;
    budget.left -= 1;
    if (!(await lstat(path)).isDirectory()) {
      await unlink(path);
      return true;
    }
    for (;;) {
      const { names, more } = await namesIn(path, 1_000);
      for (const name of names) {
        if (!(await removeTree(join(path, name), budget))) return false;
      }
      if (!more) break;
    }
    await rmdir(path);
    return true;
  } catch (thrown) {
    if (hasErrno(thrown, 'ENOENT')) return true;
    throw thrown;
  }
}
