import { existsSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ANNOTATIONS, LABELS, SENTINELS } from '../../contract/keys.ts';
import type { Agent } from './environment/agent.ts';
import { becomesReadyToWork } from './environment/agent-metrics.ts';
import { eventually } from './environment/host.ts';
import { KubeNode, NODE } from './environment/kube-node.ts';
import { workload } from './environment/pod.ts';
import {
  becomesReady,
  eventOf,
  eventReasons,
  jobEnded,
  jobStatus,
  keyOf,
  NAMESPACE,
  RUNS,
  runJob,
  runPlainPod,
  type SourceJob,
  sourceContainer,
} from './kubernetes-scenario.ts';
import { artifactPath, freshName, operationEnd, readRecord, sentinel, snapshotPod } from './scenario.ts';

/** Checkpoint Jobs that end in another way than they should, or were over before they began. */
let kube: KubeNode;
let agent: Agent;

beforeAll(async () => {
  kube = await KubeNode.start();
  agent = await kube.startAgent();
  await becomesReadyToWork(agent);
});
// A test that failed must not hold up those after it.
afterEach(() => {
  kube.releaseReports();
  kube.api.heal();
});
afterAll(async () => {
  await kube?.stop();
  expect(kube?.cluster.leftovers()).toEqual([]);
});

const artifactOf = (job: SourceJob) => artifactPath(kube.cluster.volume, job);
const declare = (job: SourceJob, status: 'completed' | 'failed') =>
  kube.api.patch('jobs', job.jobKey, { metadata: { annotations: { [ANNOTATIONS.checkpointStatus]: status } } });
const declarations = ({ jobKey }: SourceJob) =>
  kube.api.calls({
    verb: 'patch',
    resource: 'jobs',
    where: ({ namespace, name }) => `${namespace}/${name}` === jobKey,
  });
/** A worker that never says that it is quiet; whether it is ready is up to the test. */
const sleeper = (name = 'main') => sourceContainer({ name, command: ['sleep', 'infinity'] });

describe('a source is left alone', () => {
  test('until kubelet says that its container is ready, whatever the worker says', async () => {
    kube.holdReports();
    const job = runJob(kube);
    await (await kube.container(job.podKey)).ready();
    const from = kube.api.calls().length;
    // Some looks later than the agent needs to see it.
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    expect(
      kube.api
        .calls()
        .slice(from)
        .map(({ verb, resource }) => `${verb} ${resource}`),
    ).toEqual([]);
    expect(existsSync(artifactOf(job))).toBe(false);
    kube.releaseReports();
    expect(await jobEnded(kube, job)).toBe('Complete');
    expect(jobStatus(kube, job)).toBe('completed');
  });

  test.each([
    ['without a target', { [ANNOTATIONS.targetContainers]: ' ' }, /is missing or blank/],
    ['with two targets', { [ANNOTATIONS.targetContainers]: 'main,side' }, /expected exactly 1 target container/],
    ['with a version that is no name', { [ANNOTATIONS.artifactVersion]: '../1' }, /snapshot-artifact-version/],
    ['that is to be stopped', { [ANNOTATIONS.afterCheckpoint]: 'stop' }, /is not for the pod of a Job/],
  ])('%s', async (_, annotations, reason) => {
    const job = runJob(kube, {
      containers: [sourceContainer({ command: workload('memory', '1'), readinessProbe: RUNS })],
      annotations,
    });
    const isNamed = (line: Readonly<Record<string, unknown>>) =>
      line['msg'] === 'pod is not understood' && keyOf(String(line['pod'])) === job.podKey;
    expect(await agent.waitForLog('that it is not understood', isNamed)).toMatchObject({
      reason: expect.stringMatching(reason),
    });
    await becomesReady(kube, job.podKey);
    expect(declarations(job)).toEqual([]);
    expect(eventReasons(kube, job.podKey)).toEqual([]);
    expect((await (await kube.container(job.podKey)).status()).state).toBe('CONTAINER_RUNNING');
    await kube.deletePod(job.podKey);
  });
});

describe('a source that no Job owns', () => {
  const sourcePod = (labels: Record<string, string>) => {
    const wanted = snapshotPod({ id: freshName('ckpt') }, {});
    const spec = {
      nodeName: NODE,
      containers: [sourceContainer({ command: workload('memory', '1'), readinessProbe: RUNS })],
    };
    return runPlainPod(kube, { name: freshName('bare'), ...wanted, labels: { ...wanted.labels, ...labels }, spec });
  };
  const leaseCalls = () => kube.api.calls({ resource: 'leases' }).length;

  test('is checkpointed without a lease, and goes on', async () => {
    const before = leaseCalls();
    const podKey = sourcePod({});
    await eventOf(kube, podKey, 'CheckpointSucceeded');
    expect(eventReasons(kube, podKey)).toEqual(['CheckpointRequested', 'CheckpointSucceeded']);
    const container = await kube.container(podKey);
    expect(await container.check()).toMatchObject({ check: 'ok' });
    expect(sentinel(container, SENTINELS.complete)).toBe('done\n');
    expect(leaseCalls()).toBe(before);
    await kube.deletePod(podKey);
  });

  test('and that only says so is left alone', async () => {
    const job = runJob(kube, { containers: [sourceContainer({ command: ['sleep', 'infinity'] })] });
    const before = leaseCalls();
    const podKey = sourcePod({ [LABELS.jobName]: job.jobKey.slice(NAMESPACE.length + 1) });
    const { id } = await kube.container(podKey);
    const isOver = (line: Readonly<Record<string, unknown>>) =>
      line['msg'] === 'nothing is left to do' && line['containerId'] === id;
    expect(await agent.waitForLog('that it is left alone', isOver)).toMatchObject({
      reason: 'the Job that its label names does not own the pod',
    });
    expect([jobStatus(kube, job), eventReasons(kube, podKey), leaseCalls()]).toEqual([undefined, [], before]);
    await kube.deletePod(podKey);
    await kube.deletePod(job.podKey);
  });
});

describe('what a Job was declared stays', () => {
  test('failed before its worker was ready: no checkpoint, and the worker is ended', async () => {
    const job = runJob(kube, { containers: [sourceContainer({ command: workload('worker', '1', '1') })] });
    declare(job, 'failed');
    expect(await (await kube.container(job.podKey)).ended()).toMatchObject({ exit_code: 137 });
    expect(await jobEnded(kube, job)).toBe('Failed');
    expect([jobStatus(kube, job), existsSync(artifactOf(job)), declarations(job)]).toEqual(['failed', false, []]);
    expect((await eventOf(kube, job.podKey, 'CheckpointFailed'))['message']).toContain('was declared failed');
    expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointFailed']);
  });

  test('failed by somebody else in the middle: the artifact is there, and the worker is ended rather than released', async () => {
    const declaring = kube.api.gate({ verb: 'patch', resource: 'jobs' }, 'request');
    const job = runJob(kube);
    const held = await declaring.next();
    declare(job, 'failed');
    held.release();
    declaring.open();
    const container = await kube.container(job.podKey);
    expect(await container.ended()).toMatchObject({ exit_code: 137 });
    expect(await operationEnd(agent, 'checkpoint', container)).toMatchObject({ code: 'JOB_FAILED', step: 'announce' });
    expect(await jobEnded(kube, job)).toBe('Failed');
    expect(jobStatus(kube, job)).toBe('failed');
    expect((await eventOf(kube, job.podKey, 'CheckpointFailed'))['message']).toContain('JOB_FAILED');
    expect(container.output()).not.toContainEqual({ released: true });
  });

  test('completed, and the artifact is not there: no second one is made', async () => {
    const job = runJob(kube, { containers: [sourceContainer({ command: workload('worker', '1', '1') })] });
    declare(job, 'completed');
    expect(await (await kube.container(job.podKey)).ended()).toMatchObject({ exit_code: 137 });
    expect([jobStatus(kube, job), existsSync(artifactOf(job)), declarations(job)]).toEqual(['completed', false, []]);
    const event = await eventOf(kube, job.podKey, 'CheckpointFailed');
    expect(event['message']).toContain('JOB_FAILED');
  });
});

describe('a checkpoint that fails', () => {
  test('because it is refused: the Job is declared failed before its worker is ended, and an Event says why', async () => {
    const killedAt: (string | undefined)[] = [];
    const job = runJob(kube, { pod: { shareProcessNamespace: true } });
    const container = await kube.container(job.podKey);
    const stop = kube.api.onChange('pods', ({ metadata, status }) => {
      if (keyOf(metadata.name) === job.podKey && status?.['phase'] === 'Failed') killedAt.push(jobStatus(kube, job));
    });
    expect(await container.ended()).toMatchObject({ exit_code: 137 });
    expect(await jobEnded(kube, job)).toBe('Failed');
    stop();
    expect(killedAt[0]).toBe('failed');
    expect(existsSync(artifactOf(job))).toBe(false);
    const event = await eventOf(kube, job.podKey, 'CheckpointFailed');
    expect(event).toMatchObject({ type: 'Warning', message: expect.stringContaining('CHECKPOINT_REFUSED') });
    expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointRequested', 'CheckpointFailed']);
    await eventually('the release of the lease', () => kube.api.get('leases', job.jobKey) === undefined || undefined);
  });

  test('because another container of the pod failed: the Job too, and the others are ended', async () => {
    const side = {
      ...sourceContainer({ name: 'side', command: ['sh', '-c', 'sleep 1; exit 3'] }),
      readinessProbe: RUNS,
    };
    const job = runJob(kube, { containers: [sleeper(), side, sleeper('third')], targets: ['main'] });
    const [main, third] = await Promise.all(['main', 'third'].map((name) => kube.container(job.podKey, name)));
    expect([await main?.ended(), await third?.ended()]).toMatchObject([{ exit_code: 137 }, { exit_code: 137 }]);
    expect(await jobEnded(kube, job)).toBe('Failed');
    expect(jobStatus(kube, job)).toBe('failed');
    const event = await eventOf(kube, job.podKey, 'CheckpointFailed');
    expect(event['message']).toContain('side with status 3');
    expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointFailed']);
    expect(declarations(job)).toHaveLength(1);
  });

  test('because its Job cannot be annotated: at once, its worker is ended and not released, the artifact stays', async () => {
    const declaring = kube.api.gate({ verb: 'patch', resource: 'jobs' }, 'request');
    const job = runJob(kube);
    const held = await declaring.next();
    // Whoever may write Jobs can do this: not a byte is left of what Kubernetes allows.
    const filler = 'x'.repeat(262_144 - 'filler'.length);
    kube.api.patch('jobs', job.jobKey, { metadata: { annotations: { filler } } });
    held.release();
    declaring.open();
    const container = await kube.container(job.podKey);
    const end = await operationEnd(agent, 'checkpoint', container);
    expect(end).toMatchObject({ code: 'KUBERNETES_REFUSED', step: 'announce' });
    expect(await container.ended()).toMatchObject({ exit_code: 137 });
    expect(await jobEnded(kube, job)).toBe('Failed');
    expect([jobStatus(kube, job), existsSync(artifactOf(job))]).toEqual([undefined, true]);
    expect(container.output()).not.toContainEqual({ released: true });
    const event = await eventOf(kube, job.podKey, 'CheckpointFailed');
    expect(event['message']).toContain(`Job ${job.jobKey} cannot be annotated`);
  });

  test('not any more once it is complete: a container that fails afterwards changes nothing', async () => {
    const side = {
      ...sourceContainer({ name: 'side', command: ['sh', '-c', 'sleep 4; exit 3'] }),
      readinessProbe: RUNS,
    };
    const job = runJob(kube, { containers: [sourceContainer(), side], targets: ['main'] });
    expect(await (await kube.container(job.podKey)).ended()).toMatchObject({ exit_code: 0 });
    expect(await jobEnded(kube, job)).toBe('Failed');
    expect([jobStatus(kube, job), existsSync(artifactOf(job))]).toEqual(['completed', true]);
    expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointRequested', 'CheckpointSucceeded']);
  });
});

describe('an artifact that is complete already', () => {
  test('is taken as the one of a later Job, whose worker is released', async () => {
    const first = runJob(kube);
    expect(await jobEnded(kube, first)).toBe('Complete');
    const made = readRecord(artifactOf(first))['operationId'];
    const second = runJob(kube, { id: first.id });
    const container = await kube.container(second.podKey);
    expect(await container.ended()).toMatchObject({ exit_code: 0 });
    expect([await jobEnded(kube, second), jobStatus(kube, second)]).toEqual(['Complete', 'completed']);
    expect(await operationEnd(agent, 'checkpoint', container)).toMatchObject({ result: 'adopted' });
    expect(readRecord(artifactOf(first))['operationId']).toBe(made);
    const event = await eventOf(kube, second.podKey, 'CheckpointSucceeded');
    expect(event['message']).toContain('the artifact was there already');
  });
});
