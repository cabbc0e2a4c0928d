import { join } from 'node:path';
import { idProblem } from '../../contract/ids.ts';
import { SnapshotError } from '../errors.ts';
import { storageWork } from './failure.ts';
import { namesIn } from './files.ts';
import { type ArtifactName, hasDirectory, type Volume, versionsDir } from './paths.ts';

/** The directories of a volume whose names are checkpoint ids, at most `limit`; `more` says that there are others. */
export async function listIds(volume: Volume, limit: number): Promise<{ ids: string[]; more: boolean }> {
  const { names, more } = await storageWork(`list ${volume.root}`, () => namesIn(volume.root, limit));
  return { ids: names.filter((name) => idProblem(name) === undefined).sort(), more };
}

/** Names in one directory that are looked at: all are read before they are put in order, so that pages fit together. */
const MAX_NAMES = 100_000;

/**
 * What lies on a volume where artifacts lie, complete or not, at most `limit` of them, by id and version from the one that follows
 * `after`. Names only: whether one can be used is for readArtifact to say.
 */
export async function listArtifacts(
  volume: Volume,
  limit: number,
  after: ArtifactName = { id: '', version: '' },
): Promise<{ artifacts: ArtifactName[]; more: boolean }> {
  const { ids, more } = await listIds(volume, MAX_NAMES);
  const artifacts: ArtifactName[] = [];
  for (const id of ids.filter((each) => each >= after.id)) {
    for (const version of await versionsOf(volume, id)) {
      if (id === after.id && version <= after.version) continue;
      if (artifacts.length === limit) return { artifacts, more: true };
      artifacts.push({ id, version });
    }
  }
  return { artifacts, more };
}

async function versionsOf(volume: Volume, id: string): Promise<string[]> {
  const directory = versionsDir(volume, id);
  if (!(await isPlain(volume, directory))) return [];
  const { names } = await namesIn(directory, MAX_NAMES);
  const versions: string[] = [];
  for (const name of names.filter((each) => idProblem(each) === undefined).sort()) {
    if (await isPlain(volume, join(directory, name))) versions.push(name);
  }
  return versions;
}

/** Whether it is a directory, reached without links. One planted link must not hide the others; asking for this one by name says what is wrong. */
async function isPlain(volume: Volume, directory: string): Promise<boolean> {
  try {
    return await hasDirectory(volume.root, directory);
  } catch (thrown) {
    if (thrown instanceof SnapshotError && thrown.code === 'STORAGE_UNSAFE') return false;
    throw thrown;
  }
}
