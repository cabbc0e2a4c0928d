import { Metadata, status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SnapshotError } from '../../agent/errors.ts';
import { WORKER } from '../fakes/agent-service.ts';
import { failureOf } from './grpc/client.ts';
import { type Started, startEndpoint } from './grpc/endpoint.ts';

let started: Started;
beforeEach(async () => {
  started = await startEndpoint();
});
afterEach(() => started.stop());

const target = { namespace: 'team-a', pod: 'worker-0', container: 'main' };
const start = { request_id: 'request-1', target, checkpoint_id: 'ckpt' };

describe('starting an operation', () => {
  it('hands a checkpoint on with all that was asked for, and answers with the operation', async () => {
    const { local, fake } = started;
    const operation = await local.ask('Checkpoint', {
      ...start,
      ...{ version: '2', base_path: '/data/ckpt', wait_seconds: 30, trace_id: 'a'.repeat(32) },
      ...{ after: 'AFTER_CHECKPOINT_STOP', existing: 'EXISTING_ARTIFACT_REPLACE' },
    });
    expect(fake.calls).toEqual([
      {
        method: 'checkpoint',
        caller: { name: 'local', namespaces: 'all' },
        request: {
          requestId: 'request-1',
          target: { ...target, containerId: '' },
          checkpointId: 'ckpt',
          version: '2',
          basePath: '/data/ckpt',
          waitSeconds: 30,
          traceId: 'a'.repeat(32),
          after: 'stop',
          existing: 'replace',
        },
      },
    ]);
    expect(operation).toMatchObject({
      name: 'op-1',
      done: false,
      metadata: {
        kind: 'OPERATION_KIND_CHECKPOINT',
        state: 'OPERATION_STATE_QUEUED',
        origin: 'OPERATION_ORIGIN_GRPC',
        cancel_effect: 'CANCEL_EFFECT_UNDONE',
        request_id: 'request-1',
        trace_id: 'a'.repeat(32),
        target: { ...target, pod_uid: 'uid-a', container_id: 'aaaa' },
        end_time: null,
      },
    });
    expect(operation.result).toBeUndefined();
  });

  it('lets the configuration and the usual version stand where nothing is said', async () => {
    await started.local.ask('Checkpoint', start);
    const request = { version: '1', after: undefined, existing: 'adopt', basePath: '', waitSeconds: 0 };
    expect(started.fake.calls[0]?.request).toMatchObject(request);
  });

  it('starts a restore into the container with an id', async () => {
    const { local, fake } = started;
    const operation = await local.ask('Restore', { ...start, target: { container_id: 'aaaa' } });
    expect(operation.metadata).toMatchObject({ kind: 'OPERATION_KIND_RESTORE', target: { pod: 'worker-0' } });
    expect(fake.calls[0]?.method).toBe('restore');
  });

  it('takes the trace id of the caller, and makes one up where it has none that can be read', async () => {
    const { local } = started;
    const traced = async (id: string, traceParent: string) => {
      const metadata = new Metadata();
      metadata.set('traceparent', traceParent);
      const operation = await local.ask('Checkpoint', { ...start, request_id: id }, {}, metadata);
      return operation.metadata.trace_id as string;
    };
    const id = '4bf92f3577b34da6a3ce929d0e0e4736';
    expect(await traced('one', `00-${id}-00f067aa0ba902b7-01`)).toBe(id);
    expect(await traced('two', 'rubbish')).toMatch(/^[0-9a-f]{32}$/);
  });

  it('answers the same request again with the recorded operation, and refuses other contents', async () => {
    const { local, fake } = started;
    const first = await local.ask('Checkpoint', start);
    fake.handle(first.name).started();
    const second = await local.ask('Checkpoint', start);
    expect(second.name).toBe(first.name);
    expect(second.metadata.state).toBe('OPERATION_STATE_RUNNING');
    const error = await failureOf(local.ask('Checkpoint', { ...start, checkpoint_id: 'other' }));
    expect(error.code).toBe(status.ALREADY_EXISTS);
    expect(local.details(error).info.reason).toBe('REQUEST_CONFLICT');
  });
});

describe('watching an operation', () => {
  it('tells each step, its bytes and its time, and ends with the finished operation', async () => {
    const { local, fake } = started;
    const { name } = await local.ask('Checkpoint', start);
    const handle = fake.handle(name);
    const watch = local.watch('WatchOperation', { name });
    await watch.until(({ metadata }) => metadata.state === 'OPERATION_STATE_QUEUED');
    handle.waiting('the container is not ready');
    await watch.until(({ metadata }) => metadata.waiting_for === 'the container is not ready');
    handle.started();
    handle.step('criu-dump', 'undone');
    handle.progress(50, 200);
    const mid = await watch.until(({ metadata }) => metadata.progress.bytes === 50);
    expect(mid.metadata).toMatchObject({ step: 'criu-dump', state: 'OPERATION_STATE_RUNNING', waiting_for: '' });
    expect(mid.metadata.progress).toMatchObject({ total_bytes: 200 });
    expect(mid.metadata.progress.bytes_per_second).toBeGreaterThan(0);
    handle.stepEnded({ step: 'criu-dump', seconds: 1.5 });
    handle.step('publish', 'too-late');
    const late = await watch.until(({ metadata }) => metadata.step === 'publish');
    expect(late.metadata).toMatchObject({ cancel_effect: 'CANCEL_EFFECT_TOO_LATE', progress: { bytes: 0 } });
    fake.end(name);
    expect(await watch.ended).toBeUndefined();
    const last = watch.seen.at(-1);
    expect(last).toMatchObject({
      done: true,
      result: 'response',
      response: { checkpoint_id: 'ckpt', version: '1', adopted: false },
      metadata: {
        state: 'OPERATION_STATE_SUCCEEDED',
        timings: [
          { step: 'criu-dump', seconds: 1.5 },
          { step: 'unaccounted', seconds: 0.001 },
        ],
        figures: { bytes: 42 },
      },
    });
    expect(last.metadata.end_time.seconds).toBeGreaterThan(1_600_000_000);
    const revisions = watch.seen.map(({ metadata }) => metadata.revision);
    expect(revisions).toEqual([...new Set(revisions)].sort((a, b) => a - b));
  });

  it('goes on after the revision that was seen last', async () => {
    const { local, fake } = started;
    const { name, metadata } = await local.ask('Checkpoint', start);
    const watch = local.watch('WatchOperation', { name, after_revision: metadata.revision });
    fake.handle(name).started();
    const next = await watch.until(() => true);
    expect(next.metadata).toMatchObject({ state: 'OPERATION_STATE_RUNNING', revision: metadata.revision + 1 });
    fake.end(name);
    expect(await watch.ended).toBeUndefined();
  });

  it('begins anew where the revision is of an earlier run of the agent', async () => {
    const { local, fake } = started;
    const { name } = await local.ask('Checkpoint', start);
    fake.end(name);
    const watch = local.watch('WatchOperation', { name, after_revision: 999 });
    expect(await watch.ended).toBeUndefined();
    expect(watch.seen.map(({ done }) => done)).toEqual([true]);
  });

  it('ends with the failure and all its details', async () => {
    const { local, fake } = started;
    const { name } = await local.ask('Restore', start);
    const watch = local.watch('WatchOperation', { name });
    const reason = { code: 'GPU_MODEL', message: 'another GPU', found: 'L4', wanted: 'H200', advice: 'Move it.' };
    fake.end(name, new SnapshotError('RESTORE_REFUSED', 'this node does not fit', { reasons: [reason] }));
    await watch.ended;
    const { result, error } = watch.seen.at(-1);
    expect(result).toBe('error');
    const details = local.statusDetails(error);
    expect(details.code).toBe(status.FAILED_PRECONDITION);
    expect(details.info).toMatchObject({ reason: 'RESTORE_REFUSED', domain: 'snapshot-agent' });
    expect(details.violations).toEqual([
      {
        type: 'GPU_MODEL',
        subject: 'team-a/worker-0/main',
        description: expect.stringContaining('found L4; wanted H200'),
      },
    ]);
  });

  it('ends when its reader goes away', async () => {
    const { local, fake, audit } = started;
    const { name } = await local.ask('Checkpoint', start);
    const watch = local.watch('WatchOperation', { name });
    await watch.until(() => true);
    watch.call.cancel();
    expect((await watch.ended)?.code).toBe(status.CANCELLED);
    await expect
      .poll(() => audit().filter(({ method }) => method === 'WatchOperation'))
      .toMatchObject([{ code: 'CANCELLED', target: { operation: name } }]);
    fake.end(name);
  });

  it('holds nothing back for a reader that does not read', async () => {
    const { local, fake } = started;
    const { name } = await local.ask('Checkpoint', start);
    const handle = fake.handle(name);
    const text = 'x'.repeat(50_000);
    const watch = local.watch('WatchOperation', { name });
    await watch.until(() => true);
    watch.call.pause();
    const changes = 1_000;
    for (let index = 0; index < changes; index += 1) {
      handle.waiting(`${index} ${text}`);
      // Time for the server to send it, if it would.
      await new Promise((resolve) => setImmediate(resolve));
    }
    fake.end(name);
    watch.call.resume();
    expect(await watch.ended).toBeUndefined();
    expect(watch.seen.at(-1).done).toBe(true);
    // All of them would have been fifty megabytes, held for a reader that takes none.
    expect(watch.seen.length).toBeLessThan(changes / 2);
  });
});

describe('asking for operations', () => {
  it('gives one by its name, and says NOT_FOUND for others', async () => {
    const { local } = started;
    const { name } = await local.ask('Checkpoint', start);
    expect((await local.ask('GetOperation', { name })).name).toBe(name);
    const error = await failureOf(local.ask('GetOperation', { name: 'nothing' }));
    expect([error.code, local.details(error).info.reason]).toEqual([status.NOT_FOUND, 'OPERATION_NOT_FOUND']);
    expect((await local.watch('WatchOperation', { name: 'nothing' }).ended)?.code).toBe(status.NOT_FOUND);
    expect((await failureOf(local.ask('CancelOperation', { name: 'nothing' }))).code).toBe(status.NOT_FOUND);
  });

  it('lists them newest first, in pages, each once', async () => {
    const { local, fake } = started;
    for (let index = 0; index < 5; index += 1) fake.begin(WORKER, `request-${index}`);
    const names: string[] = [];
    let token = '';
    do {
      const page = await local.ask('ListOperations', { page_size: 2, page_token: token });
      expect(page.operations.length).toBeLessThanOrEqual(2);
      names.push(...page.operations.map(({ name }: { name: string }) => name));
      token = page.next_page_token;
    } while (token !== '');
    expect([...names].sort()).toEqual(['op-1', 'op-2', 'op-3', 'op-4', 'op-5']);
    const times = names.map((name) => fake.operations.get(name)?.createdAtMs ?? 0);
    expect(times).toEqual([...times].sort((a, b) => b - a));
  });

  it('lists by state, kind and namespace', async () => {
    const { local, fake } = started;
    const { name } = await local.ask('Checkpoint', start);
    fake.begin(WORKER, 'other');
    const list = async (filter: object) =>
      (await local.ask('ListOperations', filter)).operations.map((one: { name: string }) => one.name);
    fake.end(name);
    expect(await list({ states: ['OPERATION_STATE_SUCCEEDED'] })).toEqual([name]);
    expect(await list({ kinds: ['OPERATION_KIND_RESTORE'] })).toEqual(['op-2']);
    expect(await list({ namespace: 'elsewhere' })).toEqual([]);
    expect(await list({ namespace: 'team-a' })).toHaveLength(2);
  });
});

describe('cancelling an operation', () => {
  it.each(['before its first step', 'in a step'])('ends one %s', async (when) => {
    const { local, fake } = started;
    const { name } = await local.ask('Checkpoint', start);
    if (when === 'in a step') {
      fake.handle(name).started();
      fake.handle(name).step('criu-dump', 'undone');
    }
    const watch = local.watch('WatchOperation', { name });
    await watch.until(() => true);
    expect((await local.ask('CancelOperation', { name })).name).toBe(name);
    expect(await watch.ended).toBeUndefined();
    const { error, metadata } = watch.seen.at(-1);
    expect(local.statusDetails(error).info.reason).toBe('CANCELLED');
    expect(metadata.step).toBe(when === 'in a step' ? 'criu-dump' : '');
  });

  it('changes nothing in a finished one', async () => {
    const { local, fake } = started;
    const { name } = await local.ask('Checkpoint', start);
    fake.end(name);
    const before = await local.ask('GetOperation', { name });
    expect(await local.ask('CancelOperation', { name })).toEqual(before);
    expect(await local.ask('GetOperation', { name })).toEqual(before);
  });
});
