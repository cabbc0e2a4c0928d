import { describe, expect, it } from 'vitest';
import { formatDuration, parseDuration } from '../../../snapshotctl/workload/duration.ts';

describe('a time of the command line', () => {
  it.each([
    ['45m', 2_700_000],
    ['1h30m', 5_400_000],
    ['1.5s', 1_500],
    ['250ms', 250],
    ['0s', 0],
    ['-5s', -5_000],
    ['9999h', 2 ** 31 - 1],
  ])('%s is %d ms', (text, ms) => {
    expect(parseDuration(text)).toBe(ms);
  });

  it.each(['', '45', 'm', '5 m', '5d', '1h 2m', '1h2x'])('"%s" is none', (text) => {
    expect(() => parseDuration(text)).toThrow(`"${text}" is no time; write 90s, 45m or 1h30m`);
  });

  it.each([
    [2_700_000, '45m'],
    [5_405_000, '1h30m5s'],
    [2_000, '2s'],
    [0, '0s'],
  ])('%d ms is said as %s', (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });
});
