import { lstat } from 'node:fs/promises';
import { connect } from 'node:net';
import { status } from '@grpc/grpc-js';
import { afterEach, describe, expect, it } from 'vitest';
import { DEFAULT_LIMITS, type GrpcOptions } from '../../agent/api/grpc.ts';
import type { Limits } from '../../agent/api/limits.ts';
import { WORKER } from '../fakes/agent-service.ts';
import { connectTo, failureOf } from './grpc/client.ts';
import { type Started, startEndpoint } from './grpc/endpoint.ts';

const cleanUp: (() => unknown)[] = [];
afterEach(async () => {
  for (const clean of cleanUp.splice(0).reverse()) await clean();
});

async function start(config: Partial<GrpcOptions> = {}): Promise<Started> {
  const started = await startEndpoint(config);
  cleanUp.push(() => started.stop());
  return started;
}
const withLimits = (limits: Partial<Limits>) => start({ limits: { ...DEFAULT_LIMITS, ...limits } });

/** A gate that a test opens. */
function hold() {
  let open: () => void = () => undefined;
  const until = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { until, open };
}

const check = { target: { container_id: WORKER.containerId }, checkpoint: {} };

describe('limits', () => {
  const refusedWith = async ({ local }: Started, call: Promise<unknown>) => {
    const error = await failureOf(call);
    const { info, retrySeconds } = local.details(error);
    expect([error.code, info.reason, retrySeconds]).toEqual([status.RESOURCE_EXHAUSTED, 'LIMIT_EXCEEDED', 1]);
    return error.details;
  };

  it('refuse a request that is too large, with details', async () => {
    const started = await withLimits({ maxMessageBytes: 100 });
    const details = await refusedWith(started, started.local.ask('GetOperation', { name: 'x'.repeat(200) }));
    expect(details).toContain('at most 100');
  });

  it('cut off a request that is far too large, before it is all there', async () => {
    const { local } = await start();
    const error = await failureOf(local.ask('GetOperation', { name: 'x'.repeat(3 << 20) }));
    expect(error.code).toBe(status.RESOURCE_EXHAUSTED);
    expect((await local.ask('GetNodeInfo')).node).toBe('node-a');
  });

  it.each([
    ['of one caller', { maxConcurrentCallsPerCaller: 2 }, 'local has 2 calls under way'],
    ['of all', { maxConcurrentCalls: 2 }, 'there are 2 calls under way'],
  ])('bound the calls at once %s', async (_, limits, says) => {
    const started = await withLimits(limits);
    const { local, fake } = started;
    const gate = hold();
    fake.holds.set('checkCheckpoint', gate.until);
    const held = [local.ask('CheckCompatibility', check), local.ask('CheckCompatibility', check)];
    await expect.poll(() => fake.calls.length).toBe(2);
    expect(await refusedWith(started, local.ask('GetNodeInfo'))).toContain(says);
    gate.open();
    await Promise.all(held);
    expect((await local.ask('GetNodeInfo')).node).toBe('node-a');
  });

  it.each([
    ['of one caller', { maxStreamsPerCaller: 2 }],
    ['of all', { maxStreams: 2 }],
  ])('bound the streams at once %s, and a stream that ends makes room', async (_, limits) => {
    const started = await withLimits(limits);
    const { local, fake } = started;
    const { id: name } = fake.begin(WORKER, 'request').view;
    const [first, second] = [local.watch('WatchOperation', { name }), local.watch('WatchOperation', { name })];
    await Promise.all([first.until(() => true), second.until(() => true)]);
    const third = local.watch('WatchOperation', { name });
    expect((await third.ended)?.code).toBe(status.RESOURCE_EXHAUSTED);
    expect((await local.ask('GetNodeInfo')).node).toBe('node-a');
    first.call.cancel();
    await first.ended;
    await expect.poll(() => started.ended.filter(({ code }) => code === 'CANCELLED')).toHaveLength(1);
    const fourth = local.watch('WatchOperation', { name });
    await fourth.until(() => true);
    fake.end(name);
    expect(await fourth.ended).toBeUndefined();
  });

  it('bound the calls in a second', async () => {
    const started = await withLimits({ burst: 3, callsPerSecond: 0.001 });
    for (let index = 0; index < 3; index += 1) await started.local.ask('GetNodeInfo');
    expect(await refusedWith(started, started.local.ask('GetNodeInfo'))).toContain('calls a second');
  });

  it('bound the connections', async () => {
    const { socketPath, local } = await withLimits({ maxConnections: 1 });
    await local.ask('GetNodeInfo');
    const second = connectTo(`unix:${socketPath}`, undefined, { 'grpc.use_local_subchannel_pool': 1 });
    cleanUp.push(() => second.close());
    expect((await failureOf(second.ask('GetNodeInfo'))).code).toBe(status.UNAVAILABLE);
    expect((await local.ask('GetNodeInfo')).node).toBe('node-a');
  });

  it('cut off a peer that floods with pings and reads no answer', async () => {
    const { socketPath, local } = await start();
    const flood = connect(socketPath).pause();
    const closed = new Promise((resolve) => {
      flood.once('close', resolve).on('error', () => undefined);
    });
    const [noSettings, ping] = ['000000040000000000', '0000080600000000000102030405060708'];
    flood.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
    flood.write(Buffer.from(`${noSettings}${ping.repeat(20_000)}`, 'hex'));
    expect((await local.ask('GetNodeInfo')).node).toBe('node-a');
    await closed;
    expect((await local.ask('GetNodeInfo')).node).toBe('node-a');
  });

  it('give up a call that takes too long, and tell its work', async () => {
    const { local, fake, audit } = await withLimits({ maxCallMs: 50 });
    fake.holds.set('checkCheckpoint', new Promise(() => undefined));
    const error = await failureOf(local.ask('CheckCompatibility', check));
    expect([error.code, local.details(error).info.reason]).toEqual([status.DEADLINE_EXCEEDED, 'STEP_TIMEOUT']);
    expect(audit()).toMatchObject([{ code: 'DEADLINE_EXCEEDED' }]);
  });

  it("end a call's work at the deadline of its caller", async () => {
    const { local, fake, audit } = await start();
    fake.holds.set('verifyArtifact', new Promise(() => undefined));
    const deadline = Date.now() + 100;
    const error = await failureOf(local.ask('VerifyCheckpoint', { checkpoint_id: 'ckpt' }, { deadline }));
    expect(error.code).toBe(status.DEADLINE_EXCEEDED);
    await expect.poll(() => audit()).toMatchObject([{ method: 'VerifyCheckpoint', code: 'DEADLINE_EXCEEDED' }]);
  });
});

describe('the audit', () => {
  it('has one line for each call, and the metrics hook the same', async () => {
    const { local, audit, ended } = await start();
    const target = { namespace: 'team-a', pod: 'worker-0', container: 'main' };
    await local.ask('Checkpoint', { request_id: 'request-1', target, checkpoint_id: 'ckpt' });
    await failureOf(local.ask('GetOperation', { name: 'nothing' }));
    const seconds = expect.any(Number);
    const line = { msg: 'grpc call', level: 30, peer: 'unix', caller: 'local', seconds };
    const about = { ...target, containerId: '', requestId: 'request-1', checkpointId: 'ckpt', version: '1' };
    expect(audit()).toMatchObject([
      { ...line, method: 'Checkpoint', code: 'OK', target: about },
      {
        ...line,
        method: 'GetOperation',
        code: 'NOT_FOUND',
        reason: 'OPERATION_NOT_FOUND',
        target: { operation: 'nothing' },
      },
    ]);
    expect(ended).toEqual([
      { method: 'Checkpoint', code: 'OK', seconds },
      { method: 'GetOperation', code: 'NOT_FOUND', seconds },
    ]);
  });
});

describe('the end of the server', () => {
  it('ends watches with UNAVAILABLE, and lets a call under way end', async () => {
    const { local, fake, endpoint, socketPath } = await start();
    const watch = local.watch('WatchOperation', { name: fake.begin(WORKER, 'request').view.id });
    await watch.until(() => true);
    const gate = hold();
    fake.holds.set('checkCheckpoint', gate.until);
    const call = local.ask('CheckCompatibility', check);
    await expect.poll(() => fake.calls.length).toBe(1);
    const closed = endpoint.close();
    const error = await watch.ended;
    expect(error?.code).toBe(status.UNAVAILABLE);
    expect(error && local.details(error).info.reason).toBe('SHUTTING_DOWN');
    gate.open();
    expect(await call).toMatchObject({ compatible: true });
    await closed;
    await expect(lstat(socketPath)).rejects.toMatchObject({ code: 'ENOENT' });
    expect((await failureOf(local.ask('GetNodeInfo'))).code).toBe(status.UNAVAILABLE);
  });

  it('ends what is left after the grace', async () => {
    const { local, fake, endpoint } = await start({ closeGraceMs: 50 });
    fake.holds.set('checkCheckpoint', new Promise(() => undefined));
    const call = failureOf(local.ask('CheckCompatibility', check));
    await expect.poll(() => fake.calls.length).toBe(1);
    await endpoint.close();
    const error = await call;
    expect([error.code, local.details(error).info.reason]).toEqual([status.UNAVAILABLE, 'SHUTTING_DOWN']);
  });

  it('tells the end of an operation that ended just before', async () => {
    const { local, fake, endpoint } = await start();
    const { view } = fake.begin(WORKER, 'request');
    const watch = local.watch('WatchOperation', { name: view.id });
    await watch.until(() => true);
    fake.end(view.id);
    await endpoint.close();
    expect(await watch.ended).toBeUndefined();
    expect(watch.seen.at(-1)).toMatchObject({ done: true, result: 'response' });
  });

  it('does not wait for a reader that does not read', async () => {
    const { local, fake, endpoint } = await start({ closeGraceMs: 50 });
    const { view, waiting } = fake.begin(WORKER, 'request');
    const watch = local.watch('WatchOperation', { name: view.id });
    await watch.until(() => true);
    watch.call.pause();
    for (let index = 0; index < 100; index += 1) {
      waiting(`${index} ${'x'.repeat(100_000)}`);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await endpoint.close();
    watch.call.resume();
    expect((await watch.ended)?.code).toBe(status.UNAVAILABLE);
  });
});
