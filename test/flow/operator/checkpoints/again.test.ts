import { describe, expect, it } from 'vitest';
import { readDynamoCheckpoint } from '../../../../contract/dynamo-checkpoint.ts';
import { ANNOTATIONS } from '../../../../contract/keys.ts';
import { JobDesk } from '../../../../operator/checkpoint/job-desk.ts';
import { readJob } from '../../../../operator/checkpoint/job-view.ts';
import type { Json } from '../../../fakes/kube-api/resources.ts';
import { eventually } from '../../kube/server.ts';
import { CLAIM, ID, JOB, JOB_KEY, useCheckpoints } from './stage.ts';

const { stage, start, apply, statusOf, condition, annotate, declare, startPod, complete, work, eventsOf } =
  useCheckpoints();

const inPhase = (phase: string, name = 'qwen') => eventually(() => expect(statusOf(name).phase).toBe(phase));
const configured = (claim: Partial<typeof CLAIM>) => ({
  storage: { pvc: { ...CLAIM, ...claim } },
  seccomp: { disabled: false, profile: '' },
});

describe('two checkpoints with one id', () => {
  it('have one owner, and one Job', async () => {
    apply('first', { metadata: { creationTimestamp: '2026-11-28T10:00:00Z' } });
    apply('second', { metadata: { creationTimestamp: '2026-11-28T11:00:00Z' } });
    start();
    await inPhase('Creating', 'first');
    await inPhase('Failed', 'second');
    expect(statusOf('second').message).toBe(`checkpoint ID ${ID} is already owned by first`);
    expect(statusOf('second').checkpointID).toBeUndefined();
    expect(stage.api.list('jobs')).toHaveLength(1);
    work();
    startPod();
    declare('completed');
    complete();
    await inPhase('Ready', 'first');
    expect(statusOf('second').phase).toBe('Failed');
  });

  it('follow each other: the second waits while the first is being deleted, and gets its own Job', async () => {
    start();
    apply('first', { metadata: { finalizers: ['test/hold'] } });
    await inPhase('Creating', 'first');
    stage.api.delete('dynamocheckpoints', 'demo/first');
    apply('second');
    await eventually(() => expect(statusOf('second').message).toContain('still owned by first'));
    expect(statusOf('second').phase).toBe('Pending');
    const firstJob = stage.api.get('jobs', JOB_KEY)?.metadata.uid;
    stage.api.patch('dynamocheckpoints', 'demo/first', { metadata: { finalizers: null } });
    await inPhase('Creating', 'second');
    expect(stage.api.get('jobs', JOB_KEY)?.metadata.uid).not.toBe(firstJob);
  });

  it('are looked at when the other one goes, without waiting for a clock', async () => {
    start({ timings: { deletion: 3_600_000 } });
    apply('first', { metadata: { finalizers: ['test/hold'] }, spec: { gpuMemoryService: { enabled: true } } });
    await inPhase('Failed', 'first');
    stage.api.delete('dynamocheckpoints', 'demo/first');
    apply('second');
    await eventually(() => expect(statusOf('second').message).toContain('still owned by first'));
    stage.api.patch('dynamocheckpoints', 'demo/first', { metadata: { finalizers: null } });
    await inPhase('Creating', 'second');
  });

  it('are not kept from a third one by the one that never had it', async () => {
    start();
    apply('owner');
    await inPhase('Creating', 'owner');
    apply('older', { metadata: { creationTimestamp: '2020-01-01T10:00:00Z' } });
    await inPhase('Failed', 'older');
    stage.api.delete('dynamocheckpoints', 'demo/owner');
    apply('third');
    await inPhase('Creating', 'third');
    expect(statusOf('older').phase).toBe('Failed');
  });
});

describe('a checkpoint is made again', () => {
  it('for another version, with another Job', async () => {
    start();
    const rest = work();
    apply();
    await inPhase('Ready');
    rest();
    annotate({ [ANNOTATIONS.artifactVersion]: '2' });
    await inPhase('Creating');
    // What was said of the first version is not said of the second.
    expect([statusOf().createdAt, condition('ArtifactVerified')]).toEqual([undefined, undefined]);
    const key = `${JOB_KEY.slice(0, -1)}2`;
    startPod(key);
    declare('completed', key);
    complete(key);
    await eventually(() => expect(statusOf()).toMatchObject({ phase: 'Ready', jobName: `checkpoint-job-${ID}-2` }));
    expect(stage.api.list('jobs')).toHaveLength(2);
  });

  it('when it failed and somebody asks for it, without the Job of the last try', async () => {
    start();
    apply();
    await inPhase('Creating');
    const failed = startPod();
    declare('failed');
    await inPhase('Failed');
    const first = stage.api.get('jobs', JOB_KEY)?.metadata.uid;
    work();
    annotate({ [ANNOTATIONS.retry]: 'now' });
    stage.api.patch('pods', `demo/${failed.metadata.name}`, { metadata: { finalizers: null } });
    await inPhase('Ready');
    expect(stage.api.get('jobs', JOB_KEY)?.metadata.uid).not.toBe(first);
    expect(stage.api.get('dynamocheckpoints', 'demo/qwen')?.metadata.annotations ?? {}).toEqual({});
    expect(condition('Ready')).toMatchObject({ status: 'True', reason: 'CheckpointReady' });
    await eventually(() => expect([eventsOf('CheckpointFailed'), eventsOf('CheckpointReady')].flat()).toHaveLength(2));
  });

  it('not before the Job of the same name is gone', async () => {
    const first = start();
    apply();
    await inPhase('Creating');
    await first.kill();
    const left = stage.api.get('jobs', JOB_KEY);
    stage.api.patch('jobs', JOB_KEY, { metadata: { finalizers: ['test/hold'] } });
    stage.api.delete('jobs', JOB_KEY);
    stage.api.patch('dynamocheckpoints', 'demo/qwen', { status: { phase: 'Pending' } });
    start();
    await eventually(() => expect(statusOf().message).toBe(`an earlier Job ${JOB} is being deleted`));
    stage.api.patch('jobs', JOB_KEY, { metadata: { finalizers: null } });
    await inPhase('Creating');
    expect(stage.api.get('jobs', JOB_KEY)?.metadata.uid).not.toBe(left?.metadata.uid);
  });

  it('without the loss of a Job that a newer try has', async () => {
    start();
    apply();
    await inPhase('Creating');
    const read = readDynamoCheckpoint(stage.api.get('dynamocheckpoints', 'demo/qwen'));
    const job = readJob(stage.api.get('jobs', JOB_KEY));
    if (read.result !== 'read' || job === undefined) throw new Error('the server has no such objects');
    // As somebody decided it who still sees the last try.
    const desk = new JobDesk(stage.client, { disabled: false, profile: '' });
    await desk.deleteFailed(read.object, job, new AbortController().signal);
    expect(stage.api.get('jobs', JOB_KEY)?.metadata).toMatchObject({ uid: job.uid });
    expect(stage.api.get('jobs', JOB_KEY)?.metadata.deletionTimestamp).toBeUndefined();
  });

  it('under the name of a deleted one, whose Job is left for a moment', async () => {
    const first = start();
    apply();
    await inPhase('Creating');
    await first.kill();
    // The garbage collector has not come to the Job yet.
    const left = stage.api.get('jobs', JOB_KEY);
    stage.api.patch('jobs', JOB_KEY, { metadata: { finalizers: ['test/hold'] } });
    stage.api.delete('dynamocheckpoints', 'demo/qwen');
    apply();
    start();
    await eventually(() => expect(statusOf().message).toContain('left from a deleted one'));
    expect(statusOf().phase).toBe('Pending');
    stage.api.patch('jobs', JOB_KEY, { metadata: { finalizers: null } });
    await inPhase('Creating');
    expect(stage.api.get('jobs', JOB_KEY)?.metadata.uid).not.toBe(left?.metadata.uid);
  });
});

describe('storage of the operator (podMount)', () => {
  it('is made where it is to be made, and the pod brings it', async () => {
    start({ config: configured({}) });
    apply();
    await inPhase('Creating');
    expect(stage.api.get('persistentvolumeclaims', 'demo/snapshot-pvc')).toMatchObject({
      metadata: {
        labels: {
          'app.kubernetes.io/name': 'dynamo',
          'app.kubernetes.io/component': 'checkpoint-storage',
          'app.kubernetes.io/managed-by': 'dynamo-operator',
        },
      },
      spec: {
        accessModes: ['ReadWriteMany'],
        volumeMode: 'Filesystem',
        resources: { requests: { storage: '1Ti' } },
      },
    });
    const template = stage.api.get('jobs', JOB_KEY)?.spec?.['template'] as {
      metadata: Json;
      spec: { volumes: Json[] };
    };
    expect(template.spec.volumes).toContainEqual({
      name: 'checkpoint-storage',
      persistentVolumeClaim: { claimName: 'snapshot-pvc' },
    });
    expect(template.metadata['annotations']).toMatchObject({
      [ANNOTATIONS.storageType]: 'pvc',
      [ANNOTATIONS.storageBasePath]: '/checkpoints',
    });
  });

  it('is waited for where it is missing, and used once somebody made it', async () => {
    start({ config: configured({ create: false }) });
    apply();
    const problem =
      'checkpoint storage PVC demo/snapshot-pvc does not exist and checkpoint.storage.pvc.create is false';
    await eventually(() => expect(statusOf()).toMatchObject({ phase: 'Pending', message: problem }));
    expect(condition('StorageReady')).toMatchObject({ status: 'False', message: problem });
    expect(stage.api.list('jobs')).toEqual([]);
    stage.api.put({ kind: 'PersistentVolumeClaim', metadata: { name: 'snapshot-pvc', namespace: 'demo' }, spec: {} });
    await inPhase('Creating');
    expect(condition('StorageReady')).toMatchObject({ status: 'True' });
    expect(stage.api.calls({ verb: 'create', resource: 'persistentvolumeclaims' })).toEqual([]);
  });

  it("is refused where the pod's own volumes are in its way", async () => {
    start({ config: configured({}) });
    const volumes = [{ name: 'checkpoint-storage', emptyDir: {} }];
    apply('qwen', {
      spec: { job: { podTemplateSpec: { spec: { containers: [{ name: 'main', image: 'i' }], volumes } } } },
    });
    await inPhase('Failed');
    expect(statusOf().message).toBe(
      'volume checkpoint-storage is not claim snapshot-pvc; the name is kept for it: call yours otherwise',
    );
    expect(stage.api.list('jobs')).toEqual([]);
  });

  it('is waited for where no agent has it (agentMount)', async () => {
    stage.api.remove('daemonsets', 'demo/snapshot-agent');
    start();
    apply();
    await eventually(() => expect(statusOf().message).toBe('no snapshot-agent daemonset found in namespace demo'));
    expect(statusOf().phase).toBe('Pending');
    expect(statusOf().jobName).toBeUndefined();
    expect(JOB).toContain(ID);
  });
});
