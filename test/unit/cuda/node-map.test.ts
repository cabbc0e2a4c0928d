import { describe, expect, it } from 'vitest';
import type { ComparedGpu, SourceGpu } from '../../../agent/cuda/device-map.ts';
import { nodeProblems } from '../../../agent/cuda/node-map.ts';
import { GIB, nodeGpu, uuidOf } from './gpus.ts';

const DRIVER = '580.95.05';
const L4 = { name: 'NVIDIA L4', memoryBytes: 24 * GIB, freeBytes: 23 * GIB };

const source = (n: number, changes: Partial<SourceGpu> = {}): SourceGpu => ({
  ...nodeGpu(n),
  usedBytes: 40 * GIB,
  freeBytes: 100 * GIB,
  ...changes,
});
const problems = (from: readonly SourceGpu[], there: readonly ComparedGpu[], driver = DRIVER) =>
  nodeProblems({ gpus: from, driver: DRIVER }, { gpus: there, driver }, { multiGpuBelowDriver590: 'warn' });
const codes = (...parts: Parameters<typeof problems>) => problems(...parts).map(({ code }) => code);

describe('a node with GPUs', () => {
  it('takes a workload that saw fewer of them, whichever they were', () => {
    expect(
      codes(
        [source(1)],
        [1, 2, 3].map((n) => nodeGpu(n)),
      ),
    ).toEqual([]);
    expect(
      codes(
        [source(1), source(2)],
        [7, 8, 9].map((n) => nodeGpu(n)),
      ),
    ).toEqual([]);
  });

  it('is judged by those that can take the workload: of its model, whole, and empty enough', () => {
    const there = [nodeGpu(1, L4), nodeGpu(2, { freeBytes: GIB }), nodeGpu(3, { mig: true }), nodeGpu(4)];
    expect(codes([source(9)], there)).toEqual([]);
    expect(codes([source(9), source(8)], there)).toEqual(['GPU_MEMORY_FREE']);
    expect(codes([source(9), source(8), source(7)], there)).toEqual(['GPU_MIG', 'GPU_MEMORY_FREE']);
  });

  it('gives the emptiest to who holds most', () => {
    const there = [nodeGpu(1, { freeBytes: 50 * GIB }), nodeGpu(2, { freeBytes: 130 * GIB })];
    const small = source(8, { usedBytes: GIB });
    const large = source(9, { usedBytes: 120 * GIB, freeBytes: GIB });
    for (const from of [
      [small, large],
      [large, small],
    ])
      expect(codes(from, there)).toEqual([]);
  });

  it('has too few of them', () => {
    expect(problems([source(1), source(2)], [nodeGpu(1)])).toEqual([
      {
        code: 'GPU_COUNT',
        message: 'the node does not have as many GPUs as the workload saw',
        found: `1: ${uuidOf(1)} (NVIDIA H200, 143360 MiB)`,
        wanted: expect.stringMatching(/^2: /),
        advice: expect.stringContaining('node'),
      },
    ]);
    expect(codes([source(1)], [])).toEqual(['GPU_COUNT']);
    expect(codes([], [nodeGpu(1)])).toEqual(['GPU_COUNT']);
  });

  it('has others: then all of them are shown', () => {
    const there = [nodeGpu(1, L4), nodeGpu(2, L4), nodeGpu(3)];
    const [reason, ...others] = problems([source(8), source(9)], there);
    expect(others).toEqual([]);
    expect(reason).toMatchObject({ code: 'GPU_MODEL', message: expect.stringContaining('the node') });
    for (const n of [1, 2, 3]) expect(reason?.found).toContain(uuidOf(n));
    const half = nodeGpu(1, { memoryBytes: 70 * GIB });
    expect(problems([source(9)], [half, nodeGpu(2, L4)])).toMatchObject([
      { code: 'GPU_MEMORY', found: expect.stringContaining('NVIDIA L4') },
    ]);
  });

  it('has another driver', () => {
    expect(codes([source(1)], [nodeGpu(1)], '590.1')).toEqual(['GPU_DRIVER_BRANCH']);
    expect(codes([source(1)], [nodeGpu(1)], '580.1')).toEqual(['GPU_DRIVER_OLDER']);
  });
});
