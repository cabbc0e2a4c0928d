import { describe, expect, it } from 'vitest';
import { parseConfig } from '../../../agent/config.ts';
import type { CudaWorkers } from '../../../agent/cuda/workers.ts';
import { SnapshotError } from '../../../agent/errors.ts';
import { nodeReasons } from '../../../agent/operations/checks.ts';
import type { NodeFacts } from '../../../agent/operations/node.ts';
import type { ArtifactRecord } from '../../../agent/store/record.ts';
import { GIB, nodeGpu } from '../cuda/gpus.ts';
import { draft } from '../store/volume.ts';

const DRIVER = '580.95.05';
const config = parseConfig('nodeName: a\nstorage: { basePath: /c }\nhost: { procRoot: /proc }\n');
const { platform } = draft();
const node: NodeFacts = {
  ...{ name: 'b', bootId: 'boot', arch: platform.arch, kernel: platform.kernel, criu: platform.criu },
  ...{ cpu: platform.cpu, cgroupVersion: 2, userNs: 1, threads: 4 },
};

/** What the workers answer: the driver and the node's GPUs. */
const workers = (gpus: readonly object[], driver: string | SnapshotError = DRIVER) => ({
  driver: () =>
    driver instanceof SnapshotError
      ? Promise.reject(driver)
      : Promise.resolve({ version: driver, api: 13_000, libcuda: '/lib/libcuda.so.1', hasNvml: true }),
  ask: () => Promise.resolve({ ok: true, gpus }),
});
const context = (cuda: object = workers([nodeGpu(1)]), changes: Partial<NodeFacts> = {}) => ({
  config,
  cuda: cuda as CudaWorkers,
  node: { ...node, ...changes },
});

const plain = {
  ...draft(),
  formatVersion: 1,
  minReader: 1,
  checkpointId: 'a',
  version: '1',
  files: [],
} as ArtifactRecord;
const { uuid, name: model, memoryBytes, freeBytes, mig, mps, virtualization } = nodeGpu(7);
const onGpu: ArtifactRecord = {
  ...plain,
  cuda: {
    ...{ driver: DRIVER, driverApi: 13_000, libraries: [`/usr/lib/libcuda.so.${DRIVER}`], given: 'visible' },
    gpus: [{ uuid, model, memoryBytes, freeBytes, mig, mps, virtualization, usedBytes: GIB }],
    ...{ visibleDevices: null, deviceOrder: null, processes: [{ pid: 1, deviceBytes: GIB }] },
    ...{ proven: true, launchJob: false },
  },
};
const codes = async (...parts: Parameters<typeof nodeReasons>) =>
  (await nodeReasons(...parts)).reasons.map(({ code }) => code);

describe('an artifact and a node alone', () => {
  it('fit where the node is like that of the source, and what needs a container is named', async () => {
    const { reasons, notChecked } = await nodeReasons(context(), plain);
    expect(reasons).toEqual([]);
    expect(notChecked).toEqual(expect.arrayContaining(['image', 'mounts', 'memory limit', 'capabilities']));
    expect(notChecked).not.toContain('GPUs of the container');
    const gpu = await nodeReasons(context(), onGpu);
    expect(gpu.reasons).toEqual([]);
    expect(gpu.notChecked).toEqual([...notChecked, 'GPUs of the container']);
  });

  it('do not fit for everything at once, with both values', async () => {
    const cpu = { ...node.cpu, features: ['avx2'] };
    const other = context(workers([nodeGpu(1, { name: 'NVIDIA L4' })], '590.1'), { kernel: '5.15', criu: '4.1', cpu });
    const record = { ...onGpu, sizes: { ...onGpu.sizes, bulkBytes: 2 ** 50 } };
    const { reasons } = await nodeReasons(other, record);
    expect(reasons.map(({ code }) => code)).toEqual([
      ...['CPU_FEATURES', 'KERNEL_OLDER', 'CRIU_OLDER', 'GPU_DRIVER_BRANCH', 'GPU_MODEL'],
      ...['GPU_DRIVER_LIBRARY', 'HOST_MEMORY'],
    ]);
    for (const { found, wanted, advice } of reasons) {
      expect(found).not.toBe('');
      expect(wanted).not.toBe(found);
      expect(advice).not.toBe('');
    }
  });

  it('are judged without the driver where no process used CUDA', async () => {
    const cuda = workers([], new SnapshotError('CAPABILITY_MISSING', 'there is no driver'));
    expect(await codes(context(cuda), plain)).toEqual([]);
    const { reasons } = await nodeReasons(context(cuda), onGpu);
    expect(reasons).toMatchObject([{ code: 'CUDA_UNAVAILABLE', found: 'there is no driver' }]);
  });

  it('are judged by the rules of the configuration', async () => {
    const older = context(undefined, { kernel: '5.15' });
    expect(await codes(older, plain)).toEqual(['KERNEL_OLDER']);
    const allowing = { ...config, restore: { ...config.restore, allowOlderKernel: true } };
    expect(await codes({ ...older, config: allowing }, plain)).toEqual([]);
  });
});
