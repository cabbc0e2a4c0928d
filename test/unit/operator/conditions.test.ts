import { describe, expect, it } from 'vitest';
import { isTrue, withCondition } from '../../../operator/control/conditions.ts';

const NOW = new Date('2026-01-29T10:05:00.123Z');
const LATER = new Date('2026-01-29T11:00:00Z');
const WORD = {
  type: 'JobCreated',
  status: 'True',
  reason: 'Created',
  message: 'Job a',
  observedGeneration: 1,
} as const;
const first = withCondition([], WORD, NOW);

describe('a condition', () => {
  it('is added with the time in whole seconds, beside those of others', () => {
    const other = withCondition(undefined, { ...WORD, type: 'Other' }, NOW);
    expect(withCondition(other, WORD, NOW)).toEqual([
      ...other,
      { ...WORD, lastTransitionTime: '2026-01-29T10:05:00Z' },
    ]);
  });

  it('that says the same again leaves the very list', () => {
    expect(withCondition(first, WORD, LATER)).toBe(first);
  });

  it.each([
    ['reason', { reason: 'Found' }],
    ['message', { message: 'Job b' }],
    ['generation', { observedGeneration: 2 }],
  ])('with another %s keeps its time', (_, change) => {
    const [said] = withCondition(first, { ...WORD, ...change }, LATER);
    expect(said).toEqual({ ...first[0], ...change });
  });

  it('with another status has another time, and its place', () => {
    const two = withCondition(first, { ...WORD, type: 'Other' }, NOW);
    const turned = withCondition(two, { ...WORD, status: 'False' }, LATER);
    expect(turned.map(({ type, lastTransitionTime }) => [type, lastTransitionTime])).toEqual([
      ['JobCreated', '2026-01-29T11:00:00Z'],
      ['Other', '2026-01-29T10:05:00Z'],
    ]);
  });

  it('has no longer message than the server takes, and says it only once for all that', () => {
    const long = withCondition([], { ...WORD, message: 'x'.repeat(40_000) }, NOW);
    expect(long[0]?.message).toHaveLength(32_768);
    expect(withCondition(long, { ...WORD, message: 'x'.repeat(40_000) }, LATER)).toBe(long);
  });

  it('is true only where it says so', () => {
    expect(isTrue(first, 'JobCreated')).toBe(true);
    expect(isTrue(withCondition(first, { ...WORD, status: 'Unknown' }, NOW), 'JobCreated')).toBe(false);
    expect(isTrue(first, 'Other')).toBe(false);
    expect(isTrue(undefined, 'Other')).toBe(false);
  });
});
