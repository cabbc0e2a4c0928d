import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cutText, eventName, eventObject } from '../../../kube/event-object.ts';
import { newEventQueue } from '../../../kube/event-queue.ts';

const POD = { apiVersion: 'v1', kind: 'Pod', namespace: 'demo', name: 'web-1', uid: 'u' };
const note = (reason: string, message = 'm') => ({ about: POD, type: 'Normal', reason, message }) as const;

describe('the text of an Event', () => {
  it('is cut to its bytes between two characters, with an ellipsis', () => {
    expect(cutText('abcdef', 6)).toBe('abcdef');
    expect(cutText('abcdefg', 6)).toBe('abc…');
    expect(cutText('aaüüüü', 8)).toBe('aaü…');
    expect(cutText('a€€€', 9)).toBe('a€…');
  });

  it('is well-formed and within its bytes, whatever it was', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 60 }), fc.integer({ min: 3, max: 60 }), (text, maxBytes) => {
        const cut = cutText(text, maxBytes);
        expect(Buffer.byteLength(cut)).toBeLessThanOrEqual(maxBytes);
        if (cut.endsWith('…') && cut !== text) expect(text.startsWith(cut.slice(0, -1))).toBe(true);
        else expect(cut).toBe(text);
      }),
    );
  });

  it('is cut in the object to 1024 bytes', () => {
    const counted = { name: 'n', note: note('R', 'ü'.repeat(600)), count: 1, firstMs: 0, lastMs: 61_999 };
    const event = eventObject(counted, { component: 'snapshot' });
    expect(Buffer.byteLength(event.message)).toBe(1_023);
    expect([event.firstTimestamp, event.lastTimestamp]).toEqual(['1970-01-01T00:00:00Z', '1970-01-01T00:01:01Z']);
  });
});

describe('the name of an Event', () => {
  it('is another one each time, and one that the API takes', () => {
    const names = ['web-1', 'w'.repeat(253), `${'w'.repeat(235)}.-.${'w'.repeat(15)}`].flatMap((name) => [
      eventName({ about: { ...POD, name } }),
      eventName({ about: { ...POD, name } }),
    ]);
    expect(new Set(names).size).toBe(6);
    for (const name of names) {
      expect(name.length).toBeLessThanOrEqual(253);
      expect(name).toMatch(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/);
    }
  });
});

describe('the name of an Event that is said once', () => {
  const once = (word: string, about: object = {}) => eventName({ about: { ...POD, ...about }, once: word });

  it('is the same for the same word about the same object, and another for any other', () => {
    expect(once('a')).toBe(once('a'));
    const names = [once('a'), once('b'), once('a', { uid: 'of a later pod' }), once('a', { name: 'web-2' })];
    expect(new Set(names).size).toBe(names.length);
    expect(once('a')).toMatch(/^web-1-[0-9a-f]{16}$/);
  });
});

describe('the queue of Events', () => {
  it('counts what says the same with the one that waits, and gives the oldest first', () => {
    const queue = newEventQueue(10);
    for (const reason of ['A', 'B', 'A']) queue.add(note(reason));
    expect(queue.take()).toMatchObject({ note: { reason: 'A' }, count: 2 });
    queue.add(note('A'));
    expect(queue.take()).toMatchObject({ note: { reason: 'B' }, count: 1 });
    expect(queue.take()).toMatchObject({ note: { reason: 'A' }, count: 1 });
    expect(queue.take()).toBeUndefined();
  });

  it('lets the oldest go when there are too many', () => {
    const queue = newEventQueue(2);
    expect([queue.add(note('A')), queue.add(note('B')), queue.add(note('B'))]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(queue.add(note('C'))).toMatchObject({ note: { reason: 'A' } });
  });

  it('takes one back as first or last, under its name', () => {
    const queue = newEventQueue(10);
    for (const reason of ['A', 'B', 'C']) queue.add(note(reason));
    const [a, b] = [queue.take(), queue.take()];
    if (a === undefined || b === undefined) throw new Error('two were taken');
    queue.putBack(a, 'last');
    queue.putBack(b, 'first');
    expect([queue.take(), queue.take()?.note.reason, queue.take()]).toEqual([b, 'C', a]);
  });

  it('says when there is one, or that nobody waits any more', async () => {
    const queue = newEventQueue(10);
    const stop = new AbortController();
    const first = queue.filled(stop.signal);
    queue.add(note('A'));
    await first;
    await queue.filled(stop.signal);
    queue.take();
    const never = queue.filled(stop.signal);
    stop.abort();
    await never;
    await queue.filled(stop.signal);
  });
});
