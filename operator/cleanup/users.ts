import { randomUUID } from 'node:crypto';
import { constants } from 'node:fs';
import { open, unlink } from 'node:fs/promises';
import type { Directory } from './directory.ts';

/** A mark that is older was left by an agent that died, or lost the storage: as for agents (docs/decisions/0008). */
const SILENT_MS = 60_000;

/**
 * Who uses the artifacts of a checkpoint now: operations that read one, as `readers/VERSION/OPERATION`, and those that make one, by their owner
 * files in `versions/tmp`. Ages are measured by the storage's clock.
 */
export async function usersOf(
  checkpoint: Directory,
  staging: Directory,
  silentMs = SILENT_MS,
): Promise<readonly string[]> {
  const now = await storageNow(staging);
  const young = async (directory: Directory, names: readonly string[]) => {
    const looks = await Promise.all(names.map(async (name) => ({ name, found: await directory.look(name) })));
    return looks.flatMap(({ name, found }) => (found !== undefined && now - found.mtimeMs < silentMs ? [name] : []));
  };
  const makers = (await staging.names()).filter((name) => name.endsWith('.owner'));
  const users = (await young(staging, makers)).map((name) => `maker ${name.slice(0, -'.owner'.length)}`);
  const readers = await checkpoint.open('readers');
  if (readers === undefined) return users;
  try {
    for (const version of await readers.names()) {
      // Beside the directories lie the marks of last uses.
      if ((await readers.look(version))?.isDirectory() !== true) continue;
      const marks = await readers.open(version);
      if (marks === undefined) continue;
      try {
        users.push(...(await young(marks, await marks.names())).map((name) => `reader ${name} of version ${version}`));
      } finally {
        await marks.close();
      }
    }
  } finally {
    await readers.close();
  }
  return users;
}

/** What the storage takes for now. */
async function storageNow(directory: Directory): Promise<number> {
  // Under this ending a sweep removes it should this process die right here.
  const path = directory.path(`${randomUUID()}.trash`);
  const handle = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    return (await handle.stat()).mtimeMs;
  } finally {
    await handle.close();
    await unlink(path);
  }
}
