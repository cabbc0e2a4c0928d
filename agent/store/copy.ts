import { constants } from 'node:fs';
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { hasErrno, storageWork } from './failure.ts';
import { safeOpen } from './files.ts';
import { removeFile } from './owner.ts';
import { hasDirectory } from './paths.ts';
import { forEachOf } from './pool.ts';
import type { FileEntry } from './schema.ts';
import { readThrough } from './tree.ts';

export interface CopyRequest {
  /** The artifact's directory. */
  readonly from: string;
  /** A directory that only this agent reaches; the files must not be in it yet. */
  readonly to: string;
  readonly files: readonly FileEntry[];
  /** Ends it, with what was copied left behind. */
  readonly signal?: AbortSignal;
}

/** How many files are read at once: enough to hide the latency of remote storage, few enough to bound memory. */
const AT_ONCE = 8;

/** Copies files of an artifact while hashing them. Afterwards only the copies are used: what was verified is what is read. */
export async function copyVerified(request: CopyRequest): Promise<void> {
  const { from, to, files, signal } = request;
  for (const directory of new Set(files.map(({ path }) => dirname(path)))) {
    await mkdir(join(to, directory), { recursive: true, mode: 0o700 });
  }
  await forEachOf(files, AT_ONCE, async (entry) => {
    if (signal?.aborted) throw new SnapshotError('CANCELLED', 'the copying was cancelled');
    const target = join(to, entry.path);
    const output = await open(target, 'wx', 0o600);
    try {
      await checkFile(from, entry, async (chunk) => {
        await output.writeFile(chunk);
      });
    } catch (thrown) {
      await removeFile(target);
      throw thrown;
    } finally {
      await output.close();
    }
  });
}

/** Reads files of an artifact and compares their digests, without keeping anything: for an explicit verification. */
export async function verifyFiles(from: string, files: readonly FileEntry[], signal?: AbortSignal): Promise<void> {
  const goOn = async () => {
    if (signal?.aborted) throw new SnapshotError('CANCELLED', 'the verification was cancelled');
  };
  await forEachOf(files, AT_ONCE, async (entry) => {
    await goOn();
    await checkFile(from, entry, goOn);
  });
}

async function checkFile(from: string, entry: FileEntry, eachChunk?: (chunk: Buffer) => Promise<void>): Promise<void> {
  const { path, size, sha256 } = entry;
  if (sha256 === '')
    throw new SnapshotError('INTERNAL', `${path} has no digest: its blocks are verified where they are used`);
  const found = await storageWork(`read ${path}`, async () => {
    const source = await openEntry(from, path);
    try {
      return await readThrough(source, size, eachChunk);
    } finally {
      await source.close();
    }
  });
  if (found.size !== size) {
    const bytes = found.size > size ? `more than ${size}` : `${found.size}`;
    throw new SnapshotError('ARTIFACT_CORRUPT', `${path} has ${bytes} bytes, the record says ${size}`);
  }
  if (found.sha256 === sha256) return;
  throw new SnapshotError('ARTIFACT_CORRUPT', `${path} has SHA-256 ${found.sha256}, the record says ${sha256}`);
}

async function openEntry(from: string, path: string): Promise<FileHandle> {
  try {
    if (await hasDirectory(from, join(from, dirname(path))))
      return await safeOpen(join(from, path), constants.O_RDONLY);
  } catch (thrown) {
    if (!hasErrno(thrown, 'ENOENT')) throw thrown;
  }
  throw new SnapshotError('ARTIFACT_CORRUPT', `${path} is missing`);
}
