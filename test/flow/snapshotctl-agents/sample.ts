import type { ArtifactContents, ArtifactView } from '../../../agent/operations/service.ts';
import { artifactOf } from '../grpc/endpoint.ts';

const [KIB, MIB, GIB] = [1024, 1024 ** 2, 1024 ** 3];

/** An inference worker with one GPU, much like one that was measured: 16 GiB stored of 37 GiB. */
export function workerArtifact(id: string, changes: Partial<ArtifactView> = {}): ArtifactView {
  const { record, ...view } = artifactOf('team-a', id);
  if (record === undefined || record.cuda === undefined) throw new Error('the sample has no record');
  const sizes = {
    criuBytes: Math.round(0.58 * GIB),
    bulkBytes: Math.round(15.5 * GIB),
    zeroBytes: Math.round(20.8 * GIB),
    rootfsBytes: 412 * MIB,
    shmBytes: 96 * MIB,
  };
  return {
    ...view,
    record: {
      ...record,
      source: { ...record.source, pod: 'llama-worker-7d9f-x2k4q', image: 'registry.example/inference/llama:2026.11' },
      cuda: { ...record.cuda, processes: [{ pid: 1, deviceBytes: Math.round(36.8 * GIB) }] },
      process: { ...record.process, count: 4, threads: 151 },
      platform: { ...record.platform, cpu: { ...record.platform.cpu, features: FEATURES } },
      memory: { limitBytes: 96 * GIB, residentBytes: Math.round(38.1 * GIB) },
      sizes,
      pauseSeconds: 41.2,
      timings: [
        ...[
          step('resolve', 0.02),
          step('pin', 0.01),
          step('attach', 0.03),
          step('inspect', 0.31),
          step('preflight', 0.12),
        ],
        ...[step('stage', 0.02), step('quiesced', 0.01), step('cuda-lock', 0.015), step('cuda-checkpoint', 13.2)],
        ...[step('criu-dump', 20.6), step('resume', 4.9), step('finalize', 7.4)],
      ],
      files: FILES.map(([path, size]) => ({ path, size, sha256: path === 'memory/bulk.pages' ? '' : 'ab'.repeat(32) })),
    },
    ...changes,
  };
}

const step = (name: string, seconds: number) => ({ step: name, seconds });

const FILES: readonly (readonly [string, number])[] = [
  ['memory/bulk.pages', Math.round(15.5 * GIB)],
  ['criu/pages-1.img', 540 * MIB],
  ['rootfs/diff.tar', 412 * MIB],
  ['rootfs/shm.tar', 96 * MIB],
  ['memory/bulk.index', 620 * KIB],
  ['criu/mm-1.img', 210 * KIB],
  ['criu/core-1.img', 2 * KIB],
  ['criu/dump.log', 840 * KIB],
];

const FEATURES = Array.from({ length: 60 }, (_, index) => `avx512_feature_${index}`);

type Area = ArtifactContents['processes'][number]['areas'][number];

/** Areas one behind the other, with gaps. */
function areasFrom(
  start: number,
  list: readonly (readonly [
    kind: Area['kind'],
    size: number,
    stored: number,
    bulk: number,
    path: string,
    mode: string,
  ])[],
): Area[] {
  let at = start;
  return list.map(([kind, size, storedBytes, bulkBytes, path, protection]) => {
    const from = at;
    at += size + 16 * MIB;
    return { start: from, end: from + size, kind, path, protection, shared: kind === 'shared', storedBytes, bulkBytes };
  });
}

/** What is inside it. Names are those of a workload that means no good. */
export const WORKER_CONTENTS: Omit<ArtifactContents, 'artifact'> = {
  processes: [
    {
      ...{ pid: 1, ppid: 0, comm: 'python3', state: 'alive', threads: 118, cuda: true },
      memoryBytes: Math.round(61.4 * GIB),
      storedBytes: Math.round(15.9 * GIB),
      deviceBytes: Math.round(36.8 * GIB),
      areas: areasFrom(0x400000, [
        ['file', 9 * MIB, 0, 0, '/usr/bin/python3.12', 'r-x'],
        ['heap', 780 * MIB, 640 * MIB, 600 * MIB, '', 'rw-'],
        ['anonymous', Math.round(36.8 * GIB), Math.round(14.6 * GIB), Math.round(14.6 * GIB), '', 'rw-'],
        ['anonymous', 12 * GIB, 0, 0, '', '---'],
        [
          'file',
          Math.round(2.4 * GIB),
          38 * MIB,
          30 * MIB,
          '/usr/lib/python3/dist-packages/torch/lib/libtorch_cuda.so',
          'r-x',
        ],
        [
          'file',
          Math.round(1.1 * GIB),
          12 * MIB,
          0,
          '/models/<script>alert(1)</script>/weights\u001b[31m.safetensors',
          'r--',
        ],
        ['shared', 2 * GIB, 300 * MIB, 290 * MIB, '/dev/shm/nccl-x', 'rw-'],
        ['device', 64 * MIB, 0, 0, '/dev/nvidia-uvm', 'rw-'],
        ['anonymous', 5 * GIB, 290 * MIB, 260 * MIB, '', 'rw-'],
        ['stack', 8 * MIB, 180 * KIB, 0, '', 'rw-'],
        ['special', 8 * KIB, 0, 0, '', 'r-x'],
      ]),
      areasLeftOut: 212,
      bytesLeftOut: 96 * MIB,
    },
    ...['<img src=x>', 'tokenizer', 'python3'].map((comm, index) => ({
      ...{ pid: 84 + index, ppid: index === 2 ? 85 : 1, comm, state: 'alive' as const, threads: 11, cuda: false },
      memoryBytes: Math.round((2.1 + index) * GIB),
      storedBytes: (index + 1) * 41 * MIB,
      deviceBytes: 0,
      areas: areasFrom(0x5580_0000_0000, [
        ['file', 9 * MIB, 0, 0, '/usr/bin/python3.12', 'r-x'],
        ['heap', 120 * MIB, (index + 1) * 30 * MIB, 0, '', 'rw-'],
        ['anonymous', Math.round((1.6 + index) * GIB), (index + 1) * 11 * MIB, 0, '', 'rw-'],
        ['file', 310 * MIB, 0, 0, '/usr/lib/x86_64-linux-gnu/libc.so.6', 'r-x'],
        ['stack', 8 * MIB, 64 * KIB, 0, '', 'rw-'],
      ]),
      areasLeftOut: 0,
      bytesLeftOut: 0,
    })),
  ],
  processesLeftOut: 0,
  files: FILES.map(([path, size]) => ({ path, size, sha256: path === 'memory/bulk.pages' ? '' : 'ab'.repeat(32) })),
  filesLeftOut: 0,
  fileBytesLeftOut: 0,
  removedPaths: 14,
};
