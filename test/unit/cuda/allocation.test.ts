import { describe, expect, it } from 'vitest';
import { pluginGpus } from '../../../agent/cuda/allocation.ts';
import { nodeGpu, uuidOf } from './gpus.ts';

const NODE = [0, 1, 2].map((n) => nodeGpu(n, { minor: 7 - n }));
const given = (...plugin: readonly (readonly [string, ...string[]])[]) =>
  pluginGpus({ plugin: plugin.map(([resource, ...ids]) => ({ resource, ids })), claimed: [] }, NODE).map(
    ({ index }) => index,
  );

describe('the GPUs that a device plugin gave', () => {
  it.each<[string, readonly (readonly [string, ...string[]])[], readonly number[]]>([
    ['are named by UUID', [['nvidia.com/gpu', uuidOf(2), uuidOf(0)]], [2, 0]],
    [
      'come in pieces, one for each NUMA node',
      [
        ['nvidia.com/gpu', uuidOf(1)],
        ['nvidia.com/gpu', uuidOf(0)],
      ],
      [1, 0],
    ],
    ['are shared, and have numbers behind', [['nvidia.com/gpu.shared', `${uuidOf(1)}::0`, `${uuidOf(1)}::3`]], [1]],
    ['are named by the minor of their node on GKE', [['nvidia.com/gpu', 'nvidia5', 'nvidia7/vgpu1']], [2, 0]],
    ['have a resource of another name', [['nvidia.com/h200', uuidOf(1)]], [1]],
    [
      'are not other devices of the vendor',
      [
        ['nvidia.com/hostdev', '0000:03:00.2'],
        ['nvidia.com/pgpu', '12'],
      ],
      [],
    ],
    [
      'are not devices of others',
      [
        ['example.com/gpu', uuidOf(1)],
        ['cpu', '1'],
      ],
      [],
    ],
    ['are none', [], []],
  ])('%s', (_, plugin, expected) => {
    expect(given(...plugin)).toEqual(expected);
  });

  it.each<[string, string]>([
    ['nvidia.com/mig-1g.10gb', 'MIG-00000000-0000-0000-0000-000000000000'],
    ['nvidia.com/mig-1g.10gb.shared', 'anything'],
    ['nvidia.com/gpu', 'MIG-00000000-0000-0000-0000-000000000000'],
    ['nvidia.com/gpu', 'MIG-00000000-0000-0000-0000-000000000000::1'],
    ['nvidia.com/gpu', 'nvidia0/gi1'],
    ['nvidia.com/gpu', 'nvidia0/gi1/vgpu0'],
  ])('are refused where they are MIG instances: %s %s', (resource, id) => {
    const refused = expect(() => given([resource, id]));
    refused.toThrow(
      expect.objectContaining({ code: 'GPU_IDENTITY', reasons: [expect.objectContaining({ code: 'GPU_MIG' })] }),
    );
    refused.toThrow(`was given a MIG instance: ${resource} ${id}`);
  });

  it.each(['0', `${uuidOf(1)}-0`, `${uuidOf(1)}::x`, '', 'nvidia5/vgpu', '../nvidia5'])(
    'are refused where their name is not understood: %j',
    (id) => {
      expect(() => given(['nvidia.com/gpu', id])).toThrow(/names a GPU in a way that is not known: nvidia\.com\/gpu /);
    },
  );

  it.each([uuidOf(9), 'nvidia0'])('are refused where the driver does not know them: %s', (id) => {
    const refused = expect(() => given(['nvidia.com/gpu', id]));
    refused.toThrow(expect.objectContaining({ code: 'GPU_IDENTITY' }));
    refused.toThrow(`was given nvidia.com/gpu ${id}, and the driver of this node knows ${uuidOf(0)}, ${uuidOf(1)}`);
  });
});
