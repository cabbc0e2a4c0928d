import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { SnapshotError } from '../../errors.ts';
import { numberField, replaceFields, sameOutside } from './edit.ts';
import { readImage, replaceEntries } from './file.ts';
import { big, type Message, parseMessage, uint } from './wire.ts';

/** Fields of a mount. */
const FIELD = { flags: 5, sharedId: 10, masterId: 11 };
const MS_SLAVE = 1n << 19n;

/**
 * Where the host's mounts are shared, as systemd makes them, a container's root and some of its volumes are slaves of mounts outside the
 * container. CRIU would make the restored ones slaves of the mounts they come from, which are a private clone here: it fails. They
 * become private instead. Slaves of mounts inside the container stay. Returns how many were changed.
 */
export async function cutExternalMasters(dir: string): Promise<number> {
  let cut = 0;
  for (const name of (await readdir(dir)).filter((each) => /^mountpoints-\d{1,10}\.img$/.test(each))) {
    const file = path.join(dir, name);
    const image = await readImage(file, 'mountpoints');
    const mounts = image.entries.map((entry, index) => parseMessage(entry, `${name} entry ${index}`));
    const inside = new Set(mounts.map((mount) => uint(mount, FIELD.sharedId) ?? 0));
    const edits = new Map(
      mounts.flatMap((mount, index) => {
        const master = uint(mount, FIELD.masterId) ?? 0;
        return master === 0 || inside.has(master) ? [] : [[index, withoutMaster(mount, image.entries[index])] as const];
      }),
    );
    if (edits.size > 0) await replaceEntries(file, image, edits);
    cut += edits.size;
  }
  return cut;
}

function withoutMaster(mount: Message, before: Uint8Array = new Uint8Array()): Uint8Array {
  const flags = (big(mount, FIELD.flags) ?? 0n) & ~MS_SLAVE;
  const after = replaceFields(
    mount,
    new Map([
      [FIELD.flags, [numberField(FIELD.flags, flags)]],
      [FIELD.masterId, []],
    ]),
  );
  if (!sameOutside(before, after, new Set([FIELD.flags, FIELD.masterId])))
    throw new SnapshotError('INTERNAL', `${mount.name}: the edit changed other fields`);
  return after;
}
