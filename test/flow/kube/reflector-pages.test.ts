import { describe, expect, it } from 'vitest';
import { errorEvent } from './collection.ts';
import { useCollection } from './following.ts';
import { eventually } from './server.ts';

const { current, followed, stage } = useCollection();

const limits = () =>
  stage.server.collection.calls.flatMap(({ kind, query }) => (kind === 'list' ? [Number(query.get('limit'))] : []));
const NAMES = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
/** What somebody put on the objects of the collection, so that a page of four of them is too large, and one of two is not. */
const fill = (length: number) => {
  for (const name of NAMES) stage.server.collection.put(name, 'x'.repeat(length));
};
const PAGES = { pageSize: 8, pageBytes: 4_000 };

describe('the reflector, where the pages of a list are too large,', () => {
  it('lists anew with half as many objects in each, until they fit, and says it once', async () => {
    fill(1_500);
    const { view, synced, states, lost, waits } = await followed(PAGES);
    expect(limits()).toEqual([8, 4, 2, 2, 2, 2]);
    expect([lost(), waits()]).toEqual([['too-large'], [0]]);
    expect(states[0]).toMatchObject({ message: expect.stringContaining('larger than 4000 bytes') });
    expect(synced).toEqual([NAMES]);
    expect(Object.fromEntries(view)).toEqual(current());
  });

  it('begins anew, though the first pages were small', async () => {
    fill(10);
    for (const name of ['g', 'h']) stage.server.collection.put(name, 'x'.repeat(3_000));
    const { synced, lost } = await followed({ ...PAGES, pageSize: 4 });
    expect(limits()).toEqual([4, 4, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1]);
    expect(lost()).toEqual(['too-large']);
    expect(synced).toEqual([NAMES]);
  });

  it('asks for more again from list to list, and says it again only when it had come back to all', async () => {
    fill(1_500);
    const { lost, synced } = await followed(PAGES);
    const listAgain = async () => {
      const lists = synced.length;
      stage.server.collection.calls.length = 0;
      stage.server.collection.send(errorEvent(410, 'Expired', 'too old resource version'));
      stage.server.collection.end();
      await eventually(() => expect(synced.length).toBe(lists + 1));
      await eventually(() => expect(stage.server.collection.watchCount).toBe(1));
      return limits();
    };
    const tooLarge = () => lost().filter((reason) => reason === 'too-large').length;
    stage.server.collection.put('other', '1');
    expect((await listAgain()).slice(0, 2)).toEqual([4, 2]);
    expect(tooLarge()).toBe(1);
    fill(10);
    expect((await listAgain())[0]).toBe(4);
    expect(await listAgain()).toEqual([8, 8]);
    fill(1_500);
    expect((await listAgain())[0]).toBe(8);
    expect(tooLarge()).toBe(2);
  });

  it('does not go below one object: it says so and tries again later', async () => {
    stage.server.collection.put('a', 'x'.repeat(5_000));
    const { collection } = stage.server;
    const following = followed({ ...PAGES, pageSize: 2 });
    await eventually(() => expect(limits().filter((limit) => limit === 1).length).toBeGreaterThan(2));
    collection.put('a', 'small');
    const { lost, view } = await following;
    expect(new Set(lost())).toEqual(new Set(['too-large']));
    expect(Object.fromEntries(view)).toEqual({ a: 'small' });
  });
});
