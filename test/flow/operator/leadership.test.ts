import { describe, expect, it } from 'vitest';
import { type LeadershipTimings, lead } from '../../../operator/control/leadership.ts';
import { eventually } from '../kube/server.ts';
import { useControl } from './stage.ts';

const { stage, metric } = useControl();
const PLACE = { namespace: 'system', name: 'snapshot-operator' };
const KEY = 'system/snapshot-operator';
const FAST = { durationSeconds: 1, renewMs: 20, timeoutMs: 2_000, giveUpMs: 500, retryMs: 10, endMs: 10_000 };

/** A process of the operator, whose work lasts until its signal aborts. */
function process(holder: string, timings: Partial<LeadershipTimings> = {}, ends = true) {
  const stop = new AbortController();
  const seen = { leads: false, hasEnded: false, error: undefined as unknown };
  const work = (signal: AbortSignal) =>
    new Promise<void>((resolve, reject) => {
      seen.leads = true;
      const end = () => {
        seen.leads = false;
        if (ends) reject(signal.reason as Error);
      };
      signal.addEventListener('abort', stop.signal.aborted ? () => resolve() : end);
      stop.signal.addEventListener('abort', () => resolve());
    });
  const { client, log, metrics } = stage;
  const running = lead(
    { client, place: PLACE, holder, log: log.log, metrics, timings: { ...FAST, ...timings } },
    work,
    stop.signal,
  ).then(
    () => {
      seen.hasEnded = true;
    },
    (error: unknown) => {
      [seen.hasEnded, seen.error] = [true, error];
    },
  );
  stage.running.push(running);
  const end = () => {
    stop.abort();
    return running;
  };
  stage.stop.signal.addEventListener('abort', () => stop.abort());
  return { seen, end };
}
const holder = () => stage.api.get('leases', KEY)?.spec?.['holderIdentity'];

describe('the leadership', () => {
  it('is one process’s, and the next one’s at once when that ends', async () => {
    const a = process('a');
    await eventually(() => expect(a.seen.leads).toBe(true));
    const b = process('b');
    await eventually(() => expect(stage.log.said('another process leads')).toHaveLength(1));
    expect([holder(), b.seen.leads, await metric('leader')]).toEqual(['a', false, 1]);
    await a.end();
    await eventually(() => expect(b.seen.leads).toBe(true));
    expect([a.seen.error, holder()]).toEqual([undefined, 'b']);
    await b.end();
    expect(stage.api.get('leases', KEY)).toBeUndefined();
    expect(await metric('leader')).toBe(0);
  });

  it('is given up before anybody else can have it, when the API does not take renewals', async () => {
    const a = process('a');
    await eventually(() => expect(a.seen.leads).toBe(true));
    const b = process('b');
    await eventually(() => expect(stage.log.said('another process leads')).toHaveLength(1));
    let wereTwo = false;
    stage.api.onChange('leases', () => {
      wereTwo ||= holder() === 'b' && a.seen.leads;
    });
    stage.api.fault(
      { verb: 'update', where: ({ body }) => JSON.stringify(body).includes('"holderIdentity":"a"') },
      { kind: 'silent', at: 'request' },
    );
    await eventually(() => expect(a.seen.hasEnded).toBe(true));
    expect(a.seen.error).toMatchObject({
      name: 'LeadershipLostError',
      message: 'leadership is lost: the lease system/snapshot-operator could not be renewed in time',
    });
    expect(stage.log.said('this process leads no more, and ends')).toHaveLength(1);
    await eventually(() => expect(b.seen.leads).toBe(true));
    expect([wereTwo, holder()]).toEqual([false, 'b']);
  });

  it('that another process took, ends the work at once, and the lease stays that one’s', async () => {
    const a = process('a');
    await eventually(() => expect(a.seen.leads).toBe(true));
    stage.api.patch('leases', KEY, { spec: { holderIdentity: 'thief' } });
    await eventually(() => expect(a.seen.hasEnded).toBe(true));
    expect(a.seen.error).toMatchObject({ message: expect.stringContaining('taken over by thief') as string });
    expect([a.seen.leads, holder()]).toEqual([false, 'thief']);
  });

  it('is said to be lost although the work does not end', async () => {
    const a = process('a', { endMs: 20 }, false);
    await eventually(() => expect(a.seen.leads).toBe(true));
    stage.api.patch('leases', KEY, { spec: { holderIdentity: 'thief' } });
    await eventually(() => expect(a.seen.error).toMatchObject({ name: 'LeadershipLostError' }));
  });

  it('is waited for while the API is away, and not beyond the signal', async () => {
    await stage.api.goAway();
    const [a, b] = [process('a'), process('b')];
    const said = () => stage.log.said('the lease of the leader cannot be asked for').length;
    await eventually(() => expect(said()).toBeGreaterThan(3));
    await b.end();
    expect(b.seen).toMatchObject({ hasEnded: true, error: undefined });
    await stage.api.comeBack({ forbiddenCalls: 2 });
    await eventually(() => expect(a.seen.leads).toBe(true));
  });

  it('ends with the work: what it throws is thrown on, and the lease is free', async () => {
    const { client, log, metrics } = stage;
    const options = { client, place: PLACE, holder: 'a', log: log.log, metrics, timings: FAST };
    const failing = () => Promise.reject(new Error('no such kind'));
    await expect(lead(options, failing, stage.stop.signal)).rejects.toThrow('no such kind');
    expect(stage.api.get('leases', KEY)).toBeUndefined();
    await lead(options, () => Promise.resolve(), stage.stop.signal);
    expect(stage.api.get('leases', KEY)).toBeUndefined();
  });
});
