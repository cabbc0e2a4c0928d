import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { hasErrno, storageWork } from './failure.ts';
import { namesIn } from './files.ts';
import { markOwner, type Operation, type OwnerMark, readOwner, removeFile, storageNow } from './owner.ts';
import {
  type ArtifactName,
  artifactDir,
  hasDirectory,
  makeDirectory,
  readersDir,
  requireId,
  stagingRoot,
  type Volume,
} from './paths.ts';

/** A reader whose heartbeat is older than this does not count: its agent died, or lost the storage. */
const READER_SILENT_MS = 60_000;
const MAX_READERS = 1_000;

/** An artifact held open for a restore. */
export interface ReaderHold {
  /**
   * The artifact's directory through the descriptor that this process holds: the same directory whatever is renamed. Valid for
   * this process and, as long as the hold lasts, for the children it starts.
   */
  readonly directory: string;
  /** False on read-only storage, where no mark can be left: a replacement elsewhere does not wait for this reader. */
  readonly isMarked: boolean;
  /** Ends the hold. Harmless when repeated. */
  stop(): Promise<void>;
}

export interface HoldRequest extends ArtifactName {
  readonly operation: Operation;
  readonly heartbeatMs?: number;
}

/**
 * Marks that an operation reads an artifact, then opens it. In this order: who moves an artifact aside looks for marks afterwards, so
 * that it sees every reader that came in before.
 */
export async function holdReader(volume: Volume, request: HoldRequest): Promise<ReaderHold> {
  const place = artifactDir(volume, request);
  const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;
  return await storageWork(`hold ${place}`, async () => {
    const absent = () =>
      new SnapshotError('ARTIFACT_NOT_FOUND', `there is no artifact ${request.id}, version ${request.version}`);
    if (!(await hasDirectory(volume.root, place))) throw absent();
    const mark = await markReader(volume, request);
    try {
      const handle = await open(place, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
      let stopped: Promise<void> | undefined;
      const end = async () => {
        await handle.close();
        await mark?.remove();
      };
      const stop = () => {
        stopped ??= end();
        return stopped;
      };
      return { directory: `/proc/${process.pid}/fd/${handle.fd}`, isMarked: mark !== undefined, stop };
    } catch (thrown) {
      await mark?.remove();
      throw hasErrno(thrown, 'ENOENT') ? absent() : thrown;
    }
  });
}

async function markReader(volume: Volume, request: HoldRequest): Promise<OwnerMark | undefined> {
  const directory = readersDir(volume, request);
  const path = join(directory, requireId(request.operation.operationId, 'operation id'));
  try {
    await makeDirectory(volume.root, directory);
    // Left by an earlier attempt of the same operation.
    await removeFile(path);
    return await markOwner(path, request.operation, request.heartbeatMs);
  } catch (thrown) {
    if (hasErrno(thrown, 'EROFS')) return undefined;
    throw thrown;
  }
}

/** The operations that read an artifact: their marks are younger than `silentAfterMs`. */
export async function activeReaders(
  volume: Volume,
  name: ArtifactName,
  silentAfterMs = READER_SILENT_MS,
): Promise<string[]> {
  const directory = readersDir(volume, name);
  return await storageWork(`look for readers in ${directory}`, async () => {
    if (!(await hasDirectory(volume.root, directory))) return [];
    const { names } = await namesIn(directory, MAX_READERS);
    if (names.length === 0) return [];
    const root = stagingRoot(volume, name.id);
    await makeDirectory(volume.root, root);
    const now = await storageNow(root);
    const active: string[] = [];
    for (const operation of names) {
      const mark = await readOwner(join(directory, operation));
      if (mark !== undefined && now - mark.mtimeMs < silentAfterMs) active.push(operation);
    }
    return active;
  });
}
