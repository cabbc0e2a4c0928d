import { constants } from 'node:fs';
import { lstat, open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { hasErrno, storageWork } from './failure.ts';
import { namesIn, safeOpen } from './files.ts';
import { markOwner, type Operation, type OwnerMark, readOwner, removeFile, storageNow } from './owner.ts';
import {
  type ArtifactName,
  artifactDir,
  hasDirectory,
  makeDirectory,
  readersDir,
  requireId,
  stagingRoot,
  useFile,
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
  /** False for who only looks: it keeps the artifact from being deleted now, but not for longer than otherwise. Default: true. */
  readonly isUse?: boolean;
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
      if (request.isUse ?? true) await noteUse(volume, request);
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

/**
 * Notes that an artifact is being used: for as long as retention then keeps it. Where that cannot be noted (a full or read-only
 * volume), nothing fails: the artifact only looks less used than it is.
 */
export async function noteUse(volume: Volume, name: ArtifactName): Promise<void> {
  const path = useFile(volume, name);
  try {
    await makeDirectory(volume.root, dirname(path));
    const handle = await safeOpen(path, constants.O_WRONLY | constants.O_CREAT, 'STORAGE_UNSAFE');
    try {
      // A write, not utimes: so that the time is the storage's own, as everywhere on the volume.
      await handle.write('used\n', 0);
    } finally {
      await handle.close();
    }
  } catch {
    // See above.
  }
}

/** When an artifact was last used, by the storage's clock; undefined where it never was. */
export async function lastUse(volume: Volume, name: ArtifactName): Promise<number | undefined> {
  const path = useFile(volume, name);
  return await storageWork(`look at ${path}`, async () => {
    if (!(await hasDirectory(volume.root, dirname(path)))) return undefined;
    try {
      const found = await lstat(path);
      return found.isFile() ? found.mtimeMs : undefined;
    } catch (thrown) {
      if (hasErrno(thrown, 'ENOENT')) return undefined;
      throw thrown;
    }
  });
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
