import { expect, it } from 'vitest';
import { totalBytes, usageOf } from '../../../agent/cuda/usage.ts';

const process = (pid: number) => ({ id: { pid, start: 1 }, innerPid: pid, comm: 'worker' });
const gpus = [
  { uuid: 'GPU-a', memoryBytes: 100, freeBytes: 30 },
  { uuid: 'GPU-b', memoryBytes: 100, freeBytes: 100 },
];

it('of processes is what NVML tells of them', () => {
  const told = [
    { pid: 10, gpu: 'GPU-a', bytes: 7 },
    { pid: 10, gpu: 'GPU-b', bytes: 1 },
    { pid: 99, gpu: 'GPU-a', bytes: 50 },
    { pid: 99, gpu: 'GPU-b', bytes: null },
  ];
  const { usage, isMeasured } = usageOf(told, [process(10), process(11)], gpus);
  expect(usage).toEqual(told.slice(0, 2));
  expect([isMeasured, totalBytes(usage)]).toEqual([true, 8]);
});

it.each([
  ['knows none of them', [{ pid: 99, gpu: 'GPU-a', bytes: 50 }]],
  ['does not say how much', [{ pid: 10, gpu: 'GPU-a', bytes: null }]],
  [
    'knows one half',
    [
      { pid: 10, gpu: 'GPU-a', bytes: null },
      { pid: 11, gpu: 'GPU-a', bytes: 3 },
    ],
  ],
])('is all that is in use on their GPUs where NVML %s', (_, told) => {
  const { usage, isMeasured } = usageOf(told, [process(10), process(11)], gpus);
  expect(usage).toEqual([
    { pid: 10, gpu: 'GPU-a', bytes: 70 },
    { pid: 10, gpu: 'GPU-b', bytes: 0 },
  ]);
  expect(isMeasured).toBe(false);
});

it('of no process is nothing', () => {
  expect(usageOf([{ pid: 9, gpu: 'GPU-a', bytes: 1 }], [], gpus)).toEqual({ usage: [], isMeasured: true });
});
