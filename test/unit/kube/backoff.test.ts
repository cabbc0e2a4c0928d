import { afterEach, describe, expect, it, vi } from 'vitest';
import { backoffMs } from '../../../kube/backoff.ts';
import { KubeError } from '../../../kube/error.ts';

const RANGE = { minMs: 200, maxMs: 15_000 };
const asked = (retryAfterMs: number) => new KubeError('busy', { status: 429, retryAfterMs });
afterEach(() => vi.restoreAllMocks());

describe('the wait after a failure', () => {
  it('is at most twice as long with each failure in a row, up to a bound that ten minutes of failures do not pass', () => {
    vi.spyOn(Math, 'random').mockReturnValue(1);
    const waits = [1, 2, 3, 7, 8, 40, 5_000].map((failures) => backoffMs(failures, RANGE));
    expect(waits).toEqual([200, 400, 800, 12_800, 15_000, 15_000, 15_000]);
  });

  it('is anything from nothing to its bound', () => {
    const draw = vi.spyOn(Math, 'random');
    expect([0, 0.25, 0.5].map((drawn) => draw.mockReturnValue(drawn) && backoffMs(3, RANGE))).toEqual([0, 200, 400]);
  });

  it('comes on top of what the server asks for, within reason', () => {
    vi.spyOn(Math, 'random').mockReturnValue(0.5);
    expect(backoffMs(1, RANGE, asked(3_000))).toBe(3_100);
    expect(backoffMs(1, RANGE, asked(86_400_000))).toBe(60_100);
    expect(backoffMs(1, RANGE, new KubeError('reset', { reason: 'Reset' }))).toBe(100);
  });
});
