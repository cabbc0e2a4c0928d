import { truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { planBulk } from '../../../agent/criu/images/bulk.ts';
import { requireBearable } from '../../../agent/criu/images/fragments.ts';
import { checkPages } from '../../../agent/criu/images/pagemap.ts';
import { type AreaSketch, makeDir, PAGE, putMemory, putPagemap, putProcesses } from './synthetic.ts';

const corrupt = expect.objectContaining({ code: 'ARTIFACT_CORRUPT' });
const BASE = 0x7f0000000000;
const WHOLE: AreaSketch[] = [{ start: BASE, end: BASE + (1 << 24) }];

describe('memory in too many pieces', () => {
  const fragmented = expect.objectContaining({ code: 'MEMORY_FRAGMENTED' });
  const putPieces = (pids: readonly number[], gap: number) => {
    const dir = makeDir();
    putProcesses(
      dir,
      pids.map((pid) => ({ pid, ppid: 0 })),
    );
    for (const pid of pids) {
      putMemory(dir, pid, WHOLE);
      const entries = [0, 1, 2].map((index) => ({ start: BASE + (1 + gap) * index * PAGE, pages: 1 }));
      putPagemap(dir, pid, pid, entries);
      writeFileSync(path.join(dir, `pages-${pid}.img`), Buffer.alloc(3 * PAGE));
    }
    return dir;
  };

  it('is refused by the size of the images, before any of it is held', async () => {
    const dir = putPieces([1], 1);
    truncateSync(path.join(dir, 'pagemap-1.img'), 80_000_001);
    await expect(planBulk(dir, { minRangeBytes: PAGE })).rejects.toEqual(fragmented);
    await expect(checkPages(dir)).rejects.toEqual(fragmented);
  });

  it('is refused by the entries of all images together', async () => {
    const dir = putPieces([1, 2], 0);
    // Three each, and a head.
    await requireBearable(dir, 8);
    await expect(requireBearable(dir, 7)).rejects.toEqual(fragmented);
  });

  it('is refused by the pieces of all processes together; neighbours are one', async () => {
    const options = { minRangeBytes: PAGE, mostPieces: 5 };
    await expect(planBulk(putPieces([1, 2], 1), options)).rejects.toEqual(fragmented);
    expect((await planBulk(putPieces([1, 2], 0), options)).movedBytes).toBe(6 * PAGE);
    expect((await planBulk(putPieces([1, 2], 1), { ...options, mostPieces: 6 })).movedBytes).toBe(6 * PAGE);
  });

  it('does not keep others from their turn', async () => {
    const wrong = planBulk(makeDir(), { minRangeBytes: PAGE });
    const right = planBulk(putPieces([1], 0), { minRangeBytes: PAGE });
    await expect(wrong).rejects.toEqual(corrupt);
    expect((await right).movedBytes).toBe(3 * PAGE);
  });
});
