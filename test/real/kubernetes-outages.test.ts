import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { ANNOTATIONS, SENTINELS } from '../../contract/keys.ts';
import type { ApiCall } from '../fakes/kube-api/calls.ts';
import type { Fault } from '../fakes/kube-api/faults.ts';
import { serverError, tooManyRequests } from '../fakes/kube-api/server.ts';
import { readRbac } from '../fakes/kube-api/shipped-roles.ts';
import type { Agent } from './environment/agent.ts';
import { becomesReadyToWork, readMetrics, readReadiness } from './environment/agent-metrics.ts';
import { eventually } from './environment/host.ts';
import { KubeNode } from './environment/kube-node.ts';
import {
  becomesReady,
  dropAll,
  eventOf,
  eventReasons,
  jobEnded,
  jobStatus,
  keyOf,
  restoreEnded,
  restoreStatus,
  runJob,
  runTargetPod,
} from './kubernetes-scenario.ts';
import { artifactPath, controlDirectory, freshName } from './scenario.ts';

/** An API server that others write to as well, that is away for long, or that refuses. */
let kube: KubeNode;
let agent: Agent;

beforeAll(async () => {
  kube = await KubeNode.start();
  agent = await kube.startAgent({ config: { kubernetes: { leaseSeconds: 15 }, watch: { resyncSeconds: 5 } } });
  await becomesReadyToWork(agent);
});
afterAll(async () => {
  await kube?.stop();
  expect(kube?.cluster.leftovers()).toEqual([]);
});
afterEach(() => kube.api.heal());

/** The API goes away; the answer brings it back. */
async function outage(): Promise<(options?: { readonly forbiddenCalls: number }) => Promise<void>> {
  await kube.api.goAway();
  let isOver = false;
  const end: Awaited<ReturnType<typeof outage>> = async (options) => {
    if (!isOver) await kube.api.comeBack(options);
    isOver = true;
  };
  onTestFinished(() => end());
  return end;
}

const CONFLICT: Fault = { kind: 'refuse', code: 409, reason: 'Conflict', message: 'the object has been modified' };
const ofPod = (podKey: string) => (call: ApiCall) => call.resource === 'pods' && keyOf(call.name) === podKey;

describe('conflicts', () => {
  test('with somebody who writes the Job and its lease all the time: declared, and what they wrote stays', async () => {
    let touches = 0;
    const stop = kube.api.onCall(({ verb, resource, name }) => {
      if (touches >= 5 || !['patch jobs', 'update leases', 'delete leases'].includes(`${verb} ${resource}`)) return;
      touches += 1;
      kube.api.patch(resource as 'jobs' | 'leases', keyOf(name), { metadata: { labels: { touched: `${touches}` } } });
    });
    const job = runJob(kube);
    expect(await jobEnded(kube, job)).toBe('Complete');
    await eventually('the release of the lease', () => kube.api.get('leases', job.jobKey) === undefined || undefined);
    stop();
    const patches = kube.api.calls({ verb: 'patch', resource: 'jobs' }).map(({ status }) => status);
    expect(patches).toEqual([409, 409, 409, 409, 409, 200]);
    expect(kube.api.get('jobs', job.jobKey)?.metadata).toMatchObject({
      labels: { touched: '5' },
      annotations: { [ANNOTATIONS.checkpointStatus]: 'completed' },
    });
  });

  test.each([
    ['a conflict', CONFLICT, 409],
    ['too many requests', tooManyRequests(1), 429],
    ['an answer that is lost', { kind: 'reset', at: 'answer' } satisfies Fault, 0],
  ])('at each write about a restore: %s', async (_, fault, status) => {
    const job = runJob(kube);
    expect(await jobEnded(kube, job)).toBe('Complete');
    await eventOf(kube, job.podKey, 'CheckpointSucceeded');
    kube.api.fault({ resource: 'pods', verb: 'patch' }, fault, { times: 2 });
    kube.api.fault({ resource: 'events', verb: 'create' }, fault, { times: 2 });
    const podKey = runTargetPod(kube, job);
    await restoreEnded(kube, podKey);
    await becomesReady(kube, podKey);
    await eventOf(kube, podKey, 'RestoreSucceeded');
    expect(eventReasons(kube, podKey)).toEqual(['RestoreRequested', 'RestoreSucceeded']);
    expect(kube.api.calls({ where: ofPod(podKey) }).filter((call) => call.status === status)).toHaveLength(2);
    await kube.deletePod(podKey);
  });
});

test('an outage longer than the lease: nothing is released, lost or done twice, and all is told when the API is back', async () => {
  // One that has not begun, one that is complete, one that is refused, and a restore that is done: none could be told.
  const name = freshName('unbegun');
  const claiming = kube.api.gate({ verb: 'get', resource: 'leases', name }, 'request');
  const unbegun = runJob(kube, { name });
  const asking = await claiming.next();
  const declaring = kube.api.gate({ verb: 'patch', resource: 'jobs' }, 'request');
  const complete = runJob(kube);
  const announcing = await declaring.next();
  const refused = runJob(kube, { pod: { shareProcessNamespace: true } });
  const failing = await declaring.next();
  const podKey = runTargetPod(kube, complete);
  const target = await kube.container(podKey);
  const telling = kube.api.gate({ verb: 'patch', resource: 'pods' }, 'request');
  await target.waitForOutput('that it resumes', (line) => line['resumed'] === true);
  const ending = await telling.next();
  const comeBack = await outage();
  for (const held of [asking, announcing, failing, ending]) held.drop();
  for (const gate of [claiming, declaring, telling]) await dropAll(gate);

  // The restored worker does not wait for it.
  await becomesReady(kube, podKey);
  const isOverdue = (line: Readonly<Record<string, unknown>>) =>
    line['msg'] === 'lease' && line['kind'] === 'overdue' && line['lease'] === complete.jobKey;
  await agent.waitForLog('that the lease is overdue', isOverdue, { timeoutMs: 60_000 });
  const worker = await kube.container(complete.podKey);
  expect((await worker.status()).state).toBe('CONTAINER_RUNNING');
  expect(existsSync(join(controlDirectory(worker), SENTINELS.complete))).toBe(false);
  // The failed one was ended: its pod says why its Job failed.
  expect(await (await kube.container(refused.podKey)).ended()).toMatchObject({ exit_code: 137 });
  const waiting = await kube.container(unbegun.podKey);
  expect([(await waiting.status()).state, existsSync(artifactPath(kube.cluster.volume, unbegun))]).toEqual([
    'CONTAINER_RUNNING',
    false,
  ]);
  expect([unbegun, complete, refused].map((job) => jobStatus(kube, job))).toEqual([undefined, undefined, undefined]);

  await comeBack({ forbiddenCalls: 3 });
  expect(await jobEnded(kube, complete)).toBe('Complete');
  expect(jobStatus(kube, complete)).toBe('completed');
  await eventually('that the refused one is told', () => jobStatus(kube, refused) ?? undefined, { timeoutMs: 60_000 });
  expect([jobStatus(kube, refused), await jobEnded(kube, refused)]).toEqual(['failed', 'Failed']);
  // Its worker was ended before that could be said: nobody else begins a second checkpoint of it.
  expect(kube.api.get('leases', refused.jobKey)).toBeDefined();
  expect([await jobEnded(kube, unbegun), jobStatus(kube, unbegun)]).toEqual(['Complete', 'completed']);
  await restoreEnded(kube, podKey);
  expect(restoreStatus(kube.api.get('pods', podKey)).containerId).toBe(target.id);
  expect(target.output().filter((line) => line['resumed'] === true)).toHaveLength(1);
  await eventOf(kube, podKey, 'RestoreSucceeded');
  await eventOf(kube, refused.podKey, 'CheckpointFailed');
  await eventOf(kube, complete.podKey, 'CheckpointSucceeded');
  expect(eventReasons(kube, podKey)).toEqual(['RestoreRequested', 'RestoreSucceeded']);
  expect(eventReasons(kube, refused.podKey)).toEqual(['CheckpointRequested', 'CheckpointFailed']);
  expect(eventReasons(kube, complete.podKey)).toEqual(['CheckpointRequested', 'CheckpointSucceeded']);
  await kube.deletePod(podKey);
});

test('a Job that cannot be declared for long: its operation makes way for others, and a later look declares it and releases the worker', async () => {
  const name = freshName('undeclared');
  const declaring = kube.api.fault({ verb: 'patch', resource: 'jobs', name }, serverError(503));
  const job = runJob(kube, { name });
  const container = await kube.container(job.podKey);
  const undeclared = (step: string) =>
    agent.waitForLog(
      `that it ends in ${step}`,
      (line) => line['code'] === 'JOB_UNDECLARED' && line['containerId'] === container.id && line['step'] === step,
      { timeoutMs: 120_000 },
    );
  await undeclared('announce');
  // The artifact is found by the next look, which has no more time.
  await undeclared('adopt');
  expect([jobStatus(kube, job), (await container.status()).state]).toEqual([undefined, 'CONTAINER_RUNNING']);
  expect(existsSync(join(controlDirectory(container), SENTINELS.complete))).toBe(false);
  expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointRequested']);
  declaring.lift();
  expect(await jobEnded(kube, job)).toBe('Complete');
  expect([jobStatus(kube, job), (await container.ended()).exit_code]).toEqual(['completed', 0]);
  await eventOf(kube, job.podKey, 'CheckpointSucceeded');
  expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointRequested', 'CheckpointSucceeded']);
});

test('a pod that was known before the outage is restored during it', async () => {
  const job = runJob(kube);
  expect(await jobEnded(kube, job)).toBe('Complete');
  const artifact = artifactPath(kube.cluster.volume, job);
  renameSync(artifact, `${artifact}.away`);
  const podKey = runTargetPod(kube, job);
  const target = await kube.container(podKey);
  const isWaiting = (line: Readonly<Record<string, unknown>>) =>
    line['msg'] === 'not yet' && line['containerId'] === target.id;
  await agent.waitForLog('that it waits', isWaiting);
  const comeBack = await outage();
  renameSync(`${artifact}.away`, artifact);
  await target.waitForOutput('that it resumes', (line) => line['resumed'] === true);
  expect(await target.check()).toMatchObject({ check: 'ok', phase: 'serving' });
  expect(restoreStatus(kube.api.get('pods', podKey)).status).toBeUndefined();
  await comeBack();
  await restoreEnded(kube, podKey);
  await eventOf(kube, podKey, 'RestoreSucceeded');
  expect(eventReasons(kube, podKey)).toEqual(['RestoreRequested', 'RestoreSucceeded']);
  await kube.deletePod(podKey);
});

test('without its rules the agent starts, says why it is not ready, and works once it has them', async () => {
  await agent.end();
  kube.api.setRoles([]);
  await agent.start();
  const job = runJob(kube);
  const { reasons } = await eventually('why it is not ready', async () => {
    const answer = await readReadiness(agent);
    return answer.reasons.some((reason) => reason.includes('has not listed')) ? answer : undefined;
  });
  expect(reasons).toEqual(['the Kubernetes API has not listed the pods of this node yet']);
  expect((await readMetrics(agent)).get('snapshot_agent_ready')).toBe(0);
  const refusals = 'snapshot_agent_kubernetes_request_failures_total{verb="list",code="403"}';
  await eventually('a refusal', async () => (await readMetrics(agent)).get(refusals));
  kube.api.setRoles(readRbac().roles);
  expect(await jobEnded(kube, job)).toBe('Complete');
  expect(jobStatus(kube, job)).toBe('completed');
  await becomesReadyToWork(agent);
  expect((await readMetrics(agent)).get('snapshot_agent_ready')).toBe(1);
});
