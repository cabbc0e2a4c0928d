import { existsSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { connectTo } from '../flow/grpc/client.ts';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import type { Container, JsonLine } from './environment/container.ts';
import { eventually } from './environment/host.ts';
import { Gates } from './gates.ts';
import {
  beatsOn,
  cudaStateSeen,
  cudaStates,
  type GpuNode,
  gpuConfig,
  gpuDirectory,
  lastBeat,
  makeGpuNode,
  runGpuSource,
} from './gpu-scenario.ts';
import { artifactPath, finished, freshName, markReady, operationEnd, runTarget, type Source } from './scenario.ts';

/** Whatever fails, and whoever is killed: no process stays locked. */
let cluster: Cluster;
let agent: Agent;
let node: GpuNode;
let gates: Gates;

beforeAll(async () => {
  cluster = await Cluster.start();
  gates = await Gates.make(cluster);
  node = makeGpuNode(gpuDirectory(cluster));
  const cuda = gpuConfig(node.standin.directory, { callSeconds: 3, lockTimeoutSeconds: 2 });
  agent = await cluster.startAgent({ config: { ...gates.config, ...cuda }, binds: gates.binds });
});
afterEach(async () => {
  gates.openAll();
  node.standin.clearFaults();
  if (!agent.running) await agent.start();
});
afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

type Call = 'Lock' | 'Checkpoint' | 'Restore' | 'Unlock' | 'GetState';
const CHANGING: readonly Call[] = ['Lock', 'Checkpoint', 'Restore', 'Unlock'];

/** A worker that faults find by its name. */
async function runNamed(): Promise<{ name: string; source: Source; hash: string }> {
  const name = freshName('worker');
  const source = await runGpuSource(cluster, node.visible(0), { args: ['--name', name, '--bytes', `${4 << 20}`] });
  return { name, source, hash: lastBeat(source.container).hash };
}

const fault = (call: Call, name: string, what: string) =>
  node.standin.fault(`cuCheckpointProcess${call} ${name} ${what}`);

/** A container whose CUDA processes run, with the memory that they had. */
async function expectWhole(container: Container, hash: string): Promise<void> {
  await eventually('all CUDA processes to run', () =>
    cudaStates(cluster, container).every((state) => state === 'running') ? true : undefined,
  );
  expect(await beatsOn(container)).toMatchObject({ hash });
}

const hasArtifact = (source: Source) => existsSync(artifactPath(cluster.volume, source));

/** The end of the last attempt: those that may pass are made again. */
async function lastEnd(operation: 'checkpoint' | 'restore', container: Container): Promise<JsonLine> {
  for (let from = 0; ; ) {
    const end = await operationEnd(agent, operation, container, { from });
    const isLast = end['msg'] === 'operation succeeded' || !RETRIED.has(String(end['code']));
    if (isLast) return end;
    from = agent.logs().findIndex((line) => line['time'] === end['time'] && line['msg'] === end['msg']) + 1;
  }
}
const RETRIED = new Set(['CUDA_WORKER_DIED', 'CUDA_BUSY', 'CANCELLED', 'STEP_TIMEOUT', 'CONTAINER_GONE']);

describe('the program that calls the driver is killed', () => {
  test.each(CHANGING.flatMap((call) => [[call, 'abort once'] as const, [call, 'abort after once'] as const]))(
    'in a checkpoint, %s (%s): the process runs, and there is an artifact in the end',
    async (call, what) => {
      const { name, source, hash } = await runNamed();
      fault(call, name, what);
      await markReady(source.container);
      expect(await lastEnd('checkpoint', source.container)).toMatchObject({ msg: 'operation succeeded' });
      expect(hasArtifact(source)).toBe(true);
      await expectWhole(source.container, hash);
      await source.pod.remove();
    },
  );

  test.each(
    (['Restore', 'Unlock'] as const).flatMap((call) => [
      [call, 'abort once'] as const,
      [call, 'abort after once'] as const,
    ]),
  )('in a restore, %s (%s): the process comes back all the same', async (call, what) => {
    const { name, source, hash } = await runNamed();
    await markReady(source.container);
    await finished(cluster, agent, source);
    fault(call, name, what);
    const { container } = await runTarget(cluster, source, node.visible(1));
    expect(await lastEnd('restore', container)).toMatchObject({ msg: 'operation succeeded' });
    await expectWhole(container, hash);
  });

  test('every time: the checkpoint fails, and says so, and the process runs', async () => {
    const { name, source, hash } = await runNamed();
    fault('Checkpoint', name, 'abort');
    await markReady(source.container);
    expect(await operationEnd(agent, 'checkpoint', source.container)).toMatchObject({
      code: 'CUDA_WORKER_DIED',
      step: 'cuda-checkpoint',
    });
    await agent.waitForLog(
      'the end of the tries',
      (line) => line['msg'] === 'not tried again' && line['containerId'] === source.container.id,
      { timeoutMs: 90_000 },
    );
    await expectWhole(source.container, hash);
    expect(hasArtifact(source)).toBe(false);
  });
});

describe('the driver', () => {
  test.each<[Call, string, string, string]>([
    ['Lock', 'error 999 once', 'cuda-lock', 'CUDA_ERROR_UNKNOWN'],
    ['Checkpoint', 'error 999 once', 'cuda-checkpoint', 'CUDA_ERROR_UNKNOWN'],
    ['Checkpoint', 'error 2 once', 'cuda-checkpoint', 'memory limit'],
    ['Lock', 'hang once', 'cuda-lock', 'took longer than'],
    ['Checkpoint', 'hang once', 'cuda-checkpoint', 'took longer than'],
    ['Checkpoint', 'hang after once', 'cuda-checkpoint', 'took longer than'],
  ])('refuses or hangs, %s (%s): the checkpoint fails in %s, and the process runs', async (call, what, step, why) => {
    const { name, source, hash } = await runNamed();
    fault(call, name, what);
    await markReady(source.container);
    const end = await operationEnd(agent, 'checkpoint', source.container);
    expect(end).toMatchObject({ code: 'CUDA_FAILED', step });
    expect(end['problem']).toContain(why);
    expect(hasArtifact(source)).toBe(false);
    await expectWhole(source.container, hash);
  });

  test('hangs when it is to unlock: it is asked again, and the process runs', async () => {
    const { name, source, hash } = await runNamed();
    fault('Unlock', name, 'hang once');
    await markReady(source.container);
    await finished(cluster, agent, source);
    await expectWhole(source.container, hash);
  });

  test('does not restore the source again: nothing is published, and the container is ended', async () => {
    const { name, source } = await runNamed();
    fault('Restore', name, 'error 1');
    await markReady(source.container);
    const end = await operationEnd(agent, 'checkpoint', source.container);
    expect(end).toMatchObject({ code: 'CUDA_LOST', step: 'resume' });
    expect(hasArtifact(source)).toBe(false);
    await source.container.ended();
  });

  test.each([
    ['Restore', 'error 2', 'CUDA_ERROR_OUT_OF_MEMORY'],
    ['Restore', 'hang', 'took longer than'],
    ['Unlock', 'error 999', 'CUDA_ERROR_UNKNOWN'],
  ] as const)('does not bring a restored process back, %s (%s): its container is ended', async (call, what, why) => {
    const { name, source } = await runNamed();
    await markReady(source.container);
    await finished(cluster, agent, source);
    fault(call, name, what);
    const { container } = await runTarget(cluster, source, node.visible(1));
    const end = await operationEnd(agent, 'restore', container);
    expect(end).toMatchObject({ code: 'CUDA_FAILED' });
    expect(end['problem']).toContain(why);
    await container.ended();
    expect(cudaStates(cluster, container)).toEqual([]);
    await source.pod.remove();
  });
});

describe('the workload is killed', () => {
  test.each(CHANGING)('in a checkpoint, %s: it is over, and there is no artifact', async (call) => {
    const { name, source } = await runNamed();
    fault(call, name, 'signal 9 once');
    await markReady(source.container);
    expect(await operationEnd(agent, 'checkpoint', source.container)).toMatchObject({ msg: 'operation failed' });
    expect(hasArtifact(source)).toBe(false);
    await source.container.ended();
  });

  test.each(['Restore', 'Unlock'] as const)('in a restore, %s: its container ends', async (call) => {
    const { name, source } = await runNamed();
    await markReady(source.container);
    await finished(cluster, agent, source);
    fault(call, name, 'signal 9 once');
    const { container } = await runTarget(cluster, source, node.visible(2));
    expect(await operationEnd(agent, 'restore', container)).toMatchObject({ msg: 'operation failed' });
    await container.ended();
    await source.pod.remove();
  });
});

describe('the agent is killed', () => {
  const kill = async () => {
    process.kill(agent.pid, 'SIGKILL');
    await agent.end('SIGKILL');
  };

  /** The next start brings the process back, and makes the checkpoint after all. */
  async function expectRecovered(source: Source, hash: string): Promise<void> {
    node.standin.clearFaults();
    gates.openAll();
    const from = agent.logs().length;
    await agent.start();
    const { container } = source;
    const settled = (line: JsonLine) => line['msg'] === 'operation of an earlier run was settled';
    await agent.waitForLog('the earlier operation to be settled', settled, { from, timeoutMs: 60_000 });
    const back = agent
      .logs()
      .slice(from)
      .filter(({ msg }) => msg === 'CUDA process of an earlier run runs again');
    expect(back).toHaveLength(1);
    await operationEnd(agent, 'checkpoint', container, { from });
    await expectWhole(container, hash);
    expect(hasArtifact(source)).toBe(true);
    await source.pod.remove();
  }

  test.each([
    ['while a process is being locked', 'Lock', 'delay 60000 after', 'locked'],
    ['when it is locked', 'Checkpoint', 'delay 60000', 'locked'],
    ['when it is checkpointed', 'Checkpoint', 'delay 60000 after', 'saved'],
    ['before it is restored at the source', 'Restore', 'delay 60000', 'saved'],
    ['before it is unlocked at the source', 'Unlock', 'delay 60000', 'locked'],
  ] as const)('in a checkpoint, %s', async (_, call, what, state) => {
    const { name, source, hash } = await runNamed();
    fault(call, name, what);
    await markReady(source.container);
    await cudaStateSeen(cluster, source.container, state);
    await kill();
    expect(cudaStates(cluster, source.container)).toEqual([state]);
    await expectRecovered(source, hash);
  });

  test('in a checkpoint, when CRIU was about to dump', async () => {
    const { source, hash } = await runNamed();
    gates.holdCriu('dump');
    await markReady(source.container);
    await gates.reached('criu-dump');
    await kill();
    expect(cudaStates(cluster, source.container)).toEqual(['saved']);
    await expectRecovered(source, hash);
  });

  test('in a restore, before the process has its device memory back: the container is ended', async () => {
    const { name, source } = await runNamed();
    await markReady(source.container);
    await finished(cluster, agent, source);
    await source.pod.remove();
    fault('Restore', name, 'delay 60000');
    const { container } = await runTarget(cluster, source, node.visible(1));
    await cudaStateSeen(cluster, container, 'saved');
    await agent.waitForLog(
      'the step before',
      (line) => line['step'] === 'continue' && line['containerId'] === container.id,
    );
    await kill();
    node.standin.clearFaults();
    await agent.start();
    await container.ended();
    expect(cudaStates(cluster, container)).toEqual([]);
  });
});

describe('a checkpoint is cancelled', () => {
  test('while device memory is copied: it is restored, and the process runs', async () => {
    const { name, source, hash } = await runNamed();
    fault('Checkpoint', name, 'delay 1500 after once');
    await markReady(source.container);
    await cudaStateSeen(cluster, source.container, 'saved');
    const client = connectTo(`unix:${agent.apiSocket}`);
    const { operations } = await client.ask('ListOperations', { namespace: 'default' });
    const running = operations.find(({ metadata }: JsonLine) => {
      const { target } = metadata as { target: { container_id: string } };
      return target.container_id === source.container.id;
    });
    await client.ask('CancelOperation', { name: running.name });
    client.close();
    expect(await operationEnd(agent, 'checkpoint', source.container)).toMatchObject({ code: 'CANCELLED' });
    expect(hasArtifact(source)).toBe(false);
    await expectWhole(source.container, hash);
  });
});
