import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bringBack, type ComebackRequest } from '../../../agent/cuda/comeback.ts';
import { SnapshotError } from '../../../agent/errors.ts';
import { makeProcfs, type Procfs } from '../../fakes/procfs.ts';
import { FakeDriver, type Fault } from './fake-driver.ts';

let procfs: Procfs;
let driver: FakeDriver;
beforeEach(async () => {
  procfs = await makeProcfs([{ pid: 10 }]);
  driver = new FakeDriver();
});
afterEach(() => procfs.remove());

const limits = { lockTimeoutMs: 100, callMs: 1_000, moveMs: 300, patienceMs: 400 };
const back = (process: ReturnType<FakeDriver['add']>, over: Partial<ComebackRequest> = {}) =>
  bringBack({ calls: driver.calls, limits, procRoot: procfs.root, ...over }, process);

describe('the way back of a CUDA process', () => {
  it.each([
    ['running', ['state']],
    ['locked', ['state', 'unlock', 'state']],
    ['checkpointed', ['state', 'restore', 'state', 'unlock', 'state']],
  ] as const)('is as long as it must be from %s', async (state, calls) => {
    const process = driver.add(10, { state });
    expect(await back(process)).toMatchObject({ end: 'running', failure: undefined });
    expect(driver.asked).toEqual(calls.map((call) => `${call} 10`));
  });

  it('measures both of its parts', async () => {
    const { restoreSeconds, unlockSeconds } = await back(driver.add(10, { state: 'checkpointed' }));
    expect([restoreSeconds, unlockSeconds]).toEqual([0.01, 0.01]);
  });

  it.each<[string, Fault]>([
    ['died', 'died'],
    ['died when it was done', 'died-after'],
    ['hung and was done all the same', 'hung-after'],
  ])('goes on where a worker %s', async (_, fault) => {
    for (const call of ['restore', 'unlock', 'state'] as const) {
      let isFirst = true;
      driver.faultAt = (asked) => {
        if (asked !== call || !isFirst) return undefined;
        isFirst = false;
        return fault;
      };
      const process = driver.add(10, { state: 'checkpointed' });
      expect(await back(process), call).toMatchObject({ end: 'running' });
      expect(driver.states()).toEqual({ 10: 'running' });
    }
  });

  it.each<[string, () => void, string]>([
    [
      'the driver refuses',
      () => {
        driver.add(10, { state: 'checkpointed', unrestorable: 'CUDA_ERROR_INVALID_VALUE' });
      },
      'NCCL_P2P_DISABLE=1',
    ],
    [
      'hangs',
      () => {
        driver.faultAt = (call) => (call === 'restore' ? 'hung' : undefined);
      },
      'hung in restore',
    ],
  ])(
    'does not restore again what %s, tries to unlock it all the same, and says why it is lost',
    async (_, set, why) => {
      const process = driver.add(10, { state: 'checkpointed' });
      set();
      const comeback = await back(process);
      expect(comeback).toMatchObject({ end: 'lost' });
      expect(comeback.failure?.message).toContain(why);
      expect(driver.asked.filter((call) => call.startsWith('restore'))).toHaveLength(1);
      expect(driver.asked).toContain('unlock 10');
    },
  );

  it('gives a process up that the driver itself has given up', async () => {
    expect(await back(driver.add(10, { state: 'failed' }))).toMatchObject({ end: 'lost' });
  });

  it('has nothing to do for a process that ended, or that is another one by now', async () => {
    const process = driver.add(10, { state: 'locked' });
    await procfs.add({ pid: 10, start: 2000 });
    expect(await back(process)).toMatchObject({ end: 'gone' });
    await procfs.drop(10);
    expect(await back(process)).toMatchObject({ end: 'gone' });
    expect(driver.asked).toEqual([]);
  });

  it.each(['checkpointed', 'locked'] as const)(
    'leaves another process that got its PID meanwhile %s',
    async (state) => {
      const process = driver.add(10, { state });
      driver.before = async (call) => {
        if (call === 'state') await procfs.add({ pid: 10, start: 2000 });
      };
      expect(await back(process)).toMatchObject({ end: 'gone' });
      expect(driver.asked).toEqual(['state 10']);
      expect(driver.states()).toEqual({ 10: state });
    },
  );

  it('is not known where the driver cannot be asked', async () => {
    driver.faultAt = () => 'died';
    const began = performance.now();
    const comeback = await back(driver.add(10, { state: 'locked' }));
    expect(comeback).toMatchObject({ end: 'unknown', failure: { message: expect.stringContaining('died') } });
    expect(performance.now() - began).toBeGreaterThanOrEqual(limits.patienceMs);
  });

  it.each<[string, Fault | Error]>([
    ['no worker can be started', new SnapshotError('CAPABILITY_MISSING', 'no CUDA worker can be started')],
    ['every worker dies', 'died'],
    ['no worker answers', 'hung'],
  ])('goes on while %s, until one can be asked', async (_, fault) => {
    for (const silent of [['state', 'unlock'], ['state'], ['unlock']]) {
      const process = driver.add(10, { state: 'locked' });
      const heals = performance.now() + 500;
      const isDown = (call: string) => performance.now() < heals && silent.includes(call);
      driver.before = (call) => {
        if (fault instanceof Error && isDown(call)) throw fault;
      };
      driver.faultAt = (call) => (typeof fault === 'string' && isDown(call) ? fault : undefined);
      const comeback = await back(process, { limits: { ...limits, patienceMs: 30_000 } });
      expect(comeback, silent.join()).toMatchObject({ end: 'running', failure: undefined });
      expect(driver.states(), silent.join()).toEqual({ 10: 'running' });
    }
  });

  it('does not take a restore for refused for which no worker could be started', async () => {
    const process = driver.add(10, { state: 'checkpointed' });
    let restores = 0;
    driver.before = (call) => {
      if (call !== 'restore') return;
      restores += 1;
      if (restores === 1) throw new SnapshotError('CAPABILITY_MISSING', 'no CUDA worker can be started');
    };
    expect(await back(process)).toMatchObject({ end: 'running' });
  });

  it('of a restore waits from the end of its worker on, however long one was waited for', async () => {
    const process = driver.add(10, { state: 'checkpointed' });
    const moveMs = 600;
    let restores = 0;
    driver.before = async (call) => {
      if (call === 'restore' && restores === 0) await new Promise((done) => setTimeout(done, moveMs + 100));
    };
    driver.faultAt = (call) => {
      if (call !== 'restore') return undefined;
      restores += 1;
      if (restores === 1) setTimeout(() => driver.processes.set(10, { state: 'locked' }), 300);
      return restores === 1 ? 'died' : 'refused';
    };
    expect(await back(process, { limits: { ...limits, moveMs } })).toMatchObject({ end: 'running' });
  });

  it('is over at some time where every restore takes its worker along', async () => {
    driver.faultAt = (call) => (call === 'restore' ? 'died' : undefined);
    expect(await back(driver.add(10, { state: 'checkpointed' }))).toMatchObject({ end: 'lost' });
  });

  it('does not take a process for one that runs while nobody can tell whether a late lock came', async () => {
    const process = driver.add(10);
    let looks = 0;
    driver.faultAt = (call) => {
      if (call === 'state') looks += 1;
      return performance.now() < cutOff.lockUntilMs + 300 && looks > 1 ? 'died' : undefined;
    };
    const cutOff = { lockUntilMs: performance.now() + 300, busyUntilMs: 0 };
    setTimeout(() => driver.processes.set(10, { state: 'locked' }), 200);
    const comeback = await back(process, { cutOff, limits: { ...limits, patienceMs: 30_000 } });
    expect(comeback).toMatchObject({ end: 'running' });
    expect(driver.states()).toEqual({ 10: 'running' });
  });

  it('waits for a lock that was cut off, and takes it away when it comes', async () => {
    const process = driver.add(10);
    setTimeout(() => driver.processes.set(10, { state: 'locked' }), 120);
    const cutOff = { lockUntilMs: performance.now() + 2_000, busyUntilMs: 0 };
    expect(await back(process, { cutOff })).toMatchObject({ end: 'running' });
    expect(driver.states()).toEqual({ 10: 'running' });
    expect(driver.asked).toContain('unlock 10');
  });

  it('is patient with a driver that is still busy with a call that was cut off', async () => {
    const process = driver.add(10, { state: 'locked' });
    let isBusy = true;
    setTimeout(() => {
      isBusy = false;
      driver.processes.set(10, { state: 'checkpointed' });
    }, 400);
    driver.faultAt = (call) => (isBusy && call === 'unlock' ? 'refused' : undefined);
    const cutOff = { lockUntilMs: 0, busyUntilMs: performance.now() + 5_000 };
    expect(await back(process, { cutOff })).toMatchObject({ end: 'running' });
  });

  it('of a restore whose worker died waits for what the process does by itself', async () => {
    const process = driver.add(10, { state: 'checkpointed' });
    let restores = 0;
    driver.faultAt = (call) => {
      if (call !== 'restore') return undefined;
      restores += 1;
      if (restores === 1) setTimeout(() => driver.processes.set(10, { state: 'locked' }), 150);
      return restores === 1 ? 'died' : 'refused';
    };
    expect(await back(process, { limits: { ...limits, moveMs: 5_000 } })).toMatchObject({ end: 'running' });
    expect(restores).toBeGreaterThan(1);
  });
});
