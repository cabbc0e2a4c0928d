import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openNative } from '../../agent/host/native.ts';
import {
  type ArtifactCalls,
  deleteVisible,
  type OpenedVolume,
  verifyVisible,
} from '../../agent/operations/artifacts.ts';
import type { Caller } from '../../agent/operations/service.ts';
import { publish } from '../../agent/store/publish.ts';
import { activeReaders, lastUse } from '../../agent/store/readers.ts';
import { deriveBulkKey } from '../../agent/store/record.ts';
import { makeStaging } from '../../agent/store/staging.ts';
import { memoryLog } from '../fakes/log.ts';
import { draft, KEYS, makeArtifact, makeVolume, writeFiles } from '../unit/store/volume.ts';

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

/** An artifact without bulk pages, whose block count would have to be true. */
const plain = (made: Parameters<typeof makeArtifact>[1] = {}) =>
  makeArtifact(volume, {
    ...made,
    files: { 'criu/core-1.img': 'core', 'rootfs/diff.tar': 'tar' },
    record: { bulk: null, ...made.record },
  });

const BULK_BYTES = 3 * 1024 * 1024;

/** An artifact with bulk pages as a checkpoint makes them. */
async function withBulk(): Promise<void> {
  const operation = { node: 'node-a', bootId: 'boot-a', operationId: 'op-1' };
  const work = await mkdtemp(join(tmpdir(), 'bulk-'));
  const staging = await makeStaging({ volume, ...name, operation });
  const salt = 'cd'.repeat(32);
  await writeFiles(staging.path, { 'criu/core-1.img': 'core' });
  await mkdir(join(staging.path, 'memory'));
  await writeFile(join(work, 'pages'), randomBytes(BULK_BYTES));
  await writeFile(join(work, 'plan'), `src 0 ${work}/pages\nout 0 ${work}/kept\nmove 1 0 0 4194304 ${BULK_BYTES}\n`);
  const { blocks, bytes } = await native.bulkWrite({
    plan: join(work, 'plan'),
    bulk: join(staging.path, 'memory/bulk.pages'),
    index: join(staging.path, 'memory/bulk.index'),
    key: Buffer.from(deriveBulkKey(KEYS.current, salt)),
    threads: 2,
    deadlineMs: 10_000,
  });
  await publish({
    volume,
    ...name,
    staging,
    record: draft({ bulk: { blocks, bytes, salt } }),
    keys: KEYS,
    mode: 'new',
  });
  await rm(work, { recursive: true });
}

/** Changes one byte and leaves the size. */
async function spoil(path: string, offset: number): Promise<void> {
  const content = await readFile(at(path));
  content[offset] = (content[offset] ?? 0) ^ 1;
  await writeFile(at(path), content);
}

describe('a verification', () => {
  it('reads all, and says how much that was', async () => {
    await withBulk();
    const index = (await stat(at('ckpt/versions/1/memory/bulk.index'))).size;
    expect(await verifyVisible(calls, volume, { ...name, signal: go() }, tenant('team'))).toEqual({
      files: 3,
      bytes: 'core'.length + BULK_BYTES + index,
      seconds: expect.any(Number),
    });
    expect(await activeReaders(volume, name)).toEqual([]);
  });

  it.each([
    ['an image', 'criu/core-1.img', 1, /core-1\.img has SHA-256/],
    ['the index of the bulk pages', 'memory/bulk.index', 0, /bulk\.index has SHA-256/],
    ['the bulk pages', 'memory/bulk.pages', BULK_BYTES - 7, /bulk-fill/],
  ])('finds one wrong byte in %s', async (_, path, offset, message) => {
    await withBulk();
    await spoil(`ckpt/versions/1/${path}`, offset);
    await expect(verifyVisible(calls, volume, { ...name, signal: go() }, operator)).rejects.toMatchObject({
      code: 'ARTIFACT_CORRUPT',
      message: expect.stringMatching(message),
    });
    expect(await activeReaders(volume, name)).toEqual([]);
  });

  it('finds that the index has other blocks than the record says', async () => {
    await plain({ record: { bulk: { blocks: 1, bytes: 0, salt: 'ab'.repeat(32) } } });
    const bulkFill = async () => ({ blocks: 0, bytes: 0 });
    const asked = verifyVisible(
      { ...calls, native: { ...native, bulkFill } },
      volume,
      { ...name, signal: go() },
      operator,
    );
    await expect(asked).rejects.toMatchObject({
      code: 'ARTIFACT_CORRUPT',
      message: expect.stringContaining('0 blocks'),
    });
  });

  it('ends when it is cancelled: before the files, and in the middle of the bulk pages', async () => {
    await withBulk();
    const early = verifyVisible(calls, volume, { ...name, signal: AbortSignal.abort() }, operator);
    await expect(early).rejects.toMatchObject({ code: 'CANCELLED' });
    const stop = new AbortController();
    const bulkFill: typeof native.bulkFill = (request) => {
      stop.abort();
      return native.bulkFill(request);
    };
    const late = verifyVisible(
      { ...calls, native: { ...native, bulkFill } },
      volume,
      { ...name, signal: stop.signal },
      operator,
    );
    await expect(late).rejects.toMatchObject({ code: 'CANCELLED' });
    expect(await activeReaders(volume, name)).toEqual([]);
  });

  it('keeps the artifact from being deleted, and does not count as a use', async () => {
    await withBulk();
    const bulkFill: typeof native.bulkFill = async (request) => {
      const deletion = deleteVisible(calls, volume, { ...name, waitSeconds: 0, signal: go() }, operator);
      await expect(deletion).rejects.toMatchObject({
        code: 'ARTIFACT_BUSY',
        message: expect.stringContaining('verify-'),
      });
      return await native.bulkFill(request);
    };
    const request = { ...name, signal: go() };
    await verifyVisible({ ...calls, native: { ...native, bulkFill } }, volume, request, operator);
    expect(await lastUse(volume, name)).toBeUndefined();
  });
});
