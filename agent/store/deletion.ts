import { rename, rmdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SnapshotError } from '../errors.ts';
import { hasErrno, storageWork } from './failure.ts';
import { namesIn, syncDirectory } from './files.ts';
import type { RecordKeys } from './key.ts';
import { removeFile } from './owner.ts';
import {
  type ArtifactName,
  artifactDir,
  makeDirectory,
  readersDir,
  stagingRoot,
  useFile,
  type Volume,
  versionsDir,
} from './paths.ts';
import { activeReaders } from './readers.ts';
import { asidePath, discardTree } from './staging.ts';
import { artifactState, readSigned, requireNamespace } from './verify.ts';

export interface DeleteRequest extends ArtifactName {
  readonly operationId: string;
  readonly keys: RecordKeys;
  /** The namespace that must have made it; without one, anything is deleted, also what nobody can read. */
  readonly namespace?: string;
  /** The operation that must have made it: for who decided to delete what it saw some time ago. */
  readonly madeBy?: string;
  /** How long to wait for readers in all. */
  readonly waitMs: number;
  /** A reader that has been silent for this long does not count; by default as for everybody. */
  readonly silentAfterMs?: number;
  readonly signal?: AbortSignal;
}

const POLL_MS = 1_000;
const MAX_ASIDE = 10_000;

/**
 * Deletes an artifact: moves it aside, so that no new reader finds it, and removes it once nobody reads it. Where readers stay, it is
 * put back and ARTIFACT_BUSY names them. Once it lies aside under its last name it is gone for all, and a sweep finishes what a crash
 * interrupts.
 */
export async function deleteArtifact(volume: Volume, request: DeleteRequest): Promise<void> {
  const place = artifactDir(volume, request);
  const deadline = performance.now() + request.waitMs;
  await storageWork(`delete ${place}`, async () => {
    const meant = await requireDeletable(volume, request);
    await requireNoReaders(volume, request, deadline);
    await requireUnchanged(volume, request, { meant });
    const aside = asidePath(volume, request, request.operationId, 'deleted');
    await makeDirectory(volume.root, dirname(aside));
    await clearSuperseded(volume, request);
    await discardTree(aside);
    await moveAside(await hold(volume, request, meant), aside, busy(request, 'was put back by another agent'));
    await syncDirectory(dirname(place));
    try {
      await requireNoReaders(volume, request, deadline);
    } catch (thrown) {
      await putBack(aside, place);
      throw thrown;
    }
    // Durable under this name before the first file goes: no half of it may ever come back.
    await syncDirectory(dirname(aside));
    await discardTree(aside);
    await tidyAfter(volume, request);
  });
}

/** The operation that made what is to be deleted; undefined where there is no record that can be believed. */
async function requireDeletable(volume: Volume, request: DeleteRequest): Promise<string | undefined> {
  const { id, version, keys, namespace, madeBy } = request;
  const found = await artifactState(volume, { id, version, keys });
  if (found.state === 'absent') throw absent(request);
  const record = found.state === 'complete' ? found.artifact.record : found.record;
  // Whose it is cannot be told: whoever may delete for all namespaces may delete it.
  const isOpen = namespace === undefined && madeBy === undefined;
  if (record === undefined && found.state === 'problem' && !isOpen) throw found.problem;
  if (record === undefined) return undefined;
  if (namespace !== undefined) requireNamespace(record, namespace);
  if (madeBy !== undefined && record.operationId !== madeBy) throw replaced(request);
  return record.operationId;
}

const absent = ({ id, version }: ArtifactName) =>
  new SnapshotError('ARTIFACT_NOT_FOUND', `there is no artifact ${id}, version ${version}`);

const busy = ({ id, version }: ArtifactName, why: string) =>
  new SnapshotError('ARTIFACT_BUSY', `artifact ${id}, version ${version}, ${why}`);

/**
 * What to say of another artifact in the place of the one that was meant. Who decided by its maker is told; to all others the one that
 * they meant is gone, and they must not hear whether another namespace has the name now.
 */
function replaced(request: DeleteRequest): SnapshotError {
  return request.madeBy === undefined ? absent(request) : busy(request, 'was replaced meanwhile');
}

/** Throws where another artifact than the one that was meant lies in its place, or in `directory`. */
async function requireUnchanged(
  volume: Volume,
  request: DeleteRequest,
  { meant, directory }: { readonly meant: string | undefined; readonly directory?: string },
): Promise<void> {
  const { id, version, keys } = request;
  let maker: string | undefined;
  try {
    const query = { id, version, keys, ...(directory !== undefined && { directory }) };
    maker = (await readSigned(volume, query)).operationId;
  } catch (thrown) {
    const isUnreadable = thrown instanceof SnapshotError && thrown.code.startsWith('ARTIFACT_');
    if (!isUnreadable || meant !== undefined) throw thrown;
  }
  if (maker !== meant) throw replaced(request);
}

/**
 * Moves the artifact aside under the name from which a sweep puts it back, and looks whether it is still the one that was meant: a
 * replacement that came in between must survive even an agent that dies right here.
 */
async function hold(volume: Volume, request: DeleteRequest, meant: string | undefined): Promise<string> {
  const place = artifactDir(volume, request);
  const held = asidePath(volume, request, request.operationId, 'old');
  await moveAside(place, held, absent(request));
  try {
    await requireUnchanged(volume, request, { meant, directory: held });
  } catch (thrown) {
    await putBack(held, place);
    throw thrown;
  }
  return held;
}

/** What is not there any more was deleted, or put back, by another agent meanwhile. */
async function moveAside(from: string, to: string, otherwise: SnapshotError): Promise<void> {
  try {
    await rename(from, to);
  } catch (thrown) {
    throw hasErrno(thrown, 'ENOENT') ? otherwise : thrown;
  }
}

async function requireNoReaders(volume: Volume, request: DeleteRequest, deadline: number): Promise<void> {
  for (;;) {
    const readers = await activeReaders(volume, request, request.silentAfterMs);
    if (readers.length === 0) return;
    const leftMs = deadline - performance.now();
    if (request.signal?.aborted) throw new SnapshotError('CANCELLED', 'waiting for readers was cancelled');
    if (leftMs <= 0) throw busy(request, `is being read by ${readers.slice(0, 10).join(', ')}`);
    await sleep(Math.min(POLL_MS, leftMs), undefined, { signal: request.signal }).catch(() => undefined);
  }
}

/**
 * What replacements moved aside must go first: a sweep would put it back once the artifact is gone. Who decided some time ago leaves
 * that to the sweep: it may be what another agent has just moved, for an instant. So may what another namespace made.
 */
async function clearSuperseded(volume: Volume, request: DeleteRequest): Promise<void> {
  const root = stagingRoot(volume, request.id);
  const { names, more } = await namesIn(root, MAX_ASIDE);
  if (more)
    throw new SnapshotError('STORAGE_FAILED', `${root} has more than ${MAX_ASIDE} entries: it must be cleared first`);
  const superseded = names.filter((each) => each.endsWith(`@${request.version}.old`));
  if (superseded.length > 0 && request.madeBy !== undefined) throw busy(request, 'is being moved by another agent');
  for (const name of superseded) {
    await requireOwn(volume, request, join(root, name));
    await discardTree(join(root, name));
  }
}

async function requireOwn(volume: Volume, request: DeleteRequest, directory: string): Promise<void> {
  const { id, version, keys, namespace } = request;
  if (namespace === undefined) return;
  const record = await readSigned(volume, { id, version, keys, directory }).catch((thrown: unknown) => {
    // Nobody's, or half of it is gone: as it lies beside an artifact of this namespace, it goes with it.
    if (thrown instanceof SnapshotError && thrown.code.startsWith('ARTIFACT_')) return undefined;
    throw thrown;
  });
  if (record !== undefined && record.source.namespace !== namespace) throw absent(request);
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

/**
 * What lay beside a deleted artifact goes with it, and the directories of a checkpoint with its last artifact; any that still has
 * something in it ends this.
 */
export async function tidyAfter(volume: Volume, name: ArtifactName): Promise<void> {
  const readers = readersDir(volume, name);
  const versions = versionsDir(volume, name.id);
  await removeFile(useFile(volume, name));
  for (const directory of [readers, dirname(readers), join(versions, 'tmp'), versions, dirname(versions)]) {
    try {
      await rmdir(directory);
    } catch (thrown) {
      if (!hasErrno(thrown, 'ENOTEMPTY', 'EEXIST', 'ENOENT')) throw thrown;
    }
  }
}
