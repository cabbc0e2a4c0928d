import { describe, expect, it } from 'vitest';
import { KubeError } from '../../../kube/error.ts';
import type { Again } from '../../../kube/queue.ts';
import { type ControllerOptions, runController, sourceOf } from '../../../operator/control/controller.ts';
import { eventually } from '../kube/server.ts';
import { useControl } from './stage.ts';

const { stage, run, cache, put, metric } = useControl();

/** A controller that only notes what it looks at, unless the test says more. */
function controlled(
  reconcile: (key: string, signal: AbortSignal) => Promise<Again> = async () => undefined,
  more: Partial<ControllerOptions> = {},
) {
  const looks: string[] = [];
  const options: ControllerOptions = {
    ...{ name: 'test', parallel: 2, sources: [sourceOf(cache())], backoff: { minMs: 1, maxMs: 5 } },
    ...{ log: stage.log.log, metrics: stage.metrics },
    reconcile: (key, signal) => {
      looks.push(key);
      return reconcile(key, signal);
    },
    ...more,
  };
  run((signal) => runController(options, signal));
  return looks;
}
const touch = (name: string) =>
  stage.api.patch('dynamocheckpoints', `demo/${name}`, { metadata: { annotations: { at: String(Math.random()) } } });

describe('a controller', () => {
  it('looks at every object once, then at what changes or goes, and is quiet between', async () => {
    put('a');
    put('b');
    const looks = controlled();
    await eventually(() => expect(looks).toEqual(['demo/a', 'demo/b']));
    touch('b');
    await eventually(() => expect(looks).toEqual(['demo/a', 'demo/b', 'demo/b']));
    stage.api.remove('dynamocheckpoints', 'demo/a');
    await eventually(() => expect(looks.slice(3)).toEqual(['demo/a']));
    expect(await metric('reconciles_total', { controller: 'test', result: 'done' })).toBe(4);
    expect(await metric('queue_depth', { controller: 'test' })).toBe(0);
  });

  it('begins only when all its sources are known', async () => {
    const gate = stage.api.gate({ verb: 'list' }, 'answer');
    put('a');
    const looks = controlled();
    const held = await gate.next();
    expect(looks).toEqual([]);
    held.release();
    await eventually(() => expect(looks).toEqual(['demo/a']));
  });

  it('looks once at a time at a key, at no more keys at once than it may, and once more after changes', async () => {
    const open: (() => void)[] = [];
    let [running, most] = [0, 0];
    const held = async () => {
      running += 1;
      most = Math.max(most, running);
      await new Promise<void>((resolve) => open.push(resolve));
      running -= 1;
      return undefined;
    };
    for (const name of ['a', 'b', 'c']) put(name);
    const following = cache();
    const looks = controlled(held, { sources: [sourceOf(following)] });
    await eventually(() => expect(looks).toEqual(['demo/a', 'demo/b']));
    const { resourceVersion } = [touch('a'), touch('a'), touch('a')].at(-1)?.metadata ?? {};
    await eventually(() => expect(following.get('demo/a')?.meta.resourceVersion).toBe(resourceVersion));
    expect(looks).toHaveLength(2);
    open[0]?.();
    await eventually(() => expect(looks.slice(2)).toEqual(['demo/c']));
    open[1]?.();
    await eventually(() => expect(looks.slice(3)).toEqual(['demo/a']));
    for (const end of open) end();
    await eventually(() => expect(running).toBe(0));
    expect(most).toBe(2);
    expect(looks).toHaveLength(4);
  });

  it('tries again what failed, later and later, says so, and forgets it after a success', async () => {
    put('a');
    let left = 4;
    const looks = controlled(async () => {
      left -= 1;
      if (left > 0) throw new Error('not yet');
      return undefined;
    });
    await eventually(() => expect(looks).toHaveLength(4));
    const said = stage.log.said('the object could not be reconciled');
    expect(said.map(({ key, failures }) => [key, failures])).toEqual([1, 2, 3].map((count) => ['demo/a', count]));
    left = 2;
    touch('a');
    await eventually(() => expect(looks).toHaveLength(6));
    expect(stage.log.said('the object could not be reconciled').at(-1)).toMatchObject({ failures: 1 });
    expect(await metric('reconciles_total', { result: 'failed' })).toBe(4);
  });

  it('waits as long as the server asks, but not when the object changes', async () => {
    put('a');
    let hasFailed = false;
    const looks = controlled(async () => {
      if (hasFailed) return undefined;
      hasFailed = true;
      throw new KubeError('busy', { status: 429, retryAfterMs: 30_000 });
    });
    await eventually(() => expect(stage.log.said('the object could not be reconciled')).toHaveLength(1));
    const [said] = stage.log.said('the object could not be reconciled');
    expect(said?.['retryInMs']).toBeGreaterThanOrEqual(30_000);
    touch('a');
    await eventually(() => expect(looks).toHaveLength(2));
  });

  it('counts a conflict as what it is: no word at the level of warnings', async () => {
    put('a');
    let left = 2;
    const looks = controlled(async () => {
      left -= 1;
      if (left > 0) throw new KubeError('newer', { status: 409, reason: 'Conflict' });
      return undefined;
    });
    await eventually(() => expect(looks).toHaveLength(2));
    expect(stage.log.lines.filter(({ level }) => level >= 40)).toEqual([]);
    expect(await metric('reconciles_total', { result: 'conflict' })).toBe(1);
  });

  it('says once a minute that an object loses against other writers again and again', async () => {
    put('a');
    let left = 12;
    const looks = controlled(async () => {
      left -= 1;
      if (left > 0) throw new KubeError('newer', { status: 409, reason: 'Conflict' });
      return undefined;
    });
    await eventually(() => expect(looks).toHaveLength(12));
    expect(stage.log.lines.filter(({ level }) => level >= 40)).toMatchObject([{ key: 'demo/a', conflicts: 5 }]);
  });

  it('looks again after the time that a look asks for', async () => {
    put('a');
    let left = 3;
    const looks = controlled(async () => {
      left -= 1;
      return left > 0 ? { afterMs: 5 } : undefined;
    });
    await eventually(() => expect(looks).toHaveLength(3));
    expect(await metric('reconciles_total', { result: 'again' })).toBe(2);
  });

  it('ends a look that takes too long, and tries again', async () => {
    put('a');
    let isFirst = true;
    const hang = (signal: AbortSignal) =>
      new Promise<Again>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)));
    const looks = controlled(
      async (_, signal) => {
        if (!isFirst) return undefined;
        isFirst = false;
        return hang(signal);
      },
      { deadlineMs: 20 },
    );
    await eventually(() => expect(looks).toHaveLength(2));
    const [said] = stage.log.said('the object could not be reconciled');
    expect(said?.['err']).toMatchObject({ message: 'test demo/a: not done after 20 ms' });
  });

  it('ends with its signal: the looks that run are told and waited for, and no other begins', async () => {
    put('a');
    put('b');
    const stop = new AbortController();
    let end = (): void => undefined;
    const signals: AbortSignal[] = [];
    const looks: string[] = [];
    const controller = runController(
      {
        ...{ name: 'test', parallel: 1, sources: [sourceOf(cache())], log: stage.log.log, metrics: stage.metrics },
        reconcile: async (key, signal) => {
          looks.push(key);
          signals.push(signal);
          await new Promise<void>((resolve) => (end = resolve));
          throw new Error('cut off');
        },
      },
      stop.signal,
    );
    await eventually(() => expect(looks).toEqual(['demo/a']));
    let hasEnded = false;
    void controller.then(() => (hasEnded = true));
    stop.abort();
    touch('a');
    await stage.client.request({ method: 'GET', path: '/readyz' }).catch(() => undefined);
    expect([hasEnded, signals[0]?.aborted]).toEqual([false, true]);
    end();
    await controller;
    expect(looks).toEqual(['demo/a']);
    expect(stage.log.said('the object could not be reconciled')).toEqual([]);
  });

  it('looks at what an object leads to, and at what it led to before', async () => {
    put('a', { owner: 'x' });
    const looks: string[] = [];
    const owners = sourceOf(cache(), ({ meta }) => (meta.labels?.['owner'] ? [`demo/${meta.labels['owner']}`] : []));
    run((signal) =>
      runController(
        {
          ...{ name: 'owners', parallel: 1, sources: [owners], log: stage.log.log, metrics: stage.metrics },
          reconcile: async (key) => {
            looks.push(key);
            return undefined;
          },
        },
        signal,
      ),
    );
    await eventually(() => expect(looks).toEqual(['demo/x']));
    stage.api.patch('dynamocheckpoints', 'demo/a', { metadata: { labels: { owner: 'y' } } });
    await eventually(() => expect(looks.slice(1).sort()).toEqual(['demo/x', 'demo/y']));
  });
});
