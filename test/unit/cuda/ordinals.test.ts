import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { NodeGpu } from '../../../agent/cuda/gpus.ts';
import { cudaEnvironment, inOrdinalOrder } from '../../../agent/cuda/ordinals.ts';
import { nodeGpu, uuidOf } from './gpus.ts';

const alike = [3, 1, 2, 0].map((n) => nodeGpu(n));
const order = (env: readonly string[], gpus: readonly NodeGpu[] = alike) =>
  inOrdinalOrder(gpus, cudaEnvironment(env)).map(({ index }) => index);

describe('ordinals', () => {
  it('are those of the bus, however the driver lists the GPUs', () => {
    expect(order([])).toEqual([0, 1, 2, 3]);
    expect(order(['CUDA_DEVICE_ORDER=PCI_BUS_ID', 'PATH=/bin'])).toEqual([0, 1, 2, 3]);
  });

  it.each<[string, readonly number[]]>([
    ['2', [2, 0, 1, 3]],
    ['3,1', [3, 1, 0, 2]],
    [' 1 , 0 ', [1, 0, 2, 3]],
    [uuidOf(2), [2, 0, 1, 3]],
    [`${uuidOf(3)},0`, [3, 0, 1, 2]],
    [uuidOf(1).toUpperCase(), [1, 0, 2, 3]],
    ['', [0, 1, 2, 3]],
    ['-1', [0, 1, 2, 3]],
    ['2,9,1', [2, 0, 1, 3]],
    ['2,-1,1', [2, 0, 1, 3]],
    ['2,2', [0, 1, 2, 3]],
    ['GPU-', [0, 1, 2, 3]],
    ['GPU-0', [0, 1, 2, 3]],
    ['MIG-0', [0, 1, 2, 3]],
  ])('are changed by CUDA_VISIBLE_DEVICES=%s', (value, expected) => {
    expect(order([`CUDA_VISIBLE_DEVICES=${value}`])).toEqual(expected);
  });

  it('may be picked by the beginning of a UUID', () => {
    const gpus = ['GPU-aa', 'GPU-ab'].map((start, n) => nodeGpu(n, { uuid: start + uuidOf(n).slice(6) }));
    expect(order(['CUDA_VISIBLE_DEVICES=GPU-ab'], gpus)).toEqual([1, 0]);
    expect(order(['CUDA_VISIBLE_DEVICES=GPU-a'], gpus)).toEqual([0, 1]);
  });

  it('are not told from numbers where CUDA may put another model first', () => {
    const mixed = [nodeGpu(0, { name: 'NVIDIA L4' }), nodeGpu(1), nodeGpu(2)];
    expect(order(['CUDA_VISIBLE_DEVICES=2'], mixed)).toEqual([0, 1, 2]);
    expect(order(['CUDA_VISIBLE_DEVICES=2', 'CUDA_DEVICE_ORDER=PCI_BUS_ID'], mixed)).toEqual([2, 0, 1]);
    expect(order([`CUDA_VISIBLE_DEVICES=${uuidOf(2)}`], mixed)).toEqual([2, 0, 1]);
  });

  it('are of the last setting, where a name is set twice', () => {
    expect(cudaEnvironment(['CUDA_VISIBLE_DEVICES=1', 'CUDA_VISIBLE_DEVICES=2', 'XCUDA_DEVICE_ORDER=x'])).toEqual({
      visibleDevices: '2',
      deviceOrder: undefined,
    });
    expect(cudaEnvironment([]).visibleDevices).toBeUndefined();
  });

  it('are of each GPU once, whatever the variables say', () => {
    const part = fc.oneof(fc.nat(5).map(String), fc.nat(5).map(uuidOf), fc.string({ maxLength: 8 }));
    fc.assert(
      fc.property(fc.array(part, { maxLength: 6 }), fc.shuffledSubarray(alike), (parts, gpus) => {
        const ordered = order([`CUDA_VISIBLE_DEVICES=${parts.join(',')}`], gpus);
        expect(ordered.toSorted()).toEqual(gpus.map(({ index }) => index).toSorted());
      }),
    );
  });
});
