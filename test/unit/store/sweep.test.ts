import { mkdir, readdir, rename, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { holdReader } from '../../../agent/store/readers.ts';
import { makeStaging } from '../../../agent/store/staging.ts';
import { sweep } from '../../../agent/store/sweep.ts';
import { readArtifact } from '../../../agent/store/verify.ts';
import { KEYS, makeArtifact, makeVolume, NEXT_START, writeFiles } from './volume.ts';

let volume: Awaited<ReturnType<typeof makeVolume>>;
beforeEach(async () => {
  volume = await makeVolume();
});
afterEach(() => volume.remove());

const HOUR_MS = 3_600_000;
const name = { id: 'ckpt', version: '1' };
const at = (path: string) => join(volume.root, 'ckpt/versions', path);
const age = (path: string, ms: number) => utimes(path, new Date(Date.now() - ms), new Date(Date.now() - ms));
const stage = async (node: string, bootId: string, operationId: string) => {
  const staging = await makeStaging({ volume, ...name, operation: { node, bootId, operationId } });
  await writeFiles(staging.path);
  return staging;
};
const run = (live: readonly string[] = []) => sweep(volume, { ...NEXT_START, liveOperations: new Set(live) });

describe('a sweep', () => {
  it('removes what dead operations of this node had in the making, and leaves the live', async () => {
    const dead = await stage('node-a', 'boot-a', 'op-dead');
    const rebooted = await stage('node-a', 'boot-0', 'op-dead');
    const waiting = await stage('node-a', 'boot-0', 'op-live');
    const live = await stage('node-a', 'boot-a', 'op-live');
    const { actions } = await run(['op-live']);
    expect(actions).toEqual(
      expect.arrayContaining([
        { path: dead.path, did: 'removed', why: 'operation op-dead of this node is over' },
        { path: rebooted.path, did: 'removed', why: 'operation op-dead belongs to an earlier boot of this node' },
      ]),
    );
    expect((await readdir(at('tmp'))).map((each) => at(`tmp/${each}`)).sort()).toEqual(
      [live, waiting].flatMap(({ path }) => [path, `${path}.owner`]).sort(),
    );
    for (const each of [live, live, waiting]) await each.discard();
    expect(await readdir(at('tmp'))).toEqual([]);
  });

  it('removes those of other nodes only when their heartbeat is long gone', async () => {
    const other = await stage('node-b', 'boot-b', 'op-b');
    await age(`${other.path}.owner`, 23 * HOUR_MS);
    expect((await run()).actions).toEqual([]);
    await age(`${other.path}.owner`, 25 * HOUR_MS);
    expect((await run()).actions).toMatchObject([
      { path: other.path, did: 'removed', why: expect.stringContaining('node-b is silent') },
    ]);
    expect(await readdir(at('tmp'))).toEqual([]);
  });

  it('removes what nobody owns only when it is old', async () => {
    const path = at('tmp/0f8fad5b-d9cb-469f-a165-70867728950e');
    await mkdir(path, { recursive: true });
    expect((await run()).actions).toEqual([]);
    await age(path, 25 * HOUR_MS);
    expect((await run()).actions).toMatchObject([{ path, did: 'removed' }]);
  });

  it('puts back what a dead replacement moved aside', async () => {
    await makeArtifact(volume);
    await stage('node-a', 'boot-a', 'op-2');
    await rename(at('1'), at('tmp/op-2@1.old'));
    expect((await run(['op-2'])).actions).toMatchObject([{ did: 'left', why: 'operation op-2 is at work' }]);
    expect((await run()).actions).toContainEqual({
      path: at('tmp/op-2@1.old'),
      did: 'put back',
      why: 'its replacement was not finished',
    });
    await expect(readArtifact(volume, { ...name, keys: KEYS })).resolves.toBeDefined();
  });

  it("waits minutes, not a day, before it puts back what another node's replacement moved aside", async () => {
    await makeArtifact(volume);
    const other = await stage('node-b', 'boot-b', 'op-2');
    await rename(at('1'), at('tmp/op-2@1.old'));
    expect((await run()).actions).toMatchObject([{ did: 'left' }]);
    await age(`${other.path}.owner`, 130_000);
    expect((await run()).actions).toMatchObject([{ did: 'put back' }]);
  });

  it('removes what was replaced or deleted once nobody reads it', async () => {
    await makeArtifact(volume);
    const hold = await holdReader(volume, {
      ...name,
      operation: { node: 'node-b', bootId: 'boot-b', operationId: 'restore-1' },
    });
    await makeArtifact(volume, { operationId: 'op-2', mode: 'replace' });
    await mkdir(at('tmp/del-1@1.deleted'));
    expect((await run()).actions).toEqual(
      expect.arrayContaining([
        { path: at('tmp/op-2@1.old'), did: 'left', why: 'read by restore-1' },
        { path: at('tmp/del-1@1.deleted'), did: 'left', why: 'read by restore-1' },
      ]),
    );
    await hold.stop();
    expect((await run()).actions.map((action) => action.did)).toEqual(['removed', 'removed']);
    expect(await readdir(at('tmp'))).toEqual([]);
    await expect(readArtifact(volume, { ...name, keys: KEYS })).resolves.toBeDefined();
  });

  it('removes the marks of readers that died', async () => {
    await makeArtifact(volume);
    const dead = await holdReader(volume, {
      ...name,
      operation: { node: 'node-a', bootId: 'boot-a', operationId: 'restore-1' },
    });
    expect((await run(['restore-1'])).actions).toEqual([]);
    expect((await run()).actions).toMatchObject([
      { path: join(volume.root, 'ckpt/readers/1/restore-1'), did: 'removed' },
    ]);
    await dead.stop();
  });

  it('removes links as links', async () => {
    const outside = await makeVolume();
    await writeFiles(outside.root, { kept: 'kept' });
    const dead = await stage('node-a', 'boot-a', 'op-dead');
    await symlink(outside.root, join(dead.path, 'planted'));
    await symlink(outside.root, at('tmp/op-9@1.old'));
    await symlink(outside.root, at('tmp/0f8fad5b-d9cb-469f-a165-70867728950e.trash'));
    await run();
    expect(await readdir(at('tmp'))).toEqual([]);
    expect(await readdir(outside.root)).toEqual(['kept']);
    await outside.remove();
  });

  it('leaves what no agent names so, and goes on after what fails', async () => {
    await mkdir(at('tmp'), { recursive: true });
    await writeFile(at('tmp/something'), '');
    await mkdir(at('tmp/op@..@1.old'));
    await symlink('/etc', join(volume.root, 'aaa'));
    const { actions } = await run();
    expect(actions.map(({ path, did }) => [path.slice(volume.root.length), did])).toEqual(
      expect.arrayContaining([
        ['/aaa/versions/tmp', 'failed'],
        ['/ckpt/versions/tmp/something', 'left'],
        ['/ckpt/versions/tmp/op@..@1.old', 'left'],
      ]),
    );
  });

  it('is bounded, says so, and goes on next time', async () => {
    const dead = await stage('node-a', 'boot-a', 'op-dead');
    await Promise.all(Array.from({ length: 300 }, (_, n) => writeFile(join(dead.path, `${n}`), '')));
    const bounded = { ...NEXT_START, limits: { removals: 100 } };
    expect(await sweep(volume, bounded)).toMatchObject({ more: true });
    for (let round = 0; round < 10; round += 1) await sweep(volume, bounded);
    expect(await readdir(at('tmp'))).toEqual([]);
    await Promise.all(Array.from({ length: 50 }, (_, n) => mkdir(join(volume.root, `id-${n}`))));
    expect(await sweep(volume, { ...NEXT_START, limits: { ids: 10 } })).toMatchObject({ more: true });
  });
});
