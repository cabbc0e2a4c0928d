import { beforeEach, describe, expect, it } from 'vitest';
import type { CudaCall } from '../../../agent/cuda/driver-errors.ts';
import { confirmRunning, type Revival, restoreAll, unlockAll } from '../../../agent/cuda/revival.ts';
import { FakeDriver, type Fault } from './fake-driver.ts';

let driver: FakeDriver;
let revival: Revival;
beforeEach(() => {
  driver = new FakeDriver();
  const processes = [10, 11].map((pid) => driver.add(pid, { state: 'checkpointed' }));
  revival = {
    calls: driver.calls,
    limits: { lockTimeoutMs: 100, callMs: 1_000, moveMs: 5_000, patienceMs: 400 },
    processes,
  };
});

const pairs = [
  { from: 'GPU-a', to: 'GPU-b' },
  { from: 'GPU-b', to: 'GPU-a' },
];
const once = (call: CudaCall, fault: Fault, pid = 10) => {
  let isOver = false;
  driver.faultAt = (asked, about) => {
    if (isOver || asked !== call || about !== pid) return undefined;
    isOver = true;
    return fault;
  };
};

describe('the CUDA processes of a restored tree', () => {
  it('are all restored, onto the GPUs that are told, before one goes on', async () => {
    await restoreAll(revival, pairs);
    expect(driver.pairs).toEqual(['GPU-a=GPU-b,GPU-b=GPU-a', 'GPU-a=GPU-b,GPU-b=GPU-a']);
    expect(driver.states()).toEqual({ 10: 'locked', 11: 'locked' });
    await unlockAll(revival);
    await confirmRunning(revival);
    expect(driver.states()).toEqual({ 10: 'running', 11: 'running' });
  });

  it.each<Fault>(['died', 'died-after'])('come back though a worker ends in the middle (%s)', async (fault) => {
    once('restore', fault);
    await restoreAll(revival, []);
    once('unlock', fault, 11);
    await unlockAll(revival);
    expect(driver.states()).toEqual({ 10: 'running', 11: 'running' });
  });

  it('are waited for where a restore goes on without its worker', async () => {
    let restores = 0;
    driver.faultAt = (call, pid) => {
      if (call !== 'restore' || pid !== 10) return undefined;
      restores += 1;
      if (restores === 1) setTimeout(() => driver.processes.set(10, { state: 'locked' }), 200);
      return restores === 1 ? 'died' : 'refused';
    };
    await restoreAll(revival, []);
    expect(driver.states()[10]).toBe('locked');
  });

  it('are waited for from the end of the worker on, however long one was waited for', async () => {
    const limits = { ...revival.limits, moveMs: 700 };
    let restores = 0;
    driver.before = async (call, pid) => {
      if (call === 'restore' && pid === 10 && restores === 0)
        await new Promise((done) => setTimeout(done, limits.moveMs + 100));
    };
    driver.faultAt = (call, pid) => {
      if (call !== 'restore' || pid !== 10) return undefined;
      restores += 1;
      if (restores === 1) setTimeout(() => driver.processes.set(10, { state: 'locked' }), 300);
      return restores === 1 ? 'died' : 'refused';
    };
    await restoreAll({ ...revival, limits }, []);
    expect(driver.states()[10]).toBe('locked');
  });

  it.each<Fault>(['refused', 'hung', 'undead'])('are not restored again after it was %s', async (fault) => {
    once('restore', fault);
    await expect(restoreAll(revival, [])).rejects.toMatchObject({ name: 'SnapshotError' });
    expect(driver.asked.filter((call) => call === 'restore 10')).toHaveLength(1);
    // The other one was not left in the middle.
    expect(driver.states()[11]).toBe('locked');
  });

  it('may run already where the driver refuses to unlock them', async () => {
    await restoreAll(revival, []);
    driver.processes.set(10, { state: 'running' });
    await unlockAll(revival);
    driver.processes.set(11, { state: 'checkpointed' });
    await expect(unlockAll(revival)).rejects.toMatchObject({ code: 'CUDA_FAILED' });
  });

  it('are seen to run, or it is said which does not', async () => {
    await restoreAll(revival, []);
    await expect(confirmRunning(revival)).rejects.toThrow(/process 1 \(worker, 10 on the host\) is locked/);
  });

  it('fail when workers are killed again and again', async () => {
    driver.faultAt = (call) => (call === 'restore' ? 'died' : undefined);
    await expect(restoreAll(revival, [])).rejects.toThrow('died in restore');
  });
});
