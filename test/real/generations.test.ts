import { lstatSync, readFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LABELS, SENTINELS } from '../../contract/keys.ts';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import type { JsonLine } from './environment/container.ts';
import { workload } from './environment/pod.ts';
import { processes } from './environment/processes.ts';
import { type RelabellingRuntime, relabellingRuntime } from './environment/relabelling.ts';
import {
  checkpointed,
  finished,
  freshName,
  markReady,
  operationEnd,
  type Restored,
  readRecord,
  requireSuccess,
  restored,
  runTarget,
  type Source,
  type SourceRequest,
  sentinel,
  snapshotPod,
} from './scenario.ts';

/** One artifact after another, and several containers from one: what the second generation gets is what the first one had. */
let cluster: Cluster;
let agent: Agent;
let runtime: RelabellingRuntime;

beforeAll(async () => {
  cluster = await Cluster.start();
  const shared = join(cluster.directory, 'shared');
  await mkdir(shared);
  runtime = await relabellingRuntime(cluster.socketPath, join(shared, 'runtime.sock'));
  agent = await cluster.startAgent({ config: { runtime: { socketPath: runtime.socketPath } } });
});

afterAll(async () => {
  runtime?.stop();
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

const memory = (mebibytes = 16) => ({ command: workload('memory', String(mebibytes)) });

describe('one artifact', () => {
  test('is restored into three pods at once', async () => {
    const source = await checkpointed(cluster, agent, memory(48));
    const { digest } = await source.container.check();
    await source.pod.remove();
    // They become targets at one moment, when all of them are there.
    const hidden = { pod: { labels: { [LABELS.checkpointId]: '' } } };
    const targets = await Promise.all([1, 2, 3].map(() => runTarget(cluster, source, hidden)));
    for (const { pod } of targets) runtime.relabel(pod.uid, snapshotPod(source));
    const ends = await Promise.all(targets.map(({ container }) => operationEnd(agent, 'restore', container)));
    for (const [index, { container }] of targets.entries()) requireSuccess(agent, ends[index] ?? {}, container);
    expect(overlap(ends)).toBe(true);
    const verdicts = await Promise.all(targets.map(({ container }) => container.check()));
    for (const [index, verdict] of verdicts.entries())
      expect(verdict).toMatchObject({ check: 'ok', digest, host: targets[index]?.pod.name });
    // They are three: what one of them writes is seen by no other, and each goes on when another one ends.
    await targets[0]?.pod.remove();
    await sleep(300);
    for (const { container } of targets.slice(1))
      expect(await container.check()).toMatchObject({ check: 'ok', digest });
    await Promise.all(targets.slice(1).map(({ pod }) => pod.remove()));
  });

  test('of one id has versions that are independent of each other', async () => {
    const id = freshName('versions');
    const [one, two] = await Promise.all(
      ['1', '2024.b-final_2'].map((version) => checkpointed(cluster, agent, { ...memory(), id, version })),
    );
    if (one === undefined || two === undefined) throw new Error('there are two');
    const digests = [(await one.container.check())['digest'], (await two.container.check())['digest']];
    expect(digests[0]).not.toBe(digests[1]);
    await Promise.all([one.pod.remove(), two.pod.remove()]);
    const targets = await Promise.all([restored(cluster, agent, one), restored(cluster, agent, two)]);
    for (const [index, { container, pod }] of targets.entries()) {
      expect(await container.check()).toMatchObject({ check: 'ok', digest: digests[index] });
      await pod.remove();
    }
  });

  test('is adopted by a source that finds it complete: released, and nothing is dumped', async () => {
    const first = await checkpointed(cluster, agent, memory());
    const record = readFileSync(join(first.artifact, 'manifest.yaml'));
    const { ino } = lstatSync(first.artifact);
    await first.pod.remove();
    const second = await checkpointed(cluster, agent, { ...memory(), id: first.id });
    expect(second.end).toMatchObject({ result: 'adopted' });
    expect(sentinel(second.container, SENTINELS.complete)).toBe('done\n');
    expect(readFileSync(join(first.artifact, 'manifest.yaml'))).toEqual(record);
    expect(lstatSync(first.artifact).ino).toBe(ino);
    expect(await second.container.check()).toMatchObject({ check: 'ok' });
    await second.pod.remove();
  });

  test('is replaced where the source asks for that', async () => {
    const first = await checkpointed(cluster, agent, memory());
    const old = await first.container.check();
    await first.pod.remove();
    const second = await checkpointed(cluster, agent, { ...memory(), id: first.id, existing: 'replace' });
    expect(second.end).toMatchObject({ result: 'succeeded' });
    const { digest } = await second.container.check();
    expect(digest).not.toBe(old['digest']);
    await second.pod.remove();
    expect(readRecord(first.artifact)).toMatchObject({
      operationId: second.end['operationId'],
      source: { containerId: second.container.id },
    });
    const target = await restored(cluster, agent, second);
    expect(await target.container.check()).toMatchObject({ check: 'ok', digest });
    await target.pod.remove();
  });
});

/** Whether all these operations were under way at one moment. */
function overlap(ends: readonly JsonLine[]): boolean {
  const spans = ends.map((end) => ({ to: Date.parse(String(end['time'])), ms: Number(end['seconds']) * 1000 }));
  return Math.max(...spans.map(({ to, ms }) => to - ms)) < Math.min(...spans.map(({ to }) => to));
}

/** A container that was restored, whose pod was made a source of another checkpoint thereafter. */
async function restoredSource(request: SourceRequest): Promise<Source> {
  const first = await checkpointed(cluster, agent, request);
  await first.pod.remove();
  const { pod, container } = await restored(cluster, agent, first);
  const id = freshName('again');
  runtime.relabel(pod.uid, snapshotPod({ id }, request));
  return { ...first, id, pod, container, request: { ...first.request, id } };
}

/** Checkpoints a restored container, and restores what comes of it into a third pod. */
async function secondGeneration(second: Source): Promise<Restored> {
  await markReady(second.container);
  const again = await finished(cluster, agent, second);
  expect(readRecord(again.artifact)).toMatchObject({
    source: { pod: second.pod.name, containerId: second.container.id },
  });
  if (second.request.after === 'stop') expect(await second.container.ended()).toMatchObject({ exit_code: 137 });
  else expect(await second.container.check()).toMatchObject({ check: 'ok', problems: [] });
  await second.pod.remove();
  const third = await restored(cluster, agent, again);
  expect(await third.container.check()).toMatchObject({ check: 'ok', problems: [], host: third.pod.name, pid: 1 });
  // Generations do not nest deeper and deeper.
  const root = await third.container.workloadPid();
  expect(processes().find(({ pid }) => pid === root)?.nspid).toHaveLength(3);
  return third;
}

describe('a restored container is checkpointed again', () => {
  test.each([
    ['files', workload('files')],
    ['a tree of processes', workload('tree')],
    ['sockets', workload('sockets')],
    ['System V objects', workload('memoryobjects', 'sysv')],
    ['timers and watches', workload('events')],
  ])('and goes on: %s', async (_, command) => {
    const third = await secondGeneration(await restoredSource({ command }));
    await sleep(300);
    expect(await third.container.check()).toMatchObject({ check: 'ok', problems: [] });
    await third.pod.remove();
  });

  test('and stopped, by an agent that did not restore it', async () => {
    const second = await restoredSource({ ...memory(), after: 'stop' });
    const { digest, beats } = await second.container.check();
    await agent.restart('SIGKILL');
    const third = await secondGeneration(second);
    const verdict = await third.container.check();
    expect(verdict).toMatchObject({ digest });
    expect(Number(verdict['beats'])).toBeGreaterThanOrEqual(Number(beats));
    await third.pod.remove();
  });
});
