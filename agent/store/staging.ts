import { randomUUID } from 'node:crypto';
import { mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { hasErrno, storageWork } from './failure.ts';
import { removeTree, syncDirectory } from './files.ts';
import { markOwner, type Operation, type OwnerMark, removeFile } from './owner.ts';
import { type ArtifactName, artifactDir, makeDirectory, requireId, stagingRoot, type Volume } from './paths.ts';

/**
 * What lies in `<id>/versions/tmp/`:
 *   <uuid>                      an artifact in the making
 *   <uuid>.owner                whose it is; lives from before the directory is made until after it is published
 *   <operation>@<version>.old   what a replacement moved aside: put back where nothing took its place
 *   <operation>@<version>.deleted   what a deletion moved aside: never put back by a sweep
 *   <uuid>.trash                claimed for removal
 * The owner's file lies beside its directory, not inside: so it need not leave before the directory becomes the artifact, and
 * there is no moment in which a live operation looks ownerless. `@` is in no id.
 */
export function asidePath(volume: Volume, name: ArtifactName, operationId: string, ending: 'old' | 'deleted'): string {
  const version = requireId(name.version, 'artifact version');
  return join(stagingRoot(volume, name.id), `${requireId(operationId, 'operation id')}@${version}.${ending}`);
}

/** An artifact in the making. */
export interface Staging {
  readonly path: string;
  readonly operation: Operation;
  /** Gives up the ownership after publishing: no more heartbeat, owner file gone. */
  release(): Promise<void>;
  /** No more heartbeat, and nothing else changes: for one who takes it over later. */
  leave(): Promise<void>;
  /** Removes all of it, or what a failed removal left. Harmless after publishing and when repeated. */
  discard(): Promise<void>;
}

export interface StagingRequest extends ArtifactName {
  readonly volume: Volume;
  readonly operation: Operation;
  readonly heartbeatMs?: number;
}

/** Makes an empty staging directory, mode 0700, that a sweep leaves alone as long as its owner lives. */
export async function makeStaging(request: StagingRequest): Promise<Staging> {
  const { volume, id, operation } = request;
  artifactDir(volume, request);
  requireId(operation.operationId, 'operation id');
  const root = stagingRoot(volume, id);
  const path = join(root, randomUUID());
  return await storageWork(`make a staging directory for ${id}`, async () => {
    await makeDirectory(volume.root, root);
    const mark = await markOwner(`${path}.owner`, operation, request.heartbeatMs);
    try {
      await mkdir(path, { mode: 0o700 });
      await syncDirectory(root);
    } catch (thrown) {
      await mark.remove();
      throw thrown;
    }
    return stagingOf(path, operation, mark);
  });
}

/** Takes over a staging directory that an earlier run of the same operation left, with its owner file. */
export async function reopenStaging(path: string, operation: Operation): Promise<Staging> {
  return await storageWork(`take over ${path}`, async () => {
    await removeFile(`${path}.owner`);
    const mark = await markOwner(`${path}.owner`, operation);
    return stagingOf(path, operation, mark);
  });
}

function stagingOf(path: string, operation: Operation, mark: OwnerMark): Staging {
  const discard = () =>
    storageWork(`discard ${path}`, async () => {
      await discardTree(path);
      await mark.remove();
    });
  return { path, operation, release: mark.remove, leave: mark.stop, discard };
}

/**
 * Removes a directory of `tmp/` by first claiming it under a new name: nobody can put back, or take for whole, what is half removed.
 * False where somebody else claimed it, or the budget ran out; a sweep removes the rest.
 */
export async function discardTree(path: string, budget = { left: Number.POSITIVE_INFINITY }): Promise<boolean> {
  const claimed = join(path, '..', `${randomUUID()}.trash`);
  try {
    await rename(path, claimed);
  } catch (thrown) {
    if (hasErrno(thrown, 'ENOENT')) return false;
    throw thrown;
  }
  return await removeTree(claimed, budget);
}
