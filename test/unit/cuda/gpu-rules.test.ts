import { describe, expect, it } from 'vitest';
import { sourceProblems } from '../../../agent/cuda/gpu-rules.ts';
import type { NodeGpu } from '../../../agent/cuda/gpus.ts';
import { nodeGpu, uuidOf } from './gpus.ts';

const check = (gpus: readonly NodeGpu[], driver = '590.44.01', rule: 'warn' | 'refuse' = 'warn') => {
  const { reasons, warnings } = sourceProblems(gpus, driver, { multiGpuBelowDriver590: rule });
  return { reasons: reasons.map(({ code }) => code), warnings: warnings.map(({ code }) => code) };
};

describe('before a checkpoint', () => {
  it.each<[string, Partial<NodeGpu>, readonly string[]]>([
    ['a plain GPU', {}, []],
    ['one of which the driver tells nothing', { mig: null, mps: null, virtualization: null }, []],
    ['one that a hypervisor passes through', { virtualization: 'passthrough' }, []],
    ['the same, as nvidia-smi writes it', { virtualization: 'Pass-Through' }, []],
    ['MIG', { mig: true }, ['GPU_MIG']],
    ['MPS', { mps: true }, ['GPU_MPS']],
    ['a vGPU', { virtualization: 'vgpu' }, ['GPU_VIRTUAL']],
    ['a host of vGPUs', { virtualization: 'host-vgpu' }, ['GPU_VIRTUAL']],
    ['all of them', { mig: true, mps: true, virtualization: 'vgpu' }, ['GPU_MIG', 'GPU_MPS', 'GPU_VIRTUAL']],
  ])('%s', (_, changes, reasons) => {
    expect(check([nodeGpu(1, changes)])).toEqual({ reasons, warnings: [] });
  });

  it('names the GPUs that are meant, and no other', () => {
    const { reasons } = sourceProblems([nodeGpu(1), nodeGpu(2, { mig: true })], '590.44.01', {
      multiGpuBelowDriver590: 'warn',
    });
    expect(reasons[0]?.found).toContain(uuidOf(2));
    expect(reasons[0]?.found).not.toContain(uuidOf(1));
  });

  it.each<[string, 'warn' | 'refuse', number, ReturnType<typeof check>]>([
    ['580.159.04', 'warn', 1, { reasons: [], warnings: [] }],
    ['580.159.04', 'warn', 2, { reasons: [], warnings: ['GPU_SEVERAL'] }],
    ['580.159.04', 'refuse', 2, { reasons: ['GPU_SEVERAL'], warnings: [] }],
    ['590.44.01', 'refuse', 8, { reasons: [], warnings: [] }],
    ['575.57.08', 'warn', 1, { reasons: ['GPU_DRIVER_FLOOR'], warnings: [] }],
    ['unknown', 'refuse', 2, { reasons: ['GPU_DRIVER_UNKNOWN'], warnings: [] }],
  ])('driver %s, %s, %i GPUs', (driver, rule, count, expected) => {
    expect(
      check(
        Array.from({ length: count }, (_, n) => nodeGpu(n)),
        driver,
        rule,
      ),
    ).toEqual(expected);
  });
});
