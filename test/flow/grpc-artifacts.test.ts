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
    expect(answer).toEqual({ compatible: false, mismatches: reasons, not_checked: [] });
    expect(fake.calls[0]).toMatchObject({ method: 'checkRestore', request: { id: 'ckpt', version: '1' } });
  });

  it('finds nothing against a checkpoint, with the storage as the target mounts it', async () => {
    const { local, fake } = started;
    const answer = await local.ask('CheckCompatibility', { target, checkpoint: {} });
    expect(answer).toEqual({ compatible: true, mismatches: [], not_checked: [] });
    const through = { ...target, containerId: '' };
    expect(fake.calls[0]).toMatchObject({ method: 'checkCheckpoint', request: { storage: { through, basePath: '' } } });
  });
});

describe('the check of an artifact against the node alone', () => {
  const check = { restore: { checkpoint_id: 'one' } };
  const reason = { code: 'KERNEL_OLDER', message: 'it is older', found: '6.1', wanted: '6.12', advice: 'Upgrade it.' };
  beforeEach(() => {
    started.fake.artifacts.set('one/1', artifactOf('team-a', 'one'));
  });

  it('lists every mismatch, and says what only a container can show', async () => {
    const { local, fake } = started;
    fake.reasons = [reason];
    const answer = await local.ask('CheckCompatibility', check);
    expect(answer).toEqual({ compatible: false, mismatches: [reason], not_checked: ['image', 'mounts'] });
    const storage = { through: { namespace: '', pod: '', container: '', containerId: '' }, basePath: '' };
    const request = { id: 'one', version: '1', storage };
    expect(fake.calls).toMatchObject([{ method: 'checkArtifact', request }]);
  });

  it('is refused where the volume can only be reached through a container, until one is named', async () => {
    const { local, fake } = started;
    fake.accessMode = 'podMount';
    const error = await failureOf(local.ask('CheckCompatibility', check));
    expect(error.code).toBe(status.INVALID_ARGUMENT);
    expect(local.details(error).fields.map(({ field }) => field)).toEqual(['storage.through']);
    expect(fake.calls).toEqual([]);
    const storage = { through: { container_id: 'aaaa' } };
    expect(await local.ask('CheckCompatibility', { ...check, storage })).toMatchObject({ compatible: true });
  });

  it('of what is not there is NOT_FOUND', async () => {
    const error = await failureOf(started.local.ask('CheckCompatibility', { restore: { checkpoint_id: 'none' } }));
    expect([error.code, started.local.details(error).info.reason]).toEqual([status.NOT_FOUND, 'ARTIFACT_NOT_FOUND']);
  });

  it.each([
    ['a checkpoint', { checkpoint: {} }, 'target'],
    ['a restore into a container that is not named', { ...check, target: {} }, 'target'],
    ['a restore of nothing', { restore: {} }, 'restore.checkpoint_id'],
  ])('does not take %s for one', async (_what, request, field) => {
    const { local, fake } = started;
    const error = await failureOf(local.ask('CheckCompatibility', request));
    expect([error.code, local.details(error).info.reason]).toEqual([status.INVALID_ARGUMENT, 'REQUEST_INVALID']);
    expect(local.details(error).fields.map((wrong) => wrong.field)).toEqual([field]);
    expect(fake.calls).toEqual([]);
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

  it('show all that decides whether they can be restored somewhere, and in lists what is short', async () => {
    const { local, fake } = started;
    const { record } = artifactOf('team-a', 'one');
    if (record === undefined) throw new Error('it has one');
    const mounts = Array.from({ length: 1_002 }, (_, index) => ({ mountPoint: `/m${index}`, fstype: 'nfs4' }));
    const changes = {
      mounts,
      memory: { limitBytes: 8 << 20, residentBytes: 4096 },
      process: { ...record.process, tty: '8800:1', controlDir: '/control' },
      files: [{ path: 'rootfs/diff.tar', size: 70, sha256: 'a'.repeat(64) }],
    };
    fake.artifacts.set('one/1', artifactOf('team-a', 'one', { record: { ...record, ...changes } }));
    const short = {
      memory_limit_bytes: 8 << 20,
      resident_bytes: 4096,
      terminal: true,
      pod_ips: ['10.0.0.1'],
      private_ipc: false,
      control_dir: '/control',
      min_reader: 1,
      sizes: { total_bytes: 70, files: 1, device_bytes: 100 },
      platform: {
        ...{ cpu_family: 6, cpu_model: 143, cgroup_version: 2, cuda_version: 13_000 },
        gpus: [{ uuid: 'GPU-1', model: 'NVIDIA H200', memory_bytes: 1000, used_bytes: 100 }],
      },
    };
    const { record: full } = await local.ask('GetCheckpoint', { checkpoint_id: 'one' });
    expect(full).toMatchObject({ ...short, mounts_left_out: 2, platform: { cpu_features: ['avx2', 'amx_tile'] } });
    expect(full.mounts).toHaveLength(1_000);
    expect(full.mounts[0]).toEqual({ mount_point: '/m0', filesystem: 'nfs4' });
    const { checkpoints } = await local.ask('ListCheckpoints');
    expect(checkpoints[0].record).toMatchObject({ ...short, mounts: [], mounts_left_out: 1_002 });
    expect(checkpoints[0].record.platform.cpu_features).toEqual([]);
  });

  it('are looked into', async () => {
    const { local, fake } = started;
    const area = {
      ...{ start: 0x7f0000000000, end: 0x7f0000400000, kind: 'file' as const, path: '/lib/libc.so.6' },
      ...{ protection: 'r-x', shared: false, storedBytes: 8192, bulkBytes: 4096 },
    };
    const process = {
      ...{ pid: 7, ppid: 1, comm: 'worker', state: 'dead' as const, threads: 3, cuda: true, deviceBytes: 100 },
      ...{ memoryBytes: 4 << 20, storedBytes: 8192, areas: [area], areasLeftOut: 2, bytesLeftOut: 8192 },
    };
    fake.contents = {
      processes: [process],
      processesLeftOut: 1,
      files: [{ path: 'criu/core-1.img', size: 12, sha256: 'a'.repeat(64) }],
      filesLeftOut: 3,
      fileBytesLeftOut: 30,
      removedPaths: 4,
    };
    const storage = { through: { container_id: 'aaaa' } };
    const answer = await local.ask('InspectCheckpoint', { checkpoint_id: 'one', storage });
    expect(answer).toEqual({
      checkpoint: await local.ask('GetCheckpoint', { checkpoint_id: 'one' }),
      processes: [
        {
          ...{ pid: 7, parent_pid: 1, name: 'worker', threads: 3, cuda: true, memory_bytes: 4 << 20 },
          ...{ stored_bytes: 8192, areas_left_out: 2, bytes_left_out: 8192, device_bytes: 100 },
          state: 'PROCESS_STATE_ENDED',
          areas: [
            {
              ...{ start: 0x7f0000000000, end: 0x7f0000400000, kind: 'MEMORY_KIND_FILE', path: '/lib/libc.so.6' },
              ...{ protection: 'r-x', shared: false, stored_bytes: 8192, bulk_bytes: 4096 },
            },
          ],
        },
      ],
      files: [{ path: 'criu/core-1.img', bytes: 12, digest: 'a'.repeat(64) }],
      ...{ processes_left_out: 1, files_left_out: 3, file_bytes_left_out: 30, removed_paths: 4 },
    });
    expect(fake.calls[0]).toMatchObject({ method: 'inspectArtifact', request: { id: 'one', version: '1' } });
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

  it('are deleted only where the namespace that is named made them', async () => {
    const { local, fake } = started;
    const request = { checkpoint_id: 'one', version: '1' };
    const error = await failureOf(local.ask('DeleteCheckpoint', { ...request, namespace: 'team-b' }));
    expect([error.code, local.details(error).info.reason]).toEqual([status.NOT_FOUND, 'ARTIFACT_NOT_FOUND']);
    expect(fake.artifacts.has('one/1')).toBe(true);
    await local.ask('DeleteCheckpoint', { ...request, namespace: 'team-a' });
    expect(fake.artifacts.has('one/1')).toBe(false);
  });

  it('are deleted, and then are not there', async () => {
    const { local, fake } = started;
    expect(await local.ask('DeleteCheckpoint', { checkpoint_id: 'one', version: '1', wait_seconds: 5 })).toEqual({});
    expect(fake.calls[0]?.request).toMatchObject({ id: 'one', version: '1', waitSeconds: 5 });
    const error = await failureOf(local.ask('GetCheckpoint', { checkpoint_id: 'one' }));
    expect([error.code, local.details(error).info.reason]).toEqual([status.NOT_FOUND, 'ARTIFACT_NOT_FOUND']);
  });
});

it.each(['ListCheckpoints', 'GetCheckpoint', 'InspectCheckpoint', 'VerifyCheckpoint', 'DeleteCheckpoint'])(
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
