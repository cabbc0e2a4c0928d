import { execFileSync } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deleteArtifact } from '../../agent/store/deletion.ts';
import type { Volume } from '../../agent/store/paths.ts';
import { noteUse } from '../../agent/store/readers.ts';
import { takeTurn } from '../../agent/store/turn.ts';
import { KEYS } from '../unit/store/volume.ts';

import { elsewhere, freshVolume } from './retention/retaining.ts';

const { agent, madeAgo, stateOf } = freshVolume();

describe('a volume of its own', () => {
  let small: Volume;
  beforeEach(async () => {
    small = { root: await mkdtemp(join(tmpdir(), 'retention-')) };
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=20m', 'tmpfs', small.root]);
    for (const version of ['1', '2', '3']) await madeAgo(10 - Number(version), { version, ...LARGE }, small);
  });
  afterEach(async () => {
    execFileSync('umount', ['--lazy', small.root]);
    await rm(small.root, { recursive: true });
  });

  const MIB = 1024 * 1024;
  const LARGE = { files: { 'criu/pages-1.img': 'p'.repeat(4 * MIB) } };
  const versions = async () =>
    (await readdir(join(small.root, 'ckpt/versions'))).filter((name) => name !== 'tmp').sort();
  const fill = (mib: number) => writeFile(join(small.root, 'filler'), Buffer.alloc(mib * MIB, 1));

  it('that is filled above the high mark is brought down to the low mark, the least recently used first', async () => {
    const { collect, told, logged } = agent({ highPercent: 80, lowPercent: 70 });
    await collect({}, small);
    expect(await versions()).toEqual(['1', '2', '3']);
    await fill(5);
    await noteUse(small, { id: 'ckpt', version: '1' });
    await collect({}, small);
    expect(await versions()).toEqual(['1', '3']);
    expect(told('collected')).toEqual([['watermark', 4 * MIB]]);
    expect(logged('artifact collected')).toMatchObject([{ version: '2', reason: 'watermark' }]);
    expect(told('storage').at(-1)).toEqual([{ totalBytes: 20 * MIB, freeBytes: expect.any(Number) }]);
  });

  it('that something else has filled loses no artifact for it', async () => {
    await rm(join(small.root, 'ckpt'), { recursive: true });
    await madeAgo(5, {}, small);
    await fill(18);
    const { collect, logged } = agent({ highPercent: 80, lowPercent: 70 });
    await collect({}, small);
    expect(await stateOf('1', 'ckpt', small)).toBe('complete');
    expect(logged('nothing can be deleted to get below the high mark')).toHaveLength(1);
  });

  it('that is full to the last byte is collected all the same', async () => {
    await expect(fill(20)).rejects.toMatchObject({ code: 'ENOSPC' });
    const { collect, told } = agent({ highPercent: 90, lowPercent: 80 });
    expect(await collect({}, small)).toBe('done');
    expect(await versions()).toEqual(['2', '3']);
    expect(told('failed')).toEqual([]);
  });

  it('refuses what does not fit, and deletes nothing for it where no rule is on', async () => {
    const { room } = agent({});
    expect(await room({ peakBytes: 4 * MIB }, small)).toBeUndefined();
    expect(await room({ peakBytes: 10 * MIB }, small)).toMatchObject({ code: 'VOLUME_SPACE', wanted: /10485760/ });
    expect(await versions()).toEqual(['1', '2', '3']);
  });

  it('makes room for what would fill it beyond the high mark', async () => {
    const marks = { highPercent: 80, lowPercent: 70 };
    const request = { peakBytes: 6 * MIB, keptBytes: 5 * MIB };
    const { room, told } = agent(marks);
    expect(await room({ ...request, mayCollect: false }, small)).toMatchObject({ code: 'VOLUME_WATERMARK' });
    expect(await versions()).toEqual(['1', '2', '3']);
    expect(await room(request, small)).toBeUndefined();
    expect(await versions()).toEqual(['2', '3']);
    expect(told('collected')).toEqual([['watermark', 4 * MIB]]);
  });

  it('makes room for the largest extent, where that is what is missing', async () => {
    const { room } = agent({ highPercent: 95, lowPercent: 95 });
    expect(await room({ peakBytes: 15 * MIB, keptBytes: 6 * MIB }, small)).toBeUndefined();
    expect(await versions()).toEqual(['3']);
  });

  it('refuses where no room can be made, and loses nothing', async () => {
    const { room } = agent({ highPercent: 50, lowPercent: 40, minAgeSeconds: 0 });
    expect(await room({ peakBytes: 12 * MIB, keptBytes: 11 * MIB }, small)).toMatchObject({ code: 'VOLUME_SPACE' });
    const narrow = agent({ highPercent: 30, lowPercent: 20 });
    const asked = narrow.room({ peakBytes: 7 * MIB, keptBytes: 7 * MIB }, small);
    expect(await asked).toMatchObject({ code: 'VOLUME_WATERMARK' });
    expect(await versions()).toEqual(['1', '2', '3']);
  });

  it('has room as soon as another agent has made it', async () => {
    const turn = await takeTurn(small, elsewhere('collect-b'));
    const asked = agent({ highPercent: 80, lowPercent: 70 }).room({ peakBytes: MIB, keptBytes: 5 * MIB }, small);
    await deleteArtifact(small, { id: 'ckpt', version: '2', keys: KEYS, operationId: 'collect-b', waitMs: 0 });
    expect(await asked).toBeUndefined();
    expect(await versions()).toEqual(['1', '3']);
    await turn?.remove();
  });

  it('is given up for a checkpoint that was cancelled', async () => {
    const { room } = agent({ highPercent: 80, lowPercent: 70 });
    await expect(
      room({ peakBytes: MIB, keptBytes: 5 * MIB, signal: AbortSignal.abort() }, small),
    ).rejects.toMatchObject({
      code: 'CANCELLED',
    });
    expect(await versions()).toEqual(['1', '2', '3']);
  });
});
