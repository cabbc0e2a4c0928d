import { rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SnapshotError } from '../../agent/errors.ts';
import { type AgentClient, openAgentClient } from '../../contract/agent-api/client.ts';
import { AgentError, isLost } from '../../contract/agent-api/failure.ts';
import { WORKER } from '../fakes/agent-service.ts';
import { eventually } from './grpc/client.ts';
import { type Started, startEndpoint } from './grpc/endpoint.ts';

let started: Started;
let client: AgentClient;
beforeEach(async () => {
  started = await startEndpoint();
  client = openAgentClient({ socketPath: started.socketPath });
});
afterEach(async () => {
  client.close();
  await started.stop();
});

async function failure(call: Promise<unknown>): Promise<AgentError> {
  const [outcome] = await Promise.allSettled([call]);
  if (outcome.status === 'fulfilled') throw new Error('the call succeeded');
  expect(outcome.reason).toBeInstanceOf(AgentError);
  return outcome.reason as AgentError;
}

const target = { namespace: 'team-a', pod: 'worker-0', container: 'main' };
const start = { request_id: 'request-1', target, checkpoint_id: 'ckpt' };

describe('an error of the agent', () => {
  it('has its reason, its advice, and what is in the way', async () => {
    const reasons = [
      { code: 'GPU_MODEL', message: 'another GPU', found: 'A10', wanted: 'H200', advice: 'Use another node.' },
    ];
    started.fake.failures.set('restore', new SnapshotError('RESTORE_REFUSED', 'it does not fit', { reasons }));
    expect(await failure(client.restore(start))).toMatchObject({
      ...{
        status: 'FAILED_PRECONDITION',
        reason: 'RESTORE_REFUSED',
        retryAfterSeconds: undefined,
        omitted: 0,
        fields: [],
      },
      message: expect.stringMatching(/^it does not fit\. Use a node/),
      advice: expect.stringMatching(/^Use a node/),
      mismatches: [{ code: 'GPU_MODEL', description: 'another GPU; found A10; wanted H200. Use another node.' }],
    });
  });

  it('says when the same can be asked again, and which fields are wrong', async () => {
    started.fake.failures.set('restore', new SnapshotError('TARGET_BUSY', 'another operation holds it'));
    expect(await failure(client.restore(start))).toMatchObject({ reason: 'TARGET_BUSY', retryAfterSeconds: 5 });
    const wrong = await failure(client.restore({ ...start, checkpoint_id: '../x', request_id: '' }));
    expect(wrong).toMatchObject({ reason: 'REQUEST_INVALID', status: 'INVALID_ARGUMENT' });
    expect(wrong.fields.map(({ code }) => code)).toEqual(['request_id', 'checkpoint_id']);
  });

  it('counts what did not fit', async () => {
    const reasons = Array.from({ length: 40 }, (_, index) => ({
      ...{ code: `REASON_${index}`, message: 'x'.repeat(200), found: '', wanted: '', advice: 'Mend it.' },
    }));
    started.fake.failures.set('restore', new SnapshotError('RESTORE_REFUSED', 'it does not fit', { reasons }));
    const { mismatches, omitted } = await failure(client.restore(start));
    expect([mismatches.length + omitted, omitted > 0]).toEqual([40, true]);
  });

  it('is the same where an operation ended with it', async () => {
    const handle = started.fake.begin(WORKER, 'request-1');
    started.fake.end(handle.view.id, new SnapshotError('FILL_FAILED', 'the storage answered EIO'));
    const { error } = await client.getOperation(handle.view.id);
    if (!error) throw new Error('it has no error');
    expect(client.errorOf(error)).toMatchObject({ reason: 'FILL_FAILED', message: expect.stringContaining('EIO') });
  });

  it('is that there is no answer, where there is none', async () => {
    const nowhere = openAgentClient({ socketPath: '/nonexistent/agent.sock' });
    const error = await failure(nowhere.getNodeInfo());
    expect([error.status, error.reason, isLost(error)]).toEqual(['UNAVAILABLE', '', true]);
    nowhere.close();
    started.fake.holds.set('verifyArtifact', new Promise(() => undefined));
    const late = await failure(client.verifyCheckpoint({ checkpoint_id: 'ckpt' }, { deadlineMs: 50 }));
    expect([late.status, isLost(late)]).toEqual(['DEADLINE_EXCEEDED', false]);
  });
});

describe('a call', () => {
  it('ends with its signal, and so does the work of the agent', async () => {
    started.fake.holds.set('verifyArtifact', new Promise(() => undefined));
    const stop = new AbortController();
    const call = client.verifyCheckpoint({ checkpoint_id: 'ckpt' }, { signal: stop.signal });
    await eventually(() => started.fake.calls.length > 0);
    stop.abort(new Error('enough'));
    await expect(call).rejects.toThrow('enough');
    await expect(client.getNodeInfo({ signal: stop.signal })).rejects.toThrow('enough');
    await eventually(() => started.audit().some((line) => line['code'] === 'CANCELLED'));
  });

  it('starts an operation as often as it is asked, once', async () => {
    const [first, second] = [await client.checkpoint(start), await client.checkpoint(start)];
    expect(second.name).toBe(first.name);
    const all = [];
    for await (const { name } of client.listOperations()) all.push(name);
    expect(all).toEqual([first.name]);
    expect(await client.cancelOperation(first.name)).toMatchObject({ name: first.name });
  });
});

describe('a watch', () => {
  it('ends with its signal', async () => {
    const handle = started.fake.begin(WORKER, 'request-1');
    const stop = new AbortController();
    const watch = client.watchOperation(handle.view.id, { signal: stop.signal });
    expect((await watch.next()).done).toBe(false);
    const next = watch.next();
    stop.abort(new Error('enough'));
    await expect(next).rejects.toThrow('enough');
  });

  it('throws what the agent refuses, at once', async () => {
    expect(await failure(client.watchOperation('op-77').next())).toMatchObject({ reason: 'OPERATION_NOT_FOUND' });
  });

  it('gives up when there is no connection for too long', async () => {
    const lost: string[] = [];
    const nowhere = openAgentClient({ socketPath: '/nonexistent/agent.sock' });
    const watch = nowhere.watchOperation('op-1', { giveUpMs: 600, onLost: ({ status }) => lost.push(status) });
    expect(await failure(watch.next())).toMatchObject({ status: 'UNAVAILABLE' });
    expect(lost).toEqual(['UNAVAILABLE']);
    nowhere.close();
  });

  it('goes on with an agent that was started again, and shows the end', async () => {
    const handle = started.fake.begin(WORKER, 'request-1');
    const states: string[] = [];
    let losses = 0;
    const watched = (async () => {
      const options = { onLost: () => (losses += 1) };
      for await (const { metadata } of client.watchOperation(handle.view.id, options)) states.push(metadata.state);
    })();
    await eventually(() => states.length > 0);
    await started.endpoint.close();
    await eventually(() => losses > 0);
    const again = await startEndpoint({ socketPath: started.socketPath }, started.directory);
    // The operation of the earlier run has ended meanwhile.
    const next = again.fake.begin(WORKER, 'request-1');
    expect(next.view.id).toBe(handle.view.id);
    again.fake.end(next.view.id);
    await watched;
    expect(states.at(-1)).toBe('OPERATION_STATE_SUCCEEDED');
    await again.stop();
  });
});

it('is patient with a peer that is no agent, as long as its deadline', async () => {
  const path = join(started.directory, 'other.sock');
  const server: Server = createServer(() => undefined);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const other = openAgentClient({ socketPath: path });
  expect(await failure(other.getNodeInfo({ deadlineMs: 300 }))).toMatchObject({ status: 'DEADLINE_EXCEEDED' });
  other.close();
  server.close();
  await rm(path, { force: true });
});
