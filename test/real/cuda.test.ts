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
});
