import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { newRefusals } from '../../../agent/api/refusals.ts';
import { memoryLog } from '../../fakes/log.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

it('refusals are told once a second for each caller, and all are counted', () => {
  const { log, said } = memoryLog();
  const refusals = newRefusals(log);
  const told = () => said('grpc calls were refused for a limit').map(({ caller, refused }) => [caller, refused]);
  for (let n = 0; n < 1_000; n += 1) refusals.count('a');
  refusals.count('b');
  expect(told()).toEqual([
    ['a', 1],
    ['b', 1],
  ]);
  vi.advanceTimersByTime(1_000);
  expect(told().slice(2)).toEqual([['a', 999]]);
  for (let n = 0; n < 5; n += 1) refusals.count('a');
  vi.advanceTimersByTime(999);
  expect(told()).toHaveLength(3);
  vi.advanceTimersByTime(1);
  expect(told().slice(3)).toEqual([['a', 5]]);
  // After a quiet second it is at once again, and nobody is remembered.
  vi.advanceTimersByTime(2_000);
  expect(vi.getTimerCount()).toBe(0);
  refusals.count('a');
  expect(told().slice(4)).toEqual([['a', 1]]);
});
