import { beforeEach, describe, expect, it } from 'vitest';
import type { GpuUser } from '../../../agent/container/gpu-users.ts';
import { parseStat, parseStatus } from '../../../agent/container/proc.ts';
import { findCudaProcesses, leftoverProblems, lookAgain } from '../../../agent/cuda/processes.ts';
import { statLine } from '../../fakes/procfs.ts';
import { FakeDriver } from './fake-driver.ts';

const LIBCUDA = '/usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04';

function user(pid: number, over: Partial<GpuUser> & { comm?: string; state?: string } = {}): GpuUser {
  const { comm = 'python3', state = 'S', ...rest } = over;
  const stat = parseStat(statLine({ pid, comm, state, start: 1000 }));
  const status = parseStatus(`NSpid:\t${pid}\t${pid - 9}\n`);
  const nothing = { open: [], interposers: [] };
  return { process: { stat, status }, mapped: ['/dev/nvidia0'], libcuda: [LIBCUDA], ...nothing, ...rest };
}

let driver: FakeDriver;
beforeEach(() => {
  driver = new FakeDriver();
});

const find = (...users: GpuUser[]) => findCudaProcesses(driver.calls, users, { driver: '580.159.04', callMs: 1_000 });

describe('the CUDA processes of a tree', () => {
  it('are those with a restore thread, by their PIDs inside the container', async () => {
    driver.add(10);
    driver.add(12);
    const found = await find(user(10), user(11, { mapped: [], open: [] }), user(12));
    expect(found).toMatchObject({ foreign: 0, reasons: [], warnings: [] });
    expect(found.processes).toEqual([
      { id: { pid: 10, start: 1000 }, innerPid: 1, comm: 'python3' },
      { id: { pid: 12, start: 1000 }, innerPid: 3, comm: 'python3' },
    ]);
  });

  it('are not children that hold the GPU without being any: all are named at once, with what ends them', async () => {
    driver.add(10);
    const { processes, foreign, reasons } = await find(
      user(10),
      user(11, { comm: 'pt_main_thread' }),
      user(12, { mapped: [], open: ['/dev/nvidiactl'] }),
    );
    expect(processes).toHaveLength(1);
    expect(foreign).toBe(2);
    expect(reasons).toMatchObject([
      {
        code: 'GPU_HELD_WITHOUT_CUDA',
        message: expect.stringContaining('2 (pt_main_thread), 3 (python3)'),
        found: expect.stringContaining('process 2 (pt_main_thread, 11 on the host): /dev/nvidia0'),
        advice: expect.stringContaining('torch._inductor.async_compile.shutdown_compile_workers()'),
      },
    ]);
  });

  it('names so many of very many, and counts the rest', async () => {
    const { reasons } = await find(...Array.from({ length: 30 }, (_, n) => user(20 + n)));
    expect(reasons[0]?.message).toMatch(/ 30 \(python3\), and 10 more$/);
  });

  it.each([
    ['T', 'CUDA_STOPPED'],
    ['t', 'CUDA_STOPPED'],
  ])('must be able to run: state %s', async (state, code) => {
    driver.add(10);
    expect((await find(user(10, { state }))).reasons).toMatchObject([{ code }]);
  });

  it.each(['locked', 'checkpointed', 'failed'] as const)('must be the driver’s to lock: %s', async (state) => {
    driver.add(10, { state });
    expect((await find(user(10))).reasons).toMatchObject([{ code: 'CUDA_STATE', found: state }]);
  });

  it('must call the driver themselves, as far as that can be seen', async () => {
    driver.add(10);
    driver.add(11);
    const { reasons } = await find(
      user(10, { libcuda: ['/opt/hook/libcuda.so.1', LIBCUDA] }),
      user(11, { interposers: ['/usr/local/vgpu/libvgpu.so'] }),
    );
    expect(reasons).toMatchObject([
      { code: 'CUDA_INTERPOSED', found: `/opt/hook/libcuda.so.1 ${LIBCUDA}` },
      { code: 'CUDA_INTERPOSED', found: '/usr/local/vgpu/libvgpu.so' },
    ]);
  });

  it('may have the library of the driver mapped from two places', async () => {
    driver.add(10);
    const { reasons, warnings } = await find(
      user(10, { libcuda: ['/usr/local/nvidia/lib64/libcuda.so.580.159.04', LIBCUDA] }),
    );
    expect([reasons, warnings]).toEqual([[], []]);
  });

  it('with another libcuda than the driver’s are warned of', async () => {
    driver.add(10);
    const compat = '/usr/local/cuda/compat/libcuda.so.570.86.10';
    const { reasons, warnings } = await find(user(10, { libcuda: [compat] }));
    expect(reasons).toEqual([]);
    expect(warnings).toMatchObject([{ code: 'CUDA_LIBRARY_FOREIGN', found: compat, wanted: 'libcuda.so.580.159.04' }]);
  });

  it('cannot be told where the driver does not answer', async () => {
    driver.faultAt = () => 'hung';
    await expect(find(user(10))).rejects.toMatchObject({ failure: 'hung' });
  });
});

describe('a second look', () => {
  it('finds those that began meanwhile, and others that hold the GPU', async () => {
    const known = [driver.add(10)];
    driver.add(11);
    const seen = await lookAgain(driver.calls, [user(10), user(11), user(12)], { known, callMs: 1_000 });
    expect(seen.newcomers.map(({ id }) => id.pid)).toEqual([11]);
    expect(seen.reasons).toMatchObject([{ code: 'GPU_HELD_WITHOUT_CUDA', message: expect.stringContaining(': 3 (') }]);
    expect(driver.asked).toEqual(['restore-thread 11', 'restore-thread 12']);
  });

  it('takes a process for another that has the PID of a known one', async () => {
    const known = [{ ...driver.add(10), id: { pid: 10, start: 999 } }];
    const { newcomers } = await lookAgain(driver.calls, [user(10)], { known, callMs: 1_000 });
    expect(newcomers.map(({ id }) => id)).toEqual([{ pid: 10, start: 1000 }]);
  });

  it('finds what a checkpointed process still holds', () => {
    const clear = user(10, { mapped: [] });
    const nvml = user(11, { mapped: [], open: ['/dev/nvidia0', '/dev/nvidiactl'] });
    expect(leftoverProblems([clear, nvml])).toMatchObject([
      {
        code: 'GPU_HELD_BESIDE_CUDA',
        found: '/dev/nvidia0 /dev/nvidiactl',
        advice: expect.stringContaining('nvmlShutdown'),
      },
    ]);
  });
});
