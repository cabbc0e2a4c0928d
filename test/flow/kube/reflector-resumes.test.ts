import { describe, expect, it } from 'vitest';
import { errorEvent, eventLine, type Fault } from './collection.ts';
import { useCollection } from './following.ts';
import { eventually, status } from './server.ts';

const { current, followed, stage } = useCollection();

describe('the watch resumes where it was, without a list, after', () => {
  it('an end in time, which is no loss', async () => {
    const { told, lost } = await followed({ watchSeconds: 1 });
    for (const round of ['1', '2', '3']) {
      stage.server.collection.put('a', round);
      await eventually(() => expect(stage.server.collection.count('watch')).toBeGreaterThan(Number(round)));
    }
    await eventually(() => expect(told).toEqual(['ADDED a 1', 'MODIFIED a 2', 'MODIFIED a 3']));
    expect(lost()).toEqual([]);
    expect(stage.server.collection.count('list')).toBe(1);
  });

  it.each([
    ['an end long before its time', 'ended', () => stage.server.collection.end()],
    ['a reset', 'reset', () => stage.server.collection.reset()],
    [
      'a reset in the middle of an event',
      'reset',
      () => {
        stage.server.collection.send('{"type":"ADDED","object":{"metadata":{"name":"ha');
        setTimeout(() => stage.server.collection.reset(), 20);
      },
    ],
  ])('%s', async (_, reason, spoil) => {
    const { told, lost } = await followed();
    stage.server.collection.put('a', '1');
    await eventually(() => expect(told).toHaveLength(1));
    spoil();
    await eventually(() => expect(lost()).toEqual([reason]));
    stage.server.collection.put('a', '2');
    stage.server.collection.remove('a');
    await eventually(() => expect(told).toEqual(['ADDED a 1', 'MODIFIED a 2', 'DELETED a 2']));
    expect(stage.server.collection.count('list')).toBe(1);
  });

  it('a link that went dead without a word', async () => {
    const { told, lost } = await followed({ watchSeconds: 1 });
    stage.server.collection.put('a', '1');
    await eventually(() => expect(told).toHaveLength(1));
    stage.server.collection.mute();
    stage.server.collection.put('a', '2');
    await eventually(() => expect(told).toEqual(['ADDED a 1', 'MODIFIED a 2']));
    expect(lost()).toEqual(['timeout']);
    expect(stage.server.collection.count('list')).toBe(1);
  });

  it('a server that takes the connection, but never answers', async () => {
    stage.server.collection.faults.watch.push(() => undefined);
    const { lost } = await followed({ watchSeconds: 1 });
    expect(lost()).toEqual(['timeout']);
  });

  it('a reset past a bookmark, from the bookmark', async () => {
    const { states } = await followed();
    stage.server.collection.bookmark();
    stage.server.collection.bookmark();
    stage.server.collection.forget();
    await eventually(() => expect(states.at(-1)?.kind).toBe('contact'));
    stage.server.collection.reset();
    await eventually(() => expect(stage.server.collection.watchCount).toBe(1));
    expect(stage.server.collection.calls.at(-1)?.query.get('resourceVersion')).toBe(
      `${stage.server.collection.version}`,
    );
    expect(stage.server.collection.count('list')).toBe(1);
  });
});

describe('the reflector lists anew, and finds what it missed, after', () => {
  it.each([
    [
      'a version that is too old',
      'gone',
      () => {
        stage.server.collection.mute();
        stage.server.collection.put('b', '1');
        stage.server.collection.remove('a');
        stage.server.collection.forget();
        for (const socket of stage.server.sockets) socket.resetAndDestroy();
      },
    ],
    ['an event that says 410', 'gone', () => stage.server.collection.send(errorEvent(410, 'Expired', 'too old'))],
    [
      'an event that says 500',
      'server-error',
      () => stage.server.collection.send(errorEvent(500, 'InternalError', 'odd')),
    ],
    ['an event that says nothing', 'server-error', () => stage.server.collection.send('{"type":"ERROR"}\n')],
    ['a line that is not JSON', 'malformed', () => stage.server.collection.send('{"type":"ADDED",,}\n')],
    ['a line that is no object', 'malformed', () => stage.server.collection.send('null\n')],
    [
      'an event of an unknown type',
      'malformed',
      () => stage.server.collection.send(eventLine({ type: 'RENAMED', object: {} })),
    ],
    [
      'an event without a version',
      'malformed',
      () => stage.server.collection.send(eventLine({ type: 'ADDED', object: {} })),
    ],
    [
      'a stream that ends inside an event',
      'malformed',
      () => {
        stage.server.collection.send('{"type":"ADDED"');
        stage.server.collection.end();
      },
    ],
  ])('%s', async (_, reason, spoil) => {
    stage.server.collection.put('a', '1');
    const { view, synced, lost } = await followed();
    spoil();
    stage.server.collection.put('c', '1');
    await eventually(() => expect(synced).toHaveLength(2));
    await eventually(() => expect(Object.fromEntries(view)).toEqual(current()));
    expect(lost().at(-1)).toBe(reason);
  });

  it('a whole watch without a word: a server put back to an older state withholds events without an error', async () => {
    const { view, synced } = await followed({ watchSeconds: 5 });
    stage.server.collection.mute();
    stage.server.collection.put('a', '1');
    // The server keeps the stream open and ends it in time, as one does whose versions have not come that far.
    const dead = stage.server.collection.faults.watch;
    dead.push((response, request) => {
      response.writeHead(200).flushHeaders();
      const seconds = Number(new URL(request.url ?? '', 'http://server').searchParams.get('timeoutSeconds'));
      setTimeout(() => response.end(), seconds * 1_000);
    });
    for (const socket of stage.server.sockets) socket.resetAndDestroy();
    await eventually(() => expect(synced).toEqual([[], ['a']]));
    expect(Object.fromEntries(view)).toEqual({ a: '1' });
  });

  it('a server that goes on failing at the version that is resumed', async () => {
    const fail: Fault = (response) => status(response, { code: 500, message: 'strconv.ParseUint: invalid syntax' });
    stage.server.collection.faults.watch.push(fail, fail, fail, fail, fail);
    const { synced } = await followed();
    expect(synced).toHaveLength(2);
  });
});
