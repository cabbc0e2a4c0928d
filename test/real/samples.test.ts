import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { LABELS, SENTINELS } from '../../contract/keys.ts';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import type { Container } from './environment/container.ts';
import { REPOSITORY } from './environment/host.ts';
import { IMAGES } from './environment/images.ts';
import type { Pod } from './environment/pod.ts';
import {
  controlDirectory,
  freshName,
  operationEnd,
  requireSuccess,
  restored,
  type Source,
  snapshotPod,
} from './scenario.ts';

/** The workers of deploy/samples, as their manifests start them: what docs/workload.md says of them, they do. */
let cluster: Cluster;
let agent: Agent;

beforeAll(async () => {
  cluster = await Cluster.start();
  agent = await cluster.startAgent();
});

afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

interface Manifest {
  readonly spec: { readonly containers: readonly { readonly command: readonly string[] }[] };
}

const read = (name: string) => parse(readFileSync(join(REPOSITORY, 'deploy/samples', name), 'utf8'));
const commandOf = (manifest: Manifest): readonly string[] => manifest.spec.containers[0]?.command ?? [];
const said = (container: Container, event: string) =>
  container.waitForOutput(event, (line) => line['event'] === event, { timeoutMs: 30_000 });

/** A worker of a checkpoint Job, checkpointed and released. */
async function checkpointedJob(command: readonly string[]): Promise<Source & { readonly endedAt: string }> {
  const id = freshName('sample');
  const { labels, annotations } = snapshotPod({ id }, {});
  const pod = await cluster.runPod({
    name: freshName('sample-source'),
    labels: { ...labels, [LABELS.jobName]: freshName('job') },
    annotations,
  });
  const request = { image: IMAGES.placeholder, command };
  const container = await pod.run(request);
  await said(container, 'quiet');
  const end = requireSuccess(agent, await operationEnd(agent, 'checkpoint', container), container);
  expect(await container.ended()).toMatchObject({ exit_code: 0 });
  expect(container.output().map(({ event }) => event)).toContain('released');
  expect(readdirSync(controlDirectory(container))).toEqual([]);
  await pod.remove();
  return { id, version: '1', pod, container, request, endedAt: String(end['time']) };
}

const sentinelsOf = (container: Container) =>
  readdirSync(controlDirectory(container)).filter((name) => Object.values<string>(SENTINELS).includes(name));

describe('the Python worker', () => {
  const command = commandOf(read('worker-pod.yaml'));
  const get = async (pod: Pod, path: string): Promise<Record<string, unknown>> => {
    const answer = await fetch(`http://${pod.ip}:8000${path}`);
    expect(answer.status).toBe(200);
    return (await answer.json()) as Record<string, unknown>;
  };

  test('serves at once where there is no control directory, and ends with SIGTERM', async () => {
    const pod = await cluster.runPod({ name: freshName('sample-cold') });
    const container = await pod.run({ image: IMAGES.placeholder, command, control: false });
    expect(await said(container, 'serving')).toMatchObject({ pod: pod.name, token: 1000 });
    expect(await get(pod, '/generate')).toMatchObject({ pod: pod.name, token: 1001 });
    await container.stop(10);
    expect(await container.ended()).toMatchObject({ exit_code: 0 });
    await pod.remove();
  });

  test('goes on where it was, as the new pod, with randomness of its own in each of two', async () => {
    const source = await checkpointedJob(command);
    const targets = [await restored(cluster, agent, source), await restored(cluster, agent, source)];
    const samples: unknown[] = [];
    for (const { pod, container, end } of targets) {
      expect(await said(container, 'serving')).toMatchObject({ pod: pod.name, host: pod.name, token: 1000 });
      // It did not load again.
      expect(container.output().map(({ event }) => event)).toEqual(['restored', 'serving']);
      // The wall clock went on while there was no process; the monotonic clock did not.
      const { wall, monotonic } = container.output()[0] ?? {};
      const without = (Date.parse(String(end['time'])) - Date.parse(source.endedAt)) / 1000 - Number(end['seconds']);
      expect(Number(wall) - Number(monotonic)).toBeGreaterThan(without);
      expect(await get(pod, '/health')).toEqual({ pod: pod.name, intact: true });
      const answer = await get(pod, '/generate');
      expect(answer).toMatchObject({ pod: pod.name, token: 1001 });
      samples.push(answer['sample']);
      expect(sentinelsOf(container).filter((name) => name !== SENTINELS.context)).toEqual([]);
      await container.stop(10);
      expect(await container.ended()).toMatchObject({ exit_code: 0 });
    }
    expect(samples[0]).not.toBe(samples[1]);
    for (const { pod } of targets) await pod.remove();
  });

  test('restored without new seeds, two of them give the same numbers: the sample does not do that for nothing', async () => {
    const careless = command.map((word) => word.replace(/^ {8}reseed\(\)$/m, '        pass'));
    expect(careless).not.toEqual(command);
    const source = await checkpointedJob(careless);
    const samples: unknown[] = [];
    for (let count = 0; count < 2; count++) {
      const { pod, container } = await restored(cluster, agent, source);
      await said(container, 'serving');
      samples.push((await get(pod, '/generate'))['sample']);
      await pod.remove();
    }
    expect(samples[0]).toBe(samples[1]);
  });
});

describe('the shell worker', () => {
  const command = commandOf(read('shell-pod.yaml'));

  test('goes on counting, as the new pod, with a new seed', async () => {
    const source = await checkpointedJob(command);
    const seeds: unknown[] = [];
    for (let count = 0; count < 2; count++) {
      const { pod, container } = await restored(cluster, agent, source);
      const first = await said(container, 'serving');
      expect(first).toMatchObject({ pod: pod.name, count: 1001 });
      seeds.push(first['seed']);
      await container.waitForOutput('that it goes on', (line) => line['count'] === 1003);
      expect(await container.probe(['cat', '/tmp/serving'], 5)).toMatchObject({ exitCode: 0 });
      expect(sentinelsOf(container).filter((name) => name !== SENTINELS.context)).toEqual([]);
      await container.stop(10);
      expect(await container.ended()).toMatchObject({ exit_code: 0 });
      await pod.remove();
    }
    expect(seeds[0]).not.toBe(seeds[1]);
  });
});
