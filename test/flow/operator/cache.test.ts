import { describe, expect, it } from 'vitest';
import { LABELS } from '../../../contract/keys.ts';
import type { CacheChange } from '../../../operator/control/cache.ts';
import type { KubeObject } from '../../fakes/kube-api/resources.ts';
import { eventually } from '../kube/server.ts';
import { type CheckpointRead, useControl } from './stage.ts';

const { stage, cache, put, metric } = useControl();

/** What a cache tells of from now on: `+` came, `~` changed, `-` went, `=` was told again. */
function toldBy(following: ReturnType<typeof cache>) {
  const told: string[] = [];
  const mark = ({ now, before }: CacheChange<CheckpointRead>) => {
    if (now === undefined) return '-';
    if (before === undefined) return '+';
    return now === before ? '=' : '~';
  };
  following.subscribe((change) => told.push(`${mark(change)}${change.key}`));
  return told;
}
const keysOf = (following: ReturnType<typeof cache>) => [...following.all()].map(({ key }) => key).sort();
const label = (name: string, value: string) =>
  stage.api.patch('dynamocheckpoints', `demo/${name}`, { metadata: { labels: { [LABELS.checkpointId]: value } } });

describe('the cache', () => {
  it('has what is there, and tells of what comes, changes and goes', async () => {
    put('a');
    const following = cache();
    const told = toldBy(following);
    await following.synced(stage.stop.signal);
    expect(told).toEqual(['+demo/a']);
    expect(following.get('demo/a')?.value).toMatchObject({
      result: 'read',
      object: { spec: { identity: { dtype: 'bfloat16' } } },
    });
    put('b');
    label('a', 'x');
    stage.api.remove('dynamocheckpoints', 'demo/b');
    await eventually(() => expect(told).toEqual(['+demo/a', '+demo/b', '~demo/a', '-demo/b']));
    expect(keysOf(following)).toEqual(['demo/a']);
  });

  it('keeps an object that is malformed, with what is wrong with it', async () => {
    stage.api.put({ kind: 'DynamoCheckpoint', metadata: { name: 'bad', namespace: 'demo' }, spec: {} });
    const following = cache();
    await following.synced(stage.stop.signal);
    expect(following.get('demo/bad')).toMatchObject({
      meta: { name: 'bad' },
      value: { result: 'malformed', problem: expect.stringContaining('spec.identity: ') as string },
    });
  });

  it('finds objects by an index that follows every change', async () => {
    put('a', { team: 'x' });
    put('b', { team: 'x' });
    const following = cache({ indexes: { team: ({ meta }) => [meta.labels?.['team'] ?? ''] } });
    await following.synced(stage.stop.signal);
    const team = (name: string) => following.indexed('team', name).map(({ key }) => key);
    expect(team('x')).toEqual(['demo/a', 'demo/b']);
    stage.api.patch('dynamocheckpoints', 'demo/a', { metadata: { labels: { team: 'y' } } });
    stage.api.remove('dynamocheckpoints', 'demo/b');
    await eventually(() => expect(team('y')).toEqual(['demo/a']));
    await eventually(() => expect(team('x')).toEqual([]));
    expect(() => following.indexed('other', 'x')).toThrow('dynamocheckpoints have no index other');
  });

  it.each<[string, () => unknown]>([
    ['is reset', () => stage.api.watches.reset()],
    ['is torn in the middle of an event', () => stage.api.watches.tearNextEvent()],
    ['is too old (410)', () => stage.api.watches.fail()],
    [
      'cannot be resumed',
      () => {
        stage.api.compact();
        stage.api.watches.reset();
      },
    ],
    [
      'is away for a while',
      async () => {
        await stage.api.goAway();
        await stage.api.comeBack({ forbiddenCalls: 2 });
      },
    ],
  ])('loses nothing when its watch %s, and tells of all once more', async (_, lose) => {
    put('a');
    put('b');
    const following = cache();
    await following.synced(stage.stop.signal);
    await eventually(() => expect(stage.api.calls({ verb: 'watch' })).toHaveLength(1));
    const told = toldBy(following);
    await lose();
    label('a', 'x');
    stage.api.remove('dynamocheckpoints', 'demo/b');
    put('c');
    await eventually(() => expect(keysOf(following)).toEqual(['demo/a', 'demo/c']));
    await eventually(() => expect(following.get('demo/a')?.meta.labels).toEqual({ [LABELS.checkpointId]: 'x' }));
    await eventually(() => expect(told.filter((change) => change.startsWith('='))).not.toEqual([]));
    expect(told.filter((change) => change === '-demo/b')).toHaveLength(1);
    expect(await metric('watch_lost_total', { resource: 'dynamocheckpoints' })).toBeGreaterThan(0);
  });

  it('tells of all again and again, for what was missed', async () => {
    put('a');
    const following = cache({ resyncMs: 10 });
    const told = toldBy(following);
    await eventually(() => expect(told.filter((change) => change === '=demo/a').length).toBeGreaterThan(2));
    expect(stage.api.calls({ verb: 'list' })).toHaveLength(1);
  });

  it('does not wait for its first list beyond the signal', async () => {
    stage.api.fault({ verb: 'list' }, { kind: 'silent', at: 'request' });
    const following = cache();
    const stop = new AbortController();
    const waiting = following.synced(stop.signal);
    stop.abort();
    await waiting;
    expect(keysOf(following)).toEqual([]);
  });

  describe('remembers a write', () => {
    const write = (value: string): KubeObject => label('a', value);

    it('before the watch tells of it, and tells of it once', async () => {
      put('a');
      const following = cache();
      await following.synced(stage.stop.signal);
      await eventually(() => expect(stage.api.calls({ verb: 'watch' })).toHaveLength(1));
      const told = toldBy(following);
      const base = following.get('demo/a')?.meta;
      const answer = write('x');
      following.remember(base ?? { uid: '', resourceVersion: '' }, answer);
      expect(following.get('demo/a')?.meta.resourceVersion).toBe(answer.metadata.resourceVersion);
      put('b');
      await eventually(() => expect(told).toEqual(['~demo/a', '+demo/b']));
    });

    it('only where it has the version that was written from', async () => {
      put('a');
      const following = cache();
      await following.synced(stage.stop.signal);
      const base = following.get('demo/a')?.meta ?? { uid: '', resourceVersion: '' };
      const old = write('x');
      write('y');
      await eventually(() => expect(following.get('demo/a')?.meta.labels).toEqual({ [LABELS.checkpointId]: 'y' }));
      following.remember(base, old);
      following.remember({ ...base, uid: 'another' }, old);
      following.remember(base, 'nonsense');
      expect(following.get('demo/a')?.meta.labels).toEqual({ [LABELS.checkpointId]: 'y' });
    });
  });
});
