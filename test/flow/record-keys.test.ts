import { chmod, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { keyFromBytes, loadRecordKeys } from '../../agent/store/key.ts';
import { followRecordKeys, type LiveRecordKeys } from '../../agent/store/key-following.ts';
import { until } from '../fakes/cri-server.ts';
import { memoryLog } from '../fakes/log.ts';
import { type MountedSecret, mountSecret } from '../fakes/mounted-secret.ts';

const content = (byte: number) => Buffer.alloc(32, byte).toString('hex');
const idOf = (byte: number) => keyFromBytes(Buffer.alloc(32, byte)).id;
const CHANGED = 'the record keys changed';
const UNUSED = 'changed record keys are not used: what was in force stays';

let home: string;
let live: LiveRecordKeys | undefined;
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'record-keys-'));
});
afterEach(async () => {
  live?.stop();
  await rm(home, { recursive: true, force: true });
});

async function follow(path: string, acceptedDirectory: string | undefined) {
  const files = { path, acceptedDirectory, create: true };
  const logged = memoryLog();
  live = followRecordKeys(files, { first: await loadRecordKeys(files), log: logged.log, everyMs: 5 });
  const following = live;
  return {
    ...logged,
    isStale: () => following.isStale(),
    signs: () => following.current().current.id,
    accepts: () =>
      following
        .current()
        .accepted.map(({ id }) => id)
        .sort(),
  };
}

describe('record keys of a mounted Secret', () => {
  let secret: MountedSecret;
  beforeEach(async () => {
    secret = await mountSecret(join(home, 'secret'), { 'record.key': content(1) });
  });

  it('follow it through a change, one that is new accepted before it signs', async () => {
    const keys = await follow(join(secret.path, 'record.key'), secret.path);
    expect([keys.signs(), keys.accepts()]).toEqual([idOf(1), [idOf(1)]]);
    await secret.swap({ 'record.key': content(1), [`next-${idOf(2)}.key`]: content(2) });
    await until(() => keys.accepts().length === 2, 'the next key is accepted');
    expect(keys.signs()).toBe(idOf(1));
    await secret.swap({ 'record.key': content(2), [`previous-${idOf(1)}.key`]: content(1) });
    await until(() => keys.signs() === idOf(2), 'the next key signs');
    expect(keys.accepts()).toEqual([idOf(1), idOf(2)].sort());
    await secret.swap({ 'record.key': content(2) });
    await until(() => keys.accepts().length === 1, 'the old key is forgotten');
    expect(keys.said(CHANGED).map(({ signs }) => signs)).toEqual([idOf(1), idOf(2), idOf(2)]);
    expect(JSON.stringify(keys.lines)).not.toContain(content(1));
  });

  it('lack none of both sides, however often they are swapped while they are read', async () => {
    const [one, two] = [
      { 'record.key': content(1), 'a.key': content(2), 'b.key': content(3) },
      { 'record.key': content(1), 'c.key': content(2), 'd.key': content(3) },
    ];
    await secret.swap(one);
    const keys = await follow(join(secret.path, 'record.key'), secret.path);
    const all = keys.accepts();
    for (let round = 0; round < 100; round += 1) {
      await secret.swap(round % 2 === 0 ? two : one);
      expect(keys.accepts()).toEqual(all);
    }
    expect(keys.said(CHANGED)).toEqual([]);
  });

  it.each([
    ['a key that is too short', { 'record.key': content(2), 'bad.key': 'short' }],
    ['no signing key', { 'other.key': content(2) }],
  ])('stay what they were while it has %s, and the log says so once', async (_, wrong) => {
    const keys = await follow(join(secret.path, 'record.key'), secret.path);
    await secret.swap(wrong);
    await until(() => keys.said(UNUSED).length > 0, 'the refusal');
    expect(keys.isStale()).toBe(true);
    await secret.swap({ ...wrong, 'more.key': content(3) });
    expect([keys.signs(), keys.accepts()]).toEqual([idOf(1), [idOf(1)]]);
    await secret.swap({ 'record.key': content(4) });
    await until(() => keys.signs() === idOf(4), 'a good one counts again');
    expect(keys.isStale()).toBe(false);
    expect(keys.said(UNUSED)).toHaveLength(1);
    expect(keys.said(CHANGED)).toHaveLength(1);
  });
});

describe('a record key in a file of its own', () => {
  it('is not made anew where it is gone, and counts when another takes its place', async () => {
    const path = join(home, 'record.key');
    const keys = await follow(path, undefined);
    const made = keys.signs();
    await rm(path);
    await until(() => keys.said(UNUSED).length > 0, 'the file is missed');
    expect(keys.signs()).toBe(made);
    await writeFile(`${path}.new`, content(5), { mode: 0o600 });
    await rename(`${path}.new`, path);
    await until(() => keys.signs() === idOf(5), 'the other key signs');
    await chmod(path, 0o644);
    await until(() => keys.said(UNUSED).length > 1, 'the open mode');
    expect(keys.signs()).toBe(idOf(5));
  });
});
