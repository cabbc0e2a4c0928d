import { lstat, mkdir } from 'node:fs/promises';
import { join, resolve, sep } from 'node:path';
import { idProblem } from '../../contract/ids.ts';
import { SnapshotError } from '../errors.ts';
import { hasErrno } from './failure.ts';
import { syncDirectory } from './files.ts';

/** A volume that the native helper attached at `root`: nosuid, nodev, noexec, nosymfollow. */
export interface Volume {
  readonly root: string;
}

/** What names an artifact on a volume. */
export interface ArtifactName {
  readonly id: string;
  readonly version: string;
}

export const RECORD_FILE = 'manifest.yaml';

/** Throws ID_INVALID where `value` is no id; every id that becomes part of a path passes here. */
export function requireId(value: string, what: string): string {
  const problem = idProblem(value);
  if (problem === undefined) return value;
  throw new SnapshotError('ID_INVALID', `${what} ${JSON.stringify(value.slice(0, 80))} ${problem}`);
}

function idDir(volume: Volume, id: string): string {
  return join(volume.root, requireId(id, 'checkpoint id'));
}

/** Where the versions of a checkpoint lie. */
export function versionsDir(volume: Volume, id: string): string {
  return join(idDir(volume, id), 'versions');
}

/** Where an artifact lies once it is complete. */
export function artifactDir(volume: Volume, name: ArtifactName): string {
  return join(versionsDir(volume, name.id), requireId(name.version, 'artifact version'));
}

/** Where artifacts in the making, and those moved aside, lie. */
export function stagingRoot(volume: Volume, id: string): string {
  return join(versionsDir(volume, id), 'tmp');
}

/**
 * Where the readers of an artifact leave their marks. Not inside the artifact: a mark must stay in its place, under its name, while
 * the artifact is renamed aside.
 */
export function readersDir(volume: Volume, name: ArtifactName): string {
  return join(idDir(volume, name.id), 'readers', requireId(name.version, 'artifact version'));
}

/**
 * Shows by its time when an artifact was last restored. Beside the marks of its readers, not inside the artifact: what was signed
 * stays as it was. `@` is in no version.
 */
export function useFile(volume: Volume, name: ArtifactName): string {
  return `${readersDir(volume, name)}@used`;
}

/** Where agents leave what concerns the whole volume. No checkpoint has such an id: it begins with a dot. */
export function houseDir(volume: Volume): string {
  return join(volume.root, '.snapshot-agent');
}

/** The location that users see: the base path as they know it, without the place where the agent attached it. */
export function locationOf(basePath: string, name: ArtifactName): string {
  const base = basePath.replace(/\/+$/, '');
  return `${base}/${requireId(name.id, 'checkpoint id')}/versions/${requireId(name.version, 'artifact version')}`;
}

/** The directories from `root` (left out) down to `path`, outermost first. */
function componentsBelow(top: string, path: string): string[] {
  const root = resolve(top);
  if (path === root) return [];
  if (!path.startsWith(root + sep)) throw new SnapshotError('INTERNAL', `${path} does not lie below ${root}`);
  const parts = path.slice(root.length + 1).split(sep);
  return parts.map((_, index) => join(root, ...parts.slice(0, index + 1)));
}

async function isRealDirectory(path: string): Promise<boolean> {
  try {
    const found = await lstat(path);
    if (found.isDirectory()) return true;
    const what = found.isSymbolicLink() ? 'a symbolic link' : 'not a directory';
    throw new SnapshotError('STORAGE_UNSAFE', `${path} is ${what}; nothing below it was touched`);
  } catch (thrown) {
    if (hasErrno(thrown, 'ENOENT')) return false;
    throw thrown;
  }
}

/**
 * Whether `path` exists, seen component by component below `root`; a link or anything else that is no directory on the way is
 * refused by name. The look gives the message; that no link is followed even when one is planted right after it is the
 * work of the volume's nosymfollow.
 */
export async function hasDirectory(root: string, path: string): Promise<boolean> {
  for (const component of componentsBelow(root, path)) {
    if (!(await isRealDirectory(component))) return false;
  }
  return true;
}

/** Makes what is missing of `path` below `root`, mode 0700, each durable in its parent before the next. */
export async function makeDirectory(root: string, path: string): Promise<void> {
  for (const component of componentsBelow(root, path)) {
    if (await isRealDirectory(component)) continue;
    try {
      await mkdir(component, { mode: 0o700 });
    } catch (thrown) {
      // Another agent made it meanwhile, or somebody planted something: look again.
      if (!hasErrno(thrown, 'EEXIST')) throw thrown;
      await isRealDirectory(component);
    }
    await syncDirectory(join(component, '..'));
  }
}
