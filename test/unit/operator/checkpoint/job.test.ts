import { describe, expect, it } from 'vitest';
import { ANNOTATIONS, LABELS } from '../../../../contract/keys.ts';
import { ShapingError } from '../../../../contract/shaping-error.ts';
import type { StorageSource } from '../../../../contract/storage-volume.ts';
import type { Container, Job } from '../../../../kube/objects.ts';
import { jobOf } from '../../../../operator/checkpoint/job.ts';
import type { Json } from '../../../fakes/kube-api/resources.ts';
import { checkpoint, ID, JOB, STORAGE } from './samples.ts';

const attempt = { checkpointId: ID, version: '1', jobName: JOB };
const { storage } = STORAGE as { storage: StorageSource };
const seccomp = { disabled: false, profile: '' };
const made = (of: ReturnType<typeof checkpoint>, more: Partial<Parameters<typeof jobOf>[1]> = {}) =>
  jobOf(of, { attempt, storage, seccomp, ...more }) as unknown as Job;
const main = (job: Job) => job.spec?.template.spec?.containers[0] as Container;
const withJob = (job: Json) => checkpoint({ spec: (spec) => ({ ...spec, job: { ...(spec['job'] as Json), ...job } }) });
const withContainer = (container: Json, pod: Json = {}) =>
  withJob({ podTemplateSpec: { spec: { containers: [{ name: 'main', image: 'i', ...container }], ...pod } } });

describe('the Job of a checkpoint', () => {
  it('is owned by it, has one attempt, and ends in time', () => {
    const job = made(checkpoint());
    expect(job.metadata).toEqual({
      name: JOB,
      namespace: 'demo',
      labels: { [LABELS.checkpointId]: ID },
      ownerReferences: [
        {
          ...{ apiVersion: 'nvidia.com/v1alpha1', kind: 'DynamoCheckpoint', name: 'qwen', uid: 'uid-qwen' },
          ...{ controller: true, blockOwnerDeletion: true },
        },
      ],
    });
    expect(job.spec).toMatchObject({ backoffLimit: 0, activeDeadlineSeconds: 3600, ttlSecondsAfterFinished: 300 });
    expect(job.spec?.template.spec).toMatchObject({
      restartPolicy: 'Never',
      securityContext: { seccompProfile: { type: 'Localhost', localhostProfile: 'profiles/block-iouring.json' } },
    });
    expect(job.spec?.template.metadata).toMatchObject({
      labels: { [LABELS.checkpointSource]: 'true', [LABELS.checkpointId]: ID },
      annotations: { [ANNOTATIONS.targetContainers]: 'main', [ANNOTATIONS.artifactVersion]: '1' },
    });
  });

  it('gives the worker what workers expect', () => {
    const job = made(checkpoint());
    const env = Object.fromEntries((main(job).env ?? []).map(({ name, value }) => [name, value]));
    expect(env).toEqual({
      DYN_SNAPSHOT_CONTROL_DIR: '/snapshot-control',
      NCCL_CUMEM_ENABLE: '0',
      NCCL_P2P_DISABLE: '1',
      NCCL_NVLS_ENABLE: '0',
      NCCL_IB_DISABLE: '1',
      NCCL_RAS_ENABLE: '0',
      TORCH_NCCL_ENABLE_MONITORING: '0',
      TORCH_NCCL_DUMP_ON_TIMEOUT: '0',
    });
    expect(main(job).volumeMounts).toEqual([
      { name: 'snapshot-control', mountPath: '/snapshot-control', subPath: 'main' },
      { name: 'shared-memory', mountPath: '/dev/shm' },
      { name: 'podinfo', mountPath: '/etc/podinfo', readOnly: true },
    ]);
    const volumes = job.spec?.template.spec?.volumes ?? [];
    expect(volumes).toContainEqual({ name: 'shared-memory', emptyDir: { medium: 'Memory', sizeLimit: '8Gi' } });
    const info = volumes.find(({ name }) => name === 'podinfo')?.downwardAPI?.items?.map(({ path }) => path);
    expect(info).toEqual(expect.arrayContaining(['pod_name', 'pod_uid', 'pod_namespace', 'dyn_namespace']));
  });

  it('keeps what the pod says itself', () => {
    const own = withContainer(
      {
        env: [{ name: 'NCCL_IB_DISABLE', value: '0' }],
        volumeMounts: [
          { name: 'shm', mountPath: '/dev/shm/' },
          { name: 'facts', mountPath: '/etc/podinfo' },
        ],
      },
      {
        volumes: [
          { name: 'shm', emptyDir: { medium: 'Memory' } },
          { name: 'facts', emptyDir: {} },
        ],
      },
    );
    const job = made(own);
    expect(main(job).env?.filter(({ name }) => name === 'NCCL_IB_DISABLE')).toEqual([
      { name: 'NCCL_IB_DISABLE', value: '0' },
    ]);
    const names = job.spec?.template.spec?.volumes?.map(({ name }) => name);
    expect(names).toEqual(['shm', 'facts', 'snapshot-control']);
  });

  it.each([
    ['of another size', { sharedMemory: { size: '16Gi' } }, { medium: 'Memory', sizeLimit: '16Gi' }],
    ['not at all', { sharedMemory: { disabled: true } }, undefined],
  ])('has shared memory %s', (_, more, expected) => {
    const volumes = made(withJob(more)).spec?.template.spec?.volumes ?? [];
    expect(volumes.find(({ name }) => name === 'shared-memory')?.emptyDir).toEqual(expected);
  });

  it('gives another container of the pod nothing of it', () => {
    const two = withJob({
      targetContainerName: 'worker',
      podTemplateSpec: {
        spec: {
          containers: [
            { name: 'side', image: 's' },
            { name: 'worker', image: 'w' },
          ],
        },
      },
    });
    const [side, worker] = made(two).spec?.template.spec?.containers ?? [];
    expect(side).toEqual({ name: 'side', image: 's' });
    expect(worker?.env?.length).toBeGreaterThan(5);
  });

  it('starts the worker by cuda-checkpoint only where that is asked for', () => {
    const annotations = { [ANNOTATIONS.wrapLaunchJob]: 'true' };
    const wrapped = {
      ...withContainer({ command: ['serve'], args: ['x'] }),
      metadata: checkpoint({ annotations }).metadata,
    };
    expect(main(made(wrapped))).toMatchObject({
      command: ['cuda-checkpoint'],
      args: ['--launch-job', 'serve', 'x'],
    });
    expect(main(made(withContainer({ command: ['serve'] }))).command).toEqual(['serve']);
    expect(() => made(checkpoint({ annotations }))).toThrow(
      'checkpoint job requires container.command when cuda-checkpoint launch-job wrapping is enabled',
    );
  });

  it.each([
    [{ disabled: true, profile: '' }, undefined],
    [
      { disabled: false, profile: 'profiles/own.json' },
      { type: 'Localhost', localhostProfile: 'profiles/own.json' },
    ],
  ])('runs under the profile of %j', (config, profile) => {
    const job = made(checkpoint(), { seccomp: config });
    expect(job.spec?.template.spec?.securityContext?.seccompProfile).toEqual(profile);
  });

  it.each([
    [
      'a volume with a name that is kept',
      withContainer({}, { volumes: [{ name: 'shared-memory', hostPath: { path: '/x' } }] }),
      'volume shared-memory is no emptyDir; the name is kept for what is mounted at /dev/shm',
    ],
    [
      'a volume named podinfo of another kind',
      withContainer({}, { volumes: [{ name: 'podinfo', emptyDir: {} }] }),
      'volume podinfo is no downwardAPI',
    ],
    [
      'no container of the name',
      withJob({ targetContainerName: 'worker' }),
      'target container "worker" is not in the pod',
    ],
  ])('is refused for %s', (_, of, message) => {
    expect(() => made(of)).toThrow(ShapingError);
    expect(() => made(of)).toThrow(message);
  });
});
