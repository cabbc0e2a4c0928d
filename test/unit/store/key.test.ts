import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { keyFromBytes, loadRecordKeys } from '../../../agent/store/key.ts';
import { MAX_RECORD_KEYS } from '../../../contract/record-key.ts';
import { makeVolume } from './volume.ts';

let directory: Awaited<ReturnType<typeof makeVolume>>;
beforeEach(async () => {
  directory = await makeVolume();
});
afterEach(() => directory.remove());
const at = (name: string) => join(directory.root, name);

describe('the record key', () => {
  it('is made once, although several agents start together', async () => {
    const path = at('key');
    const loaded = await Promise.all(Array.from({ length: 20 }, () => loadRecordKeys({ path, create: true })));
    expect(new Set(loaded.map((keys) => keys.current.id)).size).toBe(1);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await stat(path)).nlink).toBe(1);
    expect(await readdir(directory.root)).toEqual(['key']);
    expect(await readFile(path, 'latin1')).toMatch(/^[0-9a-f]{64}\n$/);
  });

  it('is the same as text and as bytes', () => {
    const bytes = Buffer.from(Array.from({ length: 32 }, (_, n) => n));
    expect(keyFromBytes(Buffer.from(`${bytes.toString('hex').toUpperCase()}\n`))).toEqual(keyFromBytes(bytes));
  });

  it('is not made where configuration does not say so', async () => {
    await expect(loadRecordKeys({ path: at('key'), create: false })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringMatching(/does not exist/),
    });
  });

  it.each([0o640, 0o604, 0o660])('is refused with mode %o', async (mode) => {
    await writeFile(at('key'), Buffer.alloc(32, 1));
    await chmod(at('key'), mode);
    await expect(loadRecordKeys({ path: at('key'), create: true })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringMatching(/must have no access/),
    });
  });

  it.each([
    ['too short', Buffer.alloc(31, 1)],
    ['short text', Buffer.from('ab'.repeat(15))],
    ['too long', Buffer.alloc(10_000, 1)],
  ])('is refused when %s', async (_, content) => {
    await writeFile(at('key'), content, { mode: 0o600 });
    await expect(loadRecordKeys({ path: at('key'), create: false })).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
  });

  it('may be reached through links, as a mounted Secret is', async () => {
    await mkdir(at('..data'));
    await writeFile(at('..data/key'), Buffer.alloc(32, 1), { mode: 0o400 });
    await symlink('..data/key', at('key'));
    expect((await loadRecordKeys({ path: at('key'), create: false })).current).toEqual(
      keyFromBytes(Buffer.alloc(32, 1)),
    );
  });

  it('comes with older ones that only verify', async () => {
    await writeFile(at('new'), Buffer.alloc(32, 1), { mode: 0o600 });
    await writeFile(at('old'), Buffer.alloc(32, 2), { mode: 0o600 });
    const keys = await loadRecordKeys({ path: at('new'), olderPaths: [at('old')], create: false });
    expect(keys.current).toEqual(keyFromBytes(Buffer.alloc(32, 1)));
    expect(keys.accepted).toEqual([keyFromBytes(Buffer.alloc(32, 1)), keyFromBytes(Buffer.alloc(32, 2))]);
    await expect(loadRecordKeys({ path: at('new'), olderPaths: [at('gone')], create: false })).rejects.toThrow(
      /older record key/,
    );
  });

  describe('beside a directory of accepted ones', () => {
    const files = () => ({ path: at('record.key'), acceptedDirectory: directory.root, create: false });
    const keyOf = (byte: number) => keyFromBytes(Buffer.alloc(32, byte));
    const put = (name: string, byte: number) => writeFile(at(name), Buffer.alloc(32, byte), { mode: 0o400 });

    it('counts once, and what is no key file not at all', async () => {
      await put('record.key', 1);
      await put('previous-2.key', 2);
      await put('again.key', 2);
      await put('readme', 9);
      await put('.half-written.key', 9);
      const keys = await loadRecordKeys(files());
      expect(keys.current).toEqual(keyOf(1));
      expect(keys.accepted.map(({ id }) => id).sort()).toEqual([keyOf(1).id, keyOf(2).id].sort());
    });

    it('is refused with the path of a file there that is no good', async () => {
      await put('record.key', 1);
      await writeFile(at('short.key'), 'short', { mode: 0o400 });
      await expect(loadRecordKeys(files())).rejects.toMatchObject({
        code: 'CONFIG_INVALID',
        message: expect.stringMatching(/short\.key has 5 bytes/),
      });
      await chmod(at('short.key'), 0o444);
      await expect(loadRecordKeys(files())).rejects.toThrow(/short\.key has mode 0444/);
    });

    it('is refused where a link there leads nowhere, or the directory is not there', async () => {
      await put('record.key', 1);
      await symlink('gone', at('lost.key'));
      await expect(loadRecordKeys(files())).rejects.toThrow(/leads nowhere/);
      await expect(loadRecordKeys({ ...files(), acceptedDirectory: at('none') })).rejects.toThrow(/none: .*ENOENT/);
    });

    it('is refused beyond the limit, which the programs share', async () => {
      for (let n = 0; n < MAX_RECORD_KEYS; n += 1) await put(n === 0 ? 'record.key' : `${n}.key`, n + 1);
      expect((await loadRecordKeys(files())).accepted).toHaveLength(MAX_RECORD_KEYS);
      await put('more.key', 99);
      await expect(loadRecordKeys(files())).rejects.toThrow(`at most ${MAX_RECORD_KEYS} are accepted`);
    });
  });
});
