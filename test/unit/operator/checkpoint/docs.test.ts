import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { FAILURE_REASONS } from '../../../../operator/checkpoint/facts.ts';

it('docs/checkpoints.md has a row for each reason of a failure, and no other', () => {
  const page = readFileSync('docs/checkpoints.md', 'utf8').split('\n## ');
  const section = page.find((text) => text.startsWith('Reasons of a failure')) ?? '';
  const rows = [...section.matchAll(/^\| `([A-Za-z]+)` \|/gm)].map(([, reason]) => reason);
  expect(rows.sort()).toEqual([...FAILURE_REASONS].sort());
});
