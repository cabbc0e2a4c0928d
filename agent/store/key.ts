import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { link, open, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { SnapshotError } from '../errors.ts';
import { hasErrno } from './failure.ts';
import { createFile, syncDirectory } from './files.ts';

/** A secret that only agents have. It signs completion records and is the root of the bulk keys. */
export interface RecordKey {
  /** The first 16 hex digits of the secret's SHA-256: says which key signed, tells nothing about it. */
  readonly id: string;
  readonly secret: Buffer;
}

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
  /** Make a key where there is none. Only for a single node: agents of several nodes must be given the same key. */
  readonly create: boolean;
}

const MIN_BYTES = 32;
const MAX_BYTES = 4096;

/** A key from its bytes: hexadecimal text of at least 64 digits stands for the bytes it spells, anything else for itself. */
export function keyFromBytes(content: Buffer): RecordKey {
  const text = content.toString('latin1').trimEnd();
  const secret =
    /^(?:[0-9a-fA-F]{2})+$/.test(text) && text.length >= 2 * MIN_BYTES ? Buffer.from(text, 'hex') : content;
  if (secret.length < MIN_BYTES || secret.length > MAX_BYTES) {
    throw new SnapshotError(
      'CONFIG_INVALID',
      `a record key has ${secret.length} bytes, ${MIN_BYTES} to ${MAX_BYTES} are allowed`,
    );
  }
  return { id: createHash('sha256').update(secret).digest('hex').slice(0, 16), secret };
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
  return { current, accepted };
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
      if (found.size > 2 * MAX_BYTES + 2)
        throw new SnapshotError('CONFIG_INVALID', `the record key ${path} is too large`);
      return keyFromBytes(await handle.readFile());
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
    await (await createFile(temporary, `${randomBytes(MIN_BYTES).toString('hex')}\n`)).close();
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
