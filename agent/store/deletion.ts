import { rename, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SnapshotError } from '../errors.ts';
import { hasErrno, storageWork } from './failure.ts';
import { namesIn, syncDirectory } from './files.ts';
import type { RecordKeys } from './key.ts';
import {
  type ArtifactName,
  artifactDir,
  makeDirectory,
  readersDir,
  stagingRoot,
  type Volume,
  versionsDir,
} from './paths.ts';
import { activeReaders } from './readers.ts';
import { asidePath, discardTree } from './staging.ts';
import { artifactState, requireNamespace } from './verify.ts';

export interface DeleteRequest extends ArtifactName {
  readonly operationId: string;
  readonly keys: RecordKeys;
  /** The namespace that must have made it; without one, anything is deleted, also what nobody can read. */
  readonly namespace?: string;
  /** How long to wait for readers, before and again after the artifact is moved aside. */
  readonly waitMs: number;
  readonly signal?: AbortSignal;
}

const POLL_MS = 1_000;
const MAX_ASIDE = 10_000;

/**
 * Deletes an artifact: moves it aside, so that no new reader finds it, and removes it once nobody reads it. Where readers stay, it is
 * put back and ARTIFACT_BUSY names them.
 */
export async function deleteArtifact(volume: Volume, request: DeleteRequest): Promise<void> {
  const place = artifactDir(volume, request);
  await storageWork(`delete ${place}`, async () => {
    await requireDeletable(volume, request);
    await requireNoReaders(volume, request);
    const aside = asidePath(volume, request, request.operationId, 'deleted');
    await makeDirectory(volume.root, dirname(aside));
    await discardSuperseded(volume, request);
    await discardTree(aside);
    await rename(place, aside);
    await syncDirectory(dirname(place));
    try {
      await requireNoReaders(volume, request);
    } catch (thrown) {
      await putBack(aside, place);
      throw thrown;
    }
    await discardTree(aside);
    await removeEmpty(volume, request);
  });
}

async function requireDeletable(volume: Volume, request: DeleteRequest): Promise<void> {
  const { id, version, keys, namespace } = request;
  const found = await artifactState(volume, { id, version, keys });
  if (found.state === 'absent')
    throw new SnapshotError('ARTIFACT_NOT_FOUND', `there is no artifact ${id}, version ${version}`);
  if (namespace === undefined) return;
  const record = found.state === 'complete' ? found.artifact.record : found.record;
  // Whose it is cannot be told: whoever may delete for all namespaces may delete it.
  if (record === undefined && found.state === 'problem') throw found.problem;
  if (record !== undefined) requireNamespace(record, namespace);
}

async function requireNoReaders(volume: Volume, request: DeleteRequest): Promise<void> {
  const deadline = performance.now() + request.waitMs;
  for (;;) {
    const readers = await activeReaders(volume, request);
    if (readers.length === 0) return;
    const leftMs = deadline - performance.now();
    if (leftMs <= 0 || request.signal?.aborted) {
      const names = readers.slice(0, 10).join(', ');
      throw new SnapshotError(
        'ARTIFACT_BUSY',
        `artifact ${request.id}, version ${request.version}, is being read by ${names}`,
      );
    }
    await sleep(Math.min(POLL_MS, leftMs));
  }
}

/** What replacements moved aside must go first: a sweep would put it back once the artifact is gone. */
async function discardSuperseded(volume: Volume, request: DeleteRequest): Promise<void> {
  const root = stagingRoot(volume, request.id);
  const { names, more } = await namesIn(root, MAX_ASIDE);
  if (more)
    throw new SnapshotError('STORAGE_FAILED', `${root} has more than ${MAX_ASIDE} entries: it must be cleared first`);
  for (const name of names.filter((each) => each.endsWith(`@${request.version}.old`)))
    await discardTree(join(root, name));
}

async function putBack(aside: string, place: string): Promise<void> {
  try {
    await rename(aside, place);
    await syncDirectory(dirname(place));
  } catch (thrown) {
    // A sweep finished the deletion, or a new artifact took the place: in both cases the old one need not come back.
    if (!hasErrno(thrown, 'ENOENT', 'ENOTEMPTY', 'EEXIST')) throw thrown;
  }
}

/** The directories of a checkpoint go with its last artifact; any that still has something in it ends this. */
async function removeEmpty(volume: Volume, request: DeleteRequest): Promise<void> {
  const readers = readersDir(volume, request);
  const versions = versionsDir(volume, request.id);
  for (const directory of [readers, dirname(readers), join(versions, 'tmp'), versions, dirname(versions)]) {
    try {
      await rmdir(directory);
    } catch (thrown) {
      if (!hasErrno(thrown, 'ENOTEMPTY', 'EEXIST', 'ENOENT')) throw thrown;
    }
  }
}
