import { describe, expect, it, vi } from 'vitest';
import { ANNOTATIONS, LABELS } from '../../../../contract/keys.ts';
import { failJob } from '../../../fakes/kube-api/job-controller.ts';
import { WRITES } from '../../../fakes/kube-api/server.ts';
import { eventually } from '../../kube/server.ts';
import { ID, JOB, JOB_KEY, POD, scriptedAgents, useCheckpoints } from './stage.ts';

const {
  stage,
  start,
  apply,
  statusOf,
  condition,
  declare,
  startPod,
  complete,
  holdLease,
  work,
  eventsOf,
  agentSays,
  metric,
} = useCheckpoints();

const hasJob = () => eventually(() => expect(statusOf()).toMatchObject({ phase: 'Creating', jobName: JOB }));
const isFailed = (message: string) =>
  eventually(() => expect(statusOf()).toMatchObject({ phase: 'Failed', message: expect.stringContaining(message) }));

describe('a checkpoint that works', () => {
  it('is Ready when its Job is Complete and the agent has said so, and not before', async () => {
    start();
    apply();
    await hasJob();
    expect(stage.api.get('dynamocheckpoints', 'demo/qwen')?.metadata.labels).toEqual({ [LABELS.checkpointId]: ID });
    expect(stage.api.get('jobs', JOB_KEY)?.metadata).toMatchObject({
      ...{ labels: { [LABELS.checkpointId]: ID } },
      ownerReferences: [{ kind: 'DynamoCheckpoint', name: 'qwen', controller: true }],
    });
    startPod();
    await eventually(() => expect(statusOf().message).toContain(`Job ${JOB} runs`));
    declare('completed');
    await eventually(() => expect(statusOf().message).toContain('the worker ends'));
    expect(statusOf().phase).toBe('Creating');
    complete();
    await eventually(() => expect(statusOf()).toMatchObject({ phase: 'Ready', checkpointID: ID, identityHash: ID }));
    expect(statusOf()).toMatchObject({ message: '', createdAt: expect.stringMatching(/^\d{4}-.*Z$/) });
    expect(
      statusOf()
        .conditions?.map(({ type, status }) => `${type} ${status}`)
        .sort(),
    ).toEqual([
      'ArtifactVerified Unknown',
      'JobCompleted True',
      'JobCreated True',
      'Ready True',
      'StorageReady True',
      'Supported True',
    ]);
    await eventually(() => expect(eventsOf('CheckpointReady')).toHaveLength(1));
  });

  it('is verified by an agent where one can be asked, with its node and the version of the Job', async () => {
    const asked: unknown[] = [];
    const agents = scriptedAgents({
      artifact: (name, { node }) => {
        asked.push({ ...name, node });
        return Promise.resolve({ result: 'complete' });
      },
    });
    start({ agents });
    apply('qwen', { metadata: { annotations: { [ANNOTATIONS.artifactVersion]: '7' } } });
    const key = `demo/checkpoint-job-${ID}-7`;
    await eventually(() => expect(statusOf().phase).toBe('Creating'));
    const pod = startPod(key);
    stage.api.patch('pods', `demo/${pod.metadata.name}`, { spec: { nodeName: 'node-1' } });
    declare('completed', key);
    complete(key);
    await eventually(() => expect(statusOf().phase).toBe('Ready'));
    expect(condition('ArtifactVerified')).toMatchObject({ status: 'True' });
    expect(asked).toEqual([{ namespace: 'demo', checkpointId: ID, version: '7', node: 'node-1' }]);
  });

  it('says how far the agent is', async () => {
    let percent = 0;
    const progressOf = () => {
      percent += 1;
      return Promise.resolve(`criu-dump ${percent}% of 36.0 GiB, 2.1 GB/s`);
    };
    start({ agents: scriptedAgents({ progressOf }) });
    apply();
    await hasJob();
    startPod();
    await eventually(() => expect(statusOf().message).toBe('criu-dump 3% of 36.0 GiB, 2.1 GB/s'));
  });

  it('has a Job where a field of its pod is empty', async () => {
    start();
    const main = { name: 'main', image: 'x', env: null, volumeMounts: null };
    apply('qwen', { spec: { job: { podTemplateSpec: { spec: { containers: [main], volumes: null } } } } });
    await hasJob();
  });

  it('says why its worker does not start', async () => {
    start();
    apply();
    await eventually(() => expect(statusOf().message).toContain(`Job ${JOB} has no pod yet`));
    startPod();
    const condition = { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message: '0/3 nodes' };
    stage.api.patch('pods', `demo/${POD}`, { status: { conditions: [condition] } });
    await eventually(() => expect(statusOf().message).toBe(`pod ${POD} has no node yet: Unschedulable: 0/3 nodes`));
  });

  it('does not write its progress more often than it may, whatever happens to the Job', async () => {
    let asked = 0;
    const progressOf = () => {
      asked += 1;
      return Promise.resolve(`criu-dump ${asked}%`);
    };
    start({ agents: scriptedAgents({ progressOf }), timings: { progress: 3_600_000 } });
    apply();
    await hasJob();
    startPod();
    const looks = await metric('reconciles_total');
    for (let count = 0; count < 5; count += 1) {
      const before = await metric('reconciles_total');
      stage.api.patch('jobs', JOB_KEY, { metadata: { annotations: { touched: String(count) } } });
      await vi.waitFor(async () => expect(await metric('reconciles_total')).toBeGreaterThan(before));
    }
    expect(await metric('reconciles_total')).toBeGreaterThanOrEqual(looks + 5);
    expect([asked, statusOf().message]).toEqual([0, `Job ${JOB} is made`]);
  });

  it('writes each thing once, and nothing where nothing changes', async () => {
    start();
    work();
    apply();
    await eventually(() => expect(statusOf().phase).toBe('Ready'));
    await eventually(() => expect(eventsOf('CheckpointReady')).toHaveLength(1));
    expect(await metric('status_conflicts_total')).toBe(0);
    stage.api.forgetCalls();
    stage.api.watches.reset();
    await eventually(() => expect(stage.api.calls({ verb: 'watch' }).length).toBeGreaterThanOrEqual(3));
    apply('late', { spec: { identity: { model: 'other', backendFramework: 'vllm' } } });
    await eventually(() => expect(statusOf('late').phase).toBe('Ready'));
    const ofFirst = ({ name }: { readonly name: string }) => name === 'qwen' || name === JOB;
    expect(stage.api.calls({ verb: WRITES, where: ofFirst })).toEqual([]);
  });
});

describe('a checkpoint that does not', () => {
  it('is Failed with the words of the agent, which come after the Job says so', async () => {
    start();
    apply();
    await hasJob();
    const pod = startPod();
    declare('failed');
    const words = 'checkpoint failed: CRIU_DUMP_FAILED: a socket. Close it before the checkpoint.';
    agentSays(words, pod);
    await isFailed(words);
    expect(condition('Ready')).toMatchObject({ status: 'False', reason: 'JobFailed', message: words });
    await eventually(() => expect(eventsOf('CheckpointFailed').map((event) => event['message'])).toContain(words));
  });

  it('is Failed without them where none come', async () => {
    start();
    apply();
    await hasJob();
    startPod();
    failJob(stage.api, JOB_KEY, POD);
    await isFailed(`checkpoint job ${JOB} failed: BackoffLimitExceeded: Job has reached the specified backoff limit`);
  });

  it('is Failed where the agent says so of a Job that is Complete', async () => {
    start();
    apply();
    await hasJob();
    startPod();
    declare('failed');
    complete();
    await isFailed('says that');
    expect(condition('ArtifactVerified') ?? condition('JobCompleted')).toMatchObject({ status: 'False' });
  });

  it('is Failed where the Job is Complete and no agent is at work on it', async () => {
    start();
    apply();
    await hasJob();
    startPod();
    complete();
    await isFailed('Checkpoint job completed without snapshot-agent completion confirmation');
  });

  it('waits for an agent that is at work on it, until its lease ends', async () => {
    start();
    apply();
    await hasJob();
    startPod();
    holdLease();
    complete();
    await eventually(() => expect(stage.api.calls({ resource: 'leases' }).length).toBeGreaterThan(3));
    expect(statusOf().phase).toBe('Creating');
    declare('completed');
    await eventually(() => expect(statusOf().phase).toBe('Ready'));
  });

  it('does not wait for an agent that shows no sign of life', async () => {
    start();
    apply();
    await hasJob();
    startPod();
    holdLease(1);
    complete();
    await isFailed('without snapshot-agent completion confirmation');
  });

  it('is Failed when its Job is deleted', async () => {
    start();
    apply();
    await hasJob();
    stage.api.remove('jobs', JOB_KEY);
    await isFailed('checkpoint job was deleted');
    expect(condition('Ready')?.reason).toBe('JobDeleted');
  });

  it.each([
    ['has none', { result: 'absent' }, 'sees no artifact'],
    ['cannot use it', { result: 'broken', problem: 'RECORD_INVALID' }, 'cannot be used: RECORD_INVALID'],
  ] as const)('is Failed when the agent %s', async (_, word, message) => {
    start({ agents: scriptedAgents({ artifact: () => Promise.resolve(word) }) });
    apply();
    await hasJob();
    const pod = startPod();
    stage.api.patch('pods', `demo/${pod.metadata.name}`, { spec: { nodeName: 'node-1' } });
    declare('completed');
    complete();
    await isFailed(message);
    expect(condition('ArtifactVerified')).toMatchObject({ status: 'False', reason: 'CheckpointVerificationFailed' });
  });

  it('gets no Job where it is not supported', async () => {
    start();
    apply('qwen', { spec: { gpuMemoryService: { enabled: true } } });
    await isFailed('GMS + Snapshot is temporarily disabled');
    expect(condition('Supported')).toMatchObject({ status: 'False', reason: 'GMSSnapshotDisabled' });
    expect(stage.api.list('jobs')).toEqual([]);
    expect(statusOf().jobName).toBeUndefined();
  });

  it.each([
    ['has no container of the name', { name: 'other', image: 'i' }, 'target container "main" is not in the pod'],
    [
      'has a mount in the way',
      { name: 'main', image: 'i', volumeMounts: [{ name: 'mine', mountPath: '/snapshot-control' }] },
      'container main mounts volume mine at /snapshot-control',
    ],
  ])('is Failed where its pod %s', async (_, container, message) => {
    start();
    apply('qwen', { spec: { job: { podTemplateSpec: { spec: { containers: [container] } } } } });
    await isFailed(message);
    expect(condition('JobCreated')).toMatchObject({ status: 'False', reason: 'InvalidPodTemplate' });
    expect(stage.api.list('jobs')).toEqual([]);
  });

  it.each([
    ['volumes', { volumes: 'none' }, 'spec.volumes: '],
    ['an environment', { containers: [{ name: 'main', image: 'x', env: [null] }] }, 'spec.containers.0.env.0: '],
    ['mounts', { containers: [{ name: 'main', image: 'x', volumeMounts: [{}] }] }, 'volumeMounts.0.name: '],
  ])('is Failed with %s that no pod can have', async (_, pod, field) => {
    start();
    const spec = { containers: [{ name: 'main', image: 'x' }], ...pod };
    apply('qwen', { spec: { job: { podTemplateSpec: { spec } } } });
    await isFailed('spec.job.podTemplateSpec is no pod template: ');
    expect(statusOf().message).toContain(field);
    expect(condition('Ready')?.reason).toBe('InvalidPodTemplate');
  });

  it('is Failed where something else has the name of its Job', async () => {
    stage.api.put({
      ...{ kind: 'Job', metadata: { name: JOB, namespace: 'demo' } },
      spec: { template: { spec: { restartPolicy: 'Never', containers: [{ name: 'x', image: 'x' }] } } },
    });
    start();
    apply();
    await isFailed('exists and does not belong to this checkpoint');
    expect(condition('JobCreated')?.reason).toBe('JobNameTaken');
  });
});
