import { afterAll, describe, expect, test } from 'vitest';
import { buildVariant, openSession, openStandin, startWorker } from './cuda-session.ts';
import { tidyUp } from './programs.ts';
import { standinGpu } from './standin/standin.ts';

afterAll(tidyUp);

/** A GPU as `gpus` shows it when nothing is known but which one it is. */
const UNKNOWN = {
  name: null,
  minor: null,
  busId: null,
  memoryBytes: null,
  freeBytes: null,
  mig: null,
  mps: null,
  virtualization: null,
};

describe('gpus', () => {
  test('shows what each GPU is, and how much of its memory is free', async () => {
    const [first, second] = [standinGpu(0), standinGpu(1, { name: 'NVIDIA A100-SXM4-80GB', minor: 5 })];
    const standin = openStandin([first, second]);
    await startWorker(standin, '--gpu', '1', '--bytes', `${3 << 20}`);
    const session = await openSession(standin);
    const shown = ({ uuid, minor, busId, name, bytes }: typeof first, index: number, used: number) => ({
      ...{ index, uuid, name, minor, busId, memoryBytes: bytes, freeBytes: bytes - used },
      ...{ mig: false, mps: false, virtualization: 'none' },
    });
    expect(await session.ask('gpus')).toEqual({ ok: true, gpus: [shown(first, 0, 0), shown(second, 1, 3 << 20)] });
  });

  test('names MIG, MPS and every kind of virtualization', async () => {
    const standin = openStandin([
      standinGpu(0, { mig: true }),
      standinGpu(1, { mps: true, virtualization: 1 }),
      standinGpu(2, { mig: undefined, mps: undefined, virtualization: undefined }),
      standinGpu(3, { virtualization: 2 }),
      standinGpu(4, { virtualization: 3 }),
      standinGpu(5, { virtualization: 4 }),
      standinGpu(6, { virtualization: 7 }),
    ]);
    const session = await openSession(standin);
    expect(await session.ask('gpus')).toMatchObject({
      ok: true,
      gpus: [
        { mig: true, mps: false, virtualization: 'none' },
        { mig: false, mps: true, virtualization: 'passthrough' },
        // What cannot have MIG has none. That MPS or virtualization cannot be asked for says nothing.
        { mig: false, mps: null, virtualization: null },
        { virtualization: 'vgpu' },
        { virtualization: 'host-vgpu' },
        { virtualization: 'host-vsga' },
        { virtualization: 'mode-7' },
      ],
    });
  });

  test('says null for what this NVML has no function for, or what fails', async () => {
    const optional = [
      'nvmlSystemGetDriverVersion',
      'nvmlDeviceGetName',
      'nvmlDeviceGetMinorNumber',
      'nvmlDeviceGetPciInfo_v3',
      'nvmlDeviceGetMemoryInfo',
      'nvmlDeviceGetMigMode',
      'nvmlDeviceGetVirtualizationMode',
      'nvmlDeviceGetMPSComputeRunningProcesses_v3',
    ] as const;
    const lacking = openStandin([standinGpu(0)]);
    const libnvml = [buildVariant('libnvidia-ml', { without: [...optional, 'nvmlErrorString'] })];
    const session = await openSession(lacking, { libnvml });
    expect(session.hello).toMatchObject({ ready: true, driver: null, nvml: true });
    const answer = { ok: true, gpus: [{ index: 0, uuid: standinGpu(0).uuid, ...UNKNOWN }] };
    expect(await session.ask('gpus')).toEqual(answer);

    const failing = openStandin([standinGpu(0)]);
    for (const call of optional) failing.fault(`${call} * error 999`);
    expect(await (await openSession(failing)).ask('gpus')).toEqual(answer);
  });

  const failures = ['nvmlDeviceGetCount_v2', 'nvmlDeviceGetHandleByIndex_v2', 'nvmlDeviceGetUUID'] as const;
  test.each(failures)('fails where no GPU can be told from another: %s', async (call) => {
    const standin = openStandin();
    standin.fault(`${call} ${call === 'nvmlDeviceGetCount_v2' ? '*' : standinGpu(1).uuid} error 15`);
    const session = await openSession(standin);
    const lost = { ok: false, error: 15, name: 'NVML_ERROR_GPU_IS_LOST', text: 'Unknown Error', call };
    expect(await session.ask('gpus')).toEqual(lost);
    expect(await session.ask('processes')).toEqual(lost);
    standin.clearFaults();
    expect(await session.ask('gpus')).toMatchObject({ ok: true, gpus: [{ index: 0 }, { index: 1 }] });

    const libnvml = [buildVariant('libnvidia-ml', { without: [call, 'nvmlErrorString'] })];
    const lacking = await openSession(standin, { libnvml });
    const absent = { ok: false, error: 13, name: 'NVML_ERROR_FUNCTION_NOT_FOUND', text: '', call };
    expect(await lacking.ask('gpus')).toEqual(absent);
  });

  test('is empty on a node that lost its GPUs, and knows an error that has no name', async () => {
    const standin = openStandin();
    const session = await openSession(standin);
    standin.setGpus([]);
    expect(await session.ask('gpus')).toEqual({ ok: true, gpus: [] });
    expect(await session.ask('processes')).toEqual({ ok: true, processes: [] });
    standin.fault('nvmlDeviceGetCount_v2 * error 4711');
    expect(await session.ask('gpus')).toMatchObject({ ok: false, error: 4711, name: 'NVML_ERROR_4711' });
  });
});

describe('processes', () => {
  test('shows who has memory on which GPU', async () => {
    const standin = openStandin();
    const [{ uuid: first }, { uuid: second }] = [standinGpu(0), standinGpu(1)];
    const small = await startWorker(standin, '--bytes', '8192');
    const both = await startWorker(standin, '--gpu', '0', '--gpu', '1', '--bytes', '1048576');
    const session = await openSession(standin);
    const answer = await session.ask('processes');
    expect(answer).toEqual({ ok: true, processes: expect.any(Array) });
    const found = answer['processes'] as { pid: number; gpu: string }[];
    expect(found.toSorted((a, b) => a.gpu.localeCompare(b.gpu) || a.pid - b.pid)).toEqual(
      [
        { pid: small.pid, gpu: first, bytes: 8192 },
        { pid: both.pid, gpu: first, bytes: 1048576 },
        { pid: both.pid, gpu: second, bytes: 1048576 },
      ].toSorted((a, b) => a.gpu.localeCompare(b.gpu) || a.pid - b.pid),
    );
  });

  test('asks again with more room while there are more of them, and stops', async () => {
    // As many as it takes, and bytes that NVML cannot tell.
    const source = (count: number) => `
      EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(struct device *device, unsigned *count, struct process *processes) {
        unsigned room = *count;
        (void)device;
        *count = ${count}u;
        if (room < *count) return 7;
        for (unsigned i = 0; i < *count; i++) processes[i] = (struct process){i + 1, -1ULL, 0, 0};
        return 0;
      }`;
    const variant = (count: number) =>
      buildVariant('libnvidia-ml', { rename: 'nvmlDeviceGetComputeRunningProcesses_v3', source: source(count) });
    const standin = openStandin([standinGpu(0)]);
    const many = await openSession(standin, { libnvml: [variant(1000)] });
    const { processes } = await many.ask('processes');
    expect(processes).toHaveLength(1000);
    expect((processes as unknown[]).at(-1)).toEqual({ pid: 1000, gpu: standinGpu(0).uuid, bytes: null });

    const endless = await openSession(standin, { libnvml: [variant(4_000_000_000)] });
    const tooMany = { ok: false, error: 7, name: 'NVML_ERROR_INSUFFICIENT_SIZE' };
    expect(await endless.ask('processes')).toMatchObject(tooMany);
  });

  test('fails where NVML has no function for it', async () => {
    const call = 'nvmlDeviceGetComputeRunningProcesses_v3';
    const libnvml = [buildVariant('libnvidia-ml', { without: [call] })];
    const session = await openSession(openStandin(), { libnvml });
    const absent = { ok: false, error: 13, name: 'NVML_ERROR_FUNCTION_NOT_FOUND', text: 'Unknown Error', call };
    expect(await session.ask('processes')).toEqual(absent);
  });
});
