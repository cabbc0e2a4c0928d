import { describe, expect, it } from 'vitest';
import { foreign, LONG_AGO, useLeases } from './lease-agents.ts';
import { eventually, status } from './server.ts';

const { stage, agent } = useLeases();

describe('a lease that is held', () => {
  it('is renewed, with one request each time', async () => {
    await agent('a').hold();
    await eventually(() => expect(stage.server.desk.count('PUT job-1')).toBeGreaterThan(5));
    expect(stage.server.desk.count('GET job-1')).toBe(1);
  });

  it('is renewed past the writes of others that leave its holder', async () => {
    const lease = await agent('a').hold();
    const before = stage.server.desk.leases.get('job-1')?.spec ?? {};
    stage.server.desk.set('job-1', before, { labels: { team: 'x' } });
    await eventually(() => expect(stage.server.desk.leases.get('job-1')?.spec?.renewTime).not.toBe(before.renewTime));
    expect(stage.server.desk.leases.get('job-1')?.metadata).toMatchObject({ labels: { team: 'x' } });
    expect(lease.lost.aborted).toBe(false);
  });

  it.each([
    ['deleted', () => stage.server.desk.leases.delete('job-1'), 'recreated'],
    ['cleared of its holder', () => stage.server.desk.set('job-1', {}), undefined],
  ])('is ours again when it was %s', async (_, spoil, kind) => {
    const { hold, kinds } = agent('a');
    const lease = await hold();
    spoil();
    await eventually(() => expect(stage.server.desk.holder('job-1')).toBe('a'));
    if (kind !== undefined) await eventually(() => expect(kinds()).toContain(kind));
    expect(lease.lost.aborted).toBe(false);
  });

  it('is lost when another holder is in it, and then left alone', async () => {
    const { hold, events } = agent('a');
    const lease = await hold();
    stage.server.desk.set('job-1', foreign(LONG_AGO, 'thief'));
    await eventually(() => expect(lease.lost.aborted).toBe(true));
    expect(lease.lost.reason).toMatchObject({
      name: 'LeaseLostError',
      holder: 'thief',
      message: 'the lease demo/job-1 was taken over by thief',
    });
    expect(events.at(-1)).toEqual({ kind: 'lost', holder: 'thief' });
    await lease.release();
    expect(stage.server.desk.holder('job-1')).toBe('thief');
    expect(stage.server.desk.count('DELETE job-1')).toBe(0);
  });

  it.each<[string, () => unknown, () => unknown]>([
    ['is away', () => stage.server.away(), () => stage.server.back()],
    [
      'answers 503',
      () => {
        stage.server.desk.fault = (_, response) => status(response, { code: 503 });
      },
      () => {
        stage.server.desk.fault = undefined;
      },
    ],
    [
      'does not answer',
      () => {
        stage.server.desk.fault = () => undefined;
      },
      () => {
        stage.server.desk.fault = undefined;
      },
    ],
  ])('stays ours while the API %s, even past its duration', async (_, leave, come) => {
    const { hold, kinds } = agent('a');
    const lease = await hold();
    await leave();
    await eventually(() => expect(kinds()).toContain('overdue'));
    expect(kinds().filter((kind) => kind === 'overdue')).toHaveLength(1);
    const before = stage.server.desk.leases.get('job-1')?.spec?.renewTime;
    await come();
    await eventually(() => expect(stage.server.desk.leases.get('job-1')?.spec?.renewTime).not.toBe(before));
    expect(lease.lost.aborted).toBe(false);
  });

  it.each<[string, () => unknown]>([
    ['is away', () => stage.server.away()],
    [
      'does not answer',
      () => {
        stage.server.desk.fault = () => undefined;
      },
    ],
  ])('that is to be given up is lost while the API %s, before anybody else could have it', async (_, leave) => {
    const { hold, kinds } = agent('a', { giveUpMs: 600, timeoutMs: 5_000 });
    const other = agent('b');
    const lease = await hold();
    await other.acquire();
    await leave();
    await eventually(() => expect(lease.lost.aborted).toBe(true));
    expect(lease.lost.reason).toMatchObject({
      holder: '',
      message: 'the lease demo/job-1 could not be renewed in time',
    });
    expect(kinds().filter((kind) => kind === 'overdue')).toHaveLength(1);
    expect(stage.server.desk.holder('job-1')).toBe('a');
  });

  it('that is to be given up is not, as long as it is renewed, nor after its release', async () => {
    const lease = await agent('a', { giveUpMs: 200 }).hold();
    const renewals = async () => {
      const before = stage.server.desk.count('PUT job-1');
      await eventually(() => expect(stage.server.desk.count('PUT job-1')).toBeGreaterThan(before + 15));
    };
    await renewals();
    expect(lease.lost.aborted).toBe(false);
    await lease.release();
    await agent('b').hold();
    await renewals();
    expect(lease.lost.aborted).toBe(false);
  });

  it('is found stolen once the API is back', async () => {
    const lease = await agent('a').hold();
    await stage.server.away();
    stage.server.desk.set('job-1', foreign(LONG_AGO, 'thief'));
    expect(lease.lost.aborted).toBe(false);
    await stage.server.back();
    await eventually(() => expect(lease.lost.aborted).toBe(true));
  });

  it('is free at once for others when it is released', async () => {
    const a = agent('a');
    const lease = await a.hold();
    await lease.release();
    expect(stage.server.desk.leases.has('job-1')).toBe(false);
    expect(a.kinds()).toEqual(['acquired', 'released']);
    expect((await agent('b').acquire()).result).toBe('held');
    await lease.release();
    expect(stage.server.desk.holder('job-1')).toBe('b');
  });

  it('is deleted although somebody wrote it since, but not when it has become another holder’s', async () => {
    const quiet = { renewMs: 60_000 };
    const labelled = await agent('a', quiet).hold();
    stage.server.desk.set('job-1', stage.server.desk.leases.get('job-1')?.spec ?? {}, { labels: { team: 'x' } });
    await labelled.release();
    expect(stage.server.desk.leases.has('job-1')).toBe(false);

    const stolen = await agent('a', quiet).hold();
    stage.server.desk.set('job-1', foreign(LONG_AGO, 'thief'));
    await stolen.release();
    expect(stage.server.desk.holder('job-1')).toBe('thief');
  });

  it('that is gone already, is released', async () => {
    const { hold, kinds } = agent('a', { renewMs: 60_000 });
    const lease = await hold();
    stage.server.desk.leases.clear();
    await lease.release();
    expect(kinds()).toEqual(['acquired', 'released']);
  });

  it('is given up after a while when the API does not answer its release', async () => {
    const { hold, kinds } = agent('a', { renewMs: 60_000 });
    const lease = await hold();
    stage.server.desk.fault = () => undefined;
    await lease.release();
    expect(kinds()).toEqual(['acquired', 'release-failed']);
  });

  it('is given up after a while when somebody else writes it each time just before its release', async () => {
    const { hold, kinds } = agent('a', { renewMs: 60_000 });
    const lease = await hold();
    stage.server.desk.fault = (call, response) =>
      call.startsWith('DELETE') ? status(response, { code: 409, reason: 'Conflict' }) : 'pass';
    await lease.release();
    expect(kinds()).toEqual(['acquired', 'release-failed']);
  });

  it('stays in the cluster, and is renewed no more, when it is abandoned', async () => {
    const lease = await agent('a').hold();
    await lease.abandon();
    const puts = stage.server.desk.count('PUT job-1');
    expect(await agent('b').acquire()).toMatchObject({ result: 'busy', holder: 'a' });
    expect(stage.server.desk.count('PUT job-1')).toBe(puts);
    expect(lease.lost.aborted).toBe(false);
  });
});
