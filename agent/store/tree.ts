import { createHash } from 'node:crypto';
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { namesIn, unsafeFile } from './files.ts';
import { RECORD_FILE } from './paths.ts';
import { MAX_DEPTH, MAX_FILES } from './schema.ts';

/** The files of an artifact, without its record, and its directories, innermost first. Paths are relative to the artifact. */
export interface Tree {
  readonly files: ReadonlyMap<string, number>;
  readonly directories: readonly string[];
}

const CHUNK_BYTES = 1024 * 1024;
/** Files, their record, and some directories. */
const MAX_ENTRIES = MAX_FILES + 1_000;

/** Lists an artifact's files with their sizes. Links, devices, FIFOs, hard links, and trees beyond the limits are refused by name. */
export async function listTree(root: string): Promise<Tree> {
  const files = new Map<string, number>();
  const directories: string[] = [];
  let seen = 0;
  await visit('', 0);
  return { files, directories };

  async function visit(directory: string, depth: number): Promise<void> {
    const { names, more } = await namesIn(join(root, directory), MAX_ENTRIES);
    seen += names.length;
    if (more || seen > MAX_ENTRIES)
      throw new SnapshotError('ARTIFACT_CORRUPT', `${root} has more than ${MAX_FILES} files`);
    for (const name of names) await look(directory === '' ? name : `${directory}/${name}`, depth + 1);
    directories.push(directory);
  }

  async function look(path: string, depth: number): Promise<void> {
    const found = await lstat(join(root, path));
    if (found.isDirectory()) {
      if (depth >= MAX_DEPTH) throw new SnapshotError('ARTIFACT_CORRUPT', `${join(root, path)} lies too deep`);
      return await visit(path, depth);
    }
    const problem = unsafeFile(found);
    if (problem !== undefined) throw new SnapshotError('ARTIFACT_UNSAFE', `${join(root, path)} ${problem}`);
    if (path !== RECORD_FILE) files.set(path, found.size);
  }
}

interface Source {
  read(buffer: Buffer, offset: number, length: number, position: number): Promise<{ bytesRead: number }>;
}

/** Reads a file from its start, at most `limit` bytes and one more, hashing, and handing each chunk on before the next. */
export async function readThrough(
  source: Source,
  limit: number,
  eachChunk: (chunk: Buffer) => Promise<void> = async () => {},
): Promise<{ size: number; sha256: string }> {
  const hash = createHash('sha256');
  const buffer = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, limit + 1));
  let size = 0;
  while (size <= limit) {
    const { bytesRead } = await source.read(buffer, 0, Math.min(buffer.length, limit + 1 - size), size);
    if (bytesRead === 0) break;
    const chunk = buffer.subarray(0, bytesRead);
    hash.update(chunk);
    await eachChunk(chunk);
    size += bytesRead;
  }
  return { size, sha256: hash.digest('hex') };
}
