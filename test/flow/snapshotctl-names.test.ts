import { afterEach, beforeEach, expect, it } from 'vitest';
import { Desk } from './snapshotctl-pods/desk.ts';

/** Names that no object can have are refused before anything is sent: in a path they would lead elsewhere. */
let desk: Desk;
beforeEach(async () => {
  desk = await Desk.open();
  desk.putAgent({ claim: 'snapshots' });
});
afterEach(() => desk.close());

const CASES: readonly [readonly string[], string][] = [
  [['--pod', '..'], '--pod ".." has a part between its dots that does not begin and end with a letter or digit'],
  [['--pod', ''], '--pod is empty: say a name'],
  [['--pod', 'a/b'], '--pod "a/b" has characters other than a-z 0-9 - .'],
  [['--pod', 'x'.repeat(254)], `--pod "${'x'.repeat(254)}" has 254 characters, at most 253 are allowed`],
  [['--pod', 'worker', '-n', ''], '--namespace is empty: say a name'],
  [['--pod', 'worker', '-n', '..'], '--namespace ".." has a part between its dots'],
  [['--pod', 'worker', '-n', 'a.b'], '--namespace "a.b" has a dot, which no namespace has'],
  [['--pod', 'worker', '--storage', 'pvc', '--pvc-name', '..'], '--pvc-name ".." has a part between its dots'],
];

it.each(CASES)('restore %j is refused, and nothing is sent', async (args, message) => {
  const { code, err } = await desk.snapshotctl(['restore', '--checkpoint-id', 'one', '--containers', 'main', ...args]);
  expect([code, err]).toEqual([2, expect.stringContaining(`snapshotctl: ${message}`)]);
  expect(desk.api.calls({})).toEqual([]);
});
