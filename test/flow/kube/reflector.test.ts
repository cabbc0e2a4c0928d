import { describe, expect, it, vi } from 'vitest';
import { reflect } from '../../../kube/reflector.ts';
import { eventLine, type Fault, KIND } from './collection.ts';
import { useCollection } from './following.ts';
import { eventually, json, status } from './server.ts';

const { current, follow, followed, stage } = useCollection();

describe('the reflector lists', () => {
  it('all pages as of one moment, and watches from there, with both selectors', async () => {
    const { collection } = stage.server;
    for (const name of ['a', 'b', 'c', 'd', 'e']) collection.put(name, '1');
    collection.faults.list.push(
      () => 'pass',
      () => {
        collection.put('between', '1');
        return 'pass';
      },
    );
    const { synced, told, states } = await followed();
    expect(synced).toEqual([['a', 'b', 'c', 'd', 'e']]);
    await eventually(() => expect(told).toEqual(['ADDED between 1']));
    expect(states.slice(0, 2)).toEqual([{ kind: 'listed', count: 5 }, { kind: 'watching' }]);
    const asked = collection.calls.map(({ query }) => Object.fromEntries(query));
    const selectors = { labelSelector: 'app', fieldSelector: 'spec.nodeName=node-1' };
    expect(asked.slice(0, 3)).toEqual([
      { ...selectors, limit: '2' },
      { ...selectors, limit: '2', continue: '1005:2' },
      { ...selectors, limit: '2', continue: '1005:4' },
    ]);
    expect(asked[3]).toMatchObject({
      ...selectors,
      watch: 'true',
      resourceVersion: '1005',
      allowWatchBookmarks: 'true',
    });
  });

  it('again from the first page, with no token and no version, when the token expires between two pages', async () => {
    const { collection } = stage.server;
    for (const name of ['a', 'b', 'c']) collection.put(name, '1');
    collection.faults.list.push(
      () => 'pass',
      () => {
        collection.remove('a');
        collection.forget();
        return 'pass';
      },
    );
    const { synced, lost } = await followed();
    expect(lost()).toEqual(['gone']);
    expect(synced).toEqual([['b', 'c']]);
    const again = collection.calls[2]?.query;
    expect([again?.has('continue'), again?.has('resourceVersion')]).toEqual([false, false]);
  });

  it.each<[string, string, Fault]>([
    ['is not JSON', 'malformed', (response) => response.writeHead(200).end('<html>')],
    ['is no list', 'malformed', (response) => json(response, 200, { kind: 'Thing', metadata: {} })],
    ['has no resourceVersion', 'malformed', (response) => json(response, 200, { items: [] })],
    [
      'breaks off in the middle',
      'reset',
      (response) => response.writeHead(200).write('{"items":[', () => response.socket?.resetAndDestroy()),
    ],
    ['does not come', 'timeout', () => undefined],
    ['comes as redirection', 'malformed', (response) => response.writeHead(302, { location: '/' }).end()],
  ])('once more when the answer %s', async (_, reason, fault) => {
    stage.server.collection.put('a', '1');
    stage.server.collection.faults.list.push(fault);
    const { synced, lost } = await followed();
    expect(lost()).toEqual([reason]);
    expect(synced).toEqual([['a']]);
  });
});

describe('the reflector', () => {
  it('waits longer with each failure, and anew after a watch that was good', async () => {
    const draw = vi.spyOn(Math, 'random').mockReturnValue(1);
    try {
      const { waits } = await followed({ stableMs: 100, backoff: { minMs: 1, maxMs: 8 } });
      for (let losses = 1; losses <= 5; losses += 1) {
        await eventually(() => expect(stage.server.collection.watchCount).toBe(1));
        stage.server.collection.end();
        await eventually(() => expect(waits()).toHaveLength(losses));
      }
      expect(waits()).toEqual([1, 2, 4, 8, 8]);
      await eventually(() => expect(stage.server.collection.watchCount).toBe(1));
      await new Promise((resolve) => setTimeout(resolve, 150));
      stage.server.collection.end();
      await eventually(() => expect(waits().at(-1)).toBe(1));
    } finally {
      draw.mockRestore();
    }
  });

  it('puts characters together whose bytes come in two pieces', async () => {
    const { told } = await followed();
    const line = Buffer.from(
      eventLine({ type: 'ADDED', object: { metadata: { name: 'ü', resourceVersion: '2000' }, value: '✓' } }),
    );
    for (const byte of line) {
      stage.server.collection.send(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await eventually(() => expect(told).toEqual(['ADDED ü ✓']));
  });

  it('ends at once when it is told to, whatever it does', async () => {
    const hang: Fault = () => undefined;
    stage.server.collection.faults.list.push(hang);
    follow({ listTimeoutMs: 60_000 });
    await eventually(() => expect(stage.server.collection.count('list')).toBe(1));
    stage.stop.abort();
    await stage.running;

    stage.stop = new AbortController();
    await followed();
    stage.stop.abort();
    await stage.running;

    stage.stop = new AbortController();
    stage.server.collection.faults.list.push((response) => status(response, { code: 500 }, { 'retry-after': '50' }));
    const { lost } = follow();
    await eventually(() => expect(lost()).toHaveLength(1));
    stage.stop.abort();
    await stage.running;
    await eventually(() => expect(stage.server.collection.watchCount).toBe(0));
  });

  it('hands on what its consumer throws, as it is', async () => {
    const odd = Object.assign(new RangeError('odd thing'), { code: 'ECONNRESET' });
    const throwing = reflect(
      {
        client: stage.client,
        path: KIND,
        project: () => {
          throw odd;
        },
        onSync: () => undefined,
        onEvent: () => undefined,
      },
      stage.stop.signal,
    );
    await eventually(() => expect(stage.server.collection.watchCount).toBe(1));
    stage.server.collection.put('a', '1');
    await expect(throwing).rejects.toBe(odd);
  });

  it('knows what is there after a storm of failures, and was told of each change or shown the state after it', async () => {
    const { view, told, synced } = await followed();
    const { collection } = stage.server;
    const spoil = [
      () => collection.end(),
      () => collection.reset(),
      () => collection.forget(),
      () => collection.send('{"type":"ADD'),
      () => collection.send('\n\n'),
      () => collection.faults.watch.push((response) => status(response, { code: 503 })),
      () => collection.faults.list.push((response) => status(response, { code: 500 })),
      () => collection.faults.watch.push((response) => response.socket?.resetAndDestroy()),
    ];
    for (let change = 0; change < 400; change += 1) {
      const name = `thing-${change % 7}`;
      if (change % 11 === 10 && collection.things.has(name)) collection.remove(name);
      else collection.put(name, `${change}`);
      if (change % 3 === 0) spoil[(change / 3) % spoil.length]?.();
      await new Promise((resolve) => setTimeout(resolve, change % 5));
    }
    await eventually(() => expect(Object.fromEntries(view)).toEqual(current()));
    expect(told.length).toBeGreaterThan(50);
    expect(synced.length).toBeGreaterThan(2);
    // In order: what a later event says is never older than what an earlier one said.
    const values = told.filter((line) => !line.startsWith('DELETED')).map((line) => Number(line.split(' ')[2]));
    expect(values).toEqual([...values].sort((a, b) => a - b));
  });
});
