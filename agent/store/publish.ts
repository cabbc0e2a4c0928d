import { rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { hasErrno, storageWork } from './failure.ts';
import { syncDirectory, writeDurable } from './files.ts';
import type { RecordKeys } from './key.ts';
import { type ArtifactName, artifactDir, makeDirectory, RECORD_FILE, stagingRoot, type Volume } from './paths.ts';
import { activeReaders } from './readers.ts';
import { type ArtifactRecord, encodeRecord } from './record.ts';
import { FORMAT_VERSION, minReaderOf } from './schema.ts';
import { asidePath, discardTree, type Staging } from './staging.ts';
import { sealTree } from './sync.ts';
import { type ArtifactState, artifactState, requireNamespace } from './verify.ts';

/** What the operation knows; the rest of the record is what publishing finds. */
export type RecordDraft = Omit<ArtifactRecord, 'formatVersion' | 'minReader' | 'checkpointId' | 'version' | 'files'>;

export interface PublishRequest extends ArtifactName {
  readonly volume: Volume;
  readonly staging: Staging;
  readonly record: RecordDraft;
  readonly keys: RecordKeys;
  /** `new` leaves a complete artifact alone; `replace` puts this one in its place. */
  readonly mode: 'new' | 'replace';
}

/** What lay in the artifact's place before. */
interface Displaced {
  readonly was: 'complete' | 'unusable';
  /** Why it was unusable; empty where it was complete. */
  readonly problem: string;
  /** Where it lies until a sweep removes it, and why it was not removed at once; undefined where it is gone. */
  readonly left?: { readonly path: string; readonly why: string };
}

export interface Published {
  readonly directory: string;
  readonly record: ArtifactRecord;
  readonly displaced?: Displaced;
}

/**
 * Makes a staged artifact durable, signs it and puts it in its place. At every moment a sweep of what a crash leaves yields the old
 * artifact or the new one: nothing old is removed before the new one is durable under its name.
 */
export async function publish(request: PublishRequest): Promise<Published> {
  const { volume, id, version, staging, keys } = request;
  const directory = artifactDir(volume, request);
  return await storageWork(`publish ${id}, version ${version}`, async () => {
    const files = await sealTree(staging.path);
    const record = {
      ...request.record,
      formatVersion: FORMAT_VERSION,
      minReader: minReaderOf(request.record),
      checkpointId: id,
      version,
      files,
    } as const;
    await writeDurable(join(staging.path, RECORD_FILE), encodeRecord(record, keys.current));
    await makeDirectory(volume.root, dirname(directory));
    const old = await moveAside(request, directory);
    await moveIn(staging.path, directory, old?.path);
    // First the place of the new name, then the one that it left.
    await syncDirectory(dirname(directory));
    await syncDirectory(stagingRoot(volume, id));
    if (old === undefined) {
      await giveUp(staging);
      return { directory, record };
    }
    const displaced = await removeOld(request, old);
    await giveUp(staging);
    return { directory, record, displaced };
  });
}

interface Old {
  readonly path: string;
  readonly was: 'complete' | 'unusable';
  readonly problem: string;
}

/** Renames what lies in the artifact's place to `tmp/<operation>@<version>.old`, if it may be displaced. */
async function moveAside(request: PublishRequest, directory: string): Promise<Old | undefined> {
  const { volume, id, version, keys, staging } = request;
  const found = await artifactState(volume, { id, version, keys });
  if (found.state === 'absent') return undefined;
  refuseToDisplace(found, { ...request, namespace: request.record.source.namespace });
  const path = asidePath(volume, request, staging.operation.operationId, 'old');
  // An earlier attempt of this operation left it there; as something lies in its place, it is not needed.
  await discardTree(path);
  try {
    await rename(directory, path);
  } catch (thrown) {
    // Another publisher moved it aside meanwhile; who comes first to the free place is decided by the next rename.
    if (hasErrno(thrown, 'ENOENT')) return undefined;
    throw thrown;
  }
  if (found.state === 'complete') return { path, was: 'complete', problem: '' };
  return { path, was: 'unusable', problem: found.problem.message };
}

/** What is about to take the place of an artifact. */
export type DisplaceRequest = Pick<PublishRequest, 'id' | 'version' | 'mode'> & { readonly namespace: string };

/**
 * What may not be displaced: a complete artifact unless asked to, another namespace's, and what this agent cannot judge (a newer format,
 * another system's, a key it does not have): that may be whole for somebody else. To be asked before a workload is touched, and again on publishing.
 */
export function refuseToDisplace(found: ArtifactState, request: DisplaceRequest): void {
  if (found.state === 'absent') return;
  const { id, version, mode } = request;
  if (found.state === 'complete' && mode === 'new') {
    throw new SnapshotError('ARTIFACT_EXISTS', `there is a complete artifact ${id}, version ${version}`);
  }
  const record = found.state === 'complete' ? found.artifact.record : found.record;
  if (record !== undefined) requireNamespace(record, request.namespace);
  if (found.state === 'complete') return;
  const { problem } = found;
  const isForeign =
    problem.code === 'ARTIFACT_FORMAT' || problem.reasons.some((reason) => reason.code === 'KEY_UNKNOWN');
  if (!isForeign) return;
  const code = mode === 'new' ? 'ARTIFACT_EXISTS' : problem.code;
  const message = `what is there may be whole for another agent, and is not replaced: ${problem.message}`;
  throw new SnapshotError(code, message, { cause: problem, reasons: problem.reasons });
}

async function moveIn(staged: string, directory: string, old: string | undefined): Promise<void> {
  try {
    await rename(staged, directory);
  } catch (thrown) {
    if (hasErrno(thrown, 'ENOTEMPTY', 'EEXIST')) {
      throw new SnapshotError('ARTIFACT_EXISTS', `${directory} was published by another agent at the same time`, {
        cause: thrown,
      });
    }
    // The old one serves until the storage is well again; should this fail too, a sweep puts it back.
    if (old !== undefined) await rename(old, directory).catch(() => {});
    throw thrown;
  }
}

/** Removes what was replaced, unless a restore still reads it. From here on nothing fails any more: the new artifact is durable. */
async function removeOld(request: PublishRequest, old: Old): Promise<Displaced> {
  const { was, problem, path } = old;
  const left = (why: string): Displaced => ({ was, problem, left: { path, why } });
  if (was === 'unusable') return left('kept until the next sweep, for a look');
  try {
    const readers = await activeReaders(request.volume, request);
    if (readers.length > 0) return left(`read by ${readers.join(', ')}`);
    await discardTree(path);
    return { was, problem };
  } catch (thrown) {
    return left(String(thrown));
  }
}

/** An owner file that stays is removed by the next sweep. */
async function giveUp(staging: Staging): Promise<void> {
  await staging.release().catch(() => {});
}
