import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type ComparedGpu,
  type GpuPair,
  type GpuSide,
  mapDevices,
  type SourceGpu,
} from '../../../agent/cuda/device-map.ts';
import { GIB, nodeGpu, uuidOf } from './gpus.ts';

const RULES = { multiGpuBelowDriver590: 'warn' } as const;
const DRIVER = '580.95.05';

const target = (n: number, changes: Partial<ComparedGpu> = {}): ComparedGpu => nodeGpu(n, changes);
const source = (n: number, changes: Partial<SourceGpu> = {}): SourceGpu => ({
  ...nodeGpu(n),
  usedBytes: 40 * GIB,
  freeBytes: 100 * GIB,
  ...changes,
});

function map(
  from: readonly SourceGpu[],
  to: readonly ComparedGpu[],
  drivers = [DRIVER, DRIVER],
  rules: Parameters<typeof mapDevices>[2] = RULES,
) {
  const side = <T>(gpus: readonly T[], driver = ''): GpuSide<T> => ({ gpus, driver });
  return mapDevices(side(from, drivers[0]), side(to, drivers[1]), rules);
}
const pairs = (...numbers: readonly [number, number][]): GpuPair[] =>
  numbers.map(([from, to]) => ({ from: uuidOf(from), to: uuidOf(to) }));
const codes = (result: ReturnType<typeof map>) => result.reasons.map(({ code }) => code);

describe('a device map', () => {
  it('is not needed where every GPU is the same one', () => {
    expect(map([source(1)], [target(1)]).pairs).toEqual([]);
    expect(map([source(1), source(2)], [target(2), target(1)]).pairs).toEqual([]);
  });

  it('leads from each GPU to the one that takes its place, in the order of ordinals', () => {
    expect(map([source(1)], [target(7)]).pairs).toEqual(pairs([1, 7]));
    expect(map([source(1), source(2)], [target(8), target(7)]).pairs).toEqual(pairs([1, 8], [2, 7]));
  });

  it('names the GPUs that stay as well, once one moves', () => {
    expect(map([source(1), source(2)], [target(2), target(7)]).pairs).toEqual(pairs([1, 7], [2, 2]));
  });

  it('lets no other GPU take the place of one that is there', () => {
    // By position, 1 would go to 2 and 2 to 1.
    expect(map([source(1), source(2), source(3)], [target(2), target(3), target(9)]).pairs).toEqual(
      pairs([1, 9], [2, 2], [3, 3]),
    );
  });

  it('never crosses models or memory sizes, whatever the positions', () => {
    const small = { name: 'NVIDIA L4', memoryBytes: 24 * GIB, freeBytes: 23 * GIB, usedBytes: GIB };
    const half = { memoryBytes: 70 * GIB, freeBytes: 69 * GIB };
    expect(
      map(
        [source(1), source(2, small), source(3, { ...half, freeBytes: GIB })],
        [target(7, half), target(8), target(9, small)],
      ).pairs,
    ).toEqual(pairs([1, 8], [2, 9], [3, 7]));
  });
});

describe('a restore is refused', () => {
  it.each<[string, readonly SourceGpu[], readonly ComparedGpu[], string]>([
    ['with fewer GPUs', [source(1), source(2)], [target(1)], 'GPU_COUNT'],
    ['with more GPUs', [source(1)], [target(1), target(2)], 'GPU_COUNT'],
    ['with no GPU', [source(1)], [], 'GPU_COUNT'],
    ['with no GPU on either side', [], [], 'GPU_COUNT'],
    ['onto another model', [source(1)], [target(2, { name: 'NVIDIA H100' })], 'GPU_MODEL'],
    [
      'onto as many GPUs of the same models, in other numbers',
      [source(1), source(2), source(3, { name: 'NVIDIA H100' })],
      [target(1), target(5, { name: 'NVIDIA H100' }), target(6, { name: 'NVIDIA H100' })],
      'GPU_MODEL',
    ],
    ['onto the same model with other memory', [source(1)], [target(2, { memoryBytes: 141 * GIB })], 'GPU_MEMORY'],
    ['where the GPU of the UUID is another model', [source(1)], [target(1, { name: 'NVIDIA H100' })], 'GPU_MODEL'],
    ['with a GPU named twice by the source', [source(1), source(1)], [target(1), target(2)], 'GPU_LIST'],
    ['with a GPU named twice at the target', [source(1), source(2)], [target(1), target(1)], 'GPU_LIST'],
  ])('%s', (_, from, to, code) => {
    const result = map(from, to);
    expect(result.pairs).toBeUndefined();
    expect(codes(result)).toContain(code);
  });

  it('with both lists in the reason', () => {
    const [reason] = map([source(1), source(2)], [target(3)]).reasons;
    expect(reason?.found).toContain(uuidOf(3));
    for (const n of [1, 2]) expect(reason?.wanted).toContain(uuidOf(n));
  });

  it('with every reason at once', () => {
    const mig = target(2, { name: 'NVIDIA H100', mig: true });
    expect(codes(map([source(1, { mps: true })], [mig], ['580.95.05', '570.1']))).toEqual([
      'GPU_DRIVER_FLOOR',
      'GPU_DRIVER_BRANCH',
      'GPU_MPS',
      'GPU_MIG',
      'GPU_MODEL',
    ]);
  });
});

describe('free memory', () => {
  const used = (bytes: number, free: number) => source(1, { usedBytes: bytes, freeBytes: free });
  const free = (bytes: number) => target(2, { freeBytes: bytes });

  it('must hold what the workload held, and a margin', () => {
    expect(codes(map([used(40 * GIB, 100 * GIB)], [free(40 * GIB + (256 << 20))]))).toEqual([]);
    expect(codes(map([used(40 * GIB, 100 * GIB)], [free(40 * GIB + (256 << 20) - 1)]))).toEqual(['GPU_MEMORY_FREE']);
  });

  it('need not be more than there was at the source', () => {
    expect(codes(map([used(139 * GIB, 1 << 20)], [free(139 * GIB + (1 << 20))]))).toEqual([]);
    expect(codes(map([used(139 * GIB, 1 << 20)], [free(139 * GIB)]))).toEqual(['GPU_MEMORY_FREE']);
  });

  it('is compared with that of the GPU that takes the place, also where it is the same one', () => {
    expect(codes(map([source(1)], [target(1, { freeBytes: GIB })]))).toEqual(['GPU_MEMORY_FREE']);
    const [reason] = map([source(1), source(2)], [target(2), target(7, { freeBytes: 0 })]).reasons;
    expect(reason?.message).toContain(uuidOf(7));
  });
});

describe('the driver', () => {
  it.each<[string, string, readonly string[]]>([
    ['580.95.05', '580.95.05', []],
    ['580.95.05', '580.159.04', []],
    ['580.95', '580.95.05', []],
    ['580.159.04', '580.95.05', ['GPU_DRIVER_OLDER']],
    ['580.95.05', '590.44.01', ['GPU_DRIVER_BRANCH']],
    ['590.44.01', '580.159.04', ['GPU_DRIVER_BRANCH']],
    ['570.133.20', '570.133.20', ['GPU_DRIVER_FLOOR', 'GPU_DRIVER_FLOOR']],
    ['580.95.05', '', ['GPU_DRIVER_UNKNOWN']],
    ['580', '580.95.05', ['GPU_DRIVER_UNKNOWN']],
    ['580.95.05', '580.95.05-open', ['GPU_DRIVER_UNKNOWN']],
  ])('%s, then %s: %j', (from, to, expected) => {
    expect(codes(map([source(1)], [target(1)], [from, to]))).toEqual(expected);
  });

  it('below 590 gives a warning for several GPUs, a refusal where the configuration says so', () => {
    const two = [
      [source(1), source(2)],
      [target(1), target(2)],
    ] as const;
    const warned = map(...two);
    expect(warned).toMatchObject({ pairs: [], reasons: [], warnings: [{ code: 'GPU_SEVERAL' }] });
    const refused = map(...two, [DRIVER, DRIVER], { multiGpuBelowDriver590: 'refuse' });
    expect(refused).toMatchObject({ pairs: undefined, reasons: [{ code: 'GPU_SEVERAL' }], warnings: [] });
    const later = map(...two, ['590.44.01', '590.44.01'], { multiGpuBelowDriver590: 'refuse' });
    expect(later).toMatchObject({ pairs: [], reasons: [], warnings: [] });
    expect(map([source(1)], [target(1)]).warnings).toEqual([]);
  });
});

describe('what every map has in common', () => {
  /** A few models and sizes, so that GPUs are alike often; UUIDs from few, so that both sides share some. */
  const kind = fc.record({
    name: fc.constantFrom('NVIDIA H100', 'NVIDIA H200'),
    memoryBytes: fc.constantFrom(80 * GIB, 140 * GIB),
  });
  const kinds = fc.array(kind, { minLength: 12, maxLength: 12 });
  const some = fc.uniqueArray(fc.integer({ min: 0, max: 11 }), { minLength: 1, maxLength: 6 });
  /** The GPUs of one cluster, of which both sides see some: a UUID is one GPU, wherever it is seen. */
  const both = fc.tuple(kinds, some, some).map(([all, left, right]) => ({
    from: left.map((n) => source(n, { ...all[n], usedBytes: GIB, freeBytes: GIB })),
    to: right.map((n) => target(n, { ...all[n], freeBytes: 60 * GIB })),
  }));
  const bag = (gpus: readonly ComparedGpu[]) => gpus.map(({ name, memoryBytes }) => `${name} ${memoryBytes}`).sort();

  it('is there exactly where both sides have the same GPUs, up to identity', () => {
    fc.assert(
      fc.property(both, ({ from, to }) => {
        const result = map(from, to);
        expect(result.pairs !== undefined).toBe(JSON.stringify(bag(from)) === JSON.stringify(bag(to)));
        expect(result.pairs === undefined).toBe(result.reasons.length > 0);
      }),
    );
  });

  it('is complete, one to one, between alike GPUs, in the order of the source, and keeps what can stay', () => {
    const alike = both.map(({ from, to }) => {
      // The same kinds on the target, in another order: so that there always is a map.
      const rest = from.filter(({ uuid }) => !to.some((gpu) => gpu.uuid === uuid));
      const strangers = rest.map((gpu, at) => ({ ...gpu, uuid: uuidOf(100 + at), freeBytes: 60 * GIB }));
      const stay = from.filter(({ uuid }) => to.some((gpu) => gpu.uuid === uuid));
      return { from, to: [...strangers.reverse(), ...stay.map((gpu) => ({ ...gpu, freeBytes: 60 * GIB })).reverse()] };
    });
    fc.assert(
      fc.property(alike, ({ from, to }) => {
        const { pairs: made = [], reasons } = map(from, to);
        expect(reasons).toEqual([]);
        if (from.every(({ uuid }) => to.some((gpu) => gpu.uuid === uuid))) {
          expect(made).toEqual([]);
          return;
        }
        expect(made.map((pair) => pair.from)).toEqual(from.map(({ uuid }) => uuid));
        expect(made.map((pair) => pair.to).sort()).toEqual(to.map(({ uuid }) => uuid).sort());
        for (const pair of made) {
          const [a, b] = [from.find(({ uuid }) => uuid === pair.from), to.find(({ uuid }) => uuid === pair.to)];
          expect([b?.name, b?.memoryBytes]).toEqual([a?.name, a?.memoryBytes]);
          if (to.some(({ uuid }) => uuid === pair.from)) expect(pair.to).toBe(pair.from);
        }
      }),
    );
  });

  it('does not depend on where the GPUs of another model stand', () => {
    const isH100 = ({ name }: ComparedGpu) => name === 'NVIDIA H100';
    fc.assert(
      fc.property(both, ({ from, to }) => {
        const apart = [...to.filter(isH100), ...to.filter((gpu) => !isH100(gpu))];
        expect(map(from, apart).pairs).toEqual(map(from, to).pairs);
      }),
    );
  });
});
