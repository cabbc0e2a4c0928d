import { existsSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { connectTo } from '../flow/grpc/client.ts';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import type { JsonLine } from './environment/container.ts';
import { workload } from './environment/pod.ts';
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
import {
  artifactPath,
  type Checkpointed,
  checkpointed,
  finished,
  markReady,
  operationEnd,
  readRecord,
  restored,
  runTarget,
} from './scenario.ts';

/** What the node has, and what its agent is told to do with it. */
let cluster: Cluster;
let agent: Agent;
let node: GpuNode;

beforeAll(async () => {
  cluster = await Cluster.start();
  node = makeGpuNode(gpuDirectory(cluster));
  agent = await cluster.startAgent({ config: gpuConfig(node.standin.directory, { proveRestore: 'always' }) });
});
afterEach(() => node.standin.clearFaults());
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

const codes = (end: JsonLine) => (end['reasons'] as { code: string }[]).map(({ code }) => code);

async function cudaCapability() {
  const client = connectTo(`unix:${agent.apiSocket}`);
  const { capabilities } = await client.ask('GetNodeInfo');
  client.close();
  return (capabilities as { name: string }[]).find(({ name }) => name === 'cuda');
}

let artifact: Checkpointed;

describe('a proof that is always asked for', () => {
  test('restores a source that is to be stopped, before it is stopped', async () => {
    const source = await runGpuSource(cluster, node.visible(0), { after: 'stop' });
    const { hash } = lastBeat(source.container);
    await markReady(source.container);
    artifact = await finished(cluster, agent, source);
    expect(readRecord(artifact.artifact)).toMatchObject({ cuda: { proven: true } });
    await source.container.ended();
    const target = await restored(cluster, agent, source, node.visible(1));
    expect(await beatsOn(target.container)).toMatchObject({ hash });
  });

  test('that fails leaves no artifact behind', async () => {
    const source = await runGpuSource(cluster, node.visible(0), { after: 'stop', args: ['--peer-access'] });
    await markReady(source.container);
    const end = await operationEnd(agent, 'checkpoint', source.container);
    expect(end).toMatchObject({ code: 'CUDA_LOST', step: 'stop' });
    expect(existsSync(artifactPath(cluster.volume, source))).toBe(false);
    await source.container.ended();
  });

  test('is not come to where the driver does not checkpoint: the source runs on', async () => {
    const name = 'unproven';
    const source = await runGpuSource(cluster, node.visible(0), { after: 'stop', args: ['--name', name] });
    const { hash } = lastBeat(source.container);
    node.standin.fault(`cuCheckpointProcessCheckpoint ${name} error 999`);
    await markReady(source.container);
    expect(await operationEnd(agent, 'checkpoint', source.container)).toMatchObject({ code: 'CUDA_FAILED' });
    expect(await beatsOn(source.container)).toMatchObject({ hash });
    expect(cudaStates(cluster, source.container)).toEqual(['running']);
  });
});

describe('a node', () => {
  test('with a driver says which', async () => {
    expect(await cudaCapability()).toMatchObject({ available: true, detail: 'driver 580.159.04, CUDA 13.0' });
  });

  test('without a driver works, and says why it cannot checkpoint or restore CUDA processes', async () => {
    const source = await runGpuSource(cluster, node.visible(0));
    await agent.end('SIGTERM');
    const libraries = { libcuda: ['/nowhere/libcuda.so.1'], libnvml: ['/nowhere/libnvidia-ml.so.1'] };
    agent = await cluster.startAgent({ config: gpuConfig(node.standin.directory, libraries) });
    const ordinary = await checkpointed(cluster, agent, { command: workload('memory', '8'), control: false });
    expect(readRecord(ordinary.artifact)).toMatchObject({ minReader: 1 });
    expect(await cudaCapability()).toMatchObject({
      available: false,
      detail: expect.stringMatching(/^NO_LIBCUDA: .*\/nowhere\/libcuda\.so\.1/),
    });

    await markReady(source.container);
    const refused = await operationEnd(agent, 'checkpoint', source.container);
    expect(codes(refused)).toEqual(['CUDA_UNAVAILABLE']);
    expect(await beatsOn(source.container)).toMatchObject({ hash: lastBeat(source.container).hash });

    const target = await runTarget(cluster, artifact, node.visible(1));
    const end = await operationEnd(agent, 'restore', target.container);
    expect(codes(end)).toEqual(['CUDA_UNAVAILABLE']);
    expect((await target.container.status()).state).toBe('CONTAINER_RUNNING');
  });
});
