import { constants } from 'node:fs';
import { type FileHandle, lstat, open, opendir, rename, rmdir, unlink } from 'node:fs/promises';

const FLAGS = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
/** More in one directory are taken in parts. */
const MAX_NAMES = 1_000;
/** Deeper trees than that nobody makes but to harm; a descriptor is open for each level. */
const MAX_DEPTH = 400;

/** A name that is no way out of its directory. */
function isPlainName(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !name.includes('/') && !name.includes('\0');
}

/**
 * A directory that is held open. What is in it is reached through the descriptor: whatever others rename or replace by links meanwhile,
 * nothing outside of it is.
 */
export class Directory {
  readonly #handle: FileHandle;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** The directory that a volume is mounted at. */
  static async mounted(path: string): Promise<Directory> {
    return new Directory(await open(path, constants.O_RDONLY | constants.O_DIRECTORY));
  }

  /** A directory in it; undefined where there is none. Throws where a link or something else has its name. */
  async open(name: string): Promise<Directory | undefined> {
    try {
      return new Directory(await open(this.path(name), FLAGS));
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined;
      throw error;
    }
  }

  /** Where an entry is, for this process and as long as the directory is open. */
  path(name: string): string {
    if (!isPlainName(name)) throw new RangeError(`${JSON.stringify(name)} is no name of an entry`);
    return `/proc/self/fd/${this.#handle.fd}/${name}`;
  }

  /** Its entries, at most a thousand. */
  async names(): Promise<string[]> {
    const found: string[] = [];
    for await (const { name } of await opendir(`/proc/self/fd/${this.#handle.fd}`)) {
      found.push(name);
      if (found.length === MAX_NAMES) break;
    }
    return found;
  }

  async has(name: string): Promise<boolean> {
    return (await this.look(name)) !== undefined;
  }

  /** What has this name, links not followed. */
  async look(name: string) {
    try {
      return await lstat(this.path(name));
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined;
      throw error;
    }
  }

  /** Moves an entry into another directory. False: it is not there any more, or something else has the new name. */
  async move(name: string, to: Directory, as: string): Promise<boolean> {
    try {
      await rename(this.path(name), to.path(as));
      return true;
    } catch (error) {
      if (hasCode(error, 'ENOENT', 'ENOTEMPTY', 'EEXIST')) return false;
      throw error;
    }
  }

  /** Removes an entry with all that is in it. One that is gone is as good. */
  async remove(name: string, depth = 0): Promise<void> {
    if (depth > MAX_DEPTH) throw new Error(`directories are nested deeper than ${MAX_DEPTH}`);
    const found = await this.look(name);
    if (found === undefined) return;
    try {
      if (!found.isDirectory()) return await unlink(this.path(name));
      const below = await this.open(name);
      if (below === undefined) return;
      try {
        for (let names = await below.names(); names.length > 0; names = await below.names())
          for (const each of names) await below.remove(each, depth + 1);
      } finally {
        await below.close();
      }
      await rmdir(this.path(name));
    } catch (error) {
      if (!hasCode(error, 'ENOENT')) throw error;
    }
  }

  /** Removes a directory in it where that is empty. */
  async removeEmpty(name: string): Promise<void> {
    try {
      await rmdir(this.path(name));
    } catch (error) {
      if (!hasCode(error, 'ENOENT', 'ENOTEMPTY', 'EEXIST')) throw error;
    }
  }

  async sync(): Promise<void> {
    await this.#handle.sync();
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** Whether an error is of the file system, with one of these codes. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && 'code' in error && codes.includes(`${error.code}`);
}
