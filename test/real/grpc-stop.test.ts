import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Answer, failureOf } from '../flow/grpc/client.ts';
import { workload } from './environment/pod.ts';
import { expectNothingUnderWay, HeldNode } from './grpc/held.ts';
import type { ApiNode, Plain } from './grpc/node.ts';

/** The agent ends and starts again, with operations that wait and with operations that are under way. */

const DRAIN_SECONDS = 3;
let held: HeldNode;
let node: ApiNode;
let source: Plain;

beforeAll(async () => {
  held = await HeldNode.start({ limits: { drainSeconds: DRAIN_SECONDS } });
  node = held.node;
  source = await node.runPlain({ command: workload('memory', '2') });
});
afterEach(() => held.letGo());
afterAll(async () => {
  expect(await held?.stop()).toEqual([]);
});

async function waits({ name }: Answer): Promise<Answer> {
  return await node.api
    .watch('WatchOperation', { name })
    .until(({ metadata }) => metadata.state === 'OPERATION_STATE_WAITING');
}

describe.each(['SIGKILL', 'SIGTERM'] as const)('after a %s', (signal) => {
  const restart = async () => {
    expect(await node.agent.end(signal)).toMatchObject(signal === 'SIGTERM' ? { exitCode: 0 } : { signal });
    await node.startAgain();
  };

  test('an operation that waited waits on, and begins when its artifact comes', async () => {
    const target = await node.runPlaceholder();
    const request = { request_id: `waits-${signal}`, checkpoint_id: `awaited-${signal}`, wait_seconds: 3600 };
    const before = await waits(await node.begin('Restore', target, request));
    await restart();
    const { name } = before;
    const now = await waits(before);
    const kept = ['request_id', 'trace_id', 'origin', 'kind', 'target', 'checkpoint_id', 'create_time', 'waiting_for'];
    for (const field of kept) expect([field, now.metadata[field]]).toEqual([field, before.metadata[field]]);
    expect((await node.begin('Restore', target, request)).name).toBe(name);
    const error = await failureOf(node.begin('Restore', target));
    expect([error.code, node.api.details(error).info.reason]).toEqual([status.ABORTED, 'TARGET_BUSY']);

    const watch = node.api.watch('WatchOperation', { name });
    await node.perform('Checkpoint', source, { checkpoint_id: request.checkpoint_id });
    expect(await watch.ended).toBeUndefined();
    node.requireSuccess(watch.seen.at(-1));
    expect(await target.container.check()).toMatchObject({ check: 'ok' });
    await target.pod.remove();
  });

  test('an operation waits no longer than it was to, and not for a container that has gone', async () => {
    const [late, gone] = await Promise.all([node.runPlaceholder(), node.runPlaceholder()]);
    const [first, second] = await Promise.all([
      node.begin('Restore', late, { checkpoint_id: 'never', wait_seconds: 2 }),
      node.begin('Restore', gone, { checkpoint_id: 'never', wait_seconds: 3600 }),
    ]);
    await Promise.all([waits(first), waits(second)]);
    await node.agent.end(signal);
    await gone.container.signal('SIGKILL');
    await gone.container.ended();
    await sleep(2_000);
    await node.startAgain();
    const ends = await Promise.all([node.end(first.name), node.end(second.name)]);
    const errors = ends.map(({ error }) => node.api.statusDetails(error));
    expect(errors.map(({ info }) => info.reason)).toEqual(['ARTIFACT_NOT_FOUND', 'CONTAINER_NOT_FOUND']);
    await Promise.all([late.pod.remove(), gone.pod.remove()]);
  });
});

describe('while an agent that is to stop lets what is under way end', () => {
  test('it takes nothing new, says that it does not serve, and tells the end', async () => {
    const { name } = await held.hold({ step: 'criu-dump', program: 'criu' }, 'Checkpoint', source);
    const watch = node.api.watch('WatchOperation', { name });
    const health = async () => (await node.api.ask('grpc.health.v1.Health/Check')).status;
    expect(await health()).toBe('SERVING');
    const from = node.agent.logs().length;
    const stopped = node.agent.end('SIGTERM', 60_000);
    await node.agent.waitForLog('the signal', (line) => line['msg'] === 'stopping', { from });
    expect(await health()).toBe('NOT_SERVING');
    const target = await node.runPlaceholder();
    for (const [kind, on] of [['Checkpoint', source] as const, ['Restore', target] as const]) {
      const error = await failureOf(node.begin(kind, on));
      expect(error.code).toBe(status.UNAVAILABLE);
      expect(node.api.details(error)).toMatchObject({
        info: { reason: 'SHUTTING_DOWN' },
        retrySeconds: expect.any(Number),
      });
    }
    held.gates.openAll();
    expect(await watch.ended).toBeUndefined();
    const end = node.requireSuccess(watch.seen.at(-1));
    expect(await stopped).toMatchObject({ exitCode: 0 });
    await node.startAgain();
    expect((await node.api.ask('GetOperation', { name })).response).toEqual(end.response);
    await target.pod.remove();
  });

  test('what does not end in time is cancelled and undone', async () => {
    const checkpoint_id = 'drained';
    const { name } = await held.hold({ step: 'criu-dump', program: 'criu' }, 'Checkpoint', source, { checkpoint_id });
    const watch = node.api.watch('WatchOperation', { name });
    expect(await node.agent.end('SIGTERM', 60_000)).toMatchObject({ exitCode: 0 });
    await watch.ended;
    expect(node.api.statusDetails(watch.seen.at(-1).error).info.reason).toBe('CANCELLED');
    expect(await source.container.check()).toMatchObject({ check: 'ok' });
    await expectNothingUnderWay(node.cluster);
    held.gates.openAll();
    await node.startAgain();
    const now = await node.api.ask('GetOperation', { name });
    expect(now).toMatchObject({ done: true, metadata: { state: 'OPERATION_STATE_FAILED', step: 'criu-dump' } });
    expect(node.api.statusDetails(now.error)).toMatchObject({ code: status.CANCELLED, info: { reason: 'CANCELLED' } });
    await node.perform('Checkpoint', source, { checkpoint_id });
  });
});
