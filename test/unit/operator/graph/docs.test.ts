import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';

const page = readFileSync('docs/operator-graph.md', 'utf8');
const source = readdirSync('operator/graph')
  .map((name) => readFileSync(`operator/graph/${name}`, 'utf8'))
  .join('\n');
/** Words of CamelCase that are no reasons. */
const OTHERS = new Set(['WaitForCheckpoint', 'ColdStart', 'WorkersHeld', 'PlainRollout']);
const sorted = (values: Iterable<string>) => [...new Set(values)].sort();

describe('docs/operator-graph.md', () => {
  it('has a row for each reason, and for no other', () => {
    const given = [...source.matchAll(/'((?:GMS)?[A-Z][a-z]+(?:[A-Z][a-z]+)+)'/g)].map(([, word = '']) => word);
    const reasons = given.filter((word) => !OTHERS.has(word) && !/^(Dynamo|Malformed)/.test(word));
    const rows = [...page.matchAll(/^\|[^|]*\| `([A-Za-z]+)` \|/gm)].map(([, word = '']) => word);
    // Said of a single checkpoint, in an Event alone.
    expect(sorted(rows)).toEqual(sorted(reasons.filter((word) => word !== 'CheckpointReady')));
    expect(page).toContain('`CheckpointReady`');
  });

  it('names each label, annotation and variable that pods get', () => {
    const names = [...source.matchAll(/name: '([A-Z][A-Z0-9_]+)'/g)].map(([, name = '']) => name);
    expect(names).toContain('DYN_NAMESPACE');
    for (const name of names) expect(page).toContain(`\`${name}\``);
  });
});
