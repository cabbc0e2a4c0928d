import { mkdir, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openNative } from '../../agent/host/native.ts';
import {
  type ArtifactCalls,
  deleteVisible,
  getVisible,
  listVisible,
  type OpenedVolume,
  verifyVisible,
} from '../../agent/operations/artifacts.ts';
import type { Caller } from '../../agent/operations/service.ts';
import { deleteArtifact } from '../../agent/store/deletion.ts';
import { holdReader } from '../../agent/store/readers.ts';
import { artifactState } from '../../agent/store/verify.ts';
import { memoryLog } from '../fakes/log.ts';
import { draft, KEYS, makeArtifact, makeVolume, otherKey } from '../unit/store/volume.ts';

const native = openNative({
  helperPath: join(import.meta.dirname, '../../native/build/snapshot-helper'),
  procRoot: '/proc',
  deadlineMs: 10_000,
});

let volume: OpenedVolume & { remove(): Promise<void> };
let calls: ArtifactCalls;
let log: ReturnType<typeof memoryLog>;
beforeEach(async () => {
  volume = { ...(await makeVolume()), basePath: '/checkpoints' };
  log = memoryLog();
  calls = { keys: KEYS, node: { name: 'node-a', bootId: 'boot-a', threads: 2 }, native, log: log.log };
});
afterEach(() => volume.remove());

const operator: Caller = { name: 'operator', namespaces: 'all' };
const tenant = (...namespaces: string[]): Caller => ({ name: 'tenant', namespaces: new Set(namespaces) });
const name = { id: 'ckpt', version: '1' };
const at = (path: string) => join(volume.root, path);
const go = () => new AbortController().signal;
const inNamespace = (namespace: string) => ({ source: { ...draft().source, namespace } });

/** An artifact without bulk pages, whose block count would have to be true. */
const plain = (made: Parameters<typeof makeArtifact>[1] = {}) =>
  makeArtifact(volume, {
    ...made,
    files: { 'criu/core-1.img': 'core', 'rootfs/diff.tar': 'tar' },
    record: { bulk: null, ...made.record },
  });

async function allPages(caller: Caller, limit: number): Promise<{ places: string[]; pages: number }> {
  const places: string[] = [];
  let after = '';
  for (let pages = 1; ; pages += 1) {
    const { artifacts, next } = await listVisible(calls, volume, { limit, after }, caller);
    places.push(...artifacts.map(({ id, version }) => `${id}/${version}`));
    if (next === '') return { places, pages };
    after = next;
  }
}

describe('the list of artifacts', () => {
  it('is empty on an empty volume', async () => {
    expect(await listVisible(calls, volume, { limit: 0, after: '' }, operator)).toEqual({ artifacts: [], next: '' });
  });

  it('comes in pages that fit together, in one order', async () => {
    const names = ['a/1', 'a/10', 'a/2', 'b/1', 'b.c/1', 'B/1'];
    for (const one of names) {
      const [id = '', version = ''] = one.split('/');
      await plain({ id, version });
    }
    const order = ['B/1', 'a/1', 'a/10', 'a/2', 'b/1', 'b.c/1'];
    for (const limit of [0, 1, 2, 3, 6, 7]) expect((await allPages(operator, limit)).places).toEqual(order);
    expect(await allPages(operator, 6)).toMatchObject({ pages: 1 });
    expect(await allPages(operator, 2)).toMatchObject({ pages: 3 });
  });

  it('goes on although the artifact that it stopped at was deleted', async () => {
    for (const version of ['1', '2', '3']) await plain({ version });
    const { next } = await listVisible(calls, volume, { limit: 2, after: '' }, operator);
    expect(next).toBe('ckpt/2');
    await deleteVisible(calls, volume, { id: 'ckpt', version: '2', waitSeconds: 0, signal: go() }, operator);
    const rest = await listVisible(calls, volume, { limit: 2, after: next }, operator);
    expect(rest.artifacts.map(({ version }) => version)).toEqual(['3']);
  });

  it('shows each tenant their own, and tells nothing of the others', async () => {
    for (const [index, namespace] of ['x', 'y', 'x', 'z', 'y'].entries())
      await plain({ id: `id-${index}`, record: inNamespace(namespace) });
    expect((await allPages(tenant('x'), 1)).places).toEqual(['id-0/1', 'id-2/1']);
    expect((await allPages(tenant('y', 'z'), 1)).places).toEqual(['id-1/1', 'id-3/1', 'id-4/1']);
    expect((await allPages(tenant(), 1)).places).toEqual([]);
    // The last one of a page that nothing visible follows: its place is not the next one.
    expect(await listVisible(calls, volume, { limit: 2, after: '' }, tenant('x'))).toMatchObject({ next: '' });
    expect((await allPages(operator, 0)).places).toHaveLength(5);
  });

  it('shows what is wrong with one, and does not break at it', async () => {
    await plain();
    await plain({ id: 'damaged' });
    await rm(at('damaged/versions/1/criu/core-1.img'));
    await plain({ id: 'foreign', keys: { current: otherKey, accepted: [otherKey] } });
    await mkdir(at('half/versions/1'), { recursive: true });
    await symlink(at('ckpt'), at('linked'));
    await symlink('/', at('ckpt/versions/2'));
    await plain({ id: 'marks' });
    await symlink('/', at('marks/readers'));
    const { artifacts } = await listVisible(calls, volume, { limit: 0, after: '' }, operator);
    const shown = artifacts.map(({ id, record, problem }) => [id, record?.checkpointId, problem?.code]);
    expect(shown).toEqual([
      ['ckpt', 'ckpt', undefined],
      ['damaged', 'damaged', 'ARTIFACT_CORRUPT'],
      ['foreign', undefined, 'ARTIFACT_UNSIGNED'],
      ['half', undefined, 'ARTIFACT_NOT_FOUND'],
      ['marks', 'marks', 'STORAGE_UNSAFE'],
    ]);
    const own = await listVisible(calls, volume, { limit: 0, after: '' }, tenant('team'));
    expect(own.artifacts.map(({ id }) => id)).toEqual(['ckpt', 'damaged', 'marks']);
  });

  it.each(['ckpt', 'ckpt/', '/1', 'a/b/c', '../x/1', 'ckpt/tmp'])('refuses "%s" as a place', async (after) => {
    await expect(listVisible(calls, volume, { limit: 1, after }, operator)).rejects.toMatchObject({
      code: expect.stringMatching(/^(REQUEST_INVALID|ID_INVALID)$/),
    });
  });
});

describe('one artifact', () => {
  it('is shown with its place, its record and who reads it', async () => {
    const { record } = await plain();
    const operation = { node: 'node-b', bootId: 'boot-b', operationId: 'restore-1' };
    const hold = await holdReader(volume, { ...name, operation });
    expect(await getVisible(calls, volume, name, tenant('team'))).toEqual({
      ...name,
      location: '/checkpoints/ckpt/versions/1',
      record,
      problem: undefined,
      readers: ['restore-1'],
    });
    await hold.stop();
  });

  it('is shown with what is wrong with it', async () => {
    await plain();
    await writeFile(at('ckpt/versions/1/criu/core-1.img'), 'longer than before');
    expect(await getVisible(calls, volume, name, tenant('team'))).toMatchObject({
      record: { checkpointId: 'ckpt' },
      problem: { code: 'ARTIFACT_CORRUPT', message: expect.stringContaining('criu/core-1.img') },
    });
  });

  it('of another namespace is as if it were not there, for every call', async () => {
    await plain();
    const absent = { id: 'none', version: '1' };
    for (const caller of [tenant('other'), tenant()]) {
      for (const one of [name, absent]) {
        const told = { code: 'ARTIFACT_NOT_FOUND', message: `there is no artifact ${one.id}, version 1` };
        await expect(getVisible(calls, volume, one, caller)).rejects.toMatchObject(told);
        await expect(verifyVisible(calls, volume, { ...one, signal: go() }, caller)).rejects.toMatchObject(told);
        const deletion = { ...one, waitSeconds: 0, signal: go() };
        await expect(deleteVisible(calls, volume, deletion, caller)).rejects.toMatchObject(told);
      }
    }
    expect(await artifactState(volume, { ...name, keys: KEYS })).toMatchObject({ state: 'complete' });
  });

  it.each([
    { id: '../ckpt', version: '1' },
    { id: 'ckpt', version: 'tmp' },
    { id: '', version: '1' },
  ])('has no such name: $id, $version', async (bad) => {
    const refused = { code: 'ID_INVALID' };
    for (const caller of [operator, tenant('team')]) {
      await expect(getVisible(calls, volume, bad, caller)).rejects.toMatchObject(refused);
      await expect(verifyVisible(calls, volume, { ...bad, signal: go() }, caller)).rejects.toMatchObject(refused);
      const deletion = { ...bad, waitSeconds: 0, signal: go() };
      await expect(deleteVisible(calls, volume, deletion, caller)).rejects.toMatchObject(refused);
    }
  });
});

describe('a deletion', () => {
  const reader = { ...name, operation: { node: 'node-b', bootId: 'boot-b', operationId: 'restore-1' } };

  it('removes the artifact, and says who asked for it', async () => {
    await plain();
    await deleteVisible(calls, volume, { ...name, waitSeconds: 0, signal: go() }, tenant('team'));
    expect(await readdir(volume.root)).toEqual([]);
    expect(log.said('artifact deleted')).toMatchObject([{ checkpointId: 'ckpt', version: '1', caller: 'tenant' }]);
  });

  it('waits for a reader on another node', async () => {
    await plain();
    const hold = await holdReader(volume, reader);
    const asked = deleteVisible(calls, volume, { ...name, waitSeconds: 20, signal: go() }, operator);
    let isOver = false;
    void asked.finally(() => {
      isOver = true;
    });
    await expect(
      deleteVisible(calls, volume, { ...name, waitSeconds: 0, signal: go() }, operator),
    ).rejects.toMatchObject({ code: 'ARTIFACT_BUSY' });
    expect(isOver).toBe(false);
    await hold.stop();
    await asked;
    expect(await readdir(volume.root)).toEqual([]);
  });

  it('names the readers where they stay, and can be cancelled', async () => {
    await plain();
    const hold = await holdReader(volume, reader);
    await expect(
      deleteVisible(calls, volume, { ...name, waitSeconds: 0.2, signal: go() }, operator),
    ).rejects.toMatchObject({ code: 'ARTIFACT_BUSY', message: expect.stringContaining('restore-1') });
    const stop = new AbortController();
    const asked = deleteVisible(calls, volume, { ...name, waitSeconds: 600, signal: stop.signal }, operator);
    stop.abort();
    await expect(asked).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(await artifactState(volume, { ...name, keys: KEYS })).toMatchObject({ state: 'complete' });
    await hold.stop();
  });

  /** Deletes it while somebody reads it, and lets another artifact have its place before the reader goes. */
  async function deletedWhileReplaced(namespace: string | undefined, other: string): Promise<unknown> {
    const hold = await holdReader(volume, reader);
    let looks = 0;
    const end = deleteArtifact(volume, {
      ...{
        ...name,
        keys: KEYS,
        operationId: 'delete-1',
        waitMs: 600_000,
        ...(namespace !== undefined && { namespace }),
      },
      // Asked for when it looks for readers: its look at the artifact is over.
      get silentAfterMs() {
        looks += 1;
        return 3_600_000;
      },
    }).catch((thrown: unknown) => thrown);
    await expect.poll(() => looks, { timeout: 20_000 }).toBeGreaterThan(0);
    await rm(at('ckpt/versions/1'), { recursive: true });
    await plain({ operationId: 'op-2', record: inNamespace(other) });
    await hold.stop();
    return await end;
  }

  it.each([
    ['a tenant', 'team', 'other'],
    ['a tenant', 'team', 'team'],
    ['who may see all', undefined, 'other'],
  ])('of %s (%s) that waits for readers leaves what %s put in its place meanwhile', async (_, namespace, other) => {
    await plain();
    const message = 'there is no artifact ckpt, version 1';
    expect(await deletedWhileReplaced(namespace, other)).toMatchObject({ code: 'ARTIFACT_NOT_FOUND', message });
    const found = await artifactState(volume, { ...name, keys: KEYS });
    expect(found).toMatchObject({ state: 'complete', artifact: { record: { operationId: 'op-2' } } });
  });

  it('of what nobody can read leaves what can be read in its place by then', async () => {
    await plain();
    await rm(at('ckpt/versions/1/manifest.yaml'));
    expect(await deletedWhileReplaced(undefined, 'other')).toMatchObject({ code: 'ARTIFACT_NOT_FOUND' });
    expect(await artifactState(volume, { ...name, keys: KEYS })).toMatchObject({ state: 'complete' });
  });

  it('leaves what another namespace had put aside for an instant', async () => {
    await plain();
    await mkdir(at('ckpt/versions/tmp'), { recursive: true });
    await rename(at('ckpt/versions/1'), at('ckpt/versions/tmp/collect-1@1.old'));
    await plain({ operationId: 'op-2', record: inNamespace('other') });
    const request = { ...name, waitSeconds: 0, signal: go() };
    await expect(deleteVisible(calls, volume, request, tenant('other'))).rejects.toMatchObject({
      code: 'ARTIFACT_NOT_FOUND',
    });
    expect(await readdir(at('ckpt/versions/tmp'))).toEqual(['collect-1@1.old']);
  });

  it('of what nobody can read is for those who may see all', async () => {
    await plain();
    await rm(at('ckpt/versions/1/manifest.yaml'));
    const request = { ...name, waitSeconds: 0, signal: go() };
    await expect(deleteVisible(calls, volume, request, tenant('team'))).rejects.toMatchObject({
      code: 'ARTIFACT_NOT_FOUND',
    });
    await deleteVisible(calls, volume, request, operator);
    expect(await readdir(volume.root)).toEqual([]);
  });
});
