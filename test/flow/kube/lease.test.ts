import { describe, expect, it } from 'vitest';
import { foreign, LONG_AGO, PLACE, useLeases } from './lease-agents.ts';
import { status } from './server.ts';

const { stage, agent } = useLeases();

describe('a lease', () => {
  it('that is not there is made, with its owner', async () => {
    const owner = { apiVersion: 'batch/v1', kind: 'Job', name: 'job-1', uid: 'j' };
    const { acquire, events } = agent('a');
    expect((await acquire({ ...PLACE, owner })).result).toBe('held');
    expect(stage.server.desk.leases.get('job-1')).toMatchObject({
      metadata: { ownerReferences: [owner] },
      spec: { holderIdentity: 'a', leaseDurationSeconds: 1, leaseTransitions: 0 },
    });
    expect(events).toEqual([{ kind: 'acquired' }]);
  });

  it('of a holder that lives is busy for as long as it renews', async () => {
    await agent('a').hold();
    const b = agent('b');
    const endMs = performance.now() + 1_500;
    while (performance.now() < endMs) {
      const answer = await b.acquire();
      expect(answer).toMatchObject({ result: 'busy', holder: 'a' });
      await new Promise((resolve) => setTimeout(resolve, 10));
      if (answer.result === 'busy') expect(answer.freeInMs).toBeLessThanOrEqual(1_000);
    }
    expect(stage.server.desk.holder('job-1')).toBe('a');
  });

  it.each([
    ['long past', LONG_AGO],
    ['far ahead', '2090-01-01T00:00:00.000000Z'],
  ])('of a holder whose clock is %s is taken over after its whole duration without a sign of life', async (_, time) => {
    stage.server.desk.set('job-1', foreign(time));
    const { acquire, events } = agent('a');
    const sinceMs = performance.now();
    const first = await acquire();
    expect(first).toMatchObject({ result: 'busy', holder: 'other' });
    let answer = first;
    while (answer.result === 'busy') answer = await acquire();
    expect(performance.now() - sinceMs).toBeGreaterThanOrEqual(1_000);
    expect(stage.server.desk.leases.get('job-1')?.spec).toMatchObject({ holderIdentity: 'a', leaseTransitions: 5 });
    expect(events.at(-1)).toEqual({ kind: 'taken-over', from: 'other' });
  });

  it.each([
    ['renews', () => stage.server.desk.set('job-1', { ...foreign(), renewTime: '2020-01-01T00:00:00.000001Z' })],
    [
      'is made anew by the same holder',
      () => {
        stage.server.desk.leases.delete('job-1');
        stage.server.desk.set('job-1', foreign());
      },
    ],
  ])('is waited for anew when its holder %s', async (_, live) => {
    stage.server.desk.set('job-1', foreign());
    const { acquire } = agent('a');
    await acquire();
    await new Promise((resolve) => setTimeout(resolve, 1_050));
    live();
    expect((await acquire()).result).toBe('busy');
  });

  it('that somebody else only labelled is not waited for anew', async () => {
    stage.server.desk.set('job-1', foreign());
    const { acquire } = agent('a');
    await acquire();
    await new Promise((resolve) => setTimeout(resolve, 1_050));
    stage.server.desk.set('job-1', foreign(), { labels: { team: 'x' } });
    expect((await acquire()).result).toBe('held');
    expect(stage.server.desk.leases.get('job-1')?.metadata).toMatchObject({ labels: { team: 'x' } });
  });

  it.each([
    ['has no holder', foreign(LONG_AGO, '')],
    ['has no times', { holderIdentity: 'other', leaseDurationSeconds: 1 }],
    ['has no duration', { ...foreign(), leaseDurationSeconds: null }],
    ['has nothing', {}],
  ])('that %s is taken at once', async (_, spec) => {
    stage.server.desk.set('job-1', spec);
    expect((await agent('a').acquire()).result).toBe('held');
  });

  it('of ourselves, from before a restart, is ours again at once', async () => {
    stage.server.desk.set('job-1', foreign(LONG_AGO, 'a'));
    const { acquire, kinds } = agent('a');
    expect((await acquire()).result).toBe('held');
    expect(kinds()).toEqual(['resumed']);
    expect(stage.server.desk.leases.get('job-1')?.spec).toMatchObject({ acquireTime: LONG_AGO, leaseTransitions: 4 });
  });

  it('that many want has one holder', async () => {
    const agents = Array.from({ length: 8 }, (_, index) => agent(`agent-${index}`));
    const answers = await Promise.all(agents.map(({ acquire }) => acquire()));
    const holders = answers.flatMap(({ result }, index) => (result === 'held' ? [`agent-${index}`] : []));
    expect(holders).toEqual([stage.server.desk.holder('job-1')]);
    for (const answer of answers) if (answer.result === 'busy') expect(answer.holder).toBe(holders[0]);
  });

  it('that somebody else writes each time just before us is busy', async () => {
    stage.server.desk.set('job-1', {});
    stage.server.desk.fault = (call, response) =>
      call.startsWith('PUT') ? status(response, { code: 409, reason: 'Conflict' }) : 'pass';
    expect((await agent('a').acquire()).result).toBe('busy');
    expect(stage.server.desk.count('PUT job-1')).toBe(3);
  });

  it('is asked for a second time in vain by the process that has it, until it lets go', async () => {
    const { acquire, hold, kinds } = agent('a');
    const lease = await hold();
    const answer = await acquire();
    expect(answer).toMatchObject({ result: 'busy', holder: 'a' });
    if (answer.result === 'busy') expect(answer.freeInMs).toBeGreaterThan(0);
    await lease.release();
    expect(kinds()).toEqual(['acquired', 'busy', 'released']);
    expect((await acquire()).result).toBe('held');
  });

  it('is not had where the API does not answer, and can be asked for again', async () => {
    const { acquire } = agent('a');
    stage.server.desk.fault = (_, response) => status(response, { code: 503 });
    await expect(acquire()).rejects.toMatchObject({ name: 'KubeError', status: 503 });
    stage.server.desk.fault = undefined;
    expect((await acquire()).result).toBe('held');
  });

  it('is ours although the answer to the request that made it was lost', async () => {
    const { acquire, kinds } = agent('a');
    stage.server.desk.fault = (call, response) => {
      if (!call.startsWith('POST')) return 'pass';
      stage.server.desk.set('job-1', foreign(LONG_AGO, 'a'));
      return response.socket?.resetAndDestroy();
    };
    await expect(acquire()).rejects.toMatchObject({ reason: 'Reset' });
    stage.server.desk.fault = undefined;
    expect((await acquire()).result).toBe('held');
    expect(kinds()).toEqual(['resumed']);
  });
});
