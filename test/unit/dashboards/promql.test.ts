import { expect, it } from 'vitest';
import { readsOf } from './promql.ts';

it('finds selectors with their labels, and the labels that are grouped and joined by', () => {
  const { selectors, labels } = readsOf(
    'sum by (job, le) (rate(a_bucket{x="1", y=~"b|c"}[5m])) / on (job) group_left (node) up unless b offset 1h > 2',
  );
  expect(selectors).toEqual([
    {
      metric: 'a_bucket',
      matchers: [
        { label: 'x', operator: '=', value: '1' },
        { label: 'y', operator: '=~', value: 'b|c' },
      ],
    },
    { metric: 'up', matchers: [] },
    { metric: 'b', matchers: [] },
  ]);
  expect(labels).toEqual(['job', 'le', 'job', 'node']);
});

it('refuses what it does not understand', () => {
  expect(() => readsOf('a{b="1"} ; c')).toThrow('not understood');
});
