import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type Again, keyedQueue } from '../../../kube/queue.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** Work that lasts until the test ends it. */
function heldWork() {
  const began: string[] = [];
  const open = new Map<string, { resolve: (again: Again) => void; reject: (error: unknown) => void }>();
  let most = 0;
  const work = (key: string) =>
    new Promise<Again>((resolve, reject) => {
      expect(open.has(key), `${key} runs twice at once`).toBe(false);
      began.push(key);
      open.set(key, { resolve, reject });
      most = Math.max(most, open.size);
    });
  const end = async (key: string, again?: Again, error?: unknown) => {
    const held = open.get(key);
    open.delete(key);
    if (error === undefined) held?.resolve(again);
    else held?.reject(error);
    await settled();
  };
  return { work, began, end, running: () => [...open.keys()], most: () => most };
}
/** Lets everything run that does not wait for a timer. */
const settled = () => vi.advanceTimersByTimeAsync(0);
const noFailure = (key: string, error: unknown) => {
  throw new Error(`${key} failed`, { cause: error });
};

describe('the keyed queue', () => {
  it('works on a key that was asked for', async () => {
    const held = heldWork();
    const queue = keyedQueue(2, held.work, noFailure);
    queue.add('a');
    expect(queue.depth).toBe(1);
    await settled();
    expect(held.running()).toEqual(['a']);
    await held.end('a');
    expect(queue.depth).toBe(0);
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(held.began).toEqual(['a']);
  });

  it('makes one piece of work of requests that come together', async () => {
    const held = heldWork();
    const queue = keyedQueue(2, held.work, noFailure);
    for (let i = 0; i < 5; i++) queue.add('a');
    await settled();
    await held.end('a');
    expect(held.began).toEqual(['a']);
  });

  it('works once more, and only once, on a key that was asked for while it was worked on', async () => {
    const held = heldWork();
    const queue = keyedQueue(4, held.work, noFailure);
    queue.add('a');
    await settled();
    for (let i = 0; i < 5; i++) queue.add('a');
    await settled();
    expect(held.began).toEqual(['a']);
    await held.end('a');
    expect(held.began).toEqual(['a', 'a']);
    await held.end('a');
    expect(held.began).toEqual(['a', 'a']);
    expect(queue.depth).toBe(0);
  });

  it('lets no more than the bound run at once, and everybody run in the end, first come first served', async () => {
    const held = heldWork();
    const queue = keyedQueue(3, held.work, noFailure);
    const keys = Array.from({ length: 10 }, (_, n) => `k${n}`);
    for (const key of keys) queue.add(key);
    await settled();
    while (held.running().length > 0) await held.end(held.running()[0] ?? '');
    expect(held.most()).toBe(3);
    expect(held.began).toEqual(keys);
  });

  it('is not held up by a key that waits for itself', async () => {
    const held = heldWork();
    const queue = keyedQueue(2, held.work, noFailure);
    queue.add('a');
    await settled();
    queue.add('a');
    queue.add('b');
    await settled();
    expect(held.running()).toEqual(['a', 'b']);
  });

  it('comes back after the delay that the work asked for', async () => {
    const held = heldWork();
    const queue = keyedQueue(1, held.work, noFailure);
    queue.add('a');
    await settled();
    await held.end('a', { afterMs: 500 });
    await vi.advanceTimersByTimeAsync(499);
    expect(held.began).toEqual(['a']);
    await vi.advanceTimersByTimeAsync(1);
    expect(held.began).toEqual(['a', 'a']);
  });

  it('lets the earlier of two delays win, in whichever order they come', async () => {
    for (const delays of [
      [1000, 100],
      [100, 1000],
    ]) {
      const held = heldWork();
      const queue = keyedQueue(1, held.work, noFailure);
      for (const delay of delays) queue.addLater('a', delay);
      await vi.advanceTimersByTimeAsync(100);
      expect(held.began).toEqual(['a']);
      await held.end('a');
      await vi.advanceTimersByTimeAsync(5000);
      expect(held.began).toEqual(['a']);
    }
  });

  it('lets a request for now replace a delayed one', async () => {
    const held = heldWork();
    const queue = keyedQueue(1, held.work, noFailure);
    queue.addLater('a', 1000);
    queue.add('a');
    await settled();
    expect(held.running()).toEqual(['a']);
    await held.end('a');
    await vi.advanceTimersByTimeAsync(5000);
    expect(held.began).toEqual(['a']);
  });

  it('forgets a delay asked for by work while somebody asked for now', async () => {
    const held = heldWork();
    const queue = keyedQueue(1, held.work, noFailure);
    queue.add('a');
    await settled();
    queue.add('a');
    await held.end('a', { afterMs: 1000 });
    expect(held.began).toEqual(['a', 'a']);
    await held.end('a');
    await vi.advanceTimersByTimeAsync(5000);
    expect(held.began).toEqual(['a', 'a']);
  });

  it('tells of a failure, gives the place free, and works on the key again when asked', async () => {
    const held = heldWork();
    const failures: unknown[][] = [];
    const queue = keyedQueue(1, held.work, (...failure) => failures.push(failure));
    queue.add('a');
    queue.add('b');
    await settled();
    const error = new Error('no');
    await held.end('a', undefined, error);
    expect(failures).toEqual([['a', error]]);
    expect(held.running()).toEqual(['b']);
    queue.add('a');
    await held.end('b');
    expect(held.running()).toEqual(['a']);
  });

  it('does not lose what was asked for while work failed', async () => {
    const held = heldWork();
    const queue = keyedQueue(1, held.work, () => undefined);
    queue.add('a');
    await settled();
    queue.add('a');
    await held.end('a', undefined, new Error('no'));
    expect(held.running()).toEqual(['a']);
  });

  it('drains: nothing new begins, and it resolves when what runs has ended', async () => {
    const held = heldWork();
    const queue = keyedQueue(2, held.work, noFailure);
    for (const key of ['a', 'b', 'c']) queue.add(key);
    queue.addLater('d', 10);
    await settled();
    let isDrained = false;
    const drained = queue.drain().then(() => {
      isDrained = true;
    });
    queue.add('e');
    queue.addLater('f', 10);
    await held.end('a', { afterMs: 10 });
    await vi.advanceTimersByTimeAsync(1000);
    expect(isDrained).toBe(false);
    await held.end('b');
    await drained;
    expect(held.began).toEqual(['a', 'b']);
    expect(vi.getTimerCount()).toBe(0);
    expect(queue.depth).toBe(0);
  });

  it('drains at once where nothing runs', async () => {
    const queue = keyedQueue(1, heldWork().work, noFailure);
    queue.addLater('a', 10);
    await queue.drain();
    expect(vi.getTimerCount()).toBe(0);
  });
});
