import { randomUUID } from 'node:crypto';
import { type FileHandle, lstat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { idProblem } from '../../contract/ids.ts';
import { SnapshotError } from '../errors.ts';
import { hasErrno } from './failure.ts';
import { createFile, readBounded, syncDirectory } from './files.ts';

/** The operation that a file on the volume belongs to; unique across nodes and boots. */
export interface Operation {
  readonly node: string;
  readonly bootId: string;
  readonly operationId: string;
}

const ownerSchema = z.strictObject({
  node: z.string().max(253),
  bootId: z.string().max(64),
  operationId: z.string().refine((value) => idProblem(value) === undefined),
  pid: z.int().nonnegative(),
  startedAt: z.iso.datetime(),
});

/** What an owner file or a reader's mark says. */
type Owner = z.infer<typeof ownerSchema>;

/** A file on the volume whose age tells whether its owner still lives. */
export interface OwnerMark {
  readonly path: string;
  /** Stops the heartbeat and leaves the file. Harmless when repeated. */
  stop(): Promise<void>;
  /** Stops the heartbeat and removes the file. Harmless when repeated. */
  remove(): Promise<void>;
}

/** How often an owner shows that it lives. */
const HEARTBEAT_MS = 10_000;
const MAX_OWNER_BYTES = 4096;

/** Writes an owner file at `path`, which must not exist, and keeps it young until it is stopped. */
export async function markOwner(path: string, operation: Operation, everyMs = HEARTBEAT_MS): Promise<OwnerMark> {
  const { node, bootId, operationId } = operation;
  const owner: Owner = { node, bootId, operationId, pid: process.pid, startedAt: new Date().toISOString() };
  const content = Buffer.from(`${JSON.stringify(owner)}\n`);
  const handle = await createFile(path, content);
  await syncDirectory(join(path, '..'));
  const stop = beat(handle, content, everyMs);
  const remove = async () => {
    await stop();
    await removeFile(path);
  };
  return { path, stop, remove };
}

/**
 * Writes the same bytes over and over: the file is never torn, and its time is the storage's own, not this node's. A beat that fails is
 * left to the next one; only many in a row make an owner look dead.
 */
function beat(handle: FileHandle, content: Buffer, everyMs: number): () => Promise<void> {
  let inFlight: Promise<unknown> | undefined;
  const once = async () => {
    try {
      await handle.write(content, 0, content.length, 0);
    } catch {
      // See above.
    } finally {
      inFlight = undefined;
    }
  };
  const timer = setInterval(() => {
    inFlight ??= once();
  }, everyMs);
  timer.unref();
  let stopped: Promise<void> | undefined;
  const end = async () => {
    clearInterval(timer);
    await inFlight;
    await handle.close();
  };
  return () => {
    stopped ??= end();
    return stopped;
  };
}

export type FoundOwner = { readonly mtimeMs: number; readonly owner: Owner | undefined };

/** The owner file at `path`: its time, and its content where it can be read. Undefined where there is none. */
export async function readOwner(path: string): Promise<FoundOwner | undefined> {
  try {
    const { mtimeMs } = await lstat(path);
    const content = await readBounded(path, MAX_OWNER_BYTES, 'STORAGE_UNSAFE');
    const parsed = ownerSchema.safeParse(JSON.parse(content?.toString('utf8') ?? 'null'));
    return { mtimeMs, owner: parsed.success ? parsed.data : undefined };
  } catch (thrown) {
    if (hasErrno(thrown, 'ENOENT')) return undefined;
    // Torn, or planted: its age is all that counts.
    const isOdd = thrown instanceof SyntaxError || thrown instanceof SnapshotError;
    if (isOdd) return { mtimeMs: (await lstat(path)).mtimeMs, owner: undefined };
    throw thrown;
  }
}

/** What the storage takes for now, asked by making a file in `directory`: the clocks of nodes and storage need not agree. */
export async function storageNow(directory: string): Promise<number> {
  // Under this ending a sweep removes it should this agent die right here.
  const path = join(directory, `${randomUUID()}.trash`);
  const handle = await createFile(path, '');
  try {
    return (await handle.stat()).mtimeMs;
  } finally {
    await handle.close();
    await removeFile(path);
  }
}

/** Removes a file; one that is gone is as good. */
export async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (thrown) {
    if (!hasErrno(thrown, 'ENOENT')) throw thrown;
  }
}
