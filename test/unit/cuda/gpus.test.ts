import { describe, expect, it } from 'vitest';
import { compareBusIds, describeGpus, readGpus } from '../../../agent/cuda/gpus.ts';
import { nodeGpu } from './gpus.ts';

describe('the answer of a worker to `gpus`', () => {
  const told = {
    index: 0,
    uuid: 'GPU-12345678-9abc-def0-1234-56789abcdef0',
    name: 'NVIDIA H200',
    minor: 3,
    busId: '00000000:1B:00.0',
    memoryBytes: 150_754_820_096,
    freeBytes: 150_000_000_000,
    mig: false,
    mps: null,
    virtualization: null,
  };

  it('is read, with what the driver did not tell as null', () => {
    expect(readGpus({ ok: true, gpus: [{ ...told, later: 1 }] })).toEqual([told]);
    expect(readGpus({ ok: true, gpus: [] })).toEqual([]);
  });

  it('has all memory as free where the driver does not tell how much is', () => {
    const [gpu] = readGpus({ ok: true, gpus: [{ ...told, freeBytes: null }] });
    expect(gpu?.freeBytes).toBe(told.memoryBytes);
  });

  it.each<[string, unknown]>([
    ['no object', 'ok'],
    ['an error', { ok: false, gpus: [] }],
    ['without a list', { ok: true }],
    ['a MIG instance', { ok: true, gpus: [{ ...told, uuid: `MIG-${told.uuid.slice(4)}` }] }],
    ['capitals in a UUID', { ok: true, gpus: [{ ...told, uuid: told.uuid.toUpperCase() }] }],
    ['the minor of nvidiactl', { ok: true, gpus: [{ ...told, minor: 255 }] }],
    ['a bus id with a line feed', { ok: true, gpus: [{ ...told, busId: `${told.busId}\n` }] }],
    ['less than no memory', { ok: true, gpus: [{ ...told, freeBytes: -1 }] }],
    ['more GPUs than there can be', { ok: true, gpus: Array.from({ length: 255 }, () => told) }],
  ])('is refused: %s', (_, answer) => {
    expect(() => readGpus(answer)).toThrow(/list of GPUs of the CUDA worker is not understood/);
  });
});

describe('bus ids', () => {
  it('are ordered as numbers, domain first, however they are written', () => {
    const ordered = [
      '0000:0A:00.0',
      '00000000:1b:00.0',
      '0000:1b:00.1',
      '0000:1B:1f.0',
      '00000001:00:00.0',
      '10000:00:00.0',
    ];
    const shuffled = [5, 2, 0, 4, 3, 1].map((at) => ordered[at] ?? '');
    expect(shuffled.sort(compareBusIds)).toEqual(ordered);
  });

  it('of the same slot are equal in both forms', () => {
    expect(compareBusIds('0000:1b:00.0', '00000000:1B:00.0')).toBe(0);
    expect(compareBusIds('1b:00.0', '00000000:1B:00.0')).toBe(0);
  });

  it('that are none come last', () => {
    expect(['', '0000:01:00.0', 'PCI'].sort(compareBusIds)[0]).toBe('0000:01:00.0');
    expect(compareBusIds('', 'PCI')).toBe(0);
  });
});

it('GPUs are described by UUID, model and memory', () => {
  expect(describeGpus([])).toBe('none');
  expect(describeGpus([nodeGpu(1), nodeGpu(2, { name: 'NVIDIA L4', memoryBytes: 23_034 << 20 })])).toMatch(
    /^GPU-0{8}-.*0001 \(NVIDIA H200, 143360 MiB\), GPU-.*0002 \(NVIDIA L4, /,
  );
});
