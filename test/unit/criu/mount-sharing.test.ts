import { readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { readImage } from '../../../agent/criu/images/file.ts';
import { cutExternalMasters } from '../../../agent/criu/images/mount-sharing.ts';
import { parseMessage, uint } from '../../../agent/criu/images/wire.ts';
import { makeDir, message, put } from './synthetic.ts';

const MS_RDONLY = 1;
const MS_SLAVE = 1 << 19;
const MS_SHARED = 1 << 20;

const mount = (id: number, flags: number, sharing: readonly [number, number][]) =>
  message([1, 17], [2, id], [3, 77], [4, 1], [5, flags], [6, '/'], [7, `/m${id}`], [8, 'overlay'], [9, ''], ...sharing);

function imagesWith(...mounts: Uint8Array[]): string {
  const dir = makeDir();
  put(dir, 'mountpoints-12.img', 'mountpoints', mounts);
  return dir;
}

async function sharingIn(dir: string) {
  const { entries } = await readImage(path.join(dir, 'mountpoints-12.img'), 'mountpoints');
  return entries.map((entry) => {
    const parsed = parseMessage(entry, 'mount');
    return { flags: uint(parsed, 5), shared: uint(parsed, 10), master: uint(parsed, 11) };
  });
}

describe('slaves of mounts outside the container', () => {
  it('become private, and keep everything else', async () => {
    const dir = imagesWith(mount(7, MS_SLAVE | MS_RDONLY, [[11, 412]]), mount(8, 0, []));
    expect(await cutExternalMasters(dir)).toBe(1);
    expect(await sharingIn(dir)).toEqual([
      { flags: MS_RDONLY, shared: undefined, master: undefined },
      { flags: 0, shared: undefined, master: undefined },
    ]);
  });

  it('stay shared where they are that, too', async () => {
    const dir = imagesWith(
      mount(7, MS_SLAVE | MS_SHARED, [
        [10, 5],
        [11, 412],
      ]),
    );
    expect(await cutExternalMasters(dir)).toBe(1);
    expect(await sharingIn(dir)).toEqual([{ flags: MS_SHARED, shared: 5, master: undefined }]);
  });
});

describe('other mounts', () => {
  it('are left alone, slaves of mounts inside the container among them', async () => {
    const dir = imagesWith(mount(7, MS_SHARED, [[10, 5]]), mount(8, MS_SLAVE, [[11, 5]]), mount(9, 0, [[11, 0]]));
    const before = readFileSync(path.join(dir, 'mountpoints-12.img'));
    expect(await cutExternalMasters(dir)).toBe(0);
    expect(readFileSync(path.join(dir, 'mountpoints-12.img'))).toEqual(before);
  });
});
