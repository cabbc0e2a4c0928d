import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { Agent } from './environment/agent.ts';
import { becomesReadyToWork } from './environment/agent-metrics.ts';
import type { Container } from './environment/container.ts';
import { CriuGate } from './environment/criu-gate.ts';
import { eventually } from './environment/host.ts';
import { KubeNode } from './environment/kube-node.ts';
import {
  becomesReady,
  eventOf,
  eventReasons,
  jobEnded,
  jobStatus,
  keyOf,
  restoreEnded,
  restoreStatus,
  runJob,
  runTargetPod,
  type SourceJob,
  type SourceJobRequest,
  sourceContainer,
  type TargetPodRequest,
  targetContainer,
} from './kubernetes-scenario.ts';
import { artifactPath, freshName, operationEnd } from './scenario.ts';

/** Volumes that only the pods mount (podMount), and an artifact that another node makes. */
let kube: KubeNode;
/** Of node-1; has no volume of its own. */
let agent: Agent;
let criu: CriuGate;
/** Agents of one cluster share their key. */
let key: { readonly storage: object };

beforeAll(async () => {
  kube = await KubeNode.start();
  criu = await CriuGate.make(kube.cluster);
  key = { storage: { key: { file: join(kube.cluster.sharedDirectory, 'record.key'), create: true } } };
  agent = await kube.startAgent({ ...criu.agent, accessMode: 'podMount', config: { ...criu.agent.config, ...key } });
  await becomesReadyToWork(agent);
});
afterAll(async () => {
  await kube?.stop();
  expect(kube?.cluster.leftovers()).toEqual([]);
});
afterEach(() => {
  kube.releaseReports();
  criu.open();
});

const CLAIM = { name: 'checkpoint-storage', persistentVolumeClaim: { claimName: 'checkpoints' } };
const volumeMounts = [{ name: 'checkpoint-storage', mountPath: '/checkpoints' }];
const artifactOf = (wanted: { readonly id: string; readonly version: string }) =>
  artifactPath(kube.cluster.volume, wanted);

/** A Job whose pod mounts the claim. */
const runClaimJob = (request: SourceJobRequest = {}): SourceJob =>
  runJob(kube, {
    containers: [sourceContainer({ volumeMounts })],
    ...request,
    pod: { volumes: [CLAIM], ...request.pod },
  });

/** A restore pod that mounts the claim. */
const runClaimTarget = (wanted: { readonly id: string }, { pod, ...request }: TargetPodRequest = {}): string =>
  runTargetPod(kube, wanted, {
    containers: [targetContainer({ volumeMounts })],
    ...request,
    pod: { volumes: [CLAIM], ...pod },
  });

async function expectRestored(podKey: string): Promise<Container> {
  await restoreEnded(kube, podKey);
  await becomesReady(kube, podKey);
  const restored = await kube.container(podKey);
  expect(restoreStatus(kube.api.get('pods', podKey))).toEqual({ status: 'completed', containerId: restored.id });
  expect(await restored.check()).toMatchObject({ check: 'ok', phase: 'serving' });
  return restored;
}

/** The container that comes after this one. */
const after = (podKey: string, { id }: Container) =>
  eventually('the container after it', async () => {
    const now = await kube.container(podKey);
    return now.id === id ? undefined : now;
  });

describe('in podMount mode', () => {
  test('a Job leaves its artifact on the claim of its pod, and a restore pod finds it there', async () => {
    const job = runClaimJob();
    expect(await jobEnded(kube, job)).toBe('Complete');
    expect([jobStatus(kube, job), existsSync(artifactOf(job))]).toEqual(['completed', true]);
    const podKey = runClaimTarget(job);
    await expectRestored(podKey);
    await kube.deletePod(podKey);
  });

  test('a directory of the pod that only looks like the volume is not written to, and that is said', async () => {
    const looksLike = { name: CLAIM.name, emptyDir: {} };
    const job = runJob(kube, { containers: [sourceContainer({ volumeMounts })], pod: { volumes: [looksLike] } });
    const isNamed = (line: Readonly<Record<string, unknown>>) =>
      line['msg'] === 'pod is not understood' && keyOf(String(line['pod'])) === job.podKey;
    expect(await agent.waitForLog('that it is not understood', isNamed)).toMatchObject({
      reason: 'container main mounts no persistent volume claim at /checkpoints',
    });
    await becomesReady(kube, job.podKey);
    expect([jobStatus(kube, job), eventReasons(kube, job.podKey)]).toEqual([undefined, []]);
    await kube.deletePod(job.podKey);
  });

  test('nothing is done to a worker that has ended before kubelet says so: its Job fails, and that is said', async () => {
    const job = runClaimJob({ containers: [sourceContainer({ volumeMounts, command: ['sleep', 'infinity'] })] });
    const container = await kube.container(job.podKey);
    await eventually(
      'that it runs',
      () => kube.api.get('pods', job.podKey)?.status?.['phase'] === 'Running' || undefined,
    );
    kube.holdReports();
    await container.stop();
    // Kubelet still calls it ready: only the runtime knows.
    kube.kubelet.report(job.podKey, [{ name: 'main', state: 'running', id: container.id, isReady: true }]);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect([jobStatus(kube, job), eventReasons(kube, job.podKey)]).toEqual([undefined, []]);
    kube.releaseReports();
    expect(await jobEnded(kube, job)).toBe('Failed');
    await eventOf(kube, job.podKey, 'CheckpointFailed');
    expect([jobStatus(kube, job), existsSync(artifactOf(job))]).toEqual(['failed', false]);
  });

  test('a worker that ends in the middle of its dump fails its Job', async () => {
    await criu.hold('dump');
    const job = runClaimJob();
    await criu.reached('dump');
    const container = await kube.container(job.podKey);
    await container.signal('SIGKILL');
    await criu.release('dump');
    expect(await jobEnded(kube, job)).toBe('Failed');
    expect([jobStatus(kube, job), existsSync(artifactOf(job))]).toEqual(['failed', false]);
    await eventOf(kube, job.podKey, 'CheckpointFailed');
    expect(eventReasons(kube, job.podKey)).toEqual(['CheckpointRequested', 'CheckpointFailed']);
  });

  test('a target that ends in the middle of its restore has failed, and the container after it is restored', async () => {
    const job = runClaimJob();
    expect(await jobEnded(kube, job)).toBe('Complete');
    await criu.hold('restore');
    const podKey = runClaimTarget(job, { pod: { restartPolicy: 'Always' } });
    await criu.reached('restore');
    const first = await kube.container(podKey);
    kube.holdReports();
    await first.stop();
    await criu.release('restore');
    expect(await operationEnd(agent, 'restore', first)).toMatchObject({ msg: 'operation failed' });
    await restoreEnded(kube, podKey, { status: 'failed' });
    expect(restoreStatus(kube.api.get('pods', podKey)).containerId).toBe(first.id);
    await eventOf(kube, podKey, 'RestoreFailed');
    kube.releaseReports();
    await after(podKey, first);
    await expectRestored(podKey);
    expect(eventReasons(kube, podKey)).toEqual([
      'RestoreRequested',
      'RestoreFailed',
      'RestoreRequested',
      'RestoreSucceeded',
    ]);
    await kube.deletePod(podKey);
  });
});

describe('a restore pod whose artifact is not there', () => {
  const isWaiting = async (by: Agent, podKey: string) => {
    const { id } = await kube.container(podKey);
    const said = (line: Readonly<Record<string, unknown>>) => line['msg'] === 'not yet' && line['containerId'] === id;
    return by.waitForLog('that it waits', said);
  };

  test('waits without a word, through restarts of its container, until another node has made it', async () => {
    const node2 = await kube.startAgent({ nodeName: 'node-2', config: key });
    onTestFinished(() => node2.end('SIGKILL').then(() => undefined));
    const id = freshName('ckpt');
    const podKey = runClaimTarget({ id }, { pod: { restartPolicy: 'Always' } });
    expect(await isWaiting(agent, podKey)).toMatchObject({ reason: 'the artifact is not there yet' });
    const first = await kube.container(podKey);
    await first.stop();
    const second = await after(podKey, first);
    await isWaiting(agent, podKey);
    expect([restoreStatus(kube.api.get('pods', podKey)).status, eventReasons(kube, podKey)]).toEqual([undefined, []]);

    // The other agent mounts the volume itself: its target has the same mounts all the same.
    const job = runClaimJob({ id, nodeName: 'node-2' });
    expect(await jobEnded(kube, job)).toBe('Complete');
    expect((await expectRestored(podKey)).id).toBe(second.id);
    expect(eventReasons(kube, podKey)).toEqual(['RestoreRequested', 'RestoreSucceeded']);
    await kube.deletePod(podKey);
  });

  test('and is deleted meanwhile: nothing is said of it', async () => {
    const podKey = runClaimTarget({ id: freshName('ckpt') });
    await isWaiting(agent, podKey);
    const { id } = await kube.container(podKey);
    await kube.deletePod(podKey);
    const calls = kube.api.calls({ where: ({ name }) => keyOf(name) === podKey });
    expect(calls).toEqual([]);
    expect(agent.logs().filter((line) => line['containerId'] === id && line['msg'] === 'operation failed')).toEqual([]);
  });

  test('but a file in its place: refused, and the placeholder waits on', async () => {
    const id = freshName('ckpt');
    const path = artifactOf({ id, version: '1' });
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, 'no directory');
    onTestFinished(() => rmSync(path));
    const podKey = runClaimTarget({ id });
    await restoreEnded(kube, podKey, { status: 'failed' });
    expect((await eventOf(kube, podKey, 'RestoreFailed'))['message']).toContain('STORAGE_UNSAFE');
    expect((await (await kube.container(podKey)).status()).state).toBe('CONTAINER_RUNNING');
    await kube.deletePod(podKey);
  });
});
