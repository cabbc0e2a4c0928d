import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ERRORS, type ErrorCode, type Reason, SnapshotError } from '../../agent/errors.ts';
import { failureOf } from './grpc/client.ts';
import { type Started, startEndpoint } from './grpc/endpoint.ts';

let started: Started;
beforeEach(async () => {
  started = await startEndpoint();
});
afterEach(() => started.stop());

const target = { namespace: 'team-a', pod: 'worker-0', container: 'main' };
const start = { request_id: 'request-1', target, checkpoint_id: 'ckpt' };
const codes = Object.keys(ERRORS) as ErrorCode[];

describe('an error of the agent', () => {
  it.each(codes)('%s reaches the caller with its status, reason, advice and whether it may pass', async (code) => {
    const { local, fake } = started;
    fake.failures.set('verifyArtifact', new SnapshotError(code, 'what failed, with what'));
    const error = await failureOf(local.ask('VerifyCheckpoint', { checkpoint_id: 'ckpt' }));
    // What is foreign is not even told of.
    const seen = code === 'ARTIFACT_FOREIGN' ? 'ARTIFACT_NOT_FOUND' : code;
    const row = ERRORS[seen];
    expect(status[error.code]).toBe(row.grpc);
    if (seen === code) expect(error.details).toBe(`what failed, with what. ${row.advice}`);
    const details = local.details(error);
    expect(details).toMatchObject({ code: error.code, message: error.details });
    expect(details.info).toEqual({
      reason: seen,
      domain: 'snapshot-agent',
      metadata: { advice: row.advice, retryable: String(row.retryable) },
    });
    expect(details.retrySeconds === undefined).toBe(!row.retryable);
  });

  it('lists every reason, with both values and what to do', async () => {
    const { local, fake } = started;
    const reasons: Reason[] = ['IO_URING', 'SHARED_PID'].map((code) => ({
      ...{ code, message: `${code} is in use`, found: 'yes', wanted: 'no', advice: 'Turn it off.' },
    }));
    fake.failures.set('checkpoint', new SnapshotError('CHECKPOINT_REFUSED', 'it cannot be taken', { reasons }));
    const error = await failureOf(local.ask('Checkpoint', start));
    expect(error.code).toBe(status.FAILED_PRECONDITION);
    expect(local.details(error).violations).toEqual(
      reasons.map(({ code }) => ({
        type: code,
        subject: 'team-a/worker-0/main/request-1/ckpt/1',
        description: `${code} is in use; found yes; wanted no. Turn it off.`,
      })),
    );
  });

  it('reaches the caller whatever its size and characters', async () => {
    const { local, fake } = started;
    const text = 'é\u0000\ud800%\r\n漢字'.repeat(2_000);
    const reasons = Array.from({ length: 500 }, (_, index) => ({
      ...{ code: `REASON_${index}`, message: text, found: text, wanted: text, advice: text },
    }));
    fake.failures.set('restore', new SnapshotError('RESTORE_REFUSED', text, { reasons }));
    const error = await failureOf(local.ask('Restore', start));
    expect(error.code).toBe(status.FAILED_PRECONDITION);
    const details = local.details(error);
    expect(details.violations.length).toBeGreaterThan(0);
    expect(details.info.metadata.reasonsOmitted).toBe(String(500 - details.violations.length));
    const [bytes] = error.metadata.get('grpc-status-details-bin');
    const sizeOnWire = Math.ceil(((bytes as Buffer).length * 4) / 3) + encodeURI(error.details).length;
    expect(sizeOnWire).toBeLessThan(8_000);
  });

  it('that found a lot still says what to do', async () => {
    const { local, fake } = started;
    const found = Array.from({ length: 60 }, (_, n) => `process ${n} (python3)`).join(', ');
    const advice = 'End them before the checkpoint: shutdown_compile_workers().';
    const reasons = [{ code: 'GPU_HELD', message: 'processes hold the GPU', found, wanted: '', advice }];
    fake.failures.set('restore', new SnapshotError('RESTORE_REFUSED', 'no', { reasons }));
    const [violation] = local.details(await failureOf(local.ask('Restore', start))).violations;
    expect(violation?.description).toMatch(
      /^processes hold the GPU; found process 0 .*…\. End them .*shutdown_compile_workers\(\)\.$/,
    );
    expect(encodeURI(violation?.description ?? '').length).toBeLessThanOrEqual(1_000);
  });

  it('that is a defect says only that, and the log has the rest', async () => {
    const { local, fake, audit } = started;
    fake.failures.set('getArtifact', new TypeError('cannot read /secret/path'));
    const error = await failureOf(local.ask('GetCheckpoint', { checkpoint_id: 'ckpt' }));
    expect(error.code).toBe(status.INTERNAL);
    expect(JSON.stringify([error.details, local.details(error)])).not.toContain('secret');
    expect(audit()).toMatchObject([
      { level: 50, reason: 'INTERNAL', err: { message: expect.stringContaining('/secret/path') } },
    ]);
  });
});

describe('a request that is wrong', () => {
  const cases: [string, string, object, string][] = [
    ['no request id', 'Checkpoint', { ...start, request_id: '' }, 'request_id'],
    ['a request id of wrong characters', 'Checkpoint', { ...start, request_id: 'a b' }, 'request_id'],
    ['a request id that is too long', 'Restore', { ...start, request_id: 'a'.repeat(64) }, 'request_id'],
    ['no target', 'Checkpoint', { ...start, target: null }, 'target'],
    ['half a target', 'Restore', { ...start, target: { pod: 'worker-0' } }, 'target'],
    ['a namespace that climbs', 'Restore', { ...start, target: { ...target, namespace: '../b' } }, 'target.namespace'],
    ['a container id with a scheme', 'Restore', { ...start, target: { container_id: 'x://a' } }, 'target.container_id'],
    ['no checkpoint id', 'Checkpoint', { ...start, checkpoint_id: '' }, 'checkpoint_id'],
    ['a checkpoint id that climbs', 'Checkpoint', { ...start, checkpoint_id: '..' }, 'checkpoint_id'],
    ['a version that is reserved', 'Restore', { ...start, version: 'tmp' }, 'version'],
    ['a relative base path', 'Checkpoint', { ...start, base_path: 'data' }, 'base_path'],
    ['a base path that climbs', 'Checkpoint', { ...start, base_path: '/data/../etc' }, 'base_path'],
    ['a wait of more than a day', 'Restore', { ...start, wait_seconds: 86_401 }, 'wait_seconds'],
    ['a trace id that is none', 'Checkpoint', { ...start, trace_id: 'A'.repeat(32) }, 'trace_id'],
    ['an unknown choice', 'Checkpoint', { ...start, after: 9 }, 'after'],
    ['an unknown treatment', 'Checkpoint', { ...start, existing: 9 }, 'existing'],
    ['no name', 'GetOperation', {}, 'name'],
    ['a name that is none', 'CancelOperation', { name: '../op' }, 'name'],
    ['a page token that is made up', 'ListOperations', { page_token: 'x' }, 'page_token'],
    ['an unknown state', 'ListOperations', { states: ['OPERATION_STATE_FAILED', 99] }, 'states[1]'],
    ['an unknown kind', 'ListOperations', { kinds: [99] }, 'kinds[0]'],
    ['a namespace that is none', 'ListOperations', { namespace: 'a/b' }, 'namespace'],
    ['nothing to check', 'CheckCompatibility', { target }, 'check'],
    ['a restore of nothing', 'CheckCompatibility', { target, restore: {} }, 'restore.checkpoint_id'],
    [
      'a way to the storage without a container',
      'GetCheckpoint',
      { checkpoint_id: 'a', storage: { through: {} } },
      'storage.through',
    ],
    ['a storage path that is none', 'ListCheckpoints', { storage: { base_path: 'x' } }, 'storage.base_path'],
    ['a page of artifacts that is made up', 'ListCheckpoints', { page_token: '../x' }, 'page_token'],
    ['an artifact without a name', 'VerifyCheckpoint', {}, 'checkpoint_id'],
    ['a deletion without a version', 'DeleteCheckpoint', { checkpoint_id: 'ckpt' }, 'version'],
  ];

  it.each(cases)('with %s is refused, naming the field (%s)', async (_, method, request, field) => {
    const { local, fake } = started;
    const error = await failureOf(local.ask(method, request));
    expect(error.code).toBe(status.INVALID_ARGUMENT);
    const details = local.details(error);
    expect(details.info.reason).toBe('REQUEST_INVALID');
    expect(details.fields.map((one) => one.field)).toEqual([field]);
    expect(details.fields[0].description).not.toBe('');
    expect(error.details).toContain(`${field} ${details.fields[0].description}`);
    expect(fake.calls).toEqual([]);
  });

  it('hears of all wrong fields at once', async () => {
    const error = await failureOf(started.local.ask('Checkpoint', {}));
    expect(started.local.details(error).fields.map((one) => one.field)).toEqual([
      'request_id',
      'target',
      'checkpoint_id',
    ]);
  });

  it('is refused where its bytes are no message', async () => {
    const { local } = started;
    const { path, responseDeserialize } = local.methodOf('GetOperation');
    const error = await failureOf(
      new Promise((resolve, reject) => {
        const garbage = () => Buffer.from([0x0a, 0xff, 0xff, 0xff, 0x01]);
        local.client.makeUnaryRequest(path, garbage, responseDeserialize, {}, (e, v) => (e ? reject(e) : resolve(v)));
      }),
    );
    expect([error.code, local.details(error).info.reason]).toEqual([status.INVALID_ARGUMENT, 'REQUEST_INVALID']);
    expect((await local.ask('GetNodeInfo')).node).toBe('node-a');
  });

  it('is UNIMPLEMENTED where there is no such method', async () => {
    const { local } = started;
    const { requestSerialize, responseDeserialize } = local.methodOf('GetNodeInfo');
    const path = '/snapshot.agent.v1.SnapshotAgent/Nothing';
    const error = await failureOf(
      new Promise((resolve, reject) => {
        local.client.makeUnaryRequest(path, requestSerialize, responseDeserialize, {}, (e, v) =>
          e ? reject(e) : resolve(v),
        );
      }),
    );
    expect(error.code).toBe(status.UNIMPLEMENTED);
  });
});
