import { existsSync, readFileSync, statSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Answer, connectTo } from '../flow/grpc/client.ts';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import type { JsonLine } from './environment/container.ts';
import {
  beatsOn,
  checkpointByCall,
  cudaStates,
  type GpuNode,
  gpuConfig,
  gpuDirectory,
  lastBeat,
  makeGpuNode,
  runGpuSource,
  WORKER,
} from './gpu-scenario.ts';
import {
  artifactPath,
  type Checkpointed,
  finished,
  markReady,
  operationEnd,
  readRecord,
  restored,
  runTarget,
  type Source,
} from './scenario.ts';

/** CUDA state through the whole agent: a stand-in is the GPU and its driver, all else is real. */
let cluster: Cluster;
let agent: Agent;
let node: GpuNode;

beforeAll(async () => {
  cluster = await Cluster.start();
  node = makeGpuNode(gpuDirectory(cluster));
  agent = await cluster.startAgent({ config: gpuConfig(node.standin.directory) });
});
afterEach(() => node.standin.clearFaults());
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

const uuid = (index: number) => node.gpus[index]?.uuid;
const codes = (end: JsonLine) => (end['reasons'] as { code: string }[]).map(({ code }) => code);
const run = (minors: readonly number[], ...args: string[]) => runGpuSource(cluster, node.visible(...minors), { args });

async function checkpoint(source: Source): Promise<Checkpointed> {
  await markReady(source.container);
  return await finished(cluster, agent, source);
}

/** Asks for a checkpoint that does not succeed: its end. */
async function failed(source: Source): Promise<JsonLine> {
  await markReady(source.container);
  const end = await operationEnd(agent, 'checkpoint', source.container);
  expect(end).toMatchObject({ msg: 'operation failed', advice: expect.stringMatching(/./) });
  expect(existsSync(artifactPath(cluster.volume, source))).toBe(false);
  return end;
}

/** One call of the agent's service. */
async function ask(method: string, request: object): Promise<Answer> {
  const client = connectTo(`unix:${agent.apiSocket}`);
  try {
    return await client.ask(method, request);
  } finally {
    client.close();
  }
}

/** A process that was not touched, or was let go of, counts on with the same memory. */
async function expectWhole(source: Source, hash: string): Promise<void> {
  expect(await beatsOn(source.container)).toMatchObject({ hash });
  expect(new Set(cudaStates(cluster, source.container))).toEqual(new Set(['running']));
}

describe('a CUDA process', () => {
  test('goes on after its checkpoint, and in another pod on another GPU', async () => {
    const source = await run([0], '--bytes', `${8 << 20}`);
    const { hash } = lastBeat(source.container);
    const { artifact, end } = await checkpoint(source);
    await expectWhole(source, hash);

    expect(readRecord(artifact)).toMatchObject({
      minReader: 2,
      cuda: {
        driver: '580.159.04',
        driverApi: 13000,
        gpus: [{ uuid: uuid(0), model: 'NVIDIA H200', memoryBytes: 2 ** 30, usedBytes: 8 << 20, mig: false }],
        processes: [{ pid: 1, deviceBytes: 8 << 20 }],
        proven: true,
        launchJob: false,
      },
    });
    const steps = end['steps'] as Record<string, number>;
    expect(Object.keys(steps)).toEqual(expect.arrayContaining(['cuda-lock', 'cuda-checkpoint', 'criu-dump', 'resume']));
    // It stood still from the lock until it ran again.
    expect(end['pauseSeconds']).toBeGreaterThanOrEqual((steps['cuda-checkpoint'] ?? 0) + (steps['criu-dump'] ?? 0));
    expect(end).toMatchObject({ deviceBytes: 8 << 20, cudaRestoreSeconds: expect.any(Number) });

    const target = await restored(cluster, agent, source, node.visible(1));
    expect(await beatsOn(target.container)).toMatchObject({ hash, on: [uuid(1)], reported: [uuid(0)] });
    expect(target.end).toMatchObject({ deviceBytes: 8 << 20, steps: { 'cuda-restore': expect.any(Number) } });
    expect(cudaStates(cluster, target.container)).toEqual(['running']);
  });

  test.each(['private', 'shared', 'memfd'])('comes back from a copy in %s memory', async (kind) => {
    const source = await run([0], '--host-copy', kind, '--bytes', `${4 << 20}`);
    const { hash } = lastBeat(source.container);
    await checkpoint(source);
    await expectWhole(source, hash);
    const target = await restored(cluster, agent, source, node.visible(0));
    expect(await beatsOn(target.container)).toMatchObject({ hash, on: [uuid(0)] });
  });

  test('is not alone: a tree with several of them, on several GPUs, comes back on other GPUs', async () => {
    const one = `${WORKER} --name one --gpu 0 --report /standin/reports/one`;
    const two = `${WORKER} --name two --gpu 1 --gpu 0 --report /standin/reports/two`;
    const command = ['/bin/sh', '-c', `${one} & ${two} & wait`];
    const source = await runGpuSource(cluster, node.visible(0, 1), { command });
    const { artifact } = await checkpoint(source);
    expect(readRecord(artifact)).toMatchObject({
      cuda: {
        gpus: [
          { uuid: uuid(0), usedBytes: 2 << 20 },
          { uuid: uuid(1), usedBytes: 1 << 20 },
        ],
      },
    });
    expect(cudaStates(cluster, source.container)).toEqual(['running', 'running']);
    await source.pod.remove();
    const target = await restored(cluster, agent, source, node.visible(2, 3));
    const seen = new Set<string>();
    await target.container.waitForOutput('both of them', (line) => {
      if (typeof line['beat'] === 'number') seen.add(JSON.stringify(line['on']));
      return seen.size === 2;
    });
    expect(seen).toEqual(new Set([JSON.stringify([uuid(2)]), JSON.stringify([uuid(3), uuid(2)])]));
  });

  test('goes through a second checkpoint and restore where it was restored', async () => {
    const source = await run([0]);
    const { hash } = lastBeat(source.container);
    const { pod } = await checkpoint(source);
    await pod.remove();
    const first = await restored(cluster, agent, source, node.visible(1));
    await markReady(first.container);
    const again = await checkpointByCall(agent, first.container, `${source.id}-again`);
    expect(again.metadata, JSON.stringify(again.error)).toMatchObject({ state: 'OPERATION_STATE_SUCCEEDED' });
    expect(await beatsOn(first.container)).toMatchObject({ hash });
    const second = await restored(cluster, agent, { ...source, id: `${source.id}-again` }, node.visible(2));
    expect(await beatsOn(second.container)).toMatchObject({ hash, on: [uuid(2)] });
  });

  test('that is stopped leaves an artifact that is not proven', async () => {
    const source = await runGpuSource(cluster, node.visible(0), { after: 'stop' });
    const { hash } = lastBeat(source.container);
    const { artifact } = await checkpoint(source);
    expect(readRecord(artifact)).toMatchObject({ cuda: { proven: false } });
    await source.container.ended();
    const target = await restored(cluster, agent, source, node.visible(0));
    expect(await beatsOn(target.container)).toMatchObject({ hash });
  });

  test('finds the device nodes of its new container, where they are mounted one by one under other names', async () => {
    const source = await runGpuSource(cluster, node.mounted(0, 2));
    const mounts = readFileSync(`/proc/${await source.container.pid()}/mountinfo`, 'utf8');
    for (const name of ['nvidiactl', 'nvidia0', 'nvidia2']) expect(mounts).toContain(` /dev/${name} `);
    const { artifact } = await checkpoint(source);
    const points = (readRecord(artifact)['mounts'] as { mountPoint: string }[]).map(({ mountPoint }) => mountPoint);
    expect(points.filter((point) => /nvidia(\d|ctl)/.test(point))).toEqual([]);
    const target = await restored(cluster, agent, source, node.mounted(1, 3));
    const inside = await target.container.workloadPid();
    const kinds = ['nvidiactl', 'nvidia1', 'nvidia3'].map((name) => statSync(`/proc/${inside}/root/dev/${name}`).rdev);
    expect(kinds).toEqual([255, 1, 3].map((minor) => (195 << 8) | minor));
    expect(existsSync(`/proc/${inside}/root/dev/nvidia0`)).toBe(false);
    expect(await beatsOn(target.container)).toMatchObject({ on: [uuid(1)] });
  });

  test('that begins while another is locked is taken along', async () => {
    node.standin.fault('cuCheckpointProcessLock parent spawn once');
    const source = await run([0], '--name', 'parent');
    const { artifact } = await checkpoint(source);
    const { processes } = readRecord(artifact)['cuda'] as { processes: { pid: number }[] };
    expect(processes).toHaveLength(2);
    expect(cudaStates(cluster, source.container)).toEqual(['running', 'running']);
    await source.pod.remove();
    const target = await restored(cluster, agent, source, node.visible(3));
    expect(await beatsOn(target.container)).toMatchObject({ on: [uuid(3)] });
    expect(cudaStates(cluster, target.container)).toEqual(['running', 'running']);
  });

  test('is told by an inspection of its artifact, with the device memory that it held', async () => {
    const source = await run([0], '--bytes', `${64 << 20}`);
    await checkpoint(source);
    const { processes, checkpoint: seen } = await ask('InspectCheckpoint', { checkpoint_id: source.id });
    const holders = processes.filter(({ cuda }: Answer) => cuda);
    expect(holders).toHaveLength(1);
    const [{ device_bytes: held, stored_bytes: stored }] = holders;
    expect(held).toBeGreaterThanOrEqual(64 << 20);
    // The copy that the driver made is memory of the process.
    expect(stored).toBeGreaterThanOrEqual(held);
    const { platform, sizes } = seen.record;
    expect(sizes.device_bytes).toBe(held);
    const { name: model, bytes } = node.gpus[0] ?? {};
    expect(platform.gpus).toEqual([{ uuid: uuid(0), model, memory_bytes: bytes, used_bytes: expect.any(Number) }]);
    await source.pod.remove();
  });
});

describe('a checkpoint is refused, and nothing was touched', () => {
  test('where a forked child holds the GPU without being a CUDA process', async () => {
    const source = await run([0], '--forked-child');
    const end = await failed(source);
    expect(end).toMatchObject({ code: 'CHECKPOINT_REFUSED', step: 'preflight' });
    expect(codes(end)).toEqual(['GPU_HELD_WITHOUT_CUDA']);
    expect(JSON.stringify(end['reasons'])).toContain('shutdown_compile_workers()');
    await expectWhole(source, lastBeat(source.container).hash);
  });

  test('where host memory cannot hold the copies', async () => {
    const limit = 40 << 20;
    const source = await runGpuSource(cluster, node.visible(1), {
      args: ['--bytes', `${48 << 20}`, '--every', '500'],
      memoryLimitBytes: limit,
    });
    const end = await failed(source);
    expect(codes(end)).toEqual(['HOST_COPIES']);
    expect(end['reasons']).toMatchObject([{ found: expect.stringContaining('below the memory limit') }]);
  });

  test('where a GPU is partitioned', async () => {
    const source = await run([2]);
    node.standin.setGpus(node.gpus.map((gpu) => ({ ...gpu, mig: gpu.minor === 2 })));
    try {
      expect(codes(await failed(source))).toEqual(['GPU_MIG']);
    } finally {
      node.standin.setGpus(node.gpus);
    }
  });
});

describe('a checkpoint fails, and all go on', () => {
  test('where a process waits for another one that is locked', async () => {
    const command = ['/bin/sh', '-c', `${WORKER} --name first & ${WORKER} --name waiting & wait`];
    const source = await runGpuSource(cluster, node.visible(0), { command });
    node.standin.fault('cuCheckpointProcessLock waiting timeout');
    const end = await failed(source);
    expect(end).toMatchObject({ code: 'CUDA_BUSY', step: 'cuda-lock' });
    expect(end['problem']).toContain('CUDA_ERROR_NOT_READY');
    expect(cudaStates(cluster, source.container)).toEqual(['running', 'running']);
  });

  test('but for a process that the driver cannot restore: nothing is published, and its container is ended', async () => {
    const source = await run([0], '--peer-access');
    const end = await failed(source);
    expect(end).toMatchObject({ code: 'CUDA_LOST', step: 'resume' });
    expect(end['problem']).toContain('NCCL_P2P_DISABLE=1');
    expect(await source.container.ended()).toMatchObject({ exit_code: 137 });
  });
});

describe('a restore is refused, and the container waits on', () => {
  let source: Source;
  beforeAll(async () => {
    source = await run([0], '--bytes', `${64 << 20}`);
    await checkpoint(source);
    await source.pod.remove();
  });

  async function refused(seen: ReturnType<GpuNode['visible']>): Promise<JsonLine> {
    const target = await runTarget(cluster, source, seen);
    const end = await operationEnd(agent, 'restore', target.container);
    expect(end).toMatchObject({ code: 'RESTORE_REFUSED', step: 'verify' });
    expect((await target.container.status()).state).toBe('CONTAINER_RUNNING');
    await target.pod.remove();
    return end;
  }

  const againstNode = () => ask('CheckCompatibility', { restore: { checkpoint_id: source.id } });

  test('where the GPU has too little free memory; the node has others', async () => {
    const release = await node.fill(3, 900 << 20);
    expect(codes(await refused(node.visible(3)))).toEqual(['GPU_MEMORY_FREE']);
    const { compatible, not_checked: notChecked } = await againstNode();
    expect(compatible).toBe(true);
    expect(notChecked).toContain('GPUs of the container');
    release();
  });

  test('where the container sees more GPUs than the source did, or none', async () => {
    expect(codes(await refused(node.visible(1, 2)))).toEqual(['GPU_COUNT']);
    expect(codes(await refused(node.visible()))).toEqual(['GPU_COUNT']);
  });

  test.each([
    ['570.124.06', ['GPU_DRIVER_FLOOR', 'GPU_DRIVER_BRANCH']],
    ['590.44.01', ['GPU_DRIVER_BRANCH']],
  ])('where the driver is %s', async (version, expected) => {
    node.standin.setVersion('driver', version);
    await agent.restart('SIGTERM');
    expect(codes(await refused(node.visible(1)))).toEqual(expected);
    expect((await againstNode()).mismatches.map(({ code }: Answer) => code)).toEqual(expected);
    node.standin.setVersion('driver', '580.159.04');
    await agent.restart('SIGTERM');
  });
});
