import { randomBytes, randomUUID } from 'node:crypto';
import { link, open, readdir, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  MAX_RECORD_KEY_BYTES,
  MAX_RECORD_KEYS,
  MIN_RECORD_KEY_BYTES,
  RECORD_KEY_ENDING,
  type RecordKey,
  recordKeyOf,
} from '../../contract/record-key.ts';
import { SnapshotError } from '../errors.ts';
import { hasErrno } from './failure.ts';
import { createFile, syncDirectory } from './files.ts';

export type { RecordKey } from '../../contract/record-key.ts';

export interface RecordKeys {
  /** Signs new records. */
  readonly current: RecordKey;
  /** Verifies records: the current key and older ones. */
  readonly accepted: readonly RecordKey[];
}

export interface KeyFiles {
  readonly path: string;
  /** Older keys that still verify, so that a key can be changed without losing artifacts. */
  readonly olderPaths?: readonly string[];
  /** A directory whose `*.key` files verify too, as a mounted Secret is; at most MAX_RECORD_KEYS. */
  readonly acceptedDirectory?: string | undefined;
  /** Make a key where there is none. Only for a single node: agents of several nodes must be given the same key. */
  readonly create: boolean;
}

/** How often a directory is read anew because it was changed while it was read. */
const MAX_READS = 5;

/** A key from its bytes. Throws CONFIG_INVALID. */
export function keyFromBytes(content: Buffer): RecordKey {
  const key = recordKeyOf(content);
  if (typeof key === 'string') throw new SnapshotError('CONFIG_INVALID', `a record key ${key}`);
  return key;
}

/** Loads the record keys, and makes the current one where configuration asks for that. */
export async function loadRecordKeys(files: KeyFiles): Promise<RecordKeys> {
  let current = await readKey(files.path);
  if (current === undefined && files.create) {
    await createKey(files.path);
    current = await readKey(files.path);
  }
  if (current === undefined) throw new SnapshotError('CONFIG_INVALID', `the record key ${files.path} does not exist`);
  const accepted = [current];
  for (const path of files.olderPaths ?? []) {
    const older = await readKey(path);
    if (older === undefined) throw new SnapshotError('CONFIG_INVALID', `the older record key ${path} does not exist`);
    accepted.push(older);
  }
  if (files.acceptedDirectory) accepted.push(...(await readDirectory(files.acceptedDirectory)));
  return { current, accepted: uniqueById(accepted) };
}

const uniqueById = (keys: readonly RecordKey[]) => [...new Map(keys.map((key) => [key.id, key])).values()];

/**
 * Every key of a directory. What was listed may be gone when it is opened, because kubelet swaps all files at once: then another
 * listing says what is there. Half of the one and half of the other would lack keys that both have.
 */
async function readDirectory(directory: string): Promise<RecordKey[]> {
  for (let read = 0; read < MAX_READS; read += 1) {
    const names = (await listNames(directory)).filter((name) => !name.startsWith('.'));
    const paths = names.filter((name) => name.endsWith(RECORD_KEY_ENDING)).map((name) => join(directory, name));
    if (paths.length > MAX_RECORD_KEYS)
      throw new SnapshotError(
        'CONFIG_INVALID',
        `${directory} has ${paths.length} record keys, at most ${MAX_RECORD_KEYS} are accepted`,
      );
    const keys = await Promise.all(paths.sort().map(readKey));
    const found = keys.filter((key) => key !== undefined);
    if (found.length === keys.length) return found;
  }
  throw new SnapshotError(
    'CONFIG_INVALID',
    `${directory} has a record key that leads nowhere, or changes all the time`,
  );
}

async function listNames(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (cause) {
    throw new SnapshotError('CONFIG_INVALID', `cannot read the record keys in ${directory}: ${String(cause)}`, {
      cause,
    });
  }
}

/** Links are followed here, unlike anywhere on a volume: a mounted Secret is made of them. */
async function readKey(path: string): Promise<RecordKey | undefined> {
  try {
    const handle = await open(path, 'r');
    try {
      const found = await handle.stat();
      if (!found.isFile()) throw new SnapshotError('CONFIG_INVALID', `the record key ${path} is not a regular file`);
      const mode = found.mode & 0o777;
      if ((mode & 0o077) !== 0) {
        const shown = mode.toString(8).padStart(4, '0');
        throw new SnapshotError(
          'CONFIG_INVALID',
          `the record key ${path} has mode ${shown}: group and others must have no access (0600 or 0400)`,
        );
      }
      if (found.size > 2 * MAX_RECORD_KEY_BYTES + 2)
        throw new SnapshotError('CONFIG_INVALID', `the record key ${path} is too large`);
      const key = recordKeyOf(await handle.readFile());
      if (typeof key === 'string') throw new SnapshotError('CONFIG_INVALID', `the record key ${path} ${key}`);
      return key;
    } finally {
      await handle.close();
    }
  } catch (thrown) {
    if (hasErrno(thrown, 'ENOENT')) return undefined;
    if (thrown instanceof SnapshotError) throw thrown;
    throw new SnapshotError('CONFIG_INVALID', `cannot read the record key ${path}: ${String(thrown)}`, {
      cause: thrown,
    });
  }
}

/** link(2) fails where the name is taken: of two agents that start at once one makes the key, and both then read that one. */
async function createKey(path: string): Promise<void> {
  const temporary = join(dirname(path), `.${randomUUID()}`);
  try {
    await (await createFile(temporary, `${randomBytes(MIN_RECORD_KEY_BYTES).toString('hex')}\n`)).close();
    try {
      await link(temporary, path);
    } catch (thrown) {
      if (!hasErrno(thrown, 'EEXIST')) throw thrown;
    } finally {
      await unlink(temporary);
    }
    await syncDirectory(dirname(path));
  } catch (thrown) {
    throw new SnapshotError('CONFIG_INVALID', `cannot make the record key ${path}: ${String(thrown)}`, {
      cause: thrown,
    });
  }
}
