import { createHash } from 'node:crypto';
import { status } from '@grpc/grpc-js';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type Answer, failureOf } from '../flow/grpc/client.ts';
import { eventually } from './environment/host.ts';
import { workload } from './environment/pod.ts';
import { HeldNode } from './grpc/held.ts';
import type { ApiNode } from './grpc/node.ts';
import { markReady, runSource, runTarget, type Source, type Target } from './scenario.ts';

/** What annotations ask for and what calls ask for, side by side. */

let held: HeldNode;
let node: ApiNode;

beforeAll(async () => {
  held = await HeldNode.start();
  node = held.node;
});
afterEach(() => held.letGo());
afterAll(async () => {
  expect(await held?.stop()).toEqual([]);
});

const memory = { command: workload('memory', '2') };
const targetOf = ({ pod, container }: Pick<Source, 'pod' | 'container'>) => ({
  target: { namespace: pod.namespace, pod: pod.name, container: container.name },
});

/** The newest operation on a container, as the list has it. */
async function operationOn({ container }: Pick<Target, 'container'>, state?: string): Promise<Answer> {
  return await eventually(`an operation on ${container.id}`, async () => {
    const { operations } = await node.api.ask('ListOperations', { states: state === undefined ? [] : [state] });
    return operations.find(({ metadata }: Answer) => metadata.target.container_id === container.id);
  });
}

/** As docs/api.md has it. */
function requestIdOf({ pod, container }: Pick<Target, 'pod' | 'container'>, checkpointId: string): string {
  return createHash('sha256').update([pod.uid, container.id, checkpointId].join('\n')).digest('hex').slice(0, 32);
}

test('what annotations ask for is seen and followed like any other operation', async () => {
  const source = await runSource(node.cluster, memory);
  const waiting = await operationOn(source, 'OPERATION_STATE_WAITING');
  expect(waiting).toMatchObject({
    done: false,
    metadata: {
      kind: 'OPERATION_KIND_CHECKPOINT',
      origin: 'OPERATION_ORIGIN_ANNOTATION',
      request_id: requestIdOf(source, source.id),
      checkpoint_id: source.id,
      waiting_for: 'ready-for-snapshot is not there yet',
      target: { ...targetOf(source).target, pod_uid: source.pod.uid },
    },
  });
  const watch = node.api.watch('WatchOperation', { name: waiting.name });
  await markReady(source.container);
  expect(await watch.ended).toBeUndefined();
  expect(node.requireSuccess(watch.seen.at(-1)).response).toMatchObject({ checkpoint_id: source.id, adopted: false });

  const target = await runTarget(node.cluster, source);
  const restore = await operationOn(target);
  expect(restore.metadata).toMatchObject({
    kind: 'OPERATION_KIND_RESTORE',
    origin: 'OPERATION_ORIGIN_ANNOTATION',
    request_id: requestIdOf(target, source.id),
  });
  node.requireSuccess(await node.end(restore.name));
  expect(await target.container.check()).toMatchObject({ check: 'ok' });
  await Promise.all([source.pod.remove(), target.pod.remove()]);
});

test('what annotations ask for is cancelled by a call, and never begun again', async () => {
  const source = await runSource(node.cluster, memory);
  const { name } = await operationOn(source, 'OPERATION_STATE_WAITING');
  const expectCancelled = ({ error }: Answer) =>
    expect(node.api.statusDetails(error)).toMatchObject({ code: status.CANCELLED, info: { reason: 'CANCELLED' } });
  await node.api.ask('CancelOperation', { name });
  expectCancelled(await node.end(name));

  // Neither now that it could be, nor by an agent that starts later, which knows what became of it.
  await markReady(source.container);
  await node.startAgain();
  expectCancelled(await node.api.ask('GetOperation', { name }));
  const other = await runSource(node.cluster, memory);
  await markReady(other.container);
  node.requireSuccess(await node.end((await operationOn(other)).name));
  const { operations } = await node.api.ask('ListOperations');
  const names = operations.filter(({ metadata }: Answer) => metadata.checkpoint_id === source.id);
  expect(names.map((one: Answer) => one.name)).toEqual([name]);

  // Until a call asks for it.
  await node.perform('Checkpoint', targetOf(source), { checkpoint_id: source.id });
  await Promise.all([source.pod.remove(), other.pod.remove()]);
});

test('on one container they come one after the other', async () => {
  const source = await runSource(node.cluster, memory);
  const annotated = await operationOn(source, 'OPERATION_STATE_WAITING');
  const called = await node.begin('Checkpoint', targetOf(source), { checkpoint_id: `${source.id}-called` });
  const ends = Promise.all([node.end(called.name), node.end(annotated.name)]);
  await markReady(source.container);
  const [first, second] = (await ends).map((operation) => node.requireSuccess(operation));
  const at = ({ seconds, nanos }: Answer) => seconds + nanos / 1e9;
  expect(at(second.metadata.start_time)).toBeGreaterThanOrEqual(at(first.metadata.end_time));
  await source.pod.remove();
});

test('a call on a container that an annotation keeps busy is told by which operation', async () => {
  held.gates.holdCriu('dump');
  const source = await runSource(node.cluster, memory);
  await markReady(source.container);
  await held.gates.reached('criu-dump');
  const { name } = await operationOn(source, 'OPERATION_STATE_RUNNING');
  const error = await failureOf(node.begin('Checkpoint', targetOf(source)));
  expect(error.code).toBe(status.ABORTED);
  expect(node.api.details(error)).toMatchObject({ info: { reason: 'TARGET_BUSY' }, retrySeconds: expect.any(Number) });
  expect(error.details).toContain(name);

  // It is cancelled in the midst of its work like one that was called for.
  const end = await held.cancel({ name });
  expect(node.api.statusDetails(end.error).info.reason).toBe('CANCELLED');
  expect(await source.container.check()).toMatchObject({ check: 'ok' });
  await node.perform('Checkpoint', targetOf(source));
  await source.pod.remove();
});
