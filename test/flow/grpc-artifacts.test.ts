import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SnapshotError } from '../../agent/errors.ts';
import { failureOf } from './grpc/client.ts';
import { artifactOf, type Started, startEndpoint } from './grpc/endpoint.ts';

let started: Started;
beforeEach(async () => {
  started = await startEndpoint();
});
afterEach(() => started.stop());

const target = { namespace: 'team-a', pod: 'worker-0', container: 'main' };

describe('the check of compatibility', () => {
  const reasons = ['CPU_FEATURES', 'KERNEL', 'GPU_MODEL'].map((code) => ({
    ...{ code, message: `${code} differs`, found: 'here', wanted: 'there', advice: 'Use another node.' },
  }));

  it('lists every mismatch of a restore, with both values and what to do', async () => {
    const { local, fake } = started;
    fake.reasons = reasons;
    const answer = await local.ask('CheckCompatibility', { target, restore: { checkpoint_id: 'ckpt' } });
    expect(answer).toEqual({ compatible: false, mismatches: reasons });
    expect(fake.calls[0]).toMatchObject({ method: 'checkRestore', request: { id: 'ckpt', version: '1' } });
  });

  it('finds nothing against a checkpoint, with the storage as the target mounts it', async () => {
    const { local, fake } = started;
    const answer = await local.ask('CheckCompatibility', { target, checkpoint: {} });
    expect(answer).toEqual({ compatible: true, mismatches: [] });
    const through = { ...target, containerId: '' };
    expect(fake.calls[0]).toMatchObject({ method: 'checkCheckpoint', request: { storage: { through, basePath: '' } } });
  });
});

describe('artifacts', () => {
  beforeEach(() => {
    for (const id of ['one', 'three', 'two']) started.fake.artifacts.set(`${id}/1`, artifactOf('team-a', id));
  });

  it('are listed in pages', async () => {
    const { local } = started;
    const first = await local.ask('ListCheckpoints', { page_size: 2 });
    const ids = (page: { checkpoints: { checkpoint_id: string }[] }) =>
      page.checkpoints.map((one) => one.checkpoint_id);
    expect(ids(first)).toEqual(['one', 'three']);
    const rest = await local.ask('ListCheckpoints', { page_size: 2, page_token: first.next_page_token });
    expect([ids(rest), rest.next_page_token]).toEqual([['two'], '']);
  });

  it('show what their record says, and who reads them', async () => {
    const { local, fake } = started;
    fake.artifacts.set('one/1', artifactOf('team-a', 'one', { readers: ['op-9'] }));
    const storage = { through: { container_id: 'aaaa' }, base_path: '/data' };
    expect(await local.ask('GetCheckpoint', { checkpoint_id: 'one', storage })).toMatchObject({
      checkpoint_id: 'one',
      version: '1',
      location: '/checkpoints/one/versions/1',
      complete: true,
      problem: null,
      readers: ['op-9'],
      record: {
        create_time: { seconds: 1_767_323_045, nanos: 678_000_000 },
        agent_version: '0.1.0',
        source: { namespace: 'team-a', pod: 'worker-0', image: 'registry/worker:1' },
        platform: { arch: 'x86_64', gpu_driver: '580.1', gpu_models: ['NVIDIA H200'], gpu_proven: true },
        sizes: { criu_bytes: 1, bulk_bytes: 2, zero_bytes: 3, rootfs_bytes: 4, shm_bytes: 0 },
        processes: 3,
        threads: 40,
        pause_seconds: 1.5,
        timings: [{ step: 'criu-dump', seconds: 0.25 }],
      },
    });
    expect(fake.calls[0]?.request).toMatchObject({ storage: { through: { containerId: 'aaaa' }, basePath: '/data' } });
  });

  it('show what is wrong with them', async () => {
    const { local, fake } = started;
    const problem = new SnapshotError('ARTIFACT_UNSIGNED', 'the record is not signed');
    fake.artifacts.set('one/1', artifactOf('team-a', 'one', { record: undefined, problem }));
    const found = await local.ask('GetCheckpoint', { checkpoint_id: 'one' });
    expect(found).toMatchObject({ complete: false, record: null });
    expect(local.statusDetails(found.problem).info.reason).toBe('ARTIFACT_UNSIGNED');
  });

  it('are verified, and what is wrong is DATA_LOSS', async () => {
    const { local, fake } = started;
    expect(await local.ask('VerifyCheckpoint', { checkpoint_id: 'one' })).toEqual({
      files: 7,
      bytes: 12_345,
      seconds: 0.5,
    });
    const problem = new SnapshotError('ARTIFACT_CORRUPT', 'criu/core-1.img has another digest');
    fake.artifacts.set('one/1', artifactOf('team-a', 'one', { problem }));
    const error = await failureOf(local.ask('VerifyCheckpoint', { checkpoint_id: 'one' }));
    expect(error.code).toBe(status.DATA_LOSS);
    expect(error.details).toContain('criu/core-1.img has another digest');
  });

  it('are deleted, and then are not there', async () => {
    const { local, fake } = started;
    expect(await local.ask('DeleteCheckpoint', { checkpoint_id: 'one', version: '1', wait_seconds: 5 })).toEqual({});
    expect(fake.calls[0]?.request).toMatchObject({ id: 'one', version: '1', waitSeconds: 5 });
    const error = await failureOf(local.ask('GetCheckpoint', { checkpoint_id: 'one' }));
    expect([error.code, local.details(error).info.reason]).toEqual([status.NOT_FOUND, 'ARTIFACT_NOT_FOUND']);
  });
});

it.each(['ListCheckpoints', 'GetCheckpoint', 'VerifyCheckpoint', 'DeleteCheckpoint'])(
  'asks nothing of the service for %s without a container to reach the volume through, where one is needed',
  async (method) => {
    const { local, fake } = started;
    fake.accessMode = 'podMount';
    const request = { checkpoint_id: 'one', version: '1', storage: { base_path: '/data' } };
    const error = await failureOf(local.ask(method, request));
    expect(error.code).toBe(status.INVALID_ARGUMENT);
    expect(local.details(error).fields.map(({ field }) => field)).toEqual(['storage.through']);
    expect(fake.calls).toEqual([]);
    expect((await local.ask('GetNodeInfo')).access_mode).toBe('ACCESS_MODE_POD_MOUNT');
  },
);

it('tells of the node and its capabilities, and why one is missing', async () => {
  expect(await started.local.ask('GetNodeInfo')).toMatchObject({
    node: 'node-a',
    access_mode: 'ACCESS_MODE_AGENT_MOUNT',
    base_path: '/checkpoints',
    criu: '4.2',
    capabilities: [
      { name: 'criu', available: true, detail: '4.2' },
      { name: 'cuda', available: false, detail: 'no driver is loaded' },
    ],
  });
});
