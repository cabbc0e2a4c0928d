import { existsSync, statSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import {
  beatsOn,
  cudaStates,
  type GpuNode,
  gpuConfig,
  gpuDirectory,
  lastBeat,
  makeGpuNode,
  runGpuSource,
} from './gpu-scenario.ts';
import { finished, markReady, readRecord, restored } from './scenario.ts';

let cluster: Cluster;
let agent: Agent;
let node: GpuNode;

beforeAll(async () => {
  cluster = await Cluster.start();
  node = makeGpuNode(gpuDirectory(cluster));
  agent = await cluster.startAgent({ config: gpuConfig(node.standin.directory) });
});
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

describe('a CUDA process', () => {
  test('goes on after its checkpoint, and in another pod on another GPU', async () => {
    const seen = node.visible(0);
    const source = await runGpuSource(cluster, seen);
    await markReady(source.container);
    const checkpoint = await finished(cluster, agent, source);
    const before = lastBeat(source.container);
    const later = await beatsOn(source.container);
    expect(later.hash).toBe(before.hash);
    const record = readRecord(checkpoint.artifact);
    expect(record).toMatchObject({ minReader: 2, cuda: { proven: true, driver: '580.159.04' } });
    const target = await restored(cluster, agent, source, { ...node.visible(1) });
    expect(await beatsOn(target.container)).toMatchObject({ hash: before.hash, on: [node.gpus[1]?.uuid] });
    expect(cudaStates(cluster)).toEqual(['running', 'running']);
  });

  test('finds the device nodes of its new container, where they are mounted one by one under other names', async () => {
    const source = await runGpuSource(cluster, node.mounted(0, 2));
    await markReady(source.container);
    const { artifact } = await finished(cluster, agent, source);
    const points = (readRecord(artifact)['mounts'] as { mountPoint: string }[]).map(({ mountPoint }) => mountPoint);
    expect(points.filter((point) => /nvidia(\d|ctl)/.test(point))).toEqual([]);
    const target = await restored(cluster, agent, source, node.mounted(1, 3));
    const inside = await target.container.workloadPid();
    const kinds = ['nvidiactl', 'nvidia1', 'nvidia3'].map((name) => statSync(`/proc/${inside}/root/dev/${name}`).rdev);
    expect(kinds).toEqual([255, 1, 3].map((minor) => (195 << 8) | minor));
    expect(existsSync(`/proc/${inside}/root/dev/nvidia0`)).toBe(false);
    expect(await beatsOn(target.container)).toMatchObject({ on: [node.gpus[1]?.uuid] });
  });
});
