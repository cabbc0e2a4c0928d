import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ANNOTATIONS, SENTINELS } from '../../contract/keys.ts';
import { WRITES } from '../fakes/kube-api/server.ts';
import type { Agent } from './environment/agent.ts';
import { becomesReadyToWork } from './environment/agent-metrics.ts';
import { CriuGate } from './environment/criu-gate.ts';
import { eventually } from './environment/host.ts';
import { KubeNode } from './environment/kube-node.ts';
import {
  dropAll,
  eventOf,
  eventReasons,
  jobEnded,
  jobStatus,
  restoreStatus,
  runJob,
  runTargetPod,
  type SourceJob,
} from './kubernetes-scenario.ts';
import { artifactPath, controlDirectory, operationEnd, readRecord } from './scenario.ts';

/**
 * The agent is killed at each of its writes to the API, before it is stored and after, and in the middle of CRIU's work, and started
 * again. Whatever the moment, what the API says in the end is what the record on the volume and the restored process say.
 */
let kube: KubeNode;
let agent: Agent;
let source: SourceJob;
let criu: CriuGate;

beforeAll(async () => {
  kube = await KubeNode.start();
  criu = await CriuGate.make(kube.cluster);
  agent = await kube.startAgent(criu.agent);
  await becomesReadyToWork(agent);
  source = runJob(kube);
  expect(await jobEnded(kube, source)).toBe('Complete');
});
afterAll(async () => {
  await kube?.stop();
  expect(kube?.cluster.leftovers()).toEqual([]);
});
afterEach(async () => {
  kube.api.heal();
  criu.open();
  if (!agent.running) await agent.start();
});

type Moment = 'request' | 'answer';

/** Lets the agent write so often, kills it at the write after that, and starts it again. Says which write that was. */
async function killAtWrite(nth: number, moment: Moment, begin: () => void): Promise<string> {
  const writes = kube.api.gate({ verb: WRITES }, moment);
  begin();
  for (let passed = 1; passed < nth; passed += 1) (await writes.next()).release();
  const held = await writes.next();
  await agent.end('SIGKILL');
  held.drop();
  // Others that were under way at the same time die with it.
  await dropAll(writes);
  await agent.start();
  return `${held.call.verb} ${held.call.resource} ${moment}`;
}

/** Kills the agent while CRIU is at this. */
async function killInCriu(action: 'dump' | 'restore', begin: () => void): Promise<void> {
  await criu.hold(action);
  begin();
  await criu.reached(action);
  await agent.end('SIGKILL');
  criu.open();
  await agent.start();
}

async function expectCheckpointed(job: SourceJob): Promise<void> {
  expect(await jobEnded(kube, job)).toBe('Complete');
  expect(jobStatus(kube, job)).toBe('completed');
  expect(await (await kube.container(job.podKey)).ended()).toMatchObject({ exit_code: 0 });
  const { traceId } = readRecord(artifactPath(kube.cluster.volume, job));
  expect(kube.api.get('jobs', job.jobKey)?.metadata.annotations?.[ANNOTATIONS.traceId]).toBe(traceId);
}

/** Waits for what the pod says in the end, and expects its container to be so. */
async function expectAsSaid(podKey: string): Promise<string | undefined> {
  const container = await kube.container(podKey);
  const say = () => restoreStatus(kube.api.get('pods', podKey));
  const isOver = () => say().containerId === container.id && say().status !== 'in_progress';
  await eventually('how it ended', () => isOver() || undefined, { timeoutMs: 60_000 });
  if (say().status === 'failed') {
    expect(await container.ended()).toMatchObject({ exit_code: 137 });
  } else {
    await container.waitForOutput('that it resumes', (line) => line['resumed'] === true);
    expect(await container.check()).toMatchObject({ check: 'ok', phase: 'serving' });
  }
  return say().status;
}

const each = (writes: number) =>
  (['request', 'answer'] as const).flatMap((at) => Array.from({ length: writes }, (_, n) => [n + 1, at] as const));

describe('a checkpoint', () => {
  test.each(each(5))('whose agent is killed at its write number %d, at the %s', async (nth, moment) => {
    let job = source;
    const write = await killAtWrite(nth, moment, () => {
      job = runJob(kube);
    });
    await expectCheckpointed(job);
    const reasons = ['CheckpointRequested', 'CheckpointSucceeded'];
    // Nothing but these two is left when the worker was released: an agent that dies now leaves the lease to expire, and the Job to tell.
    if (nth < 4) await eventOf(kube, job.podKey, 'CheckpointSucceeded');
    if (nth < 4)
      await eventually('that its lease is gone', () => kube.api.get('leases', job.jobKey) === undefined || undefined);
    expect([reasons, reasons.slice(0, 1)], write).toContainEqual(eventReasons(kube, job.podKey));
  });

  test.each(each(5).filter(([nth]) => nth > 2))(
    'that is refused, and whose agent is killed at its write number %d, at the %s',
    async (nth, moment) => {
      let job = source;
      const write = await killAtWrite(nth, moment, () => {
        job = runJob(kube, { pod: { shareProcessNamespace: true } });
      });
      expect([await jobEnded(kube, job), jobStatus(kube, job)], write).toEqual(['Failed', 'failed']);
      expect(await (await kube.container(job.podKey)).ended()).toMatchObject({ exit_code: 137 });
      expect(existsSync(artifactPath(kube.cluster.volume, job))).toBe(false);
      await eventOf(kube, job.podKey, 'CheckpointFailed');
      expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointRequested', 'CheckpointFailed']);
    },
  );

  test('whose agent is killed while CRIU dumps is made by the next one', async () => {
    let job = source;
    await killInCriu('dump', () => {
      job = runJob(kube);
    });
    await expectCheckpointed(job);
    await eventOf(kube, job.podKey, 'CheckpointSucceeded');
    expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointRequested', 'CheckpointSucceeded']);
  });
});

describe('a restore', () => {
  test.each(each(4))('whose agent is killed at its write number %d, at the %s', async (nth, moment) => {
    let podKey = '';
    const write = await killAtWrite(nth, moment, () => {
      podKey = runTargetPod(kube, source);
    });
    expect(await expectAsSaid(podKey)).toBe('completed');
    // What is said of the end goes out at once: an agent that dies then may lose one of the two, and the annotation is made up for.
    if (nth < 3 || write === 'patch pods request') await eventOf(kube, podKey, 'RestoreSucceeded');
    const reasons = ['RestoreRequested', 'RestoreSucceeded'];
    expect([reasons, reasons.slice(0, 1)], write).toContainEqual(eventReasons(kube, podKey));
    await kube.deletePod(podKey);
  });

  test('whose agent is killed while CRIU restores ends its container, and the pod says that it failed', async () => {
    let podKey = '';
    await killInCriu('restore', () => {
      podKey = runTargetPod(kube, source);
    });
    expect(await expectAsSaid(podKey)).toBe('failed');
    const event = await eventOf(kube, podKey, 'RestoreFailed');
    expect(event['message']).toContain('OUTCOME_UNKNOWN');
    expect(eventReasons(kube, podKey)).toEqual(['RestoreRequested', 'RestoreFailed']);
    await kube.deletePod(podKey);
  });

  test('that cannot say it is complete to its worker ends it: no worker waits for ever', async () => {
    await criu.hold('restore');
    const podKey = runTargetPod(kube, source);
    await criu.reached('restore');
    const container = await kube.container(podKey);
    // In its way: a file does not take the place of a directory.
    await mkdir(join(controlDirectory(container), SENTINELS.restored));
    await criu.release('restore');
    expect(await expectAsSaid(podKey)).toBe('failed');
    const event = await eventOf(kube, podKey, 'RestoreFailed');
    expect(event['message']).toContain(SENTINELS.restored);
    expect(await operationEnd(agent, 'restore', container)).toMatchObject({ step: 'release' });
    await kube.deletePod(podKey);
  });
});
