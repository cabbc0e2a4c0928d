import { join } from 'node:path';
import { idProblem } from '../../contract/ids.ts';
import { SnapshotError } from '../errors.ts';
import { hasErrno, storageWork } from './failure.ts';
import { namesIn } from './files.ts';
import { type ArtifactName, hasDirectory, type Volume, versionsDir } from './paths.ts';

/** The directories of a volume whose names are checkpoint ids, at most `limit`; `more` says that there are others. */
export async function listIds(volume: Volume, limit: number): Promise<{ ids: string[]; more: boolean }> {
  const { names, more } = await storageWork(`list ${volume.root}`, () => namesIn(volume.root, limit));
  return { ids: names.filter((name) => idProblem(name) === undefined).sort(), more };
}

/**
 * What lies on a volume where artifacts lie, complete or not, at most `limit` of them. Names only: whether one can be used
 * is for readArtifact to say.
 */
export async function listArtifacts(
  volume: Volume,
  limit: number,
): Promise<{ artifacts: ArtifactName[]; more: boolean }> {
  const { ids, more } = await listIds(volume, limit);
  const artifacts: ArtifactName[] = [];
  for (const id of ids) {
    for (const version of await versionsOf(volume, id, limit)) {
      if (artifacts.length === limit) return { artifacts, more: true };
      artifacts.push({ id, version });
    }
  }
  return { artifacts, more };
}

async function versionsOf(volume: Volume, id: string, limit: number): Promise<string[]> {
  const directory = versionsDir(volume, id);
  try {
    if (!(await hasDirectory(volume.root, directory))) return [];
    const { names } = await namesIn(directory, limit);
    const versions: string[] = [];
    for (const name of names.filter((each) => idProblem(each) === undefined).sort()) {
      if (await hasDirectory(volume.root, join(directory, name))) versions.push(name);
    }
    return versions;
  } catch (thrown) {
    // One planted link must not hide the other artifacts; asking for this one by name says what is wrong.
    if (thrown instanceof SnapshotError && thrown.code === 'STORAGE_UNSAFE') return [];
    if (hasErrno(thrown, 'ENOENT')) return [];
    throw thrown;
  }
}
