import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ANNOTATIONS, SENTINELS } from '../../contract/keys.ts';
import type { Agent } from './environment/agent.ts';
import { becomesReadyToWork, readMetrics } from './environment/agent-metrics.ts';
import { eventually } from './environment/host.ts';
import { IMAGES } from './environment/images.ts';
import { KubeNode } from './environment/kube-node.ts';
import type { Probe } from './environment/pod-object.ts';
import {
  becomesReady,
  eventOf,
  eventReasons,
  isReady,
  jobEnded,
  keyOf,
  restoreEnded,
  restoreStatus,
  runJob,
  runPlainPod,
  runTargetPod,
  type SourceJob,
  sourceContainer,
  targetContainer,
} from './kubernetes-scenario.ts';
import { freshName, operationEnd, snapshotPod } from './scenario.ts';

/** Restore pods as an agent on Kubernetes works on them. */
let kube: KubeNode;
let agent: Agent;
let source: SourceJob;
/** Of the memory that was checkpointed. */
let digest: unknown;

beforeAll(async () => {
  kube = await KubeNode.start();
  agent = await kube.startAgent();
  await becomesReadyToWork(agent);
  source = runJob(kube);
  digest = (await (await kube.container(source.podKey)).ready())['digest'];
  expect(await jobEnded(kube, source)).toBe('Complete');
});
afterAll(async () => {
  await kube?.stop();
  expect(kube?.cluster.leftovers()).toEqual([]);
});
// A test that failed must not hold up those after it.
afterEach(() => {
  kube.releaseReports();
  kube.api.heal();
});

const statusOf = (podKey: string, container?: string) => restoreStatus(kube.api.get('pods', podKey), container);

async function expectRestored(podKey: string, container = 'main'): Promise<void> {
  const restored = await kube.container(podKey, container);
  expect(statusOf(podKey, container)).toEqual({ status: 'completed', containerId: restored.id });
  await restored.waitForOutput('that it resumes', (line) => line['resumed'] === true);
  expect(await restored.check()).toMatchObject({ check: 'ok', phase: 'serving', digest });
}

describe('a new pod', () => {
  test('is restored before kubelet has published its container, and told of at each turn', async () => {
    kube.holdReports();
    const telling = kube.api.gate({ verb: 'patch', resource: 'pods' }, 'answer');
    const podKey = runTargetPod(kube, source);
    const begun = await telling.next();
    const container = await kube.container(podKey);
    expect(statusOf(podKey)).toEqual({ status: 'in_progress', containerId: container.id });
    begun.release();
    telling.open();
    await restoreEnded(kube, podKey);
    expect(JSON.stringify(kube.api.get('pods', podKey)?.status)).not.toContain(container.id);
    await expectRestored(podKey);
    await eventOf(kube, podKey, 'RestoreSucceeded');
    expect(eventReasons(kube, podKey)).toEqual(['RestoreRequested', 'RestoreSucceeded']);

    // What kubelet publishes now is no news.
    kube.releaseReports();
    await becomesReady(kube, podKey);
    expect(
      kube.api.calls({ verb: 'patch', resource: 'pods', where: ({ name }) => keyOf(name) === podKey }),
    ).toHaveLength(2);
    await kube.deletePod(podKey);
  });

  test('is ready when the restored process answers its probe, not before', async () => {
    const readyAtMs: number[] = [];
    const before = await restores('succeeded');
    const podKey = runTargetPod(kube, source);
    const stop = kube.api.onChange('pods', ({ metadata }) => {
      if (keyOf(metadata.name) === podKey && isReady(kube, podKey)) readyAtMs.push(Date.now());
    });
    await becomesReady(kube, podKey);
    stop();
    const container = await kube.container(podKey);
    const resumed = container.logs().find(({ text }) => text.includes('"resumed": true'));
    expect(readyAtMs[0]).toBeGreaterThan(Date.parse(resumed?.time ?? ''));
    expect(container.output()).toContainEqual(expect.objectContaining({ sentinel: expect.stringMatching(/^done\n/) }));
    await restoreEnded(kube, podKey);
    await expectRestored(podKey);
    expect(await restores('succeeded')).toBe(before + 1);
    await kube.deletePod(podKey);
  });

  test('has one trace in its Events and the log: its own, where it names one', async () => {
    const traceId = '0123456789abcdef0123456789abcdef';
    const podKey = runTargetPod(kube, source, { annotations: { [ANNOTATIONS.traceId]: traceId } });
    await restoreEnded(kube, podKey);
    for (const reason of ['RestoreRequested', 'RestoreSucceeded'])
      expect((await eventOf(kube, podKey, reason)).metadata.annotations).toEqual({ [ANNOTATIONS.traceId]: traceId });
    expect(await operationEnd(agent, 'restore', await kube.container(podKey))).toMatchObject({ traceId });
    await kube.deletePod(podKey);
  });
});

const restores = async (result: string, code = '') =>
  (await readMetrics(agent)).get(
    `snapshot_agent_operations_total{operation="restore",result="${result}",code="${code}"}`,
  ) ?? 0;

test('probes that are always under way hold up neither a checkpoint nor a restore', async () => {
  const slow = (file: string): Probe => ({
    exec: { command: ['sh', '-c', `cat ${file}; code=$?; sleep 0.8; exit $code`] },
    timeoutSeconds: 5,
  });
  const readinessProbe = slow(`/snapshot-control/${SENTINELS.ready}`);
  const job = runJob(kube, { containers: [sourceContainer({ readinessProbe })] });
  expect(await jobEnded(kube, job)).toBe('Complete');
  const podKey = runTargetPod(kube, job, { containers: [targetContainer({ startupProbe: slow('/tmp/serving') })] });
  await restoreEnded(kube, podKey);
  await becomesReady(kube, podKey);
  expect(await (await kube.container(podKey)).check()).toMatchObject({ check: 'ok', phase: 'serving' });
  await kube.deletePod(podKey);
});

describe('a pod that runs already', () => {
  test('is restored when labels and annotations are patched onto it', async () => {
    const name = freshName('patched');
    const podKey = runPlainPod(kube, { name, spec: { nodeName: 'node-1', containers: [targetContainer()] } });
    await kube.container(podKey);
    await eventually('that it runs', () => kube.api.get('pods', podKey)?.status?.['phase'] === 'Running' || undefined);
    expect([isReady(kube, podKey), statusOf(podKey).status]).toEqual([false, undefined]);
    kube.api.patch('pods', podKey, { metadata: snapshotPod({ id: source.id }) });
    await restoreEnded(kube, podKey);
    await becomesReady(kube, podKey);
    await expectRestored(podKey);
    await kube.deletePod(podKey);
  });

  test('is left alone where what is patched onto it is not understood', async () => {
    const name = freshName('patched');
    const spec = { nodeName: 'node-1', containers: [targetContainer()] };
    const podKey = runPlainPod(kube, { name, labels: snapshotPod({ id: source.id }).labels, spec });
    const isNamed = (line: Readonly<Record<string, unknown>>) =>
      line['msg'] === 'pod is not understood' && line['pod'] === name;
    expect(await agent.waitForLog('that it is not understood', isNamed)).toMatchObject({
      reason: expect.stringContaining('snapshot-target-containers is missing'),
    });
    // Put right, it is looked at again.
    kube.api.patch('pods', podKey, { metadata: snapshotPod({ id: source.id }) });
    await restoreEnded(kube, podKey);
    await kube.deletePod(podKey);
  });
});

describe('the containers of a pod', () => {
  test('are restored each by itself: one that is refused says so, and keeps nothing from the other', async () => {
    const other = targetContainer({
      name: 'other',
      image: IMAGES.workload,
      command: ['sleep', 'infinity'],
      env: [{ name: 'DYN_SNAPSHOT_RESTORE_STANDBY', value: '' }],
    });
    const podKey = runTargetPod(kube, source, {
      containers: [targetContainer(), other, targetContainer({ name: 'third' })],
    });
    await Promise.all([
      restoreEnded(kube, podKey),
      restoreEnded(kube, podKey, { container: 'third' }),
      restoreEnded(kube, podKey, { container: 'other', status: 'failed' }),
    ]);
    await expectRestored(podKey);
    await expectRestored(podKey, 'third');
    const refused = await kube.container(podKey, 'other');
    expect(statusOf(podKey, 'other')).toEqual({ status: 'failed', containerId: refused.id });
    // Refused before anything was touched: the placeholder waits on.
    expect((await refused.status()).state).toBe('CONTAINER_RUNNING');
    const event = await eventOf(kube, podKey, 'RestoreFailed');
    expect(event).toMatchObject({
      type: 'Warning',
      involvedObject: { fieldPath: 'spec.containers{other}' },
      message: expect.stringContaining('RESTORE_REFUSED'),
    });
    expect(eventReasons(kube, podKey).filter((reason) => reason === 'RestoreFailed')).toHaveLength(1);
    expect(isReady(kube, podKey)).toBe(false);
    await kube.deletePod(podKey);
  });
});

describe('a fresh container', () => {
  test('gets one attempt: a restored one that was started again is restored again', async () => {
    const podKey = runTargetPod(kube, source, { pod: { restartPolicy: 'Always' } });
    await restoreEnded(kube, podKey);
    await becomesReady(kube, podKey);
    const first = await kube.container(podKey);
    await first.signal('SIGKILL');
    const second = await eventually('the container after it', async () => {
      const now = await kube.container(podKey);
      return now.id === first.id ? undefined : now;
    });
    await eventually(
      'the second restore',
      () => (statusOf(podKey).containerId === second.id && statusOf(podKey).status === 'completed') || undefined,
      { timeoutMs: 60_000 },
    );
    await becomesReady(kube, podKey);
    await expectRestored(podKey);
    await eventually('its Events', () => eventReasons(kube, podKey).length === 4 || undefined);
    expect(eventReasons(kube, podKey)).toEqual([
      'RestoreRequested',
      'RestoreSucceeded',
      'RestoreRequested',
      'RestoreSucceeded',
    ]);
    await kube.deletePod(podKey);
  });

  test('of a refusal that would come again is refused without another look', async () => {
    const image = {
      image: IMAGES.workload,
      command: ['sleep', 'infinity'],
      env: [{ name: 'DYN_SNAPSHOT_RESTORE_STANDBY', value: '' }],
    };
    const podKey = runTargetPod(kube, source, {
      containers: [targetContainer(image)],
      pod: { restartPolicy: 'Always' },
    });
    await restoreEnded(kube, podKey, { status: 'failed' });
    const first = await kube.container(podKey);
    expect(await operationEnd(agent, 'restore', first)).toMatchObject({
      result: 'refused',
      reasons: [{ code: 'IMAGE' }],
    });
    await first.stop();
    const second = await eventually('the container after it', async () => {
      const now = await kube.container(podKey);
      return now.id === first.id ? undefined : now;
    });
    const end = await operationEnd(agent, 'restore', second);
    expect(end).toMatchObject({
      result: 'refused',
      reasons: [],
      problem: expect.stringContaining('was refused for this pod on this node before'),
    });
    await eventually('that it is said', () => statusOf(podKey).containerId === second.id || undefined);
    expect(statusOf(podKey)).toEqual({ status: 'failed', containerId: second.id });
    await kube.deletePod(podKey);
  });
});

test('a restored container is left in peace by an agent that starts again, be it without what it remembered', async () => {
  const podKey = runTargetPod(kube, source);
  await restoreEnded(kube, podKey);
  await becomesReady(kube, podKey);
  await eventOf(kube, podKey, 'RestoreSucceeded');
  const state = join(kube.cluster.directory, 'agents/state-node-1');
  for (const lose of [() => undefined, () => rm(join(state, 'journal.jsonl'))]) {
    await agent.end('SIGKILL');
    await lose();
    const from = agent.logs().length;
    await agent.start();
    await agent.waitForLog('its start', (line) => line['msg'] === 'started', { from });
    await becomesReadyToWork(agent);
    // Another target is restored meanwhile, so this one was looked at.
    const other = runTargetPod(kube, source);
    await restoreEnded(kube, other);
    await kube.deletePod(other);
    await expectRestored(podKey);
  }
  const restored = await kube.container(podKey);
  expect(restored.output().filter((line) => line['resumed'] === true)).toHaveLength(1);
  expect(eventReasons(kube, podKey)).toEqual(['RestoreRequested', 'RestoreSucceeded']);
  await kube.deletePod(podKey);
});
