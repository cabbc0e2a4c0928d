import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { ANNOTATIONS, SENTINELS } from '../../contract/keys.ts';
import type { Agent } from './environment/agent.ts';
import { readMetrics } from './environment/agent-metrics.ts';
import { eventually } from './environment/host.ts';
import { KubeNode } from './environment/kube-node.ts';
import { workload } from './environment/pod.ts';
import {
  becomesReady,
  eventOf,
  eventReasons,
  jobEnded,
  jobStatus,
  NAMESPACE,
  RUNS,
  restoreEnded,
  runJob,
  runTargetPod,
  sourceContainer,
} from './kubernetes-scenario.ts';
import { artifactPath, controlDirectory, operationEnd, readRecord } from './scenario.ts';

/** A checkpoint Job as an agent on Kubernetes works on it: real pods, the rules of the shipped RBAC manifest. */
let kube: KubeNode;
let agent: Agent;

beforeAll(async () => {
  kube = await KubeNode.start();
  agent = await kube.startAgent({ config: { kubernetes: { leaseSeconds: 15 } } });
});
afterEach(() => kube.api.heal());
afterAll(async () => {
  await kube?.stop();
  expect(kube?.cluster.leftovers()).toEqual([]);
});

const leaseOf = ({ jobKey }: { jobKey: string }) => kube.api.get('leases', jobKey);
const count = async (name: string) => (await readMetrics(agent)).get(`snapshot_agent_${name}`) ?? 0;

test('an annotated Job: ready, leased, checkpointed, declared complete, and only then released', async () => {
  const before = await count('operations_total{operation="checkpoint",result="succeeded",code=""}');
  const declaring = kube.api.gate({ verb: 'patch', resource: 'jobs' }, 'request');
  const job = runJob(kube, { containers: [sourceContainer({ command: workload('worker', '2', '1.5') })] });
  const container = await kube.container(job.podKey);
  const { digest } = await container.ready();
  const readyAtMs = Date.now();

  // Held at the door: the artifact is complete, and the worker still waits.
  const held = await declaring.next();
  const artifact = artifactPath(kube.cluster.volume, job);
  const record = readRecord(artifact);
  expect(Date.parse(String(record['createdAt']))).toBeGreaterThan(readyAtMs - 1_000);
  expect(jobStatus(kube, job)).toBeUndefined();
  expect(existsSync(join(controlDirectory(container), SENTINELS.complete))).toBe(false);
  expect((await container.status()).state).toBe('CONTAINER_RUNNING');

  // Meanwhile the lease is kept.
  const lease = leaseOf(job);
  expect(lease?.spec).toMatchObject({
    holderIdentity: expect.stringMatching(/^snapshot-agent\/[0-9a-f-]{36}$/),
    leaseDurationSeconds: 15,
    leaseTransitions: 0,
  });
  const owner = { apiVersion: 'batch/v1', kind: 'Job', uid: kube.api.get('jobs', job.jobKey)?.metadata.uid };
  expect(lease?.metadata.ownerReferences).toMatchObject([owner]);
  await eventually('a renewal', () => leaseOf(job)?.spec?.['renewTime'] !== lease?.spec?.['renewTime'] || undefined);
  expect(leaseOf(job)?.spec?.['acquireTime']).toBe(lease?.spec?.['acquireTime']);

  held.release();
  declaring.open();
  expect(await container.ended()).toMatchObject({ exit_code: 0 });
  expect(container.output()).toContainEqual({ released: true });
  expect(jobStatus(kube, job)).toBe('completed');
  expect(await jobEnded(kube, job)).toBe('Complete');
  await eventually('the release of the lease', () => leaseOf(job) === undefined || undefined);
  const succeeded = await eventOf(kube, job.podKey, 'CheckpointSucceeded');
  expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointRequested', 'CheckpointSucceeded']);
  expect(succeeded).toMatchObject({
    type: 'Normal',
    count: 1,
    source: { component: 'snapshot', host: 'node-1' },
    involvedObject: { kind: 'Pod', namespace: NAMESPACE, fieldPath: 'spec.containers{main}' },
  });

  // One trace in Job, Events, record and log.
  const { annotations = {} } = kube.api.get('jobs', job.jobKey)?.metadata ?? {};
  const traceId = annotations[ANNOTATIONS.traceId];
  expect(traceId).toMatch(/^[0-9a-f]{32}$/);
  expect(succeeded.metadata.annotations).toEqual({ [ANNOTATIONS.traceId]: traceId });
  expect(record).toMatchObject({ traceId });
  expect(agent.logs()).toContainEqual(expect.objectContaining({ msg: 'operation succeeded', traceId }));
  expect(await count('operations_total{operation="checkpoint",result="succeeded",code=""}')).toBe(before + 1);
  expect(await count('lease_events_total{kind="released"}')).toBeGreaterThan(0);

  // Each step is in the log with its time, and those up to the record in it, too.
  const { steps, seconds } = await operationEnd(agent, 'checkpoint', container);
  const names = [
    'resolve',
    'pin',
    'attach',
    'inspect',
    'preflight',
    'stage',
    'quiesced',
    'cuda-lock',
    'cuda-checkpoint',
    'criu-dump',
    'resume',
    'finalize',
  ];
  expect(Object.keys(steps as object)).toEqual([...names, 'publish', 'announce', 'release', 'unaccounted']);
  const sum = Object.values(steps as Record<string, number>).reduce((total, taken) => total + taken, 0);
  expect(sum).toBeCloseTo(Number(seconds), 2);
  expect((record['timings'] as { step: string }[]).map(({ step }) => step)).toEqual(names);

  const target = runTargetPod(kube, job);
  await restoreEnded(kube, target);
  await becomesReady(kube, target);
  const restored = await kube.container(target);
  expect(await restored.check()).toMatchObject({ check: 'ok', phase: 'serving', digest });
});

test('a worker that cannot be released is ended: its Job was declared complete by then, and stays so', async () => {
  const declaring = kube.api.gate({ verb: 'patch', resource: 'jobs' }, 'request');
  const job = runJob(kube, {
    containers: [sourceContainer({ command: workload('memory', '1'), readinessProbe: RUNS })],
  });
  const held = await declaring.next();
  const container = await kube.container(job.podKey);
  // In its way: a file does not take the place of a directory.
  await mkdir(join(controlDirectory(container), SENTINELS.complete));
  held.release();
  declaring.open();
  expect(await container.ended()).toMatchObject({ exit_code: 137 });
  expect(await operationEnd(agent, 'checkpoint', container)).toMatchObject({
    msg: 'operation failed',
    step: 'release',
  });
  expect(await jobEnded(kube, job)).toBe('Failed');
  expect(jobStatus(kube, job)).toBe('completed');
  const event = await eventOf(kube, job.podKey, 'CheckpointFailed');
  expect(event).toMatchObject({ type: 'Warning', message: expect.stringContaining(SENTINELS.complete) });
});

test('without the right to write Events everything else is as it should be', async () => {
  const forbidden = kube.api.fault({ resource: 'events' }, { kind: 'forbidden' });
  const job = runJob(kube);
  expect([await jobEnded(kube, job), jobStatus(kube, job)]).toEqual(['Complete', 'completed']);
  expect(forbidden.hits).toBeGreaterThan(0);
  expect(eventReasons(kube, job.podKey)).toEqual([]);
});
