import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LABELS, SENTINELS } from '../../contract/keys.ts';
import type { Agent } from './environment/agent.ts';
import { Cluster } from './environment/cluster.ts';
import { IMAGES } from './environment/images.ts';
import { workload } from './environment/pod.ts';
import {
  artifactPath,
  checkpointed,
  controlDirectory,
  finished,
  freshName,
  markReady,
  operationEnd,
  readRecord,
  requireSuccess,
  restored,
  runSource,
  runTarget,
  sentinel,
  snapshotPod,
} from './scenario.ts';

/** The contract with a worker through its control directory, and with the Job that a checkpoint is made in. */
let cluster: Cluster;
let agent: Agent;

beforeAll(async () => {
  cluster = await Cluster.start();
  // Bare pods are stopped after their checkpoint, unless they say otherwise; a Job's worker never is.
  agent = await cluster.startAgent({ config: { criu: { leaveRunning: false } } });
});

afterAll(async () => {
  await cluster?.stop();
  expect(cluster?.leftovers()).toEqual([]);
});

const ofJob = () => ({ labels: { [LABELS.jobName]: freshName('job') } });

describe('a checkpoint', () => {
  test('waits for the worker to be ready, and releases it: its Job completes', async () => {
    const id = freshName('job-checkpoint');
    const { labels, annotations } = snapshotPod({ id }, {});
    const pod = await cluster.runPod({
      name: freshName('worker'),
      labels: { ...labels, ...ofJob().labels },
      annotations,
    });
    // Its loading takes longer than the quiesce delay of those that have no control directory.
    const container = await pod.run({ image: IMAGES.placeholder, command: workload('worker', '16', '2.5') });
    const waiting = await agent.waitForLog(
      'that it waits',
      (line) => line['containerId'] === container.id && line['msg'] === 'not yet',
    );
    expect(waiting).toMatchObject({ operation: 'checkpoint', reason: expect.stringContaining(SENTINELS.ready) });
    await sleep(1200);
    const control = controlDirectory(container);
    expect(existsSync(join(control, SENTINELS.ready))).toBe(false);
    expect(existsSync(artifactPath(cluster.volume, { id, version: '1' }))).toBe(false);
    const { digest } = await container.ready();
    const quiescedAt = lstatSync(join(control, SENTINELS.ready)).mtimeMs;
    const end = requireSuccess(agent, await operationEnd(agent, 'checkpoint', container), container);
    const begun = Date.parse(String(end['time'])) - Number(end['seconds']) * 1000;
    expect(begun).toBeGreaterThan(quiescedAt - 100);

    expect(await container.ended()).toMatchObject({ exit_code: 0 });
    // Its own beats may still be written beside it.
    expect(container.output()).toContainEqual({ released: true });
    // The worker clears its sentinels; the agent leaves none of its own behind.
    expect(readdirSync(control)).toEqual([]);
    const artifact = artifactPath(cluster.volume, { id, version: '1' });
    const record = readRecord(artifact);
    expect(record['process']).toMatchObject({ controlDir: '/snapshot-control' });
    await pod.remove();

    const source = { id, version: '1', request: { command: workload('worker') } };
    const target = await restored(cluster, agent, source);
    const resumed = await target.container.waitForOutput('that it resumes', (line) => line['resumed'] === true);
    expect(resumed).toMatchObject({ identity: target.pod.name, host: target.pod.name });
    expect(await target.container.check()).toMatchObject({ check: 'ok', phase: 'serving', digest });
    await target.pod.remove();
  });

  test('of a bare pod does what the configuration says, or the pod', async () => {
    const stopped = await checkpointed(cluster, agent, { command: workload('memory', '4') });
    expect(await stopped.container.ended()).toMatchObject({ exit_code: 137 });
    const resumed = await checkpointed(cluster, agent, { command: workload('memory', '4'), after: 'resume' });
    expect(await resumed.container.check()).toMatchObject({ check: 'ok' });
    expect(sentinel(resumed.container, SENTINELS.complete)).toBe('done\n');
    await stopped.pod.remove();
    await resumed.pod.remove();
  });

  test('that is refused ends the container of a Job, and leaves any other alone', async () => {
    const shared = { command: workload('memory', '4'), after: 'resume' as const };
    const bare = await runSource(cluster, { ...shared, pod: { sharePid: true } });
    const { after: _after, ...own } = shared;
    const job = await runSource(cluster, { ...own, pod: { sharePid: true, ...ofJob() } });
    for (const { container } of [bare, job]) {
      await markReady(container);
      expect(await operationEnd(agent, 'checkpoint', container)).toMatchObject({
        result: 'refused',
        code: 'CHECKPOINT_REFUSED',
        reasons: [expect.objectContaining({ code: 'SHARED_PID_NAMESPACE' })],
      });
    }
    expect(await job.container.ended()).toMatchObject({ exit_code: 137 });
    expect(await bare.container.check()).toMatchObject({ check: 'ok' });
    expect(existsSync(artifactPath(cluster.volume, bare))).toBe(false);
    await bare.pod.remove();
    await job.pod.remove();
  });
});

describe('a restore', () => {
  /** A placeholder's own program, or the worker's, which sleeps after it wrote down whose container it is. */
  test.each([
    ['snapshot-standby', undefined],
    ['the worker as its own placeholder', workload('worker')],
  ])('tells the worker by restore-complete who it is now: %s', async (_, command) => {
    const source = await checkpointed(cluster, agent, { command: workload('worker', '8'), pod: ofJob() });
    await source.container.ended();
    await source.pod.remove();
    const target = await restored(cluster, agent, source, command && { command });
    const resumed = await target.container.waitForOutput('that it resumes', (line) => line['resumed'] === true);
    expect(resumed).toMatchObject({
      sentinel: `done\noperation=${target.end['operationId']}\nartifact=${source.id}/${source.version}\n`,
      identity: target.pod.name,
      host: target.pod.name,
    });
    expect(await target.container.check()).toMatchObject({ check: 'ok', phase: 'serving', identity: target.pod.name });
    await target.pod.remove();
  });

  test('removes a restore-complete that was there before', async () => {
    const source = await runSource(cluster, { command: workload('worker', '8'), pod: ofJob() });
    const target = await runTarget(cluster, source);
    await writeFile(join(controlDirectory(target.container), SENTINELS.restored), 'done\noperation=of-another-time\n');
    await finished(cluster, agent, source);
    const end = requireSuccess(agent, await operationEnd(agent, 'restore', target.container), target.container);
    const resumed = await target.container.waitForOutput('that it resumes', (line) => line['resumed'] === true);
    expect(resumed['sentinel']).toBe(`done\noperation=${end['operationId']}\nartifact=${source.id}/1\n`);
    expect(target.container.output().filter((line) => 'resumed' in line)).toHaveLength(1);
    await source.pod.remove();
    await target.pod.remove();
  });
});
