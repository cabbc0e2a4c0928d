import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { gpuUsers } from '../../../agent/container/gpu-users.ts';
import { readTree } from '../../../agent/container/tree.ts';
import type { CudaProcess, CudaState } from '../../../agent/cuda/calls.ts';
import type { CudaCall } from '../../../agent/cuda/driver-errors.ts';
import { CudaHold } from '../../../agent/cuda/hold.ts';
import type { CudaLimits } from '../../../agent/cuda/limits.ts';
import { usageOf } from '../../../agent/cuda/usage.ts';
import { makeProcfs, type Procfs, type FakeProcess as ShownProcess } from '../../fakes/procfs.ts';
import { FakeDriver, type Fault } from './fake-driver.ts';

let procfs: Procfs;
let driver: FakeDriver;
let noted: number[][];
let limits: CudaLimits;
beforeEach(async () => {
  procfs = await makeProcfs();
  driver = new FakeDriver();
  noted = [];
  limits = LIMITS;
});
afterEach(() => procfs.remove());

const LIMITS = { lockTimeoutMs: 50, callMs: 1_000, moveMs: 200, patienceMs: 400 };
const never = new AbortController().signal;
const DEVICE = '7f0000000000-7f0000001000 rw-s 00000000 00:06 5    /dev/nvidia0\n';

const show = (pid: number, over: Partial<ShownProcess> = {}) =>
  procfs.add({ pid, nspid: [pid, pid - 9], files: { maps: DEVICE }, ...over });
/** Once checkpointed, a process has no device any more. */
const clear = (pid: number) => procfs.write(`${pid}/maps`, '');

/** A tree of CUDA processes below process 10, and the hold on it. */
async function tree(...pids: number[]) {
  const processes = pids.map((pid) => driver.add(pid, { bytes: pid * 1_000 }));
  await show(10, { children: pids.filter((pid) => pid !== 10) });
  for (const pid of pids.filter((one) => one !== 10)) await show(pid);
  driver.before = async (call, pid) => {
    if (call === 'checkpoint') await clear(pid);
  };
  return { processes, hold: holdOf() };
}

function holdOf(): CudaHold {
  return new CudaHold({
    calls: driver.calls,
    procRoot: procfs.root,
    limits: () => limits,
    measure: async (processes) => usageOf(await driver.calls.usage(1_000), processes, []).usage,
    users: async () => gpuUsers(procfs.root, await readTree(procfs.root, 10)),
    beforeLock: async (processes: readonly CudaProcess[]) => {
      noted.push(processes.map(({ id }) => id.pid));
    },
  });
}

const order = (call: string) => driver.asked.filter((one) => one.startsWith(call));

describe('a hold on CUDA processes', () => {
  it('locks all before it checkpoints one, and lets all go on', async () => {
    const { processes, hold } = await tree(10, 11, 12);
    await hold.lock(processes, never);
    expect(driver.states()).toEqual({ 10: 'locked', 11: 'locked', 12: 'locked' });
    expect(hold.usage).toEqual([10, 11, 12].map((pid) => ({ pid, gpu: 'GPU-0', bytes: pid * 1_000 })));
    await hold.checkpoint(never);
    expect(driver.states()).toEqual({ 10: 'checkpointed', 11: 'checkpointed', 12: 'checkpointed' });
    const release = await hold.release();
    expect(driver.states()).toEqual({ 10: 'running', 11: 'running', 12: 'running' });
    expect(release.comebacks.map(({ end }) => end)).toEqual(['running', 'running', 'running']);
    expect(release).toMatchObject({ restoreSeconds: 0.01, unlockSeconds: 0.01, pauseSeconds: expect.any(Number) });
    expect(noted).toEqual([[10, 11, 12]]);
  });

  it('is let go of once, however often that is asked for', async () => {
    const { processes, hold } = await tree(10);
    await hold.lock(processes, never);
    const first = await hold.release();
    const asked = driver.asked.length;
    expect(await hold.release()).toBe(first);
    expect(hold.released).toBe(first);
    expect(driver.asked).toHaveLength(asked);
  });

  it('calls for all at once: one that takes long holds up no other', async () => {
    const { processes, hold } = await tree(10, 11);
    let go: () => void = () => undefined;
    const stuck = new Promise<void>((resolve) => {
      go = resolve;
    });
    await hold.lock(processes, never);
    const clearing = driver.before;
    driver.before = async (call, pid) => {
      await clearing(call, pid);
      if (call === 'checkpoint' && pid === 10) await stuck;
    };
    const work = hold.checkpoint(never);
    while (driver.states()[11] !== 'checkpointed') await new Promise((done) => setTimeout(done, 5));
    expect(driver.states()[10]).toBe('locked');
    go();
    await work;
  });

  it('takes in CUDA processes that begin while others are locked, and notes them first', async () => {
    const { processes, hold } = await tree(10);
    const clearing = driver.before;
    driver.before = async (call, pid) => {
      await clearing(call, pid);
      if (call !== 'lock' || pid !== 10) return;
      driver.add(11);
      await show(10, { children: [11] });
      await show(11);
    };
    await hold.lock(processes, never);
    expect(driver.states()).toEqual({ 10: 'locked', 11: 'locked' });
    expect(noted).toEqual([[10], [10, 11]]);
    await hold.checkpoint(never);
    await hold.release();
    expect(driver.states()).toEqual({ 10: 'running', 11: 'running' });
  });

  it('takes in those that begin while others are checkpointed', async () => {
    const { processes, hold } = await tree(10);
    await hold.lock(processes, never);
    const clearing = driver.before;
    driver.before = async (call, pid) => {
      await clearing(call, pid);
      if (call !== 'checkpoint' || pid !== 10) return;
      driver.add(11);
      await procfs.write('10/task/10/children', '11 ');
      await show(11);
    };
    await hold.checkpoint(never);
    expect(driver.states()).toEqual({ 10: 'checkpointed', 11: 'checkpointed' });
    expect(noted.at(-1)).toEqual([10, 11]);
  });

  it('gives up where they begin one after the other without end', async () => {
    const { processes, hold } = await tree(10);
    driver.before = async (call, pid) => {
      if (call !== 'lock') return;
      driver.add(pid + 1);
      await procfs.write(`${pid}/task/${pid}/children`, `${pid + 1} `);
      await show(pid + 1);
    };
    await expect(hold.lock(processes, never)).rejects.toMatchObject({ code: 'CUDA_BUSY' });
    await hold.release();
    expect(new Set(Object.values(driver.states()))).toEqual(new Set(['running']));
  });

  it('lets go of a process that ended by itself', async () => {
    const { processes, hold } = await tree(10, 11);
    driver.before = async (call, pid) => {
      if (call !== 'lock' || pid !== 11) return;
      driver.processes.delete(11);
      await procfs.drop(11);
    };
    await hold.lock(processes, never);
    expect(hold.processes.map(({ id }) => id.pid)).toEqual([10]);
    expect((await hold.release()).comebacks).toHaveLength(1);
  });

  it('fails by name where something still holds the GPU when all is checkpointed', async () => {
    const { processes, hold } = await tree(10);
    driver.before = async (call) => {
      if (call !== 'checkpoint') return;
      await clear(10);
      await procfs.add({ pid: 10, nspid: [10, 1], children: [11], fds: { 5: '/dev/nvidiactl' }, files: { maps: '' } });
      await show(11, { comm: 'pt_main_thread' });
    };
    await hold.lock(processes, never);
    const error = await hold.checkpoint(never).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: 'CHECKPOINT_REFUSED',
      reasons: [
        { code: 'GPU_HELD_WITHOUT_CUDA', found: expect.stringContaining('process 2 (pt_main_thread') },
        { code: 'GPU_HELD_BESIDE_CUDA', found: '/dev/nvidiactl' },
      ],
    });
  });

  it('waits a moment for a process that is becoming a CUDA process', async () => {
    const { processes, hold } = await tree(10);
    const clearing = driver.before;
    await hold.lock(processes, never);
    driver.before = async (call, pid) => {
      await clearing(call, pid);
      if (call !== 'checkpoint' || pid !== 10) return;
      await procfs.write('10/task/10/children', '11 ');
      await show(11);
      setTimeout(() => driver.add(11), 250);
    };
    await hold.checkpoint(never);
    expect(driver.states()).toEqual({ 10: 'checkpointed', 11: 'checkpointed' });
  });

  it('begins nothing new once it is cancelled', async () => {
    const { processes, hold } = await tree(10);
    await hold.lock(processes, never);
    const cancelled = AbortSignal.abort(new Error('cancelled'));
    await expect(hold.checkpoint(cancelled)).rejects.toThrow('cancelled');
    expect(order('checkpoint')).toEqual([]);
  });
});

describe('another process that got the PID', () => {
  const START = 5000;
  /** The process ended; what has its PID runs, and is a CUDA process too. */
  const replace = async (pid: number, state: CudaState = 'running') => {
    driver.processes.set(pid, { state });
    await show(pid, { start: START });
  };

  it('is not locked where it is there before the call', async () => {
    const { processes, hold } = await tree(10, 11);
    await replace(11);
    // Whatever is found anew is none of this test's.
    driver.faultAt = (call) => (call === 'restore-thread' ? 'refused' : undefined);
    await hold.lock(processes, never);
    expect(order('lock')).toEqual(['lock 10']);
    expect(hold.processes.map(({ id }) => id.pid)).toEqual([10]);
    await hold.release();
    expect(driver.states()).toEqual({ 10: 'running', 11: 'running' });
  });

  it.each([undefined, 'died-after', 'hung-after'] as const)(
    'is unlocked again where it came in the middle of the call (%s)',
    async (fault) => {
      const { processes, hold } = await tree(10, 11);
      driver.before = async (call, pid) => {
        if (call === 'lock' && pid === 11) await replace(11);
      };
      driver.faultAt = (call, pid) => {
        if (call === 'restore-thread') return 'refused';
        return call === 'lock' && pid === 11 ? fault : undefined;
      };
      await hold.lock(processes, never);
      expect(hold.processes.map(({ id }) => id.pid)).toEqual([10]);
      expect(driver.states()).toEqual({ 10: 'locked', 11: 'running' });
      await hold.release();
      expect(driver.states()).toEqual({ 10: 'running', 11: 'running' });
    },
  );

  it('is not checkpointed, though it is locked, and stays so', async () => {
    const { processes, hold } = await tree(10, 11);
    await hold.lock(processes, never);
    await replace(11, 'locked');
    await procfs.write('11/maps', '');
    driver.faultAt = (call) => (call === 'restore-thread' ? 'refused' : undefined);
    await hold.checkpoint(never);
    expect(order('checkpoint')).toEqual(['checkpoint 10']);
    await hold.release();
    expect(driver.states()).toEqual({ 10: 'running', 11: 'locked' });
  });

  it('gets its memory back where it came in the middle of a checkpoint', async () => {
    const { processes, hold } = await tree(10, 11);
    await hold.lock(processes, never);
    driver.faultAt = (call) => (call === 'restore-thread' ? 'refused' : undefined);
    driver.before = async (call, pid) => {
      if (call === 'checkpoint' && pid === 11) await replace(11, 'locked');
      if (call === 'checkpoint') await clear(pid);
    };
    await hold.checkpoint(never);
    await hold.release();
    expect(driver.states()).toEqual({ 10: 'running', 11: 'locked' });
  });
});

describe('a call whose worker died may go on by itself', () => {
  /** Longer than the driver waits with a lock, and than the grace after it. */
  const QUEUE_MS = 800;
  const waitAt = (asked: CudaCall) => async (call: CudaCall) => {
    if (call === asked) await new Promise((done) => setTimeout(done, QUEUE_MS));
  };

  it('a lock, from the end of the worker on, however long one was waited for', async () => {
    const { processes, hold } = await tree(10);
    driver.before = waitAt('lock');
    driver.faultAt = (call) => {
      if (call !== 'lock') return undefined;
      setTimeout(() => driver.processes.set(10, { state: 'locked' }), 200);
      return 'died';
    };
    await expect(hold.lock(processes, never)).rejects.toThrow('died in lock');
    expect(await hold.release()).toMatchObject({ comebacks: [{ end: 'running' }] });
    expect(driver.asked).toContain('unlock 10');
    expect(driver.states()).toEqual({ 10: 'running' });
  });

  it('a checkpoint too, during which the driver refuses everything', async () => {
    const { processes, hold } = await tree(10);
    await hold.lock(processes, never);
    let isBusy = false;
    driver.before = waitAt('checkpoint');
    driver.faultAt = (call) => {
      if (call !== 'checkpoint') return isBusy && call === 'unlock' ? 'refused' : undefined;
      isBusy = true;
      setTimeout(() => {
        isBusy = false;
        driver.processes.set(10, { state: 'checkpointed' });
      }, 400);
      return 'died';
    };
    limits = { ...LIMITS, moveMs: 700 };
    await expect(hold.checkpoint(never)).rejects.toThrow('died in checkpoint');
    expect(await hold.release()).toMatchObject({ comebacks: [{ end: 'running' }] });
    expect(driver.states()).toEqual({ 10: 'running' });
  });

  it('a lock that is under way is waited for by a release that comes in the middle of it', async () => {
    const { processes, hold } = await tree(10);
    driver.before = waitAt('lock');
    const work = hold.lock(processes, never).catch((thrown: unknown) => thrown);
    await expect.poll(() => driver.asked).toContain('lock 10');
    expect(await hold.release()).toMatchObject({ comebacks: [{ end: 'running' }] });
    await work;
    expect(driver.states()).toEqual({ 10: 'running' });
  });
});

describe('whatever goes wrong', () => {
  const faults: readonly Fault[] = ['refused', 'died', 'died-after', 'hung', 'hung-after', 'undead'];
  /** Calls of a whole checkpoint of two processes. */
  const CALLS = 15;

  it.each(faults)('at every single call (%s), no process stays locked that the driver lets go', async (fault) => {
    for (let at = 1; at <= CALLS; at += 1) {
      const { processes, hold } = await tree(10, 11);
      driver.asked.length = 0;
      driver.faultAt = (_, __, number) => (number === at ? fault : undefined);
      const failure = await hold
        .lock(processes, never)
        .then(() => hold.checkpoint(never))
        .catch((thrown: unknown) => thrown);
      const { comebacks } = await hold.release();
      const lost = comebacks.filter(({ end }) => end !== 'running').map(({ process }) => process.id.pid);
      const states = Object.entries(driver.states());
      expect(
        states.filter(([, state]) => state !== 'running').map(([pid]) => Number(pid)),
        `call ${at}`,
      ).toEqual(lost);
      // Only a restore that was refused, or hung, is not made again.
      const hit = driver.asked[at - 1] ?? '';
      expect(lost, `call ${at}, ${hit}`).toEqual(
        hit.startsWith('restore ') && ['refused', 'hung', 'undead'].includes(fault) ? [Number(hit.split(' ')[1])] : [],
      );
      if (/^(lock|checkpoint) /.test(hit)) expect(failure, `call ${at}, ${hit}`).toBeInstanceOf(Error);
    }
  });
});
